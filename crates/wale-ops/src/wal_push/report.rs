//! What a push gives back, and what a pusher has counted.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_pg::ArchiveFileName;

use crate::error::Kind;

/// How a push ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was uploaded, and the store confirmed that it is durable.
    Stored,
    /// It was there with the same bytes; nothing was uploaded.
    AlreadyStored,
    /// A partial segment whose name is taken by other bytes: it was stored beside, under its digest.
    KeptBeside,
}

impl PushOutcome {
    /// The stable name, for logs and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::AlreadyStored => "already-stored",
            Self::KeptBeside => "kept-beside",
        }
    }
}

/// A push that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReport {
    /// What was pushed.
    pub name: ArchiveFileName,
    /// How it ended.
    pub outcome: PushOutcome,
    /// The object that holds it.
    pub key: String,
    /// Size of the file in bytes.
    pub bytes_plain: u64,
    /// Size of the object in bytes.
    pub bytes_stored: u64,
    /// The object of another tool that has the same name and cannot be read by this version, if the file was stored
    /// beside one.
    pub beside: Option<String>,
    /// How long it took, from the first check of the file.
    pub duration: Duration,
}

/// Counters of a [`crate::wal_push::Pusher`] since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PusherStats {
    /// Requests that ended well.
    pub requests_ok: u64,
    /// Requests that failed, by kind.
    pub failures: BTreeMap<Kind, u64>,
    /// Files uploaded, for requests and ahead of them.
    pub uploads: u64,
    /// Files found in the archive with the same bytes.
    pub already_stored: u64,
    /// Partial segments kept beside another one.
    pub kept_beside: u64,
    /// Files stored beside an object of their name that this version cannot read.
    pub beside_unreadable: u64,
    /// The last such object.
    pub last_unreadable: Option<String>,
    /// Bytes of the uploaded files.
    pub bytes_plain: u64,
    /// Bytes of the uploaded objects.
    pub bytes_stored: u64,
    /// Time spent in pushes that ended well, added up.
    pub push_time: Duration,
    /// Requests answered after a check of what had been pushed ahead or before, or by joining such a push.
    pub look_ahead_hits: u64,
    /// Pushes ahead of a request that failed; the request itself tries again.
    pub look_ahead_failures: u64,
    /// Files that are being pushed now.
    pub in_flight: usize,
    /// When a file last became durable or was found to be.
    pub last_success: Option<DateTime<Utc>>,
    /// The last file of which that is true.
    pub last_archived: Option<ArchiveFileName>,
    /// When a request last failed.
    pub last_failure: Option<DateTime<Utc>>,
    /// Message of the last failed request.
    pub last_failure_text: Option<String>,
}
