//! The handle on an archive: one prefix in one store, bound to one cluster.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use wale_format::{ArchiveIdentity, Seal};
use wale_pipeline::{Line, MemoryBudget};
use wale_storage::{ObjectKey, Store};

use crate::Clock;
use crate::error::{OpError, Result};
use crate::levels::{Levels, Trial};
use crate::look::{SeenIdentity, Tails};

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
    pub(crate) inner: Arc<Inner>,
    /// The way to the store, which may have a limit.
    pub(crate) line: Line,
    /// Where zstd's levels are chosen.
    pub(crate) levels: Option<Arc<Levels>>,
    /// Of an archive for one object at a level that was chosen.
    pub(crate) trial: Option<Trial>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) seal: Seal,
    pub(crate) clock: Clock,
    pub(crate) budget: MemoryBudget,
    pub(crate) created_by: String,
    /// What the operator allows the encryption to become, as [`WriteKey::word`](wale_format::WriteKey::word) writes it.
    pub(crate) accepted: Option<String>,
    /// The identity as last read. The lock is held over the claim.
    pub(crate) identity: tokio::sync::Mutex<Option<ArchiveIdentity>>,
    /// The identity's object as it was read last; none when there was none.
    pub(crate) seen: Mutex<Option<SeenIdentity>>,
    pub(crate) tails: Mutex<Tails>,
    /// Whether this process has ever seen an identity: an archive that has none any more is not begun anew.
    pub(crate) was_seen: AtomicBool,
    /// Whether this process began the archive in an empty place.
    pub(crate) was_begun: AtomicBool,
}

impl Archive {
    /// A handle on the archive; asks the store nothing yet.
    #[must_use]
    pub fn open(options: ArchiveOptions) -> Self {
        Self::open_changing(options, None)
    }

    /// As [`Archive::open`], of an archive whose encryption may become what `accepted` names: the word that a refusal says.
    #[must_use]
    pub fn open_changing(options: ArchiveOptions, accepted: Option<String>) -> Self {
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
                accepted,
                identity,
                seen: Mutex::default(),
                tails: Mutex::default(),
                was_seen: AtomicBool::new(false),
                was_begun: AtomicBool::new(false),
            }),
            line: Line::default(),
            levels: None,
            trial: None,
        }
    }

    /// The same archive behind this line, which all that is stored passes: WAL at once, base backups and copies when there is
    /// room. Without this the line has no limit.
    #[must_use]
    pub fn behind(self, line: Line) -> Self {
        Self { line, ..self }
    }

    /// The same archive with levels of zstd that it chooses for each object.
    #[must_use]
    pub fn adapting(self) -> Self {
        let levels = Some(Arc::default());
        Self { levels, ..self }
    }

    /// The line to the store.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The same archive over another store, which holds the same objects, with this memory. It has its line in common: what a host
    /// sends goes out by one.
    #[must_use]
    pub fn over(&self, store: Arc<dyn Store>, budget: MemoryBudget) -> Self {
        let options = ArchiveOptions {
            store,
            seal: self.inner.seal.clone(),
            clock: self.inner.clock.clone(),
            budget,
            created_by: self.inner.created_by.clone(),
        };
        Self::open_changing(options, self.inner.accepted.clone()).behind(self.line.clone())
    }

    /// Where several archives are read as this one, each of them alone.
    #[must_use]
    pub fn copies(&self) -> Vec<Self> {
        let stores = self.store().copies().into_iter();
        stores
            .map(|store| self.over(store, self.budget().clone()))
            .collect()
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
            .finish_non_exhaustive()
    }
}
