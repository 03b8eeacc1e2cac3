//! Memory for whole WAL files: counted in a budget for as long as anybody holds a part of the file, and used again.
//!
//! A segment is sent in slices of the memory it was decoded into. A slice keeps all of it, so the permit belongs to the memory
//! and not to whoever sends it. Memory that comes fresh from the system costs two faults for each page of it, its making and its
//! taking back, which together take about as long as decoding: so what was fetched ahead gives its memory to what comes next.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use wale_pipeline::{MemoryBudget, MemoryPermit};

/// What one decoder takes beside the bytes that it makes: 4 chunks of at most 1 MiB of the object, two windows of 0.5 MiB (WAL-G's
/// is larger), and the pieces on their way to the receiver, 7 of 256 KiB. 4 + 1 + 1.75 is about 6 MiB, for not all are full.
pub(super) const DECODER_BYTES: u64 = 6 << 20;

/// Memory for one file.
#[derive(Debug)]
pub(super) struct Room {
    /// All of it has been written before, so that it can be read into.
    memory: Vec<u8>,
    filled: usize,
    /// There until it is dropped.
    permit: Option<MemoryPermit>,
    shelf: Weak<Shelf>,
}

impl Room {
    /// Room under a permit, which goes with it.
    pub(super) fn of(permit: MemoryPermit) -> Self {
        Self {
            memory: Vec::new(),
            filled: 0,
            permit: Some(permit),
            shelf: Weak::new(),
        }
    }

    /// The bytes that it counts for.
    pub(super) fn bytes(&self) -> u64 {
        self.permit.as_ref().map_or(0, MemoryPermit::bytes)
    }

    /// What was read into it.
    pub(super) fn content(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    /// Reads a file of exactly `size` bytes, or less where the source ends; what follows is left in the source.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) fn read_segment(&mut self, source: &mut dyn Read, size: usize) -> io::Result<()> {
        if self.memory.len() != size {
            // Zeros that the system makes when they are first touched.
            self.memory = vec![0; size];
        }
        self.filled = 0;
        while self.filled < size {
            match source.read(&mut self.memory[self.filled..]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads a file of an unknown size, no more than `size_max` bytes of it.
    ///
    /// # Errors
    /// Those of the source.
    pub(super) fn read_file(&mut self, source: &mut dyn Read, size_max: u64) -> io::Result<()> {
        self.memory.clear();
        source.take(size_max).read_to_end(&mut self.memory)?;
        self.filled = self.memory.len();
        Ok(())
    }

    /// The content, whose slices share the memory. It is free when the last of them is dropped.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        self.content()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let (Some(shelf), Some(permit)) = (self.shelf.upgrade(), self.permit.take()) {
            shelf.put_back(std::mem::take(&mut self.memory), permit);
        }
    }
}

/// Memory that segments were in, for those that come next, within a budget of its own.
#[derive(Debug)]
pub(super) struct Shelf {
    budget: MemoryBudget,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whether what comes back is kept.
    open: bool,
    rooms: Vec<(Vec<u8>, MemoryPermit)>,
}

impl Shelf {
    pub(super) fn new(budget: MemoryBudget) -> Arc<Self> {
        Arc::new(Self {
            budget,
            kept: Mutex::default(),
        })
    }

    /// Room for a segment of so many bytes, where the budget has some. What comes back is kept from now on.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        // Cut to the budget, a permit would say more than there is.
        if bytes > self.budget.total() {
            return None;
        }
        let mut kept = self.lock();
        kept.open = true;
        // Of another segment size: an archive that was changed.
        kept.rooms.retain(|(_, permit)| permit.bytes() == bytes);
        let (memory, permit) = match kept.rooms.pop() {
            Some(room) => room,
            None => (Vec::new(), self.budget.try_acquire(bytes)?),
        };
        drop(kept);
        Some(Room {
            memory,
            filled: 0,
            permit: Some(permit),
            shelf: Arc::downgrade(self),
        })
    }

    /// Gives back what is kept, and what comes back from now on.
    pub(super) fn clear(&self) {
        *self.lock() = Kept::default();
    }

    /// Bytes that are taken of the budget: of rooms in use and of kept ones.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> u64 {
        self.budget.in_use()
    }

    fn put_back(&self, memory: Vec<u8>, permit: MemoryPermit) {
        let mut kept = self.lock();
        if kept.open {
            kept.rooms.push((memory, permit));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn shelf(segments: u64) -> Arc<Shelf> {
        Shelf::new(MemoryBudget::new(segments * SIZE))
    }

    #[test]
    fn memory_counts_until_the_last_slice_is_gone_and_is_used_again() {
        let shelf = shelf(1);
        let mut room = shelf.take(SIZE).expect("room");
        let content = vec![7; 1 << 20];
        room.read_segment(&mut &content[..], 1 << 20).expect("read");
        let place = room.content().as_ptr();
        let mut whole = room.into_bytes();
        let slice = whole.split_to(10);
        drop(whole);
        assert!(shelf.take(SIZE).is_none(), "a slice keeps all of it");
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        let mut again = shelf.take(SIZE).expect("it is free");
        assert!(
            again.content().is_empty(),
            "of the former segment nothing is left to see"
        );
        again
            .read_segment(&mut &content[..9], 1 << 20)
            .expect("read");
        assert_eq!(again.content(), &[7; 9]);
        assert_eq!(again.content().as_ptr(), place, "the same memory");
    }

    #[test]
    fn what_is_kept_goes_when_nobody_asks_any_more() {
        let shelf = shelf(2);
        let (one, other) = (shelf.take(SIZE), shelf.take(SIZE));
        drop(one);
        assert_eq!(shelf.in_use(), 2 * SIZE, "one is kept");
        shelf.clear();
        assert_eq!(shelf.in_use(), SIZE);
        drop(other);
        assert_eq!(shelf.in_use(), 0, "nor is kept what comes back later");
        assert!(shelf.take(3 * SIZE).is_none(), "larger than the budget");
    }

    #[test]
    fn memory_of_another_segment_size_is_not_kept() {
        let shelf = shelf(2);
        drop(shelf.take(SIZE));
        let larger = shelf.take(2 * SIZE).expect("there is room for it");
        assert_eq!((larger.bytes(), shelf.in_use()), (2 * SIZE, 2 * SIZE));
    }
}
