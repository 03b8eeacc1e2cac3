//! Work that blocks, on threads made for it, and how many at a time.

use crate::error::{OpError, Result};

/// Runs blocking work, and says what it came to.
///
/// # Errors
///
/// Only a panic of the work.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| OpError::internal("a thread that reads or writes panicked").source(error))
}

/// One worker per processor: a worker is busy with its codec nearly all of its time.
#[must_use]
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
