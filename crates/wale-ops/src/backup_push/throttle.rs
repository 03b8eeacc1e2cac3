//! An upper bound for the bytes that all workers together read per second.
//!
//! For blocking threads: a thread that takes bytes sleeps until they fit. A limit does not save up: an idle second buys
//! nothing later, so the disk never sees a burst.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wale_pipeline::CancellationToken;

/// Longest sleep before cancellation is checked again.
const NAP: Duration = Duration::from_millis(100);

/// Shared by all workers of one backup.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: Option<u64>,
    /// When the bytes that were taken so far are all paid for.
    paid_until: Mutex<Instant>,
}

impl Throttle {
    /// No bound when `bytes_per_second` is `None` or 0.
    pub(super) fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self {
            bytes_per_second: bytes_per_second.filter(|&limit| limit > 0),
            paid_until: Mutex::new(now),
        }
    }

    /// Takes `bytes` and sleeps for as long as they cost, or until cancelled.
    pub(super) fn take(&self, bytes: u64, cancel: &CancellationToken) {
        if self.bytes_per_second.is_none() {
            return;
        }
        let until = self.book(bytes, Instant::now());
        while !cancel.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Books `bytes` and says when they are paid for.
    fn book(&self, bytes: u64, now: Instant) -> Instant {
        let Some(limit) = self.bytes_per_second else {
            return now;
        };
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(limit))
                .unwrap_or(u64::MAX),
        );
        *paid_until = (*paid_until).max(now) + cost;
        *paid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cost_their_share_of_a_second_and_idle_time_is_not_saved() {
        let start = Instant::now();
        let throttle = Throttle::new(Some(1000), start);
        assert_eq!(
            throttle.book(500, start),
            start + Duration::from_millis(500)
        );
        assert_eq!(throttle.book(500, start), start + Duration::from_secs(1));
        let later = start + Duration::from_secs(10);
        assert_eq!(
            throttle.book(100, later),
            later + Duration::from_millis(100)
        );
    }

    #[test]
    fn no_limit_costs_nothing() {
        let start = Instant::now();
        for limit in [None, Some(0)] {
            assert_eq!(Throttle::new(limit, start).book(u64::MAX, start), start);
        }
    }
}
