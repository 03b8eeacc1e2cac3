//! The decisions of `wal-fetch`, as pure functions.

use wale_pg::{
    ArchiveFileName, HeaderExpectation, Lsn, SystemIdentifier, TimelineHistory, TimelineId,
    WalPageHeader, WalSegmentName, WalSegmentSize,
};

use crate::wal_file::{HISTORY_FILE_MAX, check_history};

/// What a file of the archive must be like, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// What was asked for.
    pub name: ArchiveFileName,
    /// The cluster of the archive.
    pub system_identifier: Option<SystemIdentifier>,
    /// Its segment size.
    pub segment_size: WalSegmentSize,
}

impl Expectation {
    /// Whether the file is a whole segment, which has a fixed size.
    #[must_use]
    pub const fn is_segment_shaped(&self) -> bool {
        matches!(
            self.name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        )
    }

    /// The most plain bytes it can have.
    #[must_use]
    pub const fn size_max(&self) -> u64 {
        if self.is_segment_shaped() {
            self.segment_size.bytes()
        } else {
            HISTORY_FILE_MAX
        }
    }

    /// How many of the first bytes [`Expectation::check`] wants to see: a header, or the whole of a history file.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        if self.is_segment_shaped() {
            WalPageHeader::LENGTH
        } else {
            usize::try_from(HISTORY_FILE_MAX).expect("1 MiB fits")
        }
    }

    /// Whether decoded content is the file. `head` holds its first bytes, `size` its whole length.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub fn check(&self, head: &[u8], size: u64) -> Result<(), String> {
        let segment = match self.name {
            ArchiveFileName::Segment(segment) | ArchiveFileName::Partial(segment) => segment,
            ArchiveFileName::BackupHistory { .. } | ArchiveFileName::TimelineHistory(_) => {
                return check_history(&self.name, head).map_err(|e| e.detail.unwrap_or(e.message));
            }
        };
        let expectation = HeaderExpectation {
            system_identifier: self.system_identifier,
            segment_size: Some(self.segment_size),
            file_size: size,
        };
        WalPageHeader::verify(head, &segment, &expectation)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }
}

/// What the archive has around a segment that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// An earlier segment of the same timeline: its first one.
    pub earlier: Option<WalSegmentName>,
    /// What shows first that the timeline went on after the segment, or that the segment was stored.
    pub later: Option<ArchiveFileName>,
}

/// Whether a segment that is not there is missing from the middle of its timeline.
///
/// A server that recovers along timeline 2 may ask for every segment on that timeline first, those before its
/// beginning too (before 14 it always does). They never existed; calling that a gap would stop a good recovery. So
/// a later segment proves a gap only from the timeline's first segment on, which its history shows; without it, an
/// earlier segment of the timeline must be there.
#[must_use]
pub fn is_gap(
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

/// Whether a timeline's way leads through a segment of one of its ancestors, before the switch away from it. Such a
/// segment existed, so where it is missing the log does not end.
#[must_use]
pub fn leads_through(
    history: &TimelineHistory,
    asked: WalSegmentName,
    size: WalSegmentSize,
) -> bool {
    let mut begins = Lsn::new(0);
    for parent in &history.parents {
        if parent.timeline == asked.timeline() {
            // The segment of the switch itself is the descendant's, which has a copy of its beginning.
            let segment = |lsn| WalSegmentName::from_lsn(asked.timeline(), lsn, size);
            return (segment(begins)..segment(parent.switch_lsn)).contains(&asked);
        }
        begins = parent.switch_lsn;
    }
    false
}

/// The segments to have at hand after `asked`, nearest first: the next `count`, if the one served before `asked` was
/// its predecessor. A server that replays goes forward one by one; `pg_rewind` walks backwards and gets none.
#[must_use]
pub fn ahead_of(
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
