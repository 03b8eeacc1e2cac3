//! What a restore writes into the data directory beside the backup's files: the operator's configuration, then the recovery
//! settings. Sync, but for what is read beforehand.

use std::collections::BTreeMap;
use std::path::Path;

use wale_archive::{Archive, Remedy};
use wale_cluster::recovery::{self, ConfigurationSet, RecoveryMode, RecoverySettings};
use wale_cluster::{Owner, Secret};
use wale_pg::{ControlFile, EnforcedSettings, MajorVersion};
use wale_pipeline::blocking;

use super::finish::{Finish, Finished};
use super::options::{RestoreAs, RestoreClusterOptions};
use super::prepare::Prepared;
use super::raised;
use super::source::{Source, version_of};
use super::target::Target;
use crate::error::{Kind, OpError, Result};

/// What will be written.
pub(super) struct PlannedConfiguration {
    /// The recovery settings that the user adds, checked.
    pub(super) lines: Vec<(String, String)>,
    /// The operator's configuration files.
    pub(super) files: Option<ConfigurationSet>,
}

/// Configuration first, recovery settings last: the other way round a `postgresql.auto.conf` of the operator's would
/// undo them.
pub(super) fn finishing(
    options: &RestoreClusterOptions,
    plan: PlannedConfiguration,
    prepared: &Prepared,
    listener: raised::Listener,
) -> Finish {
    let restore_command = options.restore_command.clone();
    let secrets = CommandFiles::of(options);
    let rehearsal = options.rehearsal;
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
        let (mut notes, mut warnings) = take_configuration(plan.files, path, owner)?;
        secrets.write(path, owner)?;
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
            rehearsal,
        };
        let applied = recovery::apply(path, &settings, Some(owner)).map_err(|error| {
            OpError::from_cluster(
                error,
                format_args!("write the recovery settings in {}", path.display()),
            )
        })?;
        notes.extend(notes_about(&applied));
        Ok(Finished {
            notes,
            written: applied.written,
            jobs_held: applied.jobs_held,
            warnings,
        })
    })
}

/// The files from which `restore_command` takes secrets.
struct CommandFiles {
    authorization: Option<Secret>,
    archive_settings: Option<Secret>,
}

impl CommandFiles {
    fn of(options: &RestoreClusterOptions) -> Self {
        Self {
            authorization: options.authorization.clone(),
            archive_settings: options.archive_settings.clone(),
        }
    }

    fn write(&self, path: &Path, owner: Owner) -> Result<()> {
        let failed = |error, what: &str| {
            OpError::from_cluster(error, format_args!("write {what} into {}", path.display()))
        };
        if let Some(content) = &self.authorization {
            recovery::write_authorization(path, content, Some(owner))
                .map_err(|error| failed(error, "the sidecar's token"))?;
        }
        if let Some(content) = &self.archive_settings {
            recovery::write_settings(path, content, Some(owner))
                .map_err(|error| failed(error, "the archive's settings"))?;
        }
        Ok(())
    }
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
pub(super) async fn configuration(
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
pub(super) fn jobs_held() -> String {
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
