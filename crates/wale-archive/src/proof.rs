//! What was read to verify the archive, when, and what was found: kept in the archive, so that any host knows it.
//!
//! Of each backup an object in its folder, which goes with it; of all WAL one object at the archive's root. They only help:
//! one that is lost, that cannot be read, or that is of another backup of the same name, costs that it is read again.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use wale_format::layout;
use wale_format::{BackupName, Encryption};
use wale_pg::{ArchiveFileName, SystemIdentifier, TimelineId, WalSegmentName, WalSegmentSize};
use wale_storage::{ObjectKey, body_from};

use crate::error::{OpError, Result};
use crate::{Archive, BackupEntry};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

/// Stretches of WAL that are remembered: 4,096 × some 110 bytes = 450 kB. A run adds one for each timeline, and some around
/// what it found damaged or left out.
const STRETCHES_MAX: usize = 4096;

/// Stretches of WAL that were tried and not found good: 1,024 × some 110 bytes = 110 kB. The oldest are forgotten.
const TRIED_MAX: usize = 1024;

/// How far clocks of hosts may be apart. What says that it was read later than this from now on says nothing.
pub const CLOCKS_APART: TimeDelta = TimeDelta::minutes(10);

/// Damaged objects that a record names; all are counted. 100 × at most 2 KiB = 200 KiB.
pub const DAMAGED_MAX: usize = 100;

/// A larger record is not read: all of the above, and as much again.
const RECORD_MAX: u64 = 2 << 20;

/// An object that is damaged, or not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its key.
    pub object: String,
    /// What is wrong with it.
    pub found: String,
    /// Whether it is not there at all.
    #[serde(default)]
    pub missing: bool,
}

impl Damage {
    /// Which object, and whether it is there: no more than the listing of the archive shows.
    fn without_words(self) -> Self {
        let found = if self.missing {
            "is not in the archive"
        } else {
            "is damaged"
        };
        Self {
            found: found.to_owned(),
            ..self
        }
    }
}

/// What came of reading the whole of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProof {
    format: u32,
    /// When the reading began, by the clock of the host that read.
    pub at: DateTime<Utc>,
    /// The program that read.
    pub by: String,
    /// How much was read: every byte of every object.
    pub depth: Depth,
    /// When the store says the backup's record was written: another backup of the name has another time.
    pub committed: DateTime<Utc>,
    /// Files that came.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of its partitions as stored.
    pub stored_bytes: u64,
    /// The first damage that was met; none where the backup is good.
    pub damage: Option<Damage>,
    /// When the newest of its objects was stored, by the store's clock: one that was stored since was not read.
    #[serde(default)]
    pub newest: Option<DateTime<Utc>>,
    /// When a host last tried to read it and could not: it had no key, or too little memory.
    #[serde(default)]
    pub tried: Option<DateTime<Utc>>,
}

impl BackupProof {
    /// When the whole of it was found good.
    #[must_use]
    pub fn proven(&self) -> Option<DateTime<Utc>> {
        (self.depth == Depth::Content && self.damage.is_none()).then_some(self.at)
    }

    /// When somebody last read it, or tried to.
    #[must_use]
    pub fn read(&self) -> DateTime<Utc> {
        self.tried.map_or(self.at, |tried| tried.max(self.at))
    }

    /// Nothing is proven by a time that is still to come; damage stays damage, found now.
    fn believed(mut self, now: DateTime<Utc>) -> Option<Self> {
        let is_to_come = |at: DateTime<Utc>| at > now + CLOCKS_APART;
        self.tried = self.tried.filter(|tried| !is_to_come(*tried));
        if is_to_come(self.at) {
            self.at = now;
            return self.damage.is_some().then_some(self);
        }
        Some(self)
    }
}

/// How much was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Every byte of every object.
    Content,
    /// Nothing yet: the host that tried could not read it.
    Nothing,
}

/// What a reading of a backup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupFound {
    /// Files that came.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of its partitions as stored.
    pub stored_bytes: u64,
    /// The first damage.
    pub damage: Option<Damage>,
    /// When the newest of its objects was stored.
    pub newest: Option<DateTime<Utc>>,
}

/// What is known of all WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalProof {
    /// When the last reading began. None before the first.
    pub at: Option<DateTime<Utc>>,
    /// The program that read.
    pub by: String,
    /// The stretches that were found good.
    pub proven: Proven,
    /// The stretches that were read or tried since, and not found good: damaged ones, and those that a host could not read.
    pub tried: Proven,
    /// Objects that the last reading found damaged, the first [`DAMAGED_MAX`].
    pub damaged: Vec<Damage>,
    /// How many there were.
    pub damaged_count: u64,
}

/// Segments that were found good, and when they were read. One reading's are one stretch: its segments have one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    size: WalSegmentSize,
    /// By timeline and first segment: the last one, and the time. They do not overlap.
    stretches: BTreeMap<(TimelineId, u64), (u64, DateTime<Utc>)>,
}

impl Proven {
    /// Nothing, of segments of this size.
    #[must_use]
    pub const fn nothing(size: WalSegmentSize) -> Self {
        Self {
            size,
            stretches: BTreeMap::new(),
        }
    }

    /// The size of the segments.
    #[must_use]
    pub const fn size(&self) -> WalSegmentSize {
        self.size
    }

    /// When the segment was read and found good; none where it was not.
    #[must_use]
    pub fn at(&self, segment: WalSegmentName) -> Option<DateTime<Utc>> {
        let number = segment.number(self.size).ok()?;
        let (_, (last, at)) = self.around(segment.timeline(), number)?;
        (number <= last).then_some(at)
    }

    /// The oldest and the newest time.
    #[must_use]
    pub fn times(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let times = || self.stretches.values().map(|(_, at)| *at);
        Some((times().min()?, times().max()?))
    }

    /// How many segments there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let counts = self.stretches.iter();
        counts.map(|((_, first), (last, _))| last - first + 1).sum()
    }

    /// Notes that a segment was found good at that time.
    pub fn add(&mut self, segment: WalSegmentName, at: DateTime<Utc>) {
        let Ok(number) = segment.number(self.size) else {
            return;
        };
        self.forget(segment);
        let line = segment.timeline();
        let (mut first, mut last) = (number, number);
        if let Some((before, (end, same))) = self.around(line, number)
            && same == at
            && end + 1 == number
        {
            first = before;
        }
        if let Some((end, same)) = self.stretches.get(&(line, number + 1)).copied()
            && same == at
        {
            self.stretches.remove(&(line, number + 1));
            last = end;
        }
        self.stretches.insert((line, first), (last, at));
    }

    /// Notes that nothing is known of a segment any more.
    pub fn forget(&mut self, segment: WalSegmentName) {
        let Ok(number) = segment.number(self.size) else {
            return;
        };
        let line = segment.timeline();
        let Some((first, (last, at))) = self.around(line, number) else {
            return;
        };
        if number > last {
            return;
        }
        self.stretches.remove(&(line, first));
        if first < number {
            self.stretches.insert((line, first), (number - 1, at));
        }
        if number < last {
            self.stretches.insert((line, number + 1), (last, at));
        }
    }

    /// Takes over what another reading noted, as far as it is newer: all that is in its record and was not there when this one
    /// looked last.
    pub fn take_over(&mut self, theirs: &Self, seen: &Self) {
        for (key, stretch) in &theirs.stretches {
            if seen.stretches.get(key) != Some(stretch) {
                self.cover(*key, *stretch);
            }
        }
    }

    /// Notes a stretch, but for the parts of it that are known from a later time.
    fn cover(&mut self, (line, first): (TimelineId, u64), (last, at): (u64, DateTime<Utc>)) {
        let around = self
            .around(line, first)
            .filter(|(_, (end, _))| *end >= first);
        let within = self.stretches.range((line, first)..=(line, last));
        let within = within.map(|(&(_, begin), &stretch)| (begin, stretch));
        let over: BTreeMap<_, _> = around.into_iter().chain(within).collect();
        let mut next = first;
        for (begin, (end, known)) in over {
            if known >= at {
                if next < begin {
                    self.stretches.insert((line, next), (begin - 1, at));
                }
                next = end + 1;
                continue;
            }
            self.stretches.remove(&(line, begin));
            if begin < first {
                self.stretches.insert((line, begin), (first - 1, known));
            }
            if end > last {
                self.stretches.insert((line, last + 1), (end, known));
            }
        }
        if next <= last {
            self.stretches.insert((line, next), (last, at));
        }
    }

    /// The stretch that begins at the segment or before it.
    fn around(&self, line: TimelineId, number: u64) -> Option<(u64, (u64, DateTime<Utc>))> {
        let mut before = self.stretches.range(..=(line, number));
        let (&(found, first), &stretch) = before.next_back()?;
        (found == line).then_some((first, stretch))
    }

    /// Makes two neighbours one until there are few enough, those with the nearest times first: the older time counts. Then
    /// the oldest are forgotten.
    fn bound(&mut self, most: usize) {
        while self.stretches.len() > most {
            let pairs = self.stretches.iter().zip(self.stretches.iter().skip(1));
            let neighbours = pairs.filter_map(|(one, other)| {
                let (&(line, first), &(last, at)) = one;
                let (&(next, begin), &(end, later)) = other;
                let is_next = line == next && last + 1 == begin;
                is_next.then_some(((later - at).abs(), line, first, begin, (end, at.min(later))))
            });
            if let Some((_, line, first, begin, merged)) = neighbours.min() {
                self.stretches.remove(&(line, begin));
                self.stretches.insert((line, first), merged);
            } else if let Some(&oldest) =
                (self.stretches.iter().min_by_key(|(_, (_, at))| *at)).map(|(key, _)| key)
            {
                self.stretches.remove(&oldest);
            }
        }
    }
}

impl WalProof {
    /// What is known before anything was read.
    #[must_use]
    pub const fn nothing(size: WalSegmentSize) -> Self {
        Self {
            at: None,
            by: String::new(),
            proven: Proven::nothing(size),
            tried: Proven::nothing(size),
            damaged: Vec::new(),
            damaged_count: 0,
        }
    }

    /// Takes over what another reading noted in the archive since this one looked last. Damage counts, whoever found it.
    fn take_over(&mut self, theirs: &Self, seen: &Self) {
        self.proven.take_over(&theirs.proven, &seen.proven);
        self.tried.take_over(&theirs.tried, &seen.tried);
        for damage in &theirs.damaged {
            let names = |one: &Damage| one.object == damage.object;
            if self.damaged.len() < DAMAGED_MAX
                && !seen.damaged.contains(damage)
                && !self.damaged.iter().any(names)
            {
                self.damaged_count += 1;
                self.damaged.push(damage.clone());
            }
        }
        for damage in &self.damaged {
            if let Some(ArchiveFileName::Segment(segment)) = layout::wal_claim(&damage.object) {
                self.proven.forget(segment);
            }
        }
    }
}

/// The record of WAL as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct WalRecord {
    format: u32,
    at: DateTime<Utc>,
    by: String,
    system_identifier: Option<SystemIdentifier>,
    segment_bytes: u64,
    stretches: Vec<Stretch>,
    #[serde(default)]
    tried: Vec<Stretch>,
    #[serde(default)]
    damaged: Vec<Damage>,
    #[serde(default)]
    damaged_count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stretch {
    from: String,
    to: String,
    at: DateTime<Utc>,
}

impl Proven {
    /// As it is stored, so many stretches at most.
    fn recorded(&self, most: usize) -> Vec<Stretch> {
        let mut bounded = self.clone();
        bounded.bound(most);
        let stretches = bounded.stretches.iter();
        let stretches = stretches.filter_map(|(&(line, first), &(last, at))| {
            let name = |number| WalSegmentName::from_number(line, number, self.size).ok();
            Some(Stretch {
                from: name(first)?.to_string(),
                to: name(last)?.to_string(),
                at,
            })
        });
        stretches.collect()
    }

    /// As it was stored, but for what says that it was read later than that; none where the record is wrong.
    fn from_record(
        stretches: &[Stretch],
        size: WalSegmentSize,
        most: usize,
        latest: DateTime<Utc>,
    ) -> Option<Self> {
        if stretches.len() > most {
            return None;
        }
        let mut read = Self::nothing(size);
        for stretch in stretches {
            let from = WalSegmentName::parse(&stretch.from).ok()?;
            let to = WalSegmentName::parse(&stretch.to).ok()?;
            let (first, last) = (from.number(size).ok()?, to.number(size).ok()?);
            let line = from.timeline();
            let before = read.around(line, last);
            let is_apart = before.is_none_or(|(_, (end, _))| end < first);
            if line != to.timeline() || last < first || !is_apart {
                return None;
            }
            read.stretches.insert((line, first), (last, stretch.at));
        }
        read.stretches.retain(|_, (_, at)| *at <= latest);
        Some(read)
    }
}

impl WalRecord {
    fn of(proof: &WalProof, owner: Option<SystemIdentifier>, now: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT,
            at: proof.at.unwrap_or(now),
            by: proof.by.clone(),
            system_identifier: owner,
            segment_bytes: proof.proven.size.bytes(),
            stretches: proof.proven.recorded(STRETCHES_MAX),
            tried: proof.tried.recorded(TRIED_MAX),
            damaged: proof.damaged.iter().take(DAMAGED_MAX).cloned().collect(),
            damaged_count: proof.damaged_count,
        }
    }

    /// What it says, where it is about this archive. Of times that are still to come it says nothing; damage stays damage.
    fn proof(self, owner: Option<SystemIdentifier>, now: DateTime<Utc>) -> Option<WalProof> {
        let is_ours =
            self.system_identifier.is_none() || owner.is_none() || self.system_identifier == owner;
        if self.format != FORMAT || !is_ours {
            return None;
        }
        let size = WalSegmentSize::new(self.segment_bytes).ok()?;
        let latest = now + CLOCKS_APART;
        Some(WalProof {
            at: Some(if self.at > latest { now } else { self.at }),
            by: self.by,
            proven: Proven::from_record(&self.stretches, size, STRETCHES_MAX, latest)?,
            tried: Proven::from_record(&self.tried, size, TRIED_MAX, latest)?,
            damaged: self.damaged,
            damaged_count: self.damaged_count,
        })
    }
}

impl Archive {
    /// What came of the last reading of the backup; none where it was not read, or where its record cannot be used.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn backup_proof(&self, entry: &BackupEntry) -> Result<Option<BackupProof>> {
        let noted = self.noted(entry).await?;
        Ok(noted.filter(|proof| proof.depth != Depth::Nothing))
    }

    /// What came of the last reading of the backup, or of the last attempt.
    async fn noted(&self, entry: &BackupEntry) -> Result<Option<BackupProof>> {
        let key = Self::key(&layout::verified(&entry.name))?;
        let Some(bytes) = self.read_record(&key).await? else {
            return Ok(None);
        };
        let proof: Option<BackupProof> = serde_json::from_slice(&bytes).ok();
        let proof =
            proof.filter(|proof| proof.format == FORMAT && proof.committed == entry.modified);
        Ok(proof.and_then(|proof| proof.believed(self.clock().now())))
    }

    /// Stores that a host tried to read a backup and could not. What another one found stays.
    ///
    /// # Errors
    /// As [`Archive::note_backup`].
    pub async fn note_attempt(&self, entry: &BackupEntry, at: DateTime<Utc>) -> Result<()> {
        let mut proof = match self.noted(entry).await? {
            Some(proof) => proof,
            None => BackupProof {
                depth: Depth::Nothing,
                ..self.proof_of(entry, at, BackupFound::default())
            },
        };
        proof.tried = Some(at);
        self.store_proof(entry, &proof).await
    }

    /// Stores what came of reading a backup. In an encrypted archive without words about its files.
    ///
    /// # Errors
    /// The store's failures; [`Kind::PermissionDenied`](crate::error::Kind::PermissionDenied) where this host may only read.
    pub async fn note_backup(
        &self,
        entry: &BackupEntry,
        at: DateTime<Utc>,
        found: BackupFound,
    ) -> Result<()> {
        let mut proof = self.proof_of(entry, at, found);
        if self.hides_words().await? {
            proof.damage = proof.damage.map(Damage::without_words);
        }
        self.store_proof(entry, &proof).await
    }

    fn proof_of(&self, entry: &BackupEntry, at: DateTime<Utc>, found: BackupFound) -> BackupProof {
        BackupProof {
            format: FORMAT,
            at,
            by: self.inner.created_by.clone(),
            depth: Depth::Content,
            committed: entry.modified,
            files: found.files,
            bytes: found.bytes,
            stored_bytes: found.stored_bytes,
            damage: found.damage,
            newest: found.newest,
            tried: None,
        }
    }

    async fn store_proof(&self, entry: &BackupEntry, proof: &BackupProof) -> Result<()> {
        // A record of a backup that is gone, or going, would be taken for the remains of one that is being written.
        let sentinel = Self::key(&layout::sentinel(&entry.name))?;
        let deletion = Self::key(&layout::deletion(&entry.name))?;
        let asked = |key| async move {
            let found = self.store().head(key).await;
            found.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))
        };
        if asked(&sentinel).await?.is_none() || asked(&deletion).await?.is_some() {
            return Ok(());
        }
        let key = Self::key(&layout::verified(&entry.name))?;
        self.store_record(&key, serde_json::to_vec(proof)).await?;
        // A deletion that ended in between has not seen it, and it would be all that is left of the backup.
        if asked(&sentinel).await?.is_some() {
            return Ok(());
        }
        let deleted = self.store().delete(&key).await;
        deleted.map_err(|error| OpError::from_store(error, format_args!("delete {key}")))?;
        Ok(())
    }

    /// Whether what is stored beside the content must not tell of it. A host that only reads has no key to write with.
    async fn hides_words(&self) -> Result<bool> {
        let identity = self.read_identity().await?;
        let is_sealed = identity.is_some_and(|one| one.encryption != Encryption::None);
        Ok(is_sealed || self.write_key().method() != Encryption::None)
    }

    /// What is known of all WAL; nothing where there is no record, or none that can be used.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn wal_proof(&self, owner: Option<SystemIdentifier>) -> Result<Option<WalProof>> {
        let key = Self::key(layout::VERIFIED_WAL)?;
        let Some(bytes) = self.read_record(&key).await? else {
            return Ok(None);
        };
        let record: Option<WalRecord> = serde_json::from_slice(&bytes).ok();
        Ok(record.and_then(|record| record.proof(owner, self.clock().now())))
    }

    /// Stores what is known of all WAL, with what another reading stored since this one read or stored `seen`. In an encrypted archive
    /// without words about the content. Gives what was stored before.
    ///
    /// # Errors
    /// As [`Archive::note_backup`].
    pub async fn note_wal(
        &self,
        proof: &mut WalProof,
        seen: &WalProof,
        owner: Option<SystemIdentifier>,
    ) -> Result<Option<WalProof>> {
        let theirs = self.wal_proof(owner).await?;
        let theirs = theirs.filter(|theirs| theirs.proven.size == proof.proven.size);
        if let Some(theirs) = &theirs {
            proof.take_over(theirs, seen);
        }
        if self.hides_words().await? {
            let damaged = std::mem::take(&mut proof.damaged).into_iter();
            proof.damaged = damaged.map(Damage::without_words).collect();
        }
        proof.by.clone_from(&self.inner.created_by);
        let record = WalRecord::of(proof, owner, self.clock().now());
        let key = Self::key(layout::VERIFIED_WAL)?;
        self.store_record(&key, serde_json::to_vec(&record)).await?;
        Ok(theirs)
    }

    /// A record, none where there is none of a size that records have.
    async fn read_record(&self, key: &ObjectKey) -> Result<Option<bytes::Bytes>> {
        match self.read_up_to(key, RECORD_MAX).await {
            Err(error) if error.kind == crate::error::Kind::CorruptData => {
                tracing::debug!(%key, "is no record that can be read: {}", error.chain());
                Ok(None)
            }
            other => other,
        }
    }

    async fn store_record(
        &self,
        key: &ObjectKey,
        record: serde_json::Result<Vec<u8>>,
    ) -> Result<()> {
        let record = record.map_err(|error| {
            OpError::internal(format!("composed no JSON for {key}")).source(error)
        })?;
        let put = self.store().put(key, body_from(record.into())).await;
        put.map_err(|error| OpError::from_store(error, format_args!("store {key}")))?;
        Ok(())
    }

    /// What was read of these backups, in their order, and what was tried.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn backup_proofs(
        &self,
        entries: &[BackupEntry],
    ) -> Result<Vec<(BackupName, Option<BackupProof>)>> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        /// As many as sentinels are read at the same time.
        const AT_ONCE: usize = 8;
        let reads: Vec<_> = entries
            .iter()
            .map(async |entry| {
                let proof = self.noted(entry).await?;
                Ok::<_, OpError>((entry.name.clone(), proof))
            })
            .collect();
        stream::iter(reads).buffered(AT_ONCE).try_collect().await
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::testing::{Bench, segment_name};

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(1 << 20).unwrap()
    }

    fn on(line: u32, number: u32) -> WalSegmentName {
        segment_name(&format!("{line:08X}00000000{number:08X}"))
    }

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    #[test]
    fn what_one_reading_proves_is_one_stretch_in_whatever_order_it_comes() {
        let mut proven = Proven::nothing(size());
        for number in [3, 1, 5, 2, 4] {
            proven.add(on(1, number), at(1));
        }
        proven.add(on(2, 6), at(1));
        assert_eq!((proven.stretches.len(), proven.count()), (2, 6));
        assert_eq!(proven.at(on(1, 3)), Some(at(1)));
        assert_eq!((proven.at(on(1, 6)), proven.at(on(1, 0))), (None, None));
        // A later reading of the middle, and one that is not known any more.
        proven.add(on(1, 3), at(9));
        assert_eq!(proven.stretches.len(), 4);
        assert_eq!(proven.at(on(1, 3)), Some(at(9)));
        assert_eq!(proven.at(on(1, 4)), Some(at(1)));
        proven.forget(on(1, 4));
        proven.forget(on(1, 9));
        assert_eq!(
            (proven.at(on(1, 4)), proven.at(on(1, 5))),
            (None, Some(at(1)))
        );
        assert_eq!(proven.times(), Some((at(1), at(9))));
    }

    #[test]
    fn few_stretches_are_kept_and_the_older_time_counts() {
        let mut proven = Proven::nothing(size());
        for (number, minutes) in [(1, 1), (2, 50), (3, 52), (9, 70)] {
            proven.add(on(1, number), at(minutes));
        }
        proven.bound(3);
        assert_eq!(
            (proven.at(on(1, 2)), proven.at(on(1, 3))),
            (Some(at(50)), Some(at(50)))
        );
        proven.bound(2);
        assert_eq!(proven.at(on(1, 3)), Some(at(1)));
        // What is apart is never made one: the oldest goes.
        proven.bound(1);
        assert_eq!(
            (proven.at(on(1, 3)), proven.at(on(1, 9))),
            (None, Some(at(70)))
        );
    }

    #[tokio::test]
    async fn the_record_of_wal_is_kept_and_what_is_none_is_nothing() {
        let bench = Bench::new();
        let owner = Some(SystemIdentifier::new(7));
        assert_eq!(bench.archive.wal_proof(owner).await.unwrap(), None);
        let mut proof = WalProof::nothing(size());
        proof.at = Some(at(3));
        proof.proven.add(on(1, 2), at(3));
        proof.proven.add(on(1, 4), at(3));
        proof.damaged_count = 1;
        proof.damaged = vec![Damage {
            object: "wal_005/x".to_owned(),
            found: "is cut".to_owned(),
            missing: false,
        }];
        let seen = WalProof::nothing(size());
        bench
            .archive
            .note_wal(&mut proof, &seen, owner)
            .await
            .unwrap();
        let read = bench.archive.wal_proof(owner).await.unwrap();
        assert_eq!(read, Some(proof));
        // Another cluster's says nothing of this one.
        let other = Some(SystemIdentifier::new(8));
        assert_eq!(bench.archive.wal_proof(other).await.unwrap(), None);
        let key = Archive::key(layout::VERIFIED_WAL).unwrap();
        for damaged in [
            "",
            "{}",
            r#"{"format":1,"at":"2026-01-01T00:00:00Z","by":"","system_identifier":null,"segment_bytes":1048576,
                "stretches":[{"from":"000000010000000000000002","to":"000000010000000000000001","at":"2026-01-01T00:00:00Z"}]}"#,
            r#"{"format":2,"at":"2026-01-01T00:00:00Z","by":"","system_identifier":null,"segment_bytes":1048576,"stretches":[]}"#,
        ] {
            bench.memory.insert(&key, damaged.as_bytes().to_vec());
            assert_eq!(
                bench.archive.wal_proof(owner).await.unwrap(),
                None,
                "{damaged}"
            );
        }
        bench.memory.insert(&key, vec![b' '; 3 << 20]);
        assert_eq!(bench.archive.wal_proof(owner).await.unwrap(), None);
    }

    #[test]
    fn what_another_reading_noted_is_taken_over_where_it_is_newer() {
        let spans = |proven: &Proven| {
            let stretches = proven.stretches.iter();
            let spans = stretches.map(|((_, first), (last, at))| (*first, *last, *at));
            spans.collect::<Vec<_>>()
        };
        let of = |stretches: &[(u32, u32, i64)]| {
            let mut proven = Proven::nothing(size());
            for &(first, last, minutes) in stretches {
                for number in first..=last {
                    proven.add(on(1, number), at(minutes));
                }
            }
            proven
        };
        let seen = of(&[(1, 9, 1)]);
        let mine = of(&[(1, 2, 5), (5, 6, 1), (8, 9, 3)]);
        let mut both = mine.clone();
        // What was there before is not taken over: it was forgotten for a reason.
        both.take_over(&seen, &seen);
        assert_eq!(spans(&both), spans(&mine));
        both.take_over(&of(&[(2, 8, 4)]), &seen);
        assert_eq!(spans(&both), [(1, 2, at(5)), (3, 8, at(4)), (9, 9, at(3))]);
        both.take_over(&of(&[(1, 9, 2), (12, 13, 2)]), &seen);
        assert_eq!(spans(&both)[3..], [(12, 13, at(2))]);
        both.take_over(&of(&[(4, 5, 7)]), &seen);
        assert_eq!(
            spans(&both)[1..4],
            [(3, 3, at(4)), (4, 5, at(7)), (6, 8, at(4))]
        );
    }

    #[tokio::test]
    async fn two_readings_note_what_both_found() {
        let bench = Bench::new();
        let damage = |number: u32| Damage {
            object: layout::wal(&on(1, number).into(), wale_format::Codec::Zstd),
            found: "is cut".to_owned(),
            missing: false,
        };
        let note = async |proof: &mut WalProof, seen: &WalProof| {
            bench.archive.note_wal(proof, seen, None).await.unwrap();
            bench.archive.wal_proof(None).await.unwrap().unwrap()
        };
        let begun = {
            let mut begun = WalProof::nothing(size());
            (begun.damaged, begun.damaged_count) = (vec![damage(1)], 1);
            note(&mut begun, &WalProof::nothing(size())).await
        };
        let (mut one, mut other) = (begun.clone(), begun.clone());
        one.proven.add(on(1, 2), at(5));
        one.proven.add(on(1, 3), at(5));
        note(&mut one, &begun).await;
        other.proven.add(on(1, 4), at(6));
        other.damaged.push(damage(2));
        other.damaged_count = 2;
        let stored = note(&mut other, &begun).await;
        assert_eq!(stored.damaged, [damage(1), damage(2)]);
        let times = [2, 3, 4].map(|number| stored.proven.at(on(1, number)));
        assert_eq!(times, [None, Some(at(5)), Some(at(6))]);
        // The first finds good again what was damaged in the beginning.
        let seen = one.clone();
        (one.damaged, one.damaged_count) = (Vec::new(), 0);
        let stored = note(&mut one, &seen).await;
        assert_eq!((stored.damaged, stored.damaged_count), (vec![damage(2)], 1));
    }

    #[tokio::test]
    async fn what_was_read_in_the_future_proves_nothing() {
        let bench = Bench::new();
        let now = bench.archive.clock().now();
        let mut proof = WalProof::nothing(size());
        for (number, minutes) in [(2, 9), (4, 11)] {
            proof
                .proven
                .add(on(1, number), now + TimeDelta::minutes(minutes));
        }
        (proof.damaged_count, proof.at) = (1, Some(now + TimeDelta::days(900)));
        let seen = WalProof::nothing(size());
        bench
            .archive
            .note_wal(&mut proof, &seen, None)
            .await
            .unwrap();
        let read = bench.archive.wal_proof(None).await.unwrap().unwrap();
        assert_eq!((read.proven.count(), read.damaged_count), (1, 1));
        assert!(read.proven.at(on(1, 2)).is_some());
        assert!(read.at.unwrap() < now + CLOCKS_APART);
        let entry = backup(&bench).await;
        let damage = Damage {
            object: "x".to_owned(),
            found: "is cut".to_owned(),
            missing: false,
        };
        for damage in [None, Some(damage)] {
            let is_damaged = damage.is_some();
            let found = BackupFound {
                damage,
                ..BackupFound::default()
            };
            let at = now + TimeDelta::days(900);
            bench.archive.note_backup(&entry, at, found).await.unwrap();
            let read = bench.archive.backup_proof(&entry).await.unwrap();
            assert_eq!(read.is_some(), is_damaged);
            assert!(read.is_none_or(|read| read.at < now + CLOCKS_APART));
        }
    }

    #[tokio::test]
    async fn an_encrypted_archive_tells_no_words() {
        let bench = Bench::new();
        let entry = backup(&bench).await;
        let damage = |missing| Damage {
            object: "wal_005/x".to_owned(),
            found: "file base/5/secret differs".to_owned(),
            missing,
        };
        for (encryption, found) in [
            (Encryption::None, "file base/5/secret differs"),
            (Encryption::Age, "is damaged"),
        ] {
            if encryption != Encryption::None {
                bench.claim().await;
                let mut identity = bench.archive.read_identity().await.unwrap().unwrap();
                identity.encryption = encryption;
                let key = Archive::key(layout::IDENTITY).unwrap();
                let text = serde_json::to_vec(&identity).unwrap();
                bench.memory.insert(&key, text);
            }
            let of_backup = BackupFound {
                damage: Some(damage(false)),
                ..BackupFound::default()
            };
            let noted = bench.archive.note_backup(&entry, at(5), of_backup);
            noted.await.unwrap();
            let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
            let mut wal = WalProof::nothing(size());
            wal.damaged.push(damage(false));
            let seen = wal.clone();
            let noted = bench.archive.note_wal(&mut wal, &seen, None);
            noted.await.unwrap();
            let stored = bench.archive.wal_proof(None).await.unwrap().unwrap();
            assert_eq!(stored.damaged[0].found, found);
            assert_eq!(proof.damage.unwrap().found, found);
        }
    }

    #[tokio::test]
    async fn an_attempt_is_remembered_and_takes_no_proof_away() {
        let bench = Bench::new();
        let entry = backup(&bench).await;
        let noted = async || {
            let noted = bench
                .archive
                .backup_proofs(std::slice::from_ref(&entry))
                .await;
            noted.unwrap().remove(0).1.unwrap()
        };
        bench.archive.note_attempt(&entry, at(7)).await.unwrap();
        assert_eq!(
            (noted().await.read(), noted().await.proven()),
            (at(7), None)
        );
        assert_eq!(bench.archive.backup_proof(&entry).await.unwrap(), None);
        let found = BackupFound::default();
        bench
            .archive
            .note_backup(&entry, at(8), found)
            .await
            .unwrap();
        bench.archive.note_attempt(&entry, at(9)).await.unwrap();
        assert_eq!(
            (noted().await.read(), noted().await.proven()),
            (at(9), Some(at(8)))
        );
    }

    async fn backup(bench: &Bench) -> BackupEntry {
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let sentinel = Archive::key(&layout::sentinel(&name)).unwrap();
        let text = br#"{"wal_segment_backup_stop": "000000010000000000000002"}"#;
        bench.memory.insert(&sentinel, text.to_vec());
        bench.archive.entry(&name).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_record_is_of_one_backup_and_none_is_left_of_one_that_is_gone() {
        let bench = Bench::new();
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let sentinel = Archive::key(&layout::sentinel(&name)).unwrap();
        let text = br#"{"wal_segment_backup_stop": "000000010000000000000002"}"#;
        bench.memory.insert(&sentinel, text.to_vec());
        let entry = bench.archive.entry(&name).await.unwrap().unwrap();
        assert_eq!(bench.archive.backup_proof(&entry).await.unwrap(), None);
        let found = BackupFound {
            files: 3,
            ..BackupFound::default()
        };
        let note = || bench.archive.note_backup(&entry, at(5), found.clone());
        note().await.unwrap();
        let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
        assert_eq!((proof.at, proof.files, proof.damage), (at(5), 3, None));
        assert_eq!(proof.by, "wale test");
        // The same name, another backup.
        let other = BackupEntry {
            modified: entry.modified + TimeDelta::seconds(1),
            ..entry.clone()
        };
        assert_eq!(bench.archive.backup_proof(&other).await.unwrap(), None);
        let record = Archive::key(&layout::verified(&name)).unwrap();
        for gone in [false, true] {
            bench.archive.store().delete(&record).await.unwrap();
            if gone {
                bench.archive.store().delete(&sentinel).await.unwrap();
            } else {
                let note = Archive::key(&layout::deletion(&name)).unwrap();
                bench.memory.insert(&note, b"x".to_vec());
            }
            note().await.unwrap();
            assert_eq!(bench.archive.backup_proof(&entry).await.unwrap(), None);
        }
    }
}
