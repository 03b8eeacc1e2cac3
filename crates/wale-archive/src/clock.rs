//! The one source of wall-clock time.
//!
//! Operations never ask the system for the time of day themselves, so that a test can stand still or jump a day.
//! Durations are measured with the monotonic clock ([`std::time::Instant`]), which is not replaced: a jump of the
//! wall clock must not change how long wale waits.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time of day in UTC.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock that stands still until a test moves it; clones share the hands.
    Fixed(Arc<Mutex<DateTime<Utc>>>),
}

impl Clock {
    /// A clock that stands at `at` until it is moved.
    #[must_use]
    pub fn fixed(at: DateTime<Utc>) -> Self {
        Self::Fixed(Arc::new(Mutex::new(at)))
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Fixed(hands) => *hands.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a fixed clock by `by`, which may be negative; the system's clock is left alone.
    pub fn advance(&self, by: TimeDelta) {
        if let Self::Fixed(hands) = self {
            *hands.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_stands_still_and_its_clones_move_together() {
        let start = DateTime::UNIX_EPOCH;
        let clock = Clock::fixed(start);
        let same = clock.clone();
        assert_eq!(clock.now(), start);
        same.advance(TimeDelta::days(-1));
        assert_eq!(clock.now(), start - TimeDelta::days(1));
    }
}
