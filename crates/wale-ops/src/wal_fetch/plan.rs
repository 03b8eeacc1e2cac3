//! The decisions of `wal-fetch`, as pure functions.

use wale_pg::{
    ArchiveFileName, HeaderExpectation, SystemIdentifier, WalPageHeader, WalSegmentName,
    WalSegmentSize,
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
    pub(super) const fn is_segment_shaped(&self) -> bool {
        matches!(
            self.name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        )
    }

    /// The most plain bytes it can have.
    pub(super) const fn size_max(&self) -> u64 {
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
