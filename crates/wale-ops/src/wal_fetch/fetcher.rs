//! The long-lived fetcher: what a sidecar answers a recovering server with.
//!
//! An outage of the store is waited out within a deadline, since a server that hears "unavailable" stops. Absence is
//! answered at once: it is normal and frequent, and a server waits for it at the end of each recovery.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wale_archive::{Archive, StoredWal, foreign_cluster};
use wale_cluster::hand_over::Nonce;
use wale_cluster::{ArchiveStatus, DataDirectory, Owner, RecoveryRole, WalDirectory};
use wale_pg::{ArchiveFileName, SystemIdentifier, TimelineId, WalSegmentName, WalSegmentSize};
use wale_pipeline::{MemoryBudget, blocking};

use super::absent::{Asker, prove_absent_for};
use super::ahead::Ahead;
use super::hand_over::Hands;
use super::landing::{Destination, Landed};
use super::places::{Depth, Places};
use super::proofs::{Proofs, prove_again, tail_for};
use super::report::{Absence, Delivery, FetchReport, FetchedWal, FetcherStats};
use super::run::{fetch_found, write_to_path};
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// How long a server that asks again anyhow waits to hear what the store has, 5 s: far more than a check takes, and
/// short enough that a standby is promoted within seconds while the store is away (it asks for three or four files
/// then). What the store has is fetched without this limit: otherwise a slow store would never deliver a large segment.
const SHORT_TRY: Duration = Duration::from_secs(5);

/// How an outage of the store is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// It is waited out, up to the deadline: a server that hears of it stops.
    #[default]
    Outage,
    /// One short try: a standby asks again by itself, and its promotion waits for each answer.
    ShortTry,
}

/// What a caller may choose about a [`Fetcher`].
#[derive(Clone, Copy, Debug)]
pub struct FetcherOptions {
    /// How many segments are fetched ahead of a server that replays; 0 switches it off.
    pub prefetch: usize,
    /// Memory for them, in bytes.
    pub prefetch_bytes: u64,
    /// After how much time without a request the memory is given back.
    pub prefetch_idle: Duration,
    /// How long an outage of the store is waited out within one request.
    pub deadline: Duration,
    /// Whether it is waited out at all. A fetcher beside a data directory finds that out for each request.
    pub patience: Patience,
}

impl Default for FetcherOptions {
    /// Four segments in 64 MiB (4 x 16 MiB), given back after a minute; 60 s of patience.
    fn default() -> Self {
        Self {
            prefetch: 4,
            prefetch_bytes: 64 << 20,
            prefetch_idle: Duration::from_mins(1),
            deadline: Duration::from_mins(1),
            patience: Patience::Outage,
        }
    }
}

/// Fetches WAL for a server in recovery. To be kept for as long as the sidecar runs.
#[derive(Debug)]
pub struct Fetcher {
    archive: Archive,
    places: Arc<Places>,
    ahead: Option<Ahead>,
    retry: RetryBudget,
    patience: Patience,
    stats: Mutex<FetcherStats>,
    data_directory: Option<PathBuf>,
    /// Where files are handed over.
    hands: Option<Hands>,
    idle: Duration,
    /// Whether archive and data directory were seen to be one cluster's.
    same_cluster: AtomicBool,
    /// The segment that was delivered last.
    served: Mutex<Option<WalSegmentName>>,
    proofs: Proofs,
}

impl Fetcher {
    /// A fetcher from `archive`.
    #[must_use]
    pub fn new(archive: Archive, options: FetcherOptions) -> Self {
        Self::of_several(archive, Vec::new(), options)
    }

    /// The same, with further archives by their numbers, from which files are taken that the first cannot give.
    #[must_use]
    pub fn of_several(
        archive: Archive,
        others: Vec<(u8, Archive)>,
        options: FetcherOptions,
    ) -> Self {
        let FetcherOptions {
            prefetch,
            prefetch_bytes,
            prefetch_idle,
            deadline,
            patience,
        } = options;
        let budget = MemoryBudget::new(prefetch_bytes);
        let places = Places::new(archive.clone(), others);
        let ahead = (prefetch > 0)
            .then(|| Ahead::new(Arc::clone(&places), prefetch, budget, prefetch_idle));
        Self {
            archive,
            places,
            ahead,
            retry: RetryBudget::within(deadline),
            patience,
            stats: Mutex::default(),
            data_directory: None,
            hands: None,
            idle: prefetch_idle,
            same_cluster: AtomicBool::new(false),
            served: Mutex::default(),
            proofs: Proofs::default(),
        }
    }

    /// The same for the server of this data directory: an archive of another cluster is refused, for PostgreSQL takes
    /// its segments, and their absence, for the end of the WAL. A `pg_control` that cannot be read refuses nothing.
    #[must_use]
    pub fn beside(self, data_directory: PathBuf) -> Self {
        Self {
            data_directory: Some(data_directory),
            ..self
        }
    }

    /// The same with the WAL directory of that server, beside which a client may take its files.
    #[must_use]
    pub fn handing_over_in(self, wal: PathBuf) -> Self {
        let hands = Some(Hands::new(wal, self.idle));
        Self { hands, ..self }
    }

    /// The same for a server of this cluster, where that is known: what comes from a further archive is its own also while the
    /// first does not answer.
    #[must_use]
    pub fn of_cluster(self, cluster: Option<SystemIdentifier>) -> Self {
        if let Some(cluster) = cluster {
            self.places.asked_for(cluster);
        }
        self
    }

    /// As [`super::fetch`], with prefetch and patience.
    ///
    /// # Errors
    /// As [`super::fetch`]; an outage only after the deadline.
    pub async fn fetch(&self, name: &ArchiveFileName) -> Result<FetchedWal> {
        let fetched = self.fetch_for(name, None).await?;
        Ok(fetched.into_sent())
    }

    /// As [`Fetcher::fetch`], for a client that takes the file itself where it waits for it beside the server's WAL. What is given
    /// to it is flushed; to move it to its name is the client's part. Where it is not there, a primary may be running, or
    /// the file cannot be made, its bytes are to be sent.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub async fn fetch_for_taker(
        &self,
        name: &ArchiveFileName,
        nonce: Option<&Nonce>,
    ) -> Result<Delivery> {
        let (Some(hands), Some(nonce), Some(_)) = (&self.hands, nonce, name.segment()) else {
            return self.fetch(name).await.map(Delivery::Sent);
        };
        let Some((place, free)) = hands.look(nonce, self.data_directory.clone()).await else {
            return self.fetch(name).await.map(Delivery::Sent);
        };
        let over = hands.over().clone();
        let destination = Destination::Taker { over, free };
        let mut fetched = self.fetch_for(name, Some(&destination)).await?;
        if let Some(Landed::Unnamed(file)) = fetched.landed.take() {
            let Some(file) = self.counted(Hands::give(file, place).await)? else {
                self.stats_mut().handed_over += 1;
                return Ok(Delivery::HandedOver(fetched.size));
            };
            fetched.landed = Some(Landed::Unnamed(file));
        }
        Ok(Delivery::Sent(fetched.into_sent()))
    }

    /// Removes what clients have left beside the WAL that are gone.
    pub async fn sweep(&self) {
        if let Some(hands) = &self.hands {
            hands.sweep().await;
        }
    }

    /// As [`Fetcher::fetch`]. What is for a destination may be a file already, without its name.
    async fn fetch_for(
        &self,
        name: &ArchiveFileName,
        destination: Option<&Destination>,
    ) -> Result<FetchedWal> {
        let result = self.fetch_uncounted(name, destination).await;
        if let Ok(fetched) = &result {
            let now = self.archive.clock().now();
            let mut stats = self.stats_mut();
            stats.delivered += 1;
            stats.bytes_plain += fetched.size;
            stats.last_success = Some(now);
            drop(stats);
            if let ArchiveFileName::Segment(segment) = name {
                *self.served_mut() = Some(*segment);
            }
        }
        self.counted(result)
    }

    /// As [`super::fetch_to_path`], with prefetch and patience.
    ///
    /// # Errors
    /// As [`super::fetch_to_path`]; an outage only after the deadline.
    pub async fn fetch_to_path(
        &self,
        name: &ArchiveFileName,
        path: &Path,
        owner: Option<Owner>,
    ) -> Result<FetchReport> {
        let started = Instant::now();
        let destination = Destination::At {
            path: path.to_owned(),
            owner,
        };
        let fetched = self.fetch_for(name, Some(&destination)).await?;
        let written = write_to_path(fetched, path, owner, started).await;
        self.counted(written)
    }

    /// Puts a file into the WAL directory, with prefetch and patience: what the original's fetch did.
    ///
    /// # Errors
    /// As [`super::fetch_to_path`]; an archive conflict where a primary may be running, and when the directory has the
    /// file and PostgreSQL still waits for it to be archived: replacing it could replace the only copy of its bytes.
    pub async fn fetch_into(
        &self,
        name: &ArchiveFileName,
        directory: &WalDirectory,
    ) -> Result<FetchReport> {
        let (looked, asked) = (directory.clone(), *name);
        let look = move || {
            let failed = |e| OpError::from_cluster(e, format_args!("look for {asked}"));
            let waits = looked.status(&asked).map_err(failed)? == ArchiveStatus::Ready
                && looked.contains(&asked).map_err(failed)?;
            Ok((waits, Owner::of(looked.path()).ok()))
        };
        self.counted(self.refuse_live(name, directory).await)?;
        let (waits, owner) = self.counted(blocking(look).await.map_err(OpError::from).flatten())?;
        if waits {
            let message = format!("{name} is in the WAL directory and waits to be archived");
            return self.counted(Err(OpError::new(Kind::ArchiveConflict, message)
                .detail("Its bytes may be nowhere else, so it is not replaced.")
                .hint("let the archiver push it first; nothing is lost meanwhile")));
        }
        let started = Instant::now();
        let fetched = self.fetch(name).await?;
        // A fetch may take minutes: the server may have been promoted, or started, meanwhile.
        self.counted(self.refuse_live(name, directory).await)?;
        let path = directory.path_of(name);
        let written = write_to_path(fetched, &path, owner, started).await;
        self.counted(written)
    }

    /// Refuses to write into the WAL directory of a server that may be a running primary.
    async fn refuse_live(&self, name: &ArchiveFileName, wal: &WalDirectory) -> Result<()> {
        let Some(data) = self.data_directory.clone() else {
            return Ok(());
        };
        let wal = wal.path().to_owned();
        let look = move || DataDirectory::at(data).refuses_wal(&wal);
        let Some(why) = blocking(look).await? else {
            return Ok(());
        };
        let message = format!("{name} is not put into the WAL directory: {why}");
        Err(OpError::new(Kind::ArchiveConflict, message)
            .detail(
                "In a primary's WAL directory the file would take room, or replace the only copy of what was committed last.",
            )
            .hint("fetch it with /wal/<name>, which sends the bytes and writes nothing here"))
    }

    /// As [`super::prove_absent`], with patience.
    ///
    /// # Errors
    /// As [`super::prove_absent`]; an outage only after the deadline.
    pub async fn prove_absent(&self, name: &ArchiveFileName) -> Result<Absence> {
        let result = match self.asker().await {
            Ok(asker) => {
                let served = *self.served_mut();
                let asker = Asker { served, ..asker };
                let prove = || self.prove(name, asker);
                match self.patience(name).await {
                    // A proof for a segment may take long for a good reason: it lists.
                    Patience::ShortTry if name.segment().is_none() => short(prove()).await,
                    _ => self.retry.run(prove).await,
                }
            }
            Err(error) => Err(error),
        };
        let result = result.map_err(|error| self.places.or_a_word(error));
        if result.is_ok() {
            self.stats_mut().proven_absent += 1;
        }
        self.counted(result)
    }

    /// One try. What was proven a moment ago is proven by one look.
    async fn prove(&self, name: &ArchiveFileName, asker: Asker) -> Result<Absence> {
        let places = &self.places;
        if self.proofs.holds(name, &asker)
            && let Some(absence) = prove_again(&self.archive, name, &asker).await?
        {
            let agreed = places.refuse_contradicted(name, asker, Depth::OneLook);
            agreed.await?;
            return Ok(absence);
        }
        let begun = tokio::time::Instant::now();
        let absence = prove_absent_for(&self.archive, name, asker).await?;
        let agreed = places.refuse_contradicted(name, asker, Depth::InFull);
        agreed.await?;
        self.proofs.note(*name, asker, begun);
        Ok(absence)
    }

    /// What there is of a file. A server that polls for it is told by the listing that its next proof needs.
    async fn look(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        if self.proofs.is_polled(name) {
            let served = *self.served_mut();
            if let Some(tail) = tail_for(&self.archive, name, served).await? {
                return Ok(self.archive.copies_in(&tail, name));
            }
        }
        self.archive.find_wal_copies_nearby(name).await
    }

    /// Finds and fetches a file, once.
    async fn fetch_once(
        &self,
        name: &ArchiveFileName,
        destination: Option<&Destination>,
    ) -> Result<FetchedWal> {
        let from_first = async {
            let copies = self.look(name).await?;
            fetch_found(&self.archive, name, &copies, destination).await
        };
        self.places.fetch(name, from_first).await
    }

    /// The same, of which the look is a short one.
    async fn fetch_shortly(
        &self,
        name: &ArchiveFileName,
        look: impl Future<Output = Result<Vec<StoredWal>>>,
        destination: Option<&Destination>,
    ) -> Result<FetchedWal> {
        let from_first = async {
            let copies = short(look).await?;
            let fetch = || fetch_found(&self.archive, name, &copies, destination);
            RetryBudget::ONCE.run(fetch).await
        };
        self.places.fetch(name, from_first).await
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> FetcherStats {
        let prefetched = self.ahead.as_ref().map_or(0, Ahead::fetched);
        FetcherStats {
            prefetched,
            ..self.stats_mut().clone()
        }
    }

    /// Stops fetching ahead, gives the memory back and waits for the tasks. Requests are still answered.
    pub async fn drain(&self) {
        if let Some(ahead) = &self.ahead {
            ahead.drain().await;
        }
        if let Some(hands) = &self.hands {
            hands.drain().await;
        }
    }

    #[cfg(test)]
    pub(super) fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_ref()
    }

    async fn fetch_uncounted(
        &self,
        name: &ArchiveFileName,
        destination: Option<&Destination>,
    ) -> Result<FetchedWal> {
        if self.patience(name).await == Patience::ShortTry {
            return self.fetch_at_once(name, destination).await;
        }
        let (Some(ahead), ArchiveFileName::Segment(segment)) = (&self.ahead, name) else {
            self.refuse_foreign().await?;
            return self.retry.run(|| self.fetch_once(name, destination)).await;
        };
        self.refuse_foreign().await?;
        let fetched = match ahead.take(*segment, destination).await {
            Some(fetched) => {
                self.stats_mut().prefetch_hits += 1;
                fetched
            }
            None => {
                self.retry
                    .run(|| self.fetch_once(name, destination))
                    .await?
            }
        };
        // A segment that was delivered has the segment size.
        if let Ok(size) = WalSegmentSize::new(fetched.size) {
            ahead.served(*segment, size);
        }
        Ok(fetched)
    }

    /// One try, of which the look is a short one.
    async fn fetch_at_once(
        &self,
        name: &ArchiveFileName,
        destination: Option<&Destination>,
    ) -> Result<FetchedWal> {
        let look = async {
            self.refuse_foreign().await?;
            self.look(name).await
        };
        let (Some(ahead), ArchiveFileName::Segment(segment)) = (&self.ahead, name) else {
            return self.fetch_shortly(name, look, destination).await;
        };
        let taken = ahead.take(*segment, destination);
        let taken = tokio::time::timeout(SHORT_TRY, taken).await;
        let fetched = if let Ok(Some(fetched)) = taken {
            self.stats_mut().prefetch_hits += 1;
            fetched
        } else {
            self.fetch_shortly(name, look, destination).await?
        };
        if let Ok(size) = WalSegmentSize::new(fetched.size) {
            ahead.served(*segment, size);
        }
        Ok(fetched)
    }

    /// How an outage is met for this file: with one short try where the server beside us asks again, or has the file.
    async fn patience(&self, name: &ArchiveFileName) -> Patience {
        let Some(data) = self.data_directory.clone() else {
            return self.patience;
        };
        let (least, name) = (self.patience, *name);
        let look = move || least.or(patience_of(&data, &name));
        blocking(look).await.unwrap_or(least)
    }

    /// The server beside which this fetcher works, as far as it is known.
    async fn asker(&self) -> Result<Asker> {
        let Some(data) = self.data_directory.clone() else {
            return Ok(Asker::default());
        };
        Ok(blocking(move || asker_of(&data)).await?)
    }

    /// Refuses to deliver from another cluster's archive.
    async fn refuse_foreign(&self) -> Result<()> {
        if self.data_directory.is_none() || self.same_cluster.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(cluster) = self.asker().await?.cluster else {
            return Ok(());
        };
        self.places.asked_for(cluster);
        let (identity, asked) = self.retry.run(|| self.places.identity()).await?;
        let Some(identity) = identity else {
            return Ok(());
        };
        if identity.cluster.system_identifier != cluster {
            return Err(foreign_cluster(
                identity.cluster.system_identifier,
                cluster,
                &asked.location(),
            ));
        }
        // Of the first: another one only stands in for it.
        let is_first = Arc::ptr_eq(asked.store(), self.archive.store());
        self.same_cluster.store(is_first, Ordering::Relaxed);
        Ok(())
    }

    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            let now = self.archive.clock().now();
            let mut stats = self.stats_mut();
            if error.kind == Kind::NotFound {
                stats.absent += 1;
            } else {
                *stats.failures.entry(error.kind).or_default() += 1;
                stats.last_failure = Some(now);
                stats.last_failure_text = Some(error.chain());
            }
        }
        result
    }

    fn served_mut(&self) -> MutexGuard<'_, Option<WalSegmentName>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats_mut(&self) -> MutexGuard<'_, FetcherStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Patience {
    /// The lesser of two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Outage, Self::Outage) => Self::Outage,
            _ => Self::ShortTry,
        }
    }
}

/// How the server of a data directory takes an outage.
fn patience_of(data: &Path, name: &ArchiveFileName) -> Patience {
    // PostgreSQL takes a history that it has, when the archive does not answer: at its promotion it asks for its parent's,
    // also where that is timeline 1, which has none.
    let does_without = || match name {
        ArchiveFileName::TimelineHistory(TimelineId::FIRST) => true,
        ArchiveFileName::TimelineHistory(_) => data.join("pg_wal").join(name.to_string()).is_file(),
        _ => false,
    };
    if RecoveryRole::of_directory(data) == RecoveryRole::Standby || does_without() {
        Patience::ShortTry
    } else {
        Patience::Outage
    }
}

/// Gives up on a store that does not say at once what it has.
async fn short<T>(look: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(SHORT_TRY, look).await;
    answer.unwrap_or_else(|_| {
        let seconds = SHORT_TRY.as_secs();
        let message = format!("the store did not answer within {seconds} s");
        Err(OpError::new(Kind::StorageUnavailable, message)
            .hint("check that the store can be reached; a standby asks again by itself"))
    })
}

/// The server of a data directory, as far as it is known.
fn asker_of(data: &Path) -> Asker {
    let control = match DataDirectory::open(data).and_then(|data| data.control_file()) {
        Ok(control) => control,
        Err(error) => {
            tracing::debug!(path = %data.display(), %error, "goes on without pg_control");
            return Asker::default();
        }
    };
    let asker = Asker::of(&control);
    if RecoveryRole::of_directory(data) != RecoveryRole::Other {
        return asker;
    }
    // It does not recover: the one that asks is another server of this cluster, on whatever timeline.
    Asker {
        timeline: None,
        ..asker
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_pg::ControlFile;

    use super::*;

    #[test]
    fn only_a_server_that_recovers_is_known_to_be_the_one_that_asks() {
        let data = tempfile::tempdir().expect("made");
        assert!(asker_of(data.path()).cluster.is_none());
        fs::create_dir(data.path().join("global")).expect("made");
        let control = include_bytes!("../../../wale-pg/testdata/control_file/15");
        fs::write(data.path().join(ControlFile::PATH), control).expect("written");
        let asker = asker_of(data.path());
        assert!(asker.cluster.is_some() && asker.timeline.is_none());
        for signal in ["recovery.signal", "standby.signal", "recovery.conf"] {
            let path = data.path().join(signal);
            fs::write(&path, "").expect("written");
            assert_eq!(asker_of(data.path()).timeline, Some(TimelineId::FIRST));
            fs::remove_file(&path).expect("removed");
        }
    }
}
