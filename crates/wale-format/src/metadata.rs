//! WAL-G's `metadata.json`: the small description of a backup that its list, delete and mark read.
//!
//! Refuses to know: anything the sentinel does not say. `is_permanent` here, not in the sentinel, is
//! what WAL-G goes by.
//!
//! Source followed: WAL-G 43fb039.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Sentinel;
use crate::sentinel::WAL_G_DATE_FORMAT;

/// The content of `metadata.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupMetadata {
    /// When the backup began.
    pub start_time: DateTime<Utc>,
    /// When it ended.
    pub finish_time: DateTime<Utc>,
    /// Always the same text, whatever WAL-G means by it.
    pub date_fmt: String,
    /// The host that made the backup.
    pub hostname: String,
    /// The data directory there.
    pub data_dir: String,
    /// `server_version_num`.
    pub pg_version: u32,
    /// Start position.
    pub start_lsn: u64,
    /// Stop position.
    pub finish_lsn: u64,
    /// Whether the backup is to be kept whatever the retention says.
    pub is_permanent: bool,
    /// The cluster, as a number.
    pub system_identifier: Option<u64>,
    /// Bytes of all members' bodies.
    pub uncompressed_size: u64,
    /// Bytes of all partitions as stored.
    pub compressed_size: u64,
    /// Every other field, for example the user's tag `user_data`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl BackupMetadata {
    /// What a sentinel with WAL-G's keys says, as every one of ours does; `None` for WAL-E's.
    #[must_use]
    pub fn from_sentinel(sentinel: &Sentinel) -> Option<Self> {
        Some(Self {
            start_time: sentinel.start_time?,
            finish_time: sentinel.finish_time?,
            date_fmt: WAL_G_DATE_FORMAT.to_owned(),
            hostname: sentinel.hostname.clone()?,
            data_dir: sentinel.data_directory.clone()?,
            pg_version: sentinel.pg_version?,
            start_lsn: sentinel.lsn?,
            finish_lsn: sentinel.finish_lsn?,
            is_permanent: sentinel.is_permanent.unwrap_or(false),
            system_identifier: sentinel.system_identifier,
            uncompressed_size: sentinel.uncompressed_size?,
            compressed_size: sentinel.compressed_size?,
            extra: Map::new(),
        })
    }

    /// Reads the object.
    ///
    /// # Errors
    /// When it is not JSON of this form.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The object's bytes: compact JSON, no newline.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("string keys and plain values always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"start_time":"2026-08-20T01:00:03.120001Z","finish_time":"2026-08-20T01:00:21.900Z","date_fmt":"%Y-%m-%dT%H:%M:%S.%fZ","hostname":"pg-0","data_dir":"/var/lib/postgresql/data","pg_version":160004,"start_lsn":100663336,"finish_lsn":100663608,"is_permanent":true,"system_identifier":7391827461827364512,"uncompressed_size":31457280,"compressed_size":5242880,"user_data":{"job":"nightly"}}"#;

    #[test]
    fn rewrites_to_the_same_bytes() {
        let metadata = BackupMetadata::parse(SAMPLE.as_bytes()).expect("valid");
        assert!(metadata.is_permanent);
        assert_eq!(String::from_utf8(metadata.to_json()).expect("text"), SAMPLE);
    }

    #[test]
    fn wal_e_sentinels_have_none() {
        let sentinel = Sentinel::parse(br#"{"expanded_size_bytes": 1}"#).expect("valid");
        assert_eq!(BackupMetadata::from_sentinel(&sentinel), None);
    }
}
