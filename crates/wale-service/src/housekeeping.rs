//! What the sidecar deletes by itself: the remains of crashes when it starts, and after each successful base backup
//! what the policy does not keep.
//!
//! It refuses to decide anything: wale-ops does. A failure here fails nothing else: the backup is complete, and the
//! archive merely larger than it has to be. Everything may be dropped at any point: the next run goes on.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::retention::{self, Act, Options, Report, Request};
use wale_ops::{Archive, Kind, OpError, sweep};

use crate::app::App;
use crate::journal::{FailureRecord, RetentionRecord, log_failure};
use crate::options::Housekeeping;

/// Pauses between attempts while the store does not answer; then it is the next backup's turn. 21 minutes in all.
const PAUSES: [Duration; 3] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
];

/// Sweeps once, then keeps house after each backup.
pub(crate) async fn keep_house(app: Arc<App>, options: Housekeeping) {
    let mut completions = app.backups.completions();
    clean(&app.archive, options.grace).await;
    // The sender lives as long as the application does.
    while completions.changed().await.is_ok() {
        retain(&app, &options).await;
        clean(&app.archive, options.grace).await;
    }
}

async fn clean(archive: &Archive, grace: Duration) {
    match sweep::run(archive, grace).await {
        Ok(report) if report == sweep::SweepReport::default() => {}
        Ok(report) => tracing::info!(
            backups = report.backups,
            objects = report.objects,
            bytes = report.bytes,
            unfinished = report.unfinished,
            refused = report.refused.len(),
            "removed what crashes left in the archive"
        ),
        // Whoever may only read restores from this archive: cleaning it is somebody else's.
        Err(error) if error.kind == Kind::PermissionDenied => {
            tracing::info!(
                "the remains of crashes are not looked for: {}",
                error.chain()
            );
        }
        Err(error) => log_failure("sweep", &error),
    }
}

async fn retain(app: &App, options: &Housekeeping) {
    if !options.policy.is_set() {
        return;
    }
    for pause in PAUSES.into_iter().map(Some).chain([None]) {
        let error = match attempt(&app.archive, options).await {
            Ok(report) => return note(app, &report),
            Err(error) => error,
        };
        log_failure("retention", &error);
        match pause {
            Some(pause) if error.kind.retryable() => tokio::time::sleep(pause).await,
            _ => return note_failure(app, &error),
        }
    }
}

async fn attempt(archive: &Archive, options: &Housekeeping) -> Result<Report, OpError> {
    let options = Options {
        request: Request::Policy(options.policy.clone()),
        act: Act::Delete,
        grace: options.grace,
        request_interval: options.request_interval,
    };
    let mut tell = |line: &retention::Line| {
        if line.goes {
            tracing::debug!(key = %line.key, bytes = line.size, why = line.why, "deleting");
        } else {
            tracing::debug!(key = %line.key, why = line.why, "kept");
        }
    };
    retention::run(archive, &options, &mut tell).await
}

fn note(app: &App, report: &Report) {
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    for note in &report.notes {
        tracing::info!("{note}");
    }
    let record = RetentionRecord {
        at: app.archive.clock().now(),
        kept_backups: report.kept.len(),
        deleted_backups: report.deleted.iter().map(ToString::to_string).collect(),
        deleted_objects: report.objects,
        deleted_bytes: report.bytes,
        retained_objects: report.refused_count,
    };
    tracing::info!(
        kept_backups = record.kept_backups,
        deleted_backups = record.deleted_backups.len(),
        deleted_objects = record.deleted_objects,
        deleted_bytes = record.deleted_bytes,
        retained_objects = record.retained_objects,
        "retention is done"
    );
    app.metrics.retained(&record);
    app.journal.note(|entries| {
        entries.last_retention = Some(record);
        entries.last_retention_failure = None;
    });
}

fn note_failure(app: &App, error: &OpError) {
    app.metrics.retention_failed();
    let record = FailureRecord::new("retention", error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_retention_failure = Some(record));
}
