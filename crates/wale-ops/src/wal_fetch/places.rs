//! The archives that a file can come from: the first, and further ones that follow it.
//!
//! The first is asked, and what it cannot give is taken from the next that has it: a file that it lacks, one that is damaged
//! there, and every file while it does not answer. What comes from another one is verified just as well. An archive that did
//! not answer rests for a while: then the others are asked before it, so that a recovery does not wait for it each time.
//!
//! A file that is known to have other bytes there than in the first is not taken ([`Disputed`]), unless the first's are damaged.
//! Nor is anything taken while it is not certain that the archive is this cluster's: the server's own `pg_control` says it, or the
//! first archive, now or before.
//!
//! Absence is the first's to prove, because every acknowledged file was stored there. Each further one must answer and agree: it may have
//! been used alone for a while, and have what the first never got.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wale_archive::{Archive, Disputed, Remedy, foreign_cluster};
use wale_format::ArchiveIdentity;
use wale_pg::{ArchiveFileName, SystemIdentifier};

use super::absent::{Asker, present, refuse_gap, refuse_lost_history};
use super::report::FetchedWal;
use super::run::{AheadInto, fetch_ahead, fetch_found};
use crate::error::{Kind, OpError, Result};

/// How long an archive that did not answer is asked after the others, 30 s.
const REST: Duration = Duration::from_secs(30);

/// How long a further archive may take to say what it has, 5 s: it is asked while a server waits.
const LOOK: Duration = Duration::from_secs(5);

/// How long the first archive may take to say whose it is, where nobody else says it, 2 s: the rest of [`LOOK`] is the other's.
const ASK: Duration = Duration::from_secs(2);

/// How long the note of what is disputed counts after it was read, 30 s: it changes only while the first archive answers.
const NOTE_HOLDS: Duration = Duration::from_secs(30);

/// The archives.
#[derive(Debug)]
pub(super) struct Places {
    first: FetchPlace,
    others: Vec<FetchPlace>,
}

#[derive(Debug)]
struct FetchPlace {
    number: u8,
    archive: Archive,
    /// Whether it is known to be of the cluster that asks.
    is_ours: AtomicBool,
    /// The cluster that asks, where that is known.
    asked_for: Mutex<Option<SystemIdentifier>>,
    /// When it did not answer last.
    silent: Mutex<Option<Instant>>,
    /// Whether the log says that files come from it.
    is_told: Mutex<bool>,
    /// What of it differs from the first, and when that was read.
    disputed: Mutex<Option<(Disputed, Instant)>>,
    /// When it was asked last whose it is, only to know it later.
    owner_asked: Mutex<Option<Instant>>,
}

impl FetchPlace {
    fn new(number: u8, archive: Archive) -> Self {
        Self {
            number,
            archive,
            is_ours: AtomicBool::new(false),
            asked_for: Mutex::default(),
            silent: Mutex::default(),
            is_told: Mutex::default(),
            disputed: Mutex::default(),
            owner_asked: Mutex::default(),
        }
    }

    fn rests(&self) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|since| since.elapsed() < REST)
    }

    fn note(&self, error: Option<&OpError>) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        *silent = error
            .filter(|error| is_outage(error))
            .map(|_| Instant::now());
    }

    /// Says once that files come from here, and again when the first gave one in between.
    fn tell(&self, comes: bool, name: &ArchiveFileName, why: Option<&OpError>) {
        let mut is_told = self.is_told.lock().unwrap_or_else(PoisonError::into_inner);
        let was_told = std::mem::replace(&mut *is_told, comes);
        drop(is_told);
        if comes && !was_told {
            tracing::warn!(
                %name,
                archive = self.number,
                location = self.archive.location(),
                "WAL is taken from archive {}, since the first cannot give it: {}",
                self.number,
                why.map_or_else(|| "it did not answer a moment ago".to_owned(), OpError::chain)
            );
        }
    }

    /// The cluster that this archive serves, as far as it says so now or has said so before.
    async fn owner(&self) -> Option<SystemIdentifier> {
        let said = tokio::time::timeout(ASK, self.archive.identity()).await;
        let identity = said.ok()?.ok()??;
        Some(identity.cluster.system_identifier)
    }

    /// Asks whose it is, so that it is known when it is away. Once in a while: where it cannot say it, each file would wait for it.
    async fn learn_owner(&self) {
        {
            let asked = self.owner_asked.lock();
            let mut asked = asked.unwrap_or_else(PoisonError::into_inner);
            if asked.is_some_and(|at| at.elapsed() < REST) {
                return;
            }
            *asked = Some(Instant::now());
        }
        self.owner().await;
    }

    /// Refuses to give files while it is not certain whose they are: the names are the same in every cluster's archive.
    async fn refuse_unknown(&self, first: &Self) -> Result<()> {
        self.refuse_stranger(first).await?;
        if self.is_ours.load(Ordering::Relaxed) {
            return Ok(());
        }
        let number = self.number;
        let (why, hint) = if self.archive.identity().await?.is_none() {
            (
                "it has no wale.json, which says whose it is",
                "let a sidecar bring it up to date, or use it alone",
            )
        } else {
            (
                "the first archive does not say whose it is, and no data directory is there to tell",
                "bring the first archive back; or, where this one is known to be the cluster's, use it alone",
            )
        };
        let message = format!("nothing is taken from archive {number}: {why}");
        Err(OpError::new(Kind::ArchiveConflict, message).hint(hint))
    }

    /// Refuses an archive of another cluster, whose files have the same names, as far as it is known. Asked once: an archive's owner
    /// does not change.
    async fn refuse_stranger(&self, first: &Self) -> Result<()> {
        if self.is_ours.load(Ordering::Relaxed) {
            return Ok(());
        }
        let own = *self
            .asked_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let own = if own.is_some() {
            own
        } else {
            first.owner().await
        };
        let its = self.archive.identity().await?;
        let (Some(own), Some(its)) = (own, its) else {
            return Ok(());
        };
        let its = its.cluster.system_identifier;
        if its != own {
            return Err(
                foreign_cluster(its, own, &self.archive.location()).hint(format!(
                    "correct where archive {} is, or take its settings away",
                    self.number
                )),
            );
        }
        self.is_ours.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses a file that is known to differ from what the first archive has acknowledged.
    async fn refuse_disputed(&self, name: &ArchiveFileName) -> Result<()> {
        let known = self
            .disputed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let known = known.filter(|(_, at)| at.elapsed() < NOTE_HOLDS);
        let note = if let Some((note, _)) = known {
            note
        } else {
            let note = self.archive.disputed().await?.unwrap_or_default();
            let read = Some((note.clone(), Instant::now()));
            *self.disputed.lock().unwrap_or_else(PoisonError::into_inner) = read;
            note
        };
        let Some(why) = note.of_wal(name) else {
            return Ok(());
        };
        let message = format!("{name} is not taken from archive {}: it {why}", self.number);
        Err(OpError::new(Kind::ArchiveConflict, message)
            .hint("bring the first archive back; to recover from this one as it is, use it alone"))
    }

    /// That a file is here; where it must not be given all the same, why not: to ask again would not help.
    async fn or_why_not(&self, present: OpError, name: &ArchiveFileName, first: &Self) -> OpError {
        let asked = async {
            self.refuse_unknown(first).await?;
            self.refuse_disputed(name).await
        };
        match asked.await {
            Err(why) if is_refusal(&why) => {
                let held = present.detail.clone().unwrap_or_default();
                let hint = why.hint.unwrap_or_default();
                let detail = format!("{held} But {}.", why.message);
                present.detail(detail.trim_start()).hint(hint)
            }
            _ => present,
        }
    }

    async fn fetch(
        &self,
        name: &ArchiveFileName,
        first: &Self,
        why: Option<&OpError>,
    ) -> Result<FetchedWal> {
        let fetched = async {
            match tokio::time::timeout(LOOK, self.refuse_unknown(first)).await {
                Ok(asked) => asked?,
                Err(_) => return Err(silent(&self.archive)),
            }
            // What differs from bytes that are damaged may well be right.
            if why.is_none_or(|why| why.kind != Kind::CorruptData) {
                match tokio::time::timeout(LOOK, self.refuse_disputed(name)).await {
                    Ok(agreed) => agreed?,
                    Err(_) => return Err(silent(&self.archive)),
                }
            }
            let look = self.archive.find_wal_copies(name);
            let copies = match tokio::time::timeout(LOOK, look).await {
                Ok(copies) => copies?,
                Err(_) => return Err(silent(&self.archive)),
            };
            fetch_found(&self.archive, name, &copies, None).await
        };
        let fetched = fetched.await;
        self.note(fetched.as_ref().err());
        fetched
    }
}

fn silent(archive: &Archive) -> OpError {
    let (place, seconds) = (archive.location(), LOOK.as_secs());
    let message = format!("{place} did not answer within {seconds} s");
    OpError::new(Kind::StorageUnavailable, message).hint("check that the store can be reached")
}

/// Whether an error says that the archive could not be asked, and nothing of the file.
fn is_outage(error: &OpError) -> bool {
    matches!(
        error.kind,
        Kind::StorageUnavailable | Kind::PermissionDenied | Kind::LocalIo
    )
}

impl Places {
    pub(super) fn new(first: Archive, others: Vec<(u8, Archive)>) -> Arc<Self> {
        let others = others.into_iter();
        Arc::new(Self {
            first: FetchPlace::new(1, first),
            others: others
                .map(|(number, archive)| FetchPlace::new(number, archive))
                .collect(),
        })
    }

    /// What the first gives by `fetch`, or another one in its place. The error is the first's.
    pub(super) async fn fetch(
        &self,
        name: &ArchiveFileName,
        fetch: impl Future<Output = Result<FetchedWal>>,
    ) -> Result<FetchedWal> {
        if self.others.is_empty() {
            return fetch.await;
        }
        if self.first.rests()
            && let Ok(fetched) = self.of_another(name, None).await
        {
            return Ok(fetched);
        }
        let fetched = fetch.await;
        self.first.note(fetched.as_ref().err());
        let error = match fetched {
            Ok(fetched) => {
                for other in &self.others {
                    other.tell(false, name, None);
                }
                // Known from now on, for when it is away.
                self.first.learn_owner().await;
                return Ok(fetched);
            }
            Err(error) => error,
        };
        // Two contents under one name: which of them was acknowledged, a copy does not know either.
        if is_disputed(&error) {
            return Err(error);
        }
        match self.of_another(name, Some(&error)).await {
            Ok(fetched) => Ok(fetched),
            Err(None) => Err(error),
            Err(Some(refused)) => {
                let (why, hint) = (refused.message, refused.hint.unwrap_or_default());
                Err(error.detail(format!("{why}; {hint}.")))
            }
        }
    }

    /// The file out of another archive; otherwise why one must not give it.
    async fn of_another(
        &self,
        name: &ArchiveFileName,
        why: Option<&OpError>,
    ) -> Result<FetchedWal, Option<OpError>> {
        let mut refused = None;
        for other in self.others.iter().filter(|other| !other.rests()) {
            match other.fetch(name, &self.first, why).await {
                Ok(fetched) => {
                    other.tell(true, name, why);
                    return Ok(fetched);
                }
                Err(error) if is_refusal(&error) => refused = Some(error),
                Err(error) => {
                    tracing::debug!(archive = other.number, error = %error.chain(), "the file is not there either");
                }
            }
        }
        Err(refused)
    }

    /// Says which cluster asks. While it is not known, the first archive's counts.
    pub(super) fn asked_for(&self, cluster: SystemIdentifier) {
        for other in &self.others {
            let mut asked = other
                .asked_for
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *asked = Some(cluster);
        }
    }

    /// The identity, and the archive that gave it: the first, or another one while that does not answer.
    pub(super) async fn identity(&self) -> Result<(Option<ArchiveIdentity>, &Archive)> {
        if self.first.rests()
            && let Some(known) = self.identity_of_another().await
        {
            return Ok(known);
        }
        let said = self.first.archive.identity().await;
        if self.others.is_empty() {
            return Ok((said?, &self.first.archive));
        }
        self.first.note(said.as_ref().err());
        match said {
            Ok(identity) => Ok((identity, &self.first.archive)),
            Err(error) => self.identity_of_another().await.ok_or(error),
        }
    }

    async fn identity_of_another(&self) -> Option<(Option<ArchiveIdentity>, &Archive)> {
        for other in self.others.iter().filter(|other| !other.rests()) {
            let said = tokio::time::timeout(LOOK, other.archive.identity()).await;
            if let Ok(Ok(Some(identity))) = said {
                return Some((Some(identity), &other.archive));
            }
        }
        None
    }

    /// A segment ahead of what is asked for, from the first archive that does not rest.
    pub(super) async fn fetch_ahead(
        &self,
        name: &ArchiveFileName,
        into: AheadInto,
    ) -> Result<FetchedWal> {
        let all = || std::iter::once(&self.first).chain(&self.others);
        let place = all().find(|place| !place.rests()).unwrap_or(&self.first);
        if place.number != self.first.number {
            place.refuse_unknown(&self.first).await?;
            place.refuse_disputed(name).await?;
        }
        let fetched = fetch_ahead(&place.archive, name, into).await;
        if !self.others.is_empty() {
            place.note(fetched.as_ref().err());
        }
        fetched
    }

    /// What the end of the WAL needs while the first archive does not answer: it, or a word that it is lost.
    pub(super) fn or_a_word(&self, error: OpError) -> OpError {
        let Some(other) = self.others.first().filter(|_| is_outage(&error)) else {
            return error;
        };
        let hint = error.hint.as_deref().unwrap_or("bring it back");
        let hint = format!(
            "{hint}; only the first archive can say where the WAL ends. Where it is lost for good, use another one alone"
        );
        error.hint(hint).remedy(Remedy::OneArchive {
            number: other.number,
        })
    }

    /// Refuses an absence that the first has proven and that another one contradicts, or does not confirm.
    pub(super) async fn refuse_contradicted(
        &self,
        name: &ArchiveFileName,
        asker: Asker,
        depth: Depth,
    ) -> Result<()> {
        for other in &self.others {
            let look = async {
                other.refuse_stranger(&self.first).await?;
                if let Some(stored) = other.archive.find_wal_copies(name).await?.first() {
                    let error = present(name, stored.key.as_str());
                    return Err(other.or_why_not(error, name, &self.first).await);
                }
                if depth == Depth::InFull {
                    // A volume that was taken away leaves an empty folder, which agrees to anything.
                    other.archive.ensure_not_lost().await?;
                }
                match (depth, name) {
                    (Depth::InFull, ArchiveFileName::Segment(segment)) => {
                        refuse_gap(&other.archive, *segment, None).await
                    }
                    (Depth::InFull, ArchiveFileName::TimelineHistory(timeline)) => {
                        refuse_lost_history(&other.archive, *timeline, asker).await
                    }
                    (Depth::OneLook | Depth::InFull, _) => Ok(()),
                }
            };
            let said = match tokio::time::timeout(LOOK, look).await {
                Ok(said) => said,
                Err(_) => Err(silent(&other.archive)),
            };
            other.note(said.as_ref().err());
            said.map_err(|error| {
                if !is_outage(&error) {
                    return error;
                }
                let hint = error.hint.as_deref().unwrap_or("bring it back");
                let hint = format!(
                    "{hint}; archive {} may have been used alone and hold WAL that the first never got. Where it is lost for good, \
                     use the first alone",
                    other.number
                );
                error.hint(hint).remedy(Remedy::OneArchive { number: 1 })
            })?;
        }
        Ok(())
    }
}

/// How closely further archives are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Whether they have the file.
    OneLook,
    /// Also whether anything in them shows that it existed.
    InFull,
}

/// Whether an archive was asked, and must not give what it may have.
fn is_refusal(error: &OpError) -> bool {
    matches!(error.kind, Kind::ArchiveConflict | Kind::ArchiveMismatch)
}

fn is_disputed(error: &OpError) -> bool {
    error.kind == Kind::CorruptData && error.message.contains(super::run::DISPUTED)
}
