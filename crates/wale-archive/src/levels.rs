//! How hard zstd tries where nobody has said it: as hard as the store leaves time for.
//!
//! ```text
//! codec ══ queue ══▶ body ──▶ line, store
//!   blocked: the queue was full, the codec stood still       idle: the store has asked, and no piece was there
//!   tail: all was made, and the store had not confirmed it
//! ```
//!
//! What an object shows decides about those that begin later. WAL and base backups are of different stuff, and choose each for
//! themselves. `level_choice` decides, and this takes the times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use wale_format::CodecSettings;
use wale_pipeline::SenderTimes;
use wale_storage::Body;

use crate::level_choice::{LevelChoice, Shown};

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// A WAL segment.
    Wal,
    /// A partition of a base backup.
    Partition,
}

/// An object has this many plain bytes before it says something about the store.
pub(crate) const TELLING_BYTES: u64 = 1 << 20;

/// The choices of one archive.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    wal: Arc<Mutex<LevelChoice>>,
    partitions: Arc<Mutex<LevelChoice>>,
}

/// One object that is sealed and stored at a step.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    choice: Arc<Mutex<LevelChoice>>,
    step: usize,
    waits: Arc<Mutex<Waits>>,
}

/// The times of an object so far.
#[derive(Debug)]
struct Waits {
    began: Instant,
    codec: SenderTimes,
    idle: Duration,
    /// Waited for something that is neither codec nor store, when all of it was made.
    held: Duration,
}

impl Levels {
    /// For an object that begins now.
    pub(crate) fn begin(&self, what: Sealed) -> Trial {
        let choice = match what {
            Sealed::Wal => &self.wal,
            Sealed::Partition => &self.partitions,
        };
        Trial {
            step: locked(choice).step,
            choice: Arc::clone(choice),
            waits: Arc::new(Mutex::new(Waits {
                began: Instant::now(),
                codec: SenderTimes::default(),
                idle: Duration::ZERO,
                held: Duration::ZERO,
            })),
        }
    }
}

impl Trial {
    /// The level of the object.
    pub(crate) fn level(&self) -> i32 {
        CodecSettings::ADAPTIVE[self.step].level
    }

    /// The object's body, watched. `codec` makes it.
    pub(crate) fn watched(&self, body: Body, codec: SenderTimes) -> Body {
        locked(&self.waits).codec = codec;
        let waits = Arc::clone(&self.waits);
        let body = stream::unfold(body, move |mut body| {
            let waits = Arc::clone(&waits);
            async move {
                let asked = Instant::now();
                let piece = body.next().await;
                locked(&waits).idle += asked.elapsed();
                piece.map(|piece| (piece, body))
            }
        });
        body.fuse().boxed()
    }

    /// Lets the end of the body wait for something that is neither codec nor store.
    pub(crate) async fn held_by<T>(&self, other: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let result = other.await;
        locked(&self.waits).held += since.elapsed();
        result
    }

    /// The store has just confirmed the object, of so many plain bytes.
    pub(crate) fn was_stored(&self, plain_bytes: u64) {
        let shown = locked(&self.waits).shown(Instant::now());
        let Some(shown) = shown.filter(|_| plain_bytes >= TELLING_BYTES) else {
            return;
        };
        let mut choice = locked(&self.choice);
        choice.note(self.step, shown);
        let to = choice.step;
        if to != self.step {
            tracing::debug!(
                from = self.step,
                to,
                ?shown,
                "the step of adaptive compression"
            );
        }
    }
}

impl Waits {
    /// What the object has shown, confirmed `now`; nothing where it was not made to its end.
    fn shown(&self, now: Instant) -> Option<Shown> {
        let made = self.codec.finished()?;
        Some(Shown {
            span: made.saturating_duration_since(self.began),
            blocked: self.codec.waited(),
            idle: self.idle,
            tail: now
                .saturating_duration_since(made)
                .saturating_sub(self.held),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::TryStreamExt;
    use wale_storage::BodyError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_shows_which_side_waits() {
        let one = Levels::default().begin(Sealed::Wal);
        let (mut sender, receiver) = wale_pipeline::channel(1);
        let times = receiver.sender_times();
        let pieces = receiver.into_stream();
        let pieces = pieces.map_err(|error| BodyError::new(error.to_string()));
        let mut body = one.watched(pieces.boxed(), times);
        let seconds = |count| tokio::time::sleep(Duration::from_secs(count));
        let codec = async move {
            seconds(3).await;
            sender.send(Bytes::from_static(b"x")).await.expect("open");
            seconds(4).await;
            sender.send(Bytes::from_static(b"y")).await.expect("open");
            sender.finish();
        };
        let store = async {
            while body.try_next().await.expect("good").is_some() {
                seconds(10).await;
            }
            seconds(1).await;
        };
        tokio::join!(codec, store);
        let shown = || {
            let shown = locked(&one.waits).shown(Instant::now()).expect("made");
            [shown.span, shown.idle, shown.tail].map(|time| time.as_secs())
        };
        // Made after 7 s; the store took the pieces at 3 s and 13 s, and ends at 24 s.
        assert_eq!(shown(), [7, 3, 17]);
        // Its turn came late.
        one.held_by(seconds(100)).await;
        assert_eq!(shown(), [7, 3, 17]);
    }
}
