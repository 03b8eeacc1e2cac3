//! Work that blocks, on threads made for it, and how many at a time.

use tokio::task::JoinError;

/// The work panicked, or the runtime shuts down.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Panicked(JoinError);

/// Runs blocking work, and says what it came to.
///
/// # Errors
///
/// Only a panic of the work.
pub async fn blocking<T, F>(work: F) -> Result<T, Panicked>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(Panicked)
}

/// One worker per processor: a worker is busy with its codec nearly all of its time.
#[must_use]
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_says_so() {
        assert_eq!(blocking(|| 7).await.expect("done"), 7);
        let error = blocking(|| -> u8 { panic!("no") }).await;
        let text = error.expect_err("panicked").to_string();
        assert!(text.contains("panicked"), "{text}");
    }
}
