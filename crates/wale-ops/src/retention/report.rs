//! What a run of retention reports: one line for each object, and the sum at the end.

use chrono::SecondsFormat;
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::ArchiveFileName;
use wale_storage::{ObjectKey, StoreError};

use crate::error::{Kind, store_kind};

/// What kind of object a line speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The commit record of a base backup.
    Sentinel,
    /// A partition of a base backup.
    Volume,
    /// The text with the server's version.
    ExtendedVersion,
    /// Another object in the folder of a base backup.
    BackupObject,
    /// A WAL segment, whole or partial.
    Wal,
    /// The note of a base backup in the WAL archive.
    BackupHistory,
    /// The history of a timeline.
    TimelineHistory,
    /// Nothing that this version knows.
    Unknown,
}

impl What {
    /// What the key says of its object.
    #[must_use]
    pub fn of(key: &str) -> Self {
        match layout::parse(key) {
            ArchiveKey::Sentinel(_) => Self::Sentinel,
            ArchiveKey::Partition { .. } | ArchiveKey::ForeignPartition { .. } => Self::Volume,
            ArchiveKey::ExtendedVersion(_) => Self::ExtendedVersion,
            _ if layout::backup_of(key).is_some() => Self::BackupObject,
            _ => match layout::wal_claim(key) {
                Some(ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)) => Self::Wal,
                Some(ArchiveFileName::BackupHistory { .. }) => Self::BackupHistory,
                Some(ArchiveFileName::TimelineHistory(_)) => Self::TimelineHistory,
                None => Self::Unknown,
            },
        }
    }

    /// The stable name, for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sentinel => "sentinel",
            Self::Volume => "volume",
            Self::ExtendedVersion => "extended-version",
            Self::BackupObject => "backup-object",
            Self::Wal => "wal",
            Self::BackupHistory => "backup-history",
            Self::TimelineHistory => "timeline-history",
            Self::Unknown => "unknown",
        }
    }
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The object.
    pub key: ObjectKey,
    /// Its stored size in bytes.
    pub size: u64,
    /// What it is.
    pub what: What,
    /// Whether it goes.
    pub goes: bool,
    /// Why.
    pub why: String,
}

/// An object that the store would not delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The object.
    pub key: ObjectKey,
    /// The kind of refusal: the store's own code where it gave one, otherwise S3's word for it or the name of wale's
    /// kind of error.
    pub code: String,
    /// What the store said: its own words where it gave any, and until when it keeps the object where it says so.
    pub message: String,
}

impl Refused {
    /// The store said that it had deleted the object, and has it.
    pub(super) fn still_there(key: ObjectKey) -> Self {
        Self {
            key,
            code: Kind::ArchiveConflict.name().to_owned(),
            message: "the store said that it was deleted, and still has it".to_owned(),
        }
    }

    pub(super) fn new(key: ObjectKey, error: &StoreError) -> Self {
        let reply = error.server_reply();
        let (reported, words) = reply.map_or(("", ""), |reply| (&reply.code, &reply.message));
        let code = match error {
            _ if !reported.is_empty() => reported,
            StoreError::PermissionDenied { .. } => "AccessDenied",
            other => store_kind(other).name(),
        };
        let mut message = words.to_owned();
        if message.is_empty() {
            message = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(deeper) = cause {
                message = format!("{message}: {deeper}");
                cause = deeper.source();
            }
        }
        let code = code.to_owned();
        if let StoreError::Retained {
            until: Some(until), ..
        } = error
            && !words.is_empty()
        {
            let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
            message = format!("{message} (retained until {until})");
        }
        Self { key, code, message }
    }
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Backups that went, or would go, oldest first.
    pub deleted: Vec<BackupName>,
    /// Backups that stay, oldest first, each with its reasons.
    pub kept: Vec<(BackupName, String)>,
    /// Objects that went, or would go.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// WAL objects among them.
    pub wal_objects: u64,
    /// Objects that the store would not delete, the first of them.
    pub refused: Vec<Refused>,
    /// How many it would not delete.
    pub refused_count: u64,
    /// Sentences for the user.
    pub warnings: Vec<String>,
    /// Sentences about what is counted apart: branches that were abandoned, and what this version cannot restore.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing went and nothing was refused.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.objects == 0 && self.refused_count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_called_what_they_are() {
        const BACKUP: &str = "basebackups_005/base_000000010000000000000003_00000040";
        const SEGMENT: &str = "wal_005/000000010000000000000003";
        let cases = [
            (
                format!("{BACKUP}_backup_stop_sentinel.json"),
                What::Sentinel,
            ),
            (
                format!("{BACKUP}/tar_partitions/part_00000000.tar.lzo"),
                What::Volume,
            ),
            (
                format!("{BACKUP}/tar_partitions/part_1.tar.zst"),
                What::Volume,
            ),
            (
                format!("{BACKUP}/extended_version.txt"),
                What::ExtendedVersion,
            ),
            (format!("{BACKUP}/metadata.json"), What::BackupObject),
            (format!("{BACKUP}/strange"), What::BackupObject),
            (format!("{SEGMENT}.lzo"), What::Wal),
            (format!("{SEGMENT}.lzo.gpg"), What::Wal),
            (format!("{SEGMENT}.partial.zst"), What::Wal),
            (
                format!("{SEGMENT}.00000028.backup.lzo"),
                What::BackupHistory,
            ),
            (
                "wal_005/00000002.history.zst".to_owned(),
                What::TimelineHistory,
            ),
            ("wal_005/strange".to_owned(), What::Unknown),
            ("wale.json".to_owned(), What::Unknown),
        ];
        for (key, what) in cases {
            assert_eq!(What::of(&key), what, "{key}");
        }
    }
}
