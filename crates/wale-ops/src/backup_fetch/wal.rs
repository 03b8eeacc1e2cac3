//! Whether the archive has the WAL that a recovery will ask for, looked at before the first write.
//!
//! Without every segment from its start to its stop a backup never becomes consistent: that is refused. A hole further
//! on ends the recovery early, with the server stopped and not promoted: that is a warning, for the target may lie
//! before it.

use wale_format::BackupName;
use wale_pg::{Lsn, TimelineHistory, WalSegmentName, WalSegmentSize};

use super::options::WalSource;
use crate::archive::Archive;
use crate::archive::reach::{self, Gap, Leg};
use crate::archive::walk::{behind_the_log, is_missing, walk};
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
/// [`Kind::CorruptData`] when the backup cannot become consistent, unless its WAL may come from elsewhere; what the store
/// says.
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
        && let Some(gap) = gap(archive, own, need.size).await?
    {
        return match need.source {
            WalSource::Archive => Err(refused(need.backup, begins, last, gap)),
            WalSource::Elsewhere => Ok(vec![format!(
                "the backup needs {}, which the archive does not have",
                shown(gap)
            )]),
        };
    }
    for leg in reach::legs(begins, need.followed, need.size).map_err(behind_the_log)? {
        if let Some(gap) = gap(archive, leg, need.size).await? {
            return Ok(vec![format!(
                "{} missing from the archive: recovery stops there, and a target behind it is not reached",
                shown(gap)
            )]);
        }
    }
    Ok(Vec::new())
}

/// The first gap of a leg. A listing alone proves nothing: what it lacks is asked for by name.
async fn gap(archive: &Archive, leg: Leg, size: WalSegmentSize) -> Result<Option<Gap>> {
    let walk = walk(archive, leg, size).await?;
    let Some(gap) = walk.gap().map_err(behind_the_log)? else {
        return Ok(None);
    };
    Ok(is_missing(archive, gap).await?.then_some(gap))
}

fn shown(gap: Gap) -> String {
    if gap.from == gap.to {
        format!("segment {} is", gap.from)
    } else {
        format!("the segments {} to {} are", gap.from, gap.to)
    }
}

fn refused(backup: &BackupName, first: WalSegmentName, last: WalSegmentName, gap: Gap) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("backup {backup} cannot be recovered: {} not in the archive", shown(gap)),
    )
    .detail(format!(
        "It is consistent only after every segment from {first} to {last}. Nothing was written."
    ))
    .hint(
        "put the segments back if they exist anywhere; else restore another backup, or let a restore_command of your \
         own find them",
    )
}
