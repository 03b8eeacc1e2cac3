//! The archive: one prefix in one store, bound to one cluster.
//!
//! It knows where things lie (by `wale_format::layout`), whose they are (the identity) and what is there (WAL
//! look-up and the catalog of base backups). It does not know how a segment or a backup is made.
//!
//! Invariants: an error of the store is never taken for absence; nothing that exists is overwritten, except the
//! identity when a codec is added to it; an archive serves one system identifier only.

mod adopt;
mod catalog;
pub(crate) mod condition;
mod evidence;
mod foreign_cluster;
pub(crate) mod former;
mod histories;
mod identity;
mod latest;
pub(crate) mod listing;
pub(crate) mod member_list;
pub(crate) mod parts;
mod placed;
mod read;
mod readable;
#[cfg(test)]
mod tests;
mod wal;
pub(crate) mod walk;
mod witness;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use wale_format::{ArchiveIdentity, Seal};
use wale_pipeline::MemoryBudget;
use wale_storage::{ObjectKey, Store};

pub use catalog::{BackupEntry, Catalog, SentinelRecord};
pub use condition::{CheckDepth, Flaw};
pub(crate) use evidence::{HistoryWitness, WalEvidence, Witness};
pub(crate) use foreign_cluster::foreign_cluster;
pub use former::Beginning;
pub(crate) use histories::{HistoryBounds, Noted};
pub use latest::{BackupSelector, Chosen, Wanted};
pub(crate) use placed::is_offline;
pub(crate) use read::{ConsumeError, damaged};
pub use wal::StoredWal;
pub(crate) use witness::Trace;

use crate::clock::Clock;
use crate::error::{OpError, Result};

/// What an [`Archive`] is made of.
#[derive(Debug)]
pub struct ArchiveOptions {
    /// The store, already rooted at the archive's prefix.
    pub store: Arc<dyn Store>,
    /// How objects are sealed.
    pub seal: Seal,
    /// The time of day.
    pub clock: Clock,
    /// The budget that every buffer of the size of a segment or a partition is taken from.
    pub budget: MemoryBudget,
    /// The program that writes, for the identity: `wale 1.2.3`.
    pub created_by: String,
}

/// A handle on the archive; clones share it.
#[derive(Clone)]
pub struct Archive {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    seal: Seal,
    clock: Clock,
    budget: MemoryBudget,
    created_by: String,
    /// The identity as last read. The lock is held over the claim.
    identity: tokio::sync::Mutex<Option<ArchiveIdentity>>,
    /// Whether this process has ever seen an identity: an archive that has none any more is not begun anew.
    was_seen: AtomicBool,
    /// Whether this process began the archive in an empty place.
    was_begun: AtomicBool,
}

impl Archive {
    /// A handle on the archive; asks the store nothing yet.
    #[must_use]
    pub fn open(options: ArchiveOptions) -> Self {
        let ArchiveOptions {
            store,
            seal,
            clock,
            budget,
            created_by,
        } = options;
        let identity = tokio::sync::Mutex::new(None);
        Self {
            inner: Arc::new(Inner {
                store,
                seal,
                clock,
                budget,
                created_by,
                identity,
                was_seen: AtomicBool::new(false),
                was_begun: AtomicBool::new(false),
            }),
        }
    }

    /// The store under the archive.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The time of day.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The budget of large buffers.
    #[must_use]
    pub fn budget(&self) -> &MemoryBudget {
        &self.inner.budget
    }

    /// Where the archive is, printable, without secrets.
    #[must_use]
    pub fn location(&self) -> String {
        self.inner.store.location()
    }

    /// The key of an object by its path below the prefix. Only paths that wale itself composed come here.
    ///
    /// # Errors
    /// `Internal` for a path that is no key, which is a bug.
    pub fn key(path: &str) -> Result<ObjectKey> {
        ObjectKey::new(path).map_err(|e| {
            OpError::internal(format!("composed the impossible key {path:?}")).source(e)
        })
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("location", &self.location())
            .field("seal", &self.inner.seal)
            .finish()
    }
}
