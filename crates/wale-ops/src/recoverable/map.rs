//! The archive as a map: which WAL it has of which timeline, in runs without a gap, and when that was stored. Pure: it is told
//! of one object after the other, in the order of their keys, which is the order of the log.
//!
//! Its times are the store's. Nothing in a segment is younger than the segment's time.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use wale_archive::lineage::{Histories, Leg};
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentName, WalSegmentSize};

/// Runs that are kept, and histories: 1,000 of some 100 bytes are 100 KB. Of more the oldest go; a picture of more shows
/// nothing any more.
const KEPT_MAX: usize = 1000;

/// Segments of one timeline that follow each other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRun {
    /// The first one.
    pub first: WalSegmentName,
    /// The last one.
    pub last: WalSegmentName,
    /// When the first one was stored.
    pub from: DateTime<Utc>,
    /// When the last one was stored.
    pub until: DateTime<Utc>,
}

/// What the archive has of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHeld {
    /// Its number.
    pub timeline: TimelineId,
    /// The timeline that it grew out of, and where; `None` where there is none, or its history is not there.
    pub parent: Option<(TimelineId, Lsn)>,
    /// When its history was stored: soon after its server was promoted.
    pub began: Option<DateTime<Utc>>,
    /// Its WAL, the oldest first.
    pub runs: Vec<WalRun>,
}

/// A part of a window, on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLeg {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The last moment that is certain.
    pub until: DateTime<Utc>,
}

/// Takes note of WAL, object by object.
pub(super) struct Collector {
    size: WalSegmentSize,
    runs: VecDeque<WalRun>,
    histories: BTreeMap<TimelineId, DateTime<Utc>>,
}

impl Collector {
    pub(super) const fn new(size: WalSegmentSize) -> Self {
        Self {
            size,
            runs: VecDeque::new(),
            histories: BTreeMap::new(),
        }
    }

    /// The next object of the listing.
    pub(super) fn see(&mut self, key: &str, stored: DateTime<Utc>) {
        // What only another tool reads is a hole in the picture, as it is to a recovery.
        let ArchiveKey::Wal { name, .. } = layout::parse(key) else {
            return;
        };
        match name {
            ArchiveFileName::Segment(segment) => self.see_segment(segment, stored),
            ArchiveFileName::TimelineHistory(timeline) => {
                self.histories.insert(timeline, stored);
                if self.histories.len() > KEPT_MAX {
                    self.histories.pop_first();
                }
            }
            _ => {}
        }
    }

    fn see_segment(&mut self, segment: WalSegmentName, stored: DateTime<Utc>) {
        if let Some(run) = self.runs.back_mut() {
            if run.last == segment {
                // Under two codecs.
                return;
            }
            if run.last.next(self.size) == Ok(segment) {
                (run.last, run.until) = (segment, stored);
                return;
            }
        }
        self.runs.push_back(WalRun {
            first: segment,
            last: segment,
            from: stored,
            until: stored,
        });
        if self.runs.len() > KEPT_MAX {
            self.runs.pop_front();
        }
    }

    /// What there is, by timelines. `histories` are those that could be read.
    pub(super) fn timelines(&self, histories: &Histories) -> Vec<TimelineHeld> {
        let mut found: BTreeMap<TimelineId, Vec<WalRun>> = BTreeMap::new();
        for timeline in self.histories.keys() {
            found.entry(*timeline).or_default();
        }
        for run in &self.runs {
            found.entry(run.first.timeline()).or_default().push(*run);
        }
        let held = found.into_iter().map(|(timeline, runs)| {
            let history = histories.get(timeline);
            let parent = history.and_then(|history| history.parents.last());
            TimelineHeld {
                timeline,
                parent: parent.map(|parent| (parent.timeline, parent.switch_lsn)),
                began: self.histories.get(&timeline).copied(),
                runs,
            }
        });
        held.collect()
    }
}

/// The last segment of a timeline.
pub(super) fn last_of(timelines: &[TimelineHeld], timeline: TimelineId) -> Option<WalSegmentName> {
    let held = timelines.iter().find(|held| held.timeline == timeline)?;
    Some(held.runs.last()?.last)
}

/// When a timeline began, as far as that shows.
pub(super) fn began(timelines: &[TimelineHeld], timeline: TimelineId) -> Option<DateTime<Utc>> {
    let held = timelines.iter().find(|held| held.timeline == timeline)?;
    held.began.or_else(|| held.runs.first().map(|run| run.from))
}

/// Whether a segment is on one of these legs, not after the last one that a recovery gets to.
pub(super) fn is_on(
    legs: &[Leg],
    until: WalSegmentName,
    segment: WalSegmentName,
    size: WalSegmentSize,
) -> bool {
    let (Ok(number), Ok(last)) = (segment.number(size), until.number(size)) else {
        return false;
    };
    number <= last
        && legs.iter().any(|leg| {
            leg.timeline == segment.timeline()
                && leg.first <= number
                && leg.end.is_none_or(|end| number < end)
        })
}

#[cfg(test)]
mod tests {
    use wale_pg::TimelineHistory;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("a time")
    }

    fn key(timeline: u32, number: u32) -> String {
        format!("wal_005/{timeline:08X}00000000{number:08X}.zst")
    }

    #[test]
    fn runs_end_at_gaps_and_at_timelines() {
        let mut map = Collector::new(WalSegmentSize::DEFAULT);
        map.see("wal_005/00000002.history.zst", at(7));
        for (number, second) in [(1, 1), (2, 2), (4, 4)] {
            map.see(&key(1, number), at(second));
        }
        // The same one under another codec, what nobody here reads, what is no segment, and what is no WAL.
        map.see("wal_005/000000010000000000000004.lz4", at(5));
        map.see("wal_005/000000010000000000000005.xz", at(5));
        map.see("wal_005/000000010000000000000005.partial.zst", at(6));
        map.see("wale.json", at(6));
        map.see(&key(2, 5), at(8));
        let mut histories = Histories::default();
        let two = TimelineId::new(2).expect("two");
        histories.insert(TimelineHistory::parse(two, "1\t0/5000100\tx\n").expect("a history"));
        let found = map.timelines(&histories);
        let told: Vec<_> = found
            .iter()
            .map(|held| {
                let runs = held.runs.iter();
                let runs = runs.map(|run| (run.from.timestamp(), run.until.timestamp()));
                (held.timeline.get(), runs.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(told, [(1, vec![(1, 2), (4, 4)]), (2, vec![(8, 8)])]);
        let parent = found[1].parent.expect("a parent");
        assert_eq!(
            (parent.0.get(), parent.1.to_string()),
            (1, "0/5000100".to_owned())
        );
        assert_eq!((found[0].parent, found[0].began), (None, None));
        assert_eq!(began(&found, two), Some(at(7)));
        assert_eq!(last_of(&found, two), Some(found[1].runs[0].last));
        // The rest of timeline 1 after timeline 2 left it is on nobody's way.
        let leg = |timeline, first, end| Leg {
            timeline: TimelineId::new(timeline).expect("a timeline"),
            first,
            end,
        };
        let legs = [leg(1, 1, Some(4)), leg(2, 4, None)];
        let on = |timeline, number| {
            let timeline = TimelineId::new(timeline).expect("a timeline");
            let size = WalSegmentSize::DEFAULT;
            let name =
                |number| WalSegmentName::from_number(timeline, number, size).expect("a name");
            is_on(&legs, found[1].runs[0].last, name(number), size)
        };
        assert_eq!(
            [on(1, 3), on(1, 4), on(2, 4), on(2, 5), on(2, 6)],
            [true, false, true, true, false]
        );
    }

    #[test]
    fn a_log_full_of_holes_costs_no_more_than_the_bound() {
        let mut map = Collector::new(WalSegmentSize::DEFAULT);
        for number in 0..2000 {
            map.see(
                &format!(
                    "wal_005/00000001{:08X}{:08X}.zst",
                    number / 100,
                    number % 100 * 2
                ),
                at(1),
            );
        }
        let found = map.timelines(&Histories::default());
        assert_eq!(found[0].runs.len(), KEPT_MAX);
        // The newest ones.
        assert_eq!(
            last_of(&found, found[0].timeline).expect("one").to_string(),
            "0000000100000013000000C6"
        );
    }
}
