//! Writing the many files of a restore beneath one folder.
//!
//! The names come out of an archive that somebody may have tampered with. So every path is walked part by
//! part from an open folder, and no part may be a symbolic link: nothing can be written outside, whatever
//! the archive holds and whatever happens in the directory meanwhile. Links that belong there (`pg_tblspc`,
//! `pg_wal`) are made by [`RestoreTree::symlink`] at the end; a tablespace elsewhere is a tree of its own.
//!
//! Paths are [`byte_text`]: their bytes need not be UTF-8.
//!
//! Folders that were walked to stay open, some of them: with 100,000 small files the walks would be most of
//! the work. A folder that is moved away meanwhile takes its files with it; nothing else is followed.
//!
//! Files get their mode and owner here, but are **not** flushed: a restore flushes once, at the end, by
//! [`crate::durable::sync_tree`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use wale_pg::byte_text;

use crate::byte_path::path_of_text;
use crate::error::ClusterError;
use crate::folder_names::FolderNames;
use crate::owner::Owner;

/// Permission bits of folders that are only implied by the path of a file in them.
const DIRECTORY_MODE: u32 = 0o700;

/// Folders in folders that a walk enters: a data directory has some four, and users' folders in it few more.
const DEPTH_MAX: usize = 64;

/// Folders kept open. A partition goes folder by folder, so a few for each worker are enough.
const OPEN_FOLDERS_MAX: usize = 64;

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a walk through a tree comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// What it is.
    pub kind: TreeKind,
    /// Its device and its inode: what it is by every name.
    pub identity: (u64, u64),
    /// Whether it has no second name.
    pub has_one_name: bool,
    /// Whether something is mounted there: what lies behind it is perhaps nobody's of this tree.
    pub is_mounted: bool,
}

/// What that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// A folder.
    Folder,
    /// A file, and its bytes.
    File(u64),
    /// A link, a socket, a pipe.
    Other,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays; a folder is entered.
    Stays,
    /// It goes; a folder is entered, and goes where nothing is left in it.
    Goes,
    /// Nobody looks at it: a folder is not entered.
    Ignored,
}

/// A folder to restore into.
#[derive(Debug)]
pub struct RestoreTree {
    root: OwnedFd,
    path: PathBuf,
    owner: Option<Owner>,
    /// By their path in the tree. Emptied whenever a link takes a folder's place or the tree is cleared.
    open_folders: Mutex<HashMap<String, Arc<OwnedFd>>>,
}

impl RestoreTree {
    /// Opens an existing folder. Everything made in it will belong to `owner`, or to this process.
    ///
    /// # Errors
    /// When it does not exist or is no directory. The folder itself may be reached by a link.
    pub fn open(path: &Path, owner: Option<Owner>) -> Result<Self, ClusterError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Self {
                root,
                path: path.to_path_buf(),
                owner,
                open_folders: Mutex::default(),
            }),
            Err(Errno::NOTDIR) => Err(ClusterError::NotADirectory {
                path: path.to_path_buf(),
            }),
            Err(error) => Err(ClusterError::io("open", path)(error.into())),
        }
    }

    /// Makes the folder if it does not exist (and those above it), and opens it.
    ///
    /// # Errors
    /// When it cannot be made, or something else has its name.
    pub fn create(path: &Path, mode: u32, owner: Option<Owner>) -> Result<Self, ClusterError> {
        match std::fs::create_dir_all(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ClusterError::NotADirectory {
                    path: path.to_path_buf(),
                });
            }
            Err(error) => return Err(ClusterError::io("write", path)(error)),
        }
        let tree = Self::open(path, owner)?;
        tree.finish(&tree.root, mode)
            .map_err(ClusterError::io("write", path))?;
        Ok(tree)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder with these permission bits, and those above it; one that exists gets the bits. An empty
    /// path is the tree itself.
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`.
    pub fn create_directory(&self, relative: &str, mode: u32) -> Result<(), ClusterError> {
        let mut folder = self.root()?;
        for part in self.parts(relative)? {
            folder = self.enter(&folder, part, relative)?;
        }
        self.finish(&folder, mode)
            .map_err(ClusterError::io("write", &self.path_of(relative)))
    }

    /// Makes an empty file with these permission bits for writing, and the folders above it. A file that
    /// exists is replaced (not overwritten: a process that has it open keeps the old one).
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`.
    pub fn create_file(&self, relative: &str, mode: u32) -> Result<File, ClusterError> {
        let (folder, name) = self.parent(relative)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            rustix::fs::openat(
                &folder,
                &*byte_text::to_bytes(name),
                flags,
                Mode::from_raw_mode(mode & 0o7777),
            )
        };
        let make = || -> io::Result<File> {
            let file = match open() {
                Err(Errno::EXIST) => {
                    remove_file_at(&folder, name)?;
                    open()?
                }
                other => other?,
            };
            self.finish(&file, mode)?;
            Ok(File::from(file))
        };
        make().map_err(|error| ClusterError::io("write", &self.path_of(relative))(error))
    }

    /// Opens a file for reading. A link is not followed.
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`, also for what is no file.
    pub fn open_file(&self, relative: &str) -> Result<File, ClusterError> {
        self.open_as(relative, OFlags::RDONLY)
    }

    /// Opens a file that was made here, to change its content. A link is not followed.
    ///
    /// # Errors
    /// As [`RestoreTree::open_file`].
    pub fn change_file(&self, relative: &str) -> Result<File, ClusterError> {
        self.open_as(relative, OFlags::WRONLY)
    }

    fn open_as(&self, relative: &str, access: OFlags) -> Result<File, ClusterError> {
        let (folder, name) = self.parent(relative)?;
        // A pipe without a writer would wait forever.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || -> io::Result<File> {
            let file =
                rustix::fs::openat(&folder, &*byte_text::to_bytes(name), flags, Mode::empty())
                    .map(File::from)?;
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            }
        };
        let what = if access == OFlags::RDONLY {
            "read"
        } else {
            "write"
        };
        open().map_err(ClusterError::io(what, &self.path_of(relative)))
    }

    /// Removes a file or a link, durably. Nothing happens where it, or a folder above it, does not exist.
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`.
    pub fn remove_file(&self, relative: &str) -> Result<(), ClusterError> {
        let Some((folder, name)) = self.found_parent(relative)? else {
            return Ok(());
        };
        let remove = || -> io::Result<()> {
            remove_file_at(&folder, name)?;
            sync_folder(&folder)
        };
        remove().map_err(ClusterError::io("remove", &self.path_of(relative)))
    }

    /// Gives a file or a link another name in its folder, durably; what had that name is replaced. `false` where it, or a folder
    /// above it, does not exist.
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`.
    pub fn rename_file(&self, relative: &str, to: &str) -> Result<bool, ClusterError> {
        let Some((folder, name)) = self.found_parent(relative)? else {
            return Ok(false);
        };
        let rename = || -> io::Result<bool> {
            let (from, to) = (byte_text::to_bytes(name), byte_text::to_bytes(to));
            match rustix::fs::renameat(&folder, &*from, &folder, &*to) {
                Ok(()) => sync_folder(&folder).map(|()| true),
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        rename().map_err(ClusterError::io("rename", &self.path_of(relative)))
    }

    /// Device and inode of the tree itself.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn identity(&self) -> Result<(u64, u64), ClusterError> {
        rustix::fs::fstat(&self.root)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(|error| ClusterError::io("look at", &self.path)(error.into()))
    }

    /// The folder that a path's last part lies in, and that part; `None` where there is no such folder.
    fn found_parent<'a>(
        &self,
        relative: &'a str,
    ) -> Result<Option<(OwnedFd, &'a str)>, ClusterError> {
        let mut parts = self.parts(relative)?;
        let name = parts.pop().ok_or_else(|| self.outside(relative))?;
        let mut folder = self.root()?;
        for part in parts {
            folder = match rustix::fs::openat(
                &folder,
                &*byte_text::to_bytes(part),
                DIRECTORY_FLAGS,
                Mode::empty(),
            ) {
                Ok(inner) => inner,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(self.outside(relative)),
                Err(error) => {
                    return Err(ClusterError::io("open", &self.path_of(relative))(
                        error.into(),
                    ));
                }
            };
        }
        Ok(Some((folder, name)))
    }

    /// Makes a symbolic link that holds `target` as it stands, replacing a file, a link or an empty folder.
    ///
    /// # Errors
    /// `OutsideOfTree` for a path that leads out; `Io`.
    pub fn symlink(&self, relative: &str, target: &Path) -> Result<(), ClusterError> {
        let (folder, name) = self.parent(relative)?;
        let path = self.path_of(relative);
        self.open_folders().clear();
        let make = || -> io::Result<()> {
            match remove_file_at(&folder, name) {
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    rustix::fs::unlinkat(&folder, &*byte_text::to_bytes(name), AtFlags::REMOVEDIR)?;
                }
                other => other?,
            }
            rustix::fs::symlinkat(target, &folder, &*byte_text::to_bytes(name))?;
            if let Some(owner) = self.owner.filter(|_| rustix::process::geteuid().is_root()) {
                rustix::fs::chownat(
                    &folder,
                    &*byte_text::to_bytes(name),
                    Some(rustix::fs::Uid::from_raw(owner.uid)),
                    Some(rustix::fs::Gid::from_raw(owner.gid)),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            Ok(())
        };
        make().map_err(ClusterError::io("write", &path))
    }

    /// Removes everything in the tree but the names in `keep` (of its first level): what an interrupted
    /// restore left. Links are removed, not followed. A folder that cannot be removed because something is
    /// mounted there is emptied.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self, keep: &[&str]) -> Result<(), ClusterError> {
        self.clear_where(|name| !keep.iter().any(|kept| name == *kept))
    }

    /// As [`RestoreTree::clear`], for the names of the first level of which `ours` says so.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear_where(&self, ours: impl Fn(&OsStr) -> bool) -> Result<(), ClusterError> {
        self.open_folders().clear();
        let entries =
            std::fs::read_dir(&self.path).map_err(ClusterError::io("list", &self.path))?;
        for entry in entries {
            let entry = entry.map_err(ClusterError::io("list", &self.path))?;
            let name = entry.file_name();
            if name == "lost+found" || !ours(&name) {
                continue;
            }
            let path = entry.path();
            remove_all(&path).map_err(ClusterError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Shows everything in the tree to `judge`, by its path in it and in the order of names, and does what `judge` says. No link is
    /// followed. What is removed is not flushed.
    ///
    /// Memory: the names of one folder and of those above it, some 16 bytes each.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn walk(&self, judge: &mut dyn FnMut(&str, TreeEntry) -> Fate) -> Result<(), ClusterError> {
        self.open_folders().clear();
        self.walk_folder(&self.root()?, "", 0, judge)
    }

    fn walk_folder(
        &self,
        folder: &OwnedFd,
        above: &str,
        depth: usize,
        judge: &mut dyn FnMut(&str, TreeEntry) -> Fate,
    ) -> Result<(), ClusterError> {
        let failed = |what: &'static str, path: &str, error: Errno| {
            ClusterError::io(what, &self.path_of(path))(error.into())
        };
        if depth > DEPTH_MAX {
            return Err(failed("list", above, Errno::NAMETOOLONG));
        }
        let names = names_in(folder)
            .map_err(|error| ClusterError::io("list", &self.path_of(above))(error))?;
        let device = rustix::fs::fstat(folder)
            .map_err(|error| failed("look at", above, error))?
            .st_dev;
        for (name, ()) in names.iter() {
            let path = match above {
                "" => name.to_owned(),
                above => format!("{above}/{name}"),
            };
            let raw = byte_text::to_bytes(name);
            let found = match rustix::fs::statat(folder, &*raw, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entry(folder, device, &raw, &stat),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed("look at", &path, error)),
            };
            let fate = judge(&path, found);
            if found.kind == TreeKind::Folder && fate != Fate::Ignored {
                let inner = rustix::fs::openat(folder, &*raw, DIRECTORY_FLAGS, Mode::empty())
                    .map_err(|error| failed("open", &path, error))?;
                self.walk_folder(&inner, &path, depth + 1, judge)?;
            }
            if fate != Fate::Goes {
                continue;
            }
            let flags = match found.kind {
                TreeKind::Folder => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            match rustix::fs::unlinkat(folder, &*raw, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Something stays in it, or it is a volume of its own.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY)
                    if found.kind == TreeKind::Folder => {}
                Err(error) => return Err(failed("remove", &path, error)),
            }
        }
        Ok(())
    }

    fn root(&self) -> Result<OwnedFd, ClusterError> {
        rustix::fs::openat(&self.root, ".", DIRECTORY_FLAGS, Mode::empty())
            .map_err(|error| ClusterError::io("open", &self.path)(error.into()))
    }

    /// The parts of a path, each of them a plain name.
    fn parts<'a>(&self, relative: &'a str) -> Result<Vec<&'a str>, ClusterError> {
        if relative.is_empty() {
            return Ok(Vec::new());
        }
        let parts: Vec<_> = relative.split('/').collect();
        let plain = |part: &&str| !matches!(*part, "" | "." | "..") && !part.contains('\0');
        if parts.iter().all(plain) {
            Ok(parts)
        } else {
            Err(self.outside(relative))
        }
    }

    /// The folder that a path's last part lies in, made if need be, and that part.
    fn parent<'a>(&self, relative: &'a str) -> Result<(Arc<OwnedFd>, &'a str), ClusterError> {
        let mut parts = self.parts(relative)?;
        let name = parts.pop().ok_or_else(|| self.outside(relative))?;
        let above = relative[..relative.len() - name.len()].trim_end_matches('/');
        if let Some(folder) = self.open_folders().get(above) {
            return Ok((Arc::clone(folder), name));
        }
        let mut folder = self.root()?;
        for part in parts {
            folder = self.enter(&folder, part, relative)?;
        }
        let folder = Arc::new(folder);
        let mut open = self.open_folders();
        if open.len() >= OPEN_FOLDERS_MAX {
            open.clear();
        }
        open.insert(above.to_owned(), Arc::clone(&folder));
        Ok((folder, name))
    }

    fn open_folders(&self) -> MutexGuard<'_, HashMap<String, Arc<OwnedFd>>> {
        self.open_folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a folder in a folder, made if need be.
    fn enter(&self, folder: &OwnedFd, part: &str, relative: &str) -> Result<OwnedFd, ClusterError> {
        let failed =
            |error: Errno| ClusterError::io("write", &self.path_of(relative))(error.into());
        match rustix::fs::openat(
            folder,
            &*byte_text::to_bytes(part),
            DIRECTORY_FLAGS,
            Mode::empty(),
        ) {
            Ok(inner) => Ok(inner),
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(DIRECTORY_MODE);
                match rustix::fs::mkdirat(folder, &*byte_text::to_bytes(part), mode) {
                    // Another thread of the same restore may have been faster.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                let inner = rustix::fs::openat(
                    folder,
                    &*byte_text::to_bytes(part),
                    DIRECTORY_FLAGS,
                    Mode::empty(),
                )
                .map_err(failed)?;
                if let Some(owner) = self.owner {
                    owner
                        .give(&inner)
                        .map_err(ClusterError::io("write", &self.path_of(relative)))?;
                }
                Ok(inner)
            }
            // With NOFOLLOW and DIRECTORY a link is one or the other, depending on the kernel.
            Err(Errno::LOOP | Errno::NOTDIR) => Err(self.outside(relative)),
            Err(error) => Err(failed(error)),
        }
    }

    fn finish(&self, file: impl AsFd, mode: u32) -> io::Result<()> {
        if let Some(owner) = self.owner {
            owner.give(&file)?;
        }
        // After the owner: a change of owner clears set-id bits, and the umask must not count.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        Ok(())
    }

    /// Where a path of the tree is, for messages.
    fn path_of(&self, relative: &str) -> PathBuf {
        self.path.join(path_of_text(relative))
    }

    fn outside(&self, relative: &str) -> ClusterError {
        ClusterError::OutsideOfTree {
            root: self.path.clone(),
            relative: relative.to_owned(),
        }
    }
}

/// What a name in a folder is, which lies on `device`.
fn entry(folder: &OwnedFd, device: u64, name: &[u8], stat: &Stat) -> TreeEntry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => TreeKind::Folder,
        FileType::RegularFile => TreeKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        _ => TreeKind::Other,
    };
    // Files of one overlay may be of two devices; folders are not. The kernel knows of mounts of the same device, from 5.8 on.
    let is_other_device = kind == TreeKind::Folder && stat.st_dev != device;
    let told = || {
        rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    };
    TreeEntry {
        kind,
        identity: (stat.st_dev, stat.st_ino),
        has_one_name: stat.st_nlink == 1,
        is_mounted: is_other_device || told(),
    }
}

/// The names in a folder, sorted.
fn names_in(folder: &OwnedFd) -> io::Result<FolderNames<()>> {
    let mut names = FolderNames::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(&byte_text::from_bytes(name), ())?;
        }
    }
    names.sort();
    Ok(names)
}

fn remove_file_at(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, &*byte_text::to_bytes(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Some file systems cannot flush folders at all, as in [`crate::durable`].
fn sync_folder(folder: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a restore flushes its tree once, at its end"
)]
fn remove_all(path: &Path) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return std::fs::remove_file(path);
    }
    match std::fs::remove_dir_all(path) {
        // A mount point, now empty.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                if entry.file_name() != "lost+found" {
                    remove_all(&entry.path())?;
                }
            }
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, RestoreTree) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let tree = RestoreTree::create(&path, 0o700, Some(Owner::of_process())).unwrap();
        (folder, tree)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_and_folders_get_their_modes() {
        let (_folder, tree) = tree();
        let mut file = tree.create_file("base/1/1259", 0o640).unwrap();
        file.write_all(b"x").unwrap();
        tree.create_directory("base", 0o750).unwrap();
        tree.create_directory("", 0o750).unwrap();
        assert_eq!(mode(&tree.path().join("base/1/1259")), 0o640);
        assert_eq!(mode(&tree.path().join("base")), 0o750);
        assert_eq!(mode(&tree.path().join("base/1")), 0o700);
        assert_eq!(mode(tree.path()), 0o750);
        tree.create_file("base/1/1259", 0o600).unwrap();
        assert_eq!(std::fs::read(tree.path().join("base/1/1259")).unwrap(), b"");
    }

    /// Fault 64 of the battery, the paths.
    #[test]
    fn no_path_leads_out() {
        let (folder, tree) = tree();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, tree.path().join("link")).unwrap();
        symlink("../outside", tree.path().join("relative")).unwrap();
        let paths = [
            "../outside/x",
            "/etc/x",
            "base/../../outside/x",
            "base//x",
            "./x",
            "base/.",
            "..",
            "x\0y",
            "link/x",
            "relative/x",
            "link/sub/x",
        ];
        for path in paths {
            let results = [
                tree.create_file(path, 0o600).err(),
                tree.create_directory(path, 0o700).err(),
                tree.open_file(path).err(),
                tree.symlink(path, Path::new("/")).err(),
            ];
            for result in results {
                assert!(
                    matches!(result, Some(ClusterError::OutsideOfTree { .. })),
                    "{path:?}: {result:?}"
                );
            }
        }
        assert!(tree.create_file("", 0o600).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn fault_81_names_are_bytes() {
        let (_folder, tree) = tree();
        let text = byte_text::from_bytes(b"d\xe9/\xff").into_owned();
        tree.create_file(&text, 0o600).unwrap();
        let path = tree.path().join(OsStr::from_bytes(b"d\xe9/\xff"));
        assert!(path.is_file());
        let link = byte_text::from_bytes(b"\xfe");
        tree.symlink(&link, Path::new("/x")).unwrap();
        assert!(tree.path().join(OsStr::from_bytes(b"\xfe")).is_symlink());
    }

    #[test]
    fn a_file_replaces_a_planted_link_and_does_not_follow_it() {
        let (folder, tree) = tree();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, b"old").unwrap();
        symlink(&outside, tree.path().join("file")).unwrap();
        let mut file = tree.create_file("file", 0o600).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"old");
        assert!(
            std::fs::symlink_metadata(tree.path().join("file"))
                .unwrap()
                .is_file()
        );
    }

    #[test]
    fn links_replace_empty_folders() {
        let (_folder, tree) = tree();
        tree.create_directory("pg_wal", 0o700).unwrap();
        tree.symlink("pg_wal", Path::new("/wal")).unwrap();
        tree.symlink("pg_wal", Path::new("/other")).unwrap();
        let target = std::fs::read_link(tree.path().join("pg_wal")).unwrap();
        assert_eq!(target, Path::new("/other"));
        tree.create_file("base/1", 0o600).unwrap();
        assert!(tree.symlink("base", Path::new("/x")).is_err());
    }

    #[test]
    fn clearing_keeps_what_it_is_told() {
        let (folder, tree) = tree();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), b"").unwrap();
        tree.create_file("base/1/2", 0o600).unwrap();
        tree.create_file("wale_restore.json", 0o600).unwrap();
        tree.create_directory("lost+found", 0o700).unwrap();
        tree.symlink("pg_wal", &outside).unwrap();
        tree.clear(&["wale_restore.json"]).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(tree.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["lost+found", "wale_restore.json"]);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_walk_removes_what_it_is_told_and_follows_no_link() {
        let (folder, tree) = tree();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "x").unwrap();
        let data = tree.path();
        for path in ["base/1", "base/2/deep", "left/x", "empty"] {
            std::fs::create_dir_all(data.join(path)).unwrap();
        }
        for path in ["base/1/kept", "base/1/gone", "base/2/deep/gone", "left/x/y"] {
            std::fs::write(data.join(path), "abc").unwrap();
        }
        symlink(&outside, data.join("base/link")).unwrap();
        symlink(outside.join("precious"), data.join("base/file")).unwrap();
        let mut seen = Vec::new();
        tree.walk(&mut |path, found| {
            assert!(!found.is_mounted, "{path}");
            seen.push((path.to_owned(), found.kind));
            match path {
                "left" => Fate::Ignored,
                "base/1/kept" => Fate::Stays,
                _ => Fate::Goes,
            }
        })
        .unwrap();
        assert!(seen.contains(&("base/1/kept".to_owned(), TreeKind::File(3))));
        assert!(seen.contains(&("base/link".to_owned(), TreeKind::Other)));
        assert!(
            !seen
                .iter()
                .any(|(path, _)| path.contains("precious") || path == "left/x")
        );
        let there = |path: &str| data.join(path).symlink_metadata().is_ok();
        assert!(there("base/1/kept") && there("left/x/y"));
        for gone in ["base/1/gone", "base/2", "base/link", "base/file", "empty"] {
            assert!(!there(gone), "{gone}");
        }
        assert!(outside.join("precious").exists());
    }
}
