//! What a rehearsal found.

use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_format::{CheckOutcome, CheckRecord, RehearsalRecord, TimescaleCounts};

/// Bytes that are kept of what a check told: the record must stay small.
const TOLD_MAX: usize = 1500;

/// What was found on a copy.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// From the start of the server to the end of its recovery; none where it did not come so far.
    pub recovery: Option<Duration>,
    /// How long the checks took.
    pub checking: Duration,
    /// The newest commit that the recovery came to.
    pub newest_commit: Option<DateTime<Utc>>,
    /// How many databases there are.
    pub databases: Option<u64>,
    /// What TimescaleDB counts.
    pub timescaledb: Option<TimescaleCounts>,
    /// The value of the user's query.
    pub fingerprint: Option<String>,
    /// The checks.
    pub checks: Vec<CheckRecord>,
    /// The last lines of the server's log, where it did not come up.
    pub last_lines: Vec<String>,
}

impl Findings {
    /// A copy that could not be restored, for this reason.
    #[must_use]
    pub fn not_restored(reason: String) -> Self {
        let mut findings = Self::default();
        findings.note("restore", CheckOutcome::Failed, reason);
        findings
    }

    pub(super) fn note(&mut self, name: &str, outcome: CheckOutcome, told: impl Into<String>) {
        let mut told: String = told.into();
        told.truncate(told.floor_char_boundary(TOLD_MAX));
        self.checks.push(CheckRecord {
            name: name.to_owned(),
            outcome,
            told: (!told.is_empty()).then_some(told),
        });
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let failed = |check: &CheckRecord| check.outcome == CheckOutcome::Failed;
        !self.checks.iter().any(failed)
    }

    /// Puts what was found into a record.
    pub fn fill(&self, record: &mut RehearsalRecord) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        record.ok = self.is_good();
        record.recovery_milliseconds = self.recovery.map(millis);
        record.checks_milliseconds = self.recovery.map(|_| millis(self.checking));
        record.newest_commit = self.newest_commit;
        record.databases = self.databases;
        record.timescaledb = self.timescaledb;
        record.fingerprint.clone_from(&self.fingerprint);
        record.checks.clone_from(&self.checks);
    }
}
