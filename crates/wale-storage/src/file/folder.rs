//! Folders of the file store: finding them without following links, making them durably, removing them.
//!
//! Every call opens the root anew and walks down from it one component at a time with `O_NOFOLLOW`. So no
//! link planted in the archive leads out of it, a volume that was unmounted is noticed, and one that comes
//! back is used again without a restart.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::errno::{failed, in_the_way};
use crate::StoreError;

/// Folders remembered as durable: 4,096 paths of some 60 bytes are 256 KiB. When there are more the memory
/// is emptied, which costs an fsync per folder and nothing else.
const DURABLE_FOLDERS_MAX: usize = 4096;

/// How folders are opened. `NOFOLLOW` is what keeps a walk beneath the root.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const IS_LINK: &str = "it is a symbolic link, which the file store does not follow";

/// The folder that holds a store.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    location: String,
    /// Whether the root was ever seen to be a mount point.
    mounted: AtomicBool,
    /// Folders whose entry in their parent is known to be durable.
    durable: Mutex<HashSet<String>>,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            location: format!("file://{}", path.display()),
            path,
            mounted: AtomicBool::new(false),
            durable: Mutex::new(HashSet::new()),
        }
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Turns an error number into an error of this store.
    pub(super) fn failed(&self, what: impl Into<String>, errno: Errno) -> StoreError {
        failed(&self.location, what, errno)
    }

    /// Makes the root and the parents it lacks, each made durable in its parent.
    pub(super) fn create(&self) -> Result<(), StoreError> {
        let mut path = PathBuf::new();
        for component in self.path.components() {
            path.push(component);
            if let Component::Normal(_) = component {
                self.create_one(&path)?;
            }
        }
        Ok(())
    }

    fn create_one(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |errno| self.failed(format!("folder {}", path.display()), errno);
        // Asked first: on a read-only file system `mkdir` of what exists answers EROFS.
        match rustix::fs::stat(path) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = rustix::fs::open(parent, FOLDER - OFlags::NOFOLLOW, Mode::empty());
        parent.and_then(sync_folder).map_err(failed)
    }

    /// Opens the root itself. It may be a link, for the operator chose it.
    ///
    /// A root that is missing is a volume that is not mounted, not an empty store. The same holds for a
    /// root that was a mount point when it was last seen and is none now.
    pub(super) fn open(&self) -> Result<OwnedFd, StoreError> {
        let gone = |reason: &str| StoreError::unavailable(self.location.clone(), reason);
        let flags = FOLDER - OFlags::NOFOLLOW;
        let root = match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOENT) => return Err(gone("the folder does not exist")),
            Err(Errno::NOTDIR) => return Err(gone("it is not a folder")),
            Err(errno) => return Err(self.failed(format!("folder {}", self.path.display()), errno)),
        };
        let device = |errno| self.failed(format!("folder {}", self.path.display()), errno);
        let own = rustix::fs::fstat(&root).map_err(device)?;
        let parent = rustix::fs::statat(&root, "..", AtFlags::empty()).map_err(device)?;
        if own.st_dev != parent.st_dev {
            self.mounted.store(true, Ordering::Relaxed);
        } else if self.mounted.load(Ordering::Relaxed) {
            return Err(gone("its volume is no longer mounted"));
        }
        Ok(root)
    }

    /// Opens the folder below the root at `folders`; `None` when there is none.
    pub(super) fn folder(&self, folders: &[&str]) -> Result<Option<OwnedFd>, StoreError> {
        let mut folder = self.open()?;
        let mut path = String::new();
        for name in folders {
            path.push_str(name);
            match self.enter(&folder, name, &path)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
            path.push('/');
        }
        Ok(Some(folder))
    }

    /// Opens one folder of a folder; `None` when there is none of this name. `path` is for messages.
    pub(super) fn enter(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
    ) -> Result<Option<OwnedFd>, StoreError> {
        match rustix::fs::openat(parent, name, FOLDER, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            // A link answers so, and a file. Behind a file there is nothing, but what is behind a link
            // cannot be said without following it.
            Err(Errno::NOTDIR | Errno::LOOP) => match self.kind(parent, name, path)? {
                Some(FileType::Symlink) => Err(in_the_way(format!("folder {path}"), IS_LINK)),
                _ => Ok(None),
            },
            Err(errno) => Err(self.failed(format!("folder {path}"), errno)),
        }
    }

    fn kind(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
    ) -> Result<Option<FileType>, StoreError> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Opens the folder at `folders`, makes what is missing of it, and answers when all of it is durable.
    ///
    /// A folder that exists already may have been made a moment ago by another thread, or by a process
    /// that was killed before its fsync. So the first use of each folder in this process syncs its parent,
    /// no matter who made it.
    pub(super) fn folder_for_write(&self, folders: &[&str]) -> Result<OwnedFd, StoreError> {
        let mut folder = self.open()?;
        let mut durable = self.durable();
        let mut path = String::new();
        for name in folders {
            path.push_str(name);
            let (next, made) = self.enter_or_make(&folder, name, &path)?;
            if made || !durable.contains(&path) {
                sync_folder(&folder)
                    .map_err(|errno| self.failed(format!("folder {path}"), errno))?;
                if durable.len() >= DURABLE_FOLDERS_MAX {
                    durable.clear();
                }
                durable.insert(path.clone());
            }
            folder = next;
            path.push('/');
        }
        Ok(folder)
    }

    fn enter_or_make(
        &self,
        parent: &OwnedFd,
        name: &str,
        path: &str,
    ) -> Result<(OwnedFd, bool), StoreError> {
        if let Some(folder) = self.enter(parent, name, path)? {
            return Ok((folder, false));
        }
        let made = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.failed(format!("folder {path}"), errno)),
        };
        match self.enter(parent, name, path)? {
            Some(folder) => {
                if made {
                    give(&folder, parent);
                }
                Ok((folder, made))
            }
            None => Err(in_the_way(
                format!("folder {path}"),
                "there is something of this name that is no folder",
            )),
        }
    }

    /// Removes folders that became empty, from the deepest up to but not including the root. It is
    /// tidying: that a folder stays is no error.
    pub(super) fn remove_empty(&self, folders: &[&str]) {
        // Under the lock, so that nobody in this process takes a folder for durable that is being removed
        // and made again.
        let mut durable = self.durable();
        for depth in (1..=folders.len()).rev() {
            let (name, parents) = (folders[depth - 1], &folders[..depth - 1]);
            let Ok(Some(parent)) = self.folder(parents) else {
                return;
            };
            durable.remove(&folders[..depth].join("/"));
            if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<String>> {
        // A panic while it is held would leave a set of folders that are durable indeed.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives what root has just made to the owner of the folder in which it lies. A verb that is run once as root would else leave
/// objects that the sidecar, another user, cannot read, and its every listing would fail.
///
/// A file system that does not let root do that (NFS with `root_squash`) decides itself who owns what.
pub(super) fn give(made: impl std::os::fd::AsFd, folder: impl std::os::fd::AsFd) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(owner) = rustix::fs::fstat(folder)
        && owner.st_uid != 0
    {
        let uid = rustix::process::Uid::from_raw(owner.st_uid);
        let gid = rustix::process::Gid::from_raw(owner.st_gid);
        let _ = rustix::fs::fchown(made, Some(uid), Some(gid));
    }
}

/// Makes the entries of a folder durable.
///
/// Some network and user-space file systems have no such call for folders and say EINVAL or EBADF; there
/// the entry is as durable as it can be. `PostgreSQL` ignores the same two (`fsync_fname_ext` in `fd.c`).
pub(super) fn sync_folder(folder: impl std::os::fd::AsFd) -> Result<(), Errno> {
    match rustix::fs::fsync(folder) {
        Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
        Err(errno) => Err(errno),
    }
}
