//! Probes, base backups on request, and what the sidecar reports about itself.

use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;
use wale_ops::backup_list::{self, BackupSummary};
use wale_ops::wal_volume::{Trend, WalVolume};
use wale_ops::{OpError, ProgressSnapshot, rival, role};
use wale_pg::MajorVersion;

use super::reply::{Reply, Voice, busy};
use crate::app::App;
use crate::app::moment;
use crate::backup::{Running, Trigger};
use crate::journal::{BackupRecord, Entries};
use crate::lifecycle::{Complaint, Phase};
use crate::metrics::Dialect;
use crate::schedule::Schedule;

/// How long a request for the list of backups waits for its turn.
const LIST_TURN: Duration = Duration::from_secs(5);

/// `/startupz`: 200 once the database may start.
pub(crate) fn startup(app: &App) -> Reply {
    let phase = app.life.phase();
    probe(phase.started(), format!("{}\n", phase.name()))
}

/// `/livez`: 200 as long as requests are answered.
pub(crate) fn live() -> Reply {
    Reply::line("alive")
}

/// `/readyz`: 200 when nothing is missing and nothing has failed without a success since; otherwise one line per
/// reason, with the time since when there is one. A note follows about what turns nothing off.
pub(crate) fn ready(app: &App) -> Reply {
    let phase = app.life.phase();
    let mut text = format!("{}\n", phase.name());
    for complaint in app.life.complaints() {
        let (topic, since) = (complaint.topic.name(), app.began(complaint.lasting));
        let reason = complaint.reason.replace(['\r', '\n'], " ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{topic}: {reason} (since {since})");
    }
    let entries = app.journal.entries();
    if let Some(said) = &entries.newest_is_anothers {
        let _ = writeln!(text, "note: {said}; {}", rival::HINT);
    }
    if app.archive.was_begun() && entries.last_backup.is_none() && entries.recoverable.is_none() {
        let _ = writeln!(
            text,
            "note: a new archive was begun in {} and has no base backup yet: take one; if there was an archive before, \
             check that its volume is mounted",
            app.archive.location()
        );
    }
    let plain = entries.plain_http;
    if let Some(last) = plain.last {
        let _ = writeln!(
            text,
            "note: {} requests came over plain HTTP to this TLS port and were refused, the last at {}: write https:// \
             wherever it is asked",
            plain.count,
            moment(last)
        );
    }
    probe(phase == Phase::Ready, text)
}

fn probe(well: bool, text: String) -> Reply {
    Reply::text(
        if well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

/// `/backup-push`: begins a base backup; answers at its end, or at once with `?wait=false`.
pub(crate) async fn backup_push(
    app: &App,
    query: Option<&str>,
    voice: Voice,
) -> Result<Reply, OpError> {
    let waits = match query {
        None | Some("" | "wait=true" | "wait=1") => true,
        Some("wait=false" | "wait=0") => false,
        Some(_) => {
            return Err(OpError::new(
                wale_ops::Kind::Usage,
                "the only parameter of /backup-push is wait=true or wait=false",
            ));
        }
    };
    check_interval(app).await?;
    let ticket = app.backups.begin(Trigger::Request, Box::new(|| {}))?;
    if !waits {
        let value = json!({ "begun": true, "status": "/status" });
        return Ok(match voice {
            Voice::Text => Reply::text(
                StatusCode::ACCEPTED,
                "base backup begun; see /status\n".to_owned(),
            ),
            Voice::Json => Reply::json(StatusCode::ACCEPTED, &value),
        });
    }
    match ticket.ended().await.as_ref() {
        Ok(record) => Ok(backup_told(record, voice)),
        Err(error) => Err(error.duplicate()),
    }
}

/// Refuses a backup that is requested too soon after the newest one began.
async fn check_interval(app: &App) -> Result<(), OpError> {
    let interval = app.backup_request_interval;
    if interval.is_zero() {
        return Ok(());
    }
    let own = app.journal.entries().last_backup;
    let mut newest = own.map(|record| record.started_at);
    if newest.is_none() {
        // Since it was started this process has taken none: what there is was taken before, or by others.
        let _turn = list_turn(app).await?;
        let catalog = app.archive.catalog().await?;
        let began = catalog.backups.iter().filter_map(|entry| {
            let sentinel = entry.readable()?;
            Some(sentinel.started_at().unwrap_or(entry.time))
        });
        newest = began.max();
    }
    let Some(newest) = newest else {
        return Ok(());
    };
    let age = app.archive.clock().now() - newest;
    let Some(wait) = TimeDelta::from_std(interval)
        .ok()
        .filter(|wait| age < *wait)
    else {
        return Ok(());
    };
    Err(busy(
        format!("the newest base backup began at {}", newest.to_rfc3339()),
        format!(
            "ask again after {} (WALE_BACKUP_REQUEST_INTERVAL)",
            (newest + wait).to_rfc3339()
        ),
    ))
}

/// One of the turns of those who read the list of backups.
async fn list_turn(app: &App) -> Result<SemaphorePermit<'_>, OpError> {
    match tokio::time::timeout(LIST_TURN, app.lists.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(busy(
            "other requests are reading the list of backups",
            "repeat the request",
        )),
    }
}

fn backup_told(record: &BackupRecord, voice: Voice) -> Reply {
    match voice {
        Voice::Text => {
            let mut text = format!(
                "{} is complete: {} files, {} bytes, {} stored, {:.1} s",
                record.name,
                record.files,
                record.bytes,
                record.stored_bytes,
                record.duration.as_secs_f64()
            );
            for warning in &record.warnings {
                let _ = write!(text, "\nwarning: {warning}");
            }
            Reply::line(text)
        }
        Voice::Json => Reply::json(StatusCode::OK, &json!(record)),
    }
}

/// `/backups`: the archive's base backups, oldest first.
pub(crate) async fn backups(app: &App) -> Result<Reply, OpError> {
    let _turn = list_turn(app).await?;
    let list = app
        .readers
        .read("the list of backups", |archive| async move {
            backup_list::run(&archive).await
        });
    let list = list
        .await
        .inspect_err(|error| app.quiet.failure("backups", error))?;
    let list: Vec<Value> = list.iter().map(summary).collect();
    Ok(Reply::json(StatusCode::OK, &Value::Array(list)))
}

fn summary(backup: &BackupSummary) -> Value {
    json!({
        "name": backup.name.to_string(),
        "last_modified": backup.modified,
        "expanded_size_bytes": backup.expanded_size_bytes,
        "wal_segment_backup_start": backup.start_segment,
        "wal_segment_offset_backup_start": backup.start_offset,
        "wal_segment_backup_stop": backup.stop_segment,
        "wal_segment_offset_backup_stop": backup.stop_offset,
        "start_time": backup.start_time,
        "stop_time": backup.stop_time,
        "start_lsn": backup.start_lsn.map(|lsn| lsn.to_string()),
        "stop_lsn": backup.stop_lsn.map(|lsn| lsn.to_string()),
        "timeline": backup.timeline.get(),
        "major": backup.major.map(MajorVersion::get),
        "files": backup.files,
        "stored_bytes": backup.stored_bytes,
        "damaged_pages": backup.damaged_pages,
        "made_by_wale": backup.wale,
    })
}

/// `/metrics`.
pub(crate) async fn metrics(app: &App, dialect: Dialect) -> Reply {
    let text = app.metrics.text(&app.scrape().await, dialect);
    Reply::Whole {
        status: StatusCode::OK,
        media: dialect.media(),
        body: text.into(),
    }
}

/// `/status`: everything, as JSON.
pub(crate) async fn status(app: &App) -> Reply {
    let phase = app.life.phase();
    let complaints = app.life.complaints();
    let by_topic = |of: &dyn Fn(&Complaint) -> String| -> Value {
        let complaints = complaints.iter();
        complaints
            .map(|complaint| (complaint.topic.name().to_owned(), json!(of(complaint))))
            .collect()
    };
    let entries = app.journal.entries();
    let running = app.backups.running();
    let now = app.archive.clock().now();
    let replicas = app.replicas.iter().map(|replica| replica.status(now));
    let volume = app.wal_volume().await;
    let value = json!({
        "version": app.version,
        "mode": app.mode,
        "phase": phase.name(),
        "reasons": by_topic(&|complaint| complaint.reason.clone()),
        "reasons_since": by_topic(&|complaint| app.began(complaint.lasting)),
        "unknown_server": entries.unknown_server,
        "uptime_seconds": app.started.elapsed().as_secs(),
        "archive": archive(app).await,
        "further_archives": replicas.collect::<Vec<_>>(),
        "credentials": credentials(app).await,
        "server": server(app).await,
        "wal": {
            "accepted": app.hold.is_open(),
            "ready_files": app.ready_files().await,
            "in_flight": app.life.working(),
            "volume_free_bytes": volume.map(|volume| volume.free_bytes),
            "volume": volume.map(|volume| room(&volume)),
            "last_push": entries.last_push,
            "last_push_failure": entries.last_push_failure,
            "last_fetch_failure": entries.last_fetch_failure,
            "sealed": entries.unreadable_wal,
            "stored_beside_sealed": app.pusher.stats().beside_unreadable,
        },
        "backup": {
            "running": running.map(|running| taken(&running)),
            "last": entries.last_backup,
            "last_failure": entries.last_backup_failure,
        },
        "recoverable": entries.recoverable,
        "holdings": entries.holdings,
        "verify": verification(&entries),
        "newest_timeline_is_anothers": entries.newest_is_anothers,
        "plain_http_on_the_tls_port": entries.plain_http,
        "retention": {
            "last": entries.last_retention,
            "last_failure": entries.last_retention_failure,
        },
        "schedule": app.schedule.as_ref().map(|schedule| json!({
            "cron": schedule.text(),
            "zone": schedule.zone(),
            "next": next_slot(app, schedule, entries.next_scheduled_backup),
            "skipped": entries.skipped_backups,
            "role": app.backup_role.name(),
            "rests": entries.schedule_rests,
        })),
        "restore": {
            "running": (phase == Phase::Restoring).then(|| progress(&app.restore_progress.snapshot())),
            "last": entries.restore,
            "promotion": entries.promotion,
        },
    });
    Reply::json(StatusCode::OK, &value)
}

/// The base backup that runs.
fn taken(running: &Running) -> Value {
    json!({
        "trigger": running.trigger.name(),
        "since": running.since,
        "progress": progress(&running.progress.snapshot()),
    })
}

/// When the right to ask each archive ends.
async fn credentials(app: &App) -> Value {
    let ends = app.credential_ends().await.into_iter();
    let told = ends.map(|(number, end)| {
        json!({
            "archive": number,
            "what": end.what,
            "expires": end.expires,
            "renewed_by": end.renewal.name(),
        })
    });
    told.collect()
}

/// What becomes of the room for WAL.
fn room(volume: &WalVolume) -> Value {
    let bytes_per_hour = match volume.trend {
        Trend::Fills { bytes_per_hour, .. } => Some(bytes_per_hour),
        Trend::Steady | Trend::CatchesUp | Trend::Unknown => None,
    };
    json!({
        "trend": volume.trend.name(),
        "bytes_per_hour": bytes_per_hour,
        "full_in_seconds": volume.full_in().map(|time| time.as_secs()),
        "lasts_seconds": volume.lasts.map(|time| time.as_secs()),
    })
}

/// What is known by reading the archive, and what this process read of it.
fn verification(entries: &Entries) -> Value {
    json!({
        "known": entries.verified,
        "running_since": entries.verifying_since,
        "last": entries.last_verification,
        "last_failure": entries.last_verification_failure,
        "next": entries.next_verification,
    })
}

/// The slot that comes next. The one that the scheduler waited for has passed while a base backup runs, or waits for WAL.
fn next_slot(
    app: &App,
    schedule: &Schedule,
    awaited: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let now = app.archive.clock().now();
    let is_to_come = |slot: &DateTime<Utc>| *slot > now;
    awaited
        .filter(is_to_come)
        .or_else(|| schedule.next_after(now))
}

/// What the server of the data directory is, by its files; null where there is no cluster.
async fn server(app: &App) -> Value {
    let path = app.data_directory.clone();
    let looked = tokio::task::spawn_blocking(move || role::look(&path)).await;
    let Ok(Ok(standing)) = looked else {
        return Value::Null;
    };
    json!({ "role": standing.state.name(), "timeline": standing.timeline.get() })
}

/// Where the archive is and whose it is. A store that does not answer is reported, not waited for.
async fn archive(app: &App) -> Value {
    let ask = async {
        app.archive.ensure_still_there().await?;
        app.archive.identity().await
    };
    let asked = tokio::time::timeout(Duration::from_secs(2), ask).await;
    let (identity, problem) = match asked {
        Ok(Ok(identity)) => (identity, None),
        Ok(Err(error)) => (None, Some(error.chain())),
        Err(_) => (
            None,
            Some("the store did not answer within two seconds".to_owned()),
        ),
    };
    json!({
        "location": app.archive.location(),
        "identity": identity.map(|identity| json!({
            "system_identifier": identity.cluster.system_identifier.to_string(),
            "major": identity.cluster.major.map(MajorVersion::get),
            "wal_segment_size": identity.cluster.wal_segment_size,
            "created_at": identity.created_at,
        })),
        "problem": problem,
    })
}

fn progress(snapshot: &ProgressSnapshot) -> Value {
    json!({
        "phase": snapshot.phase,
        "done_bytes": snapshot.done_bytes,
        "total_bytes": snapshot.total_bytes,
        "files": snapshot.files,
        "total_files": snapshot.total_files,
        "elapsed_seconds": snapshot.elapsed.as_secs(),
    })
}
