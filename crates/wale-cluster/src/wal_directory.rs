//! `pg_wal`: the WAL files that PostgreSQL asks to have archived, and those that recovery asks for.
//!
//! A name that comes over the network becomes an [`ArchiveFileName`] before it gets here, so it has no
//! slash. What lies under the name is still somebody's choice: only a regular file directly in the
//! directory is opened, never a link, pipe or folder, and the check is made on the open file, so nothing can
//! be swapped in between. `archive_status` is only read; PostgreSQL alone renames what is in it.
//!
//! The directory is opened anew for every call. It may be a link that a restore replaces, or not exist yet
//! when the sidecar starts.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use wale_pg::ArchiveFileName;

use crate::durable::{self, PendingFile};
use crate::error::{ClusterError, FileKind};
use crate::owner::Owner;

pub(crate) const STATUS_DIRECTORY: &str = "archive_status";

/// Bytes per read while a WAL file is put in place.
const COPY_BYTES: usize = 256 << 10;

/// The WAL directory of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalDirectory {
    path: PathBuf,
}

/// A WAL file, open for reading.
#[derive(Debug)]
pub struct WalFile {
    /// The open file, at its beginning.
    pub file: File,
    /// Size in bytes when it was opened.
    pub size: u64,
    /// What identifies this content of this name.
    pub stamp: FileStamp,
}

/// Identifies one content of one name: PostgreSQL recycles WAL files under new names and never changes one
/// that is ready to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// What `archive_status` says about a WAL file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveStatus {
    /// PostgreSQL waits for it to be archived.
    Ready,
    /// PostgreSQL was told that it is archived.
    Done,
    /// Neither: not complete yet, or not PostgreSQL's.
    None,
    /// There is no `archive_status` folder: not a WAL directory, or not mounted.
    NoStatusDirectory,
}

impl WalDirectory {
    /// Names the directory; touches nothing. Use it where the directory may appear later.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Names the directory after a check that it is one. A symbolic link to a directory is one.
    ///
    /// # Errors
    /// When it does not exist, is not a directory, or cannot be entered.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ClusterError> {
        let directory = Self::at(path);
        directory.handle()?;
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path that a WAL file has.
    #[must_use]
    pub fn path_of(&self, name: &ArchiveFileName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// Opens a WAL file for reading.
    ///
    /// # Errors
    /// `NotFound` when there is none (PostgreSQL may have removed it), `NotRegular` when something else has
    /// its name.
    pub fn open_file(&self, name: &ArchiveFileName) -> Result<WalFile, ClusterError> {
        let directory = self.handle()?;
        let path = self.path_of(name);
        // NONBLOCK: opening a pipe must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&directory, name.to_string(), flags, Mode::empty());
        let file = match opened {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT) => return Err(ClusterError::NotFound { path }),
            // LOOP is a symbolic link, NXIO a socket.
            Err(Errno::LOOP) => return Err(not_regular(path, FileKind::Symlink)),
            Err(Errno::NXIO) => return Err(not_regular(path, FileKind::Socket)),
            Err(error) => return Err(ClusterError::io("open", &path)(error.into())),
        };
        let metadata = file
            .metadata()
            .map_err(ClusterError::io("look at", &path))?;
        if !metadata.is_file() {
            return Err(not_regular(path, kind_of(metadata.file_type())));
        }
        Ok(WalFile {
            file,
            size: metadata.len(),
            stamp: FileStamp {
                ino: metadata.ino(),
                size: metadata.len(),
                mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                    + i128::from(metadata.mtime_nsec()),
            },
        })
    }

    /// Whether something lies under the name, without opening it.
    ///
    /// # Errors
    /// When the directory cannot be entered.
    pub fn contains(&self, name: &ArchiveFileName) -> Result<bool, ClusterError> {
        exists_at(&self.handle()?, &name.to_string())
            .map_err(ClusterError::io("look at", &self.path_of(name)))
    }

    /// What PostgreSQL's archiver thinks of a WAL file.
    ///
    /// # Errors
    /// When the directory cannot be entered.
    pub fn status(&self, name: &ArchiveFileName) -> Result<ArchiveStatus, ClusterError> {
        let directory = self.handle()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = self.path.join(STATUS_DIRECTORY);
        let folder = match rustix::fs::openat(&directory, STATUS_DIRECTORY, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(ArchiveStatus::NoStatusDirectory),
            Err(error) => return Err(ClusterError::io("open", &path)(error.into())),
        };
        for (suffix, status) in [
            (".ready", ArchiveStatus::Ready),
            (".done", ArchiveStatus::Done),
        ] {
            if exists_at(&folder, &format!("{name}{suffix}"))
                .map_err(ClusterError::io("look at", &path))?
            {
                return Ok(status);
            }
        }
        Ok(ArchiveStatus::None)
    }

    /// Everything that waits to be archived, in the order in which PostgreSQL asks for it: timeline history
    /// files first, then by name (`ready_file_comparator` in `pgarch.c`). Names that are no WAL file's are
    /// overlooked; no `archive_status` folder means that nothing waits.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ready(&self) -> Result<Vec<ArchiveFileName>, ClusterError> {
        let path = self.path.join(STATUS_DIRECTORY);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.handle()?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(ClusterError::io("list", &path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(ClusterError::io("list", &path))?;
            let file_name = entry.file_name();
            let Some(stem) = file_name.to_str().and_then(|n| n.strip_suffix(".ready")) else {
                continue;
            };
            if let Ok(name) = ArchiveFileName::parse(stem) {
                names.push(name);
            }
        }
        names.sort_by(ArchiveFileName::cmp_archiving);
        Ok(names)
    }

    /// Bytes that PostgreSQL may still write on the directory's volume.
    ///
    /// # Errors
    /// When the directory is not there, or the system does not say.
    pub fn free_bytes(&self) -> Result<u64, ClusterError> {
        let facts = rustix::fs::statvfs(&self.path).map_err(|error| {
            ClusterError::io("ask for the free space of", &self.path)(error.into())
        })?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    /// A WAL file on its way into the directory: write to it, then commit. Readable and writable by the
    /// owner only, as PostgreSQL makes its own.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written to.
    pub fn pending(
        &self,
        name: &ArchiveFileName,
        owner: Option<Owner>,
    ) -> Result<PendingFile, ClusterError> {
        let path = self.path_of(name);
        PendingFile::create(&path, durable::mode_beside(&path), owner)
            .map_err(ClusterError::io("write", &path))
    }

    /// Puts a WAL file in place, durably and whole, over whatever has its name. Returns its size in bytes.
    ///
    /// # Errors
    /// When `source` fails (then nothing appears) or the directory cannot be written to.
    pub fn place(
        &self,
        name: &ArchiveFileName,
        mut source: impl Read,
        owner: Option<Owner>,
    ) -> Result<u64, ClusterError> {
        let path = self.path_of(name);
        let mut pending = self.pending(name, owner)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut size = 0;
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClusterError::io("write", &path)(error)),
            };
            io::Write::write_all(&mut pending, &buffer[..count])
                .map_err(ClusterError::io("write", &path))?;
            size += count as u64;
        }
        pending
            .commit()
            .map_err(ClusterError::io("write", &path))
            .map(|()| size)
    }

    fn handle(&self) -> Result<OwnedFd, ClusterError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(handle) => Ok(handle),
            Err(Errno::NOTDIR) => Err(ClusterError::NotADirectory {
                path: self.path.clone(),
            }),
            Err(error) => Err(ClusterError::io("open", &self.path)(error.into())),
        }
    }
}

fn exists_at(folder: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn not_regular(path: PathBuf, found: FileKind) -> ClusterError {
    ClusterError::NotRegular { path, found }
}

/// What a file that is not regular is.
pub(crate) fn kind_of(kind: std::fs::FileType) -> FileKind {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else if kind.is_block_device() || kind.is_char_device() {
        FileKind::Device
    } else {
        FileKind::Other
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const SEGMENT: &str = "000000010000000000000002";

    fn name(text: &str) -> ArchiveFileName {
        ArchiveFileName::parse(text).unwrap()
    }

    fn directory() -> (tempfile::TempDir, WalDirectory) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(STATUS_DIRECTORY)).unwrap();
        let directory = WalDirectory::open(folder.path()).unwrap();
        (folder, directory)
    }

    #[test]
    fn a_regular_file_is_opened_with_its_stamp() {
        let (folder, directory) = directory();
        std::fs::write(folder.path().join(SEGMENT), b"wal").unwrap();
        let mut file = directory.open_file(&name(SEGMENT)).unwrap();
        let mut content = String::new();
        file.file.read_to_string(&mut content).unwrap();
        assert_eq!((content.as_str(), file.size), ("wal", 3));
        let again = directory.open_file(&name(SEGMENT)).unwrap();
        assert_eq!(again.stamp, file.stamp);
        std::fs::write(folder.path().join(SEGMENT), b"other").unwrap();
        let changed = directory.open_file(&name(SEGMENT)).unwrap();
        assert_ne!(changed.stamp, file.stamp);
    }

    /// Fault 59 of the battery.
    #[test]
    fn planted_links_pipes_sockets_and_folders_are_refused() {
        let (folder, directory) = directory();
        let path = folder.path().join(SEGMENT);
        let plant: [(FileKind, &dyn Fn()); 4] = [
            (FileKind::Symlink, &|| {
                symlink("/etc/passwd", &path).unwrap();
            }),
            (FileKind::Fifo, &|| {
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    Mode::from_raw_mode(0o600),
                    0,
                )
                .unwrap();
            }),
            (FileKind::Socket, &|| {
                std::os::unix::net::UnixListener::bind(&path).unwrap();
            }),
            (FileKind::Directory, &|| std::fs::create_dir(&path).unwrap()),
        ];
        for (kind, make) in plant {
            make();
            match directory.open_file(&name(SEGMENT)).unwrap_err() {
                ClusterError::NotRegular { found, .. } => assert_eq!(found, kind),
                other => panic!("{kind:?}: {other:?}"),
            }
            if kind == FileKind::Directory {
                std::fs::remove_dir(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    /// Fault 18 of the battery.
    #[test]
    fn a_missing_file_is_not_found() {
        let (_folder, directory) = directory();
        let error = directory.open_file(&name(SEGMENT)).unwrap_err();
        assert!(matches!(error, ClusterError::NotFound { .. }), "{error:?}");
        assert!(!directory.contains(&name(SEGMENT)).unwrap());
    }

    #[test]
    fn the_directory_may_be_a_link_and_may_be_missing() {
        let (folder, _) = directory();
        let link = folder.path().join("link");
        symlink(folder.path(), &link).unwrap();
        assert!(WalDirectory::open(&link).is_ok());
        let missing = WalDirectory::open(folder.path().join("missing")).unwrap_err();
        assert!(matches!(missing, ClusterError::NotFound { .. }));
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let file = WalDirectory::open(folder.path().join("file")).unwrap_err();
        assert!(matches!(file, ClusterError::NotADirectory { .. }));
    }

    #[test]
    fn ready_files_come_in_the_archivers_order() {
        let (folder, directory) = directory();
        let status = folder.path().join(STATUS_DIRECTORY);
        for file in [
            "000000010000000000000003.ready",
            "000000010000000000000002.ready",
            "000000010000000000000002.00000028.backup.ready",
            "000000010000000000000001.done",
            "00000002.history.ready",
            "00000001000000000000000F.partial.ready",
            "nonsense.ready",
            "0000000100000000000000zz.ready",
            ".ready",
        ] {
            std::fs::write(status.join(file), b"").unwrap();
        }
        let ready: Vec<_> = directory
            .ready()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            ready,
            [
                "00000002.history",
                "000000010000000000000002",
                "000000010000000000000002.00000028.backup",
                "000000010000000000000003",
                "00000001000000000000000F.partial",
            ]
        );
        let statuses = [
            ("000000010000000000000003", ArchiveStatus::Ready),
            ("000000010000000000000001", ArchiveStatus::Done),
            ("000000010000000000000009", ArchiveStatus::None),
        ];
        for (text, expected) in statuses {
            assert_eq!(directory.status(&name(text)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn without_a_status_folder_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let directory = WalDirectory::open(folder.path()).unwrap();
        assert!(directory.ready().unwrap().is_empty());
        let status = directory.status(&name(SEGMENT)).unwrap();
        assert_eq!(status, ArchiveStatus::NoStatusDirectory);
        let missing = WalDirectory::at(folder.path().join("missing"));
        assert!(missing.ready().is_err());
    }

    #[test]
    fn a_file_is_placed_whole_or_not_at_all() {
        struct Cut(usize);
        impl Read for Cut {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Err(io::Error::other("connection lost"));
                }
                self.0 -= 1;
                buffer[0] = 7;
                Ok(1)
            }
        }
        let (folder, directory) = directory();
        assert!(directory.place(&name(SEGMENT), Cut(3), None).is_err());
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only archive_status is left: {left:?}");
        let size = directory.place(&name(SEGMENT), &b"wal"[..], None).unwrap();
        assert_eq!(size, 3);
        assert_eq!(std::fs::read(folder.path().join(SEGMENT)).unwrap(), b"wal");
    }
}
