//! A bounded queue of chunks from one producer to one consumer, whose end is explicit.
//!
//! A plain queue cannot distinguish "that was all" from "the producer died": both close it. Here the producer
//! must say [`ChunkSender::finish`], and everything else reaches the consumer as an error. So a thread
//! that panics half-way never leaves a short object that looks whole.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;

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
    let sender = ChunkSender {
        queue: sender,
        end: Arc::clone(&end),
    };
    let receiver = ChunkReceiver {
        queue: receiver,
        end,
    };
    (sender, receiver)
}

/// The producer's side. Dropping it without [`ChunkSender::finish`] aborts the stream.
#[derive(Debug)]
pub struct ChunkSender {
    queue: mpsc::Sender<Bytes>,
    end: End,
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
        self.queue.blocking_send(chunk).map_err(|_| Closed)
    }

    /// Says that everything was sent. The consumer sees the end when it has taken what is queued.
    pub fn finish(self) {
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
