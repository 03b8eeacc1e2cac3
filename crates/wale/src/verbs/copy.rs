//! `copy`: backups and their WAL into another store.

use std::fmt::Write;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use wale_ops::archive_copy::{self, BackupFate, CopyMode, CopyOptions, CopyReport, Present, Which};
use wale_ops::{Archive, BackupSelector, Kind, OpError};
use wale_pipeline::{CancellationToken, Progress};

use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::Copy;
use crate::config::{Group, Loaded, declared};
use crate::progress::{bytes, duration, watch};
use crate::report::Failure;
use crate::runtime::{self, Signals};
use crate::verbs::print::print;

/// Runs the verb.
pub(crate) fn run(arguments: &Copy, loaded: &Loaded, bar: &ProgressBar) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Backup])?;
    let options = options(arguments, loaded)?;
    let destination = Loaded::of_file(&arguments.to);
    for warning in &destination.warnings {
        tracing::warn!("{}: {warning}", arguments.to.display());
    }
    let there = destination.require(&[Group::Archive]).map_err(|error| {
        let message = format!(
            "the settings of the destination in {} cannot be used: {}",
            arguments.to.display(),
            error.message
        );
        OpError { message, ..error }
    })?;
    // One memory for both. The source puts nothing, so what uploads may take is the destination's.
    let copy = assemble::archive(there, Bounds::of_verb(settings))?.archive;
    let bounds = Bounds::of_verb(settings);
    let source = assemble::archive_within(settings, bounds, Some(copy.budget()))?.archive;
    // The line is this host's. What the destination's own file says of it counts where nothing is said here.
    let copy = match source.line().bytes_per_second() {
        Some(_) => copy.behind(source.line().clone()),
        None => copy,
    };
    let work = copy_now(&source, &copy, &options, bar);
    let report = runtime::large(options.workers)?.block_on(work)?;
    for note in &report.notes {
        tracing::info!("{note}");
    }
    for line in &report.backups {
        match (&line.fate, &line.note) {
            (BackupFate::Gone(why), _) => tracing::warn!("backup {} {why}", line.name),
            (_, Some(note)) => tracing::info!("backup {} {note}", line.name),
            _ => {}
        }
    }
    if arguments.json {
        print(&format!("{:#}\n", as_json(&report, options.act)))?;
    } else {
        print(&summary(&report, options.act))?;
    }
    report.failure().map_or(Ok(()), |error| Err(error.into()))
}

fn options(arguments: &Copy, loaded: &Loaded) -> Result<CopyOptions, OpError> {
    let workers = arguments.pool_size.map_or_else(
        || loaded.settings.get(&declared::WALE_BACKUP_WORKERS),
        declared::workers,
    );
    let select = |text: &String| {
        text.parse::<BackupSelector>()
            .map_err(|problem| OpError::new(Kind::Usage, problem))
    };
    let backups: Vec<BackupSelector> = arguments
        .backup
        .iter()
        .map(select)
        .collect::<Result<_, _>>()?;
    Ok(CopyOptions {
        which: if backups.is_empty() {
            Which::All
        } else {
            Which::These(backups)
        },
        present: if arguments.trust_sizes {
            Present::TrustedBySize
        } else {
            Present::Compared
        },
        act: if arguments.dry_run {
            CopyMode::Show
        } else {
            CopyMode::Copy
        },
        ..CopyOptions::new(workers)
    })
}

async fn copy_now(
    source: &Archive,
    copy: &Archive,
    options: &CopyOptions,
    bar: &ProgressBar,
) -> Result<CopyReport, OpError> {
    let signals = Signals::listen()?;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let work = Box::pin(archive_copy::run(source, copy, options, &progress, &cancel));
    signals.cancel(&cancel, watch(bar, &progress, work)).await
}

/// What was copied, for a person.
fn summary(report: &CopyReport, act: CopyMode) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let sum =
        |sum: archive_copy::report::Sum| format!("{} objects, {}", sum.objects, bytes(sum.bytes));
    line("from", report.source.clone());
    line("to", report.destination.clone());
    for backup in &report.backups {
        line("backup", format!("{} {}", backup.name, told(&backup.fate)));
    }
    line("wal", sum(report.wal));
    let (copied, there) = match act {
        CopyMode::Show => ("to copy", "there"),
        CopyMode::Copy => ("copied", "was there"),
    };
    line(copied, sum(report.copied));
    line(there, sum(report.there));
    line("duration", duration(report.duration));
    text
}

fn told(fate: &BackupFate) -> &str {
    match fate {
        BackupFate::Copied => "copied",
        BackupFate::WasThere => "was there",
        BackupFate::Planned => "goes along",
        BackupFate::Gone(why) | BackupFate::Left { why, .. } => why,
    }
}

fn as_json(report: &CopyReport, act: CopyMode) -> Value {
    let sum = |sum: archive_copy::report::Sum| json!({"objects": sum.objects, "bytes": sum.bytes});
    let backups = report.backups.iter().map(|line| {
        let (fate, why) = match &line.fate {
            BackupFate::Copied => ("copied", None),
            BackupFate::WasThere => ("there", None),
            BackupFate::Planned => ("planned", None),
            BackupFate::Gone(why) => ("gone", Some(why)),
            BackupFate::Left { why, .. } => ("left", Some(why)),
        };
        json!({"name": line.name.to_string(), "fate": fate, "why": why, "note": line.note})
    });
    let troubles = report.troubles.iter().map(
        |trouble| json!({"key": trouble.key, "kind": trouble.kind.name(), "why": trouble.why}),
    );
    json!({
        "source": report.source,
        "destination": report.destination,
        "dry_run": act == CopyMode::Show,
        "complete": act == CopyMode::Copy && report.failure().is_none(),
        "backups": backups.collect::<Vec<_>>(),
        "wal": sum(report.wal),
        "copied": sum(report.copied),
        "there": sum(report.there),
        "vanished": report.vanished,
        "troubles": troubles.collect::<Vec<_>>(),
        "troubles_count": report.troubles_count,
        "notes": report.notes,
        "seconds": report.duration.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wale_format::BackupName;
    use wale_ops::archive_copy::BackupLine;
    use wale_ops::archive_copy::report::Sum;

    use super::*;

    #[test]
    fn the_report_is_for_people_and_for_programs() {
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let line = |fate| BackupLine {
            name: name.clone(),
            fate,
            note: None,
        };
        let report = CopyReport {
            source: "file:///a".to_owned(),
            destination: "s3://b/c".to_owned(),
            backups: vec![
                line(BackupFate::Copied),
                line(BackupFate::Gone("was deleted".to_owned())),
            ],
            copied: Sum {
                objects: 3,
                bytes: 1536,
            },
            wal: Sum {
                objects: 1,
                bytes: 512,
            },
            duration: Duration::from_millis(1500),
            ..CopyReport::default()
        };
        assert_eq!(
            summary(&report, CopyMode::Copy),
            "from         file:///a\nto           s3://b/c\n\
             backup       base_000000010000000000000002_00000040 copied\n\
             backup       base_000000010000000000000002_00000040 was deleted\n\
             wal          1 objects, 512 B\ncopied       3 objects, 1.5 KiB\n\
             was there    0 objects, 0 B\nduration     1.5s\n"
        );
        assert!(summary(&report, CopyMode::Show).contains("to copy      3 objects"));
        let json = as_json(&report, CopyMode::Copy);
        assert_eq!(json["complete"], true);
        assert_eq!(json["backups"][1]["fate"], "gone");
        assert_eq!(json["copied"]["bytes"], 1536);
        assert_eq!(as_json(&report, CopyMode::Show)["complete"], false);
    }
}
