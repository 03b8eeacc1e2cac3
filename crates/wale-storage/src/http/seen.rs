//! When a bucket, or what the store calls it, was last seen: an answer to a question for an object of it does not say which
//! of the two is missing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long an answer proves that it exists. 10 s: a check of an absent object asks twice only when nothing else was
/// asked before.
const SEEN_FOR: Duration = Duration::from_secs(10);

/// The last answer.
#[derive(Debug, Default)]
pub(crate) struct LastSeen(Mutex<Option<Instant>>);

impl LastSeen {
    /// It has answered.
    pub(crate) fn note(&self) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(Instant::now());
    }

    /// Whether it is there, as far as a late answer says.
    pub(crate) fn is_recent(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|seen| seen.elapsed() < SEEN_FOR)
    }
}
