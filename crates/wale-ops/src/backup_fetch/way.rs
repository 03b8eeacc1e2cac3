//! Which way the user's recovery settings lead: checked as the server would, and judged against the timelines of the archive.
//! RESTORE and `restore` write the settings, `backup-fetch` only chooses the backup by them; all refuse the same ones.

use wale_archive::Archive;
use wale_archive::lineage::{self, Course, Histories, Wish};
use wale_pg::{Lsn, RecoveryTargetKind, RecoveryTargetTimeline, TimelineHistory, TimelineId};

use super::addition::checked_addition;
use super::aim::{Aim, setting};
use super::options::WalSource;
use super::source::Source;
use super::wal::{self, Recovery, WalFindings};
use crate::error::{Kind, OpError, Result};

/// The way of a recovery.
pub(super) struct Judged {
    /// Position at which the backup is consistent.
    pub(super) consistent_at: Lsn,
    /// The histories that decide it.
    pub(super) histories: Histories,
    pub(super) way: Course,
}

impl Judged {
    /// The position at which a recovery to this target ends, where it is known.
    pub(super) fn until(&self, target: &RecoveryTargetKind) -> Option<Lsn> {
        match target {
            RecoveryTargetKind::Lsn(lsn) => Some(*lsn),
            RecoveryTargetKind::Immediate => Some(self.consistent_at),
            _ => None,
        }
    }

    /// The history of the timeline that is followed; `None` for the backup's own.
    pub(super) fn followed(&self, source: &Source) -> Option<&TimelineHistory> {
        let followed = self.way.followed;
        self.histories
            .get(followed)
            .filter(|_| followed != source.timeline)
    }
}

/// Judges checked settings. `None` where nobody recorded what is needed for it.
///
/// # Errors
///
/// As [`lineage::judge`], and the store's.
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
    let way = lineage::judge(&wish, &histories)?;
    Ok(Some(Judged {
        consistent_at,
        histories,
        way,
    }))
}

/// Checks settings that are not written: what they say of target and timeline is why this backup was chosen; and looks for
/// the WAL that a recovery from this archive would ask for. Returns what the user should check. The user's recovery may
/// have its WAL from elsewhere: what this archive lacks refuses nothing.
///
/// # Errors
///
/// As [`checked_addition`] and [`judge`] for settings that were given, and the store's.
pub(super) async fn check_unwritten(
    archive: &Archive,
    source: &Source,
    addition: &str,
) -> Result<Vec<String>> {
    let lines = match source.major {
        Some(major) => checked_addition(addition, major)?,
        None if addition.trim().is_empty() => Vec::new(),
        None => return Ok(Vec::new()),
    };
    let judged = match judge(archive, source, &lines).await {
        Ok(Some(judged)) => judged,
        Ok(None) => return Ok(Vec::new()),
        // Nobody asked for a way yet.
        Err(error) if lines.is_empty() && error.kind == Kind::ArchiveMismatch => {
            return Ok(vec![error.to_string()]);
        }
        Err(error) => return Err(error),
    };
    let until = judged.until(&Aim::of_lines(&lines).kind);
    let looked = look_for_wal(archive, source, &judged, WalSource::Elsewhere, until).await?;
    let mut told = judged.way.warnings;
    told.extend(looked.warnings);
    Ok(told)
}

/// Looks at what a recovery of `source` along the judged way needs; `until` is where it ends, if that is a position.
///
/// # Errors
///
/// As [`wal::look`].
pub(super) async fn look_for_wal(
    archive: &Archive,
    source: &Source,
    judged: &Judged,
    from: WalSource,
    until: Option<Lsn>,
) -> Result<WalFindings> {
    let recovery = Recovery {
        backup: &source.name,
        sentinel: &source.sentinel,
        followed: judged.followed(source),
        size: source.segment_size(archive).await?,
        source: from,
        until,
    };
    wal::look(archive, &recovery).await
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
) -> Result<Histories> {
    let mut found = archive.later_histories(backup).await?;
    if let Some(history) = archive.timeline_history(backup).await? {
        found.insert(history);
    }
    if let Some(named) = named.filter(|named| !found.has(*named))
        && let Some(history) = archive.timeline_history(named).await?
    {
        found.insert(history);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
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
