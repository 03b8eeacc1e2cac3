//! From blocking code into a queue: `io::Write` that gathers small writes into chunks.

use std::io;

use bytes::BytesMut;

use crate::{ChunkSender, Closed};

/// Writes into a [`ChunkSender`] in chunks of a fixed size; only the last may be shorter.
///
/// Bytes are copied once, into the chunk that then travels as it is. Dropping the writer without
/// [`ChunkWriter::finish`] aborts the stream. To be used on a thread that may block.
#[derive(Debug)]
pub struct ChunkWriter {
    sender: ChunkSender,
    chunk: BytesMut,
    chunk_bytes: usize,
    total: u64,
}

impl ChunkWriter {
    /// A writer of chunks of `chunk_bytes` bytes (at least one). It holds one chunk at a time.
    #[must_use]
    pub fn new(sender: ChunkSender, chunk_bytes: usize) -> Self {
        Self {
            sender,
            chunk: BytesMut::new(),
            chunk_bytes: chunk_bytes.max(1),
            total: 0,
        }
    }

    /// Bytes written so far, sent or still held.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Sends what is left and ends the stream well. Answers the number of bytes written in all.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] with [`Closed`] inside when the consumer is gone.
    pub fn finish(mut self) -> io::Result<u64> {
        self.send_chunk()?;
        self.sender.finish();
        Ok(self.total)
    }

    /// Ends the stream with an error, which tells the consumer that what it has is not whole.
    pub fn fail(self, reason: String) {
        self.sender.fail(reason);
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        let chunk = self.chunk.split().freeze();
        self.sender.blocking_send(chunk).map_err(broken_pipe)
    }
}

fn broken_pipe(closed: Closed) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, closed)
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            // Takes the former chunk's memory again when its consumer is through with it.
            self.chunk.reserve(self.chunk_bytes);
        }
        let room = self.chunk_bytes - self.chunk.len();
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == self.chunk_bytes {
            self.send_chunk()?;
        }
        self.total += taken as u64;
        Ok(taken)
    }

    /// Does nothing: a chunk leaves when it is full or at the end. Codecs flush often, and chunks of some
    /// bytes would cost more than they bring.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use futures_util::StreamExt;

    use super::*;
    use crate::{ChunkError, channel};

    /// Runs the producer on a thread of its own and returns what arrives.
    async fn received(
        produce: impl FnOnce(ChunkWriter) + Send + 'static,
    ) -> Vec<Result<Bytes, ChunkError>> {
        let (sender, receiver) = channel(2);
        let producer = tokio::task::spawn_blocking(move || produce(ChunkWriter::new(sender, 4)));
        let items = receiver.into_stream().collect().await;
        producer.await.expect("joined");
        items
    }

    fn texts(items: &[Result<Bytes, ChunkError>]) -> Vec<&str> {
        items
            .iter()
            .map(|item| str::from_utf8(item.as_ref().expect("a chunk")).expect("text"))
            .collect()
    }

    #[tokio::test]
    async fn gathers_into_chunks() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&["", "ab", ""], &["ab"]),
            (&["abcd"], &["abcd"]),
            (&["a", "bcdefg", "h", "i"], &["abcd", "efgh", "i"]),
            (&["abcdefghijklm"], &["abcd", "efgh", "ijkl", "m"]),
        ];
        for (writes, chunks) in cases {
            let items = received(move |mut writer| {
                for text in writes {
                    writer.write_all(text.as_bytes()).expect("open");
                    writer.flush().expect("open");
                }
                let total: usize = writes.iter().map(|text| text.len()).sum();
                assert_eq!(writer.total(), total as u64);
                assert_eq!(writer.finish().expect("open"), total as u64);
            })
            .await;
            assert_eq!(texts(&items), chunks, "{writes:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_or_a_drop_is_not_an_end() {
        let items = received(|mut writer| {
            writer.write_all(b"abcdef").expect("open");
            writer.fail("no more".into());
        })
        .await;
        assert_eq!(items.len(), 2);
        assert_eq!(items[1], Err(ChunkError::Failed("no more".into())));
        let items = received(|mut writer| writer.write_all(b"abcdef").expect("open")).await;
        assert_eq!(items[1], Err(ChunkError::Aborted));
    }

    #[tokio::test]
    async fn a_gone_consumer_is_a_broken_pipe() {
        let (sender, receiver) = channel(2);
        drop(receiver);
        let producer = tokio::task::spawn_blocking(move || {
            let mut writer = ChunkWriter::new(sender, 4);
            writer.write_all(b"abcdef").expect_err("nobody listens")
        });
        let error = producer.await.expect("joined");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let inner = error.get_ref().expect("has the cause");
        assert!(inner.downcast_ref::<Closed>().is_some());
    }
}
