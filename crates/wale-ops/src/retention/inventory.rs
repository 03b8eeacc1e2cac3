//! Taking stock: what retention must know of the archive before it decides.
//!
//! Only facts about backups and timelines are held; WAL objects and partitions, of which there may be millions, are
//! judged as they are listed. Memory: about 1 KiB for each backup and 4 KiB for each timeline.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_archive::claim;
use wale_archive::lineage::{EndPosition, Histories, Lineage};
use wale_archive::{Archive, BackupEntry, HistoryBounds, Noted, SentinelRecord, is_offline};
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupName, Sentinel};
use wale_pg::{ArchiveFileName, TimelineId, WalSegmentName, WalSegmentSize};
use wale_storage::ObjectMeta;

use super::facts::{BackupFacts, BackupPlace, Branch};
use super::plan::Unfinished;
use super::time_of_day::TimeOfDay;
use crate::error::{Kind, OpError, Result};

/// Marks read at the same time, as sentinels are.
const READ_AT_ONCE: usize = 8;

/// Strange objects that are reported. 1,000 × about 1 KiB of key = 1 MiB at most.
const STRANGE_MAX: usize = 1000;

/// What an archive holds, as far as retention must know it.
#[derive(Debug)]
pub struct Inventory {
    /// Backups with a sentinel, oldest first.
    pub backups: Vec<BackupFacts>,
    /// Backups without one.
    pub unfinished: Vec<Folder>,
    /// Objects under the prefix of backups that belong to none, some of them.
    pub strange: Vec<ObjectMeta>,
    /// The timelines.
    pub lineage: Lineage,
    /// Where the backups end, in their order.
    endings: Vec<Option<EndPosition>>,
    /// What time it is.
    pub time: TimeOfDay,
}

/// What lies beside where the sentinel of a backup is, or should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The backup.
    pub name: BackupName,
    /// When the newest of its objects was stored.
    pub touched: DateTime<Utc>,
    /// When the claim on its name was refreshed, where there is one.
    pub claim: Option<DateTime<Utc>>,
    /// Whether a deletion of this backup, or of what is left of it, has begun.
    pub deletion: bool,
    /// Whether it has WAL-G's `metadata.json`.
    metadata: bool,
    /// Whether its sentinel was seen.
    pub(crate) sentinel: bool,
}

impl Inventory {
    /// Takes stock. `now` is the time that is believed.
    ///
    /// # Errors
    ///
    /// The store's. What cannot be understood is no error: it is noted as unknown.
    pub async fn take(archive: &Archive, now: DateTime<Utc>) -> Result<Self> {
        let mut time = TimeOfDay::new(now);
        // Folders first: a backup that is completed meanwhile has its sentinel when the catalog is read.
        let (mut folders, strange) = folders(archive, &mut time).await?;
        let catalog = archive.catalog().await?;
        let catalogued = |name: &BackupName| catalog.find(name).is_some();
        for name in folders.keys().filter(|name| !catalogued(name)) {
            check_absent(archive, name).await?;
        }
        let histories = histories(archive, &mut time).await?;
        let size = segment_size(archive).await?;
        let endings = archive.endings(&catalog.backups).await?;
        let on = endings.iter().flatten().map(|ending| ending.timeline);
        let lineage = Lineage::new(histories, on);
        let facts = catalog
            .backups
            .into_iter()
            .zip(&endings)
            .map(|(entry, &ending)| {
                let folder = folders.remove(&entry.name);
                let branch = Branch::of(&lineage, ending);
                facts(archive, entry, folder, size, branch)
            });
        let backups: Vec<BackupFacts> = stream::iter(facts.collect::<Vec<_>>())
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self {
            backups,
            unfinished: folders.into_values().collect(),
            strange,
            lineage,
            endings,
            time,
        })
    }

    /// Judges the branches as they are once this backup is gone. A timeline that only this backup shows goes with it,
    /// and is no reason to keep it.
    pub(super) fn judge_without(&mut self, name: &BackupName) {
        let all = self.backups.iter().zip(&self.endings);
        let others = all.filter(|(backup, _)| backup.name != *name);
        let on = others.filter_map(|(_, ending)| Some(ending.as_ref()?.timeline));
        let lineage = Lineage::new(std::mem::take(&mut self.lineage).into_histories(), on);
        for (backup, ending) in self.backups.iter_mut().zip(&self.endings) {
            backup.branch = Branch::of(&lineage, *ending);
        }
        self.lineage = lineage;
    }

    /// The unfinished backups that may be being written now.
    pub(super) fn being_written(&self, grace: TimeDelta) -> Vec<Unfinished> {
        let alive = |folder: &&Folder| !folder.is_left_over(grace, self.time.now);
        let alive = self.unfinished.iter().filter(alive);
        alive
            .map(|folder| Unfinished {
                name: folder.name.clone(),
                touched: folder.touched,
            })
            .collect()
    }
}

impl Folder {
    /// Whether nobody writes this backup any more: its deletion has begun, the claim on its name is dead, or, where there
    /// is none (another tool's, or an older wale's), nothing was stored for `grace`.
    pub(super) fn is_left_over(&self, grace: TimeDelta, now: DateTime<Utc>) -> bool {
        let quiet = match self.claim {
            Some(refreshed) => claim::is_dead(refreshed, now),
            None => now - self.touched >= grace,
        };
        !self.sentinel && (self.deletion || quiet)
    }
}

/// All objects under a prefix.
pub(super) async fn listing<'a>(
    archive: &Archive,
    prefix: &'a str,
) -> Result<BoxStream<'a, Result<ObjectMeta>>> {
    let failed = move |error| OpError::from_store(error, format_args!("list {prefix}"));
    let listing = archive.store().list(prefix).await.map_err(failed)?;
    Ok(listing.map_err(failed).boxed())
}

/// A listing may be stale. When a backup seems to have no sentinel, this asks for the sentinel by name: otherwise
/// WAL that a complete backup needs would go.
async fn check_absent(archive: &Archive, name: &BackupName) -> Result<()> {
    let key = Archive::key(&layout::sentinel(name))?;
    let head = archive.store().head(&key).await;
    match head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))? {
        None => Ok(()),
        Some(_) => Err(OpError::new(
            Kind::StorageUnavailable,
            format!("the listing of the archive has no {key}, which exists"),
        )
        .detail("The backup was completed just now, or the listing of the store is old.")
        .hint("run it again later; nothing was deleted")),
    }
}

/// Every backup's folder, and some of the objects that are in none.
pub(super) async fn folders(
    archive: &Archive,
    time: &mut TimeOfDay,
) -> Result<(BTreeMap<BackupName, Folder>, Vec<ObjectMeta>)> {
    let mut folders: BTreeMap<BackupName, Folder> = BTreeMap::new();
    let mut strange = Vec::new();
    let mut objects = listing(archive, layout::BACKUP_PREFIX).await?;
    while let Some(meta) = objects.try_next().await? {
        time.saw(meta.modified);
        let key = layout::parse(meta.key.as_str());
        // An object of a strange name in a backup's folder belongs to that backup all the same.
        let Some(name) = layout::backup_of(meta.key.as_str()) else {
            strange.push(meta);
            strange.truncate(STRANGE_MAX);
            continue;
        };
        let folder = folders.entry(name.clone()).or_insert_with(|| Folder {
            name,
            touched: meta.modified,
            claim: None,
            deletion: false,
            metadata: false,
            sentinel: false,
        });
        folder.touched = folder.touched.max(meta.modified);
        if matches!(key, ArchiveKey::Attempt(_)) {
            folder.claim = Some(meta.modified);
        }
        folder.deletion |= matches!(key, ArchiveKey::Deletion(_));
        folder.metadata |= matches!(key, ArchiveKey::Metadata(_));
        folder.sentinel |= matches!(key, ArchiveKey::Sentinel(_));
    }
    for folder in folders.values_mut() {
        if folder.claim.is_some() && !folder.sentinel && !folder.deletion {
            folder.deletion = claim::is_removal(archive, &layout::attempt(&folder.name)).await?;
        }
    }
    Ok((folders, strange))
}

async fn histories(archive: &Archive, time: &mut TimeOfDay) -> Result<Histories> {
    let mut timelines: Vec<TimelineId> = Vec::new();
    let mut objects = listing(archive, layout::WAL_PREFIX).await?;
    while let Some(meta) = objects.try_next().await? {
        time.saw(meta.modified);
        if let Some(ArchiveFileName::TimelineHistory(timeline)) =
            layout::wal_claim(meta.key.as_str())
        {
            timelines.push(timeline);
        }
    }
    let mut histories = Histories::default();
    let mut bounds = HistoryBounds::default();
    for timeline in timelines {
        match archive
            .note_history(timeline, &mut histories, &mut bounds)
            .await?
        {
            Noted::Read => {}
            // It was listed a moment ago: where it leads is not known.
            Noted::Absent => histories.insert_unreadable(timeline),
            Noted::Unreadable(error) => {
                tracing::warn!(%timeline, "the history of a timeline cannot be read, so its WAL is kept: {}", error.chain());
            }
        }
    }
    Ok(histories)
}

/// The archive's own segment size. WAL-E's archives do not record one until they are adopted.
async fn segment_size(archive: &Archive) -> Result<Option<WalSegmentSize>> {
    let identity = archive.identity().await?;
    Ok(identity.map(|identity| identity.cluster.wal_segment_size))
}

async fn facts(
    archive: &Archive,
    entry: BackupEntry,
    folder: Option<Folder>,
    size: Option<WalSegmentSize>,
    branch: Branch,
) -> Result<BackupFacts> {
    let (metadata, deletion) =
        folder.map_or((false, false), |folder| (folder.metadata, folder.deletion));
    let recorded = entry.recorded;
    let nothing = Sentinel::default();
    let (sentinel, damaged) = match &entry.sentinel {
        SentinelRecord::Readable(sentinel) => (sentinel.as_ref(), None),
        SentinelRecord::Damaged(reason) => (&nothing, Some(reason.clone())),
    };
    let marked = is_marked(archive, &entry.name, sentinel, metadata).await?;
    let own_size = sentinel.wale.as_ref().map(|wale| wale.wal_segment_size);
    let size = own_size
        .and_then(|bytes| WalSegmentSize::new(bytes).ok())
        .or(size);
    let place = if is_offline(&entry.name, sentinel) {
        BackupPlace::Unknown
    } else {
        BackupPlace::Named
    };
    let last = last_segment(&entry.name, sentinel, size);
    Ok(BackupFacts {
        time: entry.time,
        began: sentinel.started_at().unwrap_or(entry.time),
        requested: sentinel
            .wale
            .as_ref()
            .is_some_and(|wale| wale.requested_over_http),
        branch,
        unreadable: None,
        recorded,
        committed: entry.modified,
        marked,
        deletion,
        parent: sentinel.delta_from.clone(),
        last: last.filter(|_| place == BackupPlace::Named),
        place,
        size,
        damaged,
        name: entry.name,
    })
}

/// The last segment that makes the backup consistent; none where it is not known, or lies on another timeline.
fn last_segment(
    name: &BackupName,
    sentinel: &Sentinel,
    size: Option<WalSegmentSize>,
) -> Option<WalSegmentName> {
    let start = name.segment();
    let by_position = || {
        let (stop, size) = (sentinel.stop_lsn()?, size?);
        Some(WalSegmentName::last_needed(start.timeline(), stop, size))
    };
    let last = sentinel.stop_segment().or_else(by_position)?;
    let one_timeline = match &sentinel.wale {
        Some(wale) => wale.stop_timeline == start.timeline(),
        None => last.timeline() == start.timeline(),
    };
    (one_timeline && last >= start).then_some(last)
}

/// Whether the backup is marked to be kept, as WAL-G marks it. What `metadata.json` says counts; the sentinel only
/// repeats what was so when the backup was made.
async fn is_marked(
    archive: &Archive,
    name: &BackupName,
    sentinel: &Sentinel,
    metadata: bool,
) -> Result<bool> {
    if !metadata {
        return Ok(sentinel.is_permanent.unwrap_or(false));
    }
    Ok(mark_of(archive, name).await?.unwrap_or(false))
}

/// What the backup's `metadata.json` says now; none where there is no such object.
pub(super) async fn mark_of(archive: &Archive, name: &BackupName) -> Result<Option<bool>> {
    let key = Archive::key(&layout::metadata(name))?;
    let Some(bytes) = archive.read_small(&key).await? else {
        return Ok(None);
    };
    let value: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let flag = value.as_ref().and_then(|value| value.get("is_permanent"));
    Ok(Some(match flag.map(serde_json::Value::as_bool) {
        Some(Some(marked)) => marked,
        None if value.is_some() => false,
        _ => {
            tracing::warn!(%key, "cannot be read, so the backup counts as marked to be kept");
            true
        }
    }))
}
