//! The objects that a running backup has written, so that a failed one can take them back.
//!
//! A key is noted before its object is put, because a put whose reply was lost may have succeeded. It is forgotten
//! when the store says that somebody else's object is there.
//!
//! Keys are names, and another attempt may write under the same ones. So nothing is removed unless the claim on the
//! backup's name is ours at that moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use wale_archive::Archive;
use wale_archive::claim::Claim;
use wale_storage::{Body, ObjectKey, PutOutcome, Store, StoreError, body_from};

use crate::error::{Kind, OpError, Result};

/// Writes objects of one backup and remembers them.
#[derive(Debug)]
pub(super) struct Uploads {
    store: Arc<dyn Store>,
    keys: Mutex<Vec<ObjectKey>>,
    claim: OnceLock<Claim>,
    kept: AtomicBool,
}

/// Whether this attempt is the first to write an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nobody of ours wrote it before: what is there belongs to somebody else.
    First,
    /// An earlier attempt of ours may have stored it, and the answer was lost: the object is replaced.
    Again,
}

impl Uploads {
    /// For a backup into `store`.
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            keys: Mutex::new(Vec::new()),
            claim: OnceLock::new(),
            kept: AtomicBool::new(false),
        }
    }

    /// From here on the objects belong to this claim.
    pub(super) fn claimed(&self, claim: Claim) {
        // A second one cannot come: an attempt occupies one name, once.
        let _ = self.claim.set(claim);
    }

    /// The claim on the backup's name, once there is one.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.get()
    }

    /// Makes sure that the backup's name is ours now.
    pub(super) async fn check_claim(&self) -> Result<()> {
        match self.claim() {
            Some(claim) => claim.check_or_refresh().await,
            None => Err(OpError::internal("a backup without a claim on its name")),
        }
    }

    /// Puts `body` under `key`, which must be free; returns the number of bytes stored.
    pub(super) async fn put(&self, key: &str, body: Body, attempt: Attempt) -> Result<u64> {
        let key = Archive::key(key)?;
        self.note(&key);
        if let Some(claim) = self.claim() {
            claim.check_clock()?;
        }
        if attempt == Attempt::Again {
            self.check_claim().await?;
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
                .detail(
                    "Another backup with the same start position was written under it meanwhile.",
                )
                .hint(
                    "take the backup again; if this persists, find out who writes into the archive",
                ))
            }
            Err(error) => Err(failed(error, &key)),
        }
    }

    /// Puts a small object.
    pub(super) async fn put_bytes(&self, key: &str, bytes: Bytes) -> Result<u64> {
        self.put(key, body_from(bytes), Attempt::First).await
    }

    /// Takes back everything that was written, and then the claim. Objects that cannot be removed stay under the claim,
    /// and so does everything when the claim is another's: without a sentinel it is no backup, and when the claim is
    /// dead the next attempt or clean-up finds it.
    pub(super) async fn remove_all(&self) {
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = true;
        for key in keys {
            if let Err(error) = self.check_claim().await {
                tracing::warn!(error = %error.chain(), "the objects of the failed backup are left alone");
                return;
            }
            if let Err(error) = self.store.delete(&key).await {
                tracing::warn!(%key, %error, "could not remove an object of the failed backup");
                all = false;
            }
        }
        if all && !self.kept.load(Ordering::Acquire) {
            self.release().await;
        }
    }

    /// Gives the name back.
    pub(super) async fn release(&self) {
        if let Some(claim) = self.claim() {
            claim.release().await;
        }
    }

    /// From here on nothing is taken back, the claim included.
    pub(super) fn keep_all(&self) {
        self.kept.store(true, Ordering::Release);
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
