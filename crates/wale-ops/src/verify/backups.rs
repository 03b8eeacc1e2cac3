//! Reading backups: each as a restore reads it, into nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wale_archive::proof::{BackupFound, BackupProof, Damage};
use wale_archive::{Archive, BackupEntry};
use wale_format::layout;
use wale_pipeline::{CancellationToken, Progress};

use super::stock::Stock;
use crate::backup_content::{BackupReader, Damages, Nowhere, StoredBackup};
use crate::error::{Kind, OpError, Result};

/// What reading a backup came to.
#[derive(Debug)]
pub(super) enum BackupOutcome {
    /// Every file came, as it was recorded.
    Good,
    /// Some of what is damaged, and how much is.
    Damaged(Vec<Damage>, u64),
    /// No key here opens it, or this version or its memory cannot read it.
    Unreadable(OpError),
    /// It was deleted meanwhile.
    Gone,
}

/// What reads the backups of one verification.
pub(super) struct BackupProver<'a> {
    pub(super) archive: &'a Archive,
    pub(super) stock: &'a Stock,
    pub(super) began: DateTime<Utc>,
    pub(super) workers: usize,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    /// Those that were proven, now or before: what builds on them need not read them again.
    pub(super) proven: BTreeSet<usize>,
    /// Why what was found could not be remembered.
    pub(super) not_remembered: Option<String>,
    /// The damaged ones, what was remembered of them, and when.
    pub(super) damaged: Vec<(usize, BackupFound, DateTime<Utc>)>,
}

impl BackupProver<'_> {
    /// Reads the backup at this place of the catalog, and remembers what was found.
    ///
    /// # Errors
    /// The store's failures, once it does not answer for long; [`Kind::Cancelled`].
    pub(super) async fn read(&mut self, index: usize) -> Result<BackupOutcome> {
        let entry = &self.stock.catalog.backups[index];
        tracing::debug!(backup = %entry.name, "reading the backup to verify it");
        let mut found = BackupFound {
            stored_bytes: self.stock.bytes[index],
            newest: self.stock.newest_objects[index],
            ..BackupFound::default()
        };
        let met = Damages::default();
        // What others noted until now, this reading has seen: what it finds good was mended.
        let seen = self.noted(index).await;
        let outcome = match self.read_content(entry, &met).await {
            Ok((files, bytes)) => {
                (found.files, found.bytes) = (files, bytes);
                BackupOutcome::Good
            }
            Err(error) => self.judge(entry, error, met.met()).await?,
        };
        match &outcome {
            BackupOutcome::Good => drop(self.proven.insert(index)),
            BackupOutcome::Damaged(damaged, count) => {
                self.proven.remove(&index);
                found.damaged.clone_from(damaged);
                found.damaged_count = *count;
            }
            BackupOutcome::Unreadable(_) => {
                if self.not_remembered.is_none()
                    && let Err(error) = self.archive.note_attempt(entry, self.began).await
                {
                    self.not_remembered = Some(error.chain());
                }
                return Ok(outcome);
            }
            BackupOutcome::Gone => return Ok(outcome),
        }
        self.remember(index, found, seen.as_ref()).await;
        Ok(outcome)
    }

    /// What is noted of a backup now; where that does not come, as it was in the beginning.
    async fn noted(&self, index: usize) -> Option<BackupProof> {
        let entry = &self.stock.catalog.backups[index];
        match self
            .archive
            .backup_proofs(std::slice::from_ref(entry))
            .await
        {
            Ok(noted) => noted.into_iter().find_map(|(_, proof)| proof),
            Err(_) => self.stock.proofs[index].clone(),
        }
    }

    /// Remembers that a backup is damaged by its names and sizes: there is nothing to be read.
    pub(super) async fn note_damage(&mut self, index: usize, damage: Damage) {
        self.proven.remove(&index);
        let found = BackupFound {
            stored_bytes: self.stock.bytes[index],
            damaged: vec![damage],
            damaged_count: 1,
            ..BackupFound::default()
        };
        let seen = self.stock.proofs[index].as_ref();
        self.remember(index, found, seen).await;
    }

    /// Where it cannot be stored, that is said, and not tried again.
    async fn remember(&mut self, index: usize, found: BackupFound, seen: Option<&BackupProof>) {
        if self.not_remembered.is_some() {
            return;
        }
        let entry = &self.stock.catalog.backups[index];
        let kept = (!found.damaged.is_empty()).then(|| found.clone());
        let noted = self.archive.note_backup(entry, self.began, found, seen);
        if let Err(error) = noted.await {
            self.not_remembered = Some(error.chain());
        }
        let now = self.archive.clock().now();
        self.damaged.extend(kept.map(|found| (index, found, now)));
    }

    /// Reads everything that only this backup has. Gives the files and bytes that came.
    async fn read_content(&self, entry: &BackupEntry, damages: &Damages) -> Result<(u64, u64)> {
        let parents = self.archive.parents(&self.stock.catalog, entry).await?;
        let chain = if parents.is_empty() {
            vec![StoredBackup::load(self.archive, entry).await?]
        } else {
            StoredBackup::load_chain(self.archive, entry, &parents).await?
        };
        let reader = BackupReader {
            archive: self.archive,
            progress: self.progress,
            cancel: self.cancel,
            workers: self.workers,
            described: chain.iter().map(StoredBackup::held_bytes).sum(),
            damages: Some(damages),
        };
        let nowhere = Arc::new(Nowhere);
        let Some((read, before)) = chain.split_first() else {
            return Err(OpError::internal("a chain has a backup"));
        };
        for base in before.iter().rev() {
            if !self.is_proven(base) {
                reader.read_base(base, &nowhere).await?;
            }
        }
        let whole = reader.read(read, &nowhere).await?;
        read.configuration(self.archive).await?;
        Ok((whole.files, whole.bytes))
    }

    fn is_proven(&self, backup: &StoredBackup) -> bool {
        let all = &self.stock.catalog.backups;
        let index = all.iter().position(|entry| entry.name == backup.name);
        index.is_some_and(|index| self.proven.contains(&index))
    }

    /// What an error says about the backup; those of the store say nothing.
    async fn judge(
        &self,
        entry: &BackupEntry,
        error: OpError,
        (met, count): (Vec<(String, OpError)>, u64),
    ) -> Result<BackupOutcome> {
        let is_of_backup = matches!(
            error.kind,
            Kind::CorruptData | Kind::Configuration | Kind::NotFound
        );
        if !is_of_backup {
            return Err(error);
        }
        if is_gone(self.archive, entry).await? {
            return Ok(BackupOutcome::Gone);
        }
        if error.kind == Kind::Configuration {
            return Ok(BackupOutcome::Unreadable(error));
        }
        let mut damaged: Vec<Damage> = Vec::new();
        let prefix = layout::backup_folder(&entry.name);
        for (key, error) in &met {
            let mut damage = damage_of(entry, error);
            // Of a backup that it builds on the error says it.
            if key.starts_with(&prefix) {
                damage.object.clone_from(key);
            }
            if !damaged.contains(&damage) {
                damaged.push(damage);
            }
        }
        if damaged.is_empty() {
            damaged.push(damage_of(entry, &error));
        }
        let count = count.max(damaged.len() as u64);
        Ok(BackupOutcome::Damaged(damaged, count))
    }
}

/// The damage that an error tells of.
fn damage_of(entry: &BackupEntry, error: &OpError) -> Damage {
    let chain = error.chain();
    let prefix = layout::backup_folder(&entry.name);
    let object = chain
        .split(|letter: char| letter.is_whitespace() || letter == ':' || letter == ',')
        .find(|word| word.starts_with(&prefix));
    let found = match &error.detail {
        Some(detail) => format!("{chain} ({})", detail.trim_end_matches('.')),
        None => chain.clone(),
    };
    Damage {
        object: object.map_or_else(|| entry.name.to_string(), str::to_owned),
        found,
        missing: error.kind == Kind::NotFound,
    }
}

/// Whether the backup was deleted, or its deletion has begun.
///
/// # Errors
/// The store's failures.
pub(super) async fn is_gone(archive: &Archive, entry: &BackupEntry) -> Result<bool> {
    for (key, gone_if_there) in [
        (layout::sentinel(&entry.name), false),
        (layout::deletion(&entry.name), true),
    ] {
        let key = Archive::key(&key)?;
        let head = archive.store().head(&key).await;
        let head = head.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        if head.is_some() == gone_if_there {
            return Ok(true);
        }
    }
    Ok(false)
}
