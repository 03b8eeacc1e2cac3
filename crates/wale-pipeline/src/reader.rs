//! From a stream into blocking code: `io::Read` over asynchronous chunks.

use std::error::Error;
use std::io::{self, BufRead};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What the forwarder puts into the queue. The end is a message of its own: a queue that merely closes
/// means that the forwarder died (a panic, a runtime that shuts down), and that must not look like an end.
enum Message {
    Chunk(Bytes),
    Failed(io::Error),
    End,
}

/// Reads a stream of chunks from a thread that may block.
///
/// A task forwards the stream into a bounded queue; it belongs to the reader and is aborted, together with
/// the stream, when the reader is dropped. An error of the stream comes out once as an [`io::Error`] that
/// carries it: `error.get_ref()` and `downcast_ref` give back the original. An error that is an
/// [`io::Error`] already comes out as it is. After an error every read fails; it never turns into an end.
#[derive(Debug)]
pub struct StreamReader {
    queue: mpsc::Receiver<Message>,
    forwarder: AbortHandle,
    chunk: Bytes,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Failed,
}

impl StreamReader {
    /// A reader over `stream` with at most `chunks` chunks (at least one) waiting; the forwarder holds one
    /// more, and the reader the one it reads from. Chunks are as large as the stream makes them.
    pub fn new<S, E>(stream: S, chunks: usize, runtime: &Handle) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(chunks.max(1));
        let forwarder = runtime.spawn(forward(stream, sender)).abort_handle();
        Self {
            queue,
            forwarder,
            chunk: Bytes::new(),
            state: State::Open,
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        match self.queue.blocking_recv() {
            Some(Message::Chunk(chunk)) => {
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

async fn forward<S, E>(stream: S, queue: mpsc::Sender<Message>)
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
        // A closed queue is a reader that went away: nobody is left to tell.
        if queue.send(message).await.is_err() || last {
            return;
        }
    }
    let _ = queue.send(Message::End).await;
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
        self.forwarder.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

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
