//! What a WAL file must be like, no matter who has it: the server that hands it over, or the archive. Pure.

use wale_pg::{
    ArchiveFileName, ClusterIdentity, HeaderExpectation, TimelineHistory, WalHeaderError,
    WalPageHeader,
};

use crate::error::{Kind, OpError, Result};

/// History files are a few lines; PostgreSQL reads them whole. 1 MiB is some ten thousand timeline switches.
pub(crate) const HISTORY_FILE_MAX: u64 = 1 << 20;

/// Checks a segment (or partial segment) by its first page and its size, and returns what the header says about the
/// cluster: no major version where the page magic is of a newer one than any that is known. Whether that is the archive's
/// cluster is the identity's business.
///
/// # Errors
/// [`Kind::CorruptData`] for what PostgreSQL would not have handed over: wrong size, no WAL, another segment's bytes
/// under this name.
pub(crate) fn check_segment(
    name: &ArchiveFileName,
    head: &[u8],
    file_size: u64,
) -> Result<ClusterIdentity> {
    let segment = name
        .segment()
        .ok_or_else(|| OpError::internal(format!("{name} is no segment")))?;
    let expectation = HeaderExpectation {
        system_identifier: None,
        segment_size: None,
        file_size,
    };
    let header = WalPageHeader::verify(head, &segment, &expectation)
        .map_err(|error| segment_error(name, error))?;
    header.identity().ok_or_else(|| {
        OpError::new(
            Kind::CorruptData,
            format!("{name} is not a valid WAL segment"),
        )
        .detail(format!(
            "Its header claims a segment size of {} bytes.",
            header.segment_size
        ))
    })
}

/// What a file that is not its segment may still be: one that the server made, or renamed ahead, for WAL that it
/// then never wrote under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// It begins with zeros: preallocated, if the rest of it is zero, too.
    Preallocated,
    /// It begins as a segment before it of the cluster of this header: recycled.
    Recycled(ClusterIdentity),
}

/// Looks at the first page of a file that [`check_segment`] refuses.
#[must_use]
pub(crate) fn unwritten(name: &ArchiveFileName, head: &[u8], file_size: u64) -> Option<Unwritten> {
    let ArchiveFileName::Segment(segment) = name else {
        return None;
    };
    match WalPageHeader::parse(head) {
        Err(WalHeaderError::AllZero) => Some(Unwritten::Preallocated),
        Err(_) => None,
        Ok(header) => {
            let cluster = header.identity()?;
            let size = cluster.wal_segment_size;
            let start = segment.start_lsn(size).ok()?;
            let is_another = size.offset_in_segment(header.page_address) == 0
                && header.page_address < start
                && file_size == size.bytes();
            is_another.then_some(Unwritten::Recycled(cluster))
        }
    }
}

/// The error for WAL with the page magic of a version that is not known, from a server that is not known to be newer.
#[must_use]
pub(crate) fn unknown_magic(name: &ArchiveFileName, magic: u16) -> OpError {
    segment_error(name, WalHeaderError::UnknownMagic { found: magic })
}

fn segment_error(name: &ArchiveFileName, error: WalHeaderError) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("{name} is not a valid WAL segment"),
    )
    .detail(format!("{}.", sentence(&error.to_string())))
    .hint("it was not archived; check the file in the WAL directory and the server's log")
    .source(error)
}

/// Checks a timeline history file or a backup history file.
///
/// # Errors
/// [`Kind::CorruptData`] when it is not one.
pub(crate) fn check_history(name: &ArchiveFileName, content: &[u8]) -> Result<()> {
    let wrong = |why: String| {
        OpError::new(
            Kind::CorruptData,
            format!("{name} is not a valid history file"),
        )
        .detail(format!("{why}."))
    };
    match name {
        ArchiveFileName::TimelineHistory(timeline) => {
            let text = std::str::from_utf8(content).map_err(|e| wrong(sentence(&e.to_string())))?;
            TimelineHistory::parse(*timeline, text)
                .map_err(|e| wrong(sentence(&e.to_string())).source(e))?;
            Ok(())
        }
        // Only the beginning is fixed in every version; the label in it is free text in any encoding.
        ArchiveFileName::BackupHistory { .. } if content.starts_with(b"START WAL LOCATION: ") => {
            Ok(())
        }
        ArchiveFileName::BackupHistory { .. } => Err(wrong(
            "It does not begin with START WAL LOCATION".to_owned(),
        )),
        ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_) => {
            Err(OpError::internal(format!("{name} is no history file")))
        }
    }
}

/// The first letter in upper case.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
