//! What a person must know now: one entry for each thing that is wrong, by a name that stays the same while it lasts.
//!
//! It is taken from what the sidecar reports anyway, so nothing is told here that `/status` does not say. It refuses to judge, and
//! asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_ops::{CredentialEnd, Kind};

use crate::app::{App, moment};
use crate::journal::{Entries, FailureRecord};
use crate::lifecycle::{Complaint, Topic};
use crate::replica::Replica;

/// How long something must have been wrong that PostgreSQL or wale tries again by itself: a store that was away for a moment
/// wakes nobody.
const LASTING: Duration = Duration::from_mins(2);

/// A thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// It is tried again by itself, and has not lasted yet: nobody is woken for it.
    pub(crate) is_young: bool,
}

/// Things that are wrong, by their names.
pub(crate) type Problems = BTreeMap<String, Problem>;

/// Everything that is wrong now.
pub(crate) fn problems(app: &App, ends: &[(u8, CredentialEnd)]) -> Problems {
    let mut found = of_complaints(&app.life.complaints());
    found.extend(of_entries(&app.journal.entries()));
    let now = app.archive.clock().now();
    for replica in &app.replicas {
        found.extend(of_replica(replica, now));
    }
    found.extend(of_credentials(ends, now));
    found
}

/// The names of what this process has not tried since its start: what an earlier one told of it may be so still.
pub(crate) fn unjudged(app: &App) -> BTreeSet<String> {
    let entries = app.journal.entries();
    let mut names = of_untried(&entries);
    for replica in &app.replicas {
        let known = replica.known();
        if known.last_retention.is_none() && known.last_retention_failure.is_none() {
            names.insert(format!("archive-{}-retention", replica.number));
        }
    }
    names
}

fn of_untried(entries: &Entries) -> BTreeSet<String> {
    let tried = [
        (
            "backup",
            entries.last_backup.is_some() || entries.last_backup_failure.is_some(),
        ),
        (
            "retention",
            entries.last_retention.is_some() || entries.last_retention_failure.is_some(),
        ),
        (
            "conflict",
            entries.last_push.is_some() || entries.last_push_failure.is_some(),
        ),
    ];
    let untried = tried.into_iter().filter(|(_, tried)| !tried);
    untried.map(|(name, _)| name.to_owned()).collect()
}

/// Why the sidecar is not ready. A backup that failed is told at once: nobody tries it again soon.
fn of_complaints(complaints: &[Complaint]) -> Problems {
    let told = complaints
        .iter()
        .filter(|complaint| complaint.topic != Topic::Backup);
    told.map(|complaint| {
        let problem = Problem {
            message: complaint.reason.clone(),
            hint: None,
            is_young: complaint.topic != Topic::Identity && complaint.lasting < LASTING,
        };
        (complaint.topic.name().to_owned(), problem)
    })
    .collect()
}

fn of_entries(entries: &Entries) -> Problems {
    let mut found = Problems::new();
    let later = |failure: &&FailureRecord, success: Option<DateTime<Utc>>| {
        success.is_none_or(|success| success < failure.at)
    };
    let backed_up = entries.last_backup.as_ref().map(|one| one.stopped_at);
    let backup = entries.last_backup_failure.as_ref();
    let pushed = entries.last_push.as_ref().map(|one| one.at);
    let push = entries.last_push_failure.as_ref();
    let is_conflict = |one: &&FailureRecord| one.kind == Kind::ArchiveConflict.name();
    for (name, failure) in [
        ("backup", backup.filter(|one| later(one, backed_up))),
        ("retention", entries.last_retention_failure.as_ref()),
        (
            "conflict",
            push.filter(is_conflict).filter(|one| later(one, pushed)),
        ),
    ] {
        if let Some(failure) = failure {
            found.insert(name.to_owned(), of_failure(failure));
        }
    }
    if let Some(verified) = entries.verified.as_ref().filter(|one| one.damaged > 0) {
        let message = format!(
            "{} objects of the archive were found damaged or missing",
            verified.damaged
        );
        let hint = "wale verify says which, and which moments that costs";
        found.insert("damage".to_owned(), Problem::new(message, hint));
    }
    let holdings = entries.holdings.as_ref();
    let rehearsed = holdings.and_then(|held| held.last_rehearsal.as_ref());
    if let Some(failed) = rehearsed.filter(|last| !last.record.ok) {
        let message = format!(
            "the last rehearsal of a restore, of {}, failed",
            failed.backup
        );
        let hint = "wale status says at what; rehearse again when it is mended";
        found.insert("rehearsal".to_owned(), Problem::new(message, hint));
    }
    let recoverable = entries.recoverable.as_ref();
    if let Some(gap) = recoverable.and_then(|record| record.gap.as_ref()) {
        let message = format!(
            "WAL is missing in the archive from {} to {} ({} segments): no recovery gets past it",
            gap.from, gap.to, gap.segments
        );
        let hint = "take a base backup now; if pg_wal still has the segments, push them";
        found.insert("gap".to_owned(), Problem::new(message, hint));
    }
    if let Some(lost) = recoverable.and_then(|record| record.lost_history.as_ref()) {
        let message = format!(
            "{} is missing in the archive, and {} shows that it existed",
            lost.name, lost.shown_by
        );
        let hint = "push it from a server of that timeline, which has it in pg_wal";
        found.insert("lost-history".to_owned(), Problem::new(message, hint));
    }
    found
}

fn of_replica(replica: &Replica, now: DateTime<Utc>) -> Problems {
    let mut found = Problems::new();
    let (number, known) = (replica.number, replica.known());
    let lasts = known.failing_since.is_some_and(|since| {
        (now - since)
            .to_std()
            .is_ok_and(|lasting| lasting >= LASTING)
    });
    let fails = known.failing_since.and(known.failure.as_ref());
    if let Some(failure) = fails {
        let problem = Problem {
            is_young: !lasts,
            ..of_failure(failure)
        };
        found.insert(format!("archive-{number}"), problem);
    }
    if let Some(failure) = &known.last_retention_failure {
        found.insert(format!("archive-{number}-retention"), of_failure(failure));
    }
    let disputed = known.conflicts.objects.len();
    if disputed > 0 {
        let message =
            format!("{disputed} objects of archive {number} are not as the first archive has them");
        let hint = "/status names them (further_archives), and the runbook says what to do";
        found.insert(
            format!("archive-{number}-conflicts"),
            Problem::new(message, hint),
        );
    }
    found
}

/// Credentials that end soon and that nobody renews, and those that somebody should have renewed.
fn of_credentials(ends: &[(u8, CredentialEnd)], now: DateTime<Utc>) -> Problems {
    let due = ends.iter().filter(|(_, end)| end.is_due(now));
    due.map(|(number, end)| {
        let name = match number {
            1 => "credentials".to_owned(),
            number => format!("archive-{number}-credentials"),
        };
        let verb = if end.expires <= now { "ended" } else { "ends" };
        let message = format!("{} {verb} at {}", end.what, moment(end.expires));
        let hint = "renew it: archiving and restores stop when it has ended";
        (name, Problem::new(message, hint))
    })
    .collect()
}

impl Problem {
    /// What an earlier process may have told, and is not so any more.
    pub(crate) fn gone() -> Self {
        Self {
            message: "it went well since the start".to_owned(),
            hint: None,
            is_young: false,
        }
    }

    fn new(message: String, hint: &str) -> Self {
        Self {
            message,
            hint: Some(hint.to_owned()),
            is_young: false,
        }
    }
}

fn of_failure(failure: &FailureRecord) -> Problem {
    Problem {
        message: format!("{}: {}", failure.what, failure.message),
        hint: failure.hint.clone(),
        is_young: false,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use wale_ops::{OpError, Renewal};

    use super::*;
    use crate::journal::{GapRecord, RecoverableRecord};

    fn complaint(topic: Topic, lasting: Duration) -> Complaint {
        Complaint {
            topic,
            reason: "it is so".to_owned(),
            lasting,
        }
    }

    #[test]
    fn what_is_tried_again_is_told_when_it_lasts_and_the_rest_at_once() {
        let (long, short) = (LASTING, LASTING.saturating_sub(Duration::from_secs(1)));
        let young = |topic, lasting| -> Vec<bool> {
            let found = of_complaints(&[complaint(topic, lasting)]);
            found.values().map(|problem| problem.is_young).collect()
        };
        assert_eq!(young(Topic::WalPush, short), [true]);
        assert_eq!(young(Topic::WalPush, long), [false]);
        assert_eq!(young(Topic::Identity, Duration::ZERO), [false]);
        let backup = young(Topic::Backup, long);
        assert!(backup.is_empty(), "its own failure is told");
    }

    #[test]
    fn credentials_are_told_when_somebody_must_renew_them() {
        let now: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let end = |days, renewal| CredentialEnd {
            what: "the token".to_owned(),
            expires: now + TimeDelta::days(days),
            renewal,
        };
        let ends = [
            (1, end(13, Renewal::Nobody)),
            (2, end(15, Renewal::Nobody)),
            (3, end(0, Renewal::Others)),
            (4, end(1, Renewal::Others)),
            (5, end(-1, Renewal::Own)),
        ];
        let names: Vec<String> = of_credentials(&ends, now).into_keys().collect();
        assert_eq!(names, ["archive-3-credentials", "credentials"]);
    }

    #[test]
    fn failures_gaps_and_conflicts_have_names_of_their_own() {
        let at: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let failure = |kind| FailureRecord::new("it", &OpError::new(kind, "failed"), at);
        let mut entries = Entries {
            last_push_failure: Some(failure(Kind::StorageUnavailable)),
            ..Entries::default()
        };
        assert!(of_entries(&entries).is_empty(), "PostgreSQL tries it again");
        entries.last_push_failure = Some(failure(Kind::ArchiveConflict));
        entries.last_backup_failure = Some(failure(Kind::PostgresUnavailable));
        entries.last_retention_failure = Some(failure(Kind::PermissionDenied));
        entries.recoverable = Some(RecoverableRecord {
            backup: "b".to_owned(),
            until: None,
            gap: Some(GapRecord {
                from: "x".to_owned(),
                to: "y".to_owned(),
                segments: 3,
                unreadable: None,
            }),
            lost_history: None,
            checked_at: at,
        });
        let names = |entries: &Entries| of_entries(entries).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&entries), ["backup", "conflict", "gap", "retention"]);
        let mut done = crate::backup::testing::done();
        done.stopped_at = at + TimeDelta::seconds(1);
        entries.last_backup = Some(done);
        assert_eq!(names(&entries), ["conflict", "gap", "retention"]);
    }
}
