//! How far the WAL of an archive carries a recovery. Pure.
//!
//! A recovery's way leads along one timeline up to where the next one left it. What the archive has of each stretch is
//! seen in the order of the names, one segment at a time, so a log of a million segments needs no memory.

use wale_pg::{Lsn, TimelineHistory, TimelineId, WalSegmentError, WalSegmentName, WalSegmentSize};

use crate::error::{Kind, OpError, Result};

/// A stretch of the way on one timeline, in segment numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first segment.
    pub first: u64,
    /// The first one that no longer belongs to it; `None` where the way is open.
    pub end: Option<u64>,
}

impl Leg {
    /// The name of one of its segments.
    ///
    /// # Errors
    ///
    /// As [`legs`].
    pub fn segment(&self, number: u64, size: WalSegmentSize) -> Result<WalSegmentName> {
        WalSegmentName::from_number(self.timeline, number, size).map_err(beyond_the_log)
    }
}

/// The error for a position that no segment has.
pub(crate) fn beyond_the_log(error: WalSegmentError) -> OpError {
    OpError::new(
        Kind::CorruptData,
        "the archive names a WAL position that does not exist",
    )
    .source(error)
}

/// Segments that are missing, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first one.
    pub from: WalSegmentName,
    /// The last one.
    pub to: WalSegmentName,
}

impl Gap {
    /// One segment.
    pub const fn of(segment: WalSegmentName) -> Self {
        Self {
            from: segment,
            to: segment,
        }
    }

    /// How many segments are missing.
    ///
    /// # Errors
    ///
    /// As [`legs`], where no segment of this size has one of the names.
    pub fn segments(&self, size: WalSegmentSize) -> Result<u64> {
        let number = |name: WalSegmentName| name.number(size).map_err(beyond_the_log);
        Ok(number(self.to)? - number(self.from)? + 1)
    }
}

/// The way from `begins` on: along its own timeline, or towards the timeline of `followed`. The segment of a switch is
/// the later timeline's, which has a copy of its beginning.
///
/// # Errors
///
/// [`Kind::CorruptData`] when a name or a switch position lies after the end of the log.
pub fn legs(
    begins: WalSegmentName,
    followed: Option<&TimelineHistory>,
    size: WalSegmentSize,
) -> Result<Vec<Leg>> {
    let mut first = begins.number(size).map_err(beyond_the_log)?;
    let mut legs = Vec::new();
    let way = followed.map(TimelineHistory::way).unwrap_or_default();
    let own = way
        .into_iter()
        .skip_while(|stretch| stretch.timeline != begins.timeline());
    for stretch in own {
        let Some(end) = stretch.end.map(|end| size.segment_number(end)) else {
            break;
        };
        if end > first {
            legs.push(Leg {
                timeline: stretch.timeline,
                first,
                end: Some(end),
            });
            first = end;
        }
    }
    legs.push(Leg {
        timeline: followed.map_or(begins.timeline(), |history| history.timeline),
        first,
        end: None,
    });
    Ok(legs)
}

/// What makes a backup consistent: from its first segment to the one that holds the last byte before `consistent_at`, on
/// its own timeline.
///
/// # Errors
///
/// As [`legs`].
pub(crate) fn own_leg(
    begins: WalSegmentName,
    consistent_at: Lsn,
    size: WalSegmentSize,
) -> Result<Leg> {
    let timeline = begins.timeline();
    let last = WalSegmentName::last_needed(timeline, consistent_at, size).max(begins);
    Ok(Leg {
        timeline,
        first: begins.number(size).map_err(beyond_the_log)?,
        end: Some(last.number(size).map_err(beyond_the_log)? + 1),
    })
}

/// What was seen of a leg so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    leg: Leg,
    size: WalSegmentSize,
    next: u64,
    gap: Option<(u64, u64)>,
}

impl Walk {
    /// Nothing was seen yet.
    pub(crate) const fn new(leg: Leg, size: WalSegmentSize) -> Self {
        Self {
            leg,
            size,
            next: leg.first,
            gap: None,
        }
    }

    /// Takes note of a segment; in the order of their names. `true` when no other is needed.
    pub(crate) fn see(&mut self, segment: WalSegmentName) -> bool {
        let Ok(number) = segment.number(self.size) else {
            return false;
        };
        if segment.timeline() != self.leg.timeline || number < self.next {
            return false;
        }
        let is_beyond = self.leg.end.is_some_and(|end| number >= end);
        if number == self.next && !is_beyond && self.gap.is_none() {
            self.next += 1;
            return self.leg.end == Some(self.next);
        }
        // On a closed leg the end says how far the gap goes, whatever comes after it.
        if !is_beyond {
            self.gap = Some((self.next, number - 1));
        }
        true
    }

    /// Takes note of a segment that is there, but that no restore of ours reads. To the way it is missing, with something
    /// behind it or without; in the order of their names. `true` when no other is needed.
    pub(crate) fn see_unreadable(&mut self, segment: WalSegmentName) -> bool {
        let Ok(number) = segment.number(self.size) else {
            return false;
        };
        if segment.timeline() != self.leg.timeline || number < self.next {
            return false;
        }
        if let Some(end) = self.leg.end {
            return number >= end;
        }
        self.gap = Some((self.next, number));
        false
    }

    /// The last segment before which, and including which, nothing of the leg is missing; `None` where the first one is.
    ///
    /// # Errors
    ///
    /// As [`legs`].
    pub(crate) fn reached(&self) -> Result<Option<WalSegmentName>> {
        if self.next == self.leg.first {
            return Ok(None);
        }
        self.leg.segment(self.next - 1, self.size).map(Some)
    }

    /// The first gap of the leg: one with something after it, or the rest of a leg that has an end.
    ///
    /// # Errors
    ///
    /// As [`legs`].
    pub(crate) fn gap(&self) -> Result<Option<Gap>> {
        let rest = self.leg.end.filter(|end| self.next < *end);
        let Some((from, to)) = self.gap.or(rest.map(|end| (self.next, end - 1))) else {
            return Ok(None);
        };
        let name = |number| self.leg.segment(number, self.size);
        Ok(Some(Gap {
            from: name(from)?,
            to: name(to)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn name(on: u32, number: u64) -> WalSegmentName {
        WalSegmentName::from_number(timeline(on), number, SIZE).unwrap()
    }

    fn leg(on: u32, first: u64, end: Option<u64>) -> Leg {
        Leg {
            timeline: timeline(on),
            first,
            end,
        }
    }

    #[test]
    fn the_way_changes_timelines_at_the_segment_of_the_switch() {
        let text = "1\t0/5000100\ta\n2\t0/7000000\tb\n3\t0/7000200\tc\n";
        let history = TimelineHistory::parse(timeline(4), text).unwrap();
        // A recovery followed timeline 2 and ended before its fork: no byte of timeline 2 is on the way.
        let back =
            TimelineHistory::parse(timeline(3), "1\t0/5000100\ta\n2\t0/4000100\tb\n").unwrap();
        let cases = [
            (name(1, 2), None, vec![leg(1, 2, None)]),
            (
                name(1, 2),
                Some(&back),
                vec![leg(1, 2, Some(4)), leg(3, 4, None)],
            ),
            (
                name(1, 2),
                Some(&history),
                vec![leg(1, 2, Some(5)), leg(2, 5, Some(7)), leg(4, 7, None)],
            ),
            // Begun in the segment of the switch: that is the next timeline's.
            (
                name(1, 5),
                Some(&history),
                vec![leg(2, 5, Some(7)), leg(4, 7, None)],
            ),
            (name(3, 7), Some(&history), vec![leg(4, 7, None)]),
        ];
        for (begins, followed, expected) in cases {
            assert_eq!(legs(begins, followed, SIZE).unwrap(), expected, "{begins}");
        }
    }

    #[test]
    fn a_backup_needs_all_from_its_first_segment_to_its_last_byte() {
        for (consistent_at, end) in [
            ("0/2000100", 3),
            ("0/4000000", 4),
            ("0/4000001", 5),
            // What cannot be: its first segment all the same.
            ("0/1000000", 3),
        ] {
            let own = own_leg(name(1, 2), consistent_at.parse().unwrap(), SIZE);
            assert_eq!(own.unwrap(), leg(1, 2, Some(end)), "{consistent_at}");
        }
    }

    #[test]
    fn a_gap_has_something_behind_it_or_an_end_that_is_not_reached() {
        /// A leg, the numbers that are there, the gap.
        type Case = (Leg, &'static [u64], Option<(u64, u64)>);
        let cases: [Case; 10] = [
            (leg(1, 2, None), &[1, 2, 3, 4], None),
            (leg(1, 2, None), &[], None),
            (leg(1, 2, None), &[2, 2, 3, 6, 9], Some((4, 5))),
            (leg(1, 2, None), &[4], Some((2, 3))),
            (leg(1, 2, Some(5)), &[2, 3, 4], None),
            (leg(1, 2, Some(5)), &[2, 3, 4, 9], None),
            (leg(1, 2, Some(5)), &[2, 3], Some((4, 4))),
            (leg(1, 2, Some(5)), &[2, 9], Some((3, 4))),
            (leg(1, 2, Some(5)), &[2, 4], Some((3, 3))),
            (leg(1, 2, Some(5)), &[], Some((2, 4))),
        ];
        for (leg, present, expected) in cases {
            let mut walk = Walk::new(leg, SIZE);
            let _ = present.iter().any(|number| walk.see(name(1, *number)));
            let expected = expected.map(|(from, to)| Gap {
                from: name(1, from),
                to: name(1, to),
            });
            assert_eq!(walk.gap().unwrap(), expected, "{leg:?} {present:?}");
            let missing = expected.map(|gap| gap.segments(SIZE).unwrap());
            let reached = walk.reached().unwrap();
            match (expected, missing) {
                (Some(gap), Some(missing)) => {
                    let [from, to] = [gap.from, gap.to].map(|name| name.number(SIZE).unwrap());
                    assert_eq!(missing, to - from + 1, "{leg:?} {present:?}");
                    let before = (from > leg.first).then(|| name(1, from - 1));
                    assert_eq!(reached, before, "{leg:?} {present:?}");
                }
                _ => assert_eq!(reached.is_none(), present.is_empty(), "{leg:?} {present:?}"),
            }
        }
    }

    #[test]
    fn fault_96_what_cannot_be_read_is_missing_on_the_way() {
        /// A leg, the numbers that are there, those that cannot be read, the gap.
        type Case = (Leg, &'static [u64], &'static [u64], Option<(u64, u64)>);
        let cases: [Case; 8] = [
            (leg(1, 2, None), &[2, 3, 4], &[], None),
            (leg(1, 2, None), &[2, 3, 4], &[4], Some((4, 4))),
            (leg(1, 2, None), &[2, 3, 4, 5], &[3, 4], Some((3, 4))),
            (leg(1, 2, None), &[2, 4, 6], &[4, 6], Some((3, 6))),
            (leg(1, 2, None), &[1, 2], &[1], None),
            (leg(1, 2, Some(5)), &[2, 3, 4], &[3], Some((3, 3))),
            (leg(1, 2, Some(5)), &[2, 3, 4, 5], &[4], Some((4, 4))),
            (
                leg(1, 2, Some(5)),
                &[2, 3, 4, 5],
                &[2, 3, 4, 5],
                Some((2, 4)),
            ),
        ];
        for (leg, present, unreadable, expected) in cases {
            let mut walk = Walk::new(leg, SIZE);
            let _ = present.iter().any(|number| {
                if unreadable.contains(number) {
                    walk.see_unreadable(name(1, *number))
                } else {
                    walk.see(name(1, *number))
                }
            });
            let expected = expected.map(|(from, to)| Gap {
                from: name(1, from),
                to: name(1, to),
            });
            assert_eq!(
                walk.gap().unwrap(),
                expected,
                "{leg:?} {present:?} {unreadable:?}"
            );
        }
    }

    #[test]
    fn other_timelines_do_not_count_and_names_cross_the_end_of_their_last_part() {
        let mut walk = Walk::new(leg(2, 0xFE, Some(0x102)), SIZE);
        assert!(!walk.see(name(1, 0xFE)));
        let enough: Vec<bool> = (0xFE..0x102)
            .map(|number| walk.see(name(2, number)))
            .collect();
        assert_eq!(enough, [false, false, false, true]);
        assert_eq!(walk.gap().unwrap(), None);
    }
}
