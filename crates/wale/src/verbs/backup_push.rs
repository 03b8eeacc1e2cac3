//! `backup-push`: one base backup now.

use indicatif::ProgressBar;
use wale_ops::backup_push::BackupReport;
use wale_ops::{Archive, Kind, OpError, retention};
use wale_pipeline::{CancellationToken, Progress};

use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::BackupPush;
use crate::config::{Group, Loaded, Settings, declared};
use crate::progress::{bytes, duration, watch};
use crate::report::Failure;
use crate::runtime::{self, Signals};
use crate::verbs::deletion;

/// Runs the verb.
pub(crate) fn run(
    arguments: &BackupPush,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let groups = [
        Group::Archive,
        Group::Cluster,
        Group::Server,
        Group::Backup,
        Group::Retention,
    ];
    let settings = loaded.require(&groups)?;
    let options = options(arguments, settings)?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let retention = retention::Options {
        request: retention::Request::Policy(settings.retention()),
        act: retention::Act::Delete,
        grace: assemble::sweep_grace(settings),
        request_interval: settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL),
    };
    let work = push(&archive, &options, arguments.while_offline, &retention, bar);
    let report = runtime::large(options.workers)?.block_on(work)?;
    tell(&report);
    Ok(())
}

fn options(
    arguments: &BackupPush,
    settings: &Settings,
) -> Result<wale_ops::backup_push::BackupOptions, OpError> {
    let directory = arguments.directory.clone();
    let directory = directory.unwrap_or_else(|| settings.get(&declared::PGDATA));
    if !directory.is_absolute() {
        let message = format!("\"{}\" is not an absolute path", directory.display());
        return Err(OpError::new(Kind::Usage, message).hint("give the data directory's full path"));
    }
    let mut options = assemble::backup(settings, &directory);
    if let Some(workers) = arguments.pool_size {
        options.workers = declared::workers(workers);
    }
    if arguments.cluster_read_rate_limit.is_some() {
        options.read_rate = arguments.cluster_read_rate_limit;
    }
    options.new_archive = arguments.new_archive;
    Ok(options)
}

async fn push(
    archive: &Archive,
    options: &wale_ops::backup_push::BackupOptions,
    is_offline: bool,
    retention: &retention::Options,
    bar: &ProgressBar,
) -> Result<BackupReport, OpError> {
    let signals = Signals::listen()?;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    // Boxed: the work's own state is tens of kilobytes.
    let work = Box::pin(async {
        let report = if is_offline {
            wale_ops::backup_push::run_offline(archive, options, &progress, &cancel).await?
        } else {
            wale_ops::backup_push::run(archive, options, &progress, &cancel, |_| {}).await?
        };
        progress.set_phase("deleting what is not kept");
        // It may be dropped anywhere: the next run goes on.
        let deletion = deletion::after_backup(archive, retention);
        let _ = cancel.run_until_cancelled(deletion).await;
        Ok(report)
    });
    signals.cancel(&cancel, watch(bar, &progress, work)).await
}

fn tell(report: &BackupReport) {
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    if report.damaged_pages > 0 {
        tracing::warn!(
            pages = report.damaged_pages,
            "the cluster has damaged pages; they are in the backup's record"
        );
    }
    tracing::info!(
        backup = %report.name,
        start_lsn = %report.start_lsn,
        stop_lsn = %report.stop_lsn,
        files = report.files,
        partitions = report.partitions,
        "backup-push: complete, {} stored as {} in {}",
        bytes(report.bytes),
        bytes(report.bytes_stored),
        duration(report.duration)
    );
}
