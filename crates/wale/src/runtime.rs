//! The runtime of a verb, bounded, and the signals that end it.

use std::future::Future;
use std::pin::pin;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use wale_ops::{Kind, OpError};
use wale_pipeline::CancellationToken;

use crate::config::processors;

/// Most blocking threads of a verb that moves one file: its reader or writer, the codec, the store's
/// file, and a few for name look-ups. 4 × 2 = 8.
const SMALL_BLOCKING_THREADS: usize = 8;

/// Blocking threads that do not belong to a partition or a segment: look-ups of names, directory
/// walks, flushes.
const SPARE_BLOCKING_THREADS: usize = 16;

/// A runtime on the calling thread, for verbs that move one file: it starts in well under a
/// millisecond.
///
/// # Errors
/// When the system gives no descriptors for it.
pub(crate) fn small() -> Result<Runtime, OpError> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(SMALL_BLOCKING_THREADS)
        .build()
        .map_err(failed)
}

/// A runtime with a worker thread per processor (two at least, so that a slow poll does not stop
/// everything) for base backups, restores and the sidecar. `streams` is how many partitions and
/// segments move at a time; each keeps a thread in its codec and one in the file that it reads or
/// writes, and may need one more for the store's.
///
/// # Errors
/// When the system gives no threads or descriptors for it.
pub(crate) fn large(streams: usize) -> Result<Runtime, OpError> {
    Builder::new_multi_thread()
        .worker_threads(processors().max(2))
        .thread_name("wale")
        .enable_all()
        .max_blocking_threads(3 * streams + SPARE_BLOCKING_THREADS)
        .build()
        .map_err(failed)
}

fn failed(error: std::io::Error) -> OpError {
    OpError::from_io(error, "start the runtime")
}

/// SIGTERM and SIGINT, from now on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens. Must be called within a runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn listen() -> Result<Self, OpError> {
        let on = |kind| signal(kind).map_err(|e| OpError::from_io(e, "listen for signals"));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Runs the work; the first signal cancels its token and lets it end cleanly, the second ends
    /// the process at once.
    pub(crate) async fn cancel<T>(
        mut self,
        token: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                name = self.next() => {
                    if token.is_cancelled() {
                        leave(name);
                    }
                    tracing::warn!("{name}: cancelling; a second signal ends the program at once");
                    token.cancel();
                }
            }
        }
    }

    /// Runs the work, which is given a future that is ready after the first signal; the second ends
    /// the process at once.
    pub(crate) async fn shut_down<T, W, F>(mut self, work: W) -> T
    where
        W: FnOnce(oneshot::Receiver<()>) -> F,
        F: Future<Output = T>,
    {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let mut work = pin!(work(receiver));
        loop {
            tokio::select! {
                result = &mut work => return result,
                name = self.next() => match sender.take() {
                    None => leave(name),
                    Some(sender) => {
                        tracing::info!("{name}: shutting down; a second signal ends the program at once");
                        // An end of the work at the same moment is as good.
                        let _ = sender.send(());
                    }
                },
            }
        }
    }
}

fn leave(name: &str) -> ! {
    tracing::error!("second {name}: leaving at once");
    std::process::exit(i32::from(Kind::Cancelled.exit_status()));
}
