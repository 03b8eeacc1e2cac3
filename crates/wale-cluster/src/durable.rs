//! Writes that survive a crash, and that appear whole or not at all.
//!
//! The only module of this room that changes files by path (the others are [`crate::restore_tree`], for the
//! many files of a restore, which are flushed together at the end by [`sync_tree`], and [`crate::hand_over`]).
//!
//! ```text
//! temp file in the same folder → write → fsync → rename → fsync of the folder
//! ```
//!
//! Invariants: the final name never shows half a file; a failure or a drop before `commit` removes the temp
//! file; a crash leaves at most a file whose name [`is_temporary_name`] knows, which a walk of the data
//! directory leaves out and a check for an empty directory overlooks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::owner::Owner;

const TEMPORARY_SUFFIX: &str = ".wale-tmp";

/// Longest part of the final name that is repeated in the temp name: `NAME_MAX` is 255 bytes, and dot, process
/// id, counter and suffix take less than 55.
const NAME_PART_MAX: usize = 200;

/// How many names are tried when an earlier process (in a container often with the same id) left its own.
const NAME_TRIES: usize = 1000;

/// What `statfs` says of a file system in user space (`FUSE_SUPER_MAGIC` of linux/magic.h). The kernel answers `syncfs`
/// there without asking it.
const FUSE: rustix::fs::FsWord = 0x6573_5546;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Whether a file name is one of this module's temp files.
#[must_use]
pub fn is_temporary_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX)
}

/// A file on its way to its final name.
///
/// Dropping it without [`commit`](Self::commit) removes it.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

impl PendingFile {
    /// Makes the temp file beside `target`, with these permission bits and this owner.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to.
    pub fn create(target: &Path, mode: u32, owner: Option<Owner>) -> io::Result<Self> {
        let (file, temporary) = create_temporary(target, mode)?;
        let pending = Self {
            file,
            temporary,
            target: target.to_path_buf(),
            done: false,
        };
        pending
            .file
            .set_permissions(std::fs::Permissions::from_mode(mode))?;
        if let Some(owner) = owner {
            owner.give(&pending.file)?;
        }
        Ok(pending)
    }

    /// The name that it will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes it and moves it to its final name, over whatever is there.
    ///
    /// # Errors
    /// When a write that the kernel had accepted fails after all, or the rename does. Nothing is then
    /// under the final name that was not there before, unless only the flush of the folder failed.
    #[expect(clippy::disallowed_methods, reason = "it is flushed here")]
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.target)?;
        self.done = true;
        sync_directory(folder_of(&self.target))
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PendingFile {
    #[expect(clippy::disallowed_methods, reason = "a temp file is no promise")]
    fn drop(&mut self) {
        if !self.done {
            // Nobody can be told here; the name is one that every reader overlooks.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Permission bits of a file that a server is to find beside others, as the server would make it: readable for the group
/// where its folder is (`initdb -g`), otherwise for the owner only.
#[must_use]
pub fn mode_beside(path: &Path) -> u32 {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mode = std::fs::metadata(folder.unwrap_or(Path::new(".")))
        .map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o050 == 0o050 { 0o640 } else { 0o600 }
}

/// Writes a small file whole: the old content or the new, never a mixture.
///
/// # Errors
/// As [`PendingFile::create`] and [`PendingFile::commit`].
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let mut pending = PendingFile::create(path, mode, owner)?;
    pending.write_all(bytes)?;
    pending.commit()
}

/// Moves a file that was flushed to another name in the same file system, over whatever is there.
///
/// # Errors
/// When the rename fails: then nothing was moved; or the flush of the folder.
#[expect(clippy::disallowed_methods, reason = "it is flushed here")]
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory(folder_of(to))
}

/// Removes a file (or symbolic link) and flushes its folder. `false`: it was not there.
///
/// # Errors
/// When it is a directory, or cannot be removed.
#[expect(clippy::disallowed_methods, reason = "it is flushed here")]
pub fn remove(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            sync_directory(folder_of(path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Flushes a folder, so that the names made or changed in it survive a power cut.
///
/// # Errors
/// When it cannot be opened or flushed. A file system that cannot flush folders at all is not an error
/// (PostgreSQL holds it the same way, `fsync_fname_ext` in `fd.c`).
fn sync_directory(path: &Path) -> io::Result<()> {
    sync_folder(File::open(path)?)
}

/// The same for one that is open.
///
/// # Errors
/// As there.
pub(crate) fn sync_folder(folder: impl AsFd) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Flushes everything beneath a folder that lies on the same file system: one `syncfs`, which reports
/// write errors from Linux 5.8 on; file by file where there is no `syncfs`, or where it does nothing.
///
/// Other file systems (a tablespace, a `pg_wal` elsewhere) need a call of their own: symbolic links are not
/// followed.
///
/// # Errors
/// When a write that the kernel had accepted fails after all.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    if rustix::fs::fstatfs(&folder)?.f_type != FUSE {
        match rustix::fs::syncfs(&folder) {
            Ok(()) => return Ok(()),
            Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    sync_each(path)?;
    // The folder's own name, if the caller has made it.
    sync_directory(folder_of(path))
}

fn sync_each(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_each(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(folder)
}

fn create_temporary(target: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no file name"))?
        .to_string_lossy();
    let part = &name[..name.floor_char_boundary(NAME_PART_MAX)];
    let process = std::process::id();
    for _ in 0..NAME_TRIES {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary =
            target.with_file_name(format!(".{part}.{process}.{number}{TEMPORARY_SUFFIX}"));
        let result = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary);
        match result {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "too many temporary files were left in the folder",
    ))
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn fault_81_files_for_the_server_are_the_groups_where_their_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (mode, expected) in [
            (0o700, 0o600),
            (0o750, 0o640),
            (0o740, 0o600),
            (0o755, 0o640),
        ] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), permissions).unwrap();
            assert_eq!(mode_beside(&path), expected, "{mode:o}");
        }
    }

    #[test]
    fn a_write_replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, b"one", 0o600, None).unwrap();
        write_atomic(&path, b"two", 0o640, Some(Owner::of_process())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_dropped_file_never_appears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut pending = PendingFile::create(&path, 0o600, None).unwrap();
        pending.write_all(b"half").unwrap();
        let left = names(folder.path());
        assert_eq!(left.len(), 1);
        assert!(is_temporary_name(&left[0]), "{left:?}");
        drop(pending);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn long_names_still_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ä".repeat(120));
        write_atomic(&path, b"x", 0o600, None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn removing_tells_whether_it_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(!remove(&path).unwrap());
        write_atomic(&path, b"x", 0o600, None).unwrap();
        assert!(remove(&path).unwrap());
        assert!(remove(folder.path()).is_err());
    }

    #[test]
    fn both_ways_to_flush_a_tree_work() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        write_atomic(&folder.path().join("sub/file"), b"x", 0o600, None).unwrap();
        sync_tree(folder.path()).unwrap();
        sync_each(folder.path()).unwrap();
        assert!(sync_tree(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn foreign_names_are_not_taken_for_temp_files() {
        let cases = [
            (".PG_VERSION.1.0.wale-tmp", true),
            ("PG_VERSION", false),
            ("x.wale-tmp", false),
            (".hidden", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_temporary_name(name), expected, "{name}");
        }
    }
}
