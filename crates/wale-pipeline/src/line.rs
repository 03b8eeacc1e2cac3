//! The line to the stores, which has a limit: what is urgent passes at once and is counted, what can wait keeps to what is left.
//!
//! A limit does not save up: an idle second buys nothing later, so the line never sees a burst of what can wait.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

/// How far what is urgent may push back what can wait, 1 s. Where urgent bytes alone fill the line, the others still get a piece
/// a second: a base backup that stood still for hours would hold the server's WAL, and one that fails must begin anew.
const DEBT_MAX: Duration = Duration::from_secs(1);

/// A line with a limit of bytes per second, or without one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Line(Option<Arc<Limit>>);

/// Whether bytes wait for the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// They pass at once, and what can wait waits longer.
    PassesAtOnce,
    /// They wait until the line is free for them.
    Waits,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: NonZeroU64,
    /// When the bytes that passed so far are all paid for.
    paid_until: Mutex<Instant>,
}

impl Line {
    /// A line of this limit. Must be called within a runtime that has time.
    #[must_use]
    pub fn limited(bytes_per_second: NonZeroU64) -> Self {
        Self(Some(Arc::new(Limit {
            bytes_per_second,
            paid_until: Mutex::new(Instant::now()),
        })))
    }

    /// Sends `bytes` over the line: returns when they may go.
    pub async fn pass(&self, bytes: u64, urgency: Urgency) {
        let Some(limit) = &self.0 else { return };
        let until = limit.book(bytes, urgency, Instant::now());
        if urgency == Urgency::Waits {
            tokio::time::sleep_until(until).await;
        }
    }

    /// The same stream of pieces, each of which passes the line before it comes.
    pub fn paced<S, E>(
        &self,
        pieces: S,
        urgency: Urgency,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + use<S, E>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Send,
    {
        let line = self.clone();
        pieces.then(move |piece| {
            let line = line.clone();
            async move {
                if let Ok(piece) = &piece {
                    line.pass(piece.len() as u64, urgency).await;
                }
                piece
            }
        })
    }

    /// Its limit.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<NonZeroU64> {
        self.0.as_ref().map(|limit| limit.bytes_per_second)
    }
}

impl Limit {
    /// Books `bytes` and says when all that was booked is paid for.
    fn book(&self, bytes: u64, urgency: Urgency, now: Instant) -> Instant {
        let nanoseconds =
            u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let booked = (*paid_until).max(now) + cost;
        *paid_until = match urgency {
            Urgency::Waits => booked,
            Urgency::PassesAtOnce => booked.min(now + DEBT_MAX).max(*paid_until),
        };
        *paid_until
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use Urgency::{PassesAtOnce, Waits};

    fn line(bytes_per_second: u64) -> Line {
        Line::limited(NonZeroU64::new(bytes_per_second).expect("not 0"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_keeps_to_the_limit_and_idle_time_is_not_saved() {
        let line = line(1000);
        let begun = Instant::now();
        for _ in 0..4 {
            line.pass(500, Waits).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 2000);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let begun = Instant::now();
        line.pass(500, Waits).await;
        assert_eq!(begun.elapsed().as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_never_waits_and_the_others_wait_for_it() {
        let line = line(1000);
        let begun = Instant::now();
        line.pass(400, PassesAtOnce).await;
        assert!(begun.elapsed().is_zero());
        line.pass(500, Waits).await;
        assert_eq!(begun.elapsed().as_millis(), 900);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_never_starves_the_others() {
        let line = line(1000);
        let begun = Instant::now();
        for _ in 0..100 {
            line.pass(1_000_000, PassesAtOnce).await;
        }
        assert!(begun.elapsed().is_zero());
        line.pass(500, Waits).await;
        assert_eq!(begun.elapsed(), DEBT_MAX + Duration::from_millis(500));
        // What waits itself is not taken back by what is urgent.
        let mut waiting = std::pin::pin!(line.pass(5000, Waits));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        line.pass(1, PassesAtOnce).await;
        let begun = Instant::now();
        line.pass(1000, Waits).await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let free = Line::default();
        assert!(free.bytes_per_second().is_none());
        let begun = Instant::now();
        free.pass(u64::MAX, Waits).await;
        assert!(begun.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_comes_as_it_is_at_the_pace_of_the_line() {
        let pieces = || {
            let items = [
                Ok(Bytes::from_static(b"abcd")),
                Err("no"),
                Ok(Bytes::from_static(b"ef")),
            ];
            stream::iter(items)
        };
        let begun = Instant::now();
        let came: Vec<_> = line(2).paced(pieces(), Waits).collect().await;
        assert_eq!(came, pieces().collect::<Vec<_>>().await);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
