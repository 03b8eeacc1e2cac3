//! What futures that were dropped half-way have left in the store, noted until somebody can discard it: a drop cannot
//! wait for the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ObjectKey;

/// Abandoned uploads that are remembered until somebody can discard them: with names of at most 1 KiB some 100 KiB.
const ABANDONED_MAX: usize = 100;

/// What futures that were dropped half-way have left behind.
pub(super) type Abandoned = Arc<Mutex<Vec<(ObjectKey, Leftover)>>>;

/// What is to be discarded under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leftover {
    /// The multipart upload with this identifier.
    Upload(String),
    /// The object, with which the store was tried.
    Object,
}

/// Notes what is to be discarded; what finds no room is found by the sweep.
pub(super) fn abandon(abandoned: &Abandoned, key: &ObjectKey, what: Leftover) {
    let mut abandoned = noted(abandoned);
    if abandoned.len() < ABANDONED_MAX {
        abandoned.push((key.clone(), what));
    }
}

/// What was noted.
pub(super) fn noted(abandoned: &Abandoned) -> MutexGuard<'_, Vec<(ObjectKey, Leftover)>> {
    abandoned.lock().unwrap_or_else(PoisonError::into_inner)
}
