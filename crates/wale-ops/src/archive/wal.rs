//! Looking for WAL in the archive, under whatever codec it was stored.

use std::collections::BTreeMap;
use std::io::Read;

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use wale_format::{Codec, layout};
use wale_pg::{
    ArchiveFileName, ParentTimeline, TimelineHistory, TimelineId, WalHeaderError, WalPageHeader,
};
use wale_storage::ObjectKey;

use super::Archive;
use super::read::{ConsumeError, damaged};
use crate::error::{Kind, OpError, Result};

/// A history file has one line per timeline: this is room for tens of thousands.
const HISTORY_MAX: u64 = 1 << 20;

/// What all histories that are read together may have: 48 bytes for each line, which are kept, and the text of its reason, which
/// is not. Timeline 1,500 has come after some 1,100,000 lines with 25 letters of reason: 80 MiB.
const HISTORIES_COST_MAX: usize = 96 << 20;

/// After how many missing histories in a row no later one is looked for. Each costs a look-up, which a server waits for
/// at the end of its recovery, and what loses single files does not lose eight that were written years apart.
pub(crate) const HISTORIES_MISSING_MAX: u32 = 8;

/// A WAL object that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWal {
    /// What it holds.
    pub name: ArchiveFileName,
    /// Where it lies.
    pub key: ObjectKey,
    /// How it is compressed.
    pub codec: Codec,
    /// Its stored size in bytes.
    pub size: u64,
    /// When the store says it was written.
    pub modified: DateTime<Utc>,
}

impl Archive {
    /// Where `name` is stored. Under several codecs at once, the configured one is preferred, then one that can be
    /// read.
    ///
    /// # Errors
    /// Any failure of the store, even for one codec of several: an unanswered question is not an absence.
    pub async fn find_wal(&self, name: &ArchiveFileName) -> Result<Option<StoredWal>> {
        Ok(self.find_wal_copies(name).await?.into_iter().next())
    }

    /// All objects that hold `name`, in the order in which they should be read. One request for each known codec,
    /// all at the same time: an archive may be written by other tools beside wale, so the codecs recorded in the
    /// identity are not all there can be.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn find_wal_copies(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        let questions = self
            .codecs_in_order()
            .into_iter()
            .map(|codec| self.head_wal(name, codec));
        Ok(try_join_all(questions)
            .await?
            .into_iter()
            .flatten()
            .collect())
    }

    async fn head_wal(&self, name: &ArchiveFileName, codec: Codec) -> Result<Option<StoredWal>> {
        let key = Self::key(&layout::wal(name, codec))?;
        let meta = self
            .store()
            .head(&key)
            .await
            .map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        Ok(meta.map(|meta| StoredWal {
            name: *name,
            key,
            codec,
            size: meta.size,
            modified: meta.modified,
        }))
    }

    /// Every codec: the configured one first, then those that can be read, then the others.
    fn codecs_in_order(&self) -> Vec<Codec> {
        let mut codecs = vec![self.codec()];
        for codec in Codec::ALL_READABLE.into_iter().chain(Codec::ALL) {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        codecs
    }

    /// The history of a timeline, `None` when the archive has none.
    ///
    /// # Errors
    /// The store's failures; `CorruptData` or `Configuration` when the object is damaged or cannot be read.
    pub(crate) async fn timeline_history(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<TimelineHistory>> {
        let name = ArchiveFileName::TimelineHistory(timeline);
        let mut refused = None;
        // Of several copies one may be another tool's, which only that one reads.
        for stored in self.find_wal_copies(&name).await? {
            match self.read_history(timeline, &stored).await {
                Ok(history) => return Ok(Some(history)),
                Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    async fn read_history(
        &self,
        timeline: TimelineId,
        stored: &StoredWal,
    ) -> Result<TimelineHistory> {
        let text = self
            .decode(&stored.key, stored.codec, |plain| {
                let mut text = Vec::new();
                plain.take(HISTORY_MAX + 1).read_to_end(&mut text)?;
                Ok(text)
            })
            .await?;
        if text.len() as u64 > HISTORY_MAX {
            return Err(damaged(
                &stored.key,
                "it is far too large for the history of a timeline",
            ));
        }
        TimelineHistory::parse(timeline, &String::from_utf8_lossy(&text)).map_err(|error| {
            OpError::new(
                Kind::CorruptData,
                format!("object {} is damaged", stored.key),
            )
            .source(error)
        })
    }

    /// As [`Archive::timeline_history`], of one of several, which have bounds together. Only timelines and positions are
    /// kept: the servers' words about them could be a megabyte each.
    ///
    /// # Errors
    /// As there; `CorruptData` also when they are far more than any archive has.
    pub(crate) async fn history_within(
        &self,
        timeline: TimelineId,
        bounds: &mut HistoryBounds,
    ) -> Result<Option<TimelineHistory>> {
        if bounds.left == 0 {
            // Whether it is there is all that can be said: reading is over.
            let name = ArchiveFileName::TimelineHistory(timeline);
            return match self.find_wal(&name).await? {
                None => Ok(None),
                Some(_) => Err(too_long(timeline)),
            };
        }
        let mut history = self.timeline_history(timeline).await?;
        if let Some(history) = &mut history {
            bounds.charge(history)?;
        }
        Ok(history)
    }

    /// The histories of the timelines after this one. They are looked for upwards, over what is missing in between.
    ///
    /// # Errors
    /// As [`Archive::timeline_history`]; `CorruptData` when they are far more than any archive has.
    pub(crate) async fn later_histories(
        &self,
        timeline: TimelineId,
    ) -> Result<BTreeMap<TimelineId, TimelineHistory>> {
        let mut found = BTreeMap::new();
        let (mut missing, mut bounds) = (0, HistoryBounds::default());
        for timeline in std::iter::successors(timeline.next(), |timeline| timeline.next()) {
            match self.history_within(timeline, &mut bounds).await? {
                Some(history) => {
                    missing = 0;
                    found.insert(timeline, history);
                }
                None => missing += 1,
            }
            if missing == HISTORIES_MISSING_MAX {
                break;
            }
        }
        Ok(found)
    }

    /// The first page's header of a stored segment; only its beginning is fetched.
    pub(crate) async fn read_wal_header(&self, stored: &StoredWal) -> Result<WalPageHeader> {
        let (key, codec) = (stored.key.clone(), stored.codec);
        self.decode(&stored.key, stored.codec, move |plain| {
            let mut head = [0; WalPageHeader::LENGTH];
            plain.read_exact(&mut head)?;
            WalPageHeader::parse(&head).map_err(|error| {
                ConsumeError::Refused(match error {
                    // No codec shows what an object without one is: encrypted, or no WAL at all.
                    WalHeaderError::UnknownMagic { .. } if codec == Codec::None => OpError::new(
                        Kind::Configuration,
                        format!("object {key} holds no WAL; it may be encrypted"),
                    )
                    .hint("use the tool that wrote it")
                    .source(error),
                    error => damaged(&key, &error).source(error),
                })
            })
        })
        .await
    }
}

/// What several histories may still cost.
#[derive(Debug)]
pub(crate) struct HistoryBounds {
    left: usize,
}

impl Default for HistoryBounds {
    fn default() -> Self {
        Self {
            left: HISTORIES_COST_MAX,
        }
    }
}

impl HistoryBounds {
    /// Counts a history and lets its reasons go.
    fn charge(&mut self, history: &mut TimelineHistory) -> Result<()> {
        let parents = history.parents.iter_mut();
        let cost: usize = parents
            .map(|parent| size_of::<ParentTimeline>() + std::mem::take(&mut parent.reason).len())
            .sum();
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 {
            return Err(too_long(history.timeline));
        }
        Ok(())
    }
}

fn too_long(timeline: TimelineId) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!(
            "the histories of timelines up to {timeline} in the archive are far too long together"
        ),
    )
    .hint("find out who stores histories of timelines that never were")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_92_histories_have_a_bound_together() {
        let timeline = TimelineId::new(9).unwrap();
        let text = format!("1\t0/1000000\t{}\n", "x".repeat(1 << 20));
        let history = TimelineHistory::parse(timeline, &text).unwrap();
        let mut bounds = HistoryBounds::default();
        let charged = (0..1000)
            .map(|_| {
                let mut one = history.clone();
                bounds.charge(&mut one).map(|()| one)
            })
            .take_while(Result::is_ok)
            .flatten();
        let kept: Vec<_> = charged.collect();
        assert!((90..100).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|one| one.parents[0].reason.is_empty()));
    }
}
