//! `backup-fetch`: the files of a base backup into an empty directory, or the plan for that.

use std::fmt::Write;
use std::path::Path;

use indicatif::ProgressBar;
use wale_ops::backup_fetch::{
    self, BackupSelector, MissingTablespace, Options, RecordedTablespace, RestoreReport,
};
use wale_ops::{Archive, BackupEntry, Kind, OpError};
use wale_pipeline::{CancellationToken, Progress};

use super::{print, restore_spec};
use crate::assemble::{self, Bounds};
use crate::cli::BackupFetch;
use crate::config::{Group, Loaded, Settings};
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
    if arguments.dry_run {
        return print(&runtime::small()?.block_on(preview(&archive, &options))?);
    }
    let report = runtime::large(options.workers)?.block_on(fetch(&archive, &options, bar))?;
    tell(&report);
    Ok(())
}

fn options(arguments: &BackupFetch, settings: &Settings) -> Result<Options, OpError> {
    let usage = |message: String, hint: &str| OpError::new(Kind::Usage, message).hint(hint);
    let target = &arguments.directory;
    if !target.is_absolute() {
        let message = format!("\"{}\" is not an absolute path", target.display());
        return Err(usage(message, "give the data directory's full path"));
    }
    let selector: BackupSelector = arguments
        .name
        .parse()
        .map_err(|problem| usage(problem, "write LATEST or a name that backup-list prints"))?;
    let mut options = assemble::fetch(settings, target, selector);
    if let Some(workers) = arguments.pool_size {
        options.workers = usize::from(workers).clamp(1, 64);
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
    options: &Options,
    bar: &ProgressBar,
) -> Result<RestoreReport, OpError> {
    let signals = Signals::listen()?;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    // Boxed: the work's own state is tens of kilobytes.
    let work = Box::pin(backup_fetch::run(archive, options, &progress, &cancel));
    signals.cancel(&cancel, watch(bar, &progress, work)).await
}

fn tell(report: &RestoreReport) {
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
}

/// The plan, from the archive's records alone: nothing is written, and the target is not looked at.
async fn preview(archive: &Archive, options: &Options) -> Result<String, OpError> {
    let catalog = archive.catalog().await?;
    let chosen = archive.choose(&catalog, &options.selector).await?;
    let mut text = describe(&chosen.entry, options)?;
    for sentence in &chosen.passed_over {
        let _ = writeln!(text, "{:<12} {sentence}", "warning");
    }
    Ok(text)
}

fn describe(entry: &BackupEntry, options: &Options) -> Result<String, OpError> {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("backup", entry.name.to_string());
    line("ended", entry.time.to_rfc3339());
    line("target", shown(&options.target));
    if let Some(link) = &options.pg_wal_link {
        line("pg_wal", format!("a link to {}", shown(link)));
    }
    if let Some(sentinel) = entry.readable() {
        if let Some(size) = sentinel.bytes() {
            line("size", bytes(size));
        }
        if let (Some(start), Some(stop)) = (sentinel.start_lsn(), sentinel.stop_lsn()) {
            line("positions", format!("{start} to {stop}"));
        }
        if let Some(wale) = &sentinel.wale {
            line("major", wale.major.to_string());
            line("timeline", wale.start_timeline.to_string());
            line("files", wale.files.to_string());
            line("partitions", wale.partitions.len().to_string());
            let recorded: Vec<RecordedTablespace> = wale
                .tablespaces
                .iter()
                .map(|space| RecordedTablespace {
                    oid: space.oid,
                    location: space.location.clone(),
                    inside: space.inside.clone(),
                })
                .collect();
            let (spaces, warnings) = backup_fetch::place_tablespaces(
                &recorded,
                &options.tablespace_mapping,
                &[],
                &options.target,
            )?;
            for space in spaces {
                let places = format!(
                    "{} from {} to {} (named by {})",
                    space.oid,
                    shown(&space.origin),
                    shown(&space.target),
                    space.named_by
                );
                line("tablespace", places);
            }
            for warning in warnings {
                line("warning", warning);
            }
        }
    }
    Ok(text)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
