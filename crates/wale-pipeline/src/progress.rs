//! How far a piece of work has come, for logs, metrics and a bar.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Stands for "not known" in the totals. No cluster has that many bytes.
const UNKNOWN: u64 = u64::MAX;

/// Counters that any number of workers add to while others look. Clones share them.
///
/// Counters only grow, so a rate is the difference of two snapshots: [`ProgressSnapshot::bytes_per_second`].
/// The counters of one snapshot are read one after another, which is exact enough for the eye.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    total_files: AtomicU64,
    files: AtomicU64,
    phase: Mutex<&'static str>,
    started: Instant,
}

impl Progress {
    /// Nothing done yet, totals unknown, phase empty. Time runs from here.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Counters {
            total_bytes: AtomicU64::new(UNKNOWN),
            done_bytes: AtomicU64::new(0),
            total_files: AtomicU64::new(UNKNOWN),
            files: AtomicU64::new(0),
            phase: Mutex::new(""),
            started: Instant::now(),
        }))
    }

    /// How many bytes there are to do.
    pub fn set_total(&self, bytes: u64) {
        self.0.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How many files there are to do.
    pub fn set_total_files(&self, files: u64) {
        self.0.total_files.store(files, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.0.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more files are done.
    pub fn add_files(&self, files: u64) {
        self.0.files.fetch_add(files, Ordering::Relaxed);
    }

    /// Names what is being done.
    pub fn set_phase(&self, phase: &'static str) {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Where things stand.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        let known = |counter: &AtomicU64| {
            let value = counter.load(Ordering::Relaxed);
            (value != UNKNOWN).then_some(value)
        };
        ProgressSnapshot {
            total_bytes: known(&self.0.total_bytes),
            done_bytes: self.0.done_bytes.load(Ordering::Relaxed),
            files: self.0.files.load(Ordering::Relaxed),
            total_files: known(&self.0.total_files),
            phase: *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner),
            elapsed: self.0.started.elapsed(),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a piece of work stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Bytes to do, when known. Files grow and vanish, so `done_bytes` may end above or below.
    pub total_bytes: Option<u64>,
    /// Bytes done.
    pub done_bytes: u64,
    /// Files done.
    pub files: u64,
    /// Files to do, when known.
    pub total_files: Option<u64>,
    /// What is being done.
    pub phase: &'static str,
    /// Time since the work began.
    pub elapsed: Duration,
}

impl ProgressSnapshot {
    /// The share done, from 0 to 1, when the total is known. Nothing to do is all done.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share for the eye needs no more"
    )]
    pub fn fraction(&self) -> Option<f64> {
        let total = self.total_bytes?;
        if total == 0 {
            return Some(1.0);
        }
        Some((self.done_bytes as f64 / total as f64).min(1.0))
    }

    /// Bytes per second since `earlier`, 0 when no time has passed.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for the eye needs no more"
    )]
    pub fn bytes_per_second(&self, earlier: &Self) -> f64 {
        let seconds = self.elapsed.saturating_sub(earlier.elapsed).as_secs_f64();
        if seconds <= 0.0 {
            return 0.0;
        }
        self.done_bytes.saturating_sub(earlier.done_bytes) as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let progress = Progress::new();
        let start = progress.snapshot();
        assert_eq!((start.total_bytes, start.total_files), (None, None));
        assert_eq!(start.fraction(), None);
        progress.set_phase("copying");
        progress.set_total(200);
        progress.set_total_files(2);
        let other = progress.clone();
        other.add(50);
        other.add_files(1);
        let now = progress.snapshot();
        assert_eq!(now.phase, "copying");
        assert_eq!((now.done_bytes, now.files), (50, 1));
        assert_eq!(now.total_files, Some(2));
        assert_eq!(now.fraction(), Some(0.25));
    }

    #[test]
    fn rates() {
        let at = |seconds, done_bytes| ProgressSnapshot {
            total_bytes: Some(0),
            done_bytes,
            files: 0,
            total_files: None,
            phase: "",
            elapsed: Duration::from_secs(seconds),
        };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(at(3, 300).bytes_per_second(&at(1, 100)), 100.0));
        assert!(close(at(1, 300).bytes_per_second(&at(1, 100)), 0.0));
        assert_eq!(at(1, 5).fraction(), Some(1.0));
    }
}
