//! What was read to verify the archive, when, and what was found: kept in the archive, so that any host knows it.
//!
//! Of each backup an object in its folder, which goes with it; of all WAL one object at the archive's root. They only help:
//! one that is lost, that cannot be read, or that is of another backup of the same name, costs that it is read again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use wale_format::BackupName;
use wale_format::layout;
use wale_pg::{SystemIdentifier, TimelineId, WalSegmentName, WalSegmentSize};
use wale_storage::{ObjectKey, body_from};

use crate::error::{OpError, Result};
use crate::{Archive, BackupEntry};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

/// Stretches of WAL that are remembered: 4,096 × some 110 bytes = 450 kB. A run adds one for each timeline, and some around
/// what it found damaged or left out.
const STRETCHES_MAX: usize = 4096;

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
}

/// How much was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Every byte of every object.
    Content,
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
            damaged: Vec::new(),
            damaged_count: 0,
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

impl WalRecord {
    fn of(proof: &WalProof, owner: Option<SystemIdentifier>, now: DateTime<Utc>) -> Self {
        let size = proof.proven.size;
        let mut proven = proof.proven.clone();
        proven.bound(STRETCHES_MAX);
        let stretches = proven.stretches.iter();
        let stretches = stretches.filter_map(|(&(line, first), &(last, at))| {
            let name = |number| WalSegmentName::from_number(line, number, size).ok();
            Some(Stretch {
                from: name(first)?.to_string(),
                to: name(last)?.to_string(),
                at,
            })
        });
        Self {
            format: FORMAT,
            at: proof.at.unwrap_or(now),
            by: proof.by.clone(),
            system_identifier: owner,
            segment_bytes: size.bytes(),
            stretches: stretches.collect(),
            damaged: proof.damaged.iter().take(DAMAGED_MAX).cloned().collect(),
            damaged_count: proof.damaged_count,
        }
    }

    /// What it says, where it is about this archive.
    fn proof(self, owner: Option<SystemIdentifier>) -> Option<WalProof> {
        let is_ours =
            self.system_identifier.is_none() || owner.is_none() || self.system_identifier == owner;
        if self.format != FORMAT || !is_ours || self.stretches.len() > STRETCHES_MAX {
            return None;
        }
        let mut proven = Proven::nothing(WalSegmentSize::new(self.segment_bytes).ok()?);
        for stretch in &self.stretches {
            let from = WalSegmentName::parse(&stretch.from).ok()?;
            let to = WalSegmentName::parse(&stretch.to).ok()?;
            let (first, last) = (from.number(proven.size).ok()?, to.number(proven.size).ok()?);
            let line = from.timeline();
            let before = proven.around(line, last);
            let is_apart = before.is_none_or(|(_, (end, _))| end < first);
            if line != to.timeline() || last < first || !is_apart {
                return None;
            }
            proven.stretches.insert((line, first), (last, stretch.at));
        }
        Some(WalProof {
            at: Some(self.at),
            by: self.by,
            proven,
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
        let key = Self::key(&layout::verified(&entry.name))?;
        let Some(bytes) = self.read_record(&key).await? else {
            return Ok(None);
        };
        let proof: Option<BackupProof> = serde_json::from_slice(&bytes).ok();
        Ok(proof.filter(|proof| proof.format == FORMAT && proof.committed == entry.modified))
    }

    /// Stores what came of reading a backup.
    ///
    /// # Errors
    /// The store's failures; [`Kind::PermissionDenied`](crate::error::Kind::PermissionDenied) where this host may only read.
    pub async fn note_backup(
        &self,
        entry: &BackupEntry,
        at: DateTime<Utc>,
        found: BackupFound,
    ) -> Result<()> {
        let proof = BackupProof {
            format: FORMAT,
            at,
            by: self.inner.created_by.clone(),
            depth: Depth::Content,
            committed: entry.modified,
            files: found.files,
            bytes: found.bytes,
            stored_bytes: found.stored_bytes,
            damage: found.damage,
        };
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
        self.store_record(&key, serde_json::to_vec(&proof)).await
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
        Ok(record.and_then(|record| record.proof(owner)))
    }

    /// Stores what is known of all WAL.
    ///
    /// # Errors
    /// As [`Archive::note_backup`].
    pub async fn note_wal(
        &self,
        proof: &mut WalProof,
        owner: Option<SystemIdentifier>,
    ) -> Result<()> {
        proof.by.clone_from(&self.inner.created_by);
        let record = WalRecord::of(proof, owner, self.clock().now());
        let key = Self::key(layout::VERIFIED_WAL)?;
        self.store_record(&key, serde_json::to_vec(&record)).await
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

    /// What was read of these backups, in their order.
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
                let proof = self.backup_proof(entry).await?;
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
        bench.archive.note_wal(&mut proof, owner).await.unwrap();
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
