//! The owner of files on disk.
//!
//! PostgreSQL refuses a data directory that belongs to another user, and a sidecar often runs as root
//! while the server does not (uid 70, 999 or 1000, depending on the image). So everything written for the
//! server is given the owner of the data directory.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};

/// Numeric user and group of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The owner of what `path` names, symbolic links followed.
    ///
    /// # Errors
    /// When `path` does not exist or its folder cannot be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    /// The effective user and group of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// Whether this process can make files that belong to this user: it is root, or it is that user.
    ///
    /// A restore asks this before it writes anything.
    #[must_use]
    pub fn is_within_reach(self) -> bool {
        let euid = rustix::process::geteuid();
        euid.is_root() || euid.as_raw() == self.uid
    }

    /// Gives an open file to this owner.
    ///
    /// A process that is not root leaves the file as it is: it is already its own, and the group of
    /// PGDATA is of no consequence to PostgreSQL.
    pub(crate) fn give(self, file: impl AsFd) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        rustix::fs::fchown(
            file,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_new_folder_is_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::of(folder.path()).unwrap();
        assert_eq!(owner.uid, Owner::of_process().uid);
        assert!(owner.is_within_reach());
    }

    #[test]
    fn a_missing_path_has_no_owner() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Owner::of(&folder.path().join("nothing")).is_err());
    }
}
