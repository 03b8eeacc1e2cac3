//! Our own record of a backup, and its parts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use wale_pg::{Lsn, MajorVersion, SystemIdentifier, TimelineId};

use super::bounds;
use crate::Codec;

/// Our own record of a backup: the object `wale` in the sentinel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct WaleSentinel {
    /// Format of this record; [`WaleSentinel::FORMAT`] is the newest this version knows.
    pub format_version: u32,
    /// The version of wale that made the backup.
    #[serde(deserialize_with = "bounds::text")]
    pub wale_version: String,
    /// The text of `backup_label`.
    #[serde(deserialize_with = "bounds::text")]
    pub backup_label: String,
    /// Start position: the redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// Stop position.
    pub stop_lsn: Lsn,
    /// Timeline of the start position.
    pub start_timeline: TimelineId,
    /// Timeline of the stop position; another one when a standby was promoted meanwhile.
    pub stop_timeline: TimelineId,
    /// When the backup began.
    pub start_time: DateTime<Utc>,
    /// When it ended: the earliest time to which it can be recovered.
    pub stop_time: DateTime<Utc>,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Major version of the server.
    pub major: MajorVersion,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u64,
    /// Whether the cluster has data checksums.
    #[serde(default)]
    pub data_checksums: bool,
    /// How the partitions are compressed.
    pub codec: Codec,
    /// The partitions, in order of their numbers. A restore wants every one of them.
    #[serde(deserialize_with = "bounds::list::<_, _, { bounds::PARTITIONS_MAX }>")]
    pub partitions: Vec<PartitionRecord>,
    /// Tablespaces that are not just folders in `pg_tblspc`.
    #[serde(
        default,
        deserialize_with = "bounds::list::<_, _, { bounds::TABLESPACES_MAX }>"
    )]
    pub tablespaces: Vec<TablespaceRecord>,
    /// SHA-256 of the `backup_manifest` object, lower-case hexadecimal.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub manifest_sha256: Option<String>,
    /// Settings that recovery enforces, as the server had them.
    #[serde(default, deserialize_with = "bounds::settings")]
    pub settings: BTreeMap<String, String>,
    /// Database → extension → version.
    #[serde(default, deserialize_with = "bounds::extensions")]
    pub extensions: BTreeMap<String, BTreeMap<String, String>>,
    /// Database → what TimescaleDB counted there.
    #[serde(
        default,
        deserialize_with = "bounds::counts",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub timescaledb: BTreeMap<String, TimescaleRecord>,
    /// Pages whose checksum was wrong when they were read.
    #[serde(
        default,
        deserialize_with = "bounds::list::<_, _, { bounds::PAGES_MAX }>"
    )]
    pub damaged_pages: Vec<DamagedPage>,
    /// Number of regular files.
    pub files: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Whether the backup was taken from a standby.
    #[serde(default)]
    pub from_standby: bool,
    /// Whether the WAL from start to stop is part of the backup: it was taken of a stopped server, which archives the
    /// segment of its last checkpoint only after its next start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds_its_wal: bool,
    /// Whether the backup was requested over HTTP, by anybody who could reach the sidecar: retention counts it only
    /// when it began long enough after the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested_over_http: bool,
    /// Where `pg_wal` pointed, when it was a symbolic link.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub pg_wal_link: Option<String>,
    /// The server's configuration, where it lay outside of the data directory and could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationRecord>,
}

/// What TimescaleDB counted in a database when the backup was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimescaleRecord {
    /// Hypertables.
    pub hypertables: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Those of them that were compressed.
    pub compressed_chunks: u64,
    /// Jobs, TimescaleDB's own among them.
    pub jobs: u64,
    /// The edition, as its setting names it.
    #[serde(
        default,
        deserialize_with = "bounds::optional_word",
        skip_serializing_if = "Option::is_none"
    )]
    pub licence: Option<String>,
}

/// The server's configuration, stored beside the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationRecord {
    /// The folder in which it lay.
    #[serde(deserialize_with = "bounds::text")]
    pub origin: String,
    /// SHA-256 of the object, lower-case hexadecimal.
    #[serde(deserialize_with = "bounds::text")]
    pub sha256: String,
}

/// One partition as it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Its number.
    pub number: u32,
    /// Members of the tar.
    pub members: u64,
    /// Bytes of the tar.
    pub bytes_plain: u64,
    /// Bytes of the object.
    pub bytes_stored: u64,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceRecord {
    /// Its OID: the name of the link in `pg_tblspc`.
    pub oid: u32,
    /// Where the link pointed.
    #[serde(deserialize_with = "bounds::text")]
    pub location: String,
    /// Where it lay in the data directory, when it did: relative to it. A restore puts it there in its own.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub inside: Option<String>,
}

/// A page with a wrong checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    /// The file, relative to the data directory.
    #[serde(deserialize_with = "bounds::text")]
    pub path: String,
    /// The block number within the relation (over all of its segment files).
    pub block: u32,
}

impl WaleSentinel {
    /// The newest format this version reads, and the one it writes.
    pub const FORMAT: u32 = 1;

    /// Bytes of all partitions as stored.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.partitions.iter().fold(0, |sum, partition| {
            sum.saturating_add(partition.bytes_stored)
        })
    }
}
