//! Whether the archive has the WAL that a recovery will ask for, checked before the first write.
//!
//! Without every segment from its start to its stop a backup never becomes consistent: that is refused. A hole further
//! on ends the recovery early, with the server stopped and not promoted: that is a warning, for the target may lie
//! before it.

use wale_format::BackupName;
use wale_pg::{Lsn, TimelineHistory, WalSegmentName, WalSegmentSize};

use super::options::WalSource;
use crate::archive::Archive;
use crate::archive::reach::{self, Gap, Leg};
use crate::archive::walk::{Lack, behind_the_log, first_lack};
use crate::error::{Kind, OpError, Result};

/// What a recovery needs.
pub(super) struct Need<'a> {
    pub(super) backup: &'a BackupName,
    /// Position at which the backup is consistent.
    pub(super) consistent_at: Lsn,
    /// History of the timeline that is followed; `None` for the backup's own.
    pub(super) followed: Option<&'a TimelineHistory>,
    pub(super) size: WalSegmentSize,
    pub(super) source: WalSource,
    /// Whether the backup itself holds what it needs to become consistent.
    pub(super) holds_its_wal: bool,
}

/// Looks; returns sentences for the user.
///
/// # Errors
///
/// [`Kind::CorruptData`] when the backup cannot become consistent, [`Kind::Configuration`] when this version cannot read what
/// it needs for that, unless its WAL may come from elsewhere; what the store says.
pub(super) async fn look(archive: &Archive, need: &Need<'_>) -> Result<Vec<String>> {
    let begins = need.backup.segment();
    let last = WalSegmentName::last_needed(begins.timeline(), need.consistent_at, need.size);
    let last = last.max(begins);
    let number = |name: WalSegmentName| name.number(need.size).map_err(behind_the_log);
    let own = Leg {
        timeline: begins.timeline(),
        first: number(begins)?,
        end: Some(number(last)? + 1),
    };
    if !need.holds_its_wal
        && let Some((gap, lack)) = first_lack(archive, own, need.size).await?
    {
        return match need.source {
            WalSource::Archive => Err(refused(need.backup, begins, last, gap, &lack)),
            WalSource::Elsewhere => Ok(vec![format!(
                "the backup needs WAL that the archive does not have: {}",
                shown(gap, &lack)
            )]),
        };
    }
    for leg in reach::legs(begins, need.followed, need.size).map_err(behind_the_log)? {
        if let Some((gap, lack)) = first_lack(archive, leg, need.size).await? {
            return Ok(vec![format!(
                "{}: recovery stops there, and a target behind it is not reached",
                shown(gap, &lack)
            )]);
        }
    }
    Ok(Vec::new())
}

fn shown(gap: Gap, lack: &Lack) -> String {
    let (segments, is) = if gap.from == gap.to {
        (format!("segment {}", gap.from), "is")
    } else {
        (format!("the segments {} to {}", gap.from, gap.to), "are")
    };
    match lack {
        Lack::Missing => format!("{segments} {is} missing from the archive"),
        Lack::Unreadable(key) => format!(
            "{segments} {is} in the archive only as this version cannot read {} ({key})",
            if is == "is" { "it" } else { "them" }
        ),
    }
}

fn refused(
    backup: &BackupName,
    first: WalSegmentName,
    last: WalSegmentName,
    gap: Gap,
    lack: &Lack,
) -> OpError {
    let (kind, hint) = match lack {
        Lack::Missing => (
            Kind::CorruptData,
            "put the segments back if they exist anywhere; else restore another backup, or let a restore_command of your \
             own find them",
        ),
        Lack::Unreadable(_) => (
            Kind::Configuration,
            "nothing of it is damaged: restore with the tool that wrote them, or let a restore_command of that tool \
             fetch them",
        ),
    };
    let what = shown(gap, lack);
    OpError::new(kind, format!("backup {backup} cannot be recovered: {what}"))
        .detail(format!(
            "It is consistent only after every segment from {first} to {last}. Nothing was written."
        ))
        .hint(hint)
}
