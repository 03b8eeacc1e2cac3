//! `verify`: whether the archive is what it should be, and what it means where it is not.

use std::fmt::Write;
use std::num::NonZeroU64;

use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use wale_ops::verify::{
    self, BackupState, Finding, VerifiedBackup, VerifyDepth, VerifyOptions, VerifyReport,
};
use wale_ops::{Archive, OpError};
use wale_pipeline::{CancellationToken, Progress};

use super::adopt::shown;
use super::print::print;
use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::Verify;
use crate::config::{Group, Loaded, declared};
use crate::logging::escaped;
use crate::progress::{bytes, duration, watch};
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// The exit status where something is damaged or missing.
const DAMAGED: u8 = 1;

/// Columns of the text.
const WIDTH: usize = 100;

/// Columns before what a line says.
const INDENT: usize = 13;

/// Runs the verb.
///
/// # Errors
/// With status 1 when something is damaged or missing; by its kind when something could not be read.
pub(super) fn run(arguments: &Verify, loaded: &Loaded, bar: &ProgressBar) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Restore])?;
    let workers = arguments.pool_size.map_or_else(
        || settings.get(&declared::WALE_RESTORE_WORKERS),
        declared::workers,
    );
    let options = VerifyOptions {
        depth: if arguments.content {
            VerifyDepth::Content
        } else {
            VerifyDepth::Names
        },
        share: arguments.sample,
        older_than: arguments.older_than,
        rate: arguments.rate.and_then(NonZeroU64::new),
        workers,
    };
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let work = verify_now(&archive, &options, bar);
    let report = runtime::large(workers)?.block_on(work)?;
    print(&if arguments.json {
        format!("{:#}\n", as_json(&report))
    } else {
        as_text(&report)
    })?;
    if let Some(why) = &report.not_remembered {
        tracing::warn!("what was read is not remembered, and is read again the next time: {why}");
    }
    match report.failure() {
        None => Ok(()),
        Some(error) if report.is_damaged() => Err(Failure::with_status(error, DAMAGED)),
        Some(error) => Err(error.into()),
    }
}

async fn verify_now(
    archive: &Archive,
    options: &VerifyOptions,
    bar: &ProgressBar,
) -> Result<VerifyReport, OpError> {
    let signals = Signals::listen()?;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let work = Box::pin(verify::run(archive, options, &progress, &cancel));
    signals.cancel(&cancel, watch(bar, &progress, work)).await
}

/// The report for a person.
fn as_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, said: &str| {
        // Much of it comes from the archive: no control character of it may reach the terminal.
        let said = escaped(said);
        let mut name = name;
        for row in rows(&said, WIDTH - INDENT) {
            let _ = writeln!(text, "{name:<12} {row}");
            name = "";
        }
    };
    line("archive", &report.archive);
    line(
        "looked at",
        match (report.depth, report.share) {
            (VerifyDepth::Names, _) => "names and sizes; --content reads every object, too".to_owned(),
            (VerifyDepth::Content, None) => "every byte of what was due".to_owned(),
            (VerifyDepth::Content, Some(share)) => format!(
                "every byte of about {share} of what is stored: whole backups, and the WAL that was read longest ago"
            ),
        }
        .as_str(),
    );
    line("backups", &of_backups(&report.backups));
    for backup in &report.backups {
        line("", &of_backup(backup, report.depth));
    }
    line("wal", &of_wal(report));
    for note in &report.notes {
        line("note", note);
    }
    for finding in &report.findings {
        for (name, said) in of_finding(finding) {
            line(name, &said);
        }
    }
    let untold = report.findings_count - report.findings.len() as u64;
    if untold > 0 {
        line("", &format!("and {untold} more"));
    }
    line(
        "read",
        &format!(
            "{} in {}",
            bytes(report.bytes_read),
            duration(report.duration)
        ),
    );
    line("result", &result(report));
    text
}

/// What it comes to.
fn result(report: &VerifyReport) -> String {
    match report.failure() {
        None => "good".to_owned(),
        Some(error) => error.message,
    }
}

fn of_backups(backups: &[VerifiedBackup]) -> String {
    let count = |state| backups.iter().filter(|one| one.state == state).count();
    let mut text = backups.len().to_string();
    for (state, word) in [
        (BackupState::Proven, "read now and good"),
        (BackupState::Damaged, "damaged"),
        (BackupState::Unreadable, "not readable here"),
    ] {
        match count(state) {
            0 => {}
            count => drop(write!(text, ", {count} {word}")),
        }
    }
    text
}

fn of_backup(backup: &VerifiedBackup, depth: VerifyDepth) -> String {
    let state = match (backup.state, depth) {
        (BackupState::There, VerifyDepth::Content) => "not read this time",
        (state, _) => state.name(),
    };
    let mut text = format!("{} {state}", backup.name);
    match (backup.state, backup.proven) {
        (BackupState::Proven, _) => {}
        (_, Some(proven)) => drop(write!(text, ", proven {}", shown(proven))),
        (_, None) => text.push_str(", never proven"),
    }
    text
}

fn of_wal(report: &VerifyReport) -> String {
    let wal = &report.wal;
    let mut text = format!("{} segments, {}", wal.segments, bytes(wal.bytes));
    if report.depth == VerifyDepth::Content {
        let _ = write!(
            text,
            "; {} read now, {}, with {} other files",
            wal.read,
            bytes(wal.read_bytes),
            wal.others_read
        );
    }
    match wal.oldest {
        Some(oldest) => {
            let _ = write!(text, "; {} proven, since {}", wal.proven, shown(oldest));
        }
        None => text.push_str("; none proven yet"),
    }
    text
}

fn of_finding(finding: &Finding) -> Vec<(&'static str, String)> {
    let mut told = vec![(finding.trouble.name(), finding.object.clone())];
    // An error names its object itself.
    told.push(("", finding.found.clone()));
    if let Some(as_of) = finding.as_of {
        told.push((
            "",
            format!("found at {}, and not read again now", shown(as_of)),
        ));
    }
    for sentence in &finding.meaning {
        told.push(("", format!("- {sentence}")));
    }
    told
}

/// A text in rows of at most so many letters, broken between words where there are any.
fn rows(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        loop {
            let row = rows.last().map_or(0, |row| row.chars().count());
            let space = usize::from(row > 0);
            if row + space + letters.len() <= width {
                if let Some(last) = rows.last_mut() {
                    last.extend((space > 0).then_some(' '));
                    last.extend(letters);
                }
                break;
            }
            if row > 0 {
                rows.push(String::new());
                continue;
            }
            let rest = letters.split_off(width);
            if let Some(last) = rows.last_mut() {
                last.extend(letters);
            }
            rows.push(String::new());
            letters = rest;
        }
    }
    rows
}

fn as_json(report: &VerifyReport) -> Value {
    let time = |time: Option<DateTime<Utc>>| time.map(|time| time.to_rfc3339());
    let backups = report.backups.iter().map(|one| {
        json!({
            "name": one.name.to_string(),
            "state": one.state.name(),
            "stored_bytes": one.stored_bytes,
            "proven_at": time(one.proven),
        })
    });
    let findings = report.findings.iter().map(|one| {
        json!({
            "object": one.object,
            "trouble": one.trouble.name(),
            "found": one.found,
            "meaning": one.meaning,
            "as_of": time(one.as_of),
        })
    });
    let wal = &report.wal;
    json!({
        "archive": report.archive,
        "began": report.began.to_rfc3339(),
        "depth": report.depth.name(),
        "sample": report.share.map(|share| share.to_string()),
        "good": report.failure().is_none(),
        "backups": backups.collect::<Vec<_>>(),
        "wal": {
            "segments": wal.segments,
            "stored_bytes": wal.bytes,
            "read": wal.read,
            "read_bytes": wal.read_bytes,
            "others_read": wal.others_read,
            "proven": wal.proven,
            "oldest_proof": time(wal.oldest),
        },
        "findings": findings.collect::<Vec<_>>(),
        "findings_count": report.findings_count,
        "unreadable": report.unreadable,
        "unreadable_because": report.unreadable_because.as_ref().map(OpError::chain),
        "locked": report.locked.as_ref().map(OpError::chain),
        "notes": report.notes,
        "bytes_read": report.bytes_read,
        "not_remembered": report.not_remembered,
        "seconds": report.duration.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_broken_between_words_and_within_only_what_does_not_fit() {
        assert_eq!(rows("", 5), [""]);
        assert_eq!(rows("a bc def", 5), ["a bc", "def"]);
        assert_eq!(rows("abcdefgh i", 5), ["abcde", "fgh i"]);
        assert_eq!(rows("x abcdefgh", 5), ["x", "abcde", "fgh"]);
        assert_eq!(rows("ääää ö", 5), ["ääää", "ö"]);
    }
}
