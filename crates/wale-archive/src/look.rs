//! What was seen of the archive at the last look, and for how long that counts.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use wale_format::{ArchiveIdentity, layout};
use wale_pg::ArchiveFileName;
use wale_storage::ObjectMeta;

/// For how long a look counts, 2 s: pushes that follow each other share it. It is about what a push takes, so an object
/// that appears meanwhile is as new as one that appears during the push.
pub const LOOK_HOLDS: Duration = Duration::from_secs(2);

/// How old a word on the archive may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is asked for now.
    Now,
    /// At most [`LOOK_HOLDS`], where the store lists truly.
    Lately,
}

/// What tells an object from another one of its name, as far as a listing shows it. Two identities of one length would have
/// to be written within one second to be taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    bytes: u64,
    modified: DateTime<Utc>,
}

impl Mark {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self {
            bytes: meta.size,
            modified: meta.modified,
        }
    }
}

/// An identity that was read.
#[derive(Clone, Debug)]
pub(crate) struct SeenIdentity {
    pub(crate) identity: ArchiveIdentity,
    pub(crate) mark: Mark,
    /// When it was last known to be there, if that is known.
    pub(crate) at: Option<Instant>,
}

/// What was listed from a WAL file on, to the identity, which is named after all WAL.
#[derive(Debug)]
pub struct Tail {
    /// Every key behind this one was to be listed.
    pub(crate) after: String,
    /// When the listing began.
    pub(crate) begun: Instant,
    /// The WAL files that the objects claim to hold, in the order of the keys.
    pub(crate) wal: Vec<(ArchiveFileName, ObjectMeta)>,
    /// The identity's object.
    pub(crate) identity: Option<Mark>,
}

/// What was listed last, and when a tail was too long.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    pub(crate) last: Option<Arc<Tail>>,
    pub(crate) too_long: Option<Instant>,
    pub(crate) nearby: Option<Nearby>,
    pub(crate) around: Option<Around>,
}

/// What was listed around a file that is polled for.
#[derive(Debug)]
pub(crate) struct Around {
    /// What its names begin with.
    pub(crate) prefixes: Vec<String>,
    pub(crate) tail: Arc<Tail>,
}

/// The objects of sixteen segments.
#[derive(Debug)]
pub(crate) struct Nearby {
    pub(crate) begun: Instant,
    pub(crate) metas: Vec<ObjectMeta>,
}

impl Tail {
    /// Whether some object claims to hold this file.
    #[must_use]
    pub fn shows(&self, name: &ArchiveFileName) -> bool {
        self.wal.iter().any(|(listed, _)| listed == name)
    }

    /// Whether there is neither the file nor anything that is named after it: later WAL of its timeline, or anything of a
    /// later one.
    #[must_use]
    pub fn ends_before(&self, name: &ArchiveFileName) -> bool {
        let key = wal_key(name);
        self.wal.iter().all(|(_, meta)| meta.key.as_str() < &*key)
    }

    pub(crate) fn covers(&self, name: &ArchiveFileName) -> bool {
        wal_key(name) > self.after
    }
}

/// The key of a file without an extension, with which its other keys begin.
pub(crate) fn wal_key(name: &ArchiveFileName) -> String {
    format!("{}{name}", layout::WAL_PREFIX)
}
