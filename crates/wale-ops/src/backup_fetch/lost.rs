//! What was lost from the archive and would stop the recovery, reported before the first write. The proofs of absence
//! know the same witnesses.

use std::collections::BTreeMap;

use wale_pg::{ArchiveFileName, TimelineHistory, TimelineId, WalSegmentName};

use super::wal::Need;
use crate::archive::reach;
use crate::archive::walk::{behind_the_log, walk};
use crate::archive::{Archive, HISTORIES_MISSING_MAX};
use crate::error::Result;
use crate::timelines;

/// A sentence about the first timeline after the backup's that existed and whose history is not there.
pub(super) async fn history(archive: &Archive, backup: TimelineId) -> Result<Option<String>> {
    let known = archive.later_histories(backup).await?;
    if let Some(told) = timelines::lost(backup, &known) {
        return Ok(Some(told));
    }
    for timeline in unknown(backup, &known) {
        let Some(trace) = archive.trace_of(timeline).await? else {
            continue;
        };
        let name = ArchiveFileName::TimelineHistory(timeline);
        if archive.find_wal(&name).await?.is_some() {
            continue;
        }
        return Ok(Some(format!(
            "{name} is missing from the archive, but {trace} is there: the server stops where it asks for it; put it back, \
             a server of timeline {timeline} has it in pg_wal"
        )));
    }
    Ok(None)
}

/// The timelines without a history that a server may come to: between those that have one, and some after the last.
fn unknown(
    backup: TimelineId,
    known: &BTreeMap<TimelineId, TimelineHistory>,
) -> impl Iterator<Item = TimelineId> {
    let newest = known.keys().next_back().copied().unwrap_or(backup);
    let last = newest.get().saturating_add(HISTORIES_MISSING_MAX);
    std::iter::successors(backup.next(), |timeline| timeline.next())
        .take_while(move |timeline| timeline.get() <= last)
        .filter(|timeline| !known.contains_key(timeline))
}

/// A sentence about a base backup that lies after the end of the WAL, on the recovery's way.
pub(super) async fn end(archive: &Archive, need: &Need<'_>) -> Result<Option<String>> {
    let legs = reach::legs(need.backup.segment(), need.followed, need.size);
    let Some(last) = legs.map_err(behind_the_log)?.pop() else {
        return Ok(None);
    };
    let walk = walk(archive, last, need.size).await?;
    let next = match walk.reached().map_err(behind_the_log)? {
        Some(reached) => reached.next(need.size).map_err(behind_the_log)?,
        None => WalSegmentName::from_number(last.timeline, last.first, need.size)
            .map_err(behind_the_log)?,
    };
    let behind = archive.backups_around(next).await?.behind;
    let behind = behind.filter(|backup| backup != need.backup);
    Ok(behind.map(|backup| {
        format!(
            "segment {next} is missing from the archive, but base backup {backup}, which ended behind it, is there: recovery \
             stops there, and a target behind it is not reached"
        )
    }))
}
