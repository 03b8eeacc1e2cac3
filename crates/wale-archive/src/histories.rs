//! Reading the histories of timelines out of the archive. What they say is `crate::lineage`'s.

use std::collections::BTreeSet;
use std::io::Read;

use futures_util::future::try_join_all;
use wale_pg::{ArchiveFileName, ParentTimeline, TimelineHistory, TimelineId};

use crate::error::{Kind, OpError, Result};
use crate::lineage::{Histories, MISSING_MAX};
use crate::read::damaged;
use crate::{Archive, StoredWal};

/// A history file has one line per timeline: this is room for tens of thousands.
const HISTORY_MAX: u64 = 1 << 20;

/// What all histories that are read together may have: 48 bytes for each line, which are kept, and the text of its reason, which
/// is not. Timeline 1,500 has come after some 1,100,000 lines with 25 letters of reason: 80 MiB.
const HISTORIES_COST_MAX: usize = 96 << 20;

impl Archive {
    /// The history of a timeline, `None` when the archive has none.
    ///
    /// # Errors
    /// The store's failures; `CorruptData` or `Configuration` when the object is damaged or cannot be read.
    pub async fn timeline_history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>> {
        let name = ArchiveFileName::TimelineHistory(timeline);
        let copies = self.find_wal_copies(&name).await?;
        self.history_among(timeline, copies).await
    }

    /// The history of a timeline out of the objects that hold it.
    async fn history_among(
        &self,
        timeline: TimelineId,
        copies: Vec<StoredWal>,
    ) -> Result<Option<TimelineHistory>> {
        let mut refused = None;
        // Of several copies one may be another tool's, which only that one reads.
        for stored in copies {
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

    /// As [`Archive::history_among`], of one of several, which have bounds together. Only timelines and positions are
    /// kept: the servers' words about them could be a megabyte each.
    ///
    /// # Errors
    /// As there; `CorruptData` also when they are far more than any archive has.
    async fn history_within(
        &self,
        timeline: TimelineId,
        copies: Vec<StoredWal>,
        bounds: &mut HistoryBounds,
    ) -> Result<Option<TimelineHistory>> {
        if bounds.left == 0 {
            // Whether it is there is all that can be said: reading is over.
            return match copies.as_slice() {
                [] => Ok(None),
                _ => Err(too_long(timeline)),
            };
        }
        let mut history = self.history_among(timeline, copies).await?;
        if let Some(history) = &mut history {
            bounds.charge(history)?;
        }
        Ok(history)
    }

    /// The histories of the timelines after this one. They are looked for upwards, over what is missing in between.
    ///
    /// # Errors
    /// As [`Archive::timeline_history`]; `CorruptData` when they are far more than any archive has.
    pub async fn later_histories(&self, timeline: TimelineId) -> Result<Histories> {
        self.later_histories_but(timeline, &BTreeSet::new()).await
    }

    /// The same, for a caller to whom a listing has just shown that nothing bears the numbers of some timelines.
    ///
    /// # Errors
    /// As [`Archive::later_histories`].
    pub(crate) async fn later_histories_but(
        &self,
        timeline: TimelineId,
        bare: &BTreeSet<TimelineId>,
    ) -> Result<Histories> {
        let mut found = Histories::default();
        let (mut missing, mut bounds) = (0, HistoryBounds::default());
        let mut next = timeline.next();
        while let Some(first) = next.filter(|_| missing < MISSING_MAX) {
            let looked = self.look_up_from(first, missing, bare).await?;
            for (timeline, copies) in looked {
                next = timeline.next();
                match self.history_within(timeline, copies, &mut bounds).await? {
                    Some(history) => {
                        missing = 0;
                        found.insert(history);
                    }
                    None => missing += 1,
                }
            }
        }
        Ok(found)
    }

    /// What holds the histories of this timeline and the next ones: as many as may be missing before nobody looks on, at once, so that
    /// a store far away is waited for once. `bare` as in [`Archive::later_histories_but`].
    async fn look_up_from(
        &self,
        first: TimelineId,
        missing: u32,
        bare: &BTreeSet<TimelineId>,
    ) -> Result<Vec<(TimelineId, Vec<StoredWal>)>> {
        let count = MISSING_MAX.saturating_sub(missing) as usize;
        let timelines = std::iter::successors(Some(first), |timeline| timeline.next()).take(count);
        let asked = timelines.map(|timeline| async move {
            let name = ArchiveFileName::TimelineHistory(timeline);
            let copies = if bare.contains(&timeline) {
                self.after_a_bare_listing(&name).await?
            } else {
                self.find_wal_copies(&name).await?
            };
            Ok::<_, OpError>((timeline, copies))
        });
        try_join_all(asked).await
    }

    /// The histories of the timelines that the backups are on, and of those after them, over what is missing in between.
    ///
    /// # Errors
    /// The store's. One that cannot be read is noted as such.
    pub(crate) async fn histories_around(
        &self,
        backups: &BTreeSet<TimelineId>,
    ) -> Result<Histories> {
        let mut found = Histories::default();
        let mut looked_up_to = None;
        let (mut bounds, none) = (HistoryBounds::default(), BTreeSet::new());
        for &start in backups {
            if looked_up_to >= Some(start) {
                continue;
            }
            // The oldest one's own names timelines before all backups.
            let first = if looked_up_to.is_none() {
                start.next()
            } else {
                Some(start)
            };
            let (mut missing, mut next) = (0, first);
            while let Some(first) = next.filter(|_| missing < MISSING_MAX) {
                for (timeline, copies) in self.look_up_from(first, missing, &none).await? {
                    let noted = self.note_among(timeline, copies, &mut found, &mut bounds);
                    next = timeline.next();
                    looked_up_to = Some(timeline);
                    match noted.await? {
                        Noted::Absent if !backups.contains(&timeline) => missing += 1,
                        Noted::Unreadable(error) => {
                            tracing::debug!(%timeline, "its history cannot be read: {}", error.chain());
                            missing = 0;
                        }
                        Noted::Absent | Noted::Read => missing = 0,
                    }
                }
            }
        }
        Ok(found)
    }

    /// Takes note of a history, if it is there.
    ///
    /// # Errors
    /// The store's. One that cannot be read (damaged, encrypted, or of a codec that nobody here reads) is noted as such.
    pub async fn note_history(
        &self,
        timeline: TimelineId,
        histories: &mut Histories,
        bounds: &mut HistoryBounds,
    ) -> Result<Noted> {
        let name = ArchiveFileName::TimelineHistory(timeline);
        let copies = self.find_wal_copies(&name).await?;
        self.note_among(timeline, copies, histories, bounds).await
    }

    /// As [`Archive::note_history`], of what holds it.
    async fn note_among(
        &self,
        timeline: TimelineId,
        copies: Vec<StoredWal>,
        histories: &mut Histories,
        bounds: &mut HistoryBounds,
    ) -> Result<Noted> {
        match self.history_within(timeline, copies, bounds).await {
            Ok(None) => Ok(Noted::Absent),
            Ok(Some(history)) => {
                histories.insert(history);
                Ok(Noted::Read)
            }
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {
                histories.insert_unreadable(timeline);
                Ok(Noted::Unreadable(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// How taking note of a history went.
#[derive(Debug)]
pub enum Noted {
    /// The archive has none.
    Absent,
    /// It was read.
    Read,
    /// It is there and cannot be read, for this reason.
    Unreadable(OpError),
}

/// What several histories may still cost.
#[derive(Debug)]
pub struct HistoryBounds {
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
    .hint("find out who stores histories of timelines that never existed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wale_format::Codec;
    use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

    use super::*;
    use crate::testing::Bench;

    /// Time is the test's own: a store far away answers each call after 50 ms.
    #[tokio::test(start_paused = true)]
    async fn a_store_far_away_is_waited_for_once_and_not_for_each_timeline() {
        let bench = Bench::new();
        bench.claim().await;
        // The tenth is beyond what is looked for, if the third were not there.
        for timeline in [3, 10] {
            let name = format!("{timeline:08X}.history");
            bench.store_wal(&name, Codec::Zstd, b"1\t0/3000000\tno reason\n");
        }
        let far = Fault::Delay(Duration::from_millis(50));
        let plan = FaultPlan::new().fail(Verb::Any, Occurrence::Always, far);
        bench.faulty.set_plan(plan);
        let begun = tokio::time::Instant::now();
        let one = TimelineId::FIRST;
        let found = bench.archive.later_histories(one).await.expect("asked");
        let backups = BTreeSet::from([one]);
        let around = bench.archive.histories_around(&backups).await;
        let around = around.expect("asked");
        let timelines =
            |found: &Histories| found.timelines().map(TimelineId::get).collect::<Vec<_>>();
        assert_eq!(timelines(&found), [3, 10]);
        assert_eq!(timelines(&around), [3, 10]);
        // Twice three rounds of at most eight, each of a listing and a name, and four objects that are read: 16 calls in a row; one
        // after the other they would be 36 listings alone.
        assert!(
            begun.elapsed() < Duration::from_millis(50 * 20),
            "{:?}",
            begun.elapsed()
        );
    }

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
