//! A restore that was planned and not begun: what it will do is known and can be shown, and nothing is written yet.
//!
//! The sidecar's RESTORE and `wale restore` both go through here, so what one refuses or says, the other does.

use chrono::SecondsFormat;
use wale_archive::{Archive, BackupSelector};
use wale_cluster::RestoreRequest;
use wale_cluster::recovery::{self, ConfigurationSet, RecoveryMode};
use wale_format::RehearsalRecord;
use wale_pg::{MajorVersion, RecoveryTargetKind};
use wale_pipeline::{CancellationToken, Progress};

use super::addition::checked_addition;
use super::aim::{Aim, setting};
use super::configure::{PlannedConfiguration, configuration, finishing};
use super::marker::{MarkerAtEnd, request};
use super::options::{RestoreAs, RestoreClusterOptions, WalSource};
use super::outlook::{self, PlannedWal, Reach};
use super::prepare::{Prepared, prepare};
use super::raised;
use super::report::{self, FollowedTimelines, PlannedRecovery, RestorePlan, RestoreReport};
use super::run::Restore;
use super::source::Source;
use super::target::check_configuration;
use super::way;
use crate::error::{Declined, Kind, OpError, Result};

/// The first major version that does not promote where the archive ends before the target.
const INSISTS_SINCE: u32 = 13;

/// A restore that may begin.
pub struct PlannedRestore {
    /// What it will do.
    pub plan: RestorePlan,
    prepared: Prepared,
    configuration: PlannedConfiguration,
    /// The way that the recovery goes, where it is known.
    way: Option<raised::Way>,
}

impl std::fmt::Debug for PlannedRestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedRestore")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// Looks at everything that decides a restore, and refuses what can be refused. Writes nothing.
///
/// # Errors
///
/// As [`super::restore_cluster`], before it writes.
pub async fn plan_restore(
    archive: &Archive,
    options: &RestoreClusterOptions,
    progress: &Progress,
) -> Result<PlannedRestore> {
    let mut prepared = prepare(archive, &options.fetch, progress).await?;
    let source = prepared.sources.restored();
    let major = version(source)?;
    let lines = checked_addition(&options.fetch.recovery_addition, major)?;
    refuse_reaching_out(options, &lines)?;
    recovery::check_command(&options.restore_command)
        .map_err(|error| OpError::from_cluster(error, "write the recovery settings"))?;
    let files = configuration(archive, options, source, major).await?;
    let recovery = plan_recovery(archive, options, source, &lines).await;
    let recovery = recovery.map_err(|error| match error.kind {
        Kind::CorruptData | Kind::Configuration => error.declined(Declined::Unreachable),
        _ => error,
    })?;
    let target = Aim::of_lines(&lines).kind;
    refuse_future(archive, options, &target, recovery.wal.as_ref())?;
    prepared.notes.extend(options.client_note.clone());
    prepared.warnings.extend(recovery.warnings);
    prepared
        .warnings
        .extend(not_reached(options, major, recovery.wal.as_ref()));
    let recorded = prepared.sources.restored().wale();
    let libraries = recorded.and_then(|wale| wale.settings.get("shared_preload_libraries"));
    let described = described(options, &lines, major, libraries.map(String::as_str))?;
    // Last, for it reads the whole directory.
    prepared.compare(archive, &options.fetch, progress).await?;
    let rehearsed = rehearsed(archive, &prepared).await;
    let mut plan = report::plan(&prepared, &options.fetch, target, rehearsed.as_ref())?;
    plan.why = why(
        &options.fetch.selector,
        &plan.target,
        recovery.timelines.as_ref(),
    );
    plan.timelines = recovery.timelines;
    plan.wal = recovery.wal;
    plan.recovery = described;
    Ok(PlannedRestore {
        plan,
        prepared,
        configuration: PlannedConfiguration { lines, files },
        way: recovery.way,
    })
}

/// What the last rehearsal with the backup found: it says how long this will take, and is no need.
async fn rehearsed(archive: &Archive, prepared: &Prepared) -> Option<RehearsalRecord> {
    let name = &prepared.sources.restored().name;
    let read = archive.rehearsed(name).await;
    read.unwrap_or_else(|error| {
        tracing::debug!(backup = %name, "what its rehearsal measured is not known: {}", error.chain());
        None
    })
}

impl PlannedRestore {
    /// Says in the log what will be done, as far as it is no line of its own later.
    pub(super) fn tell(&self) {
        let plan = &self.plan;
        if let Some(timelines) = &plan.timelines {
            let known: Vec<String> = timelines.known.iter().map(ToString::to_string).collect();
            tracing::info!(
                backup = %plan.files.backup,
                backup_timeline = %plan.files.timeline,
                followed = %timelines.followed,
                "the archive knows the timelines {}; recovery will follow timeline {}",
                known.join(", "),
                timelines.followed
            );
        }
        let wal = plan.wal.as_ref();
        tracing::info!(
            backup = %plan.files.backup,
            wal_segments = wal.map(|wal| wal.segments),
            wal_until = wal.and_then(|wal| wal.last).map(|last| last.to_string()),
            newest_commit = wal
                .and_then(|wal| wal.newest_commit)
                .map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            estimated_seconds = plan.estimate.map(|estimate| estimate.duration.as_secs()),
            "the plan of the restore: {}",
            plan.why
        );
    }

    /// Restores. From its first write on a failure leaves the marker of a half-done restore.
    ///
    /// # Errors
    ///
    /// As [`super::run`].
    pub async fn run(
        self,
        archive: &Archive,
        options: &RestoreClusterOptions,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<RestoreReport> {
        let Self {
            prepared,
            configuration,
            way,
            ..
        } = self;
        let request = cluster_request(archive, options);
        let read_later = read_later(prepared.sources.restored(), configuration.files.as_ref())?;
        let (reader, listener) = raised::channel();
        let own = finishing(options, configuration, &prepared, listener);
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
        tokio::select! {
            report = work => report,
            () = reading => Err(OpError::internal("a restore lost its work")),
        }
    }
}

/// What is asked for, as the marker keeps it.
pub(super) fn cluster_request(
    archive: &Archive,
    options: &RestoreClusterOptions,
) -> RestoreRequest {
    let mut request = request(archive, &options.fetch);
    request.restore_as = match options.restore_as {
        RestoreAs::Primary => "recover".to_owned(),
        RestoreAs::Standby => "standby".to_owned(),
    };
    request
        .recovery_addition
        .clone_from(&options.fetch.recovery_addition);
    if options.rehearsal.is_some() {
        request.mark_rehearsal();
    }
    request
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

/// Why it is this backup.
fn why(
    selector: &BackupSelector,
    target: &RecoveryTargetKind,
    timelines: Option<&FollowedTimelines>,
) -> String {
    if let BackupSelector::Name(_) = selector {
        return "it was named".to_owned();
    }
    let leads = match timelines {
        Some(timelines) => format!("leads to timeline {}", timelines.followed),
        None => "can be restored".to_owned(),
    };
    match target {
        RecoveryTargetKind::Time(_) | RecoveryTargetKind::Lsn(_) => {
            format!("the newest whole backup that ends before the target and {leads}")
        }
        _ => format!("the newest whole backup that {leads}"),
    }
}

/// What a copy beside production must not do: stream from a server, take up its slot, run a command that may reach it.
const REACHING_OUT: [&str; 4] = [
    "primary_conninfo",
    "primary_slot_name",
    "archive_cleanup_command",
    "recovery_end_command",
];

fn refuse_reaching_out(options: &RestoreClusterOptions, lines: &[(String, String)]) -> Result<()> {
    let named = |name: &&&str| setting(lines, name).is_some();
    let Some(name) = REACHING_OUT
        .iter()
        .find(named)
        .filter(|_| options.rehearsal.is_some())
    else {
        return Ok(());
    };
    Err(OpError::new(
        Kind::Configuration,
        format!("a rehearsal cannot have {name}: it must not reach production"),
    )
    .hint("take it out of the added recovery settings, or restore without a rehearsal"))
}

fn version(source: &Source) -> Result<MajorVersion> {
    source.major.ok_or_else(|| {
        OpError::new(
            Kind::CorruptData,
            format!(
                "the version of the server of backup {} is not recorded",
                source.name
            ),
        )
        .hint("restore it with backup-fetch and write the recovery settings yourself")
    })
}

/// How the restored cluster will recover.
#[derive(Default)]
struct RecoveryWay {
    /// The way that the recovery goes, where it is known.
    way: Option<raised::Way>,
    timelines: Option<FollowedTimelines>,
    wal: Option<PlannedWal>,
    warnings: Vec<String>,
}

/// Judges the timelines and looks for the WAL, before the first write.
async fn plan_recovery(
    archive: &Archive,
    options: &RestoreClusterOptions,
    source: &Source,
    lines: &[(String, String)],
) -> Result<RecoveryWay> {
    let target = Aim::of_lines(lines).kind;
    let Some(judged) = way::judge(archive, source, lines).await? else {
        return Ok(RecoveryWay::default());
    };
    let streams = ["restore_command", "primary_conninfo"];
    let wal_source = if streams.iter().any(|name| setting(lines, name).is_some()) {
        WalSource::Elsewhere
    } else {
        options.wal_source
    };
    let until = judged.until(&target);
    let looked = way::look_for_wal(archive, source, &judged, wal_source, until).await?;
    let wal = outlook::look(archive, source, &judged, &looked, &target).await?;
    let way = raised::Way {
        begins: source.name.segment(),
        followed: judged.followed(source).cloned(),
        size: source.segment_size(archive).await?,
        until,
    };
    let timelines = FollowedTimelines {
        followed: judged.way.followed,
        known: judged.way.known,
    };
    let mut warnings = judged.way.warnings;
    warnings.extend(looked.warnings);
    Ok(RecoveryWay {
        way: Some(way),
        timelines: Some(timelines),
        wal: Some(wal),
        warnings,
    })
}

/// Refuses a time that has not come: nobody means it, and a server that ends with an error tells so only after the restore. A
/// standby waits for it.
fn refuse_future(
    archive: &Archive,
    options: &RestoreClusterOptions,
    target: &RecoveryTargetKind,
    wal: Option<&PlannedWal>,
) -> Result<()> {
    let (RecoveryTargetKind::Time(text), RestoreAs::Primary) = (target, options.restore_as) else {
        return Ok(());
    };
    let now = archive.clock().now();
    if recovery::instant(text).is_none_or(|moment| moment <= now) {
        return Ok(());
    }
    let newest = wal.and_then(|wal| wal.newest_commit);
    let newest = newest.map_or_else(String::new, |time| {
        format!(
            " The newest commit in the archive is of {}.",
            outlook::shown(time)
        )
    });
    Err(OpError::new(
        Kind::Configuration,
        format!("the target time {text} lies in the future"),
    )
    .detail(format!(
        "It is {} now.{newest}",
        outlook::shown(now)
    ))
    .hint("choose an earlier time and look at its zone, or name no target: then recovery goes to the end of the archive"))
}

/// A sentence about a target that the archive does not reach.
fn not_reached(
    options: &RestoreClusterOptions,
    major: MajorVersion,
    wal: Option<&PlannedWal>,
) -> Option<String> {
    let wal = wal?;
    let Reach::NotReached(why) = &wal.reach else {
        return None;
    };
    // A gap has a warning of its own.
    if wal.gap.is_some() || options.restore_as == RestoreAs::Standby {
        return None;
    }
    let then = if major.get() >= INSISTS_SINCE {
        "the server ends with an error where the WAL ends"
    } else {
        "the server promotes where the WAL ends"
    };
    Some(format!(
        "the target is beyond the archive: {why}; {then}, unless more WAL is archived until then"
    ))
}

/// What will be written for the recovery, as far as it does not depend on the configuration that comes with the files.
fn described(
    options: &RestoreClusterOptions,
    lines: &[(String, String)],
    major: MajorVersion,
    libraries: Option<&str>,
) -> Result<PlannedRecovery> {
    let mode = match options.restore_as {
        RestoreAs::Primary => RecoveryMode::Recover,
        RestoreAs::Standby => RecoveryMode::Standby,
    };
    let steering = recovery::steering(&options.restore_command, lines, mode, major)
        .map_err(|error| OpError::from_cluster(error, "write the recovery settings"))?;
    let besides = options
        .rehearsal
        .map(|rehearsal| rehearsal.settings(major, libraries))
        .unwrap_or_default();
    Ok(PlannedRecovery {
        steering,
        besides,
        files: recovery::written_files(mode, major),
    })
}
