//! What a verb may take of the memory, and for how long it may ask the store.

use wale_storage::RetryPolicy;

use crate::config::{Settings, declared};

/// What prefetched segments may take of the memory budget: a quarter, so that base backups and
/// pushes keep the rest.
const PREFETCH_SHARE: u64 = 4;

/// Bounds within which a verb uses the archive.
pub(crate) struct Bounds {
    /// Memory for all transfers, bytes.
    pub(crate) memory_bytes: u64,
    /// How the store is asked again.
    pub(crate) store: RetryPolicy,
}

impl Bounds {
    /// Those of a verb that has the whole memory to itself.
    pub(crate) fn of_verb(settings: &Settings) -> Self {
        Self {
            memory_bytes: settings.get(&declared::WALE_MEMORY),
            store: RetryPolicy::default(),
        }
    }

    /// Those of a single fetch, which must answer by its deadline.
    pub(crate) fn of_fetch(settings: &Settings) -> Self {
        let store = RetryPolicy::default();
        let deadline = store
            .deadline
            .min(settings.get(&declared::WALE_FETCH_DEADLINE));
        Self {
            memory_bytes: settings.get(&declared::WALE_MEMORY),
            store: RetryPolicy { deadline, ..store },
        }
    }

    /// Those of the sidecar: prefetched segments have memory of their own, out of the same budget.
    pub(crate) fn of_sidecar(settings: &Settings) -> Self {
        let memory_bytes = settings.get(&declared::WALE_MEMORY) - prefetch_memory(settings);
        Self {
            memory_bytes,
            ..Self::of_fetch(settings)
        }
    }
}

/// What prefetched segments may take of the sidecar's budget, bytes.
pub(crate) fn prefetch_memory(settings: &Settings) -> u64 {
    if settings.get(&declared::WALE_FETCH_PREFETCH) == 0 {
        0
    } else {
        settings.get(&declared::WALE_MEMORY) / PREFETCH_SHARE
    }
}
