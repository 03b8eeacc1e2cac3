//! The decisions of `wal-push`, as pure functions of what was read.

use wale_archive::lineage::Fork;
use wale_pg::{ArchiveFileName, ClusterIdentity, ClusterState, ControlFile, TimelineId};

use crate::error::{Kind, OpError, Result};

/// What is known about the cluster that a file comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    /// `pg_control`'s word, where it can be read.
    pub(super) control: Option<ClusterIdentity>,
    /// The word of the file's own header, or of another segment of the same WAL directory.
    pub(super) header: Option<ClusterIdentity>,
}

/// The timeline that a server is on, by its control file and the newest timeline whose history lies in its WAL directory.
///
/// A standby writes a history there before it follows the timeline, and its control file shows it only at the next
/// restart point. A primary's control file has the last word: only on its own timeline does it write.
pub(super) fn server_timeline(
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
pub(super) enum Abandoned {
    /// They differ on the server's own way: that is no matter of the fork.
    Conflict,
    /// The server's copy holds nothing that the stored one lacks.
    NothingMore,
    /// The server's copy holds more: it is kept.
    Keep,
}

/// Decides about such a copy.
#[must_use]
pub(super) fn abandoned(fork: &Fork, difference: u64, end: u64) -> Abandoned {
    if difference < fork.bytes {
        Abandoned::Conflict
    } else if end <= difference {
        Abandoned::NothingMore
    } else {
        Abandoned::Keep
    }
}

/// Which cluster a file comes from, from all that is known. `None` when nothing is.
///
/// # Errors
/// [`Kind::ArchiveMismatch`] when `pg_control` and the WAL disagree: the WAL directory belongs to another data
/// directory.
pub(super) fn cluster_of(
    name: &ArchiveFileName,
    origin: &Origin,
) -> Result<Option<ClusterIdentity>> {
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
pub(super) enum PushDecision {
    /// Nothing holds it: upload.
    Upload,
    /// The object at this position holds the same bytes.
    Same(usize),
    /// Its name is taken by other bytes, and it is a partial segment: store it beside.
    KeepBeside,
    /// Its name is taken by other bytes, in the object at this position: refuse.
    Conflict(usize),
}

/// Decides by comparison: `same[i]` says whether the object at position `i` holds the file's bytes. All must, since it
/// is not known which of several a reader gets. One is enough for partial segments, which no recovery asks for by
/// itself.
#[must_use]
pub(super) fn decide(name: &ArchiveFileName, same: &[bool]) -> PushDecision {
    let is_partial = matches!(name, ArchiveFileName::Partial(_));
    let equal = same.iter().position(|same| *same);
    let other = same.iter().position(|same| !*same);
    match (equal, other) {
        (None, None) => PushDecision::Upload,
        (Some(position), None) => PushDecision::Same(position),
        (Some(position), Some(_)) if is_partial => PushDecision::Same(position),
        // Two servers promoted from one timeline may leave different bytes under one partial name. Refusing the
        // second for ever would block its archiver.
        (None, Some(_)) if is_partial => PushDecision::KeepBeside,
        (_, Some(position)) => PushDecision::Conflict(position),
    }
}

/// Which files may be pushed ahead of `requested`: the first `window` of the other ready ones, in PostgreSQL's order.
/// Those already pushed count, too: wale never runs further ahead than the window, whatever it remembers.
#[must_use]
pub(super) fn look_ahead(
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
