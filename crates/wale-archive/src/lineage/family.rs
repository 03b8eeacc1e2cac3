//! Which base backup leads to which timeline. Pure.
//!
//! A server that goes back in time, or is promoted, leaves its timeline for a new one. The new number is the next that
//! is free, so the highest timeline of an archive is where the cluster is now. A backup leads to a timeline when its
//! own end is on the way there, according to the timeline's history. A backup that ended after the fork lies on an
//! abandoned branch. It can be restored, but never to what the cluster is now.

use std::collections::BTreeSet;

use wale_pg::{Lsn, TimelineId};

use super::Histories;

/// Where a backup ends: what decides which timelines it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndPosition {
    /// Its timeline.
    pub timeline: TimelineId,
    /// The position at which it is consistent, where it is known.
    pub at: Option<Lsn>,
}

/// The family of an archive's timelines.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    histories: Histories,
    timelines: BTreeSet<TimelineId>,
}

impl Lineage {
    /// Of the histories of the archive, and the timelines that its backups are on.
    pub fn new(histories: Histories, backups: impl IntoIterator<Item = TimelineId>) -> Self {
        let mut timelines: BTreeSet<TimelineId> = histories.timelines().collect();
        timelines.extend(backups);
        Self {
            histories,
            timelines,
        }
    }

    /// The histories.
    pub fn into_histories(self) -> Histories {
        self.histories
    }

    /// The newest timeline; `None` in an archive without backups and histories.
    pub fn newest(&self) -> Option<TimelineId> {
        self.timelines.last().copied()
    }

    /// Whether a recovery of the backup can come to the timeline. `None` where it is not known: the history cannot be
    /// read, or the end of the backup is not recorded.
    pub fn leads(&self, end: EndPosition, to: TimelineId) -> Option<bool> {
        if to <= end.timeline {
            return Some(to == end.timeline);
        }
        let history = self.histories.get(to)?;
        match history.left_at(end.timeline) {
            Some(_) => Some(history.contains_until(end.timeline, end.at?)),
            None => Some(false),
        }
    }

    /// The newest timeline to which the backup leads for certain: its own at least.
    pub fn tip(&self, end: EndPosition) -> TimelineId {
        let later = self.timelines.iter().rev();
        let mut led = later.filter(|&&timeline| self.leads(end, timeline) == Some(true));
        led.next().copied().unwrap_or(end.timeline)
    }

    /// Why a backup does not lead to a timeline, in words.
    pub(crate) fn why_not(&self, end: EndPosition, to: TimelineId) -> String {
        let own = end.timeline;
        let Some(history) = self.histories.get(to) else {
            return format!(
                "it is on timeline {own}, and the history of timeline {to} is not there or cannot be read"
            );
        };
        match (history.left_at(own), end.at) {
            (Some(fork), Some(at)) => format!(
                "it ends at {at} on timeline {own}, which timeline {to} left at {fork}: it lies on a branch that was \
                 abandoned"
            ),
            (Some(fork), None) => format!(
                "it is on timeline {own}, which timeline {to} left at {fork}, and it is not recorded where it ends"
            ),
            (None, _) => format!("it is on timeline {own}, from which timeline {to} did not grow"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::tests::{histories, timeline};
    use super::*;

    fn ending(on: u32, at: &str) -> EndPosition {
        EndPosition {
            timeline: timeline(on),
            at: Some(at.parse().unwrap()),
        }
    }

    fn lineage(texts: &[(u32, &str)], backups: &[u32]) -> Lineage {
        let backups = backups.iter().map(|&number| timeline(number));
        Lineage::new(histories(texts), backups)
    }

    #[test]
    fn fault_105_a_backup_leads_where_its_end_is_on_the_way() {
        // 2 left 1 at 0/5000100; 3 left 1 at 0/3000100, after a recovery that went further back.
        let family = lineage(&[(2, "1\t0/5000100\tx\n"), (3, "1\t0/3000100\ty\n")], &[1]);
        assert_eq!(family.newest(), Some(timeline(3)));
        let cases = [
            (ending(1, "0/2000100"), 3),
            // An end at the very fork is on the way.
            (ending(1, "0/3000100"), 3),
            (ending(1, "0/4000100"), 2),
            (ending(1, "0/6000100"), 1),
            (ending(2, "0/6000100"), 2),
            (ending(3, "0/3000200"), 3),
        ];
        for (ending, tip) in cases {
            assert_eq!(family.tip(ending), timeline(tip), "{ending:?}");
            assert_eq!(
                family.leads(ending, timeline(3)),
                Some(tip == 3),
                "{ending:?}"
            );
        }
        let why = family.why_not(ending(1, "0/4000100"), timeline(3));
        assert!(
            why.contains("0/3000100") && why.contains("abandoned"),
            "{why}"
        );
        let why = family.why_not(ending(2, "0/6000100"), timeline(3));
        assert!(why.contains("did not grow"), "{why}");
        // A recovery followed timeline 2 and ended before its fork: timeline 4 left timeline 1 there.
        let family = lineage(&[(4, "1\t0/5000100\tx\n2\t0/3000100\ty\n")], &[1]);
        let late = ending(1, "0/4000100");
        assert_eq!(family.leads(late, timeline(4)), Some(false));
        let why = family.why_not(late, timeline(4));
        assert!(why.contains("left at 0/3000100"), "{why}");
    }

    #[test]
    fn what_cannot_be_read_or_is_not_recorded_is_not_known() {
        let family = lineage(&[(2, "what?")], &[1, 4]);
        assert_eq!(family.newest(), Some(timeline(4)));
        for to in [2, 4] {
            assert_eq!(family.leads(ending(1, "0/2000100"), timeline(to)), None);
        }
        assert_eq!(family.tip(ending(1, "0/2000100")), timeline(1));
        let family = lineage(&[(2, "1\t0/5000100\tx\n")], &[1]);
        let somewhere = EndPosition {
            timeline: timeline(1),
            at: None,
        };
        assert_eq!(family.leads(somewhere, timeline(2)), None);
        assert_eq!(family.leads(somewhere, timeline(1)), Some(true));
        assert_eq!(Lineage::default().newest(), None);
    }
}
