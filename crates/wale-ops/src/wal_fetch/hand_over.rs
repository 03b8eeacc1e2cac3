//! Files for clients on the server's own volume: who waits there, whether one may be given, and what is swept.
//!
//! A file is given beside a server in recovery only, as `/wal-fetch/` writes only there; every other client gets the bytes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use wale_cluster::hand_over::{AwaitedPlace, HandOver, Nonce, UnnamedFile};
use wale_cluster::{DataDirectory, WalDirectory};
use wale_pipeline::blocking;

use crate::error::Result;

/// The sidecar's side of handing over.
#[derive(Debug)]
pub(super) struct Hands {
    over: HandOver,
    idle: Duration,
    state: Arc<Mutex<HandsState>>,
}

#[derive(Debug, Default)]
struct HandsState {
    /// When a client asked last.
    asked: Option<Instant>,
    /// Whether somebody waits to sweep.
    watched: bool,
    draining: bool,
    tasks: JoinSet<()>,
}

impl Hands {
    pub(super) fn new(wal: PathBuf, idle: Duration) -> Self {
        Self {
            over: HandOver::at(wal),
            idle,
            state: Arc::default(),
        }
    }

    pub(super) const fn over(&self) -> &HandOver {
        &self.over
    }

    /// The place of this nonce's client and the free bytes of the WAL's volume, if it waits there and may be given a file. What
    /// others have left is swept before.
    pub(super) async fn look(
        &self,
        nonce: &Nonce,
        data: Option<PathBuf>,
    ) -> Option<(AwaitedPlace, u64)> {
        let (over, nonce) = (self.over.clone(), nonce.clone());
        let look = move || {
            let place = over.awaited(&nonce).ok()?;
            if let Err(error) = place.sweep_others() {
                tracing::debug!(%error, "what clients leave beside the WAL is not swept");
            }
            let wal = over.wal_directory();
            let why = data.and_then(|data| DataDirectory::at(data).refuses_wal(wal));
            if let Some(why) = why {
                tracing::debug!(
                    why,
                    "the bytes of a WAL file are sent, and the file is not given"
                );
                return None;
            }
            Some((place, WalDirectory::at(wal).free_bytes().unwrap_or(0)))
        };
        let found = blocking(look).await.ok()??;
        self.watch();
        Some(found)
    }

    /// Gives a file. `None`: it is given; otherwise it comes back, to be sent.
    ///
    /// # Errors
    /// A bug.
    pub(super) async fn give(
        file: UnnamedFile,
        place: AwaitedPlace,
    ) -> Result<Option<UnnamedFile>> {
        let give = move || match place.give(&file) {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "a WAL file could not be given, and its bytes are sent");
                Some(file)
            }
        };
        Ok(blocking(give).await?)
    }

    /// Removes what clients have left that are gone.
    pub(super) async fn sweep(&self) {
        sweep(&self.over).await;
    }

    /// The same at the end, when nobody will be given anything any more.
    pub(super) async fn drain(&self) {
        let mut tasks = {
            let mut state = self.lock();
            state.draining = true;
            std::mem::take(&mut state.tasks)
        };
        tasks.shutdown().await;
        self.sweep().await;
    }

    /// Makes sure that somebody sweeps when nobody asks any more.
    fn watch(&self) {
        let mut state = self.lock();
        state.asked = Some(Instant::now());
        if state.watched || state.draining {
            return;
        }
        state.watched = true;
        while state.tasks.try_join_next().is_some() {}
        let (shared, over, idle) = (Arc::clone(&self.state), self.over.clone(), self.idle);
        state.tasks.spawn(async move {
            let mut until = Instant::now() + idle;
            loop {
                tokio::time::sleep_until(until).await;
                let asked = lock(&shared).asked;
                if let Some(later) = asked.map(|asked| asked + idle).filter(|it| *it > until) {
                    until = later;
                    continue;
                }
                if !sweep(&over).await {
                    lock(&shared).watched = false;
                    return;
                }
                until += idle;
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HandsState> {
        lock(&self.state)
    }
}

/// Whether a client is still there.
async fn sweep(over: &HandOver) -> bool {
    let over = over.clone();
    // Without the directory there is nothing to sweep, and without rights nothing can be.
    matches!(blocking(move || over.sweep()).await, Ok(Ok(true)))
}

fn lock(state: &Mutex<HandsState>) -> MutexGuard<'_, HandsState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
