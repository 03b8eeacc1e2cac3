//! All partitions of a backup, some at a time, and then the check that everything came.

use std::io::{self, Read, Write};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use wale_archive::Archive;
use wale_archive::member_list::NameQuestion;
use wale_archive::parts::StoredPart;
use wale_archive::proof::BACKUP_DAMAGED_MAX;
use wale_format::tar::TarEnd;
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::ObjectKey;

use super::check::{SomeFiles, WholeBackup, check, check_arrived, some_files};
use super::extract::Extraction;
use super::ledger::Carrier;
use super::manifest::Manifest;
use super::memory::WORKER_BYTES;
use super::ranges::{FrameRun, Ranges, divided, runs_of};
use super::sink::Sink;
use super::stored::{PartRules, StoredBackup};
use crate::error::{Kind, OpError, Result};
use crate::retry::{Attempts, RetryBudget};

/// Attempts at a part of a partition, at most: more than [`RetryBudget::OBJECT`] makes.
const RUN_ATTEMPTS_MAX: u8 = 20;

/// Stored bytes of a piece of a partition, at least: a request for each is nothing beside reading and decoding so much. (Tests
/// reach a lower one sooner.)
const PIECE_BYTES_MIN: u64 = if cfg!(test) { 1 << 20 } else { 8 << 20 };

/// Pieces for each worker, so that none is idle for long while another reads the last one.
const PIECES_PER_WORKER: u64 = 2;

/// What of the partitions is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartsRead {
    /// What is wanted, where the index says where it lies.
    Wanted,
    /// All, after what was wanted.
    Whole,
}

impl PartsRead {
    /// The first attempt at a whole partition: what came of it before came at an earlier one. Fewer are made before it: five at a piece, and
    /// five in each of nine archives at a whole.
    const fn first_attempt(self) -> NonZeroU8 {
        NonZeroU8::MIN.saturating_add(match self {
            Self::Wanted => RUN_ATTEMPTS_MAX,
            Self::Whole => 100,
        })
    }
}

/// Damage that a reading goes on behind, to find all of it. Memory: [`BACKUP_DAMAGED_MAX`] errors of some KiB.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<(Vec<(String, OpError)>, u64)>);

impl Damages {
    /// Takes note of an error at this object, where it tells of damage. Whether it does.
    fn add(&self, key: &str, error: &OpError) -> bool {
        if !matches!(error.kind, Kind::CorruptData | Kind::NotFound) {
            return false;
        }
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.1 += 1;
        if met.0.len() < BACKUP_DAMAGED_MAX {
            met.0.push((key.to_owned(), error.duplicate()));
        }
        true
    }

    /// The first of them with their objects, and how many there were.
    pub(crate) fn met(self) -> (Vec<(String, OpError)>, u64) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What reads backups.
pub(crate) struct BackupReader<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a CancellationToken,
    /// Partitions read at the same time.
    pub(crate) workers: usize,
    /// Bytes of the budget that the descriptions of all backups which are read hold.
    pub(crate) described: u64,
    /// Where damage is noted, and the other partitions are read all the same; none where the first damage ends it.
    pub(crate) damages: Option<&'a Damages>,
}

impl BackupReader<'_> {
    /// Reads a backup from its first partition to its last, gives its files to the sink, and checks that all came and are
    /// what was recorded.
    ///
    /// # Errors
    ///
    /// `CorruptData` for the first damage that is met, or for what is missing in the end;
    /// `Configuration` for what this version cannot read, or has no memory for; `Cancelled`; those of the
    /// sink, and of the store when it does not answer for the attempts of [`RetryBudget::OBJECT`].
    pub(crate) async fn read<S: Sink>(
        &self,
        backup: &StoredBackup,
        sink: &Arc<S>,
    ) -> Result<WholeBackup> {
        let extraction = Arc::new(Extraction::new(backup, sink, self.progress)?);
        self.fetch_wanted(backup, &extraction).await?;
        check(self.archive, backup, &extraction).await
    }

    /// Reads what a backup has of the files that are missing still, and checks that all came. Of a backup that others made `is_wanted`
    /// says which these are.
    ///
    /// # Errors
    ///
    /// As [`BackupReader::read`].
    pub(crate) async fn read_some<S: Sink>(
        &self,
        backup: &StoredBackup,
        is_wanted: NameQuestion,
        sink: &Arc<S>,
    ) -> Result<SomeFiles> {
        let extraction = Extraction::new(backup, sink, self.progress)?;
        let extraction = Arc::new(extraction.only(is_wanted));
        self.fetch_wanted(backup, &extraction).await?;
        some_files(self.archive, backup, &extraction).await
    }

    /// All partitions, or the parts of them that are wanted; and the rest where files are missing in the end.
    async fn fetch_wanted<S: Sink>(
        &self,
        backup: &StoredBackup,
        extraction: &Arc<Extraction<S>>,
    ) -> Result<()> {
        let divided = self.divide(backup).await;
        let runs = divided.as_ref().unwrap_or(&backup.ranges);
        self.fetch_all(backup, &backup.parts, runs, extraction)
            .await?;
        let is_partial = |part: &&StoredPart| runs_of(runs, part).is_some();
        let in_part = backup.parts.iter().filter(is_partial);
        let rest: Vec<StoredPart> = backup.spare.iter().chain(in_part).cloned().collect();
        if !rest.is_empty() && !self.cancel.is_cancelled() && backup.ledger.missing() > 0 {
            let name = &backup.name;
            tracing::warn!(backup = %name, "the list of the backup's files was wrong: the partitions that it made superfluous are read, too");
            self.fetch_all_of(backup, &rest, (PartsRead::Whole, runs), extraction)
                .await?;
        }
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        Ok(())
    }

    /// Divides the partitions where they are too few, or too large, for all workers to have work to the end. Only what a manifest
    /// describes file by file is read so.
    async fn divide(&self, backup: &StoredBackup) -> Option<Ranges> {
        if backup.manifest.is_none() || backup.is_read_in_part() || self.workers < 2 {
            return None;
        }
        let stored: u64 = backup.parts.iter().map(|part| part.size).sum();
        let piece_bytes = stored / (self.workers as u64 * PIECES_PER_WORKER);
        let piece_bytes = piece_bytes.max(PIECE_BYTES_MIN);
        if backup.parts.iter().all(|part| part.size <= piece_bytes) {
            return None;
        }
        divided(self.archive, &backup.name, &backup.parts, piece_bytes).await
    }

    /// Reads a backup on which others build: what they lack goes to the sink. Gives how many files and bytes came.
    ///
    /// # Errors
    ///
    /// As [`BackupReader::read`].
    pub(crate) async fn read_base<S: Sink>(
        &self,
        backup: &StoredBackup,
        sink: &Arc<S>,
    ) -> Result<(u64, u64)> {
        let extraction = Arc::new(Extraction::new(backup, sink, self.progress)?);
        self.fetch_all(backup, &backup.parts, &Ranges::new(), &extraction)
            .await?;
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        check_arrived(self.archive, backup).await?;
        Ok(extraction.counts())
    }

    /// Copies the manifest of a backup, as it was read first, into a file that `open` makes, anew for each attempt and each archive.
    ///
    /// # Errors
    ///
    /// `CorruptData` when it is another one by now; those of the file, and of the store.
    pub(crate) async fn copy_manifest<W, F>(&self, manifest: &Manifest, open: F) -> Result<()>
    where
        W: Write,
        F: Fn() -> Result<W> + Clone + Send + 'static,
    {
        let mut failed = match self.copy_from(self.archive, manifest, &open).await {
            Err(error) if error.kind == Kind::CorruptData => error,
            copied => return copied,
        };
        for copy in self.archive.copies() {
            match self.copy_from(&copy, manifest, &open).await {
                Err(error) if error.kind != Kind::Cancelled => failed = worse(failed, error),
                copied => return copied,
            }
        }
        Err(failed)
    }

    async fn copy_from<W, F>(&self, archive: &Archive, manifest: &Manifest, open: &F) -> Result<()>
    where
        W: Write,
        F: Fn() -> Result<W> + Clone + Send + 'static,
    {
        let mut attempts = RetryBudget::OBJECT.begin();
        while let Err(error) = manifest.copy(archive, open.clone()).await {
            wait_after(&mut attempts, error, manifest.key(), self.cancel).await?;
        }
        Ok(())
    }

    /// These partitions, some at a time; the first error is returned when they have ended, and stops the others, unless all damage is
    /// wanted.
    async fn fetch_all<S: Sink>(
        &self,
        backup: &StoredBackup,
        parts: &[StoredPart],
        runs: &Ranges,
        extraction: &Arc<Extraction<S>>,
    ) -> Result<()> {
        self.fetch_all_of(backup, parts, (PartsRead::Wanted, runs), extraction)
            .await
    }

    async fn fetch_all_of<S: Sink>(
        &self,
        backup: &StoredBackup,
        parts: &[StoredPart],
        (reading, runs): (PartsRead, &Ranges),
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
        // Pieces of several partitions may wait together; so many are read at a time.
        let lanes = Semaphore::new(workers);
        let work: Vec<_> = (0u32..)
            .zip(parts)
            .map(|(number, part)| {
                let rules = backup.rules_of(part);
                let wanted = (number, part, rules);
                let (token, lanes) = (&token, &lanes);
                async move {
                    let runs = runs_of(runs, part).filter(|_| reading == PartsRead::Wanted);
                    if let Some(runs) = runs
                        && self
                            .fetch_runs((runs, lanes), wanted, held, extraction, token)
                            .await
                    {
                        return (&part.key, Ok(()));
                    }
                    let _lane = lanes.acquire().await;
                    let whole = (backup, reading);
                    let fetched = self.fetch_whole(whole, wanted, held, extraction, token);
                    (&part.key, fetched.await)
                }
            })
            .collect();
        let mut results = stream::iter(work).buffer_unordered(workers);
        let mut damage = Ok(());
        let mut ended = Ok(());
        while let Some(result) = results.next().await {
            let (key, Err(error)) = result else {
                continue;
            };
            if self.damages.is_some_and(|damages| damages.add(key, &error)) {
                damage = damage.and(Err(error));
            } else {
                token.cancel();
                ended = ended.and(Err(error));
            }
        }
        // What ended the reading comes first: behind it there may be more damage.
        ended.and(damage)
    }

    /// Parts of a partition, as many at a time as there are lanes. Whether they came; if not, the whole shows what is wrong with it.
    async fn fetch_runs<S: Sink>(
        &self,
        (runs, lanes): (&[FrameRun], &Semaphore),
        wanted: (u32, &StoredPart, PartRules),
        held: u64,
        extraction: &Arc<Extraction<S>>,
        token: &CancellationToken,
    ) -> bool {
        let all = runs.iter().map(|run| async move {
            let _lane = lanes.acquire().await;
            self.fetch_run(run, wanted, held, extraction, token).await
        });
        let came = join_all(all).await;
        came.into_iter().all(|came| came)
    }

    async fn fetch_run<S: Sink>(
        &self,
        run: &FrameRun,
        (number, part, rules): (u32, &StoredPart, PartRules),
        held: u64,
        extraction: &Arc<Extraction<S>>,
        token: &CancellationToken,
    ) -> bool {
        let Ok(key) = Archive::key(&part.key) else {
            return false;
        };
        let mut carrier = Carrier {
            partition: part.number.unwrap_or(number),
            attempt: NonZeroU8::MIN,
        };
        // A run ends with a member, not with the tar; what the ledger lacks then is looked for.
        let rules = PartRules {
            end: TarEnd::Bare,
            ..rules
        };
        let mut attempts = RetryBudget::OBJECT.begin();
        while !token.is_cancelled() {
            let (extraction, stop) = (Arc::clone(extraction), token.clone());
            let (skip, bytes) = (run.skip, run.bytes);
            let consume = move |plain: &mut dyn Read| {
                io::copy(&mut (&mut *plain).take(skip), &mut io::sink())?;
                let mut members = plain.take(bytes);
                extraction.extract(carrier, (&mut members, rules), &stop)
            };
            let decoded = self
                .archive
                .decode_frames(&key, run.stored.clone(), held, consume);
            let Err(error) = decoded.await else {
                return true;
            };
            if let Err(error) = wait_after(&mut attempts, error, &key, token).await {
                tracing::warn!(%key, error = %error.chain(), "the whole partition is read, for a part of it cannot be");
                return false;
            }
            carrier.attempt = carrier.attempt.saturating_add(1);
        }
        false
    }

    /// A partition; one that is damaged from another one of the archives that are read as one, where the manifest says of each file
    /// what it must be. What the damaged one brought whole stays.
    async fn fetch_whole<S: Sink>(
        &self,
        (backup, reading): (&StoredBackup, PartsRead),
        wanted: (u32, &StoredPart, PartRules),
        held: u64,
        extraction: &Arc<Extraction<S>>,
        token: &CancellationToken,
    ) -> Result<()> {
        let mut attempt = reading.first_attempt();
        let fetched = self.fetch(
            self.archive,
            wanted,
            held,
            (extraction, &mut attempt),
            token,
        );
        let mut failed = match fetched.await {
            Err(error) if error.kind == Kind::CorruptData && backup.manifest.is_some() => error,
            fetched => return fetched,
        };
        let key = &wanted.1.key;
        for copy in self.archive.copies() {
            attempt = attempt.saturating_add(1);
            let fetched = self.fetch(&copy, wanted, held, (extraction, &mut attempt), token);
            let location = copy.location();
            match fetched.await {
                Ok(()) => {
                    tracing::warn!(
                        key, location, error = %failed.chain(),
                        "a damaged object was taken whole from another archive; wale verify shows what is damaged in each"
                    );
                    return Ok(());
                }
                Err(error) if error.kind == Kind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::warn!(key, location, error = %error.chain(), "the object cannot be taken from this archive");
                    failed = worse(failed, error);
                }
            }
        }
        Err(failed)
    }

    /// A partition of one archive. `attempt` is the first one, and becomes the last.
    async fn fetch<S: Sink>(
        &self,
        archive: &Archive,
        (number, part, rules): (u32, &StoredPart, PartRules),
        held: u64,
        (extraction, attempt): (&Arc<Extraction<S>>, &mut NonZeroU8),
        token: &CancellationToken,
    ) -> Result<()> {
        let key = Archive::key(&part.key)?;
        let partition = part.number.unwrap_or(number);
        let mut attempts = RetryBudget::OBJECT.begin();
        loop {
            if token.is_cancelled() {
                return Err(OpError::cancelled());
            }
            let carrier = Carrier {
                partition,
                attempt: *attempt,
            };
            let (extraction, stop) = (Arc::clone(extraction), token.clone());
            let consume =
                move |plain: &mut dyn Read| extraction.extract(carrier, (plain, rules), &stop);
            let form = (part.codec, rules.frames);
            let decoded = archive.decode_partition(&key, form, held, consume);
            match decoded.await {
                Ok(()) => return Ok(()),
                Err(error) => wait_after(&mut attempts, error, &key, token).await?,
            }
            *attempt = attempt.saturating_add(1);
        }
    }
}

/// What two archives come to that both failed: damage, unless one of them only did not answer and may be whole.
fn worse(first: OpError, next: OpError) -> OpError {
    let is_damage = |error: &OpError| matches!(error.kind, Kind::CorruptData | Kind::NotFound);
    if is_damage(&first) && !is_damage(&next) {
        let told = format!("In another archive it is damaged: {}", first.chain());
        let detail = match &next.detail {
            Some(detail) => format!("{detail} {told}"),
            None => told,
        };
        return next.detail(detail);
    }
    first
}

/// Waits for the next attempt at an object, where there is one after this error.
async fn wait_after(
    attempts: &mut Attempts,
    error: OpError,
    key: &ObjectKey,
    token: &CancellationToken,
) -> Result<()> {
    let again = attempts.after(error)?;
    tracing::warn!(
        %key, attempt = again.failed, error = %again.error.chain(), "object is fetched again"
    );
    again.wait_unless(token).await
}
