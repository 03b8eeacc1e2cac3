//! The sidecar's RESTORE: the files, the operator's configuration, and recovery settings, once.
//!
//! A container restarts, and RESTORE is asked for again. The marker in the data directory decides: done by the same
//! request means that there is nothing to do (the database may have lived on for a year), half done means again, and
//! anything else is refused without touching a file.

use std::collections::BTreeMap;
use std::path::Path;

use wale_archive::{Archive, Remedy};
use wale_cluster::recovery::{self, ConfigurationSet, RecoveryMode, RecoverySettings};
use wale_cluster::{
    DataDirectory, DirectoryContent, Owner, RestoreMarker, RestoreRequest, RestoreState,
};
use wale_pg::{ControlFile, EnforcedSettings, MajorVersion, RecoveryTargetKind};
use wale_pipeline::{CancellationToken, Progress, blocking};

use super::addition::checked_addition;
use super::aim::{Aim, setting};
use super::finish::{Finish, Finished};
use super::marker::{MarkerAtEnd, request};
use super::options::{RestoreAs, RestoreClusterOptions, WalSource};
use super::prepare::{Prepared, prepare};
use super::raised;
use super::report::RestoreClusterOutcome;
use super::run::Restore;
use super::source::{Source, version_of};
use super::target::{Target, check_configuration};
use super::way;
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
    let mut prepared = prepare(archive, &options.fetch, progress).await?;
    let plan = plan_recovery(archive, options, &prepared).await?;
    prepared.warnings.extend(plan.warnings.iter().cloned());
    let read_later = read_later(prepared.sources.restored(), plan.configuration.as_ref())?;
    let (reader, listener) = raised::channel();
    let way = plan.way.clone();
    let own = finishing(options, plan, &prepared, listener);
    let restore = Restore {
        archive,
        options: &options.fetch,
        progress,
        cancel,
        read_later,
    };
    let at_end = MarkerAtEnd::Done;
    let work = restore.run(prepared, request, &options.host_name, own, at_end);
    // Beside the files, and dropped with them.
    let reading = async {
        if let Some(way) = way {
            reader.read(archive, way).await;
        } else {
            drop(reader);
        }
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        report = work => report?,
        () = reading => return Err(OpError::internal("a restore lost its work")),
    };
    Ok(RestoreClusterOutcome::Restored(Box::new(report)))
}

fn cluster_request(archive: &Archive, options: &RestoreClusterOptions) -> RestoreRequest {
    let mut request = request(archive, &options.fetch);
    request.restore_as = match options.restore_as {
        RestoreAs::Primary => "recover".to_owned(),
        RestoreAs::Standby => "standby".to_owned(),
    };
    request
        .recovery_addition
        .clone_from(&options.fetch.recovery_addition);
    request
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

/// The backup's own configuration files beside which the settings will be written: those that no other takes the place of.
///
/// # Errors
///
/// [`Kind::Configuration`] where the manifest says that one is far too large. For another tool's backup that is known
/// only when the file comes: neither its record nor its list of files has sizes.
fn read_later(
    source: &Source,
    configuration: Option<&ConfigurationSet>,
) -> Result<Vec<&'static str>> {
    let is_replaced =
        |name: &str| configuration.is_some_and(|set| set.names().any(|replaced| replaced == name));
    let mut names = recovery::READ_FILES.to_vec();
    names.retain(|name| !is_replaced(name));
    for name in &names {
        if let Some(size) = source.size_of(name) {
            check_configuration(name, size)?;
        }
    }
    Ok(names)
}

/// How the restored cluster will recover.
struct RecoveryPlan {
    lines: Vec<(String, String)>,
    configuration: Option<ConfigurationSet>,
    /// The way that the recovery goes, where it is known.
    way: Option<raised::Way>,
    warnings: Vec<String>,
}

/// Checks the recovery settings and the timelines, before the first write.
async fn plan_recovery(
    archive: &Archive,
    options: &RestoreClusterOptions,
    prepared: &Prepared,
) -> Result<RecoveryPlan> {
    let source = prepared.sources.restored();
    let major = source.major.ok_or_else(|| {
        OpError::new(
            Kind::CorruptData,
            format!(
                "the version of the server of backup {} is not recorded",
                source.name
            ),
        )
        .hint("restore it with backup-fetch and write the recovery settings yourself")
    })?;
    let lines = checked_addition(&options.fetch.recovery_addition, major)?;
    recovery::check_command(&options.restore_command)
        .map_err(|error| OpError::from_cluster(error, "write the recovery settings"))?;
    let configuration = configuration(archive, options, source, major).await?;
    let target = Aim::of_lines(&lines).kind;
    let Some(judged) = way::judge(archive, source, &lines).await? else {
        return Ok(RecoveryPlan {
            lines,
            configuration,
            way: None,
            warnings: Vec::new(),
        });
    };
    let known: Vec<String> = judged.way.known.iter().map(ToString::to_string).collect();
    tracing::info!(
        backup = %source.name,
        backup_timeline = %source.timeline,
        followed = %judged.way.followed,
        "the archive knows the timelines {}; recovery will follow timeline {}",
        known.join(", "),
        judged.way.followed
    );
    let streams = ["restore_command", "primary_conninfo"];
    let wal_source = if streams.iter().any(|name| setting(&lines, name).is_some()) {
        WalSource::Elsewhere
    } else {
        options.wal_source
    };
    let lacking = way::look_for_wal(archive, source, &judged, wal_source).await?;
    let way = raised::Way {
        begins: source.name.segment(),
        followed: judged.followed(source).cloned(),
        size: source.segment_size(archive).await?,
        until: match &target {
            RecoveryTargetKind::Lsn(lsn) => Some(*lsn),
            RecoveryTargetKind::Immediate => Some(judged.consistent_at),
            _ => None,
        },
    };
    let mut warnings = judged.way.warnings;
    warnings.extend(lacking);
    Ok(RecoveryPlan {
        lines,
        configuration,
        way: Some(way),
        warnings,
    })
}

/// Configuration first, recovery settings last: the other way round a `postgresql.auto.conf` of the operator's would
/// undo them.
fn finishing(
    options: &RestoreClusterOptions,
    plan: RecoveryPlan,
    prepared: &Prepared,
    listener: raised::Listener,
) -> Finish {
    let restore_command = options.restore_command.clone();
    let authorization = options.authorization.clone();
    let client_note = options.client_note.clone();
    let source = prepared.sources.restored();
    let recorded = source
        .wale()
        .map(|wale| wale.settings.clone())
        .unwrap_or_default();
    let mode = match options.restore_as {
        RestoreAs::Primary => RecoveryMode::Recover,
        RestoreAs::Standby => RecoveryMode::Standby,
    };
    let recorded_major = source.major;
    let owner = prepared.found.owner;
    Box::new(move |target: &Target, control_file: &ControlFile| {
        let major = version_of(recorded_major, control_file)?;
        let path = target.path();
        let (mut notes, mut warnings) = take_configuration(plan.configuration, path, owner)?;
        if let Some(content) = &authorization {
            recovery::write_authorization(path, content, Some(owner)).map_err(|error| {
                OpError::from_cluster(
                    error,
                    format_args!("write the sidecar's token into {}", path.display()),
                )
            })?;
        }
        warnings.extend(stand_ins(path, owner)?);
        let (told, unread) = listener.wait();
        warnings.extend(unread);
        let minimums = minimums(control_file.settings, &recorded, told.settings);
        let settings = RecoverySettings {
            major,
            restore_command,
            target_lines: plan.lines,
            timeline: None,
            mode,
            minimums: Some(minimums),
            preload_libraries: recorded.get("shared_preload_libraries").cloned(),
        };
        let applied = recovery::apply(path, &settings, Some(owner)).map_err(|error| {
            OpError::from_cluster(
                error,
                format_args!("write the recovery settings in {}", path.display()),
            )
        })?;
        notes.extend(client_note);
        notes.extend(notes_about(&applied));
        Ok(Finished {
            notes,
            written: applied.written,
            jobs_held: applied.jobs_held,
            warnings,
        })
    })
}

/// Writes the operator's configuration, or makes the backup's the restored cluster's own. Says what was not taken over, and,
/// as warnings, what will be missing.
fn take_configuration(
    set: Option<ConfigurationSet>,
    path: &Path,
    owner: Owner,
) -> Result<(Vec<String>, Vec<String>)> {
    let failed = |error| {
        OpError::from_cluster(
            error,
            format_args!("write configuration files in {}", path.display()),
        )
    };
    let mut said = Vec::new();
    let is_apart = set.is_some();
    if let Some(set) = set {
        set.write(path, Some(owner)).map_err(failed)?;
        let names: Vec<&str> = set.names().collect();
        tracing::info!(
            files = names.join(" "),
            "configuration copied into the data directory"
        );
        said.extend(set.said);
    }
    said.extend(recovery::own_configuration(path, Some(owner)).map_err(failed)?);
    let recovery::Mended { made, missing } =
        recovery::mend_includes(path, Some(owner)).map_err(failed)?;
    let mut warnings = missing;
    for folder in made {
        let sentence =
            format!("the folder {folder}, which the configuration includes, is made, and is empty");
        // Of a folder that lay apart all files came along; of one in the data directory the backup has nothing.
        if is_apart {
            said.push(sentence);
        } else {
            warnings.push(format!("{sentence}: the backup has nothing of it"));
        }
    }
    Ok((said, warnings))
}

/// The operator's configuration, read before the first write: what is missing or unreadable is reported in time.
async fn configuration(
    archive: &Archive,
    options: &RestoreClusterOptions,
    source: &Source,
    major: MajorVersion,
) -> Result<Option<ConfigurationSet>> {
    let Some(from) = options.configuration_directory.clone() else {
        let Some((origin, mut set)) = source.configuration(archive).await? else {
            return Ok(None);
        };
        set.said.push(format!(
            "the configuration lay in {origin} when the backup was made: it is written into the data directory"
        ));
        return Ok(Some(set));
    };
    let shown = from.display().to_string();
    let set = blocking(move || recovery::read_configuration(&from, major)).await?;
    set.map(Some).map_err(|error| {
        OpError::new(
            Kind::Configuration,
            format!("the configuration in {shown} cannot be taken over"),
        )
        .hint("name a folder that this user can read; nothing was written")
        .remedy(Remedy::ConfigurationFolder)
        .source(error)
    })
}

/// What the user should know about settings that are not recovery's own.
fn notes_about(applied: &recovery::Applied) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(libraries) = &applied.preload_libraries {
        notes.push(format!(
            "the configuration lacks libraries that the backup's server had loaded: shared_preload_libraries = '{libraries}' \
             is written into postgresql.auto.conf"
        ));
    }
    if applied.jobs_held {
        notes.push(jobs_held());
    }
    notes
}

/// A retention job that dropped what is being recovered would run within seconds of the promotion.
fn jobs_held() -> String {
    let setting = recovery::TIMESCALEDB_WORKERS;
    format!(
        "TimescaleDB's background jobs are held until you release them: {setting} = 0 is written into \
         postgresql.auto.conf. Check the data, stop the jobs that must not run (select alter_job(job_id, scheduled => \
         false)), then ALTER SYSTEM RESET {setting} and restart the server"
    )
}

/// A backup of WAL-E's has no configuration files, one of ours none when they lie outside of the data directory.
fn stand_ins(path: &Path, owner: Owner) -> Result<Vec<String>> {
    let written = recovery::write_missing_configuration(path, Some(owner)).map_err(|error| {
        OpError::from_cluster(
            error,
            format_args!("write configuration files in {}", path.display()),
        )
    })?;
    if written.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "the backup has no {}: files with PostgreSQL's defaults stand in; put your own in their place, or in \
         PGCONF_BACKUP_DIR before a restore",
        written.join(", ")
    )])
}

/// The largest of what the control file, the sentinel and the archive's WAL say: recovery comes to each of them.
fn minimums(
    settings: EnforcedSettings,
    recorded: &BTreeMap<String, String>,
    told: Option<EnforcedSettings>,
) -> EnforcedSettings {
    let of = |name: &str| {
        recorded
            .get(name)
            .and_then(|value| value.parse::<i32>().ok())
    };
    let raised = |value: i32, name: &str| value.max(of(name).unwrap_or(value));
    let recorded = EnforcedSettings {
        max_connections: raised(settings.max_connections, "max_connections"),
        max_worker_processes: raised(settings.max_worker_processes, "max_worker_processes"),
        max_wal_senders: settings
            .max_wal_senders
            .map(|senders| raised(senders, "max_wal_senders")),
        max_prepared_transactions: raised(
            settings.max_prepared_transactions,
            "max_prepared_transactions",
        ),
        max_locks_per_transaction: raised(
            settings.max_locks_per_transaction,
            "max_locks_per_transaction",
        ),
        wal_level: settings.wal_level,
    };
    told.map_or(recorded, |told| recorded.larger(told))
}

#[cfg(test)]
mod tests {
    use super::super::options::RestoreOptions;
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
