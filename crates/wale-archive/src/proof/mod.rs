//! What was read to verify the archive, when, and what was found: kept in the archive, so that any host knows it.
//!
//! Of each backup an object in its folder, which goes with it; of all WAL one object at the archive's root. They only help:
//! one that is lost, that cannot be read, or that is of another backup of the same name, costs that it is read again.

mod proven;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use wale_format::layout;
use wale_format::{BackupName, Encryption};
use wale_pg::{ArchiveFileName, SystemIdentifier, WalSegmentSize};
use wale_storage::{ObjectKey, body_from};

pub use self::proven::Proven;
use self::proven::Stretch;
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

/// Damaged objects of one backup that are named; all are counted. 20 × at most 2 KiB = 40 KiB.
pub const BACKUP_DAMAGED_MAX: usize = 20;

/// How often a record is written again because another reading wrote in between. Each time another verification of the same archive must end
/// in the same moment.
const WRITES_MAX: u32 = 4;

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
    /// Further objects of it that are damaged, the first [`BACKUP_DAMAGED_MAX`] with that one.
    #[serde(default)]
    pub more_damage: Vec<Damage>,
    /// How many are damaged in all.
    #[serde(default)]
    pub damaged_count: u64,
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

    /// What is damaged, as far as it is named.
    pub fn damages(&self) -> impl Iterator<Item = &Damage> {
        self.damage.iter().chain(&self.more_damage)
    }

    /// How many objects are damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged_count.max(self.damages().count() as u64)
    }

    /// Whether the two tell of the same reading; attempts do not count.
    fn is_same_reading(&self, other: &Self) -> bool {
        let reading = |one: &Self| (one.at, one.depth, one.damaged());
        reading(self) == reading(other) && self.by == other.by && self.damage == other.damage
    }

    /// Takes over what another reading noted meanwhile. Damage counts, whoever found it: two readings of the same objects that do not agree
    /// are no proof.
    fn take_over(&mut self, theirs: &Self) {
        let tried = self.tried.max(theirs.tried);
        match (self.depth, theirs.depth) {
            (_, Depth::Nothing) => {}
            (Depth::Nothing, Depth::Content) => *self = theirs.clone(),
            (Depth::Content, Depth::Content) => {
                let mut all: Vec<Damage> = self.damages().cloned().collect();
                for damage in theirs.damages() {
                    if all.iter().all(|known| known.object != damage.object) {
                        all.push(damage.clone());
                    }
                }
                let count = self.damaged().max(theirs.damaged());
                self.damaged_count = count.max(all.len() as u64);
                self.at = self.at.max(theirs.at);
                let mut all = all.into_iter();
                self.damage = all.next();
                self.more_damage = all.take(BACKUP_DAMAGED_MAX - 1).collect();
            }
        }
        self.tried = tried;
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
    /// What is damaged, the first [`BACKUP_DAMAGED_MAX`].
    pub damaged: Vec<Damage>,
    /// How much there is.
    pub damaged_count: u64,
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
        // Read again since, and found to be so again.
        let is_again = |damage: &Damage| match layout::wal_claim(&damage.object) {
            Some(ArchiveFileName::Segment(segment)) => {
                theirs.tried.at(segment) > seen.tried.at(segment)
            }
            _ => false,
        };
        for damage in &theirs.damaged {
            let names = |one: &Damage| one.object == damage.object;
            if self.damaged.len() < DAMAGED_MAX
                && (!seen.damaged.contains(damage) || is_again(damage))
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
        // More is damaged there than is named: it may be any of what was tried.
        if theirs.damaged_count > theirs.damaged.len() as u64 && theirs.at > seen.at {
            self.damaged_count = self.damaged_count.max(theirs.damaged_count);
            self.proven.forget_older(&theirs.tried);
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

impl WalRecord {
    fn of(proof: &WalProof, owner: Option<SystemIdentifier>, now: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT,
            at: proof.at.unwrap_or(now),
            by: proof.by.clone(),
            system_identifier: owner,
            segment_bytes: proof.proven.size().bytes(),
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
        let noted = self.noted(entry).await?;
        let mut proof = noted.clone().unwrap_or_else(|| BackupProof {
            depth: Depth::Nothing,
            ..self.proof_of(entry, at, BackupFound::default())
        });
        proof.tried = Some(at);
        self.note_proof(entry, proof, noted.as_ref()).await
    }

    /// Stores what came of reading a backup, with what another reading stored since this one saw `seen`. In an encrypted archive without words
    /// about its files.
    ///
    /// # Errors
    /// The store's failures; [`Kind::PermissionDenied`](crate::error::Kind::PermissionDenied) where this host may only read.
    pub async fn note_backup(
        &self,
        entry: &BackupEntry,
        at: DateTime<Utc>,
        found: BackupFound,
        seen: Option<&BackupProof>,
    ) -> Result<()> {
        let mut proof = self.proof_of(entry, at, found);
        if self.hides_words().await? {
            proof.damage = proof.damage.map(Damage::without_words);
            let more = std::mem::take(&mut proof.more_damage).into_iter();
            proof.more_damage = more.map(Damage::without_words).collect();
        }
        self.note_proof(entry, proof, seen).await
    }

    /// Notes damage once more that was noted at `noted_at`, where the record does not have it any more: another reading that had looked before
    /// may have written it since, and nobody could see that at once. Whoever began later has seen it, and found that it was mended.
    ///
    /// # Errors
    /// As [`Archive::note_backup`].
    pub async fn keep_damage(
        &self,
        entry: &BackupEntry,
        (at, noted_at): (DateTime<Utc>, DateTime<Utc>),
        found: BackupFound,
    ) -> Result<()> {
        let noted = self.noted(entry).await?;
        let has_seen = |noted: &BackupProof| noted.at > noted_at + CLOCKS_APART;
        if noted.as_ref().is_some_and(has_seen) {
            return Ok(());
        }
        let is_there = |damage: &Damage| {
            let mut known = noted.iter().flat_map(BackupProof::damages);
            known.any(|known| known.object == damage.object)
        };
        // Of many only some are named, and another reading may name others.
        let is_full = noted
            .as_ref()
            .is_some_and(|noted| noted.damages().count() >= BACKUP_DAMAGED_MAX);
        if is_full || found.damaged.iter().all(is_there) {
            return Ok(());
        }
        self.note_backup(entry, at, found, None).await
    }

    /// Writes a record until nobody has written another one meanwhile. No store compares before it writes. So what another reading noted is
    /// taken over before, and looked for again after: of two that write at the same time the later one finds the other's, or the
    /// other finds that its own is gone.
    async fn note_proof(
        &self,
        entry: &BackupEntry,
        mut proof: BackupProof,
        seen: Option<&BackupProof>,
    ) -> Result<()> {
        let key = Self::key(&layout::verified(&entry.name))?;
        for _ in 0..WRITES_MAX {
            if let Some(theirs) = self.noted(entry).await?
                && seen.is_none_or(|seen| !seen.is_same_reading(&theirs))
            {
                proof.take_over(&theirs);
            }
            let written = self.store_proof(entry, &proof).await?;
            let stored = self.read_record(&key).await?;
            if stored.is_none_or(|stored| stored[..] == written[..]) {
                break;
            }
        }
        Ok(())
    }

    fn proof_of(&self, entry: &BackupEntry, at: DateTime<Utc>, found: BackupFound) -> BackupProof {
        let mut damaged = found.damaged.into_iter();
        BackupProof {
            format: FORMAT,
            at,
            by: self.inner.created_by.clone(),
            depth: Depth::Content,
            committed: entry.modified,
            files: found.files,
            bytes: found.bytes,
            stored_bytes: found.stored_bytes,
            damage: damaged.next(),
            more_damage: damaged.take(BACKUP_DAMAGED_MAX - 1).collect(),
            damaged_count: found.damaged_count,
            newest: found.newest,
            tried: None,
        }
    }

    /// Gives the bytes that were written.
    async fn store_proof(&self, entry: &BackupEntry, proof: &BackupProof) -> Result<Vec<u8>> {
        // A record of a backup that is gone, or going, would be taken for the remains of one that is being written.
        let sentinel = Self::key(&layout::sentinel(&entry.name))?;
        let deletion = Self::key(&layout::deletion(&entry.name))?;
        let asked = |key| async move {
            let found = self.store().head(key).await;
            found.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))
        };
        if asked(&sentinel).await?.is_none() || asked(&deletion).await?.is_some() {
            return Ok(Vec::new());
        }
        let key = Self::key(&layout::verified(&entry.name))?;
        let written = self.store_record(&key, serde_json::to_vec(proof)).await?;
        // A deletion that ended in between has not seen it, and it would be all that is left of the backup.
        if asked(&sentinel).await?.is_some() {
            return Ok(written);
        }
        let deleted = self.store().delete(&key).await;
        deleted.map_err(|error| OpError::from_store(error, format_args!("delete {key}")))?;
        Ok(written)
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
        let key = Self::key(layout::VERIFIED_WAL)?;
        let hides_words = self.hides_words().await?;
        let mut before = None;
        for _ in 0..WRITES_MAX {
            let theirs = self.wal_proof(owner).await?;
            let theirs = theirs.filter(|theirs| theirs.proven.size() == proof.proven.size());
            if let Some(theirs) = &theirs {
                proof.take_over(theirs, seen);
            }
            if hides_words {
                let damaged = std::mem::take(&mut proof.damaged).into_iter();
                proof.damaged = damaged.map(Damage::without_words).collect();
            }
            proof.by.clone_from(&self.inner.created_by);
            let record = WalRecord::of(proof, owner, self.clock().now());
            let written = self.store_record(&key, serde_json::to_vec(&record)).await?;
            before = theirs;
            // As `note_proof` says.
            let stored = self.read_record(&key).await?;
            if stored.is_none_or(|stored| stored[..] == written[..]) {
                break;
            }
        }
        Ok(before)
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
    ) -> Result<Vec<u8>> {
        let record = record.map_err(|error| {
            OpError::internal(format!("composed no JSON for {key}")).source(error)
        })?;
        let body = body_from(record.clone().into());
        let put = self.store().put(key, body).await;
        put.map_err(|error| OpError::from_store(error, format_args!("store {key}")))?;
        Ok(record)
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

    use wale_pg::WalSegmentName;
    use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

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

    /// One reads as good what another has read as damaged since both looked: with the words of before, or beyond what is named.
    #[tokio::test]
    async fn what_another_reading_finds_damaged_again_is_not_proven() {
        let bench = Bench::new();
        let damage = Damage {
            object: layout::wal(&on(1, 1).into(), wale_format::Codec::Zstd),
            found: "is cut".to_owned(),
            missing: false,
        };
        let note = async |proof: &mut WalProof, seen: &WalProof| {
            bench.archive.note_wal(proof, seen, None).await.unwrap();
            bench.archive.wal_proof(None).await.unwrap().unwrap()
        };
        let mut begun = WalProof::nothing(size());
        (begun.damaged, begun.damaged_count) = (vec![damage.clone()], 1);
        (begun.at, begun.tried) = (Some(at(1)), Proven::nothing(size()));
        begun.tried.add(on(1, 1), at(1));
        let begun = note(&mut begun, &WalProof::nothing(size())).await;
        let (mut one, mut other) = (begun.clone(), begun.clone());
        other.at = Some(at(6));
        other.tried.add(on(1, 1), at(6));
        other.tried.add(on(1, 3), at(6));
        other.damaged_count = 2;
        note(&mut other, &begun).await;
        one.at = Some(at(5));
        (one.damaged, one.damaged_count) = (Vec::new(), 0);
        one.tried.forget(on(1, 1));
        for number in 1..=4 {
            one.proven.add(on(1, number), at(5));
        }
        let stored = note(&mut one, &begun).await;
        assert_eq!((stored.damaged, stored.damaged_count), (vec![damage], 2));
        let times = [1, 2, 3, 4].map(|number| stored.proven.at(on(1, number)));
        assert_eq!(times, [None, Some(at(5)), None, Some(at(5))]);
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
                damaged: damage.into_iter().collect(),
                ..BackupFound::default()
            };
            let at = now + TimeDelta::days(900);
            let noted = bench.archive.note_backup(&entry, at, found, None);
            noted.await.unwrap();
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
                damaged: vec![damage(false), damage(true)],
                ..BackupFound::default()
            };
            let seen = bench.archive.backup_proof(&entry).await.unwrap();
            let noted = bench
                .archive
                .note_backup(&entry, at(5), of_backup, seen.as_ref());
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
            let is_plain = encryption == Encryption::None;
            let more = &proof.more_damage[0].found;
            assert_eq!(more.contains("secret"), is_plain, "{more}");
        }
    }

    #[tokio::test]
    async fn damage_of_a_backup_outlives_another_reading_and_goes_with_the_next_of_its_own() {
        let bench = Bench::new();
        let entry = backup(&bench).await;
        let note = async |minutes, objects: &[&str], seen: Option<&BackupProof>| {
            let archive = &bench.archive;
            let noted = archive.note_backup(&entry, at(minutes), cut(objects), seen);
            noted.await.unwrap();
            archive.backup_proof(&entry).await.unwrap().unwrap()
        };
        // Two that began with nothing: whoever ends last.
        let one = note(5, &["a", "b"], None).await;
        assert_eq!(
            (names(&one), one.damaged()),
            (vec!["a".into(), "b".into()], 2)
        );
        let both = note(4, &["b", "c"], None).await;
        assert_eq!(names(&both), ["a", "b", "c"]);
        assert_eq!((both.at, both.damaged()), (at(5), 3));
        let good = note(6, &[], None).await;
        assert_eq!((names(&good).len(), good.proven()), (3, None));
        // An attempt in between is no reading.
        bench.archive.note_attempt(&entry, at(7)).await.unwrap();
        // Who saw them and finds all good has proven that they were mended.
        let mended = note(8, &[], Some(&good)).await;
        assert_eq!((names(&mended).len(), mended.proven()), (0, Some(at(8))));
        let many: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let bounded = note(9, &many, Some(&mended)).await;
        assert_eq!(names(&bounded).len(), BACKUP_DAMAGED_MAX);
        assert_eq!(bounded.damaged(), 30);
    }

    /// Two verifications end in the same moment: each has looked before the other wrote.
    #[tokio::test(start_paused = true)]
    async fn whoever_was_overwritten_in_the_same_moment_writes_again() {
        let second = std::time::Duration::from_secs(1);
        let mut plan = FaultPlan::new();
        for verb in [Verb::Get, Verb::Put] {
            plan = plan.fail(verb, Occurrence::Always, Fault::Delay(second));
        }
        let bench = Bench::with_plan(plan);
        let entry = backup(&bench).await;
        let (one, other) = tokio::join!(
            bench.archive.note_backup(&entry, at(5), cut(&["a"]), None),
            bench.archive.note_backup(&entry, at(5), cut(&["b"]), None),
        );
        one.unwrap();
        other.unwrap();
        let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
        assert_eq!(names(&proof), ["a", "b"]);
    }

    /// The other one has looked before, and writes long after: nobody sees that at once.
    #[tokio::test]
    async fn damage_that_was_overwritten_later_is_noted_again_in_the_end() {
        let bench = Bench::new();
        let entry = backup(&bench).await;
        let noted = bench.archive.note_backup(&entry, at(5), cut(&["a"]), None);
        noted.await.unwrap();
        let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
        // It saw the record that it overwrites, as far as the store lets it know.
        let stale = bench
            .archive
            .note_backup(&entry, at(4), cut(&[]), Some(&proof));
        stale.await.unwrap();
        for _ in 0..2 {
            let times = (at(5), at(6));
            let kept = bench.archive.keep_damage(&entry, times, cut(&["a"]));
            kept.await.unwrap();
            let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
            assert_eq!(
                (names(&proof), proof.proven()),
                (vec!["a".to_owned()], None)
            );
        }
    }

    /// A run of hours found it; meanwhile somebody mended it, and another run has read it.
    #[tokio::test]
    async fn damage_that_was_mended_meanwhile_does_not_come_back() {
        let bench = Bench::new();
        let entry = backup(&bench).await;
        let noted = bench.archive.note_backup(&entry, at(5), cut(&["a"]), None);
        noted.await.unwrap();
        let seen = bench.archive.backup_proof(&entry).await.unwrap();
        let later = bench
            .archive
            .note_backup(&entry, at(60), cut(&[]), seen.as_ref());
        later.await.unwrap();
        let times = (at(5), at(6));
        let kept = bench.archive.keep_damage(&entry, times, cut(&["a"]));
        kept.await.unwrap();
        let proof = bench.archive.backup_proof(&entry).await.unwrap().unwrap();
        assert_eq!(proof.proven(), Some(at(60)));
    }

    fn cut(objects: &[&str]) -> BackupFound {
        let damaged = objects.iter().map(|object| Damage {
            object: (*object).to_owned(),
            found: "is cut".to_owned(),
            missing: false,
        });
        BackupFound {
            damaged: damaged.collect(),
            damaged_count: objects.len() as u64,
            ..BackupFound::default()
        }
    }

    fn names(proof: &BackupProof) -> Vec<String> {
        let names = proof.damages().map(|one| one.object.clone());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
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
        let noted_now = bench.archive.note_backup(&entry, at(8), found, None);
        noted_now.await.unwrap();
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
        let note = || {
            bench
                .archive
                .note_backup(&entry, at(5), found.clone(), None)
        };
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
