//! Whether the archive has the WAL that a recovery will ask for, checked before the first write.
//!
//! Without every segment from its start to its stop a backup never becomes consistent: that is refused. A hole further
//! on ends the recovery early, with the server stopped and not promoted: that is a warning, for the target may lie
//! before it.

use wale_archive::Archive;
use wale_archive::lineage::{Gap, Leg, legs};
use wale_archive::walk::{Carried, Lack, carried};
use wale_format::{BackupName, Sentinel};
use wale_pg::{Lsn, TimelineHistory, WalSegmentSize};

use super::options::WalSource;
use crate::error::{Kind, OpError, Result};

/// A recovery, as far as its WAL is concerned.
pub(super) struct Recovery<'a> {
    pub(super) backup: &'a BackupName,
    pub(super) sentinel: &'a Sentinel,
    /// History of the timeline that is followed; `None` for the backup's own.
    pub(super) followed: Option<&'a TimelineHistory>,
    pub(super) size: WalSegmentSize,
    pub(super) source: WalSource,
    /// The position at which recovery ends, where that is known.
    pub(super) until: Option<Lsn>,
}

/// What a look showed.
#[derive(Debug, Clone, Default)]
pub(super) struct WalFindings {
    /// How far the archive carries the recovery.
    pub(super) carried: Carried,
    /// Sentences for the user.
    pub(super) warnings: Vec<String>,
}

/// Looks.
///
/// # Errors
///
/// [`Kind::CorruptData`] when the backup cannot become consistent, [`Kind::Configuration`] when this version cannot read what
/// it needs for that, unless its WAL may come from elsewhere; what the store says.
pub(super) async fn look(archive: &Archive, recovery: &Recovery<'_>) -> Result<WalFindings> {
    let Recovery {
        backup,
        sentinel,
        followed,
        size,
        source,
        until,
    } = *recovery;
    if let Some(own) = archive.own_wal(backup, sentinel).await? {
        let carried = carried(archive, &[own], size).await?;
        if let Some((gap, lack)) = &carried.lack {
            return match source {
                WalSource::Archive => Err(refused(backup, own, size, *gap, lack)),
                WalSource::Elsewhere => Ok(WalFindings {
                    warnings: vec![format!(
                        "the backup needs WAL that the archive does not have: {}",
                        shown(*gap, lack)
                    )],
                    carried,
                }),
            };
        }
    }
    let way = legs(backup.segment(), followed, size)?;
    let mut carried = carried(archive, &way, size).await?;
    // What is missing after the position at which recovery ends is nobody's concern.
    if let (Some((gap, _)), Some(until)) = (&carried.lack, until)
        && gap
            .from
            .number(size)
            .is_ok_and(|missing| missing > size.segment_number(until))
    {
        carried.lack = None;
    }
    let warnings = carried.lack.as_ref().map(|(gap, lack)| {
        format!(
            "{}: recovery stops there, and a target after it is not reached",
            shown(*gap, lack)
        )
    });
    Ok(WalFindings {
        warnings: warnings.into_iter().collect(),
        carried,
    })
}

pub(super) fn shown(gap: Gap, lack: &Lack) -> String {
    let (segments, is) = if gap.from == gap.to {
        (format!("segment {}", gap.from), "is")
    } else {
        (format!("the segments {} to {}", gap.from, gap.to), "are")
    };
    match lack {
        Lack::Missing(None) => format!("{segments} {is} missing from the archive"),
        Lack::Missing(Some(witness)) => {
            format!("{segments} {is} missing from the archive, but {witness}")
        }
        Lack::Unreadable(key) => format!(
            "{segments} {is} in the archive only in a form that this version cannot read ({key})"
        ),
    }
}

fn refused(backup: &BackupName, own: Leg, size: WalSegmentSize, gap: Gap, lack: &Lack) -> OpError {
    let (kind, hint) = match lack {
        Lack::Missing(_) => (
            Kind::CorruptData,
            "put the segments back if they exist anywhere; otherwise restore another backup, or let a restore_command \
             of your own find them",
        ),
        Lack::Unreadable(_) => (
            Kind::Configuration,
            "nothing of it is damaged: restore with the tool that wrote them, or let a restore_command of that tool \
             fetch them",
        ),
    };
    let what = shown(gap, lack);
    let first = backup.segment();
    let last = own.end.map(|end| own.segment(end.saturating_sub(1), size));
    let last = last.and_then(Result::ok).unwrap_or(first);
    OpError::new(kind, format!("backup {backup} cannot be recovered: {what}"))
        .detail(format!(
            "It is consistent only after every segment from {first} to {last}. Nothing was written."
        ))
        .hint(hint)
}
