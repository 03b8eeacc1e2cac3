//! A bounded queue of chunks from one producer to one consumer, whose end is explicit.
//!
//! A plain queue cannot distinguish "that was all" from "the producer died": both close it. Here the producer
//! must say [`ChunkSender::finish`], and everything else reaches the consumer as an error. So a thread
//! that panics half-way never leaves a short object that looks whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

/// Why a stream of chunks ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The producer went away without saying that it had finished.
    #[error("the producer of the data stopped before the end")]
    Aborted,
    /// The producer reported a failure.
    #[error("{0}")]
    Failed(String),
}

/// The consumer is gone: there is no use in producing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the consumer of the data stopped before the end")]
pub struct Closed;

/// What the producer said last; `None` until it said anything.
type End = Arc<Mutex<Option<Result<(), ChunkError>>>>;

/// A queue that holds at most `chunks` chunks (at least one).
#[must_use]
pub fn channel(chunks: usize) -> (ChunkSender, ChunkReceiver) {
    let (sender, receiver) = mpsc::channel(chunks.max(1));
    let end = End::default();
    let times = SenderTimes::default();
    let sender = ChunkSender {
        queue: sender,
        end: Arc::clone(&end),
        times: times.clone(),
    };
    let receiver = ChunkReceiver {
        queue: receiver,
        end,
        times,
    };
    (sender, receiver)
}

/// What a producer has done with its time so far.
#[derive(Clone, Debug, Default)]
pub struct SenderTimes(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    waited_nanoseconds: AtomicU64,
    finished: OnceLock<Instant>,
}

impl SenderTimes {
    /// For so long it has waited for room in its queue.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.0.waited_nanoseconds.load(Ordering::Relaxed))
    }

    /// When it had sent everything, once it has.
    #[must_use]
    pub fn finished(&self) -> Option<Instant> {
        self.0.finished.get().copied()
    }

    fn add_wait(&self, since: Instant) {
        let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let waited = &self.0.waited_nanoseconds;
        waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The producer's side. Dropping it without [`ChunkSender::finish`] aborts the stream.
#[derive(Debug)]
pub struct ChunkSender {
    queue: mpsc::Sender<Bytes>,
    end: End,
    times: SenderTimes,
}

impl ChunkSender {
    /// Hands over a chunk, waiting for room. Empty chunks are dropped on the way.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the consumer is gone.
    pub async fn send(&mut self, chunk: Bytes) -> Result<(), Closed> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.queue.send(chunk).await.map_err(|_| Closed)
    }

    /// As [`ChunkSender::send`], from a thread that may block.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the consumer is gone.
    ///
    /// # Panics
    ///
    /// When called from an asynchronous task, which it would block.
    pub fn blocking_send(&mut self, chunk: Bytes) -> Result<(), Closed> {
        if chunk.is_empty() {
            return Ok(());
        }
        match self.queue.try_send(chunk) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Closed),
            Err(TrySendError::Full(chunk)) => {
                let since = Instant::now();
                let sent = self.queue.blocking_send(chunk);
                self.times.add_wait(since);
                sent.map_err(|_| Closed)
            }
        }
    }

    /// Says that everything was sent. The consumer sees the end when it has taken what is queued.
    pub fn finish(self) {
        let _ = self.times.0.finished.set(Instant::now());
        self.end_with(Ok(()));
    }

    /// Says that the rest will not come, and why.
    pub fn fail(self, reason: String) {
        self.end_with(Err(ChunkError::Failed(reason)));
    }

    fn end_with(self, end: Result<(), ChunkError>) {
        // Written before the queue closes (when self is dropped), so the consumer finds it there.
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

/// The consumer's side. Dropping it makes the producer's next send fail.
#[derive(Debug)]
pub struct ChunkReceiver {
    queue: mpsc::Receiver<Bytes>,
    end: End,
    times: SenderTimes,
}

impl ChunkReceiver {
    /// The next chunk; `None` is the end that the producer announced.
    ///
    /// # Errors
    ///
    /// [`ChunkError`] when the producer failed or went away. It is repeated at every further call.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ChunkError> {
        match self.queue.recv().await {
            Some(chunk) => Ok(Some(chunk)),
            None => self.end().map(|()| None),
        }
    }

    /// What a blocking producer does with its time.
    #[must_use]
    pub fn sender_times(&self) -> SenderTimes {
        self.times.clone()
    }

    /// The chunks as a stream, which ends after the first error and stays at its end however often it is asked.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, ChunkError>> {
        stream::unfold(Some(self), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(receiver))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .fuse()
        .boxed()
    }

    fn end(&self) -> Result<(), ChunkError> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.clone().unwrap_or(Err(ChunkError::Aborted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drain(receiver: ChunkReceiver) -> Vec<Result<Bytes, ChunkError>> {
        receiver.into_stream().collect().await
    }

    #[tokio::test]
    async fn every_end_is_told_apart() {
        type Ending = fn(ChunkSender);
        type Item = Result<Bytes, ChunkError>;
        let failed = || Err(ChunkError::Failed("disk on fire".into()));
        let cases: [(&str, Ending, Option<Item>); 3] = [
            ("finished", ChunkSender::finish, None),
            ("failed", |s| s.fail("disk on fire".into()), Some(failed())),
            ("dropped", drop, Some(Err(ChunkError::Aborted))),
        ];
        for (name, ending, last) in cases {
            let (mut sender, receiver) = channel(4);
            sender.send(Bytes::from_static(b"a")).await.expect("open");
            sender.send(Bytes::new()).await.expect("open");
            sender.send(Bytes::from_static(b"b")).await.expect("open");
            ending(sender);
            let mut expected = vec![Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))];
            expected.extend(last);
            assert_eq!(drain(receiver).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_stream_stays_at_its_end() {
        let ends: [(fn(ChunkSender), usize); 2] = [(ChunkSender::finish, 0), (drop, 1)];
        for (ending, items) in ends {
            let (sender, receiver) = channel(1);
            ending(sender);
            let mut stream = receiver.into_stream();
            for _ in 0..items {
                stream.next().await.expect("an error").expect_err("aborted");
            }
            for _ in 0..3 {
                assert!(stream.next().await.is_none());
            }
        }
    }

    #[tokio::test]
    async fn an_error_is_repeated() {
        let (sender, mut receiver) = channel(1);
        drop(sender);
        assert_eq!(receiver.recv().await, Err(ChunkError::Aborted));
        assert_eq!(receiver.recv().await, Err(ChunkError::Aborted));
    }

    #[tokio::test]
    async fn a_gone_consumer_stops_the_producer() {
        let (mut sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(Bytes::from_static(b"a")).await, Err(Closed));
        let blocking =
            tokio::task::spawn_blocking(move || sender.blocking_send(Bytes::from_static(b"a")));
        assert_eq!(blocking.await.expect("joined"), Err(Closed));
    }

    #[tokio::test]
    async fn a_panicking_producer_is_an_abort() {
        let (mut sender, receiver) = channel(1);
        let producer = tokio::task::spawn_blocking(move || {
            sender
                .blocking_send(Bytes::from_static(b"a"))
                .expect("open");
            panic!("producer dies");
        });
        let items = drain(receiver).await;
        assert_eq!(items.last(), Some(&Err(ChunkError::Aborted)));
        assert!(producer.await.expect_err("panicked").is_panic());
    }

    #[tokio::test]
    async fn a_producer_that_finds_no_room_has_waited() {
        let (mut sender, mut receiver) = channel(1);
        let times = receiver.sender_times();
        let (told, full) = tokio::sync::oneshot::channel();
        let producer = tokio::task::spawn_blocking(move || {
            sender
                .blocking_send(Bytes::from_static(b"a"))
                .expect("open");
            let before = sender.times.waited();
            told.send(before).expect("the test waits");
            sender
                .blocking_send(Bytes::from_static(b"b"))
                .expect("open");
            sender.finish();
        });
        assert!(full.await.expect("told").is_zero(), "there was room");
        // Only the second send can be waiting now, and only this makes room.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(receiver.recv().await, Ok(Some(Bytes::from_static(b"a"))));
        assert_eq!(receiver.recv().await, Ok(Some(Bytes::from_static(b"b"))));
        producer.await.expect("joined");
        assert!(!times.waited().is_zero());
        assert!(times.finished().is_some());
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let (mut sender, mut receiver) = channel(1);
        sender.send(Bytes::from_static(b"a")).await.expect("open");
        {
            let mut second = std::pin::pin!(sender.send(Bytes::from_static(b"b")));
            assert!(futures_util::poll!(&mut second).is_pending());
            receiver.recv().await.expect("a").expect("a");
            second.await.expect("room now");
        }
        sender.finish();
        assert_eq!(drain(receiver).await.len(), 1);
    }
}
