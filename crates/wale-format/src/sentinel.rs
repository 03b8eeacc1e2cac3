//! The commit record of a base backup: `<backup>_backup_stop_sentinel.json`.
//!
//! One JSON object that three tools read: WAL-E's four keys, WAL-G's keys (a full backup, with or without a list
//! of files), and one object `wale` with everything a restore of ours wants to know.
//!
//! Refuses to know: when it may be written (last, create-if-absent) and what makes a backup good.
//!
//! Invariants:
//! * A sentinel is written once and never rewritten: fields that no one here knows are skipped, whatever their size.
//! * What is kept of one is bounded (`sentinel/bounds.rs`).
//! * Names in it are [`wale_pg::byte_text`]; in JSON a byte that is no UTF-8 is Python's lone surrogate.
//! * A sentinel made by [`Sentinel::new`] says the same thing in all three tongues.
//! * Sentinels of WAL-E (also without `spec`) and of every generation of WAL-G are read; what they
//!   do not say is `None`.
//!
//! Sources followed: WAL-E 1.1.1, WAL-G 43fb039.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use wale_pg::{Lsn, WalSegmentName, WalSegmentSize};

mod bounds;
mod byte_json;
mod record;
mod tablespaces;

pub use record::{
    ConfigurationRecord, DamagedPage, PartitionRecord, TablespaceRecord, TimescaleRecord,
    WaleSentinel,
};
pub use tablespaces::{TablespaceEntry, TablespaceSpec};

/// A sentinel with names that are not UTF-8 is read a second time up to this size: WAL-E's have a few kilobytes, and
/// only WAL-G's, which has no such names, are large. 1 MiB.
const ESCAPED_MAX_BYTES: usize = 1 << 20;

/// What WAL-G writes as `DateFmt`, whatever it means by it.
pub(crate) const WAL_G_DATE_FORMAT: &str = "%Y-%m-%dT%H:%M:%S.%fZ";

/// A sentinel. Every field of every tool is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sentinel {
    /// WAL-E: name of the segment that holds the stop position.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub wal_segment_backup_stop: Option<String>,
    /// WAL-E: offset of the stop position in that segment, decimal, eight digits.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub wal_segment_offset_backup_stop: Option<String>,
    /// WAL-E: bytes of all files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded_size_bytes: Option<u64>,
    /// WAL-E: tablespaces. Very old sentinels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<TablespaceSpec>,
    /// WAL-G: start position.
    #[serde(default, rename = "LSN", skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    /// WAL-G: `server_version_num`.
    #[serde(default, rename = "PgVersion", skip_serializing_if = "Option::is_none")]
    pub pg_version: Option<u32>,
    /// WAL-G: stop position.
    #[serde(default, rename = "FinishLSN", skip_serializing_if = "Option::is_none")]
    pub finish_lsn: Option<u64>,
    /// WAL-G: the cluster, as a number.
    #[serde(
        default,
        rename = "SystemIdentifier",
        skip_serializing_if = "Option::is_none"
    )]
    pub system_identifier: Option<u64>,
    /// WAL-G: bytes of all members' bodies.
    #[serde(
        default,
        rename = "UncompressedSize",
        skip_serializing_if = "Option::is_none"
    )]
    pub uncompressed_size: Option<u64>,
    /// WAL-G: bytes of all partitions as stored.
    #[serde(
        default,
        rename = "CompressedSize",
        skip_serializing_if = "Option::is_none"
    )]
    pub compressed_size: Option<u64>,
    /// WAL-G: bytes of everything that was walked.
    #[serde(
        default,
        rename = "DataCatalogSize",
        skip_serializing_if = "Option::is_none"
    )]
    pub data_catalog_size: Option<u64>,
    /// WAL-G: the backup has no list of files, every member is to be extracted.
    #[serde(
        default,
        rename = "FilesMetadataDisabled",
        skip_serializing_if = "Option::is_none"
    )]
    pub files_metadata_disabled: Option<bool>,
    /// WAL-G: generation of the sentinel, 2 since WAL-G 2.0.
    #[serde(default, rename = "Version", skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// WAL-G: when the backup began.
    #[serde(default, rename = "StartTime", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime<Utc>>,
    /// WAL-G: when it ended.
    #[serde(
        default,
        rename = "FinishTime",
        skip_serializing_if = "Option::is_none"
    )]
    pub finish_time: Option<DateTime<Utc>>,
    /// WAL-G: always the same text.
    #[serde(
        default,
        rename = "DateFmt",
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub date_format: Option<String>,
    /// WAL-G: the host that made the backup.
    #[serde(
        default,
        rename = "Hostname",
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub hostname: Option<String>,
    /// WAL-G: the data directory there.
    #[serde(
        default,
        rename = "DataDir",
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub data_directory: Option<String>,
    /// WAL-G: whether the backup was made to be kept; `metadata.json` is what counts.
    #[serde(
        default,
        rename = "IsPermanent",
        skip_serializing_if = "Option::is_none"
    )]
    pub is_permanent: Option<bool>,
    /// WAL-G: tablespaces, absent when there are none.
    #[serde(default, rename = "Spec", skip_serializing_if = "Option::is_none")]
    pub wal_g_spec: Option<TablespaceSpec>,
    /// WAL-G: the parent of a delta backup. Its presence alone makes the backup a delta.
    #[serde(
        default,
        rename = "DeltaFrom",
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub delta_from: Option<String>,
    /// WAL-G: the parent's start position. Pages that changed since then are in the delta.
    #[serde(default, rename = "DeltaLSN", skip_serializing_if = "Option::is_none")]
    pub delta_lsn: Option<u64>,
    /// WAL-G before 2.0: the same.
    #[serde(
        default,
        rename = "DeltaFromLSN",
        skip_serializing_if = "Option::is_none"
    )]
    pub delta_from_lsn: Option<u64>,
    /// Our own record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wale: Option<WaleSentinel>,
}

/// Facts that only WAL-G's keys repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelOrigin {
    /// `server_version_num`, for example 160004.
    pub server_version_num: u32,
    /// The host that made the backup.
    pub hostname: String,
    /// The data directory, absolute.
    pub data_directory: String,
    /// Whether WAL-G's list of files lies beside the sentinel.
    pub has_file_list: bool,
}

/// A sentinel cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SentinelError {
    /// It is not JSON, or a field has the wrong type.
    #[error("sentinel is not readable: {0}")]
    Invalid(#[from] serde_json::Error),
    /// It was written by a later version of wale.
    #[error(
        "sentinel has format {found}, this version knows {} at most",
        WaleSentinel::FORMAT
    )]
    LaterFormat {
        /// The format it has.
        found: u32,
    },
    /// The record to be written contradicts itself.
    #[error("sentinel cannot be written: {reason}")]
    Contradiction {
        /// What does not fit.
        reason: String,
    },
    /// A tablespace is listed, but not described.
    #[error("sentinel lists tablespace {name} without its location")]
    TablespaceWithoutLocation {
        /// The name as listed.
        name: String,
    },
}

impl TablespaceSpec {
    fn new(
        base_prefix: String,
        tablespaces: &[TablespaceRecord],
        location: impl Fn(&str) -> String,
    ) -> Self {
        let entry = |tablespace: &TablespaceRecord| {
            let oid = tablespace.oid.to_string();
            let entry = TablespaceEntry {
                loc: Some(location(&tablespace.location)),
                link: Some(format!("pg_tblspc/{oid}")),
            };
            (oid, entry)
        };
        Self {
            base_prefix,
            tablespaces: tablespaces
                .iter()
                .map(|tablespace| tablespace.oid.to_string())
                .collect(),
            entries: tablespaces.iter().map(entry).collect(),
        }
    }

    /// The listed tablespaces: name (an OID as decimal text) and location, without a trailing slash.
    ///
    /// # Errors
    /// When a listed tablespace has no location.
    pub fn locations(&self) -> Result<Vec<(String, String)>, SentinelError> {
        let location = |name: &String| {
            let text = self.entries.get(name)?.loc.as_deref()?;
            Some((name.clone(), without_slash(text).to_owned()))
        };
        self.tablespaces
            .iter()
            .map(|name| {
                location(name)
                    .ok_or_else(|| SentinelError::TablespaceWithoutLocation { name: name.clone() })
            })
            .collect()
    }
}

impl Sentinel {
    /// The sentinel of a backup of ours: `record`, and what WAL-E's and WAL-G's keys make of it.
    ///
    /// # Errors
    /// When the record's segment size is none, or the backup stops before it starts.
    pub fn new(record: WaleSentinel, origin: &SentinelOrigin) -> Result<Self, SentinelError> {
        let contradiction = |reason: String| SentinelError::Contradiction { reason };
        let size = WalSegmentSize::new(record.wal_segment_size)
            .map_err(|error| contradiction(error.to_string()))?;
        if record.stop_lsn < record.start_lsn {
            return Err(contradiction(format!(
                "the stop position {} is before the start position {}",
                record.stop_lsn, record.start_lsn
            )));
        }
        let data_directory = without_slash(&origin.data_directory);
        let with_slash = |path: &str| format!("{}/", without_slash(path));
        // WAL-E records what pg_walfile_name_offset says: on a boundary the segment before, with offset 0.
        let stop_segment = WalSegmentName::last_needed(record.stop_timeline, record.stop_lsn, size);
        let stop_offset = size.offset_in_segment(record.stop_lsn);
        let wal_g_spec = (!record.tablespaces.is_empty()).then(|| {
            TablespaceSpec::new(data_directory.to_owned(), &record.tablespaces, |path| {
                without_slash(path).to_owned()
            })
        });
        Ok(Self {
            wal_segment_backup_stop: Some(stop_segment.to_string()),
            wal_segment_offset_backup_stop: Some(format!("{stop_offset:08}")),
            expanded_size_bytes: Some(record.bytes),
            spec: Some(TablespaceSpec::new(
                with_slash(data_directory),
                &record.tablespaces,
                with_slash,
            )),
            lsn: Some(record.start_lsn.as_u64()),
            pg_version: Some(origin.server_version_num),
            finish_lsn: Some(record.stop_lsn.as_u64()),
            system_identifier: Some(record.system_identifier.as_u64()),
            uncompressed_size: Some(record.bytes),
            compressed_size: Some(record.bytes_stored()),
            data_catalog_size: Some(record.bytes),
            files_metadata_disabled: (!origin.has_file_list).then_some(true),
            version: Some(2),
            start_time: Some(record.start_time),
            finish_time: Some(record.stop_time),
            date_format: Some(WAL_G_DATE_FORMAT.to_owned()),
            hostname: Some(origin.hostname.clone()),
            data_directory: Some(data_directory.to_owned()),
            is_permanent: Some(false),
            wal_g_spec,
            delta_from: None,
            delta_lsn: None,
            delta_from_lsn: None,
            wale: Some(record),
        })
    }

    /// Reads a sentinel of any of the three tools.
    ///
    /// # Errors
    /// When it is not a JSON object of this form, or was written by a later format of wale.
    pub fn parse(bytes: &[u8]) -> Result<Self, SentinelError> {
        match Self::read(bytes) {
            Err(SentinelError::Invalid(error)) if bytes.len() <= ESCAPED_MAX_BYTES => {
                let plain = byte_json::unescape(bytes);
                if plain == bytes {
                    return Err(error.into());
                }
                Self::read(&plain)
            }
            other => other,
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, SentinelError> {
        /// This is read first, so that a later format is named as such whatever else it changed.
        #[derive(Deserialize)]
        struct Probe {
            wale: Option<Format>,
        }
        #[derive(Deserialize)]
        struct Format {
            format_version: u32,
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if let Some(Format { format_version }) = probe.wale
            && format_version > WaleSentinel::FORMAT
        {
            return Err(SentinelError::LaterFormat {
                found: format_version,
            });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// About what this takes in memory, in bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        let specs = [&self.spec, &self.wal_g_spec].into_iter().flatten();
        let named: usize = specs
            .map(|spec| spec.tablespaces.len() + spec.entries.len())
            .sum();
        let ours = self.wale.as_ref().map_or(0, |wale| {
            let extensions: usize = wale.extensions.values().map(|list| 1 + list.len()).sum();
            wale.partitions.len() * size_of::<PartitionRecord>()
                + wale.damaged_pages.len() * 80
                + (wale.tablespaces.len()
                    + extensions
                    + wale.settings.len()
                    + wale.timescaledb.len())
                    * 200
        });
        size_of::<Self>() + named * 200 + ours
    }

    /// The object's bytes: compact JSON, no newline, as the other two write it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("string keys and plain values always serialise");
        byte_json::escape(json)
    }

    /// Start position, where recorded (WAL-E does not).
    #[must_use]
    pub fn start_lsn(&self) -> Option<Lsn> {
        self.wale
            .as_ref()
            .map(|wale| wale.start_lsn)
            .or_else(|| self.lsn.map(Lsn::new))
    }

    /// Stop position, where recorded (WAL-E records segment and offset instead).
    #[must_use]
    pub fn stop_lsn(&self) -> Option<Lsn> {
        self.wale
            .as_ref()
            .map(|wale| wale.stop_lsn)
            .or_else(|| self.finish_lsn.map(Lsn::new))
    }

    /// The segment that holds the stop position, where recorded and well formed (WAL-G does not).
    #[must_use]
    pub fn stop_segment(&self) -> Option<WalSegmentName> {
        WalSegmentName::parse(self.wal_segment_backup_stop.as_deref()?).ok()
    }

    /// When the backup began, where recorded (WAL-E does not).
    #[must_use]
    pub fn started_at(&self) -> Option<DateTime<Utc>> {
        self.wale
            .as_ref()
            .map(|wale| wale.start_time)
            .or(self.start_time)
    }

    /// When the backup ended, where recorded (WAL-E does not).
    #[must_use]
    pub fn stopped_at(&self) -> Option<DateTime<Utc>> {
        self.wale
            .as_ref()
            .map(|wale| wale.stop_time)
            .or(self.finish_time)
    }

    /// Bytes of all files, where recorded.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.expanded_size_bytes.or(self.uncompressed_size)
    }

    /// The tablespaces, in whichever spelling there is. WAL-G uses `spec` only when `Spec` is absent.
    #[must_use]
    pub fn tablespaces(&self) -> Option<&TablespaceSpec> {
        self.wal_g_spec.as_ref().or(self.spec.as_ref())
    }

    /// Whether this is a delta backup of WAL-G's, which cannot be restored alone.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.delta_from.is_some()
    }

    /// The start position of the backup to which this one only holds the changes. Where both spellings are there, the older
    /// one counts, as for WAL-G.
    #[must_use]
    pub fn parent_lsn(&self) -> Option<Lsn> {
        self.delta_from_lsn.or(self.delta_lsn).map(Lsn::new)
    }
}

/// A directory's path without the slash at its end; the root stays.
fn without_slash(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        trimmed => trimmed,
    }
}

#[cfg(test)]
mod tests;
