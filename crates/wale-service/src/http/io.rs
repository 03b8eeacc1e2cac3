//! The socket of one client, plain or TLS, as hyper sees it: it reports when everything handed to it was written, and
//! it gives up on a client that stops reading, or reads too slowly.
//!
//! It refuses to know what is sent. Invariant: [`Flushed`] counts up only when no byte is left in hyper's buffer or in
//! TLS's, because hyper flushes the socket only then. So TLS lies below, not above.

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
use tokio_rustls::server::TlsStream;

use crate::options::HttpLimits;

/// How often the socket was flushed, and the ones that want to know.
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

/// What carries the bytes.
pub(crate) enum Transport {
    Plain(TcpStream),
    // Boxed: rustls' state is a kilobyte, and most connections are plain.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's socket with bounds on how long a write may stand still and how slowly a client may read.
pub(crate) struct ClientSocket {
    stream: Transport,
    flushed: Flushed,
    patience: Patience,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// How long a client has kept us waiting, against what it has taken.
///
/// A client that reads a byte now and then would never stand still for long and keep a decompressed segment in memory
/// for hours. So all its waiting together must not exceed the stall limit plus what its bytes take at the slowest rate.
struct Patience {
    stall: Duration,
    bytes_per_second: u64,
    written: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl Patience {
    /// Nothing could be written at this moment; when to give up.
    fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let for_bytes = Duration::from_secs(self.written / self.bytes_per_second.max(1));
        let left = (self.stall + for_bytes).saturating_sub(self.waited);
        since + left.min(self.stall)
    }

    /// So many bytes went out at this moment.
    fn went_on(&mut self, now: Instant, bytes: usize) {
        self.written = self.written.saturating_add(bytes as u64);
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

impl ClientSocket {
    pub(crate) fn new(stream: Transport, flushed: Flushed, limits: &HttpLimits) -> Self {
        Self {
            stream,
            flushed,
            patience: Patience {
                stall: limits.write_stall,
                bytes_per_second: limits.least_bytes_per_second,
                written: 0,
                waited: Duration::ZERO,
                since: None,
            },
            stalled: None,
        }
    }

    /// Ends the connection so that the last reply arrives. Closing a socket with unread bytes in it sends a reset, and
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

    /// Lets `moved` through; arms the timer while the client takes nothing.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &moved {
            self.stalled = None;
            let bytes = result.as_ref().map_or(0, bytes);
            self.patience.went_on(Instant::now(), bytes);
            return moved;
        }
        let patience = &mut self.patience;
        let timer = self.stalled.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep_until(patience.wait(Instant::now())))
        });
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client stopped reading its reply, or reads too slowly",
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
        self.watch(context, written, |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, written, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS keeps the last record until here, so a client that does not read may stop a flush, too.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        ready!(self.watch(context, flushed, |()| 0))?;
        self.flushed.note();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shut, |()| 0)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a client of this rhythm is borne: `bytes` taken after each `pause`.
    fn borne(bytes: usize, pause: Duration) -> Duration {
        let mut patience = Patience {
            stall: Duration::from_secs(60),
            bytes_per_second: 64 << 10,
            written: 0,
            waited: Duration::ZERO,
            since: None,
        };
        let begun = Instant::now();
        let mut now = begun;
        for _ in 0..100_000 {
            let limit = patience.wait(now);
            if limit < now + pause {
                return limit - begun;
            }
            now += pause;
            patience.went_on(now, bytes);
        }
        Duration::MAX
    }

    #[test]
    fn row60_a_client_is_borne_for_as_long_as_its_bytes_deserve() {
        let second = Duration::from_secs(1);
        assert_eq!(borne(0, 61 * second), 60 * second, "it stands still");
        assert_eq!(
            borne(1, 10 * second),
            60 * second,
            "a byte every ten seconds"
        );
        // 320 KiB in ten seconds are 32 KiB a second: half of what is asked, so the minute is used up after two.
        let slow = borne(320 << 10, 10 * second);
        assert!(slow > 100 * second && slow < 130 * second, "{slow:?}");
        assert_eq!(
            borne(1 << 20, 10 * second),
            Duration::MAX,
            "100 KiB a second is well"
        );
    }
}
