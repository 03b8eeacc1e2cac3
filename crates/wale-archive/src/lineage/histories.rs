//! The histories of an archive's timelines, as far as they are known. Pure.

use std::collections::BTreeMap;

use wale_pg::{Lsn, TimelineHistory, TimelineId, WalSegmentName, WalSegmentSize};

/// After how many missing histories in a row no later one is looked for. Each costs a look-up, which a server waits for
/// at the end of its recovery, and what loses single files does not lose eight that were written years apart.
pub const MISSING_MAX: u32 = 8;

/// The histories that an archive has; some of them may be there and not readable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histories {
    known: BTreeMap<TimelineId, Option<TimelineHistory>>,
}

impl Histories {
    /// Takes note of one.
    pub fn insert(&mut self, history: TimelineHistory) {
        self.known.insert(history.timeline, Some(history));
    }

    /// Takes note of one that is there and cannot be read.
    pub fn insert_unreadable(&mut self, timeline: TimelineId) {
        self.known.insert(timeline, None);
    }

    /// One that can be read.
    pub fn get(&self, timeline: TimelineId) -> Option<&TimelineHistory> {
        self.known.get(&timeline)?.as_ref()
    }

    /// Takes one out that can be read.
    pub fn remove(&mut self, timeline: TimelineId) -> Option<TimelineHistory> {
        self.known.remove(&timeline)?
    }

    /// Whether one is there, readable or not.
    pub fn has(&self, timeline: TimelineId) -> bool {
        self.known.contains_key(&timeline)
    }

    /// The timelines that have one, in their order.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = TimelineId> + '_ {
        self.known.keys().copied()
    }

    /// Those that can be read, in the order of their timelines.
    pub fn readable(&self) -> impl Iterator<Item = &TimelineHistory> {
        self.known.values().flatten()
    }

    /// The last timeline that has one.
    pub fn newest(&self) -> Option<TimelineId> {
        self.timelines().next_back()
    }

    /// The timeline that `latest` means to a server which begins on `own`: it asks upwards and stops at the first
    /// absence.
    pub(crate) fn latest_from(&self, own: TimelineId) -> TimelineId {
        let mut newest = own;
        while let Some(next) = newest.next().filter(|&next| self.has(next)) {
            newest = next;
        }
        newest
    }

    /// The timelines after `own` without a history that a server may come to: between those that have one, and some after
    /// the last.
    pub(crate) fn without_one(&self, own: TimelineId) -> impl Iterator<Item = TimelineId> + '_ {
        let newest = self.newest().unwrap_or(own);
        let last = newest.get().saturating_add(MISSING_MAX);
        std::iter::successors(own.next(), |timeline| timeline.next())
            .take_while(move |timeline| timeline.get() <= last)
            .filter(|&timeline| !self.has(timeline))
    }

    /// A later timeline whose history shows that this one existed.
    ///
    /// A server takes the first number above its own timeline that has no history yet. So a timeline that grew out of
    /// one before this one, and has a later number, met this one's history, whether or not this one is among its
    /// parents.
    pub fn shows(&self, timeline: TimelineId) -> Option<TimelineId> {
        let shows = |later: &&TimelineHistory| {
            let parents = &later.parents;
            later.timeline > timeline && parents.iter().any(|parent| parent.timeline < timeline)
        };
        self.readable().find(shows).map(|later| later.timeline)
    }

    /// The first timeline after `own` whose history is lost, and the later one whose history shows it.
    pub(crate) fn first_lost(&self, own: TimelineId) -> Option<(TimelineId, TimelineId)> {
        self.without_one(own)
            .find_map(|lost| Some((lost, self.shows(lost)?)))
    }

    /// A later timeline whose history shows that a segment was written: one of its ancestors had it before the switch away
    /// from it, so where the segment is missing the log does not end. The segment of the switch itself is the
    /// descendant's, which has a copy of its beginning.
    ///
    /// A line's own switch counts, also where the later timeline itself left that ancestor earlier.
    pub(crate) fn written_through(
        &self,
        asked: WalSegmentName,
        size: WalSegmentSize,
    ) -> Option<TimelineId> {
        let shows = |history: &&TimelineHistory| was_written(history, asked, size);
        self.readable().find(shows).map(|later| later.timeline)
    }
}

fn was_written(history: &TimelineHistory, asked: WalSegmentName, size: WalSegmentSize) -> bool {
    let mut begins = Lsn::new(0);
    for parent in &history.parents {
        if parent.timeline == asked.timeline() {
            let segment = |lsn| WalSegmentName::from_lsn(asked.timeline(), lsn, size);
            return (segment(begins)..segment(parent.switch_lsn)).contains(&asked);
        }
        begins = parent.switch_lsn;
    }
    false
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::lineage) fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    /// Histories by number and text; what is no history is one that cannot be read.
    pub(in crate::lineage) fn histories(texts: &[(u32, &str)]) -> Histories {
        let mut histories = Histories::default();
        for &(number, text) in texts {
            match TimelineHistory::parse(timeline(number), text) {
                Ok(history) => histories.insert(history),
                Err(_) => histories.insert_unreadable(timeline(number)),
            }
        }
        histories
    }

    #[test]
    fn ways_of_timelines() {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        // Timeline 2 begins in segment 3, timeline 3 with the first byte of segment 6.
        let known = histories(&[(3, "1\t0/300010\tx\n2\t0/600000\tx\n")]);
        let cases = [
            ("000000010000000000000002", true),
            ("000000010000000000000003", false),
            ("000000010000000000000004", false),
            ("000000020000000000000002", false),
            ("000000020000000000000003", true),
            ("000000020000000000000005", true),
            ("000000020000000000000006", false),
            ("000000030000000000000002", false),
            ("000000030000000000000007", false),
        ];
        for (asked, leads) in cases {
            let asked = WalSegmentName::parse(asked).unwrap();
            let found = known.written_through(asked, size);
            assert_eq!(found, leads.then(|| timeline(3)), "{asked}");
        }
        // Timeline 3 left timeline 1 in segment 3, but timeline 2 was begun in segment 6: up to there it was written.
        let back = histories(&[(3, "1\t0/600000\tx\n2\t0/300010\tx\n")]);
        for (asked, leads) in [
            ("000000010000000000000005", true),
            ("000000010000000000000006", false),
            ("000000020000000000000004", false),
        ] {
            let asked = WalSegmentName::parse(asked).unwrap();
            assert_eq!(
                back.written_through(asked, size).is_some(),
                leads,
                "{asked}"
            );
        }
    }

    #[test]
    fn a_later_history_shows_the_timelines_that_it_met() {
        let known = histories(&[(2, "1\t0/500\tx\n"), (5, "1\t0/300\tx\n"), (9, "nonsense")]);
        assert_eq!(known.shows(timeline(3)), Some(timeline(5)));
        assert_eq!(known.shows(timeline(1)), None);
        assert_eq!(known.shows(timeline(6)), None);
        assert_eq!(
            known.first_lost(timeline(1)),
            Some((timeline(3), timeline(5)))
        );
        assert_eq!(known.first_lost(timeline(4)), None);
        assert_eq!(known.latest_from(timeline(1)), timeline(2));
        let without: Vec<u32> = known
            .without_one(timeline(1))
            .map(TimelineId::get)
            .collect();
        assert_eq!(without, [3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17]);
    }
}
