//! What a fetch gives back, and what a fetcher has counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use wale_format::Codec;
use wale_pg::ArchiveFileName;

use super::landing::Landed;
use crate::error::{Kind, OpError};

/// A WAL file that was verified and is ready to be sent.
pub struct FetchedWal {
    /// What it is.
    pub name: ArchiveFileName,
    /// Its exact size in bytes.
    pub size: u64,
    /// The object it comes from.
    pub key: String,
    /// The object's codec.
    pub codec: Codec,
    /// The object's size in bytes.
    pub bytes_stored: u64,
    /// The plain bytes: exactly `size` of them, or an error. The last piece is withheld until all is known to be
    /// right, so a broken transfer is always short.
    pub body: BoxStream<'static, Result<Bytes, OpError>>,
    /// The file itself, whole and checked, without its final name; then the body is empty.
    pub(super) landed: Option<Landed>,
}

/// How a client got a WAL file.
#[derive(Debug)]
pub enum Delivery {
    /// Its bytes are to be sent.
    Sent(FetchedWal),
    /// It lies in the client's place beside the server's WAL, with so many bytes.
    HandedOver(u64),
}

impl fmt::Debug for FetchedWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedWal")
            .field("key", &self.key)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A WAL file that was put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchReport {
    /// What it is.
    pub name: ArchiveFileName,
    /// The object it comes from.
    pub key: String,
    /// Its size in bytes.
    pub bytes_plain: u64,
    /// The object's size in bytes.
    pub bytes_stored: u64,
    /// How long it took.
    pub duration: Duration,
}

/// A file is not in the archive, beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The archive was read, asked for the file in two ways, and does not have it; nor is it missing from the middle.
    Proven,
}

/// Counters of a [`crate::wal_fetch::Fetcher`] since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetcherStats {
    /// Files delivered (handed over for sending, or put in place).
    pub delivered: u64,
    /// Their bytes.
    pub bytes_plain: u64,
    /// Requests for files that the archive does not have: normal at the end of WAL.
    pub absent: u64,
    /// Absences proven.
    pub proven_absent: u64,
    /// Requests that failed otherwise, by kind.
    pub failures: BTreeMap<Kind, u64>,
    /// Files fetched ahead.
    pub prefetched: u64,
    /// Deliveries from what had been fetched ahead.
    pub prefetch_hits: u64,
    /// Deliveries of which no byte was sent.
    pub handed_over: u64,
    /// When a file was last delivered.
    pub last_success: Option<DateTime<Utc>>,
    /// When a request last failed otherwise than by absence.
    pub last_failure: Option<DateTime<Utc>>,
    /// Message of that request.
    pub last_failure_text: Option<String>,
}
