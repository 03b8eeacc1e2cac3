//! How long an operation keeps trying, and how it waits in between.
//!
//! Only failures whose kind says that a retry can help are tried again; everything else is returned at once. The
//! store's own wrapper already repeats single small requests; this is the loop around a whole push, fetch or partition,
//! whose body cannot be replayed by the store.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use tokio::time::Instant;
use wale_pipeline::CancellationToken;

use crate::error::{Kind, OpError, Result};

/// Pauses that double, up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Pauses from `first` on, up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// The pause that is due. The one after it is twice as long.
    pub fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }
}

/// A bounded series of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// No new attempt begins after this much time; zero means one attempt. It must stay below the client's own
    /// time-out, or the client is gone before it hears the answer.
    pub deadline: Duration,
    /// How many attempts there are at most.
    pub attempts_max: u32,
    /// The pause after the first failure; it doubles after each further one. A pause is jittered to half its length.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// An attempt of [`RetryBudget::run`] that has not ended by then is given up: a store that never answers must not
    /// hold a slot for ever.
    pub attempt_limit: Duration,
}

impl RetryBudget {
    /// One attempt, no retry.
    pub const ONCE: Self = Self::within(Duration::ZERO);

    /// Attempts for one partition, or another object of a base backup, which may take minutes each: 5, with pauses of 2, 4,
    /// 8 and 16 s at least and twice that at most. An outage of 30 s is survived.
    pub(crate) const OBJECT: Self = Self {
        deadline: Duration::MAX,
        attempts_max: 5,
        first_pause: Duration::from_secs(4),
        longest_pause: Duration::from_secs(32),
        attempt_limit: Duration::MAX,
    };

    /// Attempts until `deadline` has passed, 100 ms apart at first and 5 s at most: quick enough that a hiccup costs
    /// nothing, slow enough that a store in trouble sees no storm (60 s make about 16 requests).
    #[must_use]
    pub const fn within(deadline: Duration) -> Self {
        Self {
            deadline,
            attempts_max: u32::MAX,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            // 1 GiB, the largest segment, at 2 MB/s; less than the 15 minutes that wget waits.
            attempt_limit: Duration::from_mins(10),
        }
    }

    /// Begins a series of attempts.
    #[must_use]
    pub(crate) fn begin(&self) -> Attempts {
        Attempts {
            budget: *self,
            begun: Instant::now(),
            failed: 0,
            pauses: Pauses::new(self.first_pause, self.longest_pause),
        }
    }

    /// Runs `attempt` until it succeeds, fails in a way that a retry cannot help, or the budget is spent.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, F, A>(&self, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T>>,
    {
        let mut attempts = self.begin();
        loop {
            let error = match tokio::time::timeout(self.attempt_limit, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => no_answer(self.attempt_limit),
            };
            let again = attempts.after(error)?;
            tracing::debug!(error = %again.error.chain(), pause_ms = again.pause.as_millis(), "will try again");
            again.wait().await;
        }
    }
}

/// The attempts of one piece of work.
#[derive(Debug)]
pub(crate) struct Attempts {
    budget: RetryBudget,
    begun: Instant,
    failed: u32,
    pauses: Pauses,
}

impl Attempts {
    /// What follows a failed attempt: another one, after a pause.
    ///
    /// # Errors
    /// The error, where a retry cannot help or the budget is spent.
    pub(crate) fn after(&mut self, error: OpError) -> Result<Again> {
        self.failed += 1;
        let pause = jittered(self.pauses.take());
        let then = self.begun.elapsed().saturating_add(pause);
        if !worth_repeating(error.kind)
            || self.failed >= self.budget.attempts_max
            || then > self.budget.deadline
        {
            return Err(error);
        }
        Ok(Again {
            failed: self.failed,
            pause,
            error,
        })
    }
}

/// Another attempt is due after a pause.
#[derive(Debug)]
#[must_use]
pub(crate) struct Again {
    /// How many attempts have failed.
    pub(crate) failed: u32,
    /// The pause.
    pub(crate) pause: Duration,
    /// Why the last attempt failed.
    pub(crate) error: OpError,
}

impl Again {
    /// Waits until the attempt is due.
    pub(crate) async fn wait(self) {
        tokio::time::sleep(self.pause).await;
    }

    /// As [`Again::wait`], for work that can be cancelled.
    ///
    /// # Errors
    /// [`Kind::Cancelled`].
    pub(crate) async fn wait_unless(self, cancel: &CancellationToken) -> Result<()> {
        let waited = cancel.run_until_cancelled(self.wait()).await;
        waited.ok_or_else(OpError::cancelled)
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
    async fn an_object_is_tried_five_times_with_pauses_that_double_and_can_be_cancelled() {
        let mut attempts = RetryBudget::OBJECT.begin();
        let error = || OpError::new(Kind::StorageUnavailable, "down");
        for (failed, least) in [(1, 2), (2, 4), (3, 8), (4, 16)] {
            // However long an attempt takes.
            tokio::time::advance(Duration::from_hours(1)).await;
            let again = attempts.after(error()).expect("another");
            let least = Duration::from_secs(least);
            assert_eq!(again.failed, failed);
            assert!((least..=least * 2).contains(&again.pause), "{again:?}");
        }
        attempts.after(error()).expect_err("the fifth failed");
        let mut attempts = RetryBudget::OBJECT.begin();
        let damaged = OpError::new(Kind::CorruptData, "no");
        attempts.after(damaged).expect_err("a retry does not help");
        let cancel = CancellationToken::new();
        let again = || RetryBudget::OBJECT.begin().after(error());
        let waited = again().expect("another").wait_unless(&cancel).await;
        waited.expect("nobody cancelled");
        cancel.cancel();
        let waited = again().expect("another").wait_unless(&cancel).await;
        assert_eq!(waited.expect_err("cancelled").kind, Kind::Cancelled);
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
