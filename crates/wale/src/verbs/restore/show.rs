//! The plan and the result of a restore: for a person, in lines of at most a hundred columns, and for a program.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};
use serde_json::{Value, json};
use wale_ops::backup_fetch::{
    Estimate, KeptCluster, Measured, PlannedWal, Reach, RestoreClusterOptions, RestorePlan,
    RestoreReport,
};
use wale_pg::{MajorVersion, RecoveryTargetKind};

use crate::logging::escaped;
use crate::progress::{bytes, duration};

/// Columns of a line, and of the names before it.
const WIDTH: usize = 100;
const INDENT: usize = 13;

/// Lines of a name and a value, broken at words.
#[derive(Default)]
pub(in crate::verbs) struct Lines(pub(in crate::verbs) String);

impl Lines {
    pub(in crate::verbs) fn add(&mut self, name: &str, value: &str) {
        // Most of it is the archive's: no control character of it may reach the terminal.
        let value = escaped(value);
        let (mut line, mut words) = (format!("{name:<12}"), 0);
        for word in value.split(' ') {
            let width = line.chars().count() + 1 + word.chars().count();
            if width > WIDTH && words > 0 {
                let _ = writeln!(self.0, "{}", line.trim_end());
                (line, words) = (" ".repeat(INDENT - 1), 0);
            }
            line.push(' ');
            line.push_str(word);
            words += 1;
        }
        let _ = writeln!(self.0, "{}", line.trim_end());
    }
}

/// The plan for a person.
pub(super) fn text(plan: &RestorePlan, options: &RestoreClusterOptions) -> String {
    let mut lines = Lines::default();
    let files = &plan.files;
    lines.add("backup", &files.backup.to_string());
    lines.add(
        "",
        &format!("{}; it ended at {}", plan.why, time(files.ended)),
    );
    for passed_over in &plan.passed_over {
        lines.add("", passed_over);
    }
    lines.add("target", &target(plan, options));
    if let Some(timelines) = &plan.timelines {
        let known: Vec<String> = timelines.known.iter().map(ToString::to_string).collect();
        let known = known.join(", ");
        lines.add(
            "timeline",
            &format!("{}; the archive knows {known}", timelines.followed),
        );
    }
    match &plan.wal {
        Some(wal) => add_wal(&mut lines, wal),
        None => lines.add("WAL", "not known: the backup does not record what it needs"),
    }
    add_amounts(&mut lines, plan);
    add_places(&mut lines, plan, options);
    for (name, value) in plan.recovery.steering.iter().chain(&plan.recovery.besides) {
        let value = without_password(value);
        lines.add("", &format!("{name} = '{}'", value.replace('\'', "''")));
    }
    for note in &files.notes {
        lines.add("note", note);
    }
    if options.rehearsal.is_some() {
        lines.add("note", COMMAND_LINE);
    }
    for warning in &files.warnings {
        lines.add("warning", warning);
    }
    lines.0
}

/// A connection string as it may be shown.
fn without_password(value: &str) -> String {
    const WORD: &str = "password=";
    let Some(at) = value.find(WORD) else {
        return value.to_owned();
    };
    let (before, rest) = value.split_at(at + WORD.len());
    // A quoted one ends with its quote, any other with white space (libpq, 34.1.1.1).
    let length = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|c: char| {
                let ends = c == '\'' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        }
        None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
    };
    format!("{before}…{}", without_password(&rest[length..]))
}

/// What a copy's settings cannot beat.
const COMMAND_LINE: &str = "options on the server's command line beat these settings: start the copy without those of production \
     (-c archive_mode, -c archive_command, -c port, also in a container's command)";

fn target(plan: &RestorePlan, options: &RestoreClusterOptions) -> String {
    format!("{}, as {}", end(plan), options.restore_as.name())
}

/// Where recovery ends.
pub(in crate::verbs) fn end(plan: &RestorePlan) -> String {
    let end = match &plan.target {
        RecoveryTargetKind::Latest => "the end of the archive".to_owned(),
        RecoveryTargetKind::Immediate => "the end of the base backup".to_owned(),
        RecoveryTargetKind::Time(time) => time.clone(),
        RecoveryTargetKind::Lsn(lsn) => format!("position {lsn}"),
        RecoveryTargetKind::Xid(xid) => format!("transaction {xid}"),
        RecoveryTargetKind::Name(name) => format!("restore point \"{name}\""),
    };
    let is_exclusive = plan
        .recovery
        .steering
        .iter()
        .any(|(name, value)| name == "recovery_target_inclusive" && value == "off");
    if is_exclusive {
        format!("{end}, exclusive")
    } else {
        end
    }
}

pub(in crate::verbs) fn add_wal(lines: &mut Lines, wal: &PlannedWal) {
    let there = match wal.last {
        Some(last) => format!(
            "{} to {last}, {} segments, {}",
            wal.first,
            wal.segments,
            bytes(wal.bytes)
        ),
        None => format!("{} on: none of it is there", wal.first),
    };
    match &wal.gap {
        None => lines.add("WAL", &format!("{there}, none missing")),
        Some(gap) => {
            lines.add("WAL", &there);
            lines.add("", &format!("{} ({} missing)", gap.why, gap.segments));
        }
    }
    if let Some(commit) = wal.newest_commit {
        let mut told = format!("the newest commit in it is of {}", time(commit));
        if let Some(end) = wal.newest_end.filter(|end| *end > commit) {
            let _ = write!(told, ", the newest rollback of {}", time(end));
        }
        lines.add("", &told);
    } else if let Some(stored) = wal.stored_at {
        lines.add("", &format!("the last one was stored at {}", time(stored)));
    }
    if let Reach::NotKnown(why) = &wal.reach {
        lines.add("", why);
    }
}

pub(in crate::verbs) fn add_amounts(lines: &mut Lines, plan: &RestorePlan) {
    let mut size = format!("{} to read", bytes(plan.bytes_stored));
    if let Some(write) = bytes_to_write(plan) {
        let _ = write!(size, ", {} to write", bytes(write));
    }
    if let Some(wale) = &plan.files.sentinel.wale {
        let _ = write!(
            size,
            ", {} files in {} partitions",
            wale.files, plan.files.partitions
        );
    }
    lines.add("size", &size);
    for volume in &plan.volumes {
        let (need, free) = (bytes(volume.need_bytes), bytes(volume.free_bytes));
        let path = volume.path.display();
        lines.add("space", &format!("{path}: {need} needed, {free} free"));
    }
    let time = match plan.estimate {
        Some(estimate) => {
            let (of_rate, of_wal) = match estimate.measured {
                Measured::Backup => ("at which the backup was taken".to_owned(), None),
                Measured::Rehearsal { at, recovery } => {
                    (format!("of its rehearsal at {}", time(at)), recovery)
                }
            };
            let of_wal = of_wal.map_or_else(
                || "for the WAL not known".to_owned(),
                |took| format!("the recovery took {} then", duration(took)),
            );
            format!(
                "about {} for the files, at the {}/s {of_rate}; {of_wal}",
                duration(estimate.duration),
                bytes(estimate.bytes_per_second)
            )
        }
        None => "not known: no rate was measured".to_owned(),
    };
    lines.add("time", &time);
}

/// Bytes of the files that come.
fn bytes_to_write(plan: &RestorePlan) -> Option<u64> {
    let kept = plan.kept.map_or(0, |kept| kept.kept_bytes);
    Some(plan.files.sentinel.bytes()?.saturating_sub(kept))
}

fn add_places(lines: &mut Lines, plan: &RestorePlan, options: &RestoreClusterOptions) {
    let files = &plan.files;
    if files.begins_anew {
        lines.add("first", "what an interrupted restore wrote is removed");
    }
    if let Some(kept) = &plan.kept {
        lines.add(
            "kept",
            &format!(
                "{} files, {}, are the backup's to the byte and stay; {} partitions need not be read",
                kept.kept_files,
                bytes(kept.kept_bytes),
                kept.spared_partitions
            ),
        );
        lines.add(
            "first",
            &format!(
                "{}{} other files, {}, are removed, and pg_wal is emptied",
                if kept.control_goes {
                    "global/pg_control is taken away, then "
                } else {
                    ""
                },
                kept.removed_files,
                bytes(kept.removed_bytes)
            ),
        );
    }
    lines.add("into", &options.fetch.target.display().to_string());
    for space in &files.tablespaces {
        let (from, to) = (space.origin.display(), space.target.display());
        let (oid, named_by) = (space.oid, space.named_by);
        lines.add(
            "tablespace",
            &format!("{oid} from {from} to {to} (named by {named_by})"),
        );
    }
    if let Some(wal) = &plan.wal_directory {
        lines.add("pg_wal", &format!("leads to {}", wal.display()));
    }
    lines.add("writes", &plan.recovery.files.join(", "));
}

/// The end for a person.
pub(super) fn done(report: &RestoreReport, next: &[String]) -> String {
    let mut lines = Lines::default();
    let verified = if report.verified {
        ", each checked against the manifest"
    } else {
        ""
    };
    lines.0.push('\n');
    let kept = report.kept.map_or_else(String::new, |kept| {
        format!(
            "; {} files, {}, were kept",
            kept.kept_files,
            bytes(kept.kept_bytes)
        )
    });
    let summary = format!(
        "{} files, {} in {}{verified}{kept}",
        report.files,
        bytes(report.bytes),
        duration(report.duration)
    );
    lines.add("restored", &summary);
    lines.add("next", "");
    for step in next {
        let _ = writeln!(lines.0, "  {}", escaped(step));
    }
    lines.0
}

/// Plan and result for a program; the result is `null` where nothing was written.
pub(super) fn json(
    plan: &RestorePlan,
    options: &RestoreClusterOptions,
    report: Option<&RestoreReport>,
    next: &[String],
) -> String {
    let result = report.map(|report| {
        json!({
            "files": report.files,
            "bytes": report.bytes,
            "verified": report.verified,
            "files_kept": report.kept.map(|kept| kept.kept_files),
            "jobs_held": report.jobs_held,
            "seconds": report.duration.as_secs_f64(),
            "notes": report.notes,
            "warnings": report.warnings,
            "next": next,
        })
    });
    format!(
        "{:#}\n",
        json!({"plan": plan_json(plan, options), "result": result})
    )
}

fn plan_json(plan: &RestorePlan, options: &RestoreClusterOptions) -> Value {
    let files = &plan.files;
    let tablespaces = files.tablespaces.iter().map(|space| {
        json!({
            "oid": space.oid,
            "from": space.origin.display().to_string(),
            "to": space.target.display().to_string(),
            "named_by": space.named_by.to_string(),
        })
    });
    let volumes = plan.volumes.iter().map(|volume| {
        json!({
            "path": volume.path.display().to_string(),
            "need_bytes": volume.need_bytes,
            "free_bytes": volume.free_bytes,
        })
    });
    let timelines = plan.timelines.as_ref().map(|timelines| {
        let known: Vec<u32> = timelines.known.iter().map(|one| one.get()).collect();
        json!({"followed": timelines.followed.get(), "known": known})
    });
    json!({
        "backup": files.backup.to_string(),
        "why": plan.why,
        "backup_ended_at": rfc(files.ended),
        "backup_timeline": files.timeline.get(),
        "passed_over": plan.passed_over,
        "major": files.major.map(MajorVersion::get),
        "target": target_json(plan),
        "as": options.restore_as.name(),
        "rehearsal": options.rehearsal.map(|rehearsal| json!({"port": rehearsal.port})),
        "timelines": timelines,
        "wal": plan.wal.as_ref().map(wal_json),
        "bytes_to_read": plan.bytes_stored,
        "bytes_to_write": bytes_to_write(plan),
        "kept": plan.kept.map(kept_json),
        "files": files.sentinel.wale.as_ref().map(|wale| wale.files),
        "partitions": files.partitions,
        "space": volumes.collect::<Vec<_>>(),
        "estimate": plan.estimate.map(estimate_json),
        "directory": options.fetch.target.display().to_string(),
        "begins_anew": files.begins_anew,
        "wal_directory": plan.wal_directory.as_ref().map(|path| path.display().to_string()),
        "tablespaces": tablespaces.collect::<Vec<_>>(),
        "recovery_settings": settings_json(&plan.recovery.steering),
        "other_settings": settings_json(&plan.recovery.besides),
        "recovery_files": plan.recovery.files,
        "notes": files.notes,
        "warnings": files.warnings,
    })
}

fn kept_json(kept: KeptCluster) -> Value {
    json!({
        "files": kept.kept_files,
        "bytes": kept.kept_bytes,
        "removed_files": kept.removed_files,
        "removed_bytes": kept.removed_bytes,
        "partitions_not_read": kept.spared_partitions,
    })
}

fn estimate_json(estimate: Estimate) -> Value {
    let (measured, at, recovery) = match estimate.measured {
        Measured::Backup => ("when the backup was taken", None, None),
        Measured::Rehearsal { at, recovery } => {
            ("in the last rehearsal with it", Some(at), recovery)
        }
    };
    json!({
        "files_seconds": estimate.duration.as_secs_f64(),
        "bytes_per_second": estimate.bytes_per_second,
        "measured": measured,
        "rehearsed_at": at.map(rfc),
        "recovery_seconds": recovery.map(|took| took.as_secs_f64()),
    })
}

fn target_json(plan: &RestorePlan) -> Value {
    let (kind, value) = match &plan.target {
        RecoveryTargetKind::Latest => ("latest", None),
        RecoveryTargetKind::Immediate => ("immediate", None),
        RecoveryTargetKind::Time(time) => ("time", Some(time.clone())),
        RecoveryTargetKind::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
        RecoveryTargetKind::Xid(xid) => ("xid", Some(xid.to_string())),
        RecoveryTargetKind::Name(name) => ("name", Some(name.clone())),
    };
    let (reached, why) = match plan.wal.as_ref().map(|wal| &wal.reach) {
        Some(Reach::Reached) => ("yes", None),
        Some(Reach::NotReached(why)) => ("no", Some(why)),
        Some(Reach::NotKnown(why)) => ("unknown", Some(why)),
        None => ("unknown", None),
    };
    json!({"kind": kind, "value": value, "reached": reached, "why": why})
}

fn wal_json(wal: &PlannedWal) -> Value {
    let gap = wal.gap.as_ref().map(|gap| {
        json!({
            "from": gap.from.to_string(),
            "to": gap.to.to_string(),
            "segments": gap.segments,
            "why": gap.why,
        })
    });
    json!({
        "first": wal.first.to_string(),
        "last": wal.last.map(|last| last.to_string()),
        "segments": wal.segments,
        "bytes": wal.bytes,
        "last_stored_at": wal.stored_at.map(rfc),
        "newest_commit": wal.newest_commit.map(rfc),
        "newest_transaction_end": wal.newest_end.map(rfc),
        "gap": gap,
    })
}

fn settings_json(settings: &[(String, String)]) -> Value {
    let pairs = settings
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(without_password(value))));
    Value::Object(pairs.collect())
}

fn rfc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A time as `--to-time` takes it, as exact as PostgreSQL's.
pub(in crate::verbs) fn time(time: DateTime<Utc>) -> String {
    rfc(time.trunc_subsecs(6))
        .replace('T', " ")
        .replace('Z', "+00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_hundred_columns_and_no_control_characters() {
        let mut lines = Lines::default();
        lines.add("note", &"word ".repeat(60));
        lines.add("", &"x".repeat(120));
        lines.add("warning", "a\u{1b}[31mb\nc");
        let text = lines.0;
        let long: Vec<&str> = text
            .lines()
            .filter(|line| line.chars().count() > WIDTH)
            .collect();
        // A word that is longer than a line stays whole.
        assert_eq!(long.len(), 1, "{text}");
        assert!(
            text.lines()
                .nth(1)
                .unwrap()
                .starts_with("             word")
        );
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text}"
        );
    }
}
