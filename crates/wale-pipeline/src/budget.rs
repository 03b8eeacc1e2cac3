//! One memory budget for everything that holds chunks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted: 1 KiB. The semaphore hands out at most 2³² − 1 units at a time,
/// so the largest budget is 4 TiB, and a small request wastes less than a page.
const UNIT_BYTES: u64 = 1024;

/// A number of bytes that may be held at a time. Clones share it.
///
/// Requests are served in the order in which they come: a large one waits until there is room, and later
/// small ones wait behind it, so that it is not starved.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

impl MemoryBudget {
    /// A budget of `bytes`, rounded down to whole KiB, at least one and at most 4 TiB.
    ///
    /// # Panics
    ///
    /// Never in practice: only where a `usize` has less than 32 bits.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(units).expect("usize has at least 32 bits");
        Self {
            semaphore: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            units,
        }
    }

    /// Waits until `bytes` are free and takes them, rounded up to whole KiB.
    ///
    /// A request larger than the whole budget is cut to the whole budget: it then runs alone, instead of
    /// waiting for ever. A task that holds a permit and asks for another can still deadlock with its like.
    /// Ask once, for all that a piece of work needs.
    ///
    /// # Panics
    ///
    /// Never: the semaphore is not closed.
    pub async fn acquire(&self, bytes: u64) -> MemoryPermit {
        let permit = Arc::clone(&self.semaphore)
            .acquire_many_owned(self.units_of(bytes))
            .await
            .expect("the budget never closes its semaphore");
        MemoryPermit { permit }
    }

    /// As [`MemoryBudget::acquire`], from a thread that may block.
    ///
    /// # Panics
    ///
    /// When called from an asynchronous task, which it would block.
    #[must_use]
    pub fn blocking_acquire(&self, bytes: u64, runtime: &Handle) -> MemoryPermit {
        runtime.block_on(self.acquire(bytes))
    }

    /// Takes `bytes` when they are free now.
    #[must_use]
    pub fn try_acquire(&self, bytes: u64) -> Option<MemoryPermit> {
        Arc::clone(&self.semaphore)
            .try_acquire_many_owned(self.units_of(bytes))
            .ok()
            .map(|permit| MemoryPermit { permit })
    }

    /// The whole budget in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.units) * UNIT_BYTES
    }

    /// Bytes taken at the moment.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let free = self.semaphore.available_permits() as u64;
        (u64::from(self.units) - free) * UNIT_BYTES
    }

    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.units)
    }
}

/// The right to hold some memory, given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    permit: OwnedSemaphorePermit,
}

impl MemoryPermit {
    /// Bytes this permit stands for: those asked for in whole KiB, cut to the budget.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_in_kib_and_given_back() {
        let budget = MemoryBudget::new(10 * 1024 + 5);
        assert_eq!(budget.total(), 10 * 1024);
        let first = budget.acquire(1).await;
        assert_eq!((first.bytes(), budget.in_use()), (1024, 1024));
        let second = budget.acquire(8 * 1024).await;
        assert!(budget.try_acquire(1025).is_none());
        assert!(budget.try_acquire(1024).is_some());
        drop(second);
        drop(first);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn a_request_beyond_the_budget_runs_alone() {
        let budget = MemoryBudget::new(2048);
        let all = budget.acquire(u64::MAX).await;
        assert_eq!(all.bytes(), 2048);
        let mut next = std::pin::pin!(budget.acquire(1));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(all);
        assert_eq!(next.await.bytes(), 1024);
    }

    #[tokio::test]
    async fn blocking_threads_can_wait() {
        let budget = MemoryBudget::new(1024);
        let held = budget.acquire(1024).await;
        let (other, runtime) = (budget.clone(), Handle::current());
        let waiter =
            tokio::task::spawn_blocking(move || other.blocking_acquire(1024, &runtime).bytes());
        drop(held);
        assert_eq!(waiter.await.expect("joined"), 1024);
    }

    #[test]
    fn extremes() {
        assert_eq!(MemoryBudget::new(0).total(), 1024);
        assert_eq!(
            MemoryBudget::new(u64::MAX).total(),
            u64::from(u32::MAX) * 1024
        );
    }
}
