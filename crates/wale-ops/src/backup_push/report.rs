//! What a base backup reports to its user.

use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::BackupName;
use wale_pg::{Lsn, TimelineId, WalSegmentName, WalSegmentSize};

/// A backup that has started: its start position is fixed.
///
/// From this moment on every segment that the cluster finishes belongs to what a restore of this backup needs.
#[derive(Debug, Clone)]
pub struct Started {
    /// The backup's name.
    pub name: BackupName,
    /// Position from which a restore replays.
    pub start_lsn: Lsn,
    /// Timeline of that position.
    pub timeline: TimelineId,
    /// When the backup had begun.
    pub started_at: DateTime<Utc>,
}

impl Started {
    /// The backup that a restore replays from `start_lsn`: that position is its name.
    pub(super) fn at(
        timeline: TimelineId,
        start_lsn: Lsn,
        size: WalSegmentSize,
        started_at: DateTime<Utc>,
    ) -> Self {
        let segment = WalSegmentName::from_lsn(timeline, start_lsn, size);
        Self {
            name: BackupName::new(&segment, size.offset_in_segment(start_lsn)),
            start_lsn,
            timeline,
            started_at,
        }
    }
}

/// A base backup that is complete in the archive.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The backup's name.
    pub name: BackupName,
    /// Position from which a restore replays.
    pub start_lsn: Lsn,
    /// Position that a restore must reach before the data is consistent.
    pub stop_lsn: Lsn,
    /// When the backup had begun: when the server said so.
    pub started_at: DateTime<Utc>,
    /// When it had ended: when the server said so, and of a stopped server when its files were copied.
    pub stopped_at: DateTime<Utc>,
    /// Files in the backup.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Bytes of the partitions as stored.
    pub bytes_stored: u64,
    /// Number of partitions.
    pub partitions: u64,
    /// Pages whose checksum stayed wrong, all of them counted. The backup's record names the first.
    pub damaged_pages: u64,
    /// Time of the whole operation.
    pub duration: Duration,
    /// Sentences for the user: what to check although the backup succeeded, and what is not in it (symbolic links, sockets).
    pub warnings: Vec<String>,
}
