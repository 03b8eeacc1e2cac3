//! Which way the user's recovery settings lead: checked as the server would, and judged against the timelines of the archive.
//! The sidecar's RESTORE writes the settings, `backup-fetch` only chooses the backup by them; both refuse the same ones.

use std::collections::BTreeMap;

use wale_pg::{Lsn, RecoveryTargetTimeline, TimelineHistory, TimelineId};

use super::addition::checked_addition;
use super::aim::{Aim, setting};
use super::source::Source;
use crate::archive::Archive;
use crate::error::{Kind, OpError, Result};
use crate::timelines::{self, Course, Wish};

/// The way of a recovery.
pub(super) struct Judged {
    /// Position at which the backup is consistent.
    pub(super) consistent_at: Lsn,
    /// The histories that decide it.
    pub(super) histories: BTreeMap<TimelineId, TimelineHistory>,
    pub(super) way: Course,
}

/// Judges checked settings. `None` where nobody recorded what is needed for it.
///
/// # Errors
///
/// As [`timelines::judge`], and the store's.
pub(super) async fn judge(
    archive: &Archive,
    source: &Source,
    lines: &[(String, String)],
) -> Result<Option<Judged>> {
    let target = Aim::of_lines(lines).kind;
    let timeline = timeline_of(lines)?;
    let Some(consistent_at) = source.consistent_at(archive).await? else {
        return Ok(None);
    };
    let named = match timeline {
        RecoveryTargetTimeline::Id(timeline) => Some(timeline),
        RecoveryTargetTimeline::Latest | RecoveryTargetTimeline::Current => None,
    };
    let histories = histories(archive, source.timeline, named).await?;
    let wish = Wish {
        backup_timeline: source.timeline,
        consistent_at,
        timeline,
        target: &target,
    };
    let way = timelines::judge(&wish, &histories)?;
    Ok(Some(Judged {
        consistent_at,
        histories,
        way,
    }))
}

/// Checks settings that are not written: what they say of target and timeline is why this backup was chosen. Returns what
/// deserves a look.
///
/// # Errors
///
/// As [`checked_addition`] and [`judge`].
pub(super) async fn check_unwritten(
    archive: &Archive,
    source: &Source,
    addition: &str,
) -> Result<Vec<String>> {
    let Some(major) = source.major else {
        return Ok(Vec::new());
    };
    let lines = checked_addition(addition, major)?;
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let judged = judge(archive, source, &lines).await?;
    Ok(judged.map_or_else(Vec::new, |judged| judged.way.warnings))
}

fn timeline_of(lines: &[(String, String)]) -> Result<RecoveryTargetTimeline> {
    match setting(lines, "recovery_target_timeline") {
        None | Some("latest") => Ok(RecoveryTargetTimeline::Latest),
        Some("current") => Ok(RecoveryTargetTimeline::Current),
        Some(text) => text.parse().map(RecoveryTargetTimeline::Id).map_err(|_| {
            OpError::new(
                Kind::Configuration,
                format!("recovery_target_timeline = '{text}' names no timeline"),
            )
            .hint("write latest, current or the decimal number of a timeline")
        }),
    }
}

/// The histories that decide what a server will follow: the backup's timeline and those after it, and the one that is
/// named.
async fn histories(
    archive: &Archive,
    backup: TimelineId,
    named: Option<TimelineId>,
) -> Result<BTreeMap<TimelineId, TimelineHistory>> {
    let mut found = archive.later_histories(backup).await?;
    if let Some(history) = archive.timeline_history(backup).await? {
        found.insert(backup, history);
    }
    if let Some(named) = named.filter(|named| !found.contains_key(named))
        && let Some(history) = archive.timeline_history(named).await?
    {
        found.insert(named, history);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use wale_pg::RecoveryTargetKind;

    use super::*;

    #[test]
    fn target_and_timeline_are_read_out_of_the_settings() {
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let cases = [
            (
                vec![],
                RecoveryTargetKind::Latest,
                Some(RecoveryTargetTimeline::Latest),
            ),
            (
                vec![
                    line("recovery_target_lsn", "0/5000000"),
                    line("recovery_target_timeline", "3"),
                ],
                RecoveryTargetKind::Lsn("0/5000000".parse().unwrap()),
                Some(RecoveryTargetTimeline::Id(TimelineId::new(3).unwrap())),
            ),
            (
                vec![
                    line("recovery_target", "immediate"),
                    line("recovery_target_timeline", "current"),
                ],
                RecoveryTargetKind::Immediate,
                Some(RecoveryTargetTimeline::Current),
            ),
            (
                vec![
                    line("recovery_target_time", ""),
                    line("recovery_target_name", "before"),
                ],
                RecoveryTargetKind::Name("before".to_owned()),
                Some(RecoveryTargetTimeline::Latest),
            ),
            (
                vec![line("recovery_target_timeline", "x")],
                RecoveryTargetKind::Latest,
                None,
            ),
        ];
        for (lines, target, timeline) in cases {
            assert_eq!(Aim::of_lines(&lines).kind, target, "{lines:?}");
            assert_eq!(timeline_of(&lines).ok(), timeline, "{lines:?}");
        }
    }
}
