//! `backup-fetch`: the files of a base backup into an empty directory, or the plan for that.

use std::fmt::Write;
use std::path::Path;

use indicatif::ProgressBar;
use wale_ops::backup_fetch::{
    self, BackupSelector, MissingTablespace, Preview, RestoreOptions, RestoreReport, SomeOptions,
    SomeReport,
};
use wale_ops::{Archive, Kind, OpError};
use wale_pipeline::{CancellationToken, Progress};

use super::print::print;
use super::restore_spec;
use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::{BackupFetch, BackupFetchSome};
use crate::config::{Group, Loaded, Settings, declared};
use crate::goal;
use crate::logging::escaped;
use crate::progress::{bytes, duration, watch};
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// Runs the verb.
pub(crate) fn run(
    arguments: &BackupFetch,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Cluster, Group::Restore])?;
    let options = options(arguments, settings)?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let readers = assemble::readers(loaded, &archive)?;
    if arguments.dry_run {
        let preview = readers.read("the plan", async |archive: Archive| {
            backup_fetch::preview(&archive, &options).await
        });
        let preview = runtime::small()?.block_on(preview)?;
        return print(&describe(&preview, &options));
    }
    let report = readers.read("the restore", async |archive: Archive| {
        fetch(&archive, &options, bar).await
    });
    let report = runtime::large(options.workers)?.block_on(report)?;
    tell(&report);
    Ok(())
}

/// Runs the verb where only some files are wanted.
pub(crate) fn run_some(
    arguments: &BackupFetchSome,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive, Group::Cluster, Group::Restore])?;
    let goal = goal::of_settings(settings);
    let (target, selector) = place_and_name(&arguments.fetch)?;
    let fetch = assemble::fetch(settings, target, selector, &goal)?;
    let options = SomeOptions {
        selector: fetch.selector,
        workers: arguments
            .fetch
            .pool_size
            .map_or(fetch.workers, declared::workers),
        owner: fetch.owner,
        ..SomeOptions::new(fetch.target, arguments.only.clone())
    };
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let readers = assemble::readers(loaded, &archive)?;
    let report = readers.read("the files", async |archive: Archive| {
        let signals = Signals::listen()?;
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let work = backup_fetch::fetch_some(&archive, &options, &progress, &cancel);
        signals
            .cancel(&cancel, watch(bar, &progress, Box::pin(work)))
            .await
    });
    let report = runtime::large(options.workers)?.block_on(report)?;
    tell_some(&report, &options);
    Ok(())
}

fn tell_some(report: &SomeReport, options: &SomeOptions) {
    for note in &report.notes {
        tracing::info!("{note}");
    }
    tracing::info!(
        backup = %report.backup,
        target = %options.target.display(),
        files = report.files,
        verified = report.verified,
        bytes_read = report.bytes_read,
        "backup-fetch: {} in {}, for which {} of the archive were read; these are files of a backup and no cluster: no \
         server can start on them, and changes in the WAL after the backup's start are not in them",
        bytes(report.bytes),
        duration(report.duration),
        bytes(report.bytes_read),
    );
}

/// Where the files go, and which backup is meant.
fn place_and_name(arguments: &BackupFetch) -> Result<(&Path, BackupSelector), OpError> {
    let usage = |message: String, hint: &str| OpError::new(Kind::Usage, message).hint(hint);
    let target = &arguments.directory;
    if !target.is_absolute() {
        let message = format!("\"{}\" is not an absolute path", target.display());
        return Err(usage(message, "give the data directory's full path"));
    }
    let selector = arguments.name.parse();
    let selector = selector
        .map_err(|problem| usage(problem, "write LATEST or a name that backup-list prints"))?;
    Ok((target, selector))
}

fn options(arguments: &BackupFetch, settings: &Settings) -> Result<RestoreOptions, OpError> {
    let (target, selector) = place_and_name(arguments)?;
    let goal = goal::of_settings(settings);
    let mut options = assemble::fetch(settings, target, selector, &goal)?;
    if let Some(workers) = arguments.pool_size {
        options.workers = declared::workers(workers);
    }
    // The command line comes first: the first mapping that names a tablespace decides.
    let mut mapping = assemble::mappings(&arguments.tablespace_mapping);
    if let Some(specification) = &arguments.restore_spec {
        mapping.append(&mut restore_spec::read(specification, target)?);
    }
    // WAL-E makes the directories that a specification names, and asks for none in a blind restore.
    if arguments.restore_spec.is_some() || arguments.blind_restore {
        options.missing_tablespace = MissingTablespace::Make;
    }
    mapping.append(&mut options.tablespace_mapping);
    options.tablespace_mapping = mapping;
    Ok(options)
}

async fn fetch(
    archive: &Archive,
    options: &RestoreOptions,
    bar: &ProgressBar,
) -> Result<RestoreReport, OpError> {
    let signals = Signals::listen()?;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    // Boxed: the work's own state is tens of kilobytes.
    let work = Box::pin(backup_fetch::run(archive, options, &progress, &cancel));
    signals.cancel(&cancel, watch(bar, &progress, work)).await
}

fn tell(report: &RestoreReport) {
    for note in &report.notes {
        tracing::info!("{note}");
    }
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if report.damaged_pages > 0 {
        let pages = report.damaged_pages;
        tracing::warn!(
            pages,
            "the cluster had damaged pages when the backup was made"
        );
    }
    tracing::info!(
        backup = %report.backup,
        target = %report.target.display(),
        files = report.files,
        verified = report.verified,
        "backup-fetch: complete, {} in {}; set restore_command, then start PostgreSQL {}",
        bytes(report.bytes),
        duration(report.duration),
        report.major
    );
    if report.major.has_recovery_signal() {
        tracing::info!(
            "after the promotion take your recovery settings out of postgresql.auto.conf (ALTER SYSTEM RESET restore_command, \
             and so for each recovery_target setting): a standby that is cloned with them promotes itself"
        );
    }
}

/// The plan, after every check that the run makes. Nothing is written.
fn describe(preview: &Preview, options: &RestoreOptions) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Most of it is the archive's: no control character of it may reach the terminal.
        let _ = writeln!(text, "{name:<12} {}", escaped(&value));
    };
    line("backup", preview.backup.to_string());
    line("ended", preview.ended.to_rfc3339());
    line("target", shown(&options.target));
    if preview.begins_anew {
        line(
            "first",
            "what an interrupted restore wrote is removed".to_owned(),
        );
    }
    if let Some(link) = &options.pg_wal_link {
        line("pg_wal", format!("a link to {}", shown(link)));
    }
    let sentinel = &preview.sentinel;
    if let Some(size) = sentinel.bytes() {
        line("size", bytes(size));
    }
    if let (Some(start), Some(stop)) = (sentinel.start_lsn(), sentinel.stop_lsn()) {
        line("positions", format!("{start} to {stop}"));
    }
    if let Some(major) = preview.major {
        line("major", major.to_string());
    }
    line("timeline", preview.timeline.to_string());
    if let Some(wale) = &sentinel.wale {
        line("files", wale.files.to_string());
    }
    line("partitions", preview.partitions.to_string());
    for space in &preview.tablespaces {
        let places = format!(
            "{} from {} to {} (named by {})",
            space.oid,
            shown(&space.origin),
            shown(&space.target),
            space.named_by
        );
        line("tablespace", places);
    }
    for note in &preview.notes {
        line("note", note.clone());
    }
    for warning in &preview.warnings {
        line("warning", warning.clone());
    }
    text
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use wale_format::{BackupName, Sentinel};

    use super::*;

    #[test]
    fn fault_64_no_control_character_of_the_archive_reaches_the_terminal() {
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let preview = Preview {
            timeline: name.segment().timeline(),
            backup: name,
            ended: DateTime::UNIX_EPOCH,
            sentinel: Sentinel::parse(b"{}").unwrap(),
            major: None,
            partitions: 1,
            tablespaces: Vec::new(),
            begins_anew: false,
            notes: vec!["loaded '\u{1b}[31m'\nnote  forged".to_owned()],
            warnings: vec!["\u{9b}2J".to_owned()],
        };
        let text = describe(&preview, &RestoreOptions::new("/new".into()));
        assert!(
            text.contains("loaded '\\u{1b}[31m'\\nnote  forged"),
            "{text}"
        );
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text}"
        );
    }
}
