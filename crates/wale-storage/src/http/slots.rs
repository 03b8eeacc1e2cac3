//! The memory of uploads: how large a part is, and how many of them are held at a time.
//!
//! A body comes without its length, and stores want the length of a part before its first byte. So a part is gathered
//! in memory, and all of them together stay within a number of bytes that the options give.
//!
//! ```text
//!   memory 64 MiB = 8 slots of 8 MiB       (a slot is an eighth of the memory, up to 16 MiB)
//!     first parts of objects:  any slot
//!     later parts:             6 of them    so that a base backup never keeps a WAL segment waiting
//! ```
//!
//! A part is one slot long, and twice as long after every 1,000 parts, up to the slots of later parts, because stores
//! limit the number of an object's parts: with 64 MiB 1,000 parts each of 8, 16 and 32 MiB and 7,000 of 48 MiB make
//! 382 GiB for one object of 10,000 parts; 2 GiB reach 5 TiB. Our objects are of 1 GiB or so; the store ends a larger
//! one than fits with an error that says what to do.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longer slots gain nothing: a request costs some 20 ms, in which 16 MiB take 160 ms at a gigabit.
const SLOT_BYTES_MAX: u64 = 16 << 20;
/// Slots that the memory is divided into.
const SLOTS: u64 = 8;
/// Parts after which they become twice as long.
const PARTS_OF_ONE_SIZE: u32 = 1000;

/// The slots of all uploads.
#[derive(Debug)]
pub(crate) struct Slots {
    slot_bytes: u64,
    all: Arc<Semaphore>,
    later: Arc<Semaphore>,
    later_count: u32,
}

/// The right to hold a part in memory.
#[derive(Debug)]
pub(crate) struct PartMemory {
    _all: Option<OwnedSemaphorePermit>,
    _later: Option<OwnedSemaphorePermit>,
    /// Length of the part.
    pub(crate) bytes: u64,
}

impl PartMemory {
    /// A few bytes that are nobody's concern. Trials of the store take no slot: uploads that hold all of them may be
    /// waiting for the outcome.
    pub(crate) fn trifle(bytes: usize) -> Self {
        Self {
            _all: None,
            _later: None,
            bytes: bytes as u64 + 1,
        }
    }
}

impl Slots {
    /// Divides a memory, of which at least two parts' worth is taken. No slot is shorter than the least part that the
    /// store takes.
    pub(crate) fn new(memory_bytes: u64, part_bytes_min: u64) -> Self {
        let slot_bytes =
            (memory_bytes / SLOTS).clamp(part_bytes_min, SLOT_BYTES_MAX.max(part_bytes_min));
        let count = u32::try_from(memory_bytes / slot_bytes)
            .unwrap_or(u32::MAX)
            .clamp(2, 1 << 16);
        let later_count = count - (count / 4).max(1);
        Self {
            slot_bytes,
            all: Arc::new(Semaphore::new(count as usize)),
            later: Arc::new(Semaphore::new(later_count as usize)),
            later_count,
        }
    }

    /// Length of a body's first part: what is shorter goes in one request.
    pub(crate) fn first_part_bytes(&self) -> u64 {
        u64::from(self.slots_of(1)) * self.slot_bytes
    }

    /// How many later parts can be held at a time; at least one.
    pub(crate) fn count_of_later(&self) -> usize {
        self.later_count as usize
    }

    /// Waits for the memory of the part with this number, counted from 1. A waiting task holds at most the part before
    /// it, which is being sent and needs nothing more; so nobody waits for ever.
    pub(crate) async fn hold(&self, number: u32) -> PartMemory {
        let wanted = self.slots_of(number);
        let later = match number {
            1 => None,
            _ => Some(acquire(&self.later, wanted).await),
        };
        PartMemory {
            _all: Some(acquire(&self.all, wanted).await),
            _later: later,
            bytes: u64::from(wanted) * self.slot_bytes,
        }
    }

    fn slots_of(&self, number: u32) -> u32 {
        let doublings = (number - 1) / PARTS_OF_ONE_SIZE;
        2_u32.saturating_pow(doublings).min(self.later_count)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore)
        .acquire_many_owned(count)
        .await
        .expect("the slots never close their semaphores")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 5 << 20;
    const PARTS_MAX: u32 = 10_000;

    #[test]
    fn sizes() {
        for (memory, slot, count, later) in [
            (0, 5 << 20, 2, 1),
            (10 << 20, 5 << 20, 2, 1),
            (64 << 20, 8 << 20, 8, 6),
            (1 << 30, 16 << 20, 64, 48),
        ] {
            let slots = Slots::new(memory, LEAST);
            assert_eq!(slots.slot_bytes, slot, "{memory}");
            assert_eq!(slots.all.available_permits(), count, "{memory}");
            assert_eq!(slots.count_of_later(), later, "{memory}");
        }
    }

    #[test]
    fn parts_grow() {
        let slots = Slots::new(64 << 20, LEAST);
        let sizes: Vec<_> = [1, 1000, 1001, 2000, 2001, 3001, 9999, 10_000]
            .map(|number| slots.slots_of(number))
            .into();
        assert_eq!(sizes, [1, 1, 2, 2, 4, 6, 6, 6]);
        let total = |slots: &Slots| -> u64 {
            (1..=PARTS_MAX)
                .map(|number| u64::from(slots.slots_of(number)) * slots.slot_bytes)
                .sum()
        };
        assert_eq!(total(&slots) >> 30, 382);
        assert!(total(&Slots::new(2 << 30, LEAST)) >= 5 << 40);
    }

    #[tokio::test]
    async fn later_parts_leave_room_for_first_ones() {
        let slots = Slots::new(0, LEAST);
        let later = slots.hold(2).await;
        assert_eq!(later.bytes, 5 << 20);
        let mut another = std::pin::pin!(slots.hold(3));
        assert!(futures_util::poll!(&mut another).is_pending());
        let first = slots.hold(1).await;
        drop((later, first));
        another.await;
    }
}
