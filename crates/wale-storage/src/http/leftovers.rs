//! What futures that were dropped half-way have left in a store, noted until somebody can discard it: a drop cannot wait
//! for the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ObjectKey;

/// What is remembered until somebody can discard it: with names of at most 1 KiB some 100 KiB.
const LEFTOVERS_MAX: usize = 100;

/// What is to be discarded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftovers(Arc<Mutex<Vec<Leftover>>>);

/// What was left under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) key: ObjectKey,
    pub(crate) what: Remains,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remains {
    /// The object with which the store was tried.
    Trial,
    /// An upload whose object never came: what it is called, and how many of its parts were begun.
    Upload { id: String, parts: u32 },
}

impl Leftovers {
    /// Notes what is to be discarded; what finds no room is found by the sweep.
    fn note(&self, what: Leftover) {
        let mut noted = self.noted();
        if noted.len() < LEFTOVERS_MAX {
            noted.push(what);
        }
    }

    /// What was noted last. It stays noted.
    pub(crate) fn last(&self) -> Option<Leftover> {
        self.noted().last().cloned()
    }

    /// It is gone, or it is left to the sweep.
    pub(crate) fn forget(&self, what: &Leftover) {
        self.noted().retain(|one| one != what);
    }

    fn noted(&self) -> MutexGuard<'_, Vec<Leftover>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what it holds when it is dropped.
#[derive(Debug)]
pub(crate) struct NotedOnDrop {
    leftovers: Leftovers,
    what: Option<Leftover>,
}

impl NotedOnDrop {
    /// It holds nothing yet.
    pub(crate) fn new(leftovers: &Leftovers) -> Self {
        Self {
            leftovers: leftovers.clone(),
            what: None,
        }
    }

    /// From here on there is this to discard.
    pub(crate) fn hold(&mut self, what: Leftover) {
        self.what = Some(what);
    }

    /// There is nothing left to discard, or nobody but the sweep may discard it.
    pub(crate) fn let_go(&mut self) {
        self.what = None;
    }
}

impl Drop for NotedOnDrop {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            self.leftovers.note(what);
        }
    }
}
