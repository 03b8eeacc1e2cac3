//! Archives that are read, and not written: all of them as one, and each of them alone.
//!
//! Read as one they give what any of them has, as long as all of them answer: what an archive that is away holds is not known,
//! and a reader that must know fails. Then it reads one alone. Which one gave what it has, it is told in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wale_archive::{Archive, foreign_cluster};
use wale_format::BackupName;
use wale_pg::SystemIdentifier;
use wale_storage::FallbackStore;

use crate::cluster_shown::cluster_of;
use crate::error::{Declined, Kind, OpError, Result};

/// How long all are not asked together after one of them did not answer, 30 s: somebody may wait for each reading.
const REST: Duration = Duration::from_secs(30);

/// The archives.
#[derive(Clone, Debug)]
pub struct Readers {
    together: Archive,
    each: Vec<(u8, Archive)>,
    /// When they could not be read together last, and why.
    rests: Arc<Mutex<Option<(Instant, String)>>>,
    /// When each of them did not answer last.
    silent: Arc<Mutex<BTreeMap<u8, Instant>>>,
    /// Whose they are.
    owners: Arc<Mutex<BTreeMap<u8, SystemIdentifier>>>,
    /// Whether the log says that one is left out.
    is_told: Arc<AtomicBool>,
}

/// Whose an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Known(SystemIdentifier),
    /// It holds something, and nothing in it says it.
    Unknown,
    /// It does not answer, or it is empty.
    NotSaid,
}

impl Readers {
    /// One archive and no other.
    #[must_use]
    pub fn of_one(archive: Archive) -> Self {
        Self {
            each: vec![(1, archive.clone())],
            together: archive,
            rests: Arc::default(),
            silent: Arc::default(),
            owners: Arc::default(),
            is_told: Arc::default(),
        }
    }

    /// The first, and those that follow it by their numbers.
    #[must_use]
    pub fn new(first: Archive, others: Vec<(u8, Archive)>) -> Self {
        if others.is_empty() {
            return Self::of_one(first);
        }
        let stores = others
            .iter()
            .map(|(_, archive)| Arc::clone(archive.store()));
        let store = FallbackStore::new(Arc::clone(first.store()), stores.collect());
        let together = first.over(Arc::new(store), first.budget().clone());
        let mut each = vec![(1, first)];
        each.extend(others);
        Self {
            together,
            each,
            rests: Arc::default(),
            silent: Arc::default(),
            owners: Arc::default(),
            is_told: Arc::default(),
        }
    }

    /// The first alone.
    #[must_use]
    pub fn first(&self) -> &Archive {
        self.each.first().map_or(&self.together, |(_, first)| first)
    }

    /// Those that follow it.
    #[must_use]
    pub fn others(&self) -> Vec<(u8, Archive)> {
        self.each.iter().skip(1).cloned().collect()
    }

    /// The archive that keeps what is noted of a backup which was read from `read`: all of them together are only read. One alone is
    /// itself; of several it is the first that has the backup.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when none that answers has it.
    pub async fn keeper(&self, read: &Archive, name: &BackupName) -> Result<Archive> {
        let is_together = Arc::ptr_eq(read.store(), self.together.store());
        let alone = [(0, read.clone())];
        let asked = if is_together {
            &self.each[..]
        } else {
            &alone[..]
        };
        let mut silent = None;
        for (_, archive) in asked {
            match archive.has_backup(name).await {
                Ok(true) => return Ok(archive.clone()),
                Ok(false) => {}
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        let missing = || OpError::new(Kind::NotFound, format!("no archive has backup {name}"));
        Err(silent.unwrap_or_else(missing))
    }

    /// Refuses archives of several clusters, whose files have the same names. One that does not answer, or that is empty, says nothing.
    /// Gives the further ones that hold something and of which nothing says that it is the same cluster's: what is in them is not
    /// taken for the first's.
    async fn refuse_strangers(&self) -> Result<BTreeSet<u8>> {
        let mut unknown = BTreeSet::new();
        if self.each.len() == 1 {
            return Ok(unknown);
        }
        let mut own = None;
        let mut is_first_unknown = false;
        for (number, archive) in &self.each {
            let is_first = *number == self.each[0].0;
            let its = match self.owner(*number, archive).await {
                Owner::NotSaid => continue,
                Owner::Unknown => {
                    is_first_unknown |= is_first;
                    unknown.extend((!is_first).then_some(*number));
                    continue;
                }
                Owner::Known(its) => its,
            };
            let own = *own.get_or_insert(its);
            if own != its {
                return Err(foreign_cluster(its, own, &archive.location()).hint(format!(
                    "correct where archive {number} is, or take its settings away"
                )));
            }
            if is_first_unknown {
                unknown.insert(*number);
            }
        }
        Ok(unknown)
    }

    /// Whose an archive is: as `wale.json` says, otherwise as its contents show. It does not change.
    async fn owner(&self, number: u8, archive: &Archive) -> Owner {
        if self.is_silent(number) {
            return Owner::NotSaid;
        }
        if let Some(known) = self.owners().get(&number) {
            return Owner::Known(*known);
        }
        let asked = async {
            if let Some(identity) = archive.identity().await? {
                return Ok(Owner::Known(identity.cluster.system_identifier));
            }
            if archive.holds_nothing().await? {
                return Ok(Owner::NotSaid);
            }
            let shown = cluster_of(archive, None).await?;
            Ok(shown.map_or(Owner::Unknown, Owner::Known))
        };
        match asked.await {
            Ok(owner) => {
                if let Owner::Known(owner) = owner {
                    self.owners().insert(number, owner);
                }
                owner
            }
            Err(error) => {
                self.note(number, &error);
                // It was asked, and gives nothing that can be read: a damaged wale.json.
                if matches!(error.kind, Kind::CorruptData | Kind::Configuration) {
                    Owner::Unknown
                } else {
                    Owner::NotSaid
                }
            }
        }
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<u8, SystemIdentifier>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why all are not read as one, where one of them may be another cluster's.
    fn left_out(&self, unknown: &BTreeSet<u8>) -> Option<OpError> {
        let number = unknown.first()?;
        let (_, archive) = self.each.iter().find(|(one, _)| one == number)?;
        let message = format!(
            "archive {number} ({}) holds something, and nothing says that it is this cluster's",
            archive.location()
        );
        let hint = "correct where it is, or let a sidecar bring it up to date; to read it as it is, use it alone";
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(archive = number, hint, "{message}: nothing is read from it");
        }
        Some(OpError::new(Kind::Configuration, message).hint(hint))
    }

    /// Why all are not asked together now.
    fn resting(&self) -> Option<OpError> {
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = rests.as_ref().filter(|(at, _)| at.elapsed() < REST);
        recent.map(|(_, why)| OpError::new(Kind::StorageUnavailable, why.clone()))
    }

    fn rest(&self, error: &OpError) {
        if error.kind == Kind::StorageUnavailable {
            let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
            *rests = Some((Instant::now(), error.chain()));
        }
    }

    fn is_silent(&self, number: u8) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent
            .get(&number)
            .is_some_and(|since| since.elapsed() < REST)
    }

    /// Notes an archive that did not answer.
    fn note(&self, number: u8, error: &OpError) {
        if error.kind == Kind::StorageUnavailable {
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(number, Instant::now());
        }
    }

    /// Reads all as one; where that fails in a way that one alone may not, each alone, until it succeeds. `what` is what is
    /// read, for the log.
    ///
    /// # Errors
    /// The first error.
    pub async fn read<T, F>(&self, what: &str, mut read: impl FnMut(Archive) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let unknown = self.refuse_strangers().await?;
        let left_out = self.left_out(&unknown);
        let resting = left_out.or_else(|| self.resting());
        let is_told = resting.is_some();
        let error = match resting {
            Some(error) => error,
            None => match read(self.together.clone()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            },
        };
        let is_settled = error.declined == Some(Declined::Unreachable);
        if self.each.len() == 1 || is_settled || !may_differ(error.kind) {
            return Err(error);
        }
        if !is_told {
            self.rest(&error);
            tracing::warn!(
                hint = "archives are read one by one; /status and the log show which of them does not answer",
                "{what} from all archives as one failed: {}",
                error.chain()
            );
        }
        // What is damaged came from the first, if it has it.
        let begin = usize::from(error.kind == Kind::CorruptData);
        let in_turn = self.each.iter().cycle().skip(begin).take(self.each.len());
        let in_turn = in_turn.filter(|(number, _)| !unknown.contains(number));
        let mut alone = None;
        // Those that did not answer a moment ago come last.
        let (silent, answering): (Vec<_>, Vec<_>) =
            in_turn.partition(|(number, _)| self.is_silent(*number));
        for (number, archive) in answering.into_iter().chain(silent) {
            match read(archive.clone()).await {
                Ok(value) if is_told => return Ok(value),
                Ok(value) => {
                    tracing::warn!(
                        archive = number,
                        location = archive.location(),
                        "{what} from archive {number} alone succeeded"
                    );
                    return Ok(value);
                }
                Err(error) if !may_differ(error.kind) && error.kind != Kind::NotFound => {
                    return Err(error);
                }
                Err(error) => {
                    self.note(*number, &error);
                    tracing::warn!(
                        archive = number,
                        location = archive.location(),
                        "{what} from archive {number} alone failed: {}",
                        error.chain()
                    );
                    alone.get_or_insert(error);
                }
            }
        }
        // What those say that may be read; the others are why there are no more.
        Err(match alone.filter(|_| !unknown.is_empty()) {
            Some(alone) if alone.detail.is_none() => alone.detail(format!("{}.", error.chain())),
            Some(alone) => alone,
            None => error,
        })
    }
}

/// Whether another archive may give what one does not.
fn may_differ(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::StorageUnavailable | Kind::CorruptData | Kind::PermissionDenied | Kind::Configuration
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wale_format::Codec;
    use wale_storage::{FaultPlan, FaultyStore, MemoryStore, Store};

    use super::*;
    use wale_archive::Beginning;

    use crate::testing::{SYSTEM_IDENTIFIER, archive, cluster, encode, segment_of};

    fn readers() -> Readers {
        let one = || {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), FaultPlan::new());
            archive(Arc::new(store) as Arc<dyn Store>, Codec::Zstd, 1 << 20)
        };
        Readers::new(one(), vec![(2, one()), (3, one())])
    }

    /// Reads with these outcomes, in order. Gives the result and how many there were.
    async fn read(readers: &Readers, outcomes: &[Option<Kind>]) -> (Result<(), Kind>, usize) {
        let made = Mutex::new(0);
        let result = readers
            .read("a reading", |_| {
                let mut made = made.lock().expect("sound");
                let outcome = outcomes[*made];
                *made += 1;
                async move {
                    match outcome {
                        None => Ok(()),
                        Some(kind) => Err(OpError::new(kind, "it failed")),
                    }
                }
            })
            .await;
        (
            result.map_err(|error| error.kind),
            made.into_inner().expect("sound"),
        )
    }

    #[tokio::test]
    async fn a_note_goes_to_the_first_archive_that_has_the_backup() {
        let name = BackupName::parse("base_000000010000000000000001_00000040").unwrap();
        let several = readers();
        let together = several.together.clone();
        let missing = several.keeper(&together, &name).await.expect_err("none");
        assert_eq!(missing.kind, Kind::NotFound);
        let key = Archive::key(&wale_format::layout::sentinel(&name)).unwrap();
        for (_, archive) in several.others() {
            let body = wale_storage::body_from(bytes::Bytes::from_static(b"{}"));
            archive.store().put(&key, body).await.unwrap();
        }
        let keeper = several.keeper(&together, &name).await.expect("the second");
        assert!(Arc::ptr_eq(keeper.store(), several.each[1].1.store()));
        // What was read from one alone is noted there.
        let third = several.each[2].1.clone();
        let keeper = several.keeper(&third, &name).await.expect("the third");
        assert!(Arc::ptr_eq(keeper.store(), third.store()));
        let first = several.first().clone();
        assert!(several.keeper(&first, &name).await.is_err());
    }

    /// The names are the same in every cluster's archive, and nobody has written there whose it is.
    #[tokio::test]
    async fn nothing_is_read_from_a_further_archive_while_nothing_says_that_it_is_this_clusters() {
        let key = Archive::key("wal_005/000000010000000000000007.zst").unwrap();
        let of = |id: u64| {
            let content = segment_of(id, "000000010000000000000007", 1);
            encode(Codec::Zstd, &content)
        };
        let other = SYSTEM_IDENTIFIER + 1;
        for (stored, expected, made) in [
            (of(SYSTEM_IDENTIFIER), Ok(()), vec![0]),
            (of(other), Err(Kind::ArchiveMismatch), vec![]),
            (b"nobody knows".to_vec(), Ok(()), vec![1]),
        ] {
            let memories = [MemoryStore::new(), MemoryStore::new()];
            let stores = memories
                .clone()
                .map(|memory| Arc::new(memory) as Arc<dyn Store>);
            let [first, second] = stores.map(|store| archive(store, Codec::Zstd, 64 << 20));
            let own = cluster(SYSTEM_IDENTIFIER);
            first.ensure_identity(&own, &Beginning::Anew).await.unwrap();
            memories[1].insert(&key, stored);
            let readers = Readers::new(first, vec![(2, second)]);
            let places = Mutex::new(Vec::new());
            let read = readers.read("a reading", |archive| {
                let is = |other: &Archive| Arc::ptr_eq(archive.store(), other.store());
                let all = [&readers.together, &readers.each[0].1, &readers.each[1].1];
                let place = all.iter().position(|one| is(one));
                places.lock().expect("sound").extend(place);
                async { Ok(()) }
            });
            let read = read.await.map_err(|error| error.kind);
            assert_eq!((read, places.into_inner().unwrap()), (expected, made));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_all_are_not_asked_together_for_a_while() {
        use Kind::StorageUnavailable;
        let several = readers();
        // All of them, the first, and the second, which answers.
        let outage = [Some(StorageUnavailable), Some(StorageUnavailable), None];
        assert_eq!(read(&several, &outage).await, (Ok(()), 3));
        // Neither together nor the first for a while.
        assert_eq!(read(&several, &[None]).await, (Ok(()), 1));
        let all_fail = [Some(StorageUnavailable); 3];
        assert_eq!(
            read(&several, &all_fail).await,
            (Err(StorageUnavailable), 3)
        );
        tokio::time::advance(REST).await;
        assert_eq!(read(&several, &outage).await, (Ok(()), 3));
    }

    #[tokio::test]
    async fn one_alone_is_read_where_all_together_cannot_be() {
        use Kind::{CorruptData, NotEmpty, NotFound, StorageUnavailable};
        for (outcomes, result, made) in [
            (&[None][..], Ok(()), 1),
            (
                &[Some(StorageUnavailable), Some(StorageUnavailable), None],
                Ok(()),
                3,
            ),
            (&[Some(CorruptData), Some(NotFound), None], Ok(()), 3),
            (&[Some(NotFound)], Err(NotFound), 1),
            (
                &[Some(StorageUnavailable), Some(NotEmpty)],
                Err(NotEmpty),
                2,
            ),
            (&[Some(CorruptData); 4], Err(CorruptData), 4),
        ] {
            assert_eq!(
                read(&readers(), outcomes).await,
                (result, made),
                "{outcomes:?}"
            );
        }
        // What all of them show together is no worse than what one of them shows.
        let several = readers();
        let made = Mutex::new(0);
        let settled = several.read("a restore", |_| {
            *made.lock().expect("sound") += 1;
            async {
                let error = OpError::new(CorruptData, "a segment is missing");
                Err::<(), _>(error.declined(Declined::Unreachable))
            }
        });
        assert_eq!(settled.await.expect_err("settled").kind, CorruptData);
        assert_eq!(made.into_inner().expect("sound"), 1);
        let alone = Readers::of_one(several.first().clone());
        let outcomes = [Some(StorageUnavailable)];
        assert_eq!(read(&alone, &outcomes).await, (Err(StorageUnavailable), 1));
        assert!(alone.others().is_empty() && several.others().len() == 2);
    }
}
