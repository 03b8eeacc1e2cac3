//! Which connections are open, which of them wait for a request, and which must make room.
//!
//! It refuses to know what is asked for. Invariants: never more than `hard` connections; above `soft` the one that has
//! waited longest without a whole request makes room for a new one, so that neither a thousand idle connections nor
//! slowly sent heads and bodies keep PostgreSQL's push out; a connection that is being answered is never evicted; of
//! those at most half of `hard` ask for a recovery's WAL, and a quarter for anything else but a push, so that a quarter is
//! left for pushes, and no other request keeps a recovery from its WAL.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection is not evicted before it has waited that long: its request may be on its way, or here and not yet read.
/// So 512 ÷ 50 ms = 10,000 connections a second can be let in and evicted again.
const SPARED: Duration = Duration::from_millis(50);

/// All open connections.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    inner: Arc<ConnectionLimits>,
}

#[derive(Debug)]
struct ConnectionLimits {
    soft: usize,
    hard: usize,
    spared: Duration,
    /// Most connections that are answered what a recovery asks for.
    recoveries_max: usize,
    /// Most connections that are answered something else.
    others_max: usize,
    table: Mutex<OpenConnections>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// Counts up with every connection.
    tick: u64,
    /// Connections that are being answered what a recovery asks for.
    recoveries: usize,
    /// Connections that are being answered something else, no push.
    others: usize,
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Since when it waits for a request; none while one is answered.
    idle_since: Option<Instant>,
    evict: CancellationToken,
}

/// One open connection; dropping it takes it out of the table.
#[derive(Debug)]
pub(crate) struct Slot {
    id: u64,
    evict: CancellationToken,
    cut: CancellationToken,
    inner: Arc<ConnectionLimits>,
}

/// While this lives its connection is being answered. The reply's body holds it, so until its last byte.
#[derive(Debug)]
pub(crate) struct Busy {
    id: u64,
    share: Share,
    inner: Arc<ConnectionLimits>,
}

/// Whose part of the connections a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// A push: all connections are there for it.
    Push,
    /// WAL for a recovery, or the proof that there is none.
    Recovery,
    /// Anything else, whether it takes long or its client reads slowly.
    Other,
}

impl Connections {
    pub(crate) fn new(soft: usize, hard: usize) -> Self {
        Self::sparing(soft, hard, SPARED)
    }

    fn sparing(soft: usize, hard: usize, spared: Duration) -> Self {
        let hard = hard.max(1);
        let inner = ConnectionLimits {
            soft: soft.clamp(1, hard),
            hard,
            spared,
            recoveries_max: (hard / 2).max(1),
            others_max: (hard / 4).max(1),
            table: Mutex::default(),
            freed: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A place for a new connection; waits while all `hard` places are being answered, or are new themselves.
    pub(crate) async fn enter(&self) -> Slot {
        loop {
            let freed = self.inner.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(slot) = self.try_enter() {
                return slot;
            }
            // A signal came: there is room, or a connection is new no more. The next check shows which of the two it
            // was.
            let _ = tokio::time::timeout(SPARED, freed).await;
        }
    }

    fn try_enter(&self) -> Option<Slot> {
        let mut table = self.inner.lock();
        if table.open.len() >= self.inner.soft {
            table.evict_longest_idle(self.inner.spared);
        }
        // An evicted connection is still in the table until its task has ended; that is soon, and `freed` reports it.
        if table.open.len() >= self.inner.hard {
            return None;
        }
        table.tick += 1;
        let id = table.tick;
        let evict = CancellationToken::new();
        table.open.insert(
            id,
            Entry {
                idle_since: Some(Instant::now()),
                evict: evict.clone(),
            },
        );
        Some(Slot {
            id,
            evict,
            cut: CancellationToken::new(),
            inner: Arc::clone(&self.inner),
        })
    }

    /// Whether there are so many that only the archive's routes and the probes are answered.
    pub(crate) fn crowded(&self) -> bool {
        self.inner.lock().open.len() > self.inner.soft
    }

    /// Open connections.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().open.len()
    }

    /// Lets every connection go that waits for a request.
    pub(crate) fn evict_idle(&self) {
        let table = self.inner.lock();
        for entry in table
            .open
            .values()
            .filter(|entry| entry.idle_since.is_some())
        {
            entry.evict.cancel();
        }
    }
}

impl ConnectionLimits {
    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        // Every change of the table is a single assignment: a panic elsewhere leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    fn evict_longest_idle(&mut self, spared: Duration) {
        let waiting = self
            .open
            .values()
            .filter(|entry| !entry.evict.is_cancelled());
        let longest = waiting
            .filter_map(|entry| Some((entry.idle_since?, entry)))
            .min_by_key(|(since, _)| *since);
        if let Some((since, entry)) = longest
            && since.elapsed() >= spared
        {
            entry.evict.cancel();
        }
    }
}

impl Slot {
    /// Done when the connection must make room.
    pub(crate) async fn evicted(&self) {
        self.evict.cancelled().await;
    }

    /// Cancelled, it ends the connection at once, whatever is being answered.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Whether no request is being answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner
            .lock()
            .open
            .get(&self.id)
            .is_some_and(|entry| entry.idle_since.is_some())
    }

    /// Marks the connection as being answered until the returned guard goes. `None` when as many are answered already
    /// as the share has: the connection goes on counting as idle.
    pub(crate) fn busy(&self, share: Share) -> Option<Busy> {
        let mut table = self.inner.lock();
        let limit = match share {
            Share::Push => None,
            Share::Recovery => Some((self.inner.recoveries_max, &mut table.recoveries)),
            Share::Other => Some((self.inner.others_max, &mut table.others)),
        };
        if let Some((limit, count)) = limit {
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.idle_since = None;
        }
        Some(Busy {
            id: self.id,
            share,
            inner: Arc::clone(&self.inner),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.lock().open.remove(&self.id);
        self.inner.freed.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut table = self.inner.lock();
        match self.share {
            Share::Push => {}
            Share::Recovery => table.recoveries -= 1,
            Share::Other => table.others -= 1,
        }
        if let Some(entry) = table.open.get_mut(&self.id) {
            entry.idle_since = Some(Instant::now());
            // Somebody may wait for a place that this connection can now give up.
            drop(table);
            self.inner.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiting_makes_room_and_a_busy_one_never() {
        let connections = Connections::sparing(2, 4, Duration::ZERO);
        let first = connections.try_enter().unwrap();
        let second = connections.try_enter().unwrap();
        let answering = first.busy(Share::Push);
        let third = connections.try_enter().unwrap();
        assert!(!first.evict.is_cancelled(), "it is being answered");
        assert!(second.evict.is_cancelled());
        assert!(!third.evict.is_cancelled());
        drop(second);
        drop(answering);
        let fourth = connections.try_enter().unwrap();
        assert!(
            third.evict.is_cancelled(),
            "the first one began to wait later"
        );
        assert!(!first.evict.is_cancelled());
        drop((first, third, fourth));
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn above_soft_it_is_crowded_and_above_hard_nobody_enters() {
        let connections = Connections::sparing(1, 2, Duration::ZERO);
        let first = connections.try_enter().unwrap();
        let _answering = first.busy(Share::Push);
        assert!(!connections.crowded());
        let second = connections.try_enter().unwrap();
        let _answering_too = second.busy(Share::Push);
        assert!(connections.crowded());
        assert!(connections.try_enter().is_none());
        drop(first);
        assert!(connections.try_enter().is_some());
    }

    #[tokio::test]
    async fn a_waiting_newcomer_gets_the_place_of_one_that_became_idle() {
        let connections = Connections::sparing(1, 1, Duration::ZERO);
        let first = connections.try_enter().unwrap();
        let answering = first.busy(Share::Push);
        let newcomer = connections.enter();
        tokio::pin!(newcomer);
        assert!(futures_util::poll!(newcomer.as_mut()).is_pending());
        drop(answering);
        assert!(futures_util::poll!(newcomer.as_mut()).is_pending());
        assert!(first.evict.is_cancelled());
        drop(first);
        newcomer.await;
    }

    #[test]
    fn fault_88_a_quarter_is_left_for_pushes_and_half_for_recoveries() {
        let connections = Connections::sparing(4, 8, Duration::ZERO);
        let slots: Vec<Slot> = (0..8).filter_map(|_| connections.try_enter()).collect();
        let busy = |share| -> Vec<Busy> {
            let idle = slots.iter().filter(|slot| slot.is_idle());
            idle.filter_map(|slot| slot.busy(share)).collect()
        };
        let others = busy(Share::Other);
        assert_eq!(others.len(), 2);
        let recoveries = busy(Share::Recovery);
        assert_eq!(recoveries.len(), 4);
        assert!(slots[7].is_idle(), "who was turned away makes room");
        let pushes = busy(Share::Push);
        assert_eq!(pushes.len(), 2);
        drop(others);
        assert_eq!(busy(Share::Other).len(), 2);
        drop((recoveries, pushes));
        assert_eq!(busy(Share::Recovery).len(), 4);
    }

    #[tokio::test]
    async fn a_new_connection_is_spared_for_a_moment() {
        let connections = Connections::sparing(1, 2, Duration::from_hours(1));
        let first = connections.enter().await;
        let _second = connections.enter().await;
        assert!(!first.evict.is_cancelled(), "its request may be here");
        let connections = Connections::new(1, 1);
        let first = connections.enter().await;
        // Only the time shows it to the newcomer.
        tokio::select! {
            _ = connections.enter() => panic!("the place is taken"),
            () = first.evicted() => {}
        }
        drop(first);
        connections.enter().await;
    }
}
