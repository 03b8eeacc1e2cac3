//! How far a recovery goes, and along which timeline.
//!
//! Names of settings are those of all versions from 10 on: up to 11 in `recovery.conf`, later in the configuration.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// The settings of which at most one may have a value; from 12 on a server refuses to start with two.
pub const TARGET_SETTINGS: [&str; 5] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
];

/// Where a recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTargetKind {
    /// At the end of the archive.
    Latest,
    /// As soon as the data is consistent: at the end of the base backup.
    Immediate,
    /// At a time, in any form PostgreSQL reads; without a zone it is the server's.
    Time(String),
    /// At the end of a transaction.
    Xid(u64),
    /// At a position.
    Lsn(Lsn),
    /// At a point that `pg_create_restore_point` named.
    Name(String),
}

/// The timeline a recovery follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryTargetTimeline {
    /// The youngest that grew out of the backup's, as far as the archive knows.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    /// A certain one.
    Id(TimelineId),
}
