//! Which segments the archive has on each timeline, as runs without a hole. Pure.

use std::collections::BTreeMap;

use wale_archive::lineage::Leg;
use wale_pg::TimelineId;

use super::meaning::Hole;

/// Runs that are remembered: 262,144 × 16 bytes = 4 MiB. An archive has one for each timeline and each gap.
const RUNS_MAX: usize = 1 << 18;

/// The segments of all timelines.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The first and the last segment of each run, in order.
    runs: BTreeMap<TimelineId, Vec<(u64, u64)>>,
    count: usize,
}

impl Lines {
    /// Takes note of a segment; they come in the order of their names. False when there are too many runs.
    pub(super) fn add(&mut self, timeline: TimelineId, number: u64) -> bool {
        let runs = self.runs.entry(timeline).or_default();
        match runs.last_mut() {
            Some((_, last)) if *last == number => {}
            Some((_, last)) if *last + 1 == number => *last = number,
            _ if self.count == RUNS_MAX => return false,
            _ => {
                self.count += 1;
                runs.push((number, number));
            }
        }
        true
    }

    /// What is missing of a stretch of WAL. Where it has no end, what comes after the last segment that is there is not
    /// missing: it may never have been written.
    pub(super) fn missing(&self, leg: &Leg) -> Vec<Hole> {
        let runs = self.runs.get(&leg.timeline).map_or(&[][..], Vec::as_slice);
        let end = leg.end.or_else(|| Some(runs.last()?.1 + 1));
        let Some(end) = end else {
            return Vec::new();
        };
        let (mut next, mut holes) = (leg.first, Vec::new());
        let mut hole = |first: u64, end: u64| {
            if first < end {
                holes.push(Hole {
                    timeline: leg.timeline,
                    first,
                    last: end - 1,
                });
            }
        };
        for &(first, last) in runs.iter().filter(|(_, last)| *last >= leg.first) {
            if first >= end {
                break;
            }
            hole(next, first);
            next = next.max(last + 1);
        }
        hole(next, end);
        holes
    }
}

/// Makes holes that overlap or touch one, in order.
pub(super) fn merged(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_unstable();
    let mut merged: Vec<Hole> = Vec::new();
    for hole in holes {
        match merged.last_mut() {
            Some(last) if last.timeline == hole.timeline && hole.first <= last.last + 1 => {
                last.last = last.last.max(hole.last);
            }
            _ => merged.push(hole),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u32) -> TimelineId {
        TimelineId::new(number).expect("a timeline")
    }

    #[test]
    fn what_is_missing_of_a_stretch_is_found() {
        let mut lines = Lines::default();
        for number in [2, 3, 3, 6, 7, 10] {
            assert!(lines.add(line(1), number));
        }
        assert!(lines.add(line(2), 4));
        let missing = |timeline, first, end| {
            let leg = Leg {
                timeline: line(timeline),
                first,
                end,
            };
            let holes = lines.missing(&leg).into_iter();
            holes
                .map(|hole| (hole.first, hole.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(missing(1, 2, None), [(4, 5), (8, 9)]);
        assert_eq!(missing(1, 3, Some(7)), [(4, 5)]);
        assert_eq!(missing(1, 5, Some(9)), [(5, 5), (8, 8)]);
        assert_eq!(missing(1, 0, Some(4)), [(0, 1)]);
        assert_eq!(missing(1, 10, Some(13)), [(11, 12)]);
        assert_eq!(missing(1, 11, None), []);
        assert_eq!(missing(1, 12, Some(13)), [(12, 12)]);
        assert_eq!((missing(2, 4, None), missing(3, 4, None)), (vec![], vec![]));
        assert_eq!(missing(3, 4, Some(6)), [(4, 5)]);
    }

    #[test]
    fn holes_that_touch_are_one() {
        let hole = |timeline, first, last| Hole {
            timeline: line(timeline),
            first,
            last,
        };
        let holes = vec![
            hole(1, 8, 9),
            hole(1, 4, 5),
            hole(1, 6, 6),
            hole(2, 7, 7),
            hole(1, 4, 4),
        ];
        assert_eq!(merged(holes), [hole(1, 4, 6), hole(1, 8, 9), hole(2, 7, 7)]);
    }
}
