//! One restore at a time holds a data directory. Sync; for blocking threads.
//!
//! Two restores in one directory end in a directory of neither: the second takes the first's work for something half done
//! and clears it, and the first then makes what is left startable. So a restore holds the directory from before its first
//! write until its end, by an advisory lock (`flock(2)`) on the directory itself: it leaves no file, ends with the process
//! however that ends, and holds while the process is frozen. It is seen by every process of the same kernel, in whatever
//! container. Where it is not to be had, or not seen (NFS, another machine on one volume), the marker of the attempt
//! decides: a restore looks for its own right before each step that cannot be taken back. Between that look and the
//! step there is a moment that nothing guards on such a volume.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use wale_cluster::{RestoreMarker, restore_marker};

use crate::error::{Kind, OpError, Result};

/// A held directory; let go when it is dropped.
#[derive(Debug)]
pub(super) struct HeldDirectory {
    _directory: File,
}

impl HeldDirectory {
    /// Takes the directory, which must exist.
    ///
    /// # Errors
    /// [`Kind::Busy`] while another restore holds it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let directory = File::open(path)
            .map_err(|error| OpError::from_io(error, format_args!("open {}", path.display())))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(another(path)),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the file system has no locks: only the marker \
                                                                 distinguishes restores");
            }
        }
        Ok(Self {
            _directory: directory,
        })
    }

    /// Refuses a directory that another restore holds. One that does not exist is nobody's.
    ///
    /// # Errors
    /// As [`HeldDirectory::take`].
    pub(super) fn look(path: &Path) -> Result<()> {
        if path.is_dir() {
            Self::take(path).map(drop)
        } else {
            Ok(())
        }
    }
}

fn another(path: &Path) -> OpError {
    let shown = path.display();
    let begun = match restore_marker::read(path) {
        Ok(Some(marker)) => {
            let at = marker.started_at.format("%Y-%m-%d %H:%M:%S UTC");
            let host = match marker.host.as_str() {
                "" => String::new(),
                host => format!(" on {host}"),
            };
            format!("It restores {}, and began at {at}{host}.", marker.backup)
        }
        _ => "It has written nothing yet.".to_owned(),
    };
    OpError::new(
        Kind::Busy,
        format!("another restore is at work in \"{shown}\""),
    )
    .detail(begun)
    .hint(
        "wait for its end; to begin anew, end that process first (a container that is paused or hangs holds the \
         directory, too), and what it left is then removed",
    )
}

/// Whether the directory is still that of this attempt.
///
/// # Errors
/// [`Kind::Busy`] when the marker is another's or gone: the files are not this restore's any more.
pub(super) fn check_own(path: &Path, own: &RestoreMarker) -> Result<()> {
    let found = restore_marker::read(path).map_err(|error| {
        OpError::from_cluster(error, format_args!("look at {}", path.display()))
    })?;
    if found.as_ref() == Some(own) {
        return Ok(());
    }
    let shown = path.display();
    Err(OpError::new(
        Kind::Busy,
        format!("another restore took over \"{shown}\" while this one ran"),
    )
    .detail("What this restore wrote is not complete any more, so it does not make the directory startable.")
    .hint("make sure that only one restore works there, and begin it anew in an empty directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_08_a_directory_is_held_by_one_restore_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(HeldDirectory::look(&folder.path().join("missing")).is_ok());
        let first = HeldDirectory::take(folder.path()).unwrap();
        let error = HeldDirectory::take(folder.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(HeldDirectory::look(folder.path()).is_err());
        drop(first);
        assert!(HeldDirectory::look(folder.path()).is_ok());
        assert!(HeldDirectory::take(folder.path()).is_ok());
    }
}
