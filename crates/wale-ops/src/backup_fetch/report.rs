//! What a restore reports to its user.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::{BackupName, Sentinel};
use wale_pg::{Lsn, MajorVersion, TimelineId};

use super::options::RestoreOptions;
use super::plan::Begin;
use super::prepare::Prepared;
use super::tablespaces::PlannedTablespace;
use crate::backup_content::WholeBackup;

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

/// The report of a restore whose files are there. What its last step said is added by the caller.
pub(super) fn restored(
    prepared: Prepared,
    options: &RestoreOptions,
    major: MajorVersion,
    whole: &WholeBackup,
) -> RestoreReport {
    let sources = &prepared.sources;
    let source = sources.restored();
    let damaged = source.wale().map_or(0, |wale| wale.damaged_pages.len());
    let (_, bytes_stored) = sources.parts();
    let spaces = prepared.places.tablespaces.into_iter();
    RestoreReport {
        backup: source.name.clone(),
        target: options.target.clone(),
        major,
        timeline: source.timeline,
        start_lsn: source.sentinel.start_lsn(),
        stop_lsn: source.sentinel.stop_lsn(),
        files: whole.files,
        bytes: whole.bytes,
        bytes_stored,
        verified: sources.have_manifests(),
        damaged_pages: damaged as u64,
        tablespaces: spaces.map(|space| (space.oid, space.target)).collect(),
        duration: Duration::ZERO,
        jobs_held: false,
        notes: prepared.notes,
        warnings: prepared.warnings,
    }
}

/// What a prepared restore would do.
pub(super) fn preview(prepared: Prepared) -> Preview {
    let source = prepared.sources.restored();
    let (partitions, _) = prepared.sources.parts();
    Preview {
        backup: source.name.clone(),
        ended: source.ended,
        sentinel: source.sentinel.clone(),
        major: source.major,
        timeline: source.timeline,
        partitions,
        tablespaces: prepared.places.tablespaces,
        begins_anew: prepared.found.begin == Begin::AfterWiping,
        notes: prepared.notes,
        warnings: prepared.warnings,
    }
}
