//! PGDATA, seen from outside of the server.
//!
//! Four questions are answered here: which cluster is it (`PG_VERSION`, the control file), is a server
//! running on it ([`DataDirectory::postmaster`]), what belongs into a base backup
//! ([`DataDirectory::walk`]), and may a restore write there ([`DataDirectory::content`]). Nothing is ever
//! changed by this module. The directory may be in use by a running server all the while.

mod content;
mod control_file;
mod live;
mod postmaster;
mod role;
mod walk;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use wale_pg::MajorVersion;

use crate::error::ClusterError;
use crate::owner::Owner;
use crate::regular_file::open_regular;

pub use content::DirectoryContent;
pub use postmaster::{PostmasterFile, PostmasterState};
pub use role::RecoveryRole;
pub use walk::{Entry, EntryKind, Listing, Tablespace, WalkOptions, WalkWarning};

/// Files that are read whole have to be small: `PG_VERSION` and `postmaster.pid` are below 1 kB.
const SMALL_FILE_MAX: u64 = 64 << 10;

/// A data directory, which may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory {
    path: PathBuf,
}

impl DataDirectory {
    /// Names the directory; touches nothing.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Names the directory after a check that nothing else has its name. A missing one is no error:
    /// a restore may be about to make it ([`DataDirectory::content`] says which).
    ///
    /// # Errors
    /// When the path is something else than a directory (a link to one is one), or cannot be looked at.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ClusterError> {
        let directory = Self::at(path);
        match std::fs::metadata(&directory.path) {
            Ok(metadata) if metadata.is_dir() => Ok(directory),
            Ok(_) => Err(ClusterError::NotADirectory {
                path: directory.path,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(directory),
            Err(error) => Err(ClusterError::io("look at", &directory.path)(error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whom it belongs to: the user that the server runs as.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn owner(&self) -> Result<Owner, ClusterError> {
        Owner::of(&self.path).map_err(ClusterError::io("look at", &self.path))
    }

    /// The major version from `PG_VERSION`; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read, or names a version that wale does not know.
    pub fn version(&self) -> Result<Option<MajorVersion>, ClusterError> {
        let path = self.path.join("PG_VERSION");
        let Some(text) = read_small(&path)? else {
            return Ok(None);
        };
        match MajorVersion::parse(&text) {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(ClusterError::UnsupportedServer {
                version_num: text.trim().to_owned(),
            }),
        }
    }
}

impl DataDirectory {
    /// The number in `PG_VERSION` where it is of a newer version than wale knows; `None` for a version that is known, or
    /// where nothing can be read.
    #[must_use]
    pub fn newer_version(&self) -> Option<u32> {
        let text = read_small(&self.path.join("PG_VERSION")).ok()??;
        MajorVersion::newer_than_known(&text)
    }
}

/// Reads a small text file. `None`: it is not there.
fn read_small(path: &Path) -> Result<Option<String>, ClusterError> {
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ClusterError::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_MAX)
        .read_to_end(&mut bytes)
        .map_err(ClusterError::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 59: a pipe in place of a file that is read all the time would hold a thread for each look.
    #[test]
    fn fault_59_a_pipe_in_place_of_a_file_of_the_server_holds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDirectory::at(folder.path());
        std::fs::create_dir(folder.path().join("global")).unwrap();
        let names = ["global/pg_control", "PG_VERSION", "postmaster.pid"];
        for name in names {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, folder.path().join(name), kind, mode, 0).unwrap();
        }
        for error in [
            data.control_file().unwrap_err(),
            data.version().unwrap_err(),
            data.postmaster().unwrap_err(),
        ] {
            assert!(error.to_string().len() > 10, "{error}");
        }
    }

    #[test]
    fn a_missing_directory_can_be_named_but_a_file_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let missing = DataDirectory::open(folder.path().join("missing")).unwrap();
        assert!(missing.owner().is_err());
        assert_eq!(missing.version().unwrap(), None);
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(
            DataDirectory::open(&file),
            Err(ClusterError::NotADirectory { .. })
        ));
    }

    #[test]
    fn the_version_file_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path()).unwrap();
        let cases = [
            ("15\n", Some(15)),
            ("10", Some(10)),
            ("9.6\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            std::fs::write(folder.path().join("PG_VERSION"), text).unwrap();
            let found = directory.version().ok().flatten().map(MajorVersion::get);
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
