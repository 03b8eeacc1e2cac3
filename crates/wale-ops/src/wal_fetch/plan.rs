//! The decisions of `wal-fetch`, as pure functions.

use wale_pg::{WalSegmentName, WalSegmentSize};

/// The segments to have at hand after `asked`, nearest first: the next `count`, if the one served before `asked` was
/// its predecessor. A server that replays goes forward one by one; `pg_rewind` walks backwards and gets none.
pub(super) fn ahead_of(
    served: Option<WalSegmentName>,
    asked: WalSegmentName,
    count: usize,
    size: WalSegmentSize,
) -> Vec<WalSegmentName> {
    if !follows(served, asked, size) {
        return Vec::new();
    }
    std::iter::successors(asked.next(size).ok(), |name| name.next(size).ok())
        .take(count)
        .collect()
}

/// Whether `asked` is the segment right after `served`.
#[must_use]
pub fn follows(
    served: Option<WalSegmentName>,
    asked: WalSegmentName,
    size: WalSegmentSize,
) -> bool {
    served.and_then(|served| served.next(size).ok()) == Some(asked)
}

/// The segment before this one, on the same timeline.
#[must_use]
pub fn previous(segment: WalSegmentName, size: WalSegmentSize) -> Option<WalSegmentName> {
    let number = segment.number(size).ok()?.checked_sub(1)?;
    WalSegmentName::from_number(segment.timeline(), number, size).ok()
}
