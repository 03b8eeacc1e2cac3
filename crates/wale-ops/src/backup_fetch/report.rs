//! What a restore reports to its user.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::{BackupName, Sentinel};
use wale_pg::{Lsn, MajorVersion, TimelineId};

use super::tablespaces::PlannedTablespace;

/// A data directory that is whole.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The backup it was made from.
    pub backup: BackupName,
    /// The data directory.
    pub target: PathBuf,
    /// Major version that can start it.
    pub major: MajorVersion,
    /// Timeline of the backup.
    pub timeline: TimelineId,
    /// Position from which recovery replays, where the backup says.
    pub start_lsn: Option<Lsn>,
    /// Position that recovery must reach, where the backup says.
    pub stop_lsn: Option<Lsn>,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes read from the archive.
    pub bytes_stored: u64,
    /// Whether every file was checked against the backup's manifest.
    pub verified: bool,
    /// Pages that were damaged already when the backup was made.
    pub damaged_pages: u64,
    /// Where each tablespace went.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Time of the whole operation.
    pub duration: Duration,
    /// Whether TimescaleDB's background jobs are held until somebody releases them.
    pub jobs_held: bool,
    /// Sentences for the user: what was decided, and why.
    pub notes: Vec<String>,
    /// Sentences for the user: what to check although the restore succeeded.
    pub warnings: Vec<String>,
}

/// What a restore would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The backup.
    pub backup: BackupName,
    /// When it ended, or its record was stored.
    pub ended: DateTime<Utc>,
    /// Its record.
    pub sentinel: Sentinel,
    /// Major version that can start it, where recorded.
    pub major: Option<MajorVersion>,
    /// Timeline of the backup.
    pub timeline: TimelineId,
    /// Partitions in the archive.
    pub partitions: u64,
    /// Where each tablespace goes.
    pub tablespaces: Vec<PlannedTablespace>,
    /// Whether what an interrupted restore wrote is removed first.
    pub begins_anew: bool,
    /// Sentences that say what was decided, and why.
    pub notes: Vec<String>,
    /// Sentences about what the user should check.
    pub warnings: Vec<String>,
}

/// What RESTORE found or did.
#[derive(Debug, Clone)]
pub enum RestoreClusterOutcome {
    /// The cluster was restored now.
    Restored(Box<RestoreReport>),
    /// An earlier run of the same request had finished: nothing was touched.
    AlreadyRestored {
        /// The backup that run restored.
        backup: String,
        /// Sentences about what is still as the restore left it.
        notes: Vec<String>,
    },
}
