//! Upper bounds of what all workers of a backup together read per second, and of the processors that they take.
//!
//! For blocking threads: a worker that goes over a bound sleeps until it is within again. A bound does not save up: an idle
//! second buys nothing later, so neither disk nor processors see a burst.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wale_pipeline::CancellationToken;

use super::options::Processors;

/// Longest sleep before cancellation is checked again.
const NAP: Duration = Duration::from_millis(100);

/// Shared by all workers of one backup.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: Option<u64>,
    processors: Option<Processors>,
    /// When the bytes that were read so far are all paid for.
    read_until: Mutex<Instant>,
    /// The same of the processor time.
    worked_until: Mutex<Instant>,
}

/// One worker's way through the bounds. It belongs to one thread.
#[derive(Debug)]
pub(super) struct Throttled<'a> {
    shared: &'a Throttle,
    /// When its work of which nothing is booked yet began, and the thread's processor time then.
    began: Option<(Instant, Duration)>,
}

impl Throttle {
    /// No bound of what is read when `bytes_per_second` is `None` or 0, and none of the processors when they are `None`.
    pub(super) fn new(
        bytes_per_second: Option<u64>,
        processors: Option<Processors>,
        now: Instant,
    ) -> Self {
        Self {
            bytes_per_second: bytes_per_second.filter(|&limit| limit > 0),
            processors,
            read_until: Mutex::new(now),
            worked_until: Mutex::new(now),
        }
    }

    /// For the worker on this thread.
    pub(super) fn worker(&self) -> Throttled<'_> {
        Throttled {
            shared: self,
            began: self.processors.map(|_| (Instant::now(), thread_time())),
        }
    }

    /// Books the reading of `bytes` and says when they are paid for.
    fn book_read(&self, bytes: u64, now: Instant) -> Instant {
        let Some(limit) = self.bytes_per_second else {
            return now;
        };
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(limit);
        book(&self.read_until, now, cost)
    }

    /// Books the processor time of work that began at `began` and says when it is paid for.
    fn book_work(&self, time: Duration, began: Instant) -> Instant {
        let Some(processors) = self.processors else {
            return began;
        };
        let cost = time.as_nanos() * 1000 / u128::from(processors.thousandths());
        book(&self.worked_until, began, cost)
    }
}

impl Throttled<'_> {
    /// Books `bytes` that are about to be read, and the processor time since the last call. Sleeps until all is paid for, or
    /// until cancelled.
    pub(super) fn take(&mut self, bytes: u64, cancel: &CancellationToken) {
        let now = Instant::now();
        if self.shared.bytes_per_second.is_some() {
            sleep_until(self.shared.book_read(bytes, now), cancel);
        }
        if let Some((began, before)) = self.began {
            let until = self
                .shared
                .book_work(thread_time().saturating_sub(before), began);
            sleep_until(until, cancel);
            self.began = Some((Instant::now(), thread_time()));
        }
    }
}

/// Books what costs so many nanoseconds and begins at `from`, and says when it is paid for.
fn book(paid_until: &Mutex<Instant>, from: Instant, nanoseconds: u128) -> Instant {
    let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    let mut paid_until = paid_until.lock().unwrap_or_else(PoisonError::into_inner);
    *paid_until = (*paid_until).max(from) + cost;
    *paid_until
}

fn sleep_until(until: Instant, cancel: &CancellationToken) {
    while !cancel.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// The processor time that this thread has taken.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn bytes_cost_their_share_of_a_second_and_idle_time_is_not_saved() {
        let start = Instant::now();
        let throttle = Throttle::new(Some(1000), None, start);
        assert_eq!(throttle.book_read(500, start), start + ms(500));
        assert_eq!(throttle.book_read(500, start), start + ms(1000));
        let later = start + ms(10_000);
        assert_eq!(throttle.book_read(100, later), later + ms(100));
    }

    #[test]
    fn all_workers_together_take_no_more_than_the_processors_that_are_set() {
        let start = Instant::now();
        let half: Processors = "0.5".parse().expect("a number of processors");
        let throttle = Throttle::new(None, Some(half), start);
        // Two workers are at work for 10 ms at the same time: half a processor does that in 40 ms.
        assert_eq!(throttle.book_work(ms(10), start), start + ms(20));
        assert_eq!(throttle.book_work(ms(10), start), start + ms(40));
        // The first goes on from 20 ms to 30 ms.
        assert_eq!(throttle.book_work(ms(10), start + ms(20)), start + ms(60));
        // What waits for the disk or the store costs nothing, and is not saved.
        let later = start + ms(5000);
        assert_eq!(throttle.book_work(ms(1), later), later + ms(2));

        let two: Processors = "2".parse().expect("a number of processors");
        let throttle = Throttle::new(None, Some(two), start);
        for _ in 0..2 {
            assert!(throttle.book_work(ms(10), start) <= start + ms(10));
        }
    }

    #[test]
    fn a_worker_books_the_time_of_its_own_thread() {
        let tenth: Processors = "0.1".parse().expect("a number of processors");
        let throttle = Throttle::new(None, Some(tenth), Instant::now());
        let begun = Instant::now();
        let mut worker = throttle.worker();
        let enough = thread_time() + ms(5);
        while thread_time() < enough {
            std::hint::black_box(enough);
        }
        worker.take(1, &CancellationToken::new());
        assert!(begun.elapsed() >= ms(50), "5 ms of work at a tenth");
    }

    #[test]
    fn no_limit_costs_nothing() {
        let start = Instant::now();
        for limit in [None, Some(0)] {
            let throttle = Throttle::new(limit, None, start);
            assert_eq!(throttle.book_read(u64::MAX, start), start);
            assert_eq!(throttle.book_work(Duration::MAX, start), start);
        }
    }
}
