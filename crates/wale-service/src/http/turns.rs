//! Turns for scarce work, and the queue for them: WAL files that are being sent, proofs of absence that are being made.
//!
//! A neighbour who asks for much, or reads slowly, must not keep a recovery from its next segment. So the queue is fair
//! between addresses, not between requests: the next turn goes to the address that has the fewest, and of its requests to
//! the newest (the older ones' clients are the likelier to have given up). When the queue is full, the oldest request of
//! the address that has the most makes room. While anybody waits, a client that takes its bytes too slowly loses its
//! turn, and its connection with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A client may take so long in all before its pace is checked: 2 s.
const SPARED: Duration = Duration::from_secs(2);

/// The slowest pace at which a client keeps its turn while others wait: 1 MiB/s, 16 s for a segment of 16 MiB. A recovery
/// reads into the page cache of its host, a hundred times faster.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 20;

/// How often somebody who waits looks for a slow client: with 16 turns the queue then goes on by 8 a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The turns at one thing.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    inner: Arc<TurnLimits>,
}

#[derive(Debug)]
struct TurnLimits {
    at_once: usize,
    places: usize,
    table: Mutex<TurnQueue>,
}

#[derive(Debug, Default)]
struct TurnQueue {
    /// Counts up with every request.
    tick: u64,
    held: BTreeMap<u64, Holder>,
    /// In the order in which they came.
    waiting: Vec<Waiter>,
}

#[derive(Debug)]
struct Holder {
    peer: IpAddr,
    pace: Arc<Mutex<Pace>>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Waiter {
    peer: IpAddr,
    cut: CancellationToken,
    /// When it is dropped, there will be no turn.
    give: oneshot::Sender<Turn>,
}

/// How fast a client takes what it is sent. Time in which it waits for us does not count.
#[derive(Debug, Default)]
struct Pace {
    bytes: u64,
    taking: Duration,
    handed: Option<Instant>,
}

/// A turn; dropping it gives it to the next.
#[derive(Debug)]
pub(crate) struct Turn {
    id: u64,
    pace: Arc<Mutex<Pace>>,
    inner: Arc<TurnLimits>,
}

impl Turns {
    /// `at_once` turns, and a queue with so many `places`.
    pub(crate) fn new(at_once: usize, places: usize) -> Self {
        let inner = TurnLimits {
            at_once: at_once.max(1),
            places: places.max(1),
            table: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A turn for a request from `peer`, in time; `None` when it is not its turn by then, or others need its place in the
    /// queue more. `cut` ends its connection if the turn is taken away.
    pub(crate) async fn take(
        &self,
        peer: IpAddr,
        cut: CancellationToken,
        limit: Duration,
    ) -> Option<Turn> {
        let waiting = {
            let mut table = self.inner.lock();
            if table.held.len() < self.inner.at_once {
                return Some(self.inner.hand_over(&mut table, peer, cut));
            }
            table.enter(peer, cut, self.inner.places)
        };
        tokio::time::timeout(limit, self.inner.wait(waiting))
            .await
            .ok()?
    }

    /// Turns that nobody has.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.inner.at_once - self.inner.lock().held.len()
    }

    /// Requests that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        let table = self.inner.lock();
        table
            .waiting
            .iter()
            .filter(|waiter| !waiter.give.is_closed())
            .count()
    }
}

impl TurnLimits {
    fn lock(&self) -> MutexGuard<'_, TurnQueue> {
        // No code panics while it holds the lock. If one did, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(self: &Arc<Self>, mut turn: oneshot::Receiver<Turn>) -> Option<Turn> {
        loop {
            match tokio::time::timeout(LOOK_EVERY, &mut turn).await {
                Ok(turn) => return turn.ok(),
                Err(_) => self.lock().cut_the_slowest(Instant::now()),
            }
        }
    }

    fn hand_over(
        self: &Arc<Self>,
        table: &mut TurnQueue,
        peer: IpAddr,
        cut: CancellationToken,
    ) -> Turn {
        table.tick += 1;
        let pace = Arc::default();
        let holder = Holder {
            peer,
            pace: Arc::clone(&pace),
            cut,
        };
        table.held.insert(table.tick, holder);
        Turn {
            id: table.tick,
            pace,
            inner: Arc::clone(self),
        }
    }

    /// Gives free turns to those that are next.
    fn go_on(self: &Arc<Self>) {
        loop {
            let (turn, give) = {
                let mut table = self.lock();
                if table.held.len() >= self.at_once {
                    return;
                }
                let Some(next) = table.next() else {
                    return;
                };
                let turn = self.hand_over(&mut table, next.peer, next.cut);
                (turn, next.give)
            };
            // A waiter that has just given up drops it here, without the lock, and the next one gets it.
            if give.send(turn).is_ok() {
                return;
            }
        }
    }
}

impl TurnQueue {
    /// Into the queue, in the place of another request if it is full.
    fn enter(
        &mut self,
        peer: IpAddr,
        cut: CancellationToken,
        places: usize,
    ) -> oneshot::Receiver<Turn> {
        let (give, turn) = oneshot::channel();
        self.waiting.retain(|waiter| !waiter.give.is_closed());
        self.waiting.push(Waiter { peer, cut, give });
        if self.waiting.len() > places {
            let count = |peer| {
                self.waiting
                    .iter()
                    .filter(|waiter| waiter.peer == peer)
                    .count()
            };
            // The oldest one of those with the greatest number.
            let most = self.waiting.iter().map(|waiter| count(waiter.peer)).max();
            let oldest = self
                .waiting
                .iter()
                .position(|waiter| Some(count(waiter.peer)) == most);
            if let Some(oldest) = oldest {
                self.waiting.remove(oldest);
            }
        }
        turn
    }

    /// The newest request of the address that has the fewest turns.
    fn next(&mut self) -> Option<Waiter> {
        self.waiting.retain(|waiter| !waiter.give.is_closed());
        let has = |peer| {
            self.held
                .values()
                .filter(|holder| holder.peer == peer)
                .count()
        };
        let next = (0..self.waiting.len())
            .rev()
            .min_by_key(|index| has(self.waiting[*index].peer))?;
        Some(self.waiting.remove(next))
    }

    fn cut_the_slowest(&self, now: Instant) {
        let slow = self
            .held
            .values()
            .filter(|holder| !holder.cut.is_cancelled());
        let slow = slow.filter_map(|holder| Some((lock(&holder.pace).too_slow(now)?, holder)));
        if let Some((_, holder)) = slow.min_by_key(|(pace, _)| *pace) {
            holder.cut.cancel();
        }
    }
}

impl Pace {
    /// Bytes per second, where they are too few.
    fn too_slow(&self, now: Instant) -> Option<u64> {
        let since = self
            .handed
            .map(|handed| now.saturating_duration_since(handed));
        let taking = self.taking + since.unwrap_or_default();
        if taking < SPARED {
            return None;
        }
        let pace = self.bytes.saturating_mul(1000)
            / u64::try_from(taking.as_millis()).unwrap_or(u64::MAX).max(1);
        (pace < LEAST_BYTES_PER_SECOND).then_some(pace)
    }
}

impl Turn {
    /// So many bytes are handed to the client.
    pub(crate) fn handed(&self, bytes: usize) {
        let mut pace = lock(&self.pace);
        pace.bytes = pace.bytes.saturating_add(bytes as u64);
        pace.handed = Some(Instant::now());
    }

    /// The client has taken what it was handed.
    pub(crate) fn taken(&self) {
        let mut pace = lock(&self.pace);
        if let Some(handed) = pace.handed.take() {
            pace.taking += handed.elapsed();
        }
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.lock().held.remove(&self.id);
        self.inner.go_on();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(10);

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn token() -> CancellationToken {
        CancellationToken::new()
    }

    #[tokio::test]
    async fn fault_88_the_next_turn_is_of_the_address_that_has_the_fewest() {
        let turns = Turns::new(2, 4);
        let first = turns.take(peer(1), token(), LIMIT).await.unwrap();
        let second = turns.take(peer(1), token(), LIMIT).await.unwrap();
        let mut flood: Vec<_> = (0..4)
            .map(|_| Box::pin(turns.take(peer(1), token(), LIMIT)))
            .collect();
        for request in &mut flood {
            assert!(futures_util::poll!(request.as_mut()).is_pending());
        }
        // The queue is full: the oldest of the flood makes room, and the newcomer is served first.
        let recovery = turns.take(peer(2), token(), LIMIT);
        tokio::pin!(recovery);
        assert!(futures_util::poll!(recovery.as_mut()).is_pending());
        assert!(flood.remove(0).await.is_none());
        assert_eq!(turns.waiting(), 4);
        drop(first);
        let third = recovery.await.expect("its turn");
        drop(second);
        // Then the newest of the rest; one that has given up is passed over.
        drop(flood.pop());
        assert!(flood.pop().unwrap().await.is_some());
        drop((flood, third));
        assert_eq!((turns.free(), turns.waiting()), (2, 0));
    }

    #[tokio::test]
    async fn fault_88_who_reads_slowly_loses_the_turn_when_others_wait() {
        let turns = Turns::new(2, 4);
        let (slow, quick) = (token(), token());
        let slow_turn = turns.take(peer(1), slow.clone(), LIMIT).await.unwrap();
        let quick_turn = turns.take(peer(1), quick.clone(), LIMIT).await.unwrap();
        slow_turn.handed(1 << 20);
        quick_turn.handed(1 << 20);
        quick_turn.taken();
        let look = |after| turns.inner.lock().cut_the_slowest(Instant::now() + after);
        look(SPARED / 2);
        assert!(!slow.is_cancelled(), "it is spared for a moment");
        look(Duration::from_mins(1));
        assert!(slow.is_cancelled() && !quick.is_cancelled());
        look(Duration::from_mins(1));
        assert!(!quick.is_cancelled());
        let next = turns.take(peer(1), token(), LIMIT);
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(slow_turn);
        assert!(next.await.is_some());
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_not_waited_for_for_ever() {
        let turns = Turns::new(1, 1);
        let turn = turns.take(peer(1), token(), LIMIT).await;
        assert!(
            turns
                .take(peer(2), token(), Duration::from_secs(1))
                .await
                .is_none()
        );
        drop(turn);
        assert!(turns.take(peer(2), token(), LIMIT).await.is_some());
    }
}
