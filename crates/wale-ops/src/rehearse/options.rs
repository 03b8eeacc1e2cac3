//! What a caller may choose about a rehearsal.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_cluster::trial::{Programs, TrialPlaces};
use wale_pg::{MajorVersion, RecoveryTargetKind};

/// A restored copy that was not started yet.
#[derive(Debug, Clone)]
pub struct RestoredCopy {
    /// Where it lies, and what belongs to its server.
    pub places: TrialPlaces,
    /// Its version.
    pub major: MajorVersion,
    /// Where its recovery ends.
    pub target: RecoveryTargetKind,
    /// The newest commit that the archive had when the restore was planned, where it goes to the end of the archive.
    pub newest_commit: Option<DateTime<Utc>>,
}

/// A query whose one value stands for the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The query.
    pub sql: String,
    /// What it must give.
    pub expected: Option<String>,
}

/// A check that a caller may do without, because it reads everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Tables and B-tree indexes.
    Amcheck,
    /// The checksum of every page.
    Checksums,
}

/// What a caller may choose.
#[derive(Debug, Clone)]
pub struct RehearseOptions {
    /// The server's programs.
    pub programs: Programs,
    /// The home directory, in which `restore_command` may find credentials.
    pub home: Option<PathBuf>,
    /// The role that logs in first, and runs the user's SQL.
    pub user: String,
    /// The database in which the copy is asked what it is.
    pub control_database: String,
    /// The database in which the user's SQL runs.
    pub database: String,
    /// `shared_buffers` in bytes.
    pub shared_buffers: u64,
    /// How long recovery and checks may take together.
    pub limit: Duration,
    /// Files of SQL, each of which must succeed.
    pub sql: Vec<PathBuf>,
    /// The query whose value is told.
    pub fingerprint: Option<Fingerprint>,
    /// Checks that are not made.
    pub left_out: Vec<LeftOut>,
}

impl RehearseOptions {
    /// Whether a check is made.
    pub(super) fn makes(&self, check: LeftOut) -> bool {
        !self.left_out.contains(&check)
    }
}
