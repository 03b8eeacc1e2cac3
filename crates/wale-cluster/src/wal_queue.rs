//! What waits in `archive_status`, and how fast segments came and went of late: all of it from the times of the files there.
//!
//! PostgreSQL makes `X.ready` when a segment is complete, and renames it to `X.done` when it was archived. A rename leaves the
//! time of the content and sets that of the entry: so each `.done` says both when its segment was complete and when it was archived. A
//! checkpoint removes `.done` together with its segment, also right after it was archived where it had waited for long. So what went
//! is known since the oldest `.done` that is left, and nothing is known where none is left but that one was removed a moment ago.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use wale_pg::{ArchiveFileName, WalSegmentName};

use crate::error::ClusterError;
use crate::wal_directory::{STATUS_DIRECTORY, WalDirectory};

/// Files of either kind whose times are looked at: each costs a `stat`, some microseconds. 4,096 in ten minutes are 110 MB of WAL a
/// second; what is faster is counted as this.
const LOOKS_MAX: usize = 4096;

/// What waits, and what came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalQueue {
    /// Segments that wait to be archived.
    pub waiting: u64,
    /// When the one whose turn it is was complete.
    pub oldest: Option<DateTime<Utc>>,
    /// The size of that segment; of the segments of a cluster all have the same.
    pub segment_bytes: Option<u64>,
    /// What was complete, of what waits.
    pub completed: Option<Flow>,
    /// What was archived.
    pub archived: Option<Flow>,
    /// When none is left of what was archived: when it was removed, where that was after the last segment had come.
    pub removed: Option<DateTime<Utc>>,
}

/// Segments that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// How many, since then.
    pub segments: u64,
    /// From when on all of them were seen: not before the time that was asked for.
    pub from: DateTime<Utc>,
    /// When the last one came or went; it may have been before.
    pub last: DateTime<Utc>,
}

impl Flow {
    /// Of the newest first, until one is from before `since`. Of what is gone meanwhile there is no time.
    fn of(
        times: impl Iterator<Item = Option<DateTime<Utc>>>,
        since: DateTime<Utc>,
    ) -> Option<Self> {
        let mut flow: Option<Self> = None;
        for at in times.take(LOOKS_MAX).flatten() {
            let flow = flow.get_or_insert(Self {
                segments: 0,
                from: at,
                last: at,
            });
            if at < since {
                flow.from = since;
                break;
            }
            flow.segments += 1;
            flow.from = flow.from.min(at);
            flow.last = flow.last.max(at);
        }
        flow
    }
}

impl WalDirectory {
    /// What waits, and what came and went since then. No `archive_status` folder means that nothing waits.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn queue(&self, since: DateTime<Utc>) -> Result<WalQueue, ClusterError> {
        let folder = self.path().join(STATUS_DIRECTORY);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound && self.path().is_dir() => {
                return Ok(WalQueue::default());
            }
            Err(error) => return Err(ClusterError::io("list", &folder)(error)),
        };
        let (mut ready, mut done) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(ClusterError::io("list", &folder))?;
            let name = entry.file_name();
            let Some((stem, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(ArchiveFileName::Segment(segment)) = ArchiveFileName::parse(stem) else {
                continue;
            };
            match kind {
                "ready" => ready.push(segment),
                "done" => done.push(segment),
                _ => {}
            }
        }
        Ok(self.measured(&folder, ready, done, since))
    }

    /// The newest first, until one is from before.
    fn measured(
        &self,
        folder: &Path,
        mut ready: Vec<WalSegmentName>,
        mut done: Vec<WalSegmentName>,
        since: DateTime<Utc>,
    ) -> WalQueue {
        ready.sort_unstable();
        done.sort_unstable();
        // What is gone meanwhile was archived, or removed with its segment.
        let look = |segment: &WalSegmentName, kind: &str| {
            std::fs::symlink_metadata(folder.join(format!("{segment}.{kind}"))).ok()
        };
        let mut queue = WalQueue {
            waiting: ready.len() as u64,
            ..WalQueue::default()
        };
        if let Some(first) = ready.first() {
            queue.oldest = look(first, "ready").and_then(|file| completed(&file));
            let segment = std::fs::symlink_metadata(self.path_of(&(*first).into()));
            queue.segment_bytes = segment.ok().map(|file| file.len());
        }
        let times = ready.iter().rev();
        let times = times.map(|segment| look(segment, "ready").and_then(|file| completed(&file)));
        queue.completed = Flow::of(times, since);
        let times = done.iter().rev();
        let times = times.map(|segment| look(segment, "done").and_then(|file| archived(&file)));
        queue.archived = Flow::of(times, since);
        // A segment that comes changes the folder, too, in the same moment.
        let changed = std::fs::metadata(folder).ok();
        let changed = changed.and_then(|folder| completed(&folder));
        queue.removed = changed.filter(|changed| {
            let came = queue.completed.map(|flow| flow.last);
            queue.archived.is_none() && came.is_some_and(|came| came < *changed)
        });
        queue
    }
}

fn completed(file: &Metadata) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(file.mtime(), 0)
}

fn archived(file: &Metadata) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(file.ctime(), 0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn segment(number: u32) -> String {
        format!("0000000100000000{number:08X}")
    }

    #[test]
    fn what_waits_and_what_came_and_went_show_in_the_times_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let wal = WalDirectory::at(folder.path());
        let now = SystemTime::now();
        let ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
        let since = DateTime::from(ago(10));
        assert_eq!(wal.queue(since).unwrap(), WalQueue::default());
        let status = folder.path().join(STATUS_DIRECTORY);
        std::fs::create_dir(&status).unwrap();
        // A file's entry is always of now: what was archived before cannot be made here.
        for (number, minutes, kind) in [
            (1, 30, "done"),
            (2, 5, "done"),
            (3, 20, "ready"),
            (4, 9, "ready"),
            (5, 1, "ready"),
        ] {
            let path = status.join(format!("{}.{kind}", segment(number)));
            std::fs::File::create(path)
                .unwrap()
                .set_modified(ago(minutes))
                .unwrap();
        }
        for other in [
            "00000002.history.ready",
            "x.ready",
            "0000000100000000000000FE",
        ] {
            std::fs::write(status.join(other), b"").unwrap();
        }
        std::fs::write(folder.path().join(segment(3)), vec![0; 4096]).unwrap();
        let queue = wal.queue(since).unwrap();
        assert_eq!((queue.waiting, queue.segment_bytes), (3, Some(4096)));
        let (came, went) = (queue.completed.unwrap(), queue.archived.unwrap());
        assert_eq!((came.segments, went.segments), (2, 2));
        assert_eq!(came.from, since);
        let age = |at: DateTime<Utc>| (DateTime::<Utc>::from(now) - at).num_minutes();
        assert_eq!((age(came.last), age(went.from)), (1, 0));
        assert_eq!(queue.removed, None);
        let waits = DateTime::<Utc>::from(now) - queue.oldest.unwrap();
        assert_eq!(waits.num_minutes(), 20);
        // A checkpoint takes what was archived away. That shows for as long as no segment comes.
        for number in [1, 2] {
            std::fs::remove_file(status.join(format!("{}.done", segment(number)))).unwrap();
        }
        let queue = wal.queue(since).unwrap();
        assert_eq!((queue.archived, age(queue.removed.unwrap())), (None, 0));
        let entry = std::fs::File::open(&status).unwrap();
        entry.set_modified(ago(1)).unwrap();
        assert_eq!(wal.queue(since).unwrap().removed, None);
        assert!(
            WalDirectory::at(folder.path().join("none"))
                .queue(since)
                .is_err()
        );
    }
}
