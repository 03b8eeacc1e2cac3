//! The file by which a database container says: I wait for the sidecar.
//!
//! The container makes it and waits until it is gone. The sidecar listens on its port first and removes
//! the file last; when the database restarts, the file appears again and is removed again. Its absence
//! means nothing.

use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::ClusterError;

/// The lock file of one database container.
#[derive(Clone, Debug)]
pub struct LockFile {
    path: PathBuf,
}

impl LockFile {
    /// Names the file; touches nothing.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last component, the name under which it may lie in PGDATA.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.path.file_name().and_then(|name| name.to_str())
    }

    /// Whether anything lies there now. A folder that cannot be read counts as no.
    #[must_use]
    pub fn exists(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok()
    }

    /// Removes it. `false`: it was not there.
    ///
    /// # Errors
    /// When it is there and cannot be removed, e.g. because it is a directory.
    pub fn remove(&self) -> Result<bool, ClusterError> {
        durable::remove(&self.path).map_err(ClusterError::io("remove", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_twice_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFile::new(folder.path().join("wale_init_lockfile"));
        assert_eq!(lock.file_name(), Some("wale_init_lockfile"));
        assert!(!lock.exists());
        assert!(!lock.remove().unwrap());
        durable::write_atomic(lock.path(), b"", 0o644, None).unwrap();
        assert!(lock.exists());
        assert!(lock.remove().unwrap());
        assert!(!lock.exists());
    }

    #[test]
    fn a_directory_under_its_name_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let lock = LockFile::new(folder.path());
        assert!(lock.remove().is_err());
    }
}
