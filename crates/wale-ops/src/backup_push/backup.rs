//! What the steps of one attempt at a base backup work with.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use tokio::sync::Notify;
use wale_archive::Archive;
use wale_format::{BackupName, Codec, layout};
use wale_pipeline::{CHUNK_BYTES, CancellationToken, Progress, blocking};

use super::options::BackupOptions;
use super::place;
use super::uploads::{Attempt, Uploads};
use crate::error::{OpError, Result};

/// Lines are gathered before they are sealed.
const LINES_BYTES: usize = 64 << 10;

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

    /// Stores what describes the backup, under `codec`, while `write` writes it: it is as long as the cluster has files, and never whole
    /// in memory. Gives what `write` gave, and how many bytes are stored.
    ///
    /// # Errors
    ///
    /// The store's; cancellation, until it begins.
    pub(super) async fn store_written<T: Send + 'static>(
        &self,
        key: &str,
        codec: Codec,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send + 'static,
    ) -> Result<(T, u64)> {
        let bytes = self.archive.partition_writer_bytes(CHUNK_BYTES) + LINES_BYTES as u64;
        let _memory = self
            .unless_cancelled(self.archive.budget().acquire(bytes))
            .await?;
        let (writer, body) = self.archive.described_body(codec, CHUNK_BYTES)?;
        let writing = blocking(move || {
            let mut lines = BufWriter::with_capacity(LINES_BYTES, writer);
            let given = write(&mut lines)?;
            let sealed = lines.into_inner().map_err(io::IntoInnerError::into_error)?;
            sealed.finish()?.finish()?;
            Ok::<_, io::Error>(given)
        });
        // What is not finished is dropped, and the put sees an aborted body: nothing appears.
        let put = self.uploads.put(key, body, Attempt::First);
        let (written, stored) = tokio::join!(writing, put);
        match (written?, stored?) {
            (Ok(given), stored) => Ok((given, stored)),
            (Err(error), _) => Err(OpError::internal(format!("{key} was cut short")).source(error)),
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
