//! Segments fetched ahead of a server that replays: decoded, verified, in memory, or in files without a name beside its WAL.
//!
//! The files are for a client that takes them, and take no memory; they are gone when they are dropped, or the process ends.
//!
//! It holds the segments after the last one asked for: two, and more for a server that has to wait for them, up to its window
//! and its memory. What is not asked for is dropped when the direction changes, when names jump, and after some time without a
//! request, so that memory goes back to the idle level when recovery is over. A fetch ahead that fails is forgotten: the request
//! asks for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};
use wale_pipeline::MemoryBudget;

use super::landing::Destination;
use super::places::Places;
use super::plan;
use super::report::FetchedWal;
use super::room::{DECODER_BYTES, Shelf};
use super::run::AheadInto;
use crate::error::Kind;

/// Segments that are at hand or on their way to begin with, and at least. Decoding is what costs, and the server needs a core, too.
/// A server that has to wait for one and for the next gets one more, up to the whole window: a store far away answers late, and
/// then waiting is what takes the time. Each is 16 MiB of memory, so it is not more than that from the beginning.
const DEPTH_MIN: usize = 2;

/// How long segments are held in memory after one could not be written beside the WAL: 30 s. To try each again would decode each twice.
const FILES_REST: Duration = Duration::from_secs(30);

/// Free space of the WAL's volume below which nothing is fetched ahead into files: 64 segments of 16 MiB, 1 GiB, and in any case
/// twice the window. A server that recovers needs the volume itself.
const LEAST_FREE: u64 = 64 * (16 << 20);

/// The segments at hand.
#[derive(Debug)]
pub(super) struct Ahead {
    places: Arc<Places>,
    window: usize,
    idle: Duration,
    shelf: Arc<Shelf>,
    /// Decoders that write into files at a time: as many as the memory for segments would hold.
    decoders: Arc<Semaphore>,
    state: Arc<Mutex<AheadState>>,
}

#[derive(Debug, Default)]
struct AheadState {
    /// The last segment that was delivered, and the segment size.
    served: Option<(WalSegmentName, WalSegmentSize)>,
    slots: BTreeMap<WalSegmentName, Slot>,
    used: Option<Instant>,
    /// Whether somebody watches for idleness.
    watched: bool,
    fetched: u64,
    /// Segments that are held, beyond [`DEPTH_MIN`].
    deeper: usize,
    /// Whether the last request had to wait.
    waited: bool,
    /// Requests in a row whose segment was at hand.
    at_hand: usize,
    tasks: JoinSet<()>,
    draining: bool,
    /// Where files are made, while the client takes them.
    files: Option<Destination>,
    /// When one could not be written last.
    refused: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    content: oneshot::Receiver<FetchedWal>,
    fetch: AbortHandle,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.fetch.abort();
    }
}

impl Ahead {
    pub(super) fn new(
        places: Arc<Places>,
        window: usize,
        budget: MemoryBudget,
        idle: Duration,
    ) -> Self {
        let decoders = usize::try_from(budget.total() / DECODER_BYTES).unwrap_or(window);
        Self {
            places,
            window,
            idle,
            decoders: Arc::new(Semaphore::new(decoders.clamp(1, window))),
            shelf: Shelf::new(budget),
            state: Arc::default(),
        }
    }

    /// Takes `asked` out of what is at hand, waiting for it if it is on its way. `None`: fetch it yourself. If the
    /// server is going forward, fetching its next segments begins: into files, where its client takes them.
    pub(super) async fn take(
        &self,
        asked: WalSegmentName,
        destination: Option<&Destination>,
    ) -> Option<FetchedWal> {
        let (mut slot, at_hand) = {
            let mut state = self.lock();
            state.used = Some(Instant::now());
            let is_taker = |it: &&Destination| matches!(it, Destination::Taker { .. });
            state.files = destination.filter(is_taker).cloned();
            let mut slot = state.slots.remove(&asked);
            let at_hand = slot.as_mut().map(|slot| slot.content.try_recv());
            self.adapt(&mut state, at_hand.as_ref());
            self.begin(&mut state, asked);
            (slot?, at_hand?)
        };
        match at_hand {
            Ok(fetched) => Some(fetched),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => (&mut slot.content).await.ok(),
        }
    }

    /// Looks further ahead for a server that waits again and again, and less far for one that found its last segments at hand.
    fn adapt(&self, state: &mut AheadState, at_hand: Option<&Result<FetchedWal, TryRecvError>>) {
        match at_hand {
            Some(Err(TryRecvError::Empty)) => {
                state.at_hand = 0;
                // Once is chance: somebody else had the processor.
                if state.waited && self.depth(state) < self.window {
                    state.deeper += 1;
                }
                state.waited = true;
            }
            Some(Ok(_)) => {
                state.at_hand += 1;
                state.waited = false;
            }
            Some(Err(TryRecvError::Closed)) | None => {}
        }
        // Two windows without a wait: the store is near enough.
        if state.at_hand > 2 * self.window && state.deeper > 0 {
            state.at_hand = 0;
            state.deeper -= 1;
        }
    }

    /// How many segments are held.
    fn depth(&self, state: &AheadState) -> usize {
        (DEPTH_MIN + state.deeper).min(self.window)
    }

    /// Notes that `served` was delivered. A server that did not come from the segment before goes somewhere else.
    pub(super) fn served(&self, served: WalSegmentName, size: WalSegmentSize) {
        let mut state = self.lock();
        let before = state
            .served
            .replace((served, size))
            .map(|(before, _)| before);
        if before != Some(served) && !plan::follows(before, served, size) {
            state.slots.clear();
        }
    }

    /// Segments fetched ahead so far.
    pub(super) fn fetched(&self) -> u64 {
        self.lock().fetched
    }

    /// How many segments are held now.
    #[cfg(test)]
    pub(super) fn depth_now(&self) -> usize {
        self.depth(&self.lock())
    }

    /// Bytes that are taken for segments, in use or kept for the next.
    #[cfg(test)]
    pub(super) fn memory(&self) -> u64 {
        self.shelf.in_use()
    }

    /// Segments at hand or on their way.
    #[cfg(test)]
    pub(super) fn at_hand(&self) -> Vec<WalSegmentName> {
        self.lock().slots.keys().copied().collect()
    }

    /// Drops everything and waits for the tasks to end.
    pub(super) async fn drain(&self) {
        let mut tasks = {
            let mut state = self.lock();
            state.draining = true;
            state.slots.clear();
            std::mem::take(&mut state.tasks)
        };
        tasks.shutdown().await;
        self.shelf.clear();
    }

    /// Begins to fetch what follows `asked`, as far as the budget goes; drops what lies elsewhere.
    fn begin(&self, state: &mut AheadState, asked: WalSegmentName) {
        while state.tasks.try_join_next().is_some() {}
        let Some((served, size)) = state.served else {
            return;
        };
        let wanted = plan::ahead_of(Some(served), asked, self.depth(state), size);
        if wanted.is_empty() || state.draining {
            return;
        }
        state.slots.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if state.slots.contains_key(&name) {
                continue;
            }
            let Some(into) = self.room_for(state, size) else {
                break;
            };
            let slot = self.fetch(state, name, into);
            state.slots.insert(name, slot);
        }
        self.watch(state);
    }

    /// What the next segment is fetched into.
    fn room_for(&self, state: &AheadState, size: WalSegmentSize) -> Option<AheadInto> {
        let rests = state.refused.is_some_and(|at| at.elapsed() < FILES_REST);
        let needed = LEAST_FREE.max(2 * self.window as u64 * size.bytes());
        match &state.files {
            Some(files @ Destination::Taker { free, .. }) if !rests && *free >= needed => {
                Some(AheadInto::File(files.clone()))
            }
            _ => self.shelf.take(size.bytes()).map(AheadInto::Memory),
        }
    }

    fn fetch(&self, state: &mut AheadState, name: WalSegmentName, into: AheadInto) -> Slot {
        let is_file = matches!(into, AheadInto::File(_));
        let (sender, content) = oneshot::channel();
        let (places, shared) = (Arc::clone(&self.places), Arc::clone(&self.state));
        let decoders = Arc::clone(&self.decoders);
        let fetch = state.tasks.spawn(async move {
            // A room has its memory; what goes into a file needs some only while it is decoded.
            let _turn = if is_file {
                decoders.acquire_owned().await.ok()
            } else {
                None
            };
            match places
                .fetch_ahead(&ArchiveFileName::Segment(name), into)
                .await
            {
                Ok(fetched) => {
                    lock(&shared).fetched += 1;
                    // Nobody waits any more: it is dropped.
                    let _ = sender.send(fetched);
                }
                Err(error) => {
                    if is_file && error.kind == Kind::Busy {
                        lock(&shared).refused = Some(Instant::now());
                    }
                    tracing::debug!(%name, error = %error.chain(), "could not fetch ahead");
                }
            }
        });
        Slot { content, fetch }
    }

    /// Makes sure that what is at hand is dropped when nobody asks any more.
    fn watch(&self, state: &mut AheadState) {
        if state.watched || state.slots.is_empty() {
            return;
        }
        state.watched = true;
        let (shared, idle) = (Arc::clone(&self.state), self.idle);
        let rooms = Arc::clone(&self.shelf);
        state.tasks.spawn(async move {
            loop {
                let until = lock(&shared)
                    .used
                    .map_or_else(Instant::now, |used| used + idle);
                tokio::time::sleep_until(until).await;
                let mut state = lock(&shared);
                if state.used.is_none_or(|used| used + idle <= Instant::now()) {
                    state.slots.clear();
                    state.watched = false;
                    rooms.clear();
                    return;
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, AheadState> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<AheadState>) -> MutexGuard<'_, AheadState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
