//! What a recovery may come to: everything that is not known counts as yes, since deletion goes by it. Pure.

use wale_pg::{TimelineId, WalSegmentName, WalSegmentSize};

use super::Histories;

impl Histories {
    /// Whether a recovery that begins in the segment `start` may read a segment: along its own timeline, even beyond a
    /// point where another timeline left it, and along every timeline whose history leads out of the segment. A
    /// timeline whose history is not there or cannot be read may lead out of every lower one.
    pub fn may_read(
        &self,
        start: WalSegmentName,
        size: Option<WalSegmentSize>,
        segment: WalSegmentName,
    ) -> bool {
        !is_before(segment, start) && self.may_come_to(start, size, segment.timeline())
    }

    /// The line's own switch counts, which is never before the place where the way really leaves: more is kept so.
    fn may_come_to(
        &self,
        start: WalSegmentName,
        size: Option<WalSegmentSize>,
        timeline: TimelineId,
    ) -> bool {
        let own = start.timeline();
        if timeline <= own {
            return timeline == own;
        }
        let Some(history) = self.get(timeline) else {
            return true;
        };
        let Some(left) = history.switch_lsn(own) else {
            return false;
        };
        // The beginning of the segment stands for the backup's start: a fork within the segment may be after it.
        let start = size.and_then(|size| start.start_lsn(size).ok());
        start.is_none_or(|start| left > start)
    }

    /// Whether a recovery that begins on `own` may ask for the history of a timeline. A server asks upwards from its
    /// backup's timeline and stops at the first absence, so it may ask for any above it, even where nothing leads through
    /// that one.
    pub fn may_be_asked_for(&self, own: TimelineId, timeline: TimelineId) -> bool {
        let is_ancestor = |own| match self.get(own) {
            Some(history) => history.switch_lsn(timeline).is_some(),
            None => true,
        };
        timeline >= own || is_ancestor(own)
    }
}

/// Whether a segment lies before another one by position, whatever their timelines.
pub fn is_before(segment: WalSegmentName, other: WalSegmentName) -> bool {
    segment.with_timeline(other.timeline()) < other
}
