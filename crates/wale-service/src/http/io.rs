//! The socket of one client, as hyper sees it: it tells when everything handed to it was written, and it gives up on a
//! client that stops reading.
//!
//! It refuses to know what is sent. Invariant: [`Flushed`] counts up only when no byte is left in hyper's buffer,
//! because hyper flushes the socket only then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How often the socket was flushed, and who wants to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flushed(Arc<FlushedInner>);

#[derive(Debug, Default)]
struct FlushedInner {
    count: AtomicU64,
    waker: AtomicWaker,
}

impl Flushed {
    /// Flushes so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Ready once there was a flush after the one numbered `seen`.
    pub(crate) fn poll_beyond(&self, seen: u64, context: &Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.count() > seen {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn note(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.waker.wake();
    }
}

/// A client's socket with a bound on how long a write may stand still.
pub(crate) struct ClientSocket {
    stream: TcpStream,
    flushed: Flushed,
    stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream, flushed: Flushed, stall: Duration) -> Self {
        Self {
            stream,
            flushed,
            stall,
            stalled: None,
        }
    }

    /// Ends the connection so that the last reply arrives: closing a socket with unread bytes in it sends a reset, and
    /// a reset may overtake the reply. So the write side is closed, and what the client still sends is thrown away,
    /// 256 KiB and one second at most.
    pub(crate) async fn close_gently(mut self) {
        let linger = async {
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut left: usize = 256 << 10;
            let mut scratch = [0_u8; 4096];
            while left > 0 {
                match self.stream.read(&mut scratch).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        // Running out of time is one of the two ends that are meant here.
        let _ = tokio::time::timeout(Duration::from_secs(1), linger).await;
    }

    /// Lets `written` through; arms the stall timer while the client takes nothing.
    fn watch_stall(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = Instant::now() + self.stall;
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client stopped reading its reply",
        )))
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_stall(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch_stall(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed.note();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
