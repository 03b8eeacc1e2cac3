//! What futures that were dropped half-way have left in the store, noted until somebody can discard it: a drop cannot
//! wait for the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ObjectKey;

/// What is remembered until somebody can discard it: with names of at most 1 KiB some 100 KiB.
const REMAINS_MAX: usize = 100;

/// What was left behind.
pub(super) type Remains = Arc<Mutex<Vec<Remnant>>>;

/// What is to be discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remnant {
    /// The segments of an upload whose object never came: so many were begun.
    Segments {
        key: ObjectKey,
        mark: String,
        begun: u32,
    },
    /// The object with which the store was tried.
    Trial(ObjectKey),
}

/// Notes what is to be discarded; what finds no room is found by the sweep.
pub(super) fn note(remains: &Remains, what: Remnant) {
    let mut remains = noted(remains);
    if remains.len() < REMAINS_MAX {
        remains.push(what);
    }
}

/// What was noted.
pub(super) fn noted(remains: &Remains) -> MutexGuard<'_, Vec<Remnant>> {
    remains.lock().unwrap_or_else(PoisonError::into_inner)
}
