//! Whether a segment that is not there is missing from the middle of its timeline, or was never written. Pure.

use wale_pg::{ArchiveFileName, Lsn, TimelineId, WalSegmentName, WalSegmentSize};

/// What the archive has around a segment that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// The first segment of the timeline that the archive shows, by the segment or by the note of a backup that began in it;
    /// not one after the segment.
    pub(crate) earlier: Option<WalSegmentName>,
    /// What shows first that the timeline went on after the segment, or that the segment was stored.
    pub(crate) later: Option<ArchiveFileName>,
}

/// Whether a segment that is not there is missing from the middle of its timeline.
///
/// A server that recovers along timeline 2 may ask for every segment on that timeline first, those before its
/// beginning too (before 14 it always does). They never existed; calling that a gap would stop a good recovery. So
/// a later segment proves a gap only from the timeline's first segment on, which its history shows; without it, an
/// earlier segment of the timeline must be there.
pub(crate) fn is_gap(
    asked: WalSegmentName,
    neighbours: Neighbours,
    timeline_begins: Option<Lsn>,
    size: Option<WalSegmentSize>,
) -> bool {
    if neighbours.later.is_none() {
        return false;
    }
    if asked.timeline() == TimelineId::FIRST {
        return true;
    }
    match (timeline_begins, size) {
        (Some(begins), Some(size)) => {
            asked >= WalSegmentName::from_lsn(asked.timeline(), begins, size)
        }
        _ => neighbours.earlier.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps() {
        let size = Some(WalSegmentSize::new(1 << 20).unwrap());
        let begins = Some(Lsn::new(0x30_0000));
        let name = |text| WalSegmentName::parse(text).unwrap();
        let neighbours = |earlier: bool, later: bool| Neighbours {
            earlier: earlier.then(|| name("000000020000000000000001")),
            later: later.then(|| name("000000020000000000000009").into()),
        };
        let (first, before, within) = (
            "000000010000000000000002",
            "000000020000000000000002",
            "000000020000000000000003",
        );
        let cases = [
            // (asked, earlier seen, later seen, beginning, size, gap)
            (first, false, true, None, size, true),
            (first, true, false, None, size, false),
            (before, true, true, begins, size, false),
            (within, false, true, begins, size, true),
            (within, false, true, None, size, false),
            (within, true, true, None, size, true),
            (within, false, true, begins, None, false),
        ];
        for (asked, earlier, later, begins, size, gap) in cases {
            let found = is_gap(name(asked), neighbours(earlier, later), begins, size);
            assert_eq!(found, gap, "{asked}");
        }
    }
}
