//! Witnesses of WAL that is not there any more: what else in the archive shows that it was written.
//!
//! A base backup is listed when its WAL was stored, so it shows how far the log went. Anything with the number of a
//! timeline shows that the timeline existed, with or without its history.

use std::collections::VecDeque;
use std::fmt;

use futures_util::TryStreamExt;
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, TimelineId, WalSegmentName};
use wale_storage::ObjectMeta;

use crate::error::{OpError, Result};
use crate::listing::{each_wal, each_wal_after};
use crate::{Archive, BackupEntry, is_offline};

/// Base backups that are read on either side of a segment. A slow backup may end after quick ones that began after it,
/// but not after eight. The record of each is read, 64 KiB as a rule, one after the other.
const BACKUPS_READ_MAX: usize = 8;

/// The base backups of a timeline around a segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackupsAround {
    /// Whether one began in the segment or before it.
    pub(crate) begun_before: bool,
    /// One that began in the segment, or that ended in it or after it: the segment was stored.
    pub(crate) behind: Option<BackupName>,
}

/// What bears the number of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A WAL file, the first in the order of names.
    Wal(ArchiveFileName),
    /// A base backup.
    Backup(BackupName),
}

impl Trace {
    /// The segment that it names; a history names none.
    pub fn segment(&self) -> Option<WalSegmentName> {
        match self {
            Self::Wal(name) => name.segment(),
            Self::Backup(name) => Some(name.segment()),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wal(name) => name.fmt(f),
            Self::Backup(name) => write!(f, "base backup {name}"),
        }
    }
}

impl Archive {
    /// The base backups of the segment's timeline that say whether it was stored. One whose WAL was never asked for, because
    /// it holds its own, says nothing.
    pub(crate) async fn backups_around(&self, segment: WalSegmentName) -> Result<BackupsAround> {
        let mut before: VecDeque<(BackupName, ObjectMeta)> = VecDeque::new();
        let mut behind = Vec::new();
        let timeline = segment.timeline().to_hex();
        self.each_sentinel(&timeline, |name, meta| {
            if name.segment() >= segment {
                behind.push((name, meta));
            } else {
                before.push_back((name, meta));
                if before.len() > BACKUPS_READ_MAX {
                    before.pop_front();
                }
            }
            behind.len() == BACKUPS_READ_MAX
        })
        .await?;
        let mut around = BackupsAround::default();
        for (name, meta) in behind {
            let begun_before = name.segment() == segment;
            if self.needing_wal(&name, meta).await?.is_some() {
                around.begun_before |= begun_before;
                around.behind = Some(name);
                break;
            }
        }
        for (name, meta) in before.into_iter().rev() {
            let Some(entry) = self.needing_wal(&name, meta).await? else {
                continue;
            };
            around.begun_before = true;
            if around.behind.is_some() {
                break;
            }
            if self.last_segment(&entry).await? >= Some(segment) {
                around.behind = Some(name);
            }
        }
        Ok(around)
    }

    /// Something that bears the number of a timeline, its history too.
    ///
    /// # Errors
    /// The store's failures.
    pub(crate) async fn trace_of(&self, timeline: TimelineId) -> Result<Option<Trace>> {
        let wal = self.first_wal_of(timeline).await?;
        self.trace_behind(timeline, wal).await
    }

    /// The first WAL file that bears the number of a timeline, its history too. One listing.
    ///
    /// # Errors
    /// The store's failures.
    pub(crate) async fn first_wal_of(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<ArchiveFileName>> {
        let mut found = None;
        each_wal(self, &timeline.to_hex(), |name, _| {
            found = Some(name);
            true
        })
        .await?;
        Ok(found)
    }

    /// As [`Archive::trace_of`], where the first WAL file of the timeline is known.
    ///
    /// # Errors
    /// The store's failures.
    pub(crate) async fn trace_behind(
        &self,
        timeline: TimelineId,
        wal: Option<ArchiveFileName>,
    ) -> Result<Option<Trace>> {
        if let Some(name) = wal {
            return Ok(Some(Trace::Wal(name)));
        }
        let mut backups = Vec::new();
        self.each_sentinel(&timeline.to_hex(), |name, meta| {
            backups.push((name, meta));
            backups.len() == BACKUPS_READ_MAX
        })
        .await?;
        for (name, meta) in backups {
            let entry = self.read_entry(name.clone(), meta).await?;
            if entry.is_some_and(|entry| !is_misnamed(&entry)) {
                return Ok(Some(Trace::Backup(name)));
            }
        }
        Ok(None)
    }

    /// Whether there is any WAL at all.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn has_wal(&self) -> Result<bool> {
        let mut found = false;
        each_wal_after(self, "", "", |_, _| {
            found = true;
            true
        })
        .await?;
        Ok(found)
    }

    /// A base backup of any timeline that needs WAL which was stored with it.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn backup_needing_wal(&self) -> Result<Option<BackupName>> {
        let mut backups = Vec::new();
        self.each_sentinel("", |name, meta| {
            backups.push((name, meta));
            backups.len() == BACKUPS_READ_MAX
        })
        .await?;
        for (name, meta) in backups {
            if self.needing_wal(&name, meta).await?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether there is WAL, or a base backup, of a timeline before this one.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn has_earlier_timeline(&self, timeline: TimelineId) -> Result<bool> {
        let mut first = None;
        each_wal(self, "", |listed, _| {
            first = listed.segment().map(WalSegmentName::timeline);
            first.is_some()
        })
        .await?;
        if first.is_some_and(|first| first < timeline) {
            return Ok(true);
        }
        let mut first = None;
        self.each_sentinel("", |name, _| {
            first = Some(name.segment().timeline());
            true
        })
        .await?;
        Ok(first.is_some_and(|first| first < timeline))
    }

    /// Shows the listed base backups whose segments begin with `prefix`, in order, until `enough`.
    async fn each_sentinel(
        &self,
        prefix: &str,
        mut enough: impl FnMut(BackupName, ObjectMeta) -> bool,
    ) -> Result<()> {
        let prefix = format!("{}base_{prefix}", layout::BACKUP_PREFIX);
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let mut listing = self.store().list(&prefix).await.map_err(failed)?;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if let ArchiveKey::Sentinel(name) = layout::parse(meta.key.as_str())
                && enough(name, meta)
            {
                break;
            }
        }
        Ok(())
    }

    /// The backup, if its WAL was stored with it and its name says where. One with a damaged record counts.
    async fn needing_wal(
        &self,
        name: &BackupName,
        meta: ObjectMeta,
    ) -> Result<Option<BackupEntry>> {
        let entry = self.read_entry(name.clone(), meta).await?;
        Ok(entry.filter(|entry| {
            let record = entry.readable().and_then(|sentinel| sentinel.wale.as_ref());
            !is_misnamed(entry) && !record.is_some_and(|record| record.holds_its_wal)
        }))
    }

    /// The last segment that a backup needs, where it is recorded.
    async fn last_segment(&self, entry: &BackupEntry) -> Result<Option<WalSegmentName>> {
        let Some(sentinel) = entry.readable() else {
            return Ok(None);
        };
        if let Some(segment) = sentinel.stop_segment() {
            return Ok(Some(segment));
        }
        let Some(stop) = sentinel.stop_lsn() else {
            return Ok(None);
        };
        let size = self.segment_size_of(&entry.name, sentinel).await?;
        let timeline = entry.name.segment().timeline();
        Ok(Some(WalSegmentName::last_needed(timeline, stop, size)))
    }
}

/// Whether nothing may be concluded from the backup's name.
fn is_misnamed(entry: &BackupEntry) -> bool {
    let sentinel = entry.readable();
    sentinel.is_some_and(|sentinel| is_offline(&entry.name, sentinel))
}
