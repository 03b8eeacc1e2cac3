//! `wale_rehearsed.json`: what the last rehearsal of a restore from a base backup found.
//!
//! It lies in the backup's folder, so it goes with the backup. It is in the clear, as `metadata.json` is: a sidecar that holds no
//! key for reading shows it, too. In an encrypted archive it therefore holds no words of the server's, no
//! fingerprint, no target and no host.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The format that this version writes.
const FORMAT: u32 = 1;

/// What a rehearsal found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalRecord {
    /// Version of this object's format.
    pub format: u32,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Whether the target was reached and nothing failed.
    pub ok: bool,
    /// Where recovery was to end, in words.
    pub target: String,
    /// How long the files took; none where they were not restored.
    pub restore_milliseconds: Option<u64>,
    /// How long the server took from its start to the end of its recovery; none where it did not come so far.
    pub recovery_milliseconds: Option<u64>,
    /// How long the checks took.
    pub checks_milliseconds: Option<u64>,
    /// When the newest commit was made that the recovery came to.
    pub newest_commit: Option<DateTime<Utc>>,
    /// The checks, in the order in which they were made.
    pub checks: Vec<CheckRecord>,
    /// How many databases the cluster has.
    pub databases: Option<u64>,
    /// What TimescaleDB counts, in all databases together.
    pub timescaledb: Option<TimescaleCounts>,
    /// The value of the user's query.
    pub fingerprint: Option<String>,
    /// What a random choice was made with.
    pub seed: Option<u64>,
    /// The version of wale.
    pub wale_version: String,
    /// The version of the server that was started, as it says it.
    pub postgres_version: String,
    /// The host on which it was made.
    pub host: String,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Its name, which stays: `recovery`, `amcheck`, `sql`, `fingerprint`, `checksums`.
    pub name: String,
    /// What came of it.
    pub outcome: CheckOutcome,
    /// What was found, or why it was not made.
    pub told: Option<String>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// Nothing is wrong.
    Ok,
    /// Something is.
    Failed,
    /// It could not be made here.
    Skipped,
}

impl CheckOutcome {
    /// Its word, as in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What TimescaleDB counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimescaleCounts {
    /// Hypertables.
    pub hypertables: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Jobs, those of TimescaleDB itself among them.
    pub jobs: u64,
}

impl RehearsalRecord {
    /// A record of a rehearsal that began at this time, of which nothing is known yet.
    #[must_use]
    pub fn begun(began: DateTime<Utc>, target: String) -> Self {
        Self {
            format: FORMAT,
            began,
            ended: began,
            ok: false,
            target,
            restore_milliseconds: None,
            recovery_milliseconds: None,
            checks_milliseconds: None,
            newest_commit: None,
            checks: Vec::new(),
            databases: None,
            timescaledb: None,
            fingerprint: None,
            seed: None,
            wale_version: String::new(),
            postgres_version: String::new(),
            host: String::new(),
        }
    }

    /// Reads the object.
    ///
    /// # Errors
    /// When it is not JSON of this form.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The object's bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values always serialise")
    }

    /// The same without what may show something of the data, and without names that people gave: of a restore point, of a host.
    #[must_use]
    pub fn without_words(mut self) -> Self {
        self.fingerprint = None;
        self.target.clear();
        self.host.clear();
        for check in &mut self.checks {
            check.told = None;
        }
        self
    }

    /// The first check that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&CheckRecord> {
        let failed = |check: &&CheckRecord| check.outcome == CheckOutcome::Failed;
        self.checks.iter().find(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_shows_no_data_where_it_must_not() {
        let mut record = RehearsalRecord::begun(DateTime::UNIX_EPOCH, "the end".to_owned());
        record.checks.push(CheckRecord {
            name: "sql".to_owned(),
            outcome: CheckOutcome::Failed,
            told: Some("a secret row".to_owned()),
        });
        record.fingerprint = Some("another secret".to_owned());
        record.target = "the restore point \"secret\"".to_owned();
        record.host = "secret-host".to_owned();
        record.timescaledb = Some(TimescaleCounts::default());
        let bytes = record.to_json();
        assert_eq!(RehearsalRecord::parse(&bytes).unwrap(), record);
        assert_eq!(
            record.failure().map(|check| check.name.as_str()),
            Some("sql")
        );
        let text = String::from_utf8(record.without_words().to_json()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains(r#""outcome":"failed""#), "{text}");
        assert!(RehearsalRecord::parse(b"{}").is_err());
        // A later version may say more.
        let more = String::from_utf8(bytes)
            .unwrap()
            .replacen('{', "{\"more\":1,", 1);
        assert!(RehearsalRecord::parse(more.as_bytes()).is_ok());
    }
}
