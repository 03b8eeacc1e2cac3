//! The decisions of `wal-push`, as pure functions of what was read.

use wale_pg::{
    ArchiveFileName, ClusterState, ControlFile, HeaderExpectation, Lsn, TimelineHistory,
    TimelineId, WalHeaderError, WalPageHeader, WalSegmentName, WalSegmentSize,
};

use crate::archive::ClusterIdentity;
use crate::error::{Kind, OpError, Result};

/// History files are a few lines; PostgreSQL reads them whole. 1 MiB is some ten thousand timeline switches.
pub const HISTORY_FILE_MAX: u64 = 1 << 20;

/// What is known about the cluster that a file comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// `pg_control`'s word, where it can be read.
    pub control: Option<ClusterIdentity>,
    /// The word of the file's own header, or of another segment of the same WAL directory.
    pub header: Option<ClusterIdentity>,
}

/// What `pg_control` says about the cluster.
#[must_use]
pub fn cluster_of_control(control: &ControlFile) -> ClusterIdentity {
    ClusterIdentity {
        system_identifier: control.system_identifier,
        major: control.major(),
        wal_segment_size: control.wal_segment_size,
    }
}

/// What a segment's header says about the cluster; `None` when its segment size is impossible.
#[must_use]
pub fn cluster_of_header(header: &WalPageHeader) -> Option<ClusterIdentity> {
    Some(ClusterIdentity {
        system_identifier: header.system_identifier,
        major: header.major(),
        wal_segment_size: WalSegmentSize::new(u64::from(header.segment_size)).ok()?,
    })
}

/// Checks a segment (or partial segment) by its first page and its size, and returns what the header says about the
/// cluster: no major version where the page magic is of a newer one than any that is known. Whether that is the archive's
/// cluster is the identity's business.
///
/// # Errors
/// [`Kind::CorruptData`] for what PostgreSQL would not have handed over: wrong size, no WAL, another segment's bytes
/// under this name.
pub fn check_segment(
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
    cluster_of_header(&header).ok_or_else(|| {
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

/// What a file that is not its segment may be all the same: one that the server made, or renamed ahead, for WAL that it
/// then never wrote under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It begins with zeros: preallocated, if the rest of it is zero, too.
    Preallocated,
    /// It begins as a segment before it of the cluster of this header: recycled.
    Recycled(ClusterIdentity),
}

/// Looks at the first page of a file that [`check_segment`] refuses.
#[must_use]
pub fn unwritten(name: &ArchiveFileName, head: &[u8], file_size: u64) -> Option<Unwritten> {
    let ArchiveFileName::Segment(segment) = name else {
        return None;
    };
    match WalPageHeader::parse(head) {
        Err(WalHeaderError::AllZero) => Some(Unwritten::Preallocated),
        Err(_) => None,
        Ok(header) => {
            let cluster = cluster_of_header(&header)?;
            let size = cluster.wal_segment_size;
            let start = segment.start_lsn(size).ok()?;
            let is_another = size.offset_in_segment(header.page_address) == 0
                && header.page_address < start
                && file_size == size.bytes();
            is_another.then_some(Unwritten::Recycled(cluster))
        }
    }
}

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
#[must_use]
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

/// The timeline that a server is on, by its control file and the newest timeline whose history lies in its WAL directory.
///
/// A standby writes a history there before it follows the timeline, and its control file tells of it only at the next
/// restart point. A primary's control file has the last word: only on its own timeline does it write.
#[must_use]
pub fn server_timeline(
    control: Option<&ControlFile>,
    newest_history: Option<TimelineId>,
) -> Option<TimelineId> {
    let Some(control) = control else {
        return newest_history;
    };
    match control.state {
        ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery => newest_history
            .max(control.min_recovery_timeline)
            .max(Some(control.timeline)),
        _ => Some(control.timeline),
    }
}

/// What to do with a copy of a segment that differs from the stored one, on a server that has left the timeline:
/// `difference` is the position of the first difference, `end` where the content of the server's copy ends, both in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// They differ on the server's own way: that is no matter of the fork.
    Conflict,
    /// The server's copy holds nothing that the stored one lacks.
    NothingMore,
    /// The server's copy holds more: it is kept.
    Keep,
}

/// Decides about such a copy.
#[must_use]
pub fn abandoned(fork: &Fork, difference: u64, end: u64) -> Abandoned {
    if difference < fork.bytes {
        Abandoned::Conflict
    } else if end <= difference {
        Abandoned::NothingMore
    } else {
        Abandoned::Keep
    }
}

/// The error for WAL with the page magic of a version that is not known, from a server that is not known to be newer.
#[must_use]
pub fn unknown_magic(name: &ArchiveFileName, magic: u16) -> OpError {
    segment_error(name, WalHeaderError::UnknownMagic { found: magic })
}

fn segment_error(name: &ArchiveFileName, error: WalHeaderError) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("{name} is not a valid WAL segment"),
    )
    .detail(format!("{}.", sentence(&error.to_string())))
    .hint("it was not archived; look at the file in the WAL directory and at the server's log")
    .source(error)
}

/// Checks a timeline history file or a backup history file.
///
/// # Errors
/// [`Kind::CorruptData`] when it is not one.
pub fn check_history(name: &ArchiveFileName, content: &[u8]) -> Result<()> {
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

/// Which cluster a file comes from, from all that is known. `None` when nothing is.
///
/// # Errors
/// [`Kind::ArchiveMismatch`] when `pg_control` and the WAL disagree: the WAL directory belongs to another data
/// directory.
pub fn cluster_of(name: &ArchiveFileName, origin: &Origin) -> Result<Option<ClusterIdentity>> {
    let (Some(control), Some(header)) = (origin.control, origin.header) else {
        return Ok(origin.header.or(origin.control));
    };
    if control.system_identifier != header.system_identifier
        || control.wal_segment_size != header.wal_segment_size
    {
        return Err(OpError::new(Kind::ArchiveMismatch, format!("{name} does not belong to the data directory"))
            .detail(format!(
                "pg_control has system identifier {} and segments of {} bytes, the WAL has {} and {} bytes.",
                control.system_identifier,
                control.wal_segment_size.bytes(),
                header.system_identifier,
                header.wal_segment_size.bytes()
            ))
            .hint("let PGDATA and PGWAL name the same cluster"));
    }
    Ok(Some(ClusterIdentity {
        major: header.major.or(control.major),
        ..header
    }))
}

/// What to do about a name, knowing how the objects that hold it already compare with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing holds it: upload.
    Upload,
    /// The object at this position holds the same bytes.
    Same(usize),
    /// Its name is taken by other bytes, and it is a partial segment: store it beside.
    KeepBeside,
    /// Its name is taken by other bytes, in the object at this position: refuse.
    Conflict(usize),
}

/// Decides by comparison: `same[i]` says whether the object at position `i` holds the file's bytes. All must, since nobody
/// knows which of several a reader gets; of partial segments, which no recovery asks for by itself, one is enough.
#[must_use]
pub fn decide(name: &ArchiveFileName, same: &[bool]) -> Decision {
    let is_partial = matches!(name, ArchiveFileName::Partial(_));
    let equal = same.iter().position(|same| *same);
    let other = same.iter().position(|same| !*same);
    match (equal, other) {
        (None, None) => Decision::Upload,
        (Some(position), None) => Decision::Same(position),
        (Some(position), Some(_)) if is_partial => Decision::Same(position),
        // Two servers promoted from one timeline may leave different bytes under one partial name. Refusing the
        // second for ever would block its archiver.
        (None, Some(_)) if is_partial => Decision::KeepBeside,
        (_, Some(position)) => Decision::Conflict(position),
    }
}

/// Which files may be pushed ahead of `requested`: the first `window` of the other ready ones, in PostgreSQL's order.
/// Those already pushed count, too: wale never runs further ahead than the window, whatever it remembers.
#[must_use]
pub fn look_ahead(
    ready: &[ArchiveFileName],
    requested: &ArchiveFileName,
    window: usize,
) -> Vec<ArchiveFileName> {
    ready
        .iter()
        .filter(|name| *name != requested)
        .take(window)
        .copied()
        .collect()
}

/// The first letter in upper case.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
