//! The ancestry of a timeline: which part of the log belongs to which timeline on the way to it.
//!
//! Written by `writeTimeLineHistory`, read by `readTimeLineHistory` (`src/backend/access/transam/timeline.c`, 10 to
//! 18): one line per parent, oldest first, `<timeline>\t<switch position>\t<reason>`; comments begin with '#'.

use crate::lsn::Lsn;
use crate::text_form::excerpt;
use crate::timeline::TimelineId;

/// A timeline and its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// Its parents, oldest first; none for timeline 1.
    pub parents: Vec<ParentTimeline>,
}

/// A parent: the log is its own up to the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentTimeline {
    /// The parent.
    pub timeline: TimelineId,
    /// The first position that no longer belongs to the parent.
    pub switch_lsn: Lsn,
    /// Why it was left, in the server's words.
    pub reason: String,
}

/// What the way to a timeline has of one timeline: the log between two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Whose log it is.
    pub timeline: TimelineId,
    /// The first position of it; zero where the timeline has no parent.
    pub begin: Lsn,
    /// The first position that no longer belongs to it; `None` for the timeline at the end of the way.
    pub end: Option<Lsn>,
}

impl TimelineHistory {
    /// The history of a timeline without a history file: it has no parents.
    pub const fn without_parents(timeline: TimelineId) -> Self {
        Self {
            timeline,
            parents: Vec::new(),
        }
    }

    /// Reads the content of the timeline's history file.
    ///
    /// # Errors
    /// When a line is damaged, timelines do not grow from line to line, or a parent is not older than the timeline.
    pub fn parse(timeline: TimelineId, text: &str) -> Result<Self, InvalidTimelineHistory> {
        let mut parents: Vec<ParentTimeline> = Vec::new();
        for line in text.lines() {
            let trimmed = line.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let invalid = |problem| InvalidTimelineHistory {
                timeline,
                line: excerpt(line),
                problem,
            };
            let parent = parse_line(trimmed)
                .ok_or_else(|| invalid("is not a timeline, a position and a reason"))?;
            if parents
                .last()
                .is_some_and(|last| last.timeline >= parent.timeline)
            {
                return Err(invalid("is not younger than the line before"));
            }
            if parent.timeline >= timeline {
                return Err(invalid("is not older than the timeline itself"));
            }
            parents.push(parent);
        }
        Ok(Self { timeline, parents })
    }

    /// The timeline to which the byte at a position belongs, on the way to this timeline (`tliOfPointInHistory`).
    ///
    /// Looked up from the youngest: a recovery that stops before its timeline's own beginning writes switch positions
    /// that go back, and then the parent in between owns nothing.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let mut owner = self.timeline;
        for parent in self.parents.iter().rev() {
            if lsn >= parent.switch_lsn {
                break;
            }
            owner = parent.timeline;
        }
        owner
    }

    /// Whether the byte at a position of a timeline is on the way to this timeline.
    ///
    /// For the *end* of something, such as a backup's stop position, use [`TimelineHistory::contains_until`].
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.timeline_at(lsn) == timeline
    }

    /// Whether everything of a timeline just before an end position is on the way to this timeline: so an end at the
    /// very switch is still the parent's.
    pub fn contains_until(&self, timeline: TimelineId, end: Lsn) -> bool {
        self.contains(timeline, Lsn::new(end.as_u64().saturating_sub(1)))
    }

    /// Where the way to this timeline and the way to another one part: the first position that they no longer have in
    /// common. `None` when they never part (the same timeline), or have no timeline in common.
    pub fn parts_from(&self, other: &Self) -> Option<Lsn> {
        let at = self
            .lines()
            .zip(other.lines())
            .position(|(own, others)| own != others)?;
        let begin = at
            .checked_sub(1)
            .and_then(|before| self.parents.get(before));
        let (own, others) = (self.lines().nth(at)?, other.lines().nth(at)?);
        // Of the timelines after that one, one that was left before its own beginning owns nothing, so the smallest
        // switch counts.
        let left = |history: &Self| {
            let rest = history.parents.get(at..).unwrap_or_default();
            rest.iter().map(|parent| parent.switch_lsn).min()
        };
        let earliest = left(self).into_iter().chain(left(other)).min();
        if own.0 == others.0 {
            return earliest;
        }
        begin.map(|begin| earliest.map_or(begin.switch_lsn, |lsn| lsn.min(begin.switch_lsn)))
    }

    /// The history of a parent, as far as it is part of this one; `None` for the timeline itself and for strangers.
    pub fn until(&self, parent: TimelineId) -> Option<Self> {
        let at = self.parents.iter().position(|p| p.timeline == parent)?;
        Some(Self {
            timeline: parent,
            parents: self.parents[..at].to_vec(),
        })
    }

    /// The lines of the history, oldest first, each with its switch; the timeline itself comes last and has none.
    fn lines(&self) -> impl Iterator<Item = (TimelineId, Option<Lsn>)> + '_ {
        let parents = self.parents.iter();
        parents
            .map(|parent| (parent.timeline, Some(parent.switch_lsn)))
            .chain([(self.timeline, None)])
    }

    /// The way to this timeline, oldest first: every byte of it is in the one stretch that
    /// [`TimelineHistory::timeline_at`] names. A parent that owns nothing has none.
    pub fn way(&self) -> Vec<Stretch> {
        let mut end = None;
        let mut way: Vec<Stretch> = Vec::with_capacity(self.parents.len() + 1);
        let begins = self.parents.iter().map(|parent| parent.switch_lsn);
        let begins: Vec<Lsn> = std::iter::once(Lsn::new(0)).chain(begins).collect();
        let lines: Vec<_> = self.lines().zip(begins).collect();
        for ((timeline, switch), begin) in lines.into_iter().rev() {
            // Left where the first of the later ones was begun, whatever lies between them.
            end = switch.into_iter().chain(end).min();
            if end.is_none_or(|end| begin < end) {
                way.push(Stretch {
                    timeline,
                    begin,
                    end,
                });
            }
        }
        way.reverse();
        way
    }

    /// Where the way to this timeline leaves a parent: at the switch away from it, or before that, where a later one of the
    /// way was begun before its own parent. `None` for the timeline itself and for strangers.
    pub fn left_at(&self, parent: TimelineId) -> Option<Lsn> {
        let at = self.parents.iter().position(|p| p.timeline == parent)?;
        self.parents[at..]
            .iter()
            .map(|parent| parent.switch_lsn)
            .min()
    }

    /// Where the timeline begins; `None` where it has no parent.
    pub fn begins_at(&self) -> Option<Lsn> {
        self.parents.last().map(|parent| parent.switch_lsn)
    }

    /// The switch away from a parent, as the history's line says it: so far its log was written at least. The way to this
    /// timeline may leave it earlier ([`TimelineHistory::left_at`]). `None` for the timeline itself and for strangers.
    pub fn switch_lsn(&self, parent: TimelineId) -> Option<Lsn> {
        self.parents
            .iter()
            .find(|candidate| candidate.timeline == parent)
            .map(|found| found.switch_lsn)
    }
}

fn parse_line(line: &str) -> Option<ParentTimeline> {
    // PostgreSQL scans with "%u\t%X/%X", where the tab stands for any blanks.
    let (timeline, rest) = line.split_once(|blank: char| blank.is_ascii_whitespace())?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest
        .split_once(|blank: char| blank.is_ascii_whitespace())
        .unwrap_or((rest, ""));
    Some(ParentTimeline {
        timeline: timeline.parse().ok()?,
        switch_lsn: Lsn::parse(lsn).ok()?,
        reason: reason.trim().to_owned(),
    })
}

/// Why a text is not the history of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history of timeline {timeline} has a line that {problem}: {line:?}")]
pub struct InvalidTimelineHistory {
    /// The timeline whose history it should be.
    pub timeline: TimelineId,
    /// The line, shortened.
    pub line: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn histories_of_real_servers() {
        // 10 and 18 after a promotion.
        for (text, switch) in [
            ("1\t0/1B26040\tno recovery target specified\n", "0/1B26040"),
            ("1\t0/1A3E060\tno recovery target specified\n", "0/1A3E060"),
        ] {
            let history = TimelineHistory::parse(timeline(2), text).unwrap();
            let reason = "no recovery target specified".to_owned();
            let parent = ParentTimeline {
                timeline: timeline(1),
                switch_lsn: lsn(switch),
                reason,
            };
            assert_eq!(history.parents, [parent]);
        }
    }

    #[test]
    fn comments_and_blanks_are_passed_over() {
        let text = "# comment\n\n  1\t0/5000000\tbefore 2026-01-01 00:00:00+00\n\t2 1/0\n";
        let history = TimelineHistory::parse(timeline(5), text).unwrap();
        assert_eq!(history.parents.len(), 2);
        assert_eq!(history.parents[0].reason, "before 2026-01-01 00:00:00+00");
        assert_eq!(history.switch_lsn(timeline(2)), Some(lsn("1/0")));
        assert_eq!(history.switch_lsn(timeline(5)), None);
        assert!(
            TimelineHistory::parse(timeline(1), "")
                .unwrap()
                .parents
                .is_empty()
        );
    }

    #[test]
    fn two_ways_part_where_the_first_of_them_leaves() {
        let of = |number, text: &str| TimelineHistory::parse(timeline(number), text).unwrap();
        let first = TimelineHistory::without_parents(timeline(1));
        let second = of(2, "1\t0/500\tx\n");
        let third = of(3, "1\t0/500\tx\n2\t0/700\ty\n");
        let beside = of(4, "1\t0/300\tx\n");
        // Left before its own beginning: timeline 2 owns nothing of this way.
        let back = of(5, "1\t0/500\tx\n2\t0/400\ty\n");
        assert_eq!(third.until(timeline(2)), Some(second.clone()));
        assert_eq!(third.until(timeline(1)), Some(first.clone()));
        assert_eq!(third.until(timeline(3)), None);
        let stranger = of(9, "8\t0/100\tx\n");
        for (one, other, expected) in [
            (&first, &first, None),
            (&third, &third, None),
            (&second, &first, Some("0/500")),
            (&third, &first, Some("0/500")),
            (&third, &second, Some("0/700")),
            (&beside, &first, Some("0/300")),
            (&beside, &second, Some("0/300")),
            (&beside, &third, Some("0/300")),
            (&back, &first, Some("0/400")),
            (&back, &second, Some("0/400")),
            (&stranger, &first, None),
        ] {
            let expected = expected.map(lsn);
            assert_eq!(one.parts_from(other), expected, "{one:?} {other:?}");
            assert_eq!(other.parts_from(one), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn damaged_histories_are_refused() {
        for text in [
            "nonsense\n",
            "1\n",
            "1\t\n",
            "1\t0-5000000\tx\n",
            "0\t0/5000000\tx\n",
            "1\t0/5000000\tx\n1\t0/6000000\tx\n",
            "2\t0/5000000\tx\n1\t0/6000000\tx\n",
            "3\t0/5000000\tx\n",
            "4\t0/5000000\tx\n",
        ] {
            assert!(
                TimelineHistory::parse(timeline(3), text).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn positions_belong_to_one_timeline() {
        let history =
            TimelineHistory::parse(timeline(4), "1\t0/5000000\tx\n3\t0/7000000\tx\n").unwrap();
        for (position, owner) in [
            ("0/0", 1),
            ("0/4FFFFFF", 1),
            ("0/5000000", 3),
            ("0/6FFFFFF", 3),
            ("0/7000000", 4),
            ("FF/0", 4),
        ] {
            assert_eq!(
                history.timeline_at(lsn(position)),
                timeline(owner),
                "{position}"
            );
            for candidate in 1..=4 {
                assert_eq!(
                    history.contains(timeline(candidate), lsn(position)),
                    candidate == owner
                );
            }
        }
        assert!(history.contains_until(timeline(1), lsn("0/5000000")));
        assert!(!history.contains_until(timeline(1), lsn("0/5000001")));
        assert!(!history.contains_until(timeline(2), lsn("0/5000001")));
    }

    #[test]
    fn a_recovery_may_stop_before_its_own_timeline_began() {
        // Timeline 2 was followed, but the recovery ended before its switch: 2 owns nothing.
        let history =
            TimelineHistory::parse(timeline(3), "1\t0/5000000\tx\n2\t0/4000000\tx\n").unwrap();
        for (position, owner) in [
            ("0/3FFFFFF", 1),
            ("0/4000000", 3),
            ("0/4800000", 3),
            ("0/5000000", 3),
        ] {
            assert_eq!(
                history.timeline_at(lsn(position)),
                timeline(owner),
                "{position}"
            );
        }
        let stretch = |number, begin, end: Option<&str>| Stretch {
            timeline: timeline(number),
            begin: lsn(begin),
            end: end.map(lsn),
        };
        let way = [
            stretch(1, "0/0", Some("0/4000000")),
            stretch(3, "0/4000000", None),
        ];
        assert_eq!(history.way(), way);
        assert_eq!(history.left_at(timeline(1)), Some(lsn("0/4000000")));
        assert_eq!(history.switch_lsn(timeline(1)), Some(lsn("0/5000000")));
        assert_eq!(history.left_at(timeline(3)), None);
        assert_eq!(history.begins_at(), Some(lsn("0/4000000")));
    }

    proptest! {
        #[test]
        fn the_way_and_the_owner_of_a_position_are_one_answer(
            switches in prop::collection::vec(1..20_u64, 0..6),
            position in 0..24_u64,
        ) {
            let lines = switches.iter().zip(1..);
            let lines: Vec<String> = lines
                .map(|(switch, number)| format!("{number}\t0/{switch:X}\tx\n"))
                .collect();
            let text = lines.concat();
            let last = u32::try_from(switches.len()).unwrap() + 1;
            let history = TimelineHistory::parse(timeline(last), &text).unwrap();
            let lsn = Lsn::new(position);
            let holds = |stretch: &&Stretch| stretch.begin <= lsn && stretch.end.is_none_or(|end| lsn < end);
            let way = history.way();
            let owners: Vec<TimelineId> = way.iter().filter(holds).map(|stretch| stretch.timeline).collect();
            prop_assert_eq!(&owners, &[history.timeline_at(lsn)]);
            for stretch in &way {
                prop_assert_eq!(history.left_at(stretch.timeline), stretch.end);
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = TimelineHistory::parse(timeline(9), &text);
        }
    }
}
