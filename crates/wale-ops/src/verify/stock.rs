//! Taking stock: what the archive has by its names, and what was proven of it before.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use wale_archive::proof::{BackupProof, WalProof};
use wale_archive::{Archive, BackupEntry, Catalog, CheckDepth, Flaw, Looks, StoredWal};
use wale_format::Codec;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{
    ArchiveFileName, RecoveryTargetTimeline, SystemIdentifier, WalSegmentName, WalSegmentSize,
};
use wale_storage::ObjectMeta;

use super::lines::Lines;
use super::meaning::BackupSpot;
use super::plan::{ReadAt, Turn};
use crate::error::{Kind, OpError, Result};

/// Backups that are looked at together.
const LOOKS_AT_ONCE: usize = 8;

/// How much larger than plain an object may be: codecs add some bytes for each block, encryption for each chunk.
const SEALED_MORE: u64 = 1 << 20;

/// A segment as the listing has it: all objects that hold it.
#[derive(Clone, Debug)]
pub(super) struct SegmentGroup {
    pub(super) segment: WalSegmentName,
    pub(super) copies: Vec<StoredWal>,
    /// An object under an extension that this version does not know.
    pub(super) unknown: Option<String>,
}

impl SegmentGroup {
    pub(super) fn bytes(&self) -> u64 {
        self.copies.iter().map(|copy| copy.size).sum()
    }

    /// When the newest of its objects was stored.
    fn modified(&self) -> Option<DateTime<Utc>> {
        self.copies.iter().map(|copy| copy.modified).max()
    }

    /// When it was read and found good; none where an object was stored since, by the store's clock.
    pub(super) fn proven(&self, proof: &WalProof) -> ReadAt {
        let at = proof.proven.at(self.segment)?;
        let is_as_read = self.modified().is_some_and(|modified| modified <= at);
        is_as_read.then_some(at)
    }

    /// When it has its turn to be read.
    pub(super) fn turn(&self, proof: &WalProof) -> Turn {
        let proven = self.proven(proof);
        let read = proven.max(proof.tried.at(self.segment));
        Turn { read, proven }
    }
}

/// What comes next in a listing of WAL.
pub(super) enum Listed {
    /// A segment.
    Segment(SegmentGroup),
    /// Another file: a history, a partial segment, a note of a backup.
    Other(StoredWal),
}

/// Puts the objects of a listing together by what they hold. Objects of one segment are neighbours but for partial segments and
/// notes of backups.
#[derive(Default)]
pub(super) struct Grouping {
    current: Option<SegmentGroup>,
    /// Objects that hold no file of an archive, as WAL-G's maps.
    pub(super) strangers: u64,
}

impl Grouping {
    /// Takes the next object. Gives what is complete now.
    pub(super) fn add(&mut self, meta: ObjectMeta) -> Option<Listed> {
        let ObjectMeta {
            key: object,
            size,
            modified,
        } = meta;
        let key = object.as_str();
        let Some(name) = layout::wal_claim(key) else {
            self.strangers += 1;
            return None;
        };
        let known = match layout::parse(key) {
            ArchiveKey::Wal { codec, .. } => Some(codec),
            _ => None,
        };
        let is_described = known.is_none() && key.ends_with(".json");
        let unknown = known.is_none().then(|| key.to_owned());
        let stored = known.map(|codec| StoredWal {
            name,
            codec,
            size,
            modified,
            key: object,
        });
        let ArchiveFileName::Segment(segment) = name else {
            return stored.map(Listed::Other);
        };
        // WAL-G describes a segment in an object beside it.
        if is_described {
            self.strangers += 1;
            return None;
        }
        let done = match &self.current {
            Some(current) if current.segment == segment => None,
            _ => self.current.replace(SegmentGroup {
                segment,
                copies: Vec::new(),
                unknown: None,
            }),
        };
        if let Some(current) = &mut self.current {
            current.copies.extend(stored);
            current.unknown = current.unknown.take().or(unknown);
        }
        done.map(Listed::Segment)
    }

    /// The last one.
    pub(super) fn end(&mut self) -> Option<Listed> {
        self.current.take().map(Listed::Segment)
    }
}

/// What an object's name and size show to be wrong; nothing in most cases.
pub(super) fn implausible(stored: &StoredWal, size: WalSegmentSize) -> Option<String> {
    let is_segment = matches!(
        stored.name,
        ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
    );
    if stored.size == 0 {
        return Some("is empty".to_owned());
    }
    if !is_segment {
        return None;
    }
    if stored.codec == Codec::None && stored.size < size.bytes() {
        return Some(format!(
            "has {} bytes instead of {}",
            stored.size,
            size.bytes()
        ));
    }
    let most = size.bytes() + size.bytes() / 8 + SEALED_MORE;
    (stored.size > most).then(|| {
        format!(
            "has {} bytes, more than a segment of {} comes to",
            stored.size,
            size.bytes()
        )
    })
}

/// What there is.
pub(super) struct Stock {
    /// Whose archive it is, where it says so.
    pub(super) owner: Option<SystemIdentifier>,
    pub(super) size: WalSegmentSize,
    pub(super) catalog: Catalog,
    /// What was found when each backup was read last.
    pub(super) proofs: Vec<Option<BackupProof>>,
    /// When the newest object of each was stored, by the store's clock.
    pub(super) newest_objects: Vec<Option<DateTime<Utc>>>,
    /// What is wrong with each backup by its names and sizes.
    pub(super) flaws: Vec<Option<Flaw>>,
    /// Bytes of the partitions of each, as stored.
    pub(super) bytes: Vec<u64>,
    pub(super) lines: Lines,
    pub(super) wal: WalProof,
    pub(super) segments: u64,
    pub(super) wal_bytes: u64,
    /// Bytes of WAL by their turns to be read.
    pub(super) ages: BTreeMap<Turn, u64>,
    /// The newest segment.
    pub(super) newest: Option<StoredWal>,
    /// Objects that their sizes show to be wrong.
    pub(super) implausible: Vec<(StoredWal, String)>,
    /// Objects that the last reading found damaged, and that are still there.
    pub(super) still_there: BTreeSet<String>,
    pub(super) unknown: u64,
    pub(super) strangers: u64,
}

impl Stock {
    /// Takes stock. Backups come first: the WAL of one that is listed was stored before it.
    ///
    /// # Errors
    /// The store's failures.
    pub(super) async fn take(archive: &Archive) -> Result<Self> {
        let identity = archive.identity().await?;
        let owner = identity.as_ref().map(|one| one.cluster.system_identifier);
        let catalog = archive.catalog().await?;
        let size = match &identity {
            Some(identity) => identity.cluster.wal_segment_size,
            None => size_by_backup(archive, &catalog).await?,
        };
        let proofs = archive.backup_proofs(&catalog.backups).await?;
        let wal = archive.wal_proof(owner).await?;
        let wal = wal.filter(|wal| wal.proven.size() == size);
        let mut stock = Self {
            owner,
            size,
            proofs: proofs.into_iter().map(|(_, proof)| proof).collect(),
            newest_objects: Vec::new(),
            flaws: Vec::new(),
            bytes: Vec::new(),
            lines: Lines::default(),
            wal: wal.unwrap_or(WalProof::nothing(size)),
            segments: 0,
            wal_bytes: 0,
            ages: BTreeMap::new(),
            newest: None,
            implausible: Vec::new(),
            still_there: BTreeSet::new(),
            unknown: 0,
            strangers: 0,
            catalog,
        };
        stock.look_at_backups(archive).await?;
        stock.list_wal(archive).await?;
        Ok(stock)
    }

    async fn look_at_backups(&mut self, archive: &Archive) -> Result<()> {
        use futures_util::{StreamExt, stream};
        let looks = Looks::new(archive, &self.catalog);
        let looks: Vec<_> = self
            .catalog
            .backups
            .iter()
            .map(|entry| look(archive, &looks, entry))
            .collect();
        let looked: Vec<(Option<Flaw>, u64, _)> = stream::iter(looks)
            .buffered(LOOKS_AT_ONCE)
            .try_collect()
            .await?;
        for ((flaw, bytes, newest), proof) in looked.into_iter().zip(&mut self.proofs) {
            self.flaws.push(flaw);
            self.bytes.push(bytes);
            self.newest_objects.push(newest);
            // An object was stored since. What was damaged stays so until it is read again.
            proof.take_if(|proof| proof.proven().is_some() && proof.newest != newest);
        }
        Ok(())
    }

    async fn list_wal(&mut self, archive: &Archive) -> Result<()> {
        let prefix = layout::WAL_PREFIX;
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = archive.store().list(prefix).await.map_err(failed)?;
        let mut grouping = Grouping::default();
        let known: BTreeSet<String> = (self.wal.damaged.iter())
            .map(|damage| damage.object.clone())
            .collect();
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if known.contains(meta.key.as_str()) {
                self.still_there.insert(meta.key.to_string());
            }
            if let Some(listed) = grouping.add(meta) {
                self.note(listed)?;
            }
        }
        if let Some(listed) = grouping.end() {
            self.note(listed)?;
        }
        self.strangers = grouping.strangers;
        Ok(())
    }

    fn note(&mut self, listed: Listed) -> Result<()> {
        let objects = match &listed {
            Listed::Segment(group) => group.copies.as_slice(),
            Listed::Other(stored) => std::slice::from_ref(stored),
        };
        for stored in objects {
            if let Some(why) = implausible(stored, self.size)
                && self.implausible.len() < super::report::FINDINGS_MAX
            {
                self.implausible.push((stored.clone(), why));
            }
        }
        let Listed::Segment(group) = listed else {
            return Ok(());
        };
        self.unknown += u64::from(group.unknown.is_some());
        self.segments += 1;
        self.wal_bytes += group.bytes();
        *self.ages.entry(group.turn(&self.wal)).or_default() += group.bytes();
        let Ok(number) = group.segment.number(self.size) else {
            return Ok(());
        };
        if !self.lines.add(group.segment.timeline(), number) {
            let message = "the WAL of the archive has far more gaps than segments";
            return Err(OpError::new(Kind::CorruptData, message)
                .hint("find out who writes below its prefix"));
        }
        for stored in group.copies {
            let age = |stored: &StoredWal| (stored.modified, stored.name);
            if self
                .newest
                .as_ref()
                .is_none_or(|newest| age(&stored) > age(newest))
            {
                self.newest = Some(stored);
            }
        }
        Ok(())
    }

    /// Where the backups lie, and where recovery from them leads, with whether they are damaged. One whose record cannot be
    /// used leads nowhere.
    ///
    /// # Errors
    /// The store's failures. A way that cannot be told, as a history is damaged, ends with the backup's own WAL.
    pub(super) async fn places(
        &self,
        archive: &Archive,
        is_damaged: impl Fn(usize) -> bool,
    ) -> Result<Vec<BackupSpot>> {
        let mut places = Vec::new();
        for (index, entry) in self.catalog.backups.iter().enumerate() {
            let Some(sentinel) = entry.readable() else {
                continue;
            };
            let (name, start) = (&entry.name, entry.name.segment());
            let (Some(at), Ok(number)) = (
                archive.consistent_at(name, sentinel).await?,
                start.number(self.size),
            ) else {
                continue;
            };
            let latest = RecoveryTargetTimeline::Latest;
            let (own, legs) = match archive.onward(name, sentinel, at, latest).await {
                Ok(Some(way)) => (way.own, way.legs),
                Ok(None) => (None, Vec::new()),
                Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {
                    let own = archive.own_wal(name, sentinel).await.unwrap_or_default();
                    (own, Vec::from_iter(own))
                }
                Err(error) => return Err(error),
            };
            places.push(BackupSpot {
                name: name.clone(),
                ended: sentinel.stopped_at().unwrap_or(entry.time),
                is_damaged: is_damaged(index),
                start: (start.timeline(), number),
                own,
                legs,
            });
        }
        Ok(places)
    }
}

/// The segment size that the newest backup shows, where nobody recorded one.
async fn size_by_backup(archive: &Archive, catalog: &Catalog) -> Result<WalSegmentSize> {
    let newest = catalog.backups.iter().rev();
    let mut readable = newest.filter_map(|entry| Some((&entry.name, entry.readable()?)));
    match readable.next() {
        Some((name, sentinel)) => archive.segment_size_of(name, sentinel).await,
        None => Ok(WalSegmentSize::DEFAULT),
    }
}

/// What is wrong with the objects of a backup, the bytes of its partitions, and when its newest object was stored.
async fn look(
    archive: &Archive,
    looks: &Looks<'_>,
    entry: &BackupEntry,
) -> Result<(Option<Flaw>, u64, Option<DateTime<Utc>>)> {
    let looked = looks.at(entry, CheckDepth::Parts).await?;
    let recorded = entry
        .readable()
        .and_then(|sentinel| sentinel.wale.as_ref())
        .map(wale_format::WaleSentinel::bytes_stored);
    let bytes = if let Some(bytes) = recorded {
        bytes
    } else {
        let parts = archive.parts(&entry.name).await?;
        parts.known.iter().map(|part| part.size).sum()
    };
    Ok((looked.flaw, bytes, newest_object(archive, entry).await?))
}

/// When the newest object in the folder of a backup was stored; what is noted about it does
/// not count.
async fn newest_object(archive: &Archive, entry: &BackupEntry) -> Result<Option<DateTime<Utc>>> {
    let prefix = layout::backup_folder(&entry.name);
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let mut listing = archive.store().list(&prefix).await.map_err(failed)?;
    let mut newest = None;
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        let is_read = matches!(
            layout::parse(meta.key.as_str()),
            ArchiveKey::Partition { .. }
                | ArchiveKey::ForeignPartition { .. }
                | ArchiveKey::Manifest(_)
                | ArchiveKey::Configuration(_)
                | ArchiveKey::FilesMetadata(_)
        );
        if is_read {
            newest = newest.max(Some(meta.modified));
        }
    }
    Ok(newest)
}
