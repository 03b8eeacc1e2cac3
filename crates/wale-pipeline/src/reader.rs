//! From a stream into blocking code: `io::Read` over asynchronous chunks.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// What a chunk counts for at least, 4 KiB: what it takes beside its bytes is a fiftieth of that.
const CHUNK_COUNTS_MIN: usize = 4 << 10;

/// Messages that are taken out of the queue at once. Each may wake the other side, which costs more than a small chunk.
const TAKEN_MAX: usize = 64;

/// What the forwarder puts into the queue. The end is a message of its own: a queue that merely closes
/// means that the forwarder died (a panic, a runtime that shuts down), and that must not look like an end.
#[derive(Debug)]
enum Message {
    Chunk(Bytes),
    Failed(io::Error),
    End,
}

/// Reads a stream of chunks from a thread that may block.
///
/// A task forwards the stream into a queue that is bounded by bytes; it belongs to the reader and is aborted, together with
/// the stream, when the reader is dropped. An error of the stream comes out once as an [`io::Error`] that
/// carries it: `error.get_ref()` and `downcast_ref` give back the original. An error that is an
/// [`io::Error`] already comes out as it is. After an error every read fails; it never turns into an end.
#[derive(Debug)]
pub struct StreamReader {
    queue: mpsc::UnboundedReceiver<Message>,
    forwarder: AbortHandle,
    /// Taken out of the queue, not yet read.
    taken: VecDeque<Message>,
    chunk: Bytes,
    /// What the chunk counts for.
    counts: usize,
    room: Arc<Room>,
    /// What was read and is still counted.
    read: usize,
    state: State,
}

/// The bytes that may wait.
#[derive(Debug)]
struct Room {
    bytes: usize,
    free: Semaphore,
}

impl Room {
    /// What a chunk counts for: never more than there is, for a larger one would wait for ever.
    fn counted(&self, chunk: &Bytes) -> usize {
        chunk.len().max(CHUNK_COUNTS_MIN).min(self.bytes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Failed,
}

impl StreamReader {
    /// A reader over `stream` with `ahead` bytes waiting at most, one chunk at least; the forwarder holds one chunk
    /// more. Chunks are as large as the stream makes them.
    pub fn new<S, E>(stream: S, ahead: usize, runtime: &Handle) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let bytes = ahead.clamp(1, u32::MAX as usize);
        let room = Arc::new(Room {
            bytes,
            free: Semaphore::new(bytes),
        });
        let (sender, queue) = mpsc::unbounded_channel();
        let forwarder = runtime.spawn(forward(stream, sender, Arc::clone(&room)));
        Self {
            queue,
            forwarder: forwarder.abort_handle(),
            taken: VecDeque::new(),
            chunk: Bytes::new(),
            counts: 0,
            room,
            read: 0,
            state: State::Open,
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.read += std::mem::take(&mut self.counts);
        // Before the queue is waited for, all that was read makes room.
        if self.taken.is_empty() || self.read >= self.room.bytes / 2 {
            self.room.free.add_permits(std::mem::take(&mut self.read));
        }
        if self.taken.is_empty() {
            let mut taken = Vec::new();
            self.queue.blocking_recv_many(&mut taken, TAKEN_MAX);
            self.taken = taken.into();
        }
        match self.taken.pop_front() {
            Some(Message::Chunk(chunk)) => {
                self.counts = self.room.counted(&chunk);
                self.chunk = chunk;
                Ok(())
            }
            Some(Message::End) => {
                self.state = State::Ended;
                Ok(())
            }
            Some(Message::Failed(error)) => {
                self.state = State::Failed;
                Err(error)
            }
            None => {
                self.state = State::Failed;
                Err(stopped())
            }
        }
    }
}

fn stopped() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the source of the data stopped before the end",
    )
}

async fn forward<S, E>(stream: S, queue: mpsc::UnboundedSender<Message>, room: Arc<Room>)
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    let mut stream = std::pin::pin!(stream);
    while let Some(item) = stream.next().await {
        let message = match item {
            Ok(chunk) if chunk.is_empty() => continue,
            Ok(chunk) => Message::Chunk(chunk),
            Err(error) => Message::Failed(into_io_error(error.into())),
        };
        let last = matches!(message, Message::Failed(_));
        if let Message::Chunk(chunk) = &message {
            // Counted until the reader has read it. It fits: `bytes` is at most so much.
            let counted = u32::try_from(room.counted(chunk)).unwrap_or(u32::MAX);
            match room.free.acquire_many(counted).await {
                Ok(permits) => permits.forget(),
                Err(_) => return,
            }
        }
        // A closed queue is a reader that went away: nobody is left to tell.
        if queue.send(message).is_err() || last {
            return;
        }
    }
    let _ = queue.send(Message::End);
}

fn into_io_error(error: Box<dyn Error + Send + Sync>) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(error),
    }
}

impl BufRead for StreamReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() && self.state == State::Open {
            self.receive()?;
        }
        if self.state == State::Failed {
            return Err(stopped());
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }
}

impl io::Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let available = self.fill_buf()?;
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.room.free.close();
        self.forwarder.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store says no: {0}")]
    struct Refused(u32);

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.expect("joined")
    }

    fn chunks(texts: &'static [&'static str]) -> Vec<Result<Bytes, Refused>> {
        texts
            .iter()
            .map(|text| Ok(Bytes::from_static(text.as_bytes())))
            .collect()
    }

    #[tokio::test]
    async fn reads_to_the_end() {
        for texts in [&[] as &[&str], &[""], &["a"], &["ab", "", "cde", ""]] {
            let mut reader = StreamReader::new(stream::iter(chunks(texts)), 1, &Handle::current());
            let text = blocking(move || {
                let mut text = String::new();
                reader.read_to_string(&mut text).expect("whole");
                assert_eq!(reader.read(&mut [0; 4]).expect("stays at the end"), 0);
                text
            })
            .await;
            assert_eq!(text, texts.concat());
        }
    }

    /// Chunks of every size, more than may wait, come in their order, and no more of them wait than is said.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn no_more_waits_than_is_allowed() {
        const AHEAD: usize = 40_000;
        let given = Arc::new(AtomicUsize::new(0));
        let sizes = [1, 30_000, 7, 100_000, 4096, 39_999, 2, 5000, 12_000];
        let count = Arc::clone(&given);
        let sizes = sizes.into_iter().cycle().take(900);
        let chunks = stream::iter(sizes).map(move |size| {
            count.fetch_add(size, Ordering::SeqCst);
            Ok::<_, Refused>(Bytes::from(vec![b'x'; size]))
        });
        let mut reader = StreamReader::new(chunks, AHEAD, &Handle::current());
        let total = blocking(move || {
            let mut total = 0;
            let mut buffer = vec![0; 10_000];
            loop {
                let count = reader.read(&mut buffer).expect("whole");
                if count == 0 {
                    return total;
                }
                total += count;
                // What waits, one chunk that is read, and one in the forwarder's hands.
                let waiting = given.load(Ordering::SeqCst) - total;
                assert!(waiting <= AHEAD + 200_000, "{waiting}");
            }
        });
        assert_eq!(total.await, 100 * 191_105);
    }

    #[tokio::test]
    async fn an_error_keeps_its_type_and_never_becomes_an_end() {
        let mut items = chunks(&["ab"]);
        items.push(Err(Refused(7)));
        let mut reader = StreamReader::new(stream::iter(items), 4, &Handle::current());
        blocking(move || {
            let mut data = Vec::new();
            let error = reader.read_to_end(&mut data).expect_err("fails");
            assert_eq!(data, b"ab");
            let inner = error.get_ref().expect("carries the original");
            assert_eq!(inner.downcast_ref::<Refused>().expect("typed").0, 7);
            reader.read(&mut [0; 4]).expect_err("still failed");
        })
        .await;
    }

    #[tokio::test]
    async fn an_io_error_keeps_its_kind() {
        let items = [Err::<Bytes, _>(io::Error::from(io::ErrorKind::TimedOut))];
        let mut reader = StreamReader::new(stream::iter(items), 1, &Handle::current());
        let error = blocking(move || reader.read(&mut [0; 4]).expect_err("fails")).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn dropping_the_reader_drops_the_stream() {
        let alive = Arc::new(());
        let held = Arc::downgrade(&alive);
        let stream = stream::unfold(alive, |alive| async {
            Some((Ok::<_, Refused>(Bytes::from_static(b"x")), alive))
        });
        let reader = StreamReader::new(stream, 1, &Handle::current());
        drop(reader);
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_forwarder_that_dies_is_an_error() {
        let stream = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Refused>>> {
            panic!("stream dies")
        });
        let mut reader = StreamReader::new(stream, 1, &Handle::current());
        let error = blocking(move || reader.read(&mut [0; 4]).expect_err("no end")).await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
