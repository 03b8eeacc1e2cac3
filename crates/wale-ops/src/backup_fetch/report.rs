//! What a restore tells its user.

use std::path::PathBuf;
use std::time::Duration;

use wale_format::BackupName;
use wale_pg::{Lsn, MajorVersion, TimelineId};

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
    /// Sentences for the user: what deserves a look although the restore succeeded.
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
    },
}
