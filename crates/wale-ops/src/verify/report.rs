//! What a verification found.

use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::BackupName;

use super::options::{Share, VerifyDepth};
use crate::error::{Kind, OpError};

/// Findings that are told; all are counted. 1,000 × at most 4 KiB = 4 MiB.
pub(super) const FINDINGS_MAX: usize = 1000;

/// What a verification found.
#[derive(Debug)]
pub struct VerifyReport {
    /// Where the archive is.
    pub archive: String,
    /// How much was looked at. Names only, where no key here opens the archive.
    pub depth: VerifyDepth,
    /// The share that was asked for.
    pub share: Option<Share>,
    /// When it began.
    pub began: DateTime<Utc>,
    /// All backups, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// What became of the WAL.
    pub wal: WalSum,
    /// What is damaged or missing, and what that means.
    pub findings: Vec<Finding>,
    /// How many there are, told or not.
    pub findings_count: u64,
    /// What else deserves to be known.
    pub notes: Vec<String>,
    /// Bytes that were read from the store, small objects and all.
    pub bytes_read: u64,
    /// Why what was read is not remembered, where that is so.
    pub not_remembered: Option<String>,
    /// Why no content was read, although it was asked for: no key here opens the archive.
    pub locked: Option<OpError>,
    /// Objects that this host cannot read, which are no damage, and one of the reasons.
    pub unreadable: u64,
    /// One of the reasons.
    pub unreadable_because: Option<OpError>,
    /// How long it took.
    pub duration: Duration,
}

/// A backup and what is known of it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedBackup {
    /// Its name.
    pub name: BackupName,
    /// Bytes of its partitions as stored, where they are known.
    pub stored_bytes: u64,
    /// What is known.
    pub state: BackupState,
    /// When the whole of it was last found good.
    pub proven: Option<DateTime<Utc>>,
}

/// What is known of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupState {
    /// Its objects are there; they were not read this time.
    There,
    /// All of it was read now, and is good.
    Proven,
    /// Something is missing or damaged.
    Damaged,
    /// This host cannot read it.
    Unreadable,
    /// It was deleted meanwhile.
    Gone,
}

impl BackupState {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Proven => "proven",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::Gone => "deleted meanwhile",
        }
    }
}

/// What became of the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalSum {
    /// Segments that are there.
    pub segments: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Segments that were read now.
    pub read: u64,
    /// Their bytes as stored.
    pub read_bytes: u64,
    /// Segments that are proven, now or before.
    pub proven: u64,
    /// The oldest of these proofs.
    pub oldest: Option<DateTime<Utc>>,
    /// Histories, partial segments and notes of backups that were read now.
    pub others_read: u64,
}

/// What is the matter with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// It is there, and not what it should be.
    Damaged,
    /// It is not there.
    Missing,
}

impl DamageKind {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
        }
    }
}

/// Something that is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// An object's key, a backup's name, or the names of segments.
    pub object: String,
    /// What is the matter.
    pub trouble: DamageKind,
    /// What was found.
    pub found: String,
    /// What it means for a recovery, a sentence each.
    pub meaning: Vec<String>,
    /// When that was found, where it was not read now.
    pub as_of: Option<DateTime<Utc>>,
}

/// What to do about damage.
pub(super) const REPAIR: &str = "bring the object back from another copy of the archive, if there is one (wale copy from a \
                                 further archive); otherwise take a base backup now: moments from its end on can be recovered";

impl VerifyReport {
    /// Whether something is damaged or missing.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.findings_count > 0
    }

    /// The error that the report comes to; none where all is well.
    #[must_use]
    pub fn failure(&self) -> Option<OpError> {
        if self.is_damaged() {
            let message = format!(
                "{} of the archive {} damaged or missing",
                counted(self.findings_count, "object or gap", "objects or gaps"),
                if self.findings_count == 1 {
                    "is"
                } else {
                    "are"
                }
            );
            return Some(OpError::new(Kind::CorruptData, message).hint(REPAIR));
        }
        if let Some(locked) = &self.locked {
            return Some(locked.duplicate());
        }
        let because = self.unreadable_because.as_ref()?;
        let what = counted(self.unreadable, "object", "objects");
        let message = format!("{what} cannot be read here: {}", because.chain());
        let error = OpError {
            message,
            source: None,
            ..because.duplicate()
        };
        Some(error)
    }
}

/// A number and its noun.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
