//! Which timeline a recovery will follow, and what the user should know about it before the first write. Pure.
//!
//! A server asks the archive for `<n>.history` upwards from its backup's timeline until the first one is absent, and
//! `latest` is the last it was given. So the same backup restored a second time follows the timeline that the first
//! attempt made when it was promoted, and a target beyond the fork is then looked for there.

use wale_pg::{Lsn, RecoveryTargetKind, RecoveryTargetTimeline, TimelineHistory, TimelineId};

use super::Histories;
use crate::error::{Kind, OpError, Result};

/// What a recovery wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// Timeline of the backup.
    pub backup_timeline: TimelineId,
    /// Position at which the backup is consistent; its start where that is not known.
    pub consistent_at: Lsn,
    /// Timeline that the settings name.
    pub timeline: RecoveryTargetTimeline,
    /// Where recovery shall end.
    pub target: &'a RecoveryTargetKind,
}

/// What a recovery will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The timeline it follows.
    pub followed: TimelineId,
    /// Every timeline that the archive knows, the backup's included.
    pub known: Vec<TimelineId>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// Judges `wish` against the histories that the archive has.
///
/// # Errors
///
/// [`Kind::ArchiveMismatch`] when the timeline does not exist, or did not grow out of the backup: the server would
/// refuse, after hours of copying.
pub fn judge(wish: &Wish<'_>, histories: &Histories) -> Result<Course> {
    let mut known: Vec<TimelineId> = histories.timelines().collect();
    if !known.contains(&wish.backup_timeline) {
        known.push(wish.backup_timeline);
        known.sort();
    }
    let followed = match wish.timeline {
        RecoveryTargetTimeline::Current => wish.backup_timeline,
        RecoveryTargetTimeline::Id(timeline) => timeline,
        RecoveryTargetTimeline::Latest => histories.latest_from(wish.backup_timeline),
    };
    let mut way = Course {
        followed,
        known,
        warnings: Vec::new(),
    };
    if followed == wish.backup_timeline {
        return Ok(way);
    }
    let history = histories
        .get(followed)
        .ok_or_else(|| unknown(followed, &way.known))?;
    if !history.contains_until(wish.backup_timeline, wish.consistent_at) {
        return Err(stranger(wish, history));
    }
    way.warnings.extend(left_behind(wish, history));
    Ok(way)
}

fn unknown(timeline: TimelineId, known: &[TimelineId]) -> OpError {
    let known: Vec<String> = known.iter().map(ToString::to_string).collect();
    OpError::new(
        Kind::ArchiveMismatch,
        format!("the archive has no history of timeline {timeline}"),
    )
    .detail(format!("It knows the timelines {}.", known.join(", ")))
    .hint("name one of these in recovery_target_timeline, or leave it out")
}

fn stranger(wish: &Wish<'_>, history: &TimelineHistory) -> OpError {
    let (backup, other) = (wish.backup_timeline, history.timeline);
    let detail = match history.left_at(backup) {
        Some(fork) => format!(
            "Timeline {other} left timeline {backup} at {fork}, before the backup is consistent at {}.",
            wish.consistent_at
        ),
        None => format!("Timeline {other} did not grow out of timeline {backup}."),
    };
    OpError::new(Kind::ArchiveMismatch, format!("timeline {other} is no continuation of the backup on timeline {backup}"))
        .detail(detail)
        .hint(format!("restore an older backup, or stay on the backup's timeline with recovery_target_timeline = '{backup}'"))
}

/// What deserves a warning: the target may lie on a part of the backup's timeline that recovery leaves.
fn left_behind(wish: &Wish<'_>, history: &TimelineHistory) -> Option<String> {
    let (backup, followed) = (wish.backup_timeline, history.timeline);
    let fork = history.left_at(backup)?;
    let stay = format!("to stay on timeline {backup} add recovery_target_timeline = '{backup}'");
    match wish.target {
        RecoveryTargetKind::Immediate => None,
        RecoveryTargetKind::Lsn(lsn) if *lsn <= fork => None,
        RecoveryTargetKind::Lsn(lsn) => Some(format!(
            "recovery follows timeline {followed}, which leaves timeline {backup} at {fork}: the target {lsn} is looked \
             for after that fork; {stay}"
        )),
        RecoveryTargetKind::Latest => Some(format!(
            "recovery follows timeline {followed}, which leaves timeline {backup} at {fork}; what timeline {backup} has \
             after that is not recovered; {stay}"
        )),
        RecoveryTargetKind::Time(_) | RecoveryTargetKind::Xid(_) | RecoveryTargetKind::Name(_) => {
            Some(format!(
                "recovery follows timeline {followed}, which leaves timeline {backup} at {fork}; if the target lies after \
             that on timeline {backup} it is never reached; {stay}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histories::tests::{histories, timeline};
    use super::*;

    /// Histories, wished timeline, target, followed or refusal, warned.
    type Case<'a> = (
        &'a [(u32, &'a str)],
        RecoveryTargetTimeline,
        &'a RecoveryTargetKind,
        Result<u32, Kind>,
        bool,
    );

    fn check(number: usize, (texts, wished, target, expected, warned): &Case<'_>) {
        let wish = Wish {
            backup_timeline: timeline(1),
            consistent_at: "0/4000100".parse().unwrap(),
            timeline: *wished,
            target,
        };
        let histories = histories(texts);
        match (judge(&wish, &histories), expected) {
            (Ok(way), Ok(followed)) => {
                assert_eq!(way.followed, timeline(*followed), "case {number}");
                let lost = histories.first_lost(wish.backup_timeline);
                let told = lost.is_some() || !way.warnings.is_empty();
                assert_eq!(told, *warned, "case {number}");
            }
            (Err(error), Err(kind)) => assert_eq!(error.kind, *kind, "case {number}"),
            (found, _) => panic!("case {number}: {found:?}"),
        }
    }

    #[test]
    fn the_timeline_followed_is_the_one_the_server_will_choose() {
        let two = "1\t0/5000000\tno recovery target specified\n";
        let three = "1\t0/3000000\tbefore the backup\n";
        // Of a recovery that followed timeline 2 and ended before its fork.
        let back = "1\t0/5000000\tx\n2\t0/4200000\ty\n";
        let four = "1\t0/5000000\tx\n2\t0/6000000\ty\n";
        let five = "1\t0/5000000\tz\n";
        let (latest, current) = (
            RecoveryTargetTimeline::Latest,
            RecoveryTargetTimeline::Current,
        );
        let id = |number| RecoveryTargetTimeline::Id(timeline(number));
        let end = RecoveryTargetKind::Latest;
        let before = RecoveryTargetKind::Lsn("0/4800000".parse().unwrap());
        let after = RecoveryTargetKind::Lsn("0/5800000".parse().unwrap());
        let time = RecoveryTargetKind::Time("2026-01-01 00:00:00+00".to_owned());
        let cases: &[Case<'_>] = &[
            (&[], latest, &end, Ok(1), false),
            (&[(2, two)], latest, &end, Ok(2), true),
            (&[(2, two)], latest, &before, Ok(2), false),
            (&[(2, two)], latest, &after, Ok(2), true),
            (&[(2, two)], latest, &time, Ok(2), true),
            (
                &[(2, two)],
                latest,
                &RecoveryTargetKind::Immediate,
                Ok(2),
                false,
            ),
            (&[(2, two)], current, &time, Ok(1), false),
            (&[(2, two)], id(1), &time, Ok(1), false),
            (&[(2, two)], id(7), &time, Err(Kind::ArchiveMismatch), false),
            // A gap ends the search, as it does for the server.
            (&[(2, two), (4, four)], latest, &end, Ok(2), true),
            // A history that was lost deserves a warning, wherever the server would stop for it.
            (&[(3, five)], latest, &before, Ok(1), true),
            (&[(3, five)], current, &before, Ok(1), true),
            (&[(4, four)], id(4), &before, Ok(4), true),
            (&[(2, two), (4, four)], id(4), &before, Ok(4), true),
            (&[(2, two), (3, four)], id(3), &before, Ok(3), false),
            (&[(2, two), (3, back)], latest, &before, Ok(3), true),
            (
                &[(2, two), (3, three)],
                latest,
                &end,
                Err(Kind::ArchiveMismatch),
                false,
            ),
            (
                &[(2, two), (3, three), (4, four)],
                latest,
                &end,
                Ok(4),
                true,
            ),
        ];
        for (number, case) in cases.iter().enumerate() {
            check(number, case);
        }
    }
}
