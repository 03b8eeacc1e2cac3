//! What the steps of one attempt at a base backup work with.

use std::sync::Arc;

use tokio::sync::Notify;
use wale_archive::Archive;
use wale_format::{BackupName, layout};
use wale_pipeline::{CancellationToken, Progress};

use super::options::BackupOptions;
use super::place;
use super::uploads::Uploads;
use crate::error::{OpError, Result};

/// One attempt and what it works with.
pub(super) struct Backup<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a BackupOptions,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    pub(super) uploads: &'a Arc<Uploads>,
    /// Rings when there is a claim to be kept.
    pub(super) claimed: &'a Notify,
}

impl Backup<'_> {
    /// Waits for `work`, or for the cancellation; dropping the work closes the server's session.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(OpError::cancelled()),
            value = work => Ok(value),
        }
    }

    /// Takes the backup's name, makes sure that nobody else's objects are under it, and puts the first one there: the
    /// server's version.
    pub(super) async fn occupy(&self, name: &BackupName, version: &str) -> Result<()> {
        let claim = place::occupy(self.archive, name).await?;
        self.uploads.claimed(claim);
        self.claimed.notify_one();
        let key = layout::extended_version(name);
        self.uploads
            .put_bytes(&key, version.to_owned().into())
            .await?;
        Ok(())
    }
}
