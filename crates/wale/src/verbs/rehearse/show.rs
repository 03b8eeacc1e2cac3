//! The plan and the findings of a rehearsal: for a person, in lines of at most a hundred columns, and for a program.

use std::time::Duration;

use serde_json::json;
use wale_format::{CheckOutcome, CheckRecord, RehearsalRecord};
use wale_ops::backup_fetch::RestorePlan;

use super::super::restore::show::{Lines, add_amounts, add_wal, time};
use super::report::Rehearsed;
use crate::progress::duration;

/// What will be done.
pub(super) fn plan(plan: &RestorePlan, record: &RehearsalRecord) -> String {
    let mut lines = Lines::default();
    let files = &plan.files;
    lines.add("backup", &files.backup.to_string());
    lines.add(
        "",
        &format!("{}; it ended at {}", plan.why, time(files.ended)),
    );
    lines.add("target", &record.target);
    if let Some(seed) = record.seed {
        lines.add("seed", &format!("{seed}: --seed {seed} chooses the same"));
    }
    if let Some(wal) = &plan.wal {
        add_wal(&mut lines, wal);
    }
    add_amounts(&mut lines, plan);
    lines.add("server", &record.postgres_version);
    for note in &files.notes {
        lines.add("note", note);
    }
    for warning in &files.warnings {
        lines.add("warning", warning);
    }
    lines.0
}

/// What was found.
pub(super) fn found(done: &Rehearsed) -> String {
    let mut lines = Lines::default();
    let record = &done.record;
    lines.0.push('\n');
    for check in &record.checks {
        let outcome = match check.outcome {
            CheckOutcome::Failed => "FAILED",
            other => other.name(),
        };
        let told = check.told.as_deref().unwrap_or_default();
        // Of what a program said each line stands by itself.
        let mut told = told.lines();
        let first = told.next().unwrap_or_default();
        lines.add(&check.name, &format!("{outcome}: {first}"));
        for line in told {
            lines.add("", line);
        }
    }
    if !done.last_lines.is_empty() {
        lines.add("server", "its last lines:");
        for line in &done.last_lines {
            lines.add("", line);
        }
    }
    if let Some(databases) = record.databases {
        lines.add("databases", &databases.to_string());
    }
    if let Some(commit) = record.newest_commit {
        lines.add("", &format!("the newest commit is of {}", time(commit)));
    }
    lines.add("time", &times(record));
    lines.add(
        "record",
        &match &done.not_recorded {
            None => "in the archive, with the backup".to_owned(),
            Some(why) => format!("nothing was recorded in the archive: {why}"),
        },
    );
    lines.add("result", result(record));
    lines.0
}

/// Nothing more than what was looked at.
fn result(record: &RehearsalRecord) -> &'static str {
    /// Checks that read what a database holds.
    const OF_CONTENTS: [&str; 4] = ["amcheck", "checksums", "sql", "fingerprint"];
    let was_looked_at = |check: &CheckRecord| {
        check.outcome == CheckOutcome::Ok && OF_CONTENTS.contains(&check.name.as_str())
    };
    if !record.ok {
        "FAILED: see above"
    } else if record.checks.iter().any(was_looked_at) {
        "a restore from this backup works"
    } else {
        "the copy came up; its contents were not checked"
    }
}

fn times(record: &RehearsalRecord) -> String {
    let parts = [
        ("files", record.restore_milliseconds),
        ("recovery", record.recovery_milliseconds),
        ("checks", record.checks_milliseconds),
    ];
    let known = parts.into_iter().filter_map(|(name, millis)| {
        let took = duration(Duration::from_millis(millis?));
        Some(format!("{name} {took}"))
    });
    known.collect::<Vec<_>>().join(", ")
}

/// The findings for a program.
pub(super) fn json(done: &Rehearsed) -> String {
    let value = json!({
        "backup": done.plan.files.backup.to_string(),
        "why": done.plan.why,
        "record": done.record,
        "recorded": done.not_recorded.is_none(),
        "not_recorded_because": done.not_recorded,
        "last_lines": done.last_lines,
        "warnings": done.plan.files.warnings,
    });
    format!("{value:#}\n")
}

/// What a failed check means, and what to do.
pub(super) fn what_to_do(check: &CheckRecord) -> &'static str {
    match check.name.as_str() {
        "recovery" => {
            "a restore to this target does not work from this archive now: read the server's lines above; production is not touched, and \
             other targets and backups may do (--immediate shows whether the backup alone is good)"
        }
        "amcheck" | "checksums" => {
            "the copy has damage. Check production the same way (pg_amcheck, pg_checksums or a base backup's warnings): if it is \
             whole, the archive is not, and a new base backup is needed now; if it is not, restore what is damaged from a time before"
        }
        "fingerprint" => {
            "the data are not what was expected: look at the target and at the value that was given, then at the copy (--keep)"
        }
        "timescaledb" => {
            "a restore needs TimescaleDB's library in the version that the database had: install it beside the server"
        }
        _ => "look at what it says above, and at the copy (--keep)",
    }
}
