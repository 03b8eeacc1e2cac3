//! What a verb may take of the memory, and for how long it may ask the store.

use std::time::Duration;

use wale_ops::wal_fetch;
use wale_pg::WalSegmentSize;
use wale_service::{BESIDE_BUFFERS_MIB, HttpLimits};
use wale_storage::RetryPolicy;

use crate::config::{LEAST_MEMORY_MIB, Settings, declared};

/// Buffers that are there however little memory is set: what a base backup with two workers needs.
const LEAST_BUFFERS: u64 = LEAST_MEMORY_MIB << 20;

/// What prefetched segments may take of the memory budget: a quarter, so that base backups and
/// pushes keep the rest.
const PREFETCH_SHARE: u64 = 4;

/// What each further archive may take of the memory budget to be brought up to date: an eighth, and of more than four of them
/// each less, so that all together take a half at most. They are fast enough with little, and nobody waits for them.
const FURTHER_SHARE: u64 = 8;

/// Beyond so many they share a half of the budget: half / 4 = an eighth.
const FURTHER_WHOLE_SHARES: u64 = 4;

/// How long a further archive is asked again within one request, 10 s: its task tries again by itself.
const FURTHER_DEADLINE: Duration = Duration::from_secs(10);

/// How long one of several archives is asked again while it is read, 8 s: the next one is asked then.
const READER_DEADLINE: Duration = Duration::from_secs(8);

/// What is left of the process's memory for buffers, bytes.
fn buffers(settings: &Settings) -> u64 {
    let memory = settings.get(&declared::WALE_MEMORY);
    memory
        .saturating_sub(BESIDE_BUFFERS_MIB << 20)
        .max(LEAST_BUFFERS)
}

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
            memory_bytes: buffers(settings),
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
            memory_bytes: buffers(settings),
            store: RetryPolicy { deadline, ..store },
        }
    }

    /// Those of a further archive that the sidecar brings up to date.
    pub(crate) fn of_further(settings: &Settings, count: usize) -> Self {
        Self {
            memory_bytes: further_share(settings, count),
            store: RetryPolicy {
                deadline: FURTHER_DEADLINE,
                quiet: true,
                ..RetryPolicy::default()
            },
        }
    }

    /// Those of one of several archives that are read.
    pub(crate) fn of_reader(settings: &Settings) -> Self {
        let mut bounds = Self::of_fetch(settings);
        bounds.store.deadline = bounds.store.deadline.min(READER_DEADLINE);
        bounds
    }

    /// Those of the sidecar: prefetched segments have memory of their own, out of the same budget.
    pub(crate) fn of_sidecar(settings: &Settings) -> Self {
        let memory = buffers(settings);
        let others = prefetch_memory(settings) + further_memory(settings);
        // As much as the first archive needs for a transfer stays in any case.
        let memory_bytes = memory.saturating_sub(others).max(memory / FURTHER_SHARE);
        Self {
            memory_bytes,
            ..Self::of_fetch(settings)
        }
    }
}

/// What all further archives may take of the sidecar's budget, bytes.
fn further_memory(settings: &Settings) -> u64 {
    let count = u64::try_from(settings.further()).unwrap_or(u64::MAX);
    count.saturating_mul(further_share(settings, settings.further()))
}

/// What each of so many further archives may take, bytes.
fn further_share(settings: &Settings, count: usize) -> u64 {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let half = buffers(settings) / 2;
    half / count.max(FURTHER_WHOLE_SHARES)
}

/// What prefetched segments may take of the sidecar's budget, bytes.
pub(crate) fn prefetch_memory(settings: &Settings) -> u64 {
    if settings.get(&declared::WALE_FETCH_PREFETCH) == 0 {
        0
    } else {
        buffers(settings) / PREFETCH_SHARE
    }
}

/// How many WAL files the sidecar sends at a time: those that its budget holds, 16 at most. Two processors decode no faster with more;
/// more help where clients are slow.
fn files_at_once(settings: &Settings) -> usize {
    let budget = Bounds::of_sidecar(settings).memory_bytes;
    let fit = wal_fetch::files_at_once(budget, WalSegmentSize::DEFAULT.bytes());
    let most = HttpLimits::default().files_at_once;
    usize::try_from(fit).map_or(most, |fit| fit.min(most))
}

/// What the sidecar's endpoint may hold.
pub(crate) fn limits(settings: &Settings) -> HttpLimits {
    HttpLimits {
        files_at_once: files_at_once(settings),
        ..HttpLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loaded;

    #[test]
    fn as_many_files_are_sent_at_a_time_as_the_memory_holds() {
        for (memory, files) in [
            ("32MiB", 2),
            ("64MiB", 4),
            ("128MiB", 4),
            ("256MiB", 10),
            ("1GiB", 16),
        ] {
            let set = [("WALE_FILE_PREFIX", "/a"), ("WALE_MEMORY", memory)];
            let loaded = Loaded::for_test(&set, "");
            assert_eq!(files_at_once(&loaded.settings), files, "{memory}");
        }
    }

    /// Prefetch, further archives and the first together never take more than the budget, and the first keeps an eighth.
    #[test]
    fn however_many_archives_there_are_they_share_one_budget() {
        let mut set = vec![("WALE_FILE_PREFIX".to_owned(), "/a".to_owned())];
        for number in 2..=9 {
            set.push((format!("WALE_FILE_PREFIX_{number}"), format!("/{number}")));
            let environment: Vec<(&str, &str)> = set
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let loaded = Loaded::for_test(&environment, "");
            let settings = &loaded.settings;
            let memory = buffers(settings);
            let first = Bounds::of_sidecar(settings).memory_bytes;
            let each = Bounds::of_further(settings, loaded.further.len()).memory_bytes;
            let others = each * loaded.further.len() as u64;
            assert!(first + others + prefetch_memory(settings) <= memory);
            assert!(first >= memory / FURTHER_SHARE && each > 0);
        }
    }
}
