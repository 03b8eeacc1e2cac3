//! What an attempt of a push came to, and the store's word on what was there already.

use wale_archive::{Archive, StoredWal};
use wale_format::Codec;
use wale_storage::ObjectKey;

use super::report::PushOutcome;
use crate::error::{Kind, OpError, Result};

/// What an attempt came to.
pub(super) struct Done {
    pub(super) outcome: PushOutcome,
    pub(super) key: ObjectKey,
    /// How the object is compressed.
    pub(super) codec: Codec,
    pub(super) bytes_stored: u64,
    /// An object of another tool under the same name that this version cannot read.
    pub(super) beside: Option<ObjectKey>,
}

impl Done {
    /// Nothing was stored: this object holds the file.
    pub(super) fn already(stored: &StoredWal) -> Self {
        Self {
            outcome: PushOutcome::AlreadyStored,
            key: stored.key.clone(),
            codec: stored.codec,
            bytes_stored: stored.size,
            beside: None,
        }
    }
}

/// Acknowledges an object that was found and compared. That it can be read does not make it durable: its writer may
/// have been killed before its fsync, or be a tool that never calls it. So the store is asked to confirm it.
pub(super) async fn confirm(archive: &Archive, stored: &StoredWal) -> Result<Done> {
    match archive.store().confirm(&stored.key).await {
        Ok(Some(_)) => Ok(Done::already(stored)),
        Ok(None) => Err(gone(&stored.key)),
        Err(error) => Err(OpError::from_store(
            error,
            format_args!("confirm {}", stored.key),
        )),
    }
}

/// The error for an object that was there a moment ago.
pub(super) fn gone(key: &ObjectKey) -> OpError {
    OpError::new(
        Kind::StorageUnavailable,
        format!("object {key} was there and is gone"),
    )
    .hint("find out who deletes objects of this archive")
}
