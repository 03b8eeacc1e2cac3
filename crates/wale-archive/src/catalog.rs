//! The catalog: which base backups the archive has, by their sentinels.
//!
//! A backup exists if its sentinel exists, no matter who made it. A sentinel that cannot be read is listed as
//! damaged with the reason and never hides the others. The newest backup is the one that *ended* last by its own
//! record: names order by position, which says nothing across timelines, and a store's modification times change
//! when a bucket is copied, so they are only the fall-back.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupName, Sentinel};
use wale_pg::TimelineId;
use wale_storage::{ObjectKey, ObjectMeta};

use crate::Archive;
use crate::error::{Kind, OpError, Result};

/// Sentinels read at the same time. They are small; 8 hide a store's latency well enough.
const READ_AT_ONCE: usize = 8;

/// Base backups of one archive. 100,000: one an hour for eleven years. A listing that goes on for ever names more, and
/// 300 bytes for each are 30 MB.
const BACKUPS_MAX: usize = 100_000;

/// A sentinel larger than this is refused: WAL-G's old ones list every file of the cluster, some 150 bytes each, which
/// makes 64 MiB for 400,000 files. The text is in memory while it is read, one or a few at a time: see
/// [`Archive::catalog`].
pub(crate) const SENTINEL_MAX: u64 = 64 << 20;

/// Sentinels up to this size are read without asking the memory budget: 8 at once make 512 KiB.
const SENTINEL_FREE: u64 = 64 << 10;

/// What all sentinels of an archive may keep in memory together. A thousand ordinary ones of some 10 kB are 10 MB; of
/// clusters of 10 TB with 10,000 partitions each, 400 kB, three hundred fit in.
const CATALOG_MAX: usize = 128 << 20;

/// All base backups, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By recorded time, oldest first; damaged ones by the store's time.
    pub backups: Vec<BackupEntry>,
}

/// One base backup.
#[derive(Clone, Debug)]
pub struct BackupEntry {
    /// Its name.
    pub name: BackupName,
    /// What its sentinel says.
    pub sentinel: SentinelRecord,
    /// When the store says the sentinel was written.
    pub modified: DateTime<Utc>,
    /// When the backup ended: as recorded, otherwise `modified`.
    pub time: DateTime<Utc>,
    /// Whether `time` is recorded in the backup.
    pub recorded: bool,
}

/// A sentinel, or why there is none to work with.
#[derive(Clone, Debug)]
pub enum SentinelRecord {
    /// It was read.
    Readable(Box<Sentinel>),
    /// It exists, but cannot be used, for this reason.
    Damaged(String),
}

impl BackupEntry {
    /// The sentinel, if it could be read.
    #[must_use]
    pub fn readable(&self) -> Option<&Sentinel> {
        match &self.sentinel {
            SentinelRecord::Readable(sentinel) => Some(sentinel),
            SentinelRecord::Damaged(_) => None,
        }
    }
}

impl Catalog {
    /// The backup of that name.
    #[must_use]
    pub fn find(&self, name: &BackupName) -> Option<&BackupEntry> {
        self.backups.iter().find(|entry| entry.name == *name)
    }
}

impl Archive {
    /// Reads the catalog: one listing, then every sentinel. Large ones take the memory of their text from the budget while
    /// they are read; what they keep is bounded, by itself and together.
    ///
    /// # Errors
    /// The store's failures. A damaged sentinel is no failure.
    pub async fn catalog(&self) -> Result<Catalog> {
        let prefix = layout::BACKUP_PREFIX;
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = self.store().list(prefix).await.map_err(failed)?;
        let mut sentinels: Vec<(BackupName, ObjectMeta)> = Vec::new();
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if let ArchiveKey::Sentinel(name) = layout::parse(meta.key.as_str()) {
                if sentinels.len() == BACKUPS_MAX {
                    return Err(OpError::new(
                        Kind::CorruptData,
                        format!(
                            "{prefix} of {} has more than {BACKUPS_MAX} base backups",
                            self.location()
                        ),
                    )
                    .hint(
                        "check what answers in the store's place, or who writes below this prefix",
                    ));
                }
                sentinels.push((name, meta));
            }
        }
        let read = sentinels
            .into_iter()
            .map(|(name, meta)| self.read_entry(name, meta));
        let entries: Vec<Option<BackupEntry>> = stream::iter(read)
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await?;
        let mut backups: Vec<BackupEntry> = entries.into_iter().flatten().collect();
        keep_within(&mut backups, CATALOG_MAX);
        backups.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
        Ok(Catalog { backups })
    }

    /// The timelines that the names of the base backups show; no sentinel is read.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn backup_timelines(&self) -> Result<BTreeSet<TimelineId>> {
        let prefix = layout::BACKUP_PREFIX;
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = self.store().list(prefix).await.map_err(failed)?;
        let mut timelines = BTreeSet::new();
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if let ArchiveKey::Sentinel(name) = layout::parse(meta.key.as_str()) {
                timelines.insert(name.segment().timeline());
            }
        }
        Ok(timelines)
    }

    /// Whether at least one sentinel can be read now: the proof that an archive without identity is there at all.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn has_readable_sentinel(&self) -> Result<bool> {
        let prefix = layout::BACKUP_PREFIX;
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = self.store().list(prefix).await.map_err(failed)?;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if let ArchiveKey::Sentinel(name) = layout::parse(meta.key.as_str())
                && self
                    .read_entry(name, meta)
                    .await?
                    .is_some_and(|entry| entry.readable().is_some())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The backup of that name as it is now; `None` where it has no sentinel.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn entry(&self, name: &BackupName) -> Result<Option<BackupEntry>> {
        let key = Self::key(&layout::sentinel(name))?;
        let head = self.store().head(&key).await;
        let head = head.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        match head {
            Some(meta) => self.read_entry(name.clone(), meta).await,
            None => Ok(None),
        }
    }

    /// One sentinel; `None` when it was deleted since the listing.
    pub(crate) async fn read_entry(
        &self,
        name: BackupName,
        meta: ObjectMeta,
    ) -> Result<Option<BackupEntry>> {
        let modified = meta.modified;
        let sentinel = match self.read_sentinel(&meta.key, meta.size).await {
            Ok(Some(sentinel)) => SentinelRecord::Readable(Box::new(sentinel)),
            Ok(None) => return Ok(None),
            Err(error)
                if matches!(
                    error.kind,
                    Kind::CorruptData | Kind::PermissionDenied | Kind::LocalIo
                ) =>
            {
                SentinelRecord::Damaged(error.chain())
            }
            Err(error) => return Err(error),
        };
        let recorded = match &sentinel {
            SentinelRecord::Readable(sentinel) => self.stop_time(&name, sentinel).await?,
            SentinelRecord::Damaged(_) => None,
        };
        Ok(Some(BackupEntry {
            name,
            sentinel,
            modified,
            time: recorded.unwrap_or(modified),
            recorded: recorded.is_some(),
        }))
    }

    /// When the backup ended, by its own record. WAL-E records no time; WAL-G before 2.0 only in `metadata.json`.
    async fn stop_time(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
    ) -> Result<Option<DateTime<Utc>>> {
        if sentinel.stopped_at().is_some() || sentinel.lsn.is_none() {
            return Ok(sentinel.stopped_at());
        }
        let key = Self::key(&layout::metadata(name))?;
        let metadata = match self.read_small(&key).await {
            Ok(metadata) => metadata.unwrap_or_default(),
            // Far too large to be one: the time is not known, as without it.
            Err(error) if error.kind == Kind::CorruptData => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap_or_default();
        Ok(metadata
            .get("finish_time")
            .and_then(|time| time.as_str()?.parse().ok()))
    }

    async fn read_sentinel(&self, key: &ObjectKey, size: u64) -> Result<Option<Sentinel>> {
        let _memory = if size > SENTINEL_FREE {
            Some(self.budget().acquire(size.min(SENTINEL_MAX)).await)
        } else {
            None
        };
        // What it was in the listing is what the budget has counted.
        let most = size.clamp(SENTINEL_FREE, SENTINEL_MAX);
        let Some(bytes) = self.read_up_to(key, most).await? else {
            return Ok(None);
        };
        let parsed = if bytes.len() as u64 > SENTINEL_FREE {
            // Some hundred milliseconds of work.
            tokio::task::spawn_blocking(move || Sentinel::parse(&bytes))
                .await
                .map_err(|e| OpError::internal(format!("the reader of {key} panicked")).source(e))?
        } else {
            Sentinel::parse(&bytes)
        };
        let sentinel = parsed.map_err(|e| {
            OpError::new(Kind::CorruptData, format!("object {key} is damaged: {e}")).source(e)
        })?;
        if tells_nothing(&sentinel) {
            return Err(OpError::new(
                Kind::CorruptData,
                format!("object {key} is damaged: it has no position"),
            ));
        }
        Ok(Some(sentinel))
    }
}

/// Lets the largest sentinels go until the others fit in.
fn keep_within(backups: &mut [BackupEntry], most: usize) {
    let cost = |entry: &BackupEntry| entry.readable().map_or(0, Sentinel::cost_bytes);
    let mut sum: usize = backups.iter().map(cost).sum();
    while sum > most {
        let Some(largest) = backups.iter_mut().max_by_key(|entry| cost(entry)) else {
            return;
        };
        sum -= cost(largest);
        largest.sentinel = SentinelRecord::Damaged(
            "the sentinels of this archive list far more than backups do, this one most of all"
                .to_owned(),
        );
    }
}

/// Whether a sentinel lacks what every tool has always written: where the backup began or ended. It may be proper JSON
/// (`{}`), but it is no record of a backup.
fn tells_nothing(sentinel: &Sentinel) -> bool {
    sentinel.wal_segment_backup_stop.is_none()
        && sentinel.lsn.is_none()
        && sentinel.finish_lsn.is_none()
        && sentinel.wale.is_none()
}
