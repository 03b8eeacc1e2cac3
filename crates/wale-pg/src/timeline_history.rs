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

impl TimelineHistory {
    /// The history of a timeline without a history file: it has no parents.
    pub const fn without_parents(timeline: TimelineId) -> Self {
        Self { timeline, parents: Vec::new() }
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
            let invalid = |problem| InvalidTimelineHistory { timeline, line: excerpt(line), problem };
            let parent = parse_line(trimmed).ok_or_else(|| invalid("is not a timeline, a position and a reason"))?;
            if parents.last().is_some_and(|last| last.timeline >= parent.timeline) {
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

    /// Where a parent was left; `None` for the timeline itself and for strangers.
    pub fn switch_lsn(&self, parent: TimelineId) -> Option<Lsn> {
        self.parents.iter().find(|candidate| candidate.timeline == parent).map(|found| found.switch_lsn)
    }
}

fn parse_line(line: &str) -> Option<ParentTimeline> {
    // PostgreSQL scans with "%u\t%X/%X", where the tab stands for any blanks.
    let (timeline, rest) = line.split_once(|blank: char| blank.is_ascii_whitespace())?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once(|blank: char| blank.is_ascii_whitespace()).unwrap_or((rest, ""));
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
