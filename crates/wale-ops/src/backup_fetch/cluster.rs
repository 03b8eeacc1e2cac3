//! The sidecar's RESTORE: the files, the operator's configuration, and recovery settings, once.
//!
//! A container restarts, and RESTORE is asked for again. The marker in the data directory decides: done by the same
//! request means that there is nothing to do (the database may have lived on for a year), half done means again, and
//! anything else is refused without touching a file.

use wale_archive::Archive;
use wale_cluster::recovery;
use wale_cluster::{DataDirectory, DirectoryContent, RestoreMarker, RestoreRequest, RestoreState};
use wale_pipeline::{CancellationToken, Progress, blocking};

use super::configure::jobs_held;
use super::options::RestoreClusterOptions;
use super::planned::{cluster_request, plan_restore};
use super::report::RestoreClusterOutcome;
use crate::error::{Kind, OpError, Result};

/// Restores a cluster that will recover from the archive, or finds that it was done before.
///
/// # Errors
///
/// As [`super::run`]; [`Kind::NotEmpty`] also for a directory that another request, or nobody of us, filled;
/// [`Kind::Configuration`] for recovery settings that PostgreSQL would refuse; [`Kind::ArchiveMismatch`] for a timeline
/// that did not grow out of the backup; [`Kind::CorruptData`] when WAL that the backup needs is not in the archive.
pub async fn restore_cluster(
    archive: &Archive,
    options: &RestoreClusterOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreClusterOutcome> {
    let request = cluster_request(archive, options);
    if let Some(marker) = marker(options).await?
        && marker.state == RestoreState::Done
    {
        return already_restored(options, &request, &marker);
    }
    // Boxed: their own states are tens of kilobytes.
    let planned = Box::pin(plan_restore(archive, options, progress)).await?;
    planned.tell();
    let report = Box::pin(planned.run(archive, options, progress, cancel)).await?;
    Ok(RestoreClusterOutcome::Restored(Box::new(report)))
}

async fn marker(options: &RestoreClusterOptions) -> Result<Option<RestoreMarker>> {
    let target = options.fetch.target.clone();
    let lock_file = options.fetch.lock_file_name.clone().unwrap_or_default();
    let content = blocking(move || DataDirectory::open(target)?.content(&lock_file))
        .await?
        .map_err(|error| {
            OpError::from_cluster(
                error,
                format_args!("look at {}", options.fetch.target.display()),
            )
        })?;
    Ok(match content {
        DirectoryContent::Marked(marker) => Some(*marker),
        _ => None,
    })
}

fn already_restored(
    options: &RestoreClusterOptions,
    request: &RestoreRequest,
    marker: &RestoreMarker,
) -> Result<RestoreClusterOutcome> {
    if is_same(&marker.request, request) {
        return Ok(RestoreClusterOutcome::AlreadyRestored {
            backup: marker.backup.clone(),
            notes: still_held(options, marker),
        });
    }
    let target = options.fetch.target.display();
    let done = &marker.request;
    // Nobody may have been there to settle it yet.
    let has_ended = || {
        marker.settled_at.is_some() || recovery::has_ended(&options.fetch.target).unwrap_or(false)
    };
    if asks_for_less(done, request) && has_ended() {
        tracing::warn!(
            backup = marker.backup,
            hint = "take the restore out of the settings, too; to restore again, move the data directory away first: it has been written \
                    to since",
            "\"{target}\" holds a cluster whose restore has ended its recovery: nothing is restored, and the recovery \
             settings that were removed since make no difference"
        );
        return Ok(RestoreClusterOutcome::AlreadyRestored {
            backup: marker.backup.clone(),
            notes: still_held(options, marker),
        });
    }
    Err(OpError::new(Kind::NotEmpty, format!("\"{target}\" holds a cluster that another request restored"))
        .detail(format!(
            "It was restored from {} of {} as \"{}\"; now {} of {} as \"{}\" is asked for, or other recovery settings.",
            marker.backup, done.archive, done.restore_as, request.label, request.archive, request.restore_as
        ))
        .hint(format!(
            "to keep the cluster, start without RESTORE or with the former request; to restore again, move {target} away first: it may have been written to since"
        )))
}

/// Whether a request is what is left of an earlier one when its recovery settings are taken away: somebody tidies up. Any
/// other one wants a state that the directory does not have, and to serve would say that it has.
fn asks_for_less(done: &RestoreRequest, asked: &RestoreRequest) -> bool {
    let without = RestoreRequest {
        recovery_addition: String::new(),
        ..done.clone()
    };
    is_same(&without, asked)
}

/// Whether two requests are the same restore. Comments, white space at the ends of lines and empty lines in the recovery
/// settings are no difference.
fn is_same(done: &RestoreRequest, asked: &RestoreRequest) -> bool {
    let plain = |request: &RestoreRequest| {
        let lines = request.recovery_addition.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let recovery_addition = lines.collect::<Vec<_>>().join("\n");
        RestoreRequest {
            recovery_addition,
            ..request.clone()
        }
    };
    plain(done) == plain(asked)
}

/// Whether the jobs that the restore held are held still. The file is read only for the report: no error.
fn still_held(options: &RestoreClusterOptions, marker: &RestoreMarker) -> Vec<String> {
    let held = marker
        .written
        .iter()
        .find(|setting| setting.name == recovery::TIMESCALEDB_WORKERS);
    held.filter(|setting| recovery::is_written(&options.fetch.target, setting))
        .map(|_| jobs_held())
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::options::{RestoreAs, RestoreOptions, WalSource};
    use super::*;

    #[test]
    fn what_asks_for_a_restore_after_its_end_is_told_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let options = RestoreClusterOptions {
            fetch: RestoreOptions::new(folder.path().to_owned()),
            restore_command: "false".to_owned(),
            wal_source: WalSource::Elsewhere,
            authorization: None,
            client_note: None,
            restore_as: RestoreAs::Primary,
            configuration_directory: None,
            host_name: "h".to_owned(),
            archive_settings: None,
            rehearsal: None,
        };
        let asked = |addition: &str| RestoreRequest {
            archive: "s3://bucket/pg".to_owned(),
            label: "LATEST".to_owned(),
            recovery_addition: addition.to_owned(),
            ..RestoreRequest::default()
        };
        let line = "recovery_target_time = '2026-11-23 14:00:00+00'";
        let mut marker = RestoreMarker {
            format: wale_cluster::restore_marker::FORMAT,
            state: RestoreState::Done,
            request: asked(line),
            backup: "base_000000010000000000000004_00000040".to_owned(),
            started_at: chrono::DateTime::UNIX_EPOCH,
            finished_at: None,
            host: String::new(),
            wale_version: String::new(),
            written: Vec::new(),
            settled_at: None,
            attempt: String::new(),
            outside: Vec::new(),
            wal_directory: None,
            is_delta: false,
            delta_directory: None,
            system_identifier: None,
        };
        let same = asked(&format!("# to two o'clock\n\n  {line}  \n"));
        assert!(already_restored(&options, &same, &marker).is_ok());
        let other = asked("");
        let error = already_restored(&options, &other, &marker).unwrap_err();
        assert_eq!(error.kind, Kind::NotEmpty);
        marker.settled_at = Some(chrono::DateTime::UNIX_EPOCH);
        assert!(already_restored(&options, &other, &marker).is_ok());
        // Another moment is not what the directory holds, and must not be answered as if it were.
        let another = asked("recovery_target_time = '2026-11-23 12:00:00+00'");
        assert!(already_restored(&options, &another, &marker).is_err());
    }
}
