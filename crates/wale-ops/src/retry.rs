//! How long an operation keeps trying, and how it waits in between.
//!
//! Only failures whose kind says that a retry can help are tried again; everything else is returned at once. The
//! store's own wrapper already repeats single small requests; this is the loop around a whole push or fetch, whose
//! body cannot be replayed by the store.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Kind, OpError, Result};

/// A bounded series of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// No new attempt begins after this much time; zero means one attempt. It must stay below the client's own
    /// time-out, or the client is gone before it hears the answer.
    pub deadline: Duration,
    /// The pause after the first failure; it doubles after each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// An attempt that has not ended by then is given up: a store that never answers must not hold a slot for ever.
    pub attempt_limit: Duration,
}

impl RetryBudget {
    /// One attempt, no retry.
    pub const ONCE: Self = Self::within(Duration::ZERO);

    /// Attempts until `deadline` has passed, 100 ms apart at first and 5 s at most: quick enough that a hiccup costs
    /// nothing, slow enough that a store in trouble sees no storm (60 s make about 16 requests).
    #[must_use]
    pub const fn within(deadline: Duration) -> Self {
        Self {
            deadline,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            // 1 GiB, the largest segment, at 2 MB/s; less than the 15 minutes that wget waits.
            attempt_limit: Duration::from_mins(10),
        }
    }

    /// Runs `attempt` until it succeeds, fails in a way that a retry cannot help, or the deadline has passed. The
    /// pauses are jittered to half their length.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, F, A>(&self, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T>>,
    {
        let give_up = Instant::now() + self.deadline;
        let mut pause = self.first_pause;
        loop {
            let error = match tokio::time::timeout(self.attempt_limit, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => no_answer(self.attempt_limit),
            };
            let wait = jittered(pause);
            if !worth_repeating(error.kind) || Instant::now() + wait > give_up {
                return Err(error);
            }
            tracing::debug!(error = %error.chain(), pause_ms = wait.as_millis(), "will try again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(self.longest_pause);
        }
    }
}

fn no_answer(limit: Duration) -> OpError {
    OpError::new(
        Kind::StorageUnavailable,
        format!("the store did not answer within {} s", limit.as_secs()),
    )
    .hint("check that the store can be reached; the request may be repeated")
}

/// `Busy`, `Draining` and `Cancelled` help a later request, but not this one.
fn worth_repeating(kind: Kind) -> bool {
    matches!(kind, Kind::StorageUnavailable | Kind::PostgresUnavailable)
}

/// Between one half and the whole of `pause`. The hasher's random keys are all the randomness this needs.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let thousandths = u32::try_from(random % 500).expect("a remainder of 500 fits in 32 bits");
    pause / 2 + pause * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_outages_are_repeated_and_only_within_the_deadline() {
        let cases = [
            // (kind, deadline in ms, failures before success, attempts expected, succeeds)
            (Kind::StorageUnavailable, 60_000, 3, 4, true),
            (Kind::StorageUnavailable, 0, 1, 1, false),
            (Kind::CorruptData, 60_000, 1, 1, false),
            (Kind::NotFound, 60_000, 1, 1, false),
            (Kind::Busy, 60_000, 1, 1, false),
        ];
        for (kind, deadline_ms, failures, expected, succeeds) in cases {
            let attempts = AtomicU32::new(0);
            let budget = RetryBudget::within(Duration::from_millis(deadline_ms));
            let result = budget
                .run(|| async {
                    if attempts.fetch_add(1, Ordering::Relaxed) < failures {
                        return Err(OpError::new(kind, "no"));
                    }
                    Ok(())
                })
                .await;
            assert_eq!(
                (attempts.into_inner(), result.is_ok()),
                (expected, succeeds),
                "{kind}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_store_sees_a_bounded_number_of_requests() {
        let attempts = AtomicU32::new(0);
        let started = Instant::now();
        let result: Result<()> = RetryBudget::within(Duration::from_mins(1))
            .run(|| async {
                attempts.fetch_add(1, Ordering::Relaxed);
                Err(OpError::new(Kind::StorageUnavailable, "down"))
            })
            .await;
        assert!(result.is_err());
        assert!(attempts.into_inner() <= 40);
        assert!(started.elapsed() <= Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn row_26_an_attempt_that_never_ends_is_given_up() {
        let started = Instant::now();
        let result: Result<()> = RetryBudget::within(Duration::from_mins(1))
            .run(std::future::pending)
            .await;
        assert_eq!(
            result.expect_err("no answer").kind,
            Kind::StorageUnavailable
        );
        assert_eq!(started.elapsed(), Duration::from_mins(10));
    }
}
