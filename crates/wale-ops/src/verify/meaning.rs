//! What damage means: which backups still lead where, and which moments are lost. Pure.
//!
//! A position on a way is a segment number: along the timelines of one way they only go up.

use chrono::{DateTime, Utc};
use wale_archive::lineage::Leg;
use wale_format::BackupName;
use wale_pg::TimelineId;

/// Segments that cannot be used, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hole {
    pub(super) timeline: TimelineId,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A segment.
pub(super) type Position = (TimelineId, u64);

/// A backup among the WAL.
#[derive(Clone, Debug)]
pub(super) struct BackupSpot {
    pub(super) name: BackupName,
    /// When it ended: the first moment that it restores.
    pub(super) ended: DateTime<Utc>,
    /// Whether one of its own objects is missing or damaged.
    pub(super) is_damaged: bool,
    /// The segment in which it starts.
    pub(super) start: Position,
    /// The WAL that makes it consistent, where it does not hold it itself.
    pub(super) own: Option<Leg>,
    /// The way from it to the end of the newest timeline that grew out of it.
    pub(super) legs: Vec<Leg>,
}

/// All backups, and all holes in the WAL.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    pub(super) places: &'a [BackupSpot],
    pub(super) holes: &'a [Hole],
}

/// A backup that leads on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) name: BackupName,
    pub(super) ended: DateTime<Utc>,
}

/// What a hole means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HoleMeaning {
    /// Backups that never become consistent without it.
    pub(super) cripples: Vec<BackupName>,
    /// The newest backup whose recovery ends at it.
    pub(super) ends: Option<RecoveryEnd>,
    /// The first backup behind it.
    pub(super) next: Option<Next>,
    /// Whether any backup's way leads over it.
    pub(super) is_on_a_way: bool,
    /// Whether it is what a retention leaves out: WAL between the own of a backup that is kept for itself and the next backup.
    pub(super) is_left_out: bool,
}

/// The end of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecoveryEnd {
    pub(super) from: BackupName,
    /// The last segment before it.
    pub(super) last: Option<Position>,
}

/// What it means that a backup cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupMeaning {
    pub(super) ended: DateTime<Utc>,
    /// A backup before it from which recovery leads over it, and the last segment that it reaches where that is not the end
    /// of the WAL.
    pub(super) covered: Option<(BackupName, Option<Position>)>,
    /// The first backup behind it that can be restored.
    pub(super) next: Option<Next>,
}

impl BackupSpot {
    /// The first segment of the hole that one of these stretches leads over.
    fn hit(legs: &[Leg], hole: &Hole) -> Option<u64> {
        let within = legs.iter().filter(|leg| leg.timeline == hole.timeline);
        let hits = within.filter_map(|leg| {
            let first = leg.first.max(hole.first);
            let last = leg
                .end
                .map_or(hole.last, |end| hole.last.min(end.saturating_sub(1)));
            (first <= last && leg.end != Some(0)).then_some(first)
        });
        hits.min()
    }

    fn is_crippled_by(&self, hole: &Hole) -> bool {
        Self::hit(self.own.as_slice(), hole).is_some()
    }

    /// The segment that comes after its own WAL.
    fn own_end(&self) -> u64 {
        let end = self.own.and_then(|own| own.end);
        end.unwrap_or(self.start.1)
    }

    /// Whether a segment lies on its way.
    fn leads_over(&self, (timeline, number): Position) -> bool {
        let hole = Hole {
            timeline,
            first: number,
            last: number,
        };
        Self::hit(&self.legs, &hole).is_some()
    }

    /// The segment before this one on its way.
    fn before(&self, number: u64) -> Option<Position> {
        let before = number.checked_sub(1)?;
        Some((self.leg_at(before)?.timeline, before))
    }

    /// The part of its way in which a segment of this number lies.
    fn leg_at(&self, number: u64) -> Option<&Leg> {
        let mut legs = self.legs.iter();
        legs.find(|leg| leg.first <= number && leg.end.is_none_or(|end| number < end))
    }
}

impl World<'_> {
    fn is_usable(&self, place: &BackupSpot) -> bool {
        let is_crippled = self.holes.iter().any(|hole| place.is_crippled_by(hole));
        !place.is_damaged && !is_crippled
    }

    fn usable(&self) -> impl Iterator<Item = &BackupSpot> {
        self.places.iter().filter(|place| self.is_usable(place))
    }

    /// The first segment that a recovery from there does not get; none where it gets to the end of the WAL.
    fn stopped_at(&self, place: &BackupSpot) -> Option<u64> {
        let hits = self
            .holes
            .iter()
            .filter_map(|hole| BackupSpot::hit(&place.legs, hole));
        hits.min()
    }

    /// The first usable backup behind a position on somebody's way.
    fn next(&self, way: &BackupSpot, number: u64) -> Option<Next> {
        let behind = self
            .usable()
            .filter(|one| one.start.1 > number && way.leads_over(one.start));
        let next = behind.min_by_key(|one| (one.start.1, one.ended))?;
        Some(Next {
            name: next.name.clone(),
            ended: next.ended,
        })
    }

    /// Whether the hole is of WAL that a retention leaves out: a backup that is kept for itself keeps only its own. What comes
    /// behind that goes from its beginning on, timeline by timeline, up to the next backup; where another backup began
    /// meanwhile, not all of it.
    fn is_left_out(&self, hole: &Hole) -> bool {
        self.places.iter().any(|place| {
            let ends = [hole.first, hole.last].map(|number| (hole.timeline, number));
            if hole.first < place.own_end() || !ends.iter().all(|&end| place.leads_over(end)) {
                return false;
            }
            let (is_after_own, behind) = self.first_behind(place);
            hole.last < behind
                && self.usable().any(|next| {
                    let is_next = next.start.1 == behind || (is_after_own && next.start.1 > behind);
                    next.name != place.name && is_next && place.leads_over(next.start)
                })
        })
    }

    /// The first segment that is there behind what a backup needs for itself, all before it being a hole, on whatever timeline;
    /// with whether that begins right behind. What WAL-E records may be one segment less than it needs: then one more is there.
    fn first_behind(&self, place: &BackupSpot) -> (bool, u64) {
        let step = |number: u64| {
            let leg = place.leg_at(number)?;
            let holes = self.holes.iter();
            let hole = holes
                .filter(|hole| hole.timeline == leg.timeline)
                .find(|hole| (hole.first..=hole.last).contains(&number))?;
            let next = hole.last.saturating_add(1);
            Some(leg.end.map_or(next, |end| next.min(end)))
        };
        let own_end = place.own_end();
        let is_after_own = step(own_end).is_some();
        let mut number = own_end.saturating_add(u64::from(!is_after_own));
        while let Some(next) = step(number).filter(|next| *next > number) {
            number = next;
        }
        (is_after_own, number)
    }

    /// What a hole means.
    pub(super) fn of_hole(&self, hole: &Hole) -> HoleMeaning {
        let without = self
            .places
            .iter()
            .filter(|place| place.is_crippled_by(hole));
        let lame: Vec<&BackupSpot> = without.collect();
        let ended = self.usable().filter(|place| {
            let hit = BackupSpot::hit(&place.legs, hole);
            hit.is_some() && self.stopped_at(place) == hit
        });
        let newest = ended.max_by_key(|place| (place.start.1, place.ended));
        let way = newest.or(lame.first().copied());
        let on_a_way = |place: &BackupSpot| BackupSpot::hit(&place.legs, hole).is_some();
        HoleMeaning {
            ends: newest.map(|place| RecoveryEnd {
                from: place.name.clone(),
                last: self
                    .stopped_at(place)
                    .and_then(|number| place.before(number)),
            }),
            next: way.and_then(|way| self.next(way, hole.last)),
            is_on_a_way: self.places.iter().any(on_a_way) || !lame.is_empty(),
            is_left_out: lame.is_empty() && self.is_left_out(hole),
            cripples: lame.iter().map(|place| place.name.clone()).collect(),
        }
    }

    /// What it means that this backup cannot be restored.
    pub(super) fn of_backup(&self, place: &BackupSpot) -> BackupMeaning {
        let position = place.own_end();
        let reaches = |other: &&BackupSpot| {
            let stopped = self.stopped_at(other);
            other.name != place.name
                && other.start.1 <= place.start.1
                && other.leads_over(place.start)
                && stopped.is_none_or(|stopped| stopped > position)
        };
        let covered = self.usable().filter(reaches);
        let covered = covered.max_by_key(|other| (other.start.1, other.ended));
        BackupMeaning {
            ended: place.ended,
            covered: covered.map(|other| {
                let stopped = self.stopped_at(other);
                let last = stopped.and_then(|number| other.before(number));
                (other.name.clone(), last)
            }),
            next: self.next(place, place.start.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn line(number: u32) -> TimelineId {
        TimelineId::new(number).expect("a timeline")
    }

    fn leg(timeline: u32, first: u64, end: Option<u64>) -> Leg {
        Leg {
            timeline: line(timeline),
            first,
            end,
        }
    }

    fn name(number: u64) -> BackupName {
        BackupName::parse(&format!("base_0000000100000000{number:08X}_00000040")).expect("a name")
    }

    /// A backup on timeline 1 whose own WAL is its first segment.
    fn place(number: u64) -> BackupSpot {
        BackupSpot {
            name: name(number),
            ended: DateTime::UNIX_EPOCH + TimeDelta::days(i64::try_from(number).expect("small")),
            is_damaged: false,
            start: (line(1), number),
            own: Some(leg(1, number, Some(number + 1))),
            legs: vec![leg(1, number, None)],
        }
    }

    fn hole(first: u64, last: u64) -> Hole {
        Hole {
            timeline: line(1),
            first,
            last,
        }
    }

    fn next(number: u64) -> Next {
        Next {
            name: name(number),
            ended: place(number).ended,
        }
    }

    #[test]
    fn a_hole_ends_the_recovery_of_the_backups_before_it_until_the_next_one() {
        let places = [place(2), place(5), place(10)];
        let holes = [hole(7, 7)];
        let world = World {
            places: &places,
            holes: &holes,
        };
        let meaning = world.of_hole(&holes[0]);
        let expected = HoleMeaning {
            ends: Some(RecoveryEnd {
                from: name(5),
                last: Some((line(1), 6)),
            }),
            next: Some(next(10)),
            is_on_a_way: true,
            ..HoleMeaning::default()
        };
        assert_eq!(meaning, expected);
        // Nothing comes after it.
        let world = World {
            places: &places[..2],
            holes: &holes,
        };
        assert_eq!(world.of_hole(&holes[0]).next, None);
        // Nobody's way leads over it.
        let before = [hole(1, 1)];
        let world = World {
            places: &places,
            holes: &before,
        };
        assert_eq!(world.of_hole(&before[0]), HoleMeaning::default());
    }

    #[test]
    fn the_second_hole_is_behind_the_first() {
        let places = [place(2)];
        let holes = [hole(4, 5), hole(8, 8)];
        let world = World {
            places: &places,
            holes: &holes,
        };
        let second = world.of_hole(&holes[1]);
        assert!(second.is_on_a_way && second.ends.is_none() && second.cripples.is_empty());
        assert_eq!(
            world.of_hole(&holes[0]).ends.expect("ended").last,
            Some((line(1), 3))
        );
    }

    #[test]
    fn a_hole_in_the_backups_own_wal_cripples_it() {
        let places = [place(2), place(5), place(9)];
        let holes = [hole(5, 5)];
        let world = World {
            places: &places,
            holes: &holes,
        };
        let meaning = world.of_hole(&holes[0]);
        assert_eq!(meaning.cripples, [name(5)]);
        assert_eq!(meaning.ends.expect("ended").from, name(2));
        assert_eq!(meaning.next, Some(next(9)));
        assert!(!meaning.is_left_out);
        let of_backup = world.of_backup(&places[1]);
        assert_eq!((of_backup.covered, of_backup.next), (None, Some(next(9))));
    }

    #[test]
    fn a_damaged_backup_is_covered_by_the_one_before_it_as_far_as_that_leads() {
        let mut places = [place(2), place(5), place(9)];
        places[1].is_damaged = true;
        let told = |holes: &[Hole], index: usize| {
            let world = World {
                places: &places,
                holes,
            };
            world.of_backup(&places[index])
        };
        let meaning = told(&[], 1);
        assert_eq!(meaning.covered, Some((name(2), None)));
        assert_eq!(
            (meaning.next, meaning.ended),
            (Some(next(9)), places[1].ended)
        );
        let last = Some((line(1), 6));
        assert_eq!(told(&[hole(7, 7)], 1).covered, Some((name(2), last)));
        assert_eq!(told(&[hole(4, 4)], 1).covered, None);
        // The first has none before it, and the damaged one leads nowhere.
        let first = told(&[], 0);
        assert_eq!((first.covered, first.next), (None, Some(next(9))));
    }

    #[test]
    fn what_retention_leaves_between_two_backups_is_no_loss() {
        let places = [place(2), place(9)];
        let told = |hole: Hole| {
            let world = World {
                places: &places,
                holes: &[hole],
            };
            world.of_hole(&hole)
        };
        assert!(told(hole(3, 8)).is_left_out);
        // What WAL-E records may be one segment more.
        assert!(told(hole(4, 8)).is_left_out);
        // A backup began, and the deletion stopped.
        assert!(told(hole(3, 7)).is_left_out);
        for other in [hole(5, 8), hole(5, 7), hole(2, 8), hole(10, 12)] {
            assert!(!told(other).is_left_out, "{other:?}");
        }
    }

    #[test]
    fn what_retention_leaves_between_two_backups_is_no_loss_over_a_failover() {
        let mut first = place(2);
        first.legs = vec![leg(1, 2, Some(6)), leg(2, 6, None)];
        let mut second = place(10);
        (second.start, second.legs) = ((line(2), 10), vec![leg(2, 10, None)]);
        second.own = Some(leg(2, 10, Some(11)));
        let mut places = [first, second];
        let on = |timeline, first, last| Hole {
            timeline: line(timeline),
            first,
            last,
        };
        let told = |places: &[BackupSpot], holes: &[Hole]| {
            let world = World { places, holes };
            let told = holes.iter().map(|hole| world.of_hole(hole).is_left_out);
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(&places, &[on(1, 3, 5), on(2, 6, 9)]), [true, true]);
        // The deletion stopped on the first timeline, or on the second one.
        assert_eq!(told(&places, &[on(1, 3, 4)]), [true]);
        assert_eq!(told(&places, &[on(1, 3, 5), on(2, 6, 7)]), [true, true]);
        // Something is there, and what comes behind it is not.
        assert_eq!(told(&places, &[on(1, 3, 4), on(2, 6, 9)]), [true, false]);
        assert_eq!(told(&places, &[on(2, 6, 9)]), [false]);
        assert_eq!(told(&places, &[on(1, 3, 5), on(2, 6, 12)]), [false, false]);
        // No backup behind it can be restored.
        places[1].is_damaged = true;
        assert_eq!(told(&places, &[on(1, 3, 5), on(2, 6, 9)]), [false, false]);
    }

    #[test]
    fn a_way_leads_along_timelines() {
        let mut first = place(2);
        first.legs = vec![leg(1, 2, Some(6)), leg(2, 6, None)];
        let mut second = place(8);
        (second.start, second.legs) = ((line(2), 8), vec![leg(2, 8, None)]);
        second.own = Some(leg(2, 8, Some(9)));
        let places = [first, second];
        let on_second = Hole {
            timeline: line(2),
            first: 6,
            last: 6,
        };
        // Timeline 1 went on without them.
        let left = hole(7, 9);
        let holes = [on_second, left];
        let world = World {
            places: &places,
            holes: &holes,
        };
        let meaning = world.of_hole(&on_second);
        let ends = meaning.ends.expect("ended");
        assert_eq!((ends.from, ends.last), (name(2), Some((line(1), 5))));
        assert_eq!(meaning.next, Some(next(8)));
        assert_eq!(world.of_hole(&left), HoleMeaning::default());
    }
}
