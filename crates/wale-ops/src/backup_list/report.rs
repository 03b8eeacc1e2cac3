//! One line of the list: WAL-E's columns and ours.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use wale_archive::proof::BackupProof;
use wale_format::sentinel::TimescaleRecord;
use wale_format::{BackupName, Codec, RehearsalRecord, ShownEncryption};
use wale_pg::{Lsn, MajorVersion, SystemIdentifier, TimelineId};

/// One base backup of the archive.
///
/// WAL-E's seven columns are always there as text, empty where the sentinel does not say; the others only where the
/// maker of the backup recorded them.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSummary {
    /// The backup's name.
    pub name: BackupName,
    /// When the sentinel was stored, by the store's clock.
    pub modified: DateTime<Utc>,
    /// WAL-E's `expanded_size_bytes`: bytes of the files; `None` where the maker did not say.
    pub expanded_size_bytes: Option<u64>,
    /// WAL-E's `wal_segment_backup_start`, from the name.
    pub start_segment: String,
    /// WAL-E's `wal_segment_offset_backup_start`, from the name; decimal, opaque, may be empty.
    pub start_offset: String,
    /// WAL-E's `wal_segment_backup_stop`; may be empty.
    pub stop_segment: String,
    /// WAL-E's `wal_segment_offset_backup_stop`; decimal, may be empty.
    pub stop_offset: String,
    /// When the backup began.
    pub start_time: Option<DateTime<Utc>>,
    /// When the backup ended: the time by which "the latest backup" is chosen.
    pub stop_time: Option<DateTime<Utc>>,
    /// Start position.
    pub start_lsn: Option<Lsn>,
    /// Stop position.
    pub stop_lsn: Option<Lsn>,
    /// Timeline of the start position.
    pub timeline: TimelineId,
    /// Major version of the server.
    pub major: Option<MajorVersion>,
    /// Number of files.
    pub files: Option<u64>,
    /// Bytes of the partitions as stored.
    pub stored_bytes: Option<u64>,
    /// Pages that were damaged when the backup was made.
    pub damaged_pages: u64,
    /// `shared_preload_libraries` of the server.
    pub preload_libraries: Option<String>,
    /// Database → extension → version.
    pub extensions: BTreeMap<String, BTreeMap<String, String>>,
    /// Database → what TimescaleDB counted there.
    pub timescaledb: BTreeMap<String, TimescaleRecord>,
    /// Whether wale made it: only then is there a manifest to check a restore against.
    pub wale: bool,
    /// Why the backup cannot be used: its sentinel cannot be read.
    pub damaged: Option<String>,
    /// What made it; `None` where its sentinel cannot be read.
    pub tool: Option<Tool>,
    /// Whose backup it is, where its maker recorded that.
    pub system_identifier: Option<SystemIdentifier>,
    /// The backup that this one only holds the changes to, by name.
    pub parent: Option<String>,
    /// What a look at its objects showed, where there was one.
    pub looked: Option<BackupLook>,
}

/// What makes base backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// This program.
    Wale,
    /// WAL-E.
    WalE,
    /// WAL-G, and what writes as it does.
    WalG,
}

impl Tool {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wale => "wale",
            Self::WalE => "WAL-E",
            Self::WalG => "WAL-G",
        }
    }
}

/// What a look at the objects of a backup showed. None of its partitions is read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLook {
    /// How its partitions are compressed, as their names say.
    pub codecs: BTreeSet<Codec>,
    /// Why this program cannot restore it as it is set up now; `None` where it can, as far as the look showed.
    pub cannot: Option<String>,
    /// How its partitions are encrypted, as the beginning of one shows; `None` where they are in the clear.
    pub encryption: Option<ShownEncryption>,
    /// What came of the last time when all of it was read.
    pub proof: Option<BackupProof>,
    /// What the last rehearsal of a restore from it found.
    pub rehearsed: Option<RehearsalRecord>,
}
