//! What the sidecar deletes by itself: the remains of crashes when it starts, and after each successful base backup
//! what the policy does not keep. A further archive asks for the same when it has got a backup ([`crate::follower`]).
//!
//! It refuses to decide anything: wale-ops does. A failure here fails nothing else: the backup is complete, and the
//! archive is just larger than necessary. Everything may be dropped at any point: the next run goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_ops::DataDirectory;
use wale_ops::retention::{self, Act, Options, Report, Request};
use wale_ops::{Archive, Kind, OpError, sweep};
use wale_pg::ClusterState;

use crate::app::{App, moment};
use crate::journal::{FailureRecord, RetentionRecord, log_failure};
use crate::lifecycle::Topic;
use crate::options::Housekeeping;

/// Pauses between attempts while the store does not answer; then it is the next backup's turn. 21 minutes in all.
const PAUSES: [Duration; 3] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
];

/// Between two looks at a further archive that lags behind: at what is known of it, nothing is asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A further archive that answers and lags behind for longer is told, one minute.
const SLOW: Duration = Duration::from_mins(1);

/// Between two tries while nothing may be written.
const TRY_EVERY: Duration = Duration::from_mins(1);

/// Sweeps once, then keeps house after each backup. `archives` says whether this sidecar's server hands its WAL to this
/// archive, as far as is known: a restore may have come from somebody else's.
pub(crate) async fn keep_house(app: Arc<App>, options: Housekeeping, archives: bool) {
    let mut completions = app.backups.completions();
    if clean(&app.archive, options.grace).await == Cleaned::Refused && archives {
        while !may_write(&app).await {
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
    if archives && let Err(error) = app.archive.forget_disputed().await {
        log_failure("the note of an archive that follows no other one", &error);
    }
    // The sender lives as long as the application does.
    while completions.changed().await.is_ok() {
        retain(&app, &options).await;
        clean(&app.archive, options.grace).await;
    }
}

/// What came of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// It was done, or failed for a reason that is reported.
    Looked,
    /// The store does not allow it.
    Refused,
}

/// Whether objects may be written. Where not, that is reported before PostgreSQL hands over the first file, which may
/// be hours away. A standby's sidecar may well have an archive that it only reads: there it turns nothing off.
async fn may_write(app: &App) -> bool {
    let error = match sweep::try_writing(&app.archive).await {
        Err(error) if error.kind == Kind::PermissionDenied => error,
        _ => {
            app.life.resolve(Topic::ArchiveWrite);
            return true;
        }
    };
    let reason = format!(
        "nothing can be written into {}: no WAL is archived and no base backup is taken ({})",
        app.archive.location(),
        error.chain()
    );
    if !app.life.reasons().contains_key(&Topic::ArchiveWrite) {
        tracing::warn!(
            hint = "check owner and mode of the archive, or the rights of the key; it is tried every minute",
            "{reason}"
        );
    }
    if !recovers(app.data_directory.clone()).await {
        app.life.complain(Topic::ArchiveWrite, reason);
    }
    false
}

/// Whether the control file says that the server is in recovery.
async fn recovers(data: PathBuf) -> bool {
    let read = move || DataDirectory::open(&data).and_then(|directory| directory.control_file());
    let read = tokio::task::spawn_blocking(read).await;
    matches!(read, Ok(Ok(control)) if matches!(
        control.state,
        ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery
    ))
}

pub(crate) async fn clean(archive: &Archive, grace: Duration) -> Cleaned {
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
        // A sidecar that may only read restores from this archive: somebody else cleans it.
        Err(error) if error.kind == Kind::PermissionDenied => {
            tracing::info!(
                "could not look for the remains of crashes: {}",
                error.chain()
            );
            return Cleaned::Refused;
        }
        Err(error) => log_failure("sweep", &error),
    }
    Cleaned::Looked
}

async fn retain(app: &App, options: &Housekeeping) {
    if !options.policy.is_set() {
        return;
    }
    wait_for_further(app).await;
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

/// Waits while a further archive lacks what may be about to be deleted, for as long as that is allowed.
async fn wait_for_further(app: &App) {
    let mut noted = BTreeMap::new();
    let mut is_told = false;
    loop {
        let now = app.archive.clock().now();
        let (mut waited_for, mut given_up, mut level) = (Vec::new(), Vec::new(), Vec::new());
        for replica in &app.replicas {
            let Some(since) = replica.behind_since(now) else {
                noted.remove(&replica.number);
                level.push(replica.number);
                continue;
            };
            let lasts = |since: DateTime<Utc>| (now - since).to_std().unwrap_or_default();
            // After each backup it is behind for as long as the copy takes.
            let is_slow = replica.known().failing_since.is_some() || lasts(since) >= SLOW;
            if is_slow && !noted.contains_key(&replica.number) {
                noted.insert(
                    replica.number,
                    waits_since(app, replica.number, since).await,
                );
            }
            let since = noted
                .get(&replica.number)
                .map_or(since, |at| since.min(*at));
            let lasted = lasts(since);
            if lasted < app.retain_wait {
                waited_for.push((replica.number, since, is_slow));
            } else {
                given_up.push((replica.number, since));
            }
        }
        let Some((number, since, is_slow)) = waited_for.first() else {
            for number in level {
                forget_waiting(app, number).await;
            }
            for (number, since) in given_up {
                tracing::error!(
                    archive = number,
                    hint =
                        "bring that archive back: what the first deletes before that it never gets",
                    "archive {number} lags behind since {}; retention of the first archive waits for it no longer",
                    moment(since)
                );
            }
            return;
        };
        if *is_slow && !is_told {
            is_told = true;
            tell_waiting(app, *number, *since);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Since when the archive has been waited for, by this process or an earlier one. A wait that is never allowed asks nobody.
async fn waits_since(app: &App, number: u8, since: DateTime<Utc>) -> DateTime<Utc> {
    if app.retain_wait.is_zero() {
        return since;
    }
    match retention::waits_since(&app.archive, number).await {
        Ok(noted) => noted,
        Err(error) => {
            log_failure("the note of what retention waits for", &error);
            since
        }
    }
}

async fn forget_waiting(app: &App, number: u8) {
    if let Err(error) = retention::waits_no_more(&app.archive, number).await {
        log_failure("the note of what retention waits for", &error);
    }
}

fn tell_waiting(app: &App, number: u8, since: DateTime<Utc>) {
    let message = format!(
        "nothing is deleted from the first archive: archive {number} lags behind since {}",
        moment(since)
    );
    let error = OpError::new(Kind::Busy, message).hint(
        "bring that archive up to date (further_archives in /status says what stops it); WALE_RETAIN_WAIT says how long it is \
         waited for",
    );
    log_failure("retention", &error);
    let record = FailureRecord::new("retention", &error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_retention_failure = Some(record));
}

pub(crate) async fn attempt(archive: &Archive, options: &Housekeeping) -> Result<Report, OpError> {
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
    let record = tell(&app.archive, None, report);
    app.metrics.retained(&record);
    app.journal.note(|entries| {
        entries.last_retention = Some(record);
        entries.last_retention_failure = None;
    });
}

/// Tells a run in the log, with the number of a further archive, and gives it as it is remembered.
pub(crate) fn tell(archive: &Archive, number: Option<u8>, report: &Report) -> RetentionRecord {
    for warning in &report.warnings {
        tracing::warn!(archive = number, "{warning}");
    }
    for note in &report.notes {
        tracing::info!(archive = number, "{note}");
    }
    let record = RetentionRecord {
        at: archive.clock().now(),
        kept_backups: report.kept.len(),
        deleted_backups: report.deleted.iter().map(ToString::to_string).collect(),
        deleted_objects: report.objects,
        deleted_bytes: report.bytes,
        retained_objects: report.refused_count,
    };
    tracing::info!(
        archive = number,
        kept_backups = record.kept_backups,
        deleted_backups = record.deleted_backups.len(),
        deleted_objects = record.deleted_objects,
        deleted_bytes = record.deleted_bytes,
        retained_objects = record.retained_objects,
        "retention is done"
    );
    record
}

fn note_failure(app: &App, error: &OpError) {
    app.metrics.retention_failed();
    let record = FailureRecord::new("retention", error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_retention_failure = Some(record));
}
