//! Which WAL the remaining backups need. Pure.
//!
//! A backup needs everything from the segment of its start on: along its own timeline, even beyond a point where
//! another timeline left it (`recovery_target_timeline = 'current'` leads there), and along every timeline whose
//! history leads out of the backup. Names alone decide what is *needed*. What is not needed goes only if it was also
//! stored before the oldest of these backups was complete: WAL stored later may belong to a cluster that began its
//! log anew, or to a backup that is about to begin, and a name does not show that.
//!
//! Everything unknown counts as needed: a timeline whose history is not there or cannot be read may lead out of
//! every backup on a lower timeline.

use chrono::{DateTime, Utc};
use wale_archive::lineage::{Histories, is_before};
use wale_pg::{ArchiveFileName, TimelineId, WalSegmentName, WalSegmentSize};

/// What one remaining backup, complete or being written, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalNeed {
    /// The segment in which the backup starts.
    pub start: WalSegmentName,
    /// The last segment that is needed, of the same timeline; without one it is everything since the start.
    pub last: Option<WalSegmentName>,
    /// The segment size of the backup's cluster, where it is known.
    pub size: Option<WalSegmentSize>,
    /// When the backup was committed, by the store's clock; none while it is being written.
    pub committed: Option<DateTime<Utc>>,
    /// Whether the backup lies apart from the line to the present. Its age says nothing about WAL that is stored now.
    pub is_apart: bool,
}

/// What a WAL object's fate is, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A remaining backup needs it.
    Needed,
    /// It is the history of a timeline that a remaining backup is on, came from, or may be led to.
    History,
    /// It was stored after the oldest remaining backup was complete.
    Young,
    /// It is not before the bound that was asked for.
    NotBefore,
    /// No complete backup remains against which it could be judged.
    NoBackup,
    /// No remaining backup needs it.
    Unneeded,
}

impl Verdict {
    /// Whether the object goes.
    #[must_use]
    pub const fn goes(self) -> bool {
        matches!(self, Self::Unneeded)
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Needed => "a remaining backup needs it",
            Self::History => "a remaining backup is on, came from, or may be led to this timeline",
            Self::Young => {
                "stored after the oldest remaining backup was complete: it may belong to a log that began anew"
            }
            Self::NotBefore => "not before the segment that was given",
            Self::NoBackup => "no complete backup remains to judge it by",
            Self::Unneeded => "no remaining backup needs it",
        }
    }
}

/// Judges WAL objects.
#[derive(Debug)]
pub struct WalJudge {
    needs: Vec<WalNeed>,
    histories: Histories,
    /// What was stored later than this is young.
    settled: Option<DateTime<Utc>>,
    /// Only what lies before this position goes.
    before: Option<WalSegmentName>,
}

impl WalJudge {
    /// For the needs of the backups that remain.
    #[must_use]
    pub fn new(needs: Vec<WalNeed>, histories: Histories) -> Self {
        // Backups on the line to the present that keep all WAL since their start decide. Where there are none, others
        // do. An abandoned branch may be kept for ever, and must not keep all WAL since.
        let ranks: [fn(&WalNeed) -> bool; 3] = [
            |need| !need.is_apart && need.last.is_none(),
            |need| need.last.is_none(),
            |_| true,
        ];
        let oldest = |rank: fn(&WalNeed) -> bool| {
            let of_rank = needs.iter().filter(|need| rank(need));
            of_rank.filter_map(|need| need.committed).min()
        };
        let settled = ranks.into_iter().find_map(oldest);
        Self {
            needs,
            histories,
            settled,
            before: None,
        }
    }

    /// The same, but nothing at or after the position of `bound` goes.
    #[must_use]
    pub fn before(mut self, bound: Option<WalSegmentName>) -> Self {
        self.before = bound;
        self
    }

    /// The fate of the object that holds, or claims to hold, `name`, and was stored at `stored`.
    #[must_use]
    pub fn judge(&self, name: &ArchiveFileName, stored: DateTime<Utc>) -> Verdict {
        let Some(settled) = self.settled else {
            return Verdict::NoBackup;
        };
        match name.segment() {
            Some(segment) if self.needs.iter().any(|need| self.needs_it(need, segment)) => {
                return Verdict::Needed;
            }
            None if self.history_stays(name.timeline()) => return Verdict::History,
            _ => {}
        }
        if stored > settled {
            return Verdict::Young;
        }
        if let (Some(bound), Some(segment)) = (self.before, name.segment())
            && !is_before(segment, bound)
        {
            return Verdict::NotBefore;
        }
        Verdict::Unneeded
    }

    fn needs_it(&self, need: &WalNeed, segment: WalSegmentName) -> bool {
        match need.last {
            Some(last) => {
                segment.timeline() == need.start.timeline()
                    && !is_before(segment, need.start)
                    && !is_before(last, segment)
            }
            None => self.histories.may_read(need.start, need.size, segment),
        }
    }

    fn history_stays(&self, timeline: TimelineId) -> bool {
        let asks = |need: &WalNeed| {
            self.histories
                .may_be_asked_for(need.start.timeline(), timeline)
        };
        self.needs.iter().any(asks)
    }
}

#[cfg(test)]
mod tests {
    use wale_pg::TimelineHistory;

    use super::super::tests::{at, segment, timeline};
    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn need(start: &str, last: Option<&str>) -> WalNeed {
        WalNeed {
            start: segment(start),
            last: last.map(segment),
            size: Some(SIZE),
            committed: Some(at("2026-01-10T00:00:00Z")),
            is_apart: false,
        }
    }

    fn histories(texts: &[(u32, &str)]) -> Histories {
        let mut histories = Histories::default();
        for &(number, text) in texts {
            histories.insert(TimelineHistory::parse(timeline(number), text).unwrap());
        }
        histories
    }

    fn judge(judge: &WalJudge, name: &str, stored: &str) -> Verdict {
        judge.judge(&ArchiveFileName::parse(name).unwrap(), at(stored))
    }

    const OLD: &str = "2026-01-01T00:00:00Z";

    /// The cluster of the golden archive: timeline 2 leaves timeline 1 within segment 7, and 3 leaves 2 in 9.
    fn golden() -> Histories {
        histories(&[
            (2, "1\t0/70173A8\tno recovery target specified\n"),
            (3, "1\t0/70173A8\tx\n2\t0/9000100\ty\n"),
        ])
    }

    /// Timeline and number of a segment in short: `1/6`, with whatever else belongs to the name after it.
    fn long(short: &str) -> String {
        let Some((timeline, rest)) = short.split_once('/') else {
            return short.to_owned();
        };
        let (number, rest) = rest.split_at(1);
        format!("{timeline:0>8}{number:0>16}{rest}")
    }

    #[test]
    fn wal_along_all_timelines_that_lead_out_of_the_backup() {
        use Verdict::{History, Needed, Unneeded};
        // (start of the backup, object, verdict)
        let cases = [
            ("1/6", "1/5", Unneeded),
            ("1/6", "1/6", Needed),
            // Beyond the fork on the own timeline, and on both that left it.
            ("1/6", "1/8", Needed),
            ("1/6", "2/7", Needed),
            ("1/6", "3/A", Needed),
            ("1/6", "1/8.partial", Needed),
            ("1/6", "1/5.00000028.backup", Unneeded),
            ("1/6", "1/6.00000028.backup", Needed),
            // A backup in the very segment of the fork: the fork may be after its start.
            ("1/7", "2/7", Needed),
            // A backup after the fork is not led to timeline 2.
            ("1/8", "2/9", Unneeded),
            ("1/8", "1/7", Unneeded),
            // A backup on timeline 2 needs nothing of its parent.
            ("2/8", "1/8", Unneeded),
            ("2/8", "2/8", Needed),
            ("2/8", "3/9", Needed),
            // A timeline whose history is not there may lead anywhere.
            ("2/8", "4/9", Needed),
            ("2/8", "4/1", Unneeded),
            // Histories: the own, those above, and the ancestors'.
            ("2/8", "00000002.history", History),
            ("2/8", "00000009.history", History),
            ("3/9", "00000002.history", History),
        ];
        for (start, name, expected) in cases {
            let judge_of = WalJudge::new(vec![need(&long(start), None)], golden());
            let verdict = judge(&judge_of, &long(name), OLD);
            assert_eq!(verdict, expected, "{start}: {name}");
        }
    }

    #[test]
    fn the_history_of_a_dead_branch_goes_with_the_last_backup_below_it() {
        let histories = histories(&[(2, "1\t0/7000000\tx\n"), (3, "1\t0/9000000\ty\n")]);
        let on = |start: &str| WalJudge::new(vec![need(start, None)], histories.clone());
        let judge_it = |start: &str| judge(&on(start), "00000002.history", OLD);
        // A server that begins on timeline 1 asks for 2 before it asks for 3.
        assert_eq!(judge_it("000000010000000000000006"), Verdict::History);
        assert_eq!(judge_it("000000030000000000000009"), Verdict::Unneeded);
        let mut unreadable = Histories::default();
        unreadable.insert_unreadable(timeline(3));
        let judge_of = WalJudge::new(vec![need("000000030000000000000009", None)], unreadable);
        assert_eq!(judge(&judge_of, "00000002.history", OLD), Verdict::History);
    }

    #[test]
    fn wal_stored_after_the_oldest_backup_stays() {
        let judge_of = WalJudge::new(vec![need("000000010000000000000006", None)], golden());
        let name = "000000010000000000000005";
        for (stored, expected) in [
            ("2026-01-10T00:00:00Z", Verdict::Unneeded),
            ("2026-01-10T00:00:01Z", Verdict::Young),
        ] {
            assert_eq!(judge(&judge_of, name, stored), expected);
        }
    }

    #[test]
    fn what_was_abandoned_does_not_make_wal_young() {
        let left = WalNeed {
            committed: Some(at("2026-01-01T00:00:00Z")),
            is_apart: true,
            ..need("000000010000000000000008", None)
        };
        let judge_of = WalJudge::new(vec![left, need("000000020000000000000009", None)], golden());
        for (name, expected) in [
            ("000000020000000000000008", Verdict::Unneeded),
            ("000000010000000000000009", Verdict::Needed),
        ] {
            assert_eq!(
                judge(&judge_of, name, "2026-01-05T00:00:00Z"),
                expected,
                "{name}"
            );
        }
        let alone = WalJudge::new(vec![left], golden());
        let verdict = judge(&alone, "000000020000000000000008", "2026-01-05T00:00:00Z");
        assert_eq!(verdict, Verdict::Young);
    }

    #[test]
    fn a_backup_that_only_has_to_be_consistent_needs_its_own_wal() {
        use Verdict::{Needed, Unneeded};
        let needs = vec![
            need("000000010000000000000002", Some("000000010000000000000003")),
            need("000000010000000000000006", None),
        ];
        let judge_of = WalJudge::new(needs, golden());
        for (number, expected) in [
            (1, Unneeded),
            (2, Needed),
            (3, Needed),
            (4, Unneeded),
            (5, Unneeded),
            (6, Needed),
        ] {
            let name = format!("0000000100000000000000{number:02X}");
            assert_eq!(judge(&judge_of, &name, OLD), expected, "{name}");
        }
    }

    #[test]
    fn without_a_complete_backup_nothing_goes() {
        let writing = WalNeed {
            committed: None,
            ..need("000000010000000000000006", None)
        };
        for needs in [vec![], vec![writing]] {
            let judge_of = WalJudge::new(needs, golden());
            let verdict = judge(&judge_of, "000000010000000000000001", OLD);
            assert_eq!(verdict, Verdict::NoBackup);
        }
        // A backup that is being written keeps its WAL beside the complete ones.
        let judge_of = WalJudge::new(
            vec![writing, need("000000020000000000000009", None)],
            golden(),
        );
        let verdict = judge(&judge_of, "000000010000000000000006", OLD);
        assert_eq!(verdict, Verdict::Needed);
    }

    #[test]
    fn a_bound_spares_what_lies_after_it() {
        let judge_of = WalJudge::new(vec![need("000000010000000000000006", None)], golden())
            .before(Some(segment("000000010000000000000003")));
        for (name, expected) in [
            ("000000010000000000000002", Verdict::Unneeded),
            ("000000010000000000000003", Verdict::NotBefore),
            ("000000010000000000000006", Verdict::Needed),
        ] {
            assert_eq!(judge(&judge_of, name, OLD), expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_segment_size_keeps_more() {
        let blind = WalNeed {
            size: None,
            ..need("000000010000000000000008", None)
        };
        let judge_of = WalJudge::new(vec![blind], golden());
        let verdict = judge(&judge_of, "000000020000000000000009", OLD);
        assert_eq!(verdict, Verdict::Needed);
    }
}
