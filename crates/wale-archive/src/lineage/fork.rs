//! Where a server left a timeline, seen from a segment of that timeline. Pure.

use wale_pg::{Lsn, TimelineHistory, TimelineId, WalSegmentName, WalSegmentSize};

/// Where the server that hands a file over has left the timeline of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that the server is on.
    pub timeline: TimelineId,
    /// The first position of the old timeline that is not on the server's way.
    pub at: Lsn,
    /// How many bytes of the segment are on the server's way; fewer than the segment has.
    pub bytes: u64,
}

/// The fork before the end of `segment`, if the server has left that timeline there: `server` is the history of the
/// timeline that the server is on, `own` the one of the segment's.
pub fn fork(
    segment: WalSegmentName,
    size: WalSegmentSize,
    server: &TimelineHistory,
    own: &TimelineHistory,
) -> Option<Fork> {
    if server.timeline <= segment.timeline() || own.timeline != segment.timeline() {
        return None;
    }
    let at = server.parts_from(own)?;
    let start = segment.start_lsn(size).ok()?;
    let bytes = at.as_u64().saturating_sub(start.as_u64());
    (bytes < size.bytes()).then_some(Fork {
        timeline: server.timeline,
        at,
        bytes,
    })
}

/// Where `history` leaves the timeline of `segment`, if its log ends before the segment's end. The line's own switch
/// counts: up to there the timeline was written, whatever later ones read of it.
pub fn cut_off(
    segment: WalSegmentName,
    history: &TimelineHistory,
    size: WalSegmentSize,
) -> Option<Lsn> {
    let fork = history.switch_lsn(segment.timeline())?;
    let number = segment.number(size).ok()?;
    let end = (number + 1).checked_mul(size.bytes())?;
    (fork.as_u64() < end).then_some(fork)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_cuts_off_the_segment_in_which_it_forks_and_all_after_it() {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let history = |text| TimelineHistory::parse(TimelineId::new(2).unwrap(), text).unwrap();
        let cases = [
            // Segment 4 begins at 0x400000.
            ("1\t0/400000\tx\n", "000000010000000000000003", false),
            ("1\t0/3FFFF8\tx\n", "000000010000000000000003", true),
            ("1\t0/400000\tx\n", "000000010000000000000004", true),
            ("1\t0/400100\tx\n", "000000010000000000000004", true),
            ("1\t0/100100\tx\n", "000000010000000000000004", true),
            // It does not come from the segment's timeline.
            ("1\t0/100100\tx\n", "000000070000000000000004", false),
        ];
        for (text, segment, expected) in cases {
            let segment = WalSegmentName::parse(segment).unwrap();
            let fork = cut_off(segment, &history(text), size);
            assert_eq!(fork.is_some(), expected, "{text} {segment}");
        }
    }
}
