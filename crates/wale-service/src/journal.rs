//! What happened last, for `/status` and the log. Facts only; it refuses to draw conclusions.
//!
//! Invariant: nothing in here came from a client unchecked, and no secret is ever put in: texts are messages of
//! [`OpError`], names are parsed names.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use wale_ops::{Level, OpError, RehearsalRecord};

use crate::remedy::advice;

/// A file that became durable, or was found to be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PushRecord {
    pub(crate) name: String,
    pub(crate) outcome: &'static str,
    pub(crate) at: DateTime<Utc>,
}

/// Something that failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FailureRecord {
    pub(crate) what: String,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) at: DateTime<Utc>,
}

impl FailureRecord {
    pub(crate) fn new(what: impl Into<String>, error: &OpError, at: DateTime<Utc>) -> Self {
        Self {
            what: what.into(),
            kind: error.kind.name(),
            message: error.chain(),
            detail: error.detail.clone(),
            hint: advice(error),
            at,
        }
    }
}

/// A base backup that is complete in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BackupRecord {
    pub(crate) name: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) stopped_at: DateTime<Utc>,
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub(crate) duration: Duration,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) damaged_pages: u64,
    pub(crate) warnings: Vec<String>,
}

/// What became of a restore.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RestoreRecord {
    /// `restored` or `already-restored`.
    pub(crate) outcome: &'static str,
    pub(crate) backup: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// The end of a restored server's recovery, as far as this process saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PromotionRecord {
    pub(crate) at: DateTime<Utc>,
    /// Names of the settings that were taken back.
    pub(crate) removed_settings: Vec<String>,
}

/// What retention did after a base backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RetentionRecord {
    pub(crate) at: DateTime<Utc>,
    pub(crate) kept_backups: usize,
    pub(crate) deleted_backups: Vec<String>,
    pub(crate) deleted_objects: u64,
    pub(crate) deleted_bytes: u64,
    /// Objects that the store would not delete.
    pub(crate) retained_objects: u64,
}

/// How far the archive carries a recovery from its newest base backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RecoverableRecord {
    pub(crate) backup: String,
    /// The last segment before anything is missing; none where the first one is.
    pub(crate) until: Option<String>,
    pub(crate) gap: Option<GapRecord>,
    pub(crate) lost_history: Option<LostHistoryRecord>,
    pub(crate) checked_at: DateTime<Utc>,
}

/// What the archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HoldingsRecord {
    pub(crate) backups: u64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) growth: GrowthRecord,
    /// From where to where a recovery gets without a gap; the last one holds the newest backup.
    pub(crate) windows: Vec<WindowRecord>,
    /// What can be restored of timelines that were left, by naming the timeline.
    pub(crate) left: Vec<WindowRecord>,
    pub(crate) timelines: Vec<TimelineRecord>,
    /// The last rehearsal of a restore.
    pub(crate) last_rehearsal: Option<RehearsalNote>,
    pub(crate) checked_at: DateTime<Utc>,
}

/// What came into the archive of late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GrowthRecord {
    pub(crate) last_day_bytes: u64,
    pub(crate) last_week_bytes: u64,
    /// What the server wrote in an hour of the last day.
    pub(crate) wal_bytes_per_hour: Option<u64>,
}

/// What is known of the archive by what was read of it, by whatever process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VerifiedRecord {
    /// When something was last read to verify it.
    pub(crate) at: Option<DateTime<Utc>>,
    pub(crate) backups: u64,
    pub(crate) proven_backups: u64,
    pub(crate) oldest_backup_proof: Option<DateTime<Utc>>,
    pub(crate) proven_segments: u64,
    pub(crate) oldest_segment_proof: Option<DateTime<Utc>>,
    /// Objects that were found damaged or missing, and some of them.
    pub(crate) damaged: u64,
    pub(crate) examples: Vec<DamageRecord>,
}

/// An object that was found damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DamageRecord {
    pub(crate) object: String,
    pub(crate) found: String,
    /// What that means for a recovery; only the process that found it knows.
    pub(crate) meaning: Vec<String>,
}

/// The last verification of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VerifyRecord {
    pub(crate) began: DateTime<Utc>,
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub(crate) duration: Duration,
    pub(crate) bytes_read: u64,
    pub(crate) backups_read: usize,
    pub(crate) segments_read: u64,
    pub(crate) damaged: u64,
    /// Some of them.
    pub(crate) damage: Vec<DamageRecord>,
    /// What is to be done about them.
    pub(crate) remedy: Option<String>,
    /// Why what was read is not remembered.
    pub(crate) not_remembered: Option<String>,
}

/// A rehearsal of a restore, as the archive records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RehearsalNote {
    pub(crate) backup: String,
    #[serde(flatten)]
    pub(crate) record: RehearsalRecord,
}

/// One of the windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WindowRecord {
    pub(crate) backup: String,
    /// The timeline that it ends on.
    pub(crate) timeline: u32,
    pub(crate) from: DateTime<Utc>,
    /// When the last segment was stored; none where the backup's own WAL is missing.
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) until_segment: Option<String>,
    /// What ends it.
    pub(crate) gap: Option<GapRecord>,
    pub(crate) lost_history: Option<LostHistoryRecord>,
    /// Its moments on each timeline of its way.
    pub(crate) legs: Vec<LegRecord>,
    /// The base backups that lead to its moments.
    pub(crate) backups: Vec<String>,
}

/// A part of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LegRecord {
    pub(crate) timeline: u32,
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
}

/// What the archive has of a timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TimelineRecord {
    pub(crate) timeline: u32,
    pub(crate) parent: Option<u32>,
    /// The position at which it left its parent.
    pub(crate) fork: Option<String>,
    /// When its history was stored.
    pub(crate) began: Option<DateTime<Utc>>,
    pub(crate) wal: Vec<RunRecord>,
}

/// Segments that follow each other, and when the first and the last one were stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunRecord {
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) from: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
}

/// Segments that are missing, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GapRecord {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) segments: u64,
    /// An object that holds the first of them, which this version cannot read.
    #[serde(rename = "sealed", skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<String>,
}

/// The history of a timeline that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LostHistoryRecord {
    /// The name of the file.
    pub(crate) name: String,
    /// What is in the archive and shows that it existed.
    pub(crate) shown_by: String,
}

/// WAL that is in the archive only under a codec or a key that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UnreadableWalRecord {
    pub(crate) segments: u64,
    /// One of the objects.
    pub(crate) example: String,
}

/// Requests over plain HTTP on the TLS port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PlainHttpRecord {
    pub(crate) count: u64,
    pub(crate) last: Option<DateTime<Utc>>,
}

/// The latest of each.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Entries {
    pub(crate) last_push: Option<PushRecord>,
    pub(crate) last_push_failure: Option<FailureRecord>,
    pub(crate) last_fetch_failure: Option<FailureRecord>,
    pub(crate) last_backup: Option<BackupRecord>,
    pub(crate) last_backup_failure: Option<FailureRecord>,
    pub(crate) last_retention: Option<RetentionRecord>,
    pub(crate) last_retention_failure: Option<FailureRecord>,
    /// Whether the archive was looked at since the start.
    pub(crate) has_looked: bool,
    pub(crate) recoverable: Option<RecoverableRecord>,
    pub(crate) holdings: Option<HoldingsRecord>,
    pub(crate) verified: Option<VerifiedRecord>,
    pub(crate) last_verification: Option<VerifyRecord>,
    pub(crate) last_verification_failure: Option<FailureRecord>,
    /// Since when one runs.
    pub(crate) verifying_since: Option<DateTime<Utc>>,
    pub(crate) next_verification: Option<DateTime<Utc>>,
    /// What is not known of the server, as a sentence.
    pub(crate) unknown_server: Option<String>,
    /// That the archive's newest timeline is not this server's, as a sentence.
    pub(crate) newest_is_anothers: Option<String>,
    pub(crate) unreadable_wal: Option<UnreadableWalRecord>,
    pub(crate) skipped_backups: u64,
    /// Why the schedule rests on this node, while it does.
    pub(crate) schedule_rests: Option<String>,
    pub(crate) next_scheduled_backup: Option<DateTime<Utc>>,
    pub(crate) restore: Option<RestoreRecord>,
    pub(crate) promotion: Option<PromotionRecord>,
    pub(crate) plain_http: PlainHttpRecord,
}

/// The journal of one sidecar.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Entries>);

impl Journal {
    /// Writes entries.
    pub(crate) fn note(&self, write: impl FnOnce(&mut Entries)) {
        write(&mut self.lock());
    }

    /// A copy of everything.
    pub(crate) fn entries(&self) -> Entries {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Entries are replaced one by one: a panic elsewhere leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs a failure where it is handled: once, as loudly as its kind deserves.
pub(crate) fn log_failure(what: &str, error: &OpError) {
    let hint = advice(error);
    let (kind, detail, hint) = (error.kind.name(), error.detail.as_deref(), hint.as_deref());
    let text = error.chain();
    match error.kind.level() {
        Level::Info => tracing::info!(what, kind, detail, hint, "{text}"),
        Level::Warn => tracing::warn!(what, kind, detail, hint, "{text}"),
        Level::Error => tracing::error!(what, kind, detail, hint, "{text}"),
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
