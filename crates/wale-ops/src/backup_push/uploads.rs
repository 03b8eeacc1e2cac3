//! The objects that a running backup has written, so that a failed one can take them back.
//!
//! A key is noted before its object is put, because a put whose reply was lost may have succeeded. It is forgotten
//! when the store says that somebody else's object is there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wale_storage::{Body, ObjectKey, PutOutcome, Store, StoreError, body_from};

use crate::archive::Archive;
use crate::error::{Kind, OpError, Result};

/// Writes objects of one backup and remembers them.
#[derive(Debug)]
pub(super) struct Uploads {
    store: Arc<dyn Store>,
    keys: Mutex<Vec<ObjectKey>>,
}

/// Whether this attempt is the first to write an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nobody of ours wrote it before: what is there belongs to somebody else.
    First,
    /// An earlier attempt of ours may have stored it without us hearing so: what is there is replaced.
    Again,
}

impl Uploads {
    /// For a backup into `store`.
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            keys: Mutex::new(Vec::new()),
        }
    }

    /// Puts `body` under `key`, which must be free; returns the number of bytes stored.
    pub(super) async fn put(&self, key: &str, body: Body, attempt: Attempt) -> Result<u64> {
        let key = Archive::key(key)?;
        self.note(&key);
        if attempt == Attempt::Again {
            self.store
                .delete(&key)
                .await
                .map_err(|error| failed(error, &key))?;
        }
        match self.store.put_if_absent(&key, body).await {
            Ok(PutOutcome::Created(meta)) => Ok(meta.size),
            Ok(PutOutcome::Exists) => {
                self.forget(&key);
                Err(OpError::new(
                    Kind::ArchiveConflict,
                    format!("the archive already has {key}"),
                )
                .detail("Another backup with the same start position is being written.")
                .hint("let only one sidecar at a time take base backups into an archive"))
            }
            Err(error) => Err(failed(error, &key)),
        }
    }

    /// Puts a small object.
    pub(super) async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<u64> {
        self.put(key, body_from(bytes), Attempt::First).await
    }

    /// Takes back everything that was written. What the store refuses to delete stays: without a sentinel it is no
    /// backup, and the next clean-up finds it.
    pub(super) async fn remove_all(&self) {
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        for key in keys {
            if let Err(error) = self.store.delete(&key).await {
                tracing::warn!(%key, %error, "could not remove an object of the failed backup");
            }
        }
    }

    /// From here on nothing is taken back.
    pub(super) fn keep_all(&self) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn note(&self, key: &ObjectKey) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }

    fn forget(&self, key: &ObjectKey) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|noted| noted != key);
    }
}

fn failed(error: StoreError, key: &ObjectKey) -> OpError {
    OpError::from_store(error, format_args!("store {key}"))
}
