//! One file on its way into the store: temporary name, content, fsync, final name, fsync of the folder.
//!
//! The order is the point. The content is durable before the name exists, and the name is durable before
//! anyone is told. A process that is killed leaves at most a temporary file, which no verb shows.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::errno::{in_the_way, object};
use super::folder::{Root, give, sync_folder};
use crate::key::TEMPORARY_SUFFIX;
use crate::{ObjectKey, StoreError};

/// Bytes of an object's name that go into its temporary name: 255, the longest file name, less 38 for
/// two dots, a process id of 10 digits, a dot, a number of 16 digits and the suffix of 9, rounded down.
const NAME_BYTES_KEPT: usize = 200;

/// Why a name cannot be an object's.
const NO_FILE: &str = "there is something of this name that is no file";

/// Numbers of temporary files. They start anywhere: in a container every process has the same id, and
/// a restarted one is not to meet the names of its predecessor.
static COUNTER: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));

/// What to do about an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    Replace,
    IfAbsent,
}

/// After so many bytes the disk is given what was written, while the next come. 8 MiB: large enough for one long write; of a large
/// object little is left to wait for in the end. WAL is smaller, and read again soon: its copy is compared.
const WRITE_OUT_BYTES: u64 = 8 << 20;

/// What became of a file that was placed.
#[derive(Debug)]
pub(super) enum Placed {
    Created(Stat),
    Exists,
}

/// A file under its temporary name. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Pending {
    folder: OwnedFd,
    temporary: String,
    file: File,
    written: u64,
    /// How much of it the disk was given.
    given: u64,
    placed: bool,
}

impl Pending {
    /// Makes the temporary file for an object called `name` in `folder`, readable by its owner only.
    fn create(folder: OwnedFd, name: &str) -> Result<Self, Errno> {
        const TRIES: usize = 100;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            let temporary = temporary_name(name);
            match rustix::fs::openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => {
                    give(&file, &folder);
                    return Ok(Self {
                        folder,
                        temporary,
                        file: file.into(),
                        written: 0,
                        given: 0,
                        placed: false,
                    });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Appends content.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> std::io::Result<()> {
        for piece in pieces {
            self.file.write_all(piece)?;
            self.written += piece.len() as u64;
        }
        let waiting = self.written - self.given;
        if waiting >= WRITE_OUT_BYTES {
            self.not_needed(self.given, waiting);
            self.given = self.written;
        }
        Ok(())
    }

    /// Linux begins to write dirty pages that are no longer needed, and drops those that were written: the server beside us needs the
    /// cache more than an archive that nobody reads. Elsewhere nothing is lost by it.
    fn not_needed(&self, from: u64, bytes: u64) {
        let _ = rustix::fs::fadvise(&self.file, from, NonZeroU64::new(bytes), Advice::DontNeed);
    }

    /// Makes the content durable, gives it its name, and makes that durable.
    pub(super) fn place(mut self, name: &str, placing: Placing) -> Result<Placed, Errno> {
        // fdatasync writes the length too; what it leaves out is the time stamp.
        rustix::fs::fdatasync(&self.file)?;
        if self.given > 0 {
            self.not_needed(0, self.written);
        }
        let stat = rustix::fs::fstat(&self.file)?;
        match placing {
            Placing::Replace => {
                rustix::fs::renameat(&self.folder, &self.temporary, &self.folder, name)?;
                self.placed = true;
            }
            Placing::IfAbsent => {
                if !self.place_if_absent(name)? {
                    sync_existing(&self.folder, name)?;
                    return Ok(Placed::Exists);
                }
            }
        }
        sync_folder(&self.folder)?;
        Ok(Placed::Created(stat))
    }

    /// Gives the file its name unless that is taken; answers whether it did.
    fn place_if_absent(&mut self, name: &str) -> Result<bool, Errno> {
        let (folder, temporary) = (&self.folder, &self.temporary);
        match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.placed = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // NFS and many user-space file systems know no flags for rename, but they have hard links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_if_absent(name),
            Err(errno) => Err(errno),
        }
    }

    /// As [`Pending::place_if_absent`], with a second name for the file instead of a new one. The
    /// temporary name is removed by drop.
    fn link_if_absent(&self, name: &str) -> Result<bool, Errno> {
        let (folder, temporary) = (&self.folder, &self.temporary);
        match rustix::fs::linkat(folder, temporary, folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // On NFS the reply to a link may be lost; asked again the server finds the name taken, by us.
            // The number of names of our file shows it (open(2), on O_EXCL).
            Err(Errno::EXIST) => Ok(rustix::fs::fstat(&self.file)?.st_nlink > 1),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.placed {
            // A failure leaves a file that no verb shows and that the next sweep removes.
            let _ = rustix::fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
    }
}

/// Makes folders and a temporary file for an object; `None` when it exists and is not to be replaced.
pub(super) fn prepare(
    root: &Root,
    key: &ObjectKey,
    placing: Placing,
) -> Result<Option<Pending>, StoreError> {
    /// How often a folder may be removed by another process between its opening and the first file in it.
    const TRIES: usize = 10;
    let failed = |errno| root.failed(object(key), errno);
    let (folders, name) = key.split();
    for _ in 0..TRIES {
        let folder = root.folder_for_write(&folders)?;
        match look(&folder, name).map_err(failed)? {
            Some(FileType::RegularFile) if placing == Placing::IfAbsent => {
                match sync_existing(&folder, name) {
                    Ok(_) => return Ok(None),
                    // Deleted just now, so it is absent after all.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            None | Some(FileType::RegularFile) => {}
            Some(_) => {
                return Err(in_the_way(object(key), NO_FILE));
            }
        }
        match Pending::create(folder, name) {
            Ok(pending) => return Ok(Some(pending)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::NOENT))
}

/// Makes an existing object durable, and returns what it is; `None` when there is none. Writes nothing of its own.
pub(super) fn make_durable(root: &Root, key: &ObjectKey) -> Result<Option<Stat>, StoreError> {
    let failed = |errno| root.failed(object(key), errno);
    let (folders, name) = key.split();
    let Some(folder) = root.folder(&folders)? else {
        return Ok(None);
    };
    match look(&folder, name).map_err(failed)? {
        // A folder of this name holds other objects; there is none of this name itself.
        None | Some(FileType::Directory) => Ok(None),
        Some(FileType::RegularFile) => match sync_existing(&folder, name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
        },
        Some(_) => Err(in_the_way(object(key), NO_FILE)),
    }
}

/// Checks whether `name` is there, before any work is done for it.
fn look(folder: &OwnedFd, name: &str) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes an object durable that someone else has stored. "It exists" is a promise too: its writer may
/// have been killed between rename and fsync, or may be a tool that never calls fsync.
fn sync_existing(folder: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    rustix::fs::fdatasync(&file)?;
    let stat = rustix::fs::fstat(&file)?;
    sync_folder(folder)?;
    Ok(stat)
}

fn temporary_name(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_KEPT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let kept = &name[..end];
    let process = std::process::id();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{kept}.{process}.{number:x}{TEMPORARY_SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::is_temporary;

    fn folder(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opens")
    }

    fn names(path: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("reads");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("reads")
                    .file_name()
                    .into_string()
                    .expect("utf-8")
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn temporary_names_are_short_and_known_as_such() {
        for name in ["a", &"é".repeat(127), &"x".repeat(255)] {
            let temporary = temporary_name(name);
            assert!(is_temporary(&temporary), "{temporary}");
            assert!(temporary.len() <= 255, "{temporary}");
        }
        assert_ne!(temporary_name("a"), temporary_name("a"));
    }

    #[test]
    fn links_serve_where_rename_has_no_flags() {
        let root = tempfile::tempdir().expect("made");
        for (content, created) in [("first", true), ("second", false)] {
            let mut pending = Pending::create(folder(root.path()), "a").expect("made");
            pending.write(&[Bytes::from(content)]).expect("written");
            assert_eq!(pending.link_if_absent("a").expect("asked"), created);
            // The answer to a lost reply: the name is taken, and it is ours.
            assert_eq!(pending.link_if_absent("a").expect("asked"), created);
            drop(pending);
            assert_eq!(names(root.path()), ["a"]);
            let stored = std::fs::read_to_string(root.path().join("a")).expect("reads");
            assert_eq!(stored, "first");
        }
    }

    #[test]
    fn a_pending_file_is_private_and_removed_when_dropped() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("made");
        let pending = Pending::create(folder(root.path()), "a").expect("made");
        let mode = pending.file.metadata().expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(root.path()).len(), 1);
        drop(pending);
        assert_eq!(names(root.path()), Vec::<String>::new());
    }

    #[test]
    fn fault_81_what_root_stores_belongs_to_the_owner_of_the_archive() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().expect("made");
        let nobody = 65_534;
        // A user who is not root stores under their own name.
        let _ = std::os::unix::fs::chown(folder.path(), Some(nobody), Some(nobody));
        let owner = std::fs::metadata(folder.path()).expect("stat").uid();
        let root = Root::new(folder.path().to_owned());
        let key = ObjectKey::new("a/b/c").expect("a key");
        let prepared = prepare(&root, &key, Placing::IfAbsent).expect("prepared");
        let mut pending = prepared.expect("absent");
        pending.write(&[Bytes::from_static(b"x")]).expect("written");
        pending.place("c", Placing::IfAbsent).expect("placed");
        for name in ["a", "a/b", "a/b/c"] {
            let metadata = std::fs::metadata(folder.path().join(name)).expect("stat");
            assert_eq!(metadata.uid(), owner, "{name}");
        }
    }
}
