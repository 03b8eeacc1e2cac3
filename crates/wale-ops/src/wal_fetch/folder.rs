//! The folder beside a server's WAL in which `wal-prefetch` leaves segments for `wal-fetch`: WAL-E's.
//!
//! ```text
//! pg_wal/.wal-e/prefetch/<segment>            whole and verified; wal-fetch takes it away
//! pg_wal/.wal-e/prefetch/running/<segment>/   the place of a segment that is on its way
//! ```
//!
//! A place is made before the segment is fetched. The fetch into it holds a lock on it, so a fetch that died is
//! known at once. A place that was taken away stops its fetch: the file cannot be moved out of it any more. So one
//! clean-up leaves nothing behind, whatever is still running. Sync; for blocking threads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use wale_archive::control::read_control;
use wale_cluster::durable;
use wale_pg::{ArchiveFileName, WalPageHeader, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};
use crate::wal_file;

/// Time between two checks for a segment that is on its way: far less than fetching one takes.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The most segments fetched ahead, whatever is asked for: 64 × 16 MiB are 1 GiB of the WAL's volume.
pub const WINDOW_MAX: usize = 64;

/// The folder of one WAL directory.
#[derive(Debug, Clone)]
pub struct PrefetchFolder {
    wal: PathBuf,
}

/// The right to fetch a segment into its place, as long as it lives.
#[derive(Debug)]
pub struct Place {
    /// Held for its lock.
    _lock: File,
    /// Where the segment is to be written.
    pub file: PathBuf,
}

impl PrefetchFolder {
    /// The folder in this WAL directory, which must be absolute. Nothing is checked.
    #[must_use]
    pub fn new(wal: PathBuf) -> Self {
        Self { wal }
    }

    /// The WAL directory.
    #[must_use]
    pub fn wal_directory(&self) -> &Path {
        &self.wal
    }

    fn root(&self) -> PathBuf {
        self.wal.join(".wal-e/prefetch")
    }

    fn ready(&self, name: WalSegmentName) -> PathBuf {
        self.root().join(name.to_string())
    }

    fn running(&self, name: WalSegmentName) -> PathBuf {
        self.root().join("running").join(name.to_string())
    }

    /// Makes the place of a segment; `false` when it is there, or on its way already.
    ///
    /// # Errors
    /// [`Kind::LocalIo`] and the like, when the folders cannot be made.
    pub fn make_place(&self, name: WalSegmentName) -> Result<bool> {
        if self.ready(name).exists() {
            return Ok(false);
        }
        let place = self.running(name);
        let made = || -> io::Result<bool> {
            if let Some(above) = place.parent() {
                fs::create_dir_all(above)?;
            }
            match fs::create_dir(&place) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        };
        made().map_err(|e| OpError::from_io(e, format_args!("make {}", place.display())))
    }

    /// Takes the place of a segment to fetch into; `None` when there is none, or somebody else has it.
    #[must_use]
    pub fn take_place(&self, name: WalSegmentName) -> Option<Place> {
        let place = self.running(name);
        let lock = File::open(&place).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let file = place.join("segment");
        Some(Place { _lock: lock, file })
    }

    /// Makes a segment that was written into its place ready to be taken.
    ///
    /// # Errors
    /// When the place is not there any more: nobody wants the segment.
    pub fn publish(&self, name: WalSegmentName, place: &Place) -> Result<()> {
        let ready = self.ready(name);
        let published = durable::rename(&place.file, &ready);
        self.abandon(name);
        published.map_err(|e| OpError::from_io(e, format_args!("move to {}", ready.display())))
    }

    /// Removes the place of a segment, and the folders if they are empty.
    pub fn abandon(&self, name: WalSegmentName) {
        let root = self.root();
        // Whatever is not there or not empty is as it should be.
        let _ = fs::remove_dir_all(self.running(name));
        let _ = fs::remove_dir(root.join("running"));
        let _ = fs::remove_dir(&root);
        let _ = fs::remove_dir(self.wal.join(".wal-e"));
    }

    /// Waits, for at most `limit`, as long as somebody fetches the segment.
    pub fn wait(&self, name: WalSegmentName, limit: Duration) {
        let begun = Instant::now();
        while let Ok(place) = File::open(self.running(name)) {
            let is_free = flock(&place, FlockOperation::NonBlockingLockShared).is_ok();
            if is_free || begun.elapsed() >= limit {
                return;
            }
            drop(place);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Moves a segment that is ready to `destination`, in the same file system; its size in bytes. `None` when it
    /// is not there, or is not what its name says: then it is removed, and the archive has to be asked.
    #[must_use]
    pub fn promote(&self, name: WalSegmentName, destination: &Path) -> Option<u64> {
        let ready = self.ready(name);
        let size = match self.check(name, &ready) {
            Ok(size) => size,
            Err(error) => {
                if ready.symlink_metadata().is_ok() {
                    tracing::warn!(%name, error = %error.chain(), "a prefetched segment is not used");
                    let _ = durable::remove(&ready);
                }
                return None;
            }
        };
        if let Err(error) = durable::rename(&ready, destination) {
            tracing::warn!(%name, %error, "a prefetched segment could not be moved into place");
            return None;
        }
        Some(size)
    }

    /// What can be checked without the archive: a regular file whose size, position and cluster are right.
    fn check(&self, name: WalSegmentName, ready: &Path) -> Result<u64> {
        let failed = |e| OpError::from_io(e, format_args!("read {}", ready.display()));
        if !ready.symlink_metadata().map_err(failed)?.is_file() {
            let message = format!("{} is no file", ready.display());
            return Err(OpError::new(Kind::CorruptData, message));
        }
        let file = File::open(ready).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        let length = WalPageHeader::LENGTH as u64;
        io::Read::read_to_end(&mut io::Read::take(&file, length), &mut head).map_err(failed)?;
        let cluster = wal_file::check_segment(&ArchiveFileName::Segment(name), &head, size)?;
        let data_directory = self.wal.parent().unwrap_or(Path::new("/"));
        match read_control(data_directory) {
            Some(control) if control.system_identifier != cluster.system_identifier => {
                Err(OpError::new(
                    Kind::ArchiveMismatch,
                    format!("{name} is another cluster's"),
                ))
            }
            _ => Ok(size),
        }
    }

    /// Removes everything but these segments, ready or on their way; nothing is left when none is named.
    pub fn keep_only(&self, wanted: &[WalSegmentName]) {
        let root = self.root();
        if wanted.is_empty() {
            let _ = fs::remove_dir_all(&root);
            let _ = fs::remove_dir(self.wal.join(".wal-e"));
            return;
        }
        for folder in [root.clone(), root.join("running")] {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(Ok(name)) = name.to_str().map(WalSegmentName::parse) else {
                    continue;
                };
                if !wanted.contains(&name) {
                    let _ = durable::remove(&entry.path());
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
    }
}

/// The `count` segments after `name`, when segments have `bytes` bytes.
#[must_use]
pub fn segments_after(name: WalSegmentName, bytes: u64, count: usize) -> Vec<WalSegmentName> {
    let Ok(size) = WalSegmentSize::new(bytes) else {
        return Vec::new();
    };
    std::iter::successors(name.next(size).ok(), |last| last.next(size).ok())
        .take(count.min(WINDOW_MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str) -> WalSegmentName {
        WalSegmentName::parse(text).unwrap()
    }

    #[test]
    fn defect_18_the_segments_ahead_follow_the_segment_size() {
        let names = |bytes, from: &str| {
            let after = segments_after(segment(from), bytes, 2);
            after.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            names(16 << 20, "0000000100000000000000FE"),
            ["0000000100000000000000FF", "000000010000000100000000"]
        );
        assert_eq!(
            names(1 << 20, "0000000100000000000000FF"),
            ["000000010000000000000100", "000000010000000000000101"]
        );
        assert_eq!(
            names(64 << 20, "00000001000000000000003F"),
            ["000000010000000100000000", "000000010000000100000001"]
        );
        assert!(names(12345, "00000001000000000000003F").is_empty());
    }

    #[test]
    fn a_place_has_one_fetch_and_goes_with_everything_else() {
        let wal = tempfile::tempdir().unwrap();
        let folder = PrefetchFolder::new(wal.path().to_owned());
        let name = segment("000000010000000000000003");
        assert!(folder.take_place(name).is_none(), "no place was made");
        assert!(folder.make_place(name).unwrap());
        assert!(!folder.make_place(name).unwrap(), "it is there already");
        let place = folder.take_place(name).unwrap();
        assert!(folder.take_place(name).is_none(), "it is taken");
        fs::write(&place.file, "x").unwrap();
        // A clean-up stops the fetch, and it leaves nothing.
        folder.keep_only(&[]);
        assert!(folder.publish(name, &place).is_err());
        assert_eq!(fs::read_dir(wal.path()).unwrap().count(), 0);
        // A fetch that died holds nobody up.
        assert!(folder.make_place(name).unwrap());
        folder.wait(name, Duration::from_secs(60));
        folder.abandon(name);
        assert_eq!(fs::read_dir(wal.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_segment_is_not_used() {
        let wal = tempfile::tempdir().unwrap();
        let folder = PrefetchFolder::new(wal.path().to_owned());
        let name = segment("000000010000000000000003");
        assert!(folder.make_place(name).unwrap());
        let place = folder.take_place(name).unwrap();
        fs::write(&place.file, vec![0; 1 << 20]).unwrap();
        folder.publish(name, &place).unwrap();
        let other = segment("000000010000000000000004");
        folder.keep_only(&[name, other]);
        let destination = wal.path().join("RECOVERYXLOG");
        assert!(folder.promote(name, &destination).is_none());
        assert!(!destination.exists() && !folder.ready(name).exists());
    }
}
