//! Reading WAL: every object to its last byte, and several that hold one segment against each other.

use std::pin::Pin;

use chrono::{DateTime, Utc};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use wale_archive::proof::{DAMAGED_MAX, Damage, Proven, WalProof};
use wale_archive::{Archive, StoredWal};
use wale_format::layout;
use wale_pg::{ArchiveFileName, SystemIdentifier, WalSegmentName};
use wale_pipeline::{CancellationToken, Progress};

use super::plan::{Quota, ReadAt};
use super::report::FINDINGS_MAX;
use super::stock::{Grouping, Listed, SegmentGroup};
use crate::backup_content::WORKER_BYTES;
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;
use crate::wal_content::{Decoded, decoded};

/// Segments between two notes of what was proven. At 16 MiB a second that is four minutes at most, which a restart
/// reads again.
const NOTE_EVERY: u64 = 256;

/// What was found out about a file of WAL.
#[derive(Debug)]
struct FileRead {
    name: ArchiveFileName,
    /// The keys of its objects.
    objects: Vec<String>,
    bytes: u64,
    damages: Vec<Damage>,
    /// Whether a fetch gets it.
    can_be_had: bool,
    /// When it was found good before.
    proven: ReadAt,
    /// Why one of its objects cannot be read here.
    locked: Option<OpError>,
    /// Whether all of its objects were deleted meanwhile.
    is_gone: bool,
}

/// A segment that no recovery gets.
#[derive(Debug)]
pub(super) struct BadSegment {
    pub(super) segment: WalSegmentName,
    pub(super) damage: Damage,
}

/// What reading the WAL found.
#[derive(Debug, Default)]
pub(super) struct WalFound {
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    pub(super) others_read: u64,
    /// Damaged segments that cannot be had.
    pub(super) bad: Vec<BadSegment>,
    /// Damaged objects that no recovery needs, or that another one stands in for.
    pub(super) harmless: Vec<(ArchiveFileName, Damage)>,
    pub(super) damaged_count: u64,
    /// Damaged objects for which the record has no room.
    unnamed: u64,
    pub(super) unreadable: u64,
    pub(super) unreadable_because: Option<OpError>,
    /// Segments that were there in the beginning and are not any more.
    pub(super) vanished: u64,
    /// Why what was proven could not be remembered.
    pub(super) not_remembered: Option<String>,
}

/// What reads the WAL of one verification.
pub(super) struct WalReader<'a> {
    pub(super) archive: &'a Archive,
    pub(super) owner: Option<SystemIdentifier>,
    pub(super) began: DateTime<Utc>,
    pub(super) workers: usize,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    pub(super) quota: Quota,
    /// What was known before.
    pub(super) known: WalProof,
    /// What the archive's record said when this one read or stored it last.
    pub(super) seen: WalProof,
    /// What is known now. In the beginning it says as damaged what the last reading found so, and what is still there.
    pub(super) proof: WalProof,
    /// What is known of segments that are there: in the end, what is known at all.
    pub(super) there: Proven,
    /// Of these what was tried and not found good.
    pub(super) tried_there: Proven,
    pub(super) found: WalFound,
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<FileRead>> + Send + 'a>>;

impl WalReader<'_> {
    /// Reads what is due, and remembers what is proven on the way and at the end, however it ends.
    ///
    /// # Errors
    /// The store's failures, once it does not answer for long; [`Kind::Cancelled`].
    pub(super) async fn run(&mut self) -> Result<()> {
        let read = self.read_all().await;
        self.note().await;
        read
    }

    async fn read_all(&mut self) -> Result<()> {
        let at_once = (self.archive.budget().total() / WORKER_BYTES).max(1);
        let workers = self.workers.max(1);
        let workers = workers.min(usize::try_from(at_once).unwrap_or(usize::MAX));
        let prefix = layout::WAL_PREFIX;
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = self.archive.store().list(prefix).await.map_err(failed)?;
        let mut grouping = Grouping::default();
        let mut running: FuturesUnordered<Reading<'_>> = FuturesUnordered::new();
        let archive = self.archive.clone();
        let mut unnoted = 0;
        let mut is_over = false;
        while !is_over {
            let next = self
                .cancellable(listing.try_next())
                .await?
                .map_err(failed)?;
            let listed = if let Some(meta) = next {
                grouping.add(meta)
            } else {
                is_over = true;
                grouping.end()
            };
            if let Some(listed) = listed
                && let Some(reading) = self.begin(&archive, listed)
            {
                while running.len() >= workers {
                    let ended = self.cancellable(running.next()).await?;
                    unnoted += 1;
                    self.settle(ended.transpose()?);
                }
                running.push(reading);
            }
            if unnoted >= NOTE_EVERY {
                unnoted = 0;
                self.note().await;
            }
        }
        while let Some(ended) = self.cancellable(running.next()).await? {
            self.settle(Some(ended?));
        }
        // Of what retention took away nothing is said any more.
        self.proof.proven.clone_from(&self.there);
        self.proof.tried.clone_from(&self.tried_there);
        Ok(())
    }

    async fn cancellable<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let done = self.cancel.run_until_cancelled(work).await;
        done.ok_or_else(OpError::cancelled)
    }

    /// The reading of what was listed, where it is its turn.
    fn begin<'r>(&mut self, archive: &Archive, listed: Listed) -> Option<Reading<'r>> {
        let (name, copies, unknown, proven) = match listed {
            Listed::Segment(group) => {
                let proven = group.proven(&self.known);
                if !self.quota.takes(group.turn(&self.known), group.bytes()) {
                    if let Some(at) = proven {
                        self.there.add(group.segment, at);
                    }
                    if let Some(at) = self.known.tried.at(group.segment) {
                        self.tried_there.add(group.segment, at);
                    }
                    return None;
                }
                let SegmentGroup {
                    segment,
                    copies,
                    unknown,
                } = group;
                (ArchiveFileName::Segment(segment), copies, unknown, proven)
            }
            Listed::Other(stored) => (stored.name, vec![stored], None, None),
        };
        let archive = archive.clone();
        Some(Box::pin(async move {
            // Of one file alone: what waits for memory has its turn between two of them.
            let _memory = archive.budget().acquire(WORKER_BYTES).await;
            let read = read_file(&archive, name, &copies, unknown).await?;
            Ok(FileRead { proven, ..read })
        }))
    }

    fn settle(&mut self, ended: Option<FileRead>) {
        let Some(read) = ended else { return };
        let found = &mut self.found;
        let segment = match read.name {
            ArchiveFileName::Segment(segment) => Some(segment),
            _ => None,
        };
        if segment.is_some() {
            found.read += 1;
            found.read_bytes += read.bytes;
        } else {
            found.others_read += 1;
        }
        for object in &read.objects {
            self.proof.damaged.retain(|damage| damage.object != *object);
        }
        self.progress.add(read.bytes);
        self.progress.add_files(1);
        if read.is_gone {
            found.vanished += 1;
        }
        // What another host proved stays proven where this one cannot read.
        let mut proven = None;
        if let Some(locked) = read.locked {
            found.unreadable += 1;
            found.unreadable_because.get_or_insert(locked);
            self.quota.give_back(read.bytes);
            proven = read.proven.filter(|_| read.damages.is_empty());
        }
        let is_good = read.damages.is_empty() && read.can_be_had;
        found.damaged_count += read.damages.len() as u64;
        for damage in read.damages {
            if self.proof.damaged.len() < DAMAGED_MAX {
                self.proof.damaged.push(damage.clone());
            } else {
                found.unnamed += 1;
            }
            match segment {
                _ if found.bad.len() + found.harmless.len() >= FINDINGS_MAX => {}
                Some(segment) if !read.can_be_had => {
                    found.bad.push(BadSegment { segment, damage });
                }
                _ => found.harmless.push((read.name, damage)),
            }
        }
        self.proof.damaged_count = self.proof.damaged.len() as u64 + found.unnamed;
        if let Some(segment) = segment {
            self.proof.tried.forget(segment);
            if is_good {
                proven = Some(self.began);
            } else if !read.is_gone {
                self.proof.tried.add(segment, self.began);
                self.tried_there.add(segment, self.began);
            }
            match proven {
                Some(at) => {
                    self.proof.proven.add(segment, at);
                    self.there.add(segment, at);
                }
                None => self.proof.proven.forget(segment),
            }
        }
    }

    /// Remembers these segments as missing.
    pub(super) async fn note_missing(&mut self, missing: Vec<Damage>) {
        let known = &mut self.proof.damaged;
        let is_new = |one: &Damage| known.iter().all(|known| known.object != one.object);
        let new: Vec<Damage> = missing.into_iter().filter(is_new).collect();
        self.proof.damaged_count += new.len() as u64;
        let room = DAMAGED_MAX.saturating_sub(known.len());
        known.extend(new.into_iter().take(room));
        self.note().await;
    }

    /// Remembers what is known. Where that cannot be stored, it is said, and not tried again.
    async fn note(&mut self) {
        if self.found.not_remembered.is_some() {
            return;
        }
        self.proof.at = Some(self.began);
        let noted = self
            .archive
            .note_wal(&mut self.proof, &self.seen, self.owner);
        match noted.await {
            Ok(theirs) => {
                if let Some(theirs) = theirs {
                    self.there.take_over(&theirs.proven, &self.seen.proven);
                    self.tried_there.take_over(&theirs.tried, &self.seen.tried);
                }
                self.seen.clone_from(&self.proof);
            }
            Err(error) => self.found.not_remembered = Some(error.chain()),
        }
    }
}

/// Reads every object that holds a file.
async fn read_file(
    archive: &Archive,
    name: ArchiveFileName,
    copies: &[StoredWal],
    unknown: Option<String>,
) -> Result<FileRead> {
    let mut read = FileRead {
        name,
        objects: copies.iter().map(|copy| copy.key.to_string()).collect(),
        bytes: copies.iter().map(|copy| copy.size).sum(),
        damages: Vec::new(),
        can_be_had: false,
        proven: None,
        locked: unknown.as_deref().map(of_unknown),
        is_gone: !copies.is_empty(),
    };
    let mut sound: Option<(&StoredWal, Decoded)> = None;
    let mut is_disputed = false;
    for copy in copies {
        let outcome = RetryBudget::OBJECT.run(|| decoded(archive, copy)).await;
        read.is_gone &= matches!(&outcome, Err(error) if error.kind == Kind::NotFound);
        match (outcome, sound) {
            (Ok(content), Some((other, before))) if content != before => {
                is_disputed = true;
                read.damages.push(Damage {
                    object: copy.key.to_string(),
                    found: format!("holds other bytes than {}", other.key),
                    missing: false,
                });
            }
            (Ok(content), _) => sound = Some((copy, content)),
            (Err(error), _) => match error.kind {
                Kind::CorruptData => read.damages.push(Damage {
                    object: copy.key.to_string(),
                    found: told(&error),
                    missing: false,
                }),
                Kind::Configuration => drop(read.locked.get_or_insert(error)),
                Kind::NotFound => {}
                _ => return Err(error),
            },
        }
    }
    read.can_be_had = sound.is_some() && !is_disputed;
    Ok(read)
}

fn told(error: &OpError) -> String {
    match &error.detail {
        Some(detail) => format!("{} ({})", error.chain(), detail.trim_end_matches('.')),
        None => error.chain(),
    }
}

fn of_unknown(key: &str) -> OpError {
    let message = format!("object {key} has an extension that this version does not know");
    OpError::new(Kind::Configuration, message).hint("use the tool that wrote it, or a newer wale")
}
