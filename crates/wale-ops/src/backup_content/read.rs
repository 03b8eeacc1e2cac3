//! All partitions of a backup, some at a time, and then the check that everything came.

use std::io::{Read, Write};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::ObjectKey;

use super::check::{WholeBackup, check};
use super::extract::Extraction;
use super::ledger::Carrier;
use super::manifest::Manifest;
use super::memory::WORKER_BYTES;
use super::sink::Sink;
use super::stored::StoredBackup;
use crate::archive::Archive;
use crate::archive::parts::StoredPart;
use crate::error::{Kind, OpError, Result};

/// Attempts for one object, and the pause before the second; it doubles each time: 2, 4, 8, 16 s.
const ATTEMPTS_MAX: NonZeroU8 = NonZeroU8::new(5).expect("it is not 0");
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// What reads backups.
pub(crate) struct BackupReader<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a CancellationToken,
    /// Partitions read at the same time.
    pub(crate) workers: usize,
    /// Bytes of the budget that the descriptions of all backups which are read hold.
    pub(crate) described: u64,
}

impl BackupReader<'_> {
    /// Reads a backup from its first partition to its last, gives its files to the sink, and checks that all came and are
    /// what was recorded.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] for the first damage that is met, or for what is missing in the end;
    /// [`Kind::Configuration`] for what this version cannot read, or has no memory for; [`Kind::Cancelled`]; those of the
    /// sink, and of the store when it does not answer for [`ATTEMPTS_MAX`] attempts.
    pub(crate) async fn read<S: Sink>(
        &self,
        backup: &StoredBackup,
        sink: &Arc<S>,
    ) -> Result<WholeBackup> {
        let extraction = Arc::new(Extraction::new(backup, sink, self.progress)?);
        self.fetch_all(backup, &extraction).await?;
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        check(self.archive, backup, &extraction).await
    }

    /// Copies the manifest of a backup, as it was read first, into a file that `open` makes, anew for each attempt.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when it is another one by now; those of the file, and of the store.
    pub(crate) async fn copy_manifest<W, F>(&self, manifest: &Manifest, open: F) -> Result<()>
    where
        W: Write,
        F: Fn() -> Result<W> + Clone + Send + 'static,
    {
        let mut attempt = NonZeroU8::MIN;
        while let Err(error) = manifest.copy(self.archive, open.clone()).await {
            attempt = next_attempt(attempt, error, manifest.key(), self.cancel).await?;
        }
        Ok(())
    }

    /// All partitions, some at a time; the first error stops the others and is returned when they have ended.
    async fn fetch_all<S: Sink>(
        &self,
        backup: &StoredBackup,
        extraction: &Arc<Extraction<S>>,
    ) -> Result<()> {
        let workers = self.workers.max(1);
        let token = self.cancel.child_token();
        let _cancel_when_dropped = token.clone().drop_guard();
        // The whole budget at most, of which the descriptions hold a part already: more would never be free.
        let (budget, described) = (self.archive.budget(), self.described);
        let wanted = WORKER_BYTES * workers as u64;
        let free = budget.total().saturating_sub(described);
        let _memory = tokio::select! {
            () = token.cancelled() => return Err(OpError::cancelled()),
            memory = budget.acquire(wanted.min(free)) => memory,
        };
        // A list, not an iterator: the compiler cannot see that a stream over this closure may move to another thread.
        let held = wanted.saturating_add(described);
        let work: Vec<_> = (0u32..)
            .zip(&backup.parts)
            .map(|(number, part)| self.fetch(number, part, held, extraction, &token))
            .collect();
        let mut results = stream::iter(work).buffer_unordered(workers);
        let mut outcome = Ok(());
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                token.cancel();
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    async fn fetch<S: Sink>(
        &self,
        number: u32,
        part: &StoredPart,
        held: u64,
        extraction: &Arc<Extraction<S>>,
        token: &CancellationToken,
    ) -> Result<()> {
        let key = Archive::key(&part.key)?;
        let partition = part.number.unwrap_or(number);
        let mut attempt = NonZeroU8::MIN;
        loop {
            if token.is_cancelled() {
                return Err(OpError::cancelled());
            }
            let carrier = Carrier { partition, attempt };
            let (extraction, stop) = (Arc::clone(extraction), token.clone());
            let consume = move |plain: &mut dyn Read| extraction.extract(carrier, plain, &stop);
            let decoded = self
                .archive
                .decode_partition(&key, part.codec, held, consume);
            match decoded.await {
                Ok(()) => return Ok(()),
                Err(error) => attempt = next_attempt(attempt, error, &key, token).await?,
            }
        }
    }
}

/// Waits for the next attempt at an object, where there is one after this error.
async fn next_attempt(
    attempt: NonZeroU8,
    error: OpError,
    key: &ObjectKey,
    token: &CancellationToken,
) -> Result<NonZeroU8> {
    if error.kind != Kind::StorageUnavailable || attempt >= ATTEMPTS_MAX {
        return Err(error);
    }
    tracing::warn!(%key, attempt, error = %error.chain(), "object is fetched again");
    let doublings = u32::from(attempt.get()) - 1;
    tokio::select! {
        () = token.cancelled() => Err(OpError::cancelled()),
        () = tokio::time::sleep(FIRST_PAUSE * 2u32.pow(doublings)) => Ok(attempt.saturating_add(1)),
    }
}
