//! Which segments were read and found good, and when. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use wale_pg::{TimelineId, WalSegmentName, WalSegmentSize};

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

    /// Takes over what another reading noted, as far as it is newer: all that is in its record and was not there when this one
    /// looked last.
    pub fn take_over(&mut self, theirs: &Self, seen: &Self) {
        for (key, stretch) in &theirs.stretches {
            if seen.stretches.get(key) != Some(stretch) {
                self.cover(*key, *stretch);
            }
        }
    }

    /// Forgets what others tried later than it was found good here.
    pub(super) fn forget_older(&mut self, tried: &Self) {
        for (&(line, first), &(last, at)) in &tried.stretches {
            let over = self.stretches.range((line, 0)..=(line, last));
            let over = over.map(|(&(_, begin), &(end, known))| (begin, end, known));
            let over: Vec<_> = over
                .filter(|&(_, end, known)| end >= first && known < at)
                .collect();
            for (begin, end, known) in over {
                self.stretches.remove(&(line, begin));
                if begin < first {
                    self.stretches.insert((line, begin), (first - 1, known));
                }
                if end > last {
                    self.stretches.insert((line, last + 1), (end, known));
                }
            }
        }
    }

    /// Notes a stretch, but for the parts of it that are known from a later time.
    fn cover(&mut self, (line, first): (TimelineId, u64), (last, at): (u64, DateTime<Utc>)) {
        let around = self
            .around(line, first)
            .filter(|(_, (end, _))| *end >= first);
        let within = self.stretches.range((line, first)..=(line, last));
        let within = within.map(|(&(_, begin), &stretch)| (begin, stretch));
        let over: BTreeMap<_, _> = around.into_iter().chain(within).collect();
        let mut next = first;
        for (begin, (end, known)) in over {
            if known >= at {
                if next < begin {
                    self.stretches.insert((line, next), (begin - 1, at));
                }
                next = end + 1;
                continue;
            }
            self.stretches.remove(&(line, begin));
            if begin < first {
                self.stretches.insert((line, begin), (first - 1, known));
            }
            if end > last {
                self.stretches.insert((line, last + 1), (end, known));
            }
        }
        if next <= last {
            self.stretches.insert((line, next), (last, at));
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

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stretch {
    from: String,
    to: String,
    at: DateTime<Utc>,
}

impl Proven {
    /// As it is stored, so many stretches at most.
    pub(super) fn recorded(&self, most: usize) -> Vec<Stretch> {
        let mut bounded = self.clone();
        bounded.bound(most);
        let stretches = bounded.stretches.iter();
        let stretches = stretches.filter_map(|(&(line, first), &(last, at))| {
            let name = |number| WalSegmentName::from_number(line, number, self.size).ok();
            Some(Stretch {
                from: name(first)?.to_string(),
                to: name(last)?.to_string(),
                at,
            })
        });
        stretches.collect()
    }

    /// As it was stored, but for what says that it was read later than that; none where the record is wrong.
    pub(super) fn from_record(
        stretches: &[Stretch],
        size: WalSegmentSize,
        most: usize,
        latest: DateTime<Utc>,
    ) -> Option<Self> {
        if stretches.len() > most {
            return None;
        }
        let mut read = Self::nothing(size);
        for stretch in stretches {
            let from = WalSegmentName::parse(&stretch.from).ok()?;
            let to = WalSegmentName::parse(&stretch.to).ok()?;
            let (first, last) = (from.number(size).ok()?, to.number(size).ok()?);
            let line = from.timeline();
            let before = read.around(line, last);
            let is_apart = before.is_none_or(|(_, (end, _))| end < first);
            if line != to.timeline() || last < first || !is_apart {
                return None;
            }
            read.stretches.insert((line, first), (last, stretch.at));
        }
        read.stretches.retain(|_, (_, at)| *at <= latest);
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::testing::segment_name;

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

    #[test]
    fn what_another_reading_noted_is_taken_over_where_it_is_newer() {
        let spans = |proven: &Proven| {
            let stretches = proven.stretches.iter();
            let spans = stretches.map(|((_, first), (last, at))| (*first, *last, *at));
            spans.collect::<Vec<_>>()
        };
        let of = |stretches: &[(u32, u32, i64)]| {
            let mut proven = Proven::nothing(size());
            for &(first, last, minutes) in stretches {
                for number in first..=last {
                    proven.add(on(1, number), at(minutes));
                }
            }
            proven
        };
        let seen = of(&[(1, 9, 1)]);
        let mine = of(&[(1, 2, 5), (5, 6, 1), (8, 9, 3)]);
        let mut both = mine.clone();
        // What was there before is not taken over: it was forgotten for a reason.
        both.take_over(&seen, &seen);
        assert_eq!(spans(&both), spans(&mine));
        both.take_over(&of(&[(2, 8, 4)]), &seen);
        assert_eq!(spans(&both), [(1, 2, at(5)), (3, 8, at(4)), (9, 9, at(3))]);
        both.take_over(&of(&[(1, 9, 2), (12, 13, 2)]), &seen);
        assert_eq!(spans(&both)[3..], [(12, 13, at(2))]);
        both.take_over(&of(&[(4, 5, 7)]), &seen);
        assert_eq!(
            spans(&both)[1..4],
            [(3, 3, at(4)), (4, 5, at(7)), (6, 8, at(4))]
        );
    }

    #[test]
    fn what_others_tried_later_is_not_known_any_more() {
        let mut proven = Proven::nothing(size());
        for number in 1..=9 {
            proven.add(on(1, number), at(if number > 7 { 9 } else { 1 }));
        }
        proven.add(on(2, 4), at(1));
        let mut tried = Proven::nothing(size());
        for number in [3, 5, 6, 7, 8] {
            tried.add(on(1, number), at(5));
        }
        proven.forget_older(&tried);
        let left: Vec<u32> = (1..=9)
            .filter(|number| proven.at(on(1, *number)).is_some())
            .collect();
        assert_eq!(left, [1, 2, 4, 8, 9]);
        assert_eq!(proven.at(on(2, 4)), Some(at(1)));
    }
}
