//! `rehearse`: a restore into a scratch folder, its copy started and looked at, what was found recorded in the archive. Then
//! everything goes.
//!
//! It puts two operations together: the restore (`backup_fetch`), and the trial of its copy (`rehearse`).

mod report;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use wale_cluster::Owner;
use wale_cluster::recovery::{Rehearsal, SHARED_BUFFERS};
use wale_cluster::trial::Programs;
use wale_format::RehearsalRecord;
use wale_ops::backup_fetch::{
    self, BackupSelector, MissingLibraries, PlannedRestore, RestoreAs, RestoreClusterOptions,
    RestorePlan, RestoreReport,
};
use wale_ops::readers::Readers;
use wale_ops::rehearse::{
    self, Dice, Findings, Fingerprint, LeftOut, RehearseOptions, RestoredCopy, ScratchFolder,
    random_moment,
};
use wale_ops::{Archive, BackupName, Kind, OpError};
use wale_pg::{MajorVersion, RecoveryTargetKind};
use wale_pipeline::{CancellationToken, Progress, blocking};

use self::report::Rehearsed;
use super::print::print;
use super::restore::{Said, absolute, in_flags, tell};
use crate::assemble::{self, ClusterRequest, VERSION};
use crate::bounds::Bounds;
use crate::cli::{RehearseArguments, WalFrom, Without};
use crate::config::{Group, Loaded, Settings, TargetAction, declared};
use crate::progress::watch;
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// How long recovery and checks may take together unless somebody says otherwise.
const LIMIT: Duration = Duration::from_hours(24);
/// The exit status of a rehearsal that found something.
const FOUND_SOMETHING: u8 = 1;
/// The port in what is written for the copy. Its command line opens none.
const NO_PORT: u16 = 5432;

/// What a rehearsal works with.
#[derive(Clone, Copy)]
struct Drill<'a> {
    archive: &'a Archive,
    /// All archives, of which one keeps the record.
    readers: &'a Readers,
    settings: &'a Settings,
    arguments: &'a RehearseArguments,
    scratch: &'a ScratchFolder,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

/// What is to be restored.
struct Chosen {
    planned: PlannedRestore,
    options: RestoreClusterOptions,
    programs: Programs,
    major: MajorVersion,
    seed: Option<u64>,
}

/// Runs the verb.
pub(crate) fn run(
    arguments: &RehearseArguments,
    loaded: &Loaded,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    refuse_root()?;
    if arguments.has_too_many_files() {
        let error = OpError::new(Kind::Usage, "a rehearsal takes 16 files of SQL at most");
        return Err(error.hint("put them together with \\i").into());
    }
    let settings = loaded.require(&[Group::Archive, Group::Cluster, Group::Wal, Group::Restore])?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let readers = assemble::readers(loaded, &archive)?;
    let path = absolute(&arguments.scratch)?;
    let work = readers.read("the rehearsal", async |archive: Archive| {
        rehearse(&readers, &archive, settings, arguments, path.clone(), bar).await
    });
    let workers = settings.get(&declared::WALE_RESTORE_WORKERS);
    let done = runtime::large(workers)?.block_on(work).map_err(in_flags)?;
    print(&if arguments.json {
        show::json(&done)
    } else {
        show::found(&done)
    })?;
    match done.record.failure() {
        None => Ok(()),
        Some(check) => {
            let message = format!(
                "the rehearsal of backup {} failed: {}",
                done.plan.files.backup, check.name
            );
            let error = OpError::new(Kind::CorruptData, message).hint(show::what_to_do(check));
            Err(Failure::with_status(error, FOUND_SOMETHING))
        }
    }
}

/// PostgreSQL does not run as root.
fn refuse_root() -> Result<(), OpError> {
    if Owner::of_process().uid != 0 {
        return Ok(());
    }
    Err(OpError::new(
        Kind::PermissionDenied,
        "a rehearsal starts a server, and PostgreSQL does not run as root",
    )
    .hint("run it as the server's user, as in: runuser -u postgres -- wale rehearse …"))
}

async fn rehearse(
    readers: &Readers,
    archive: &Archive,
    settings: &Settings,
    arguments: &RehearseArguments,
    path: PathBuf,
    bar: &ProgressBar,
) -> Result<Rehearsed, OpError> {
    let (signals, cancel) = (Signals::listen()?, CancellationToken::new());
    let scratch = blocking(move || ScratchFolder::take(&path)).await??;
    let progress = Progress::new();
    let drill = Drill {
        archive,
        readers,
        settings,
        arguments,
        scratch: &scratch,
        progress: &progress,
        cancel: &cancel,
    };
    // Boxed: the work's own state is tens of kilobytes.
    let work = watch(bar, &progress, Box::pin(drill.run()));
    let done = signals.cancel(&cancel, work).await;
    let keep = arguments.keep && done.is_ok();
    let ended = blocking(move || {
        if keep {
            scratch.keep()
        } else {
            scratch.give_back()
        }
    });
    if let Err(error) = ended.await? {
        tracing::warn!("the scratch folder was not cleared: {}", error.chain());
    }
    done
}

impl Drill<'_> {
    async fn run(self) -> Result<Rehearsed, OpError> {
        let began = self.archive.clock().now();
        let mut meant = None;
        let chosen = match self.choose(began, &mut meant).await {
            Ok(chosen) => chosen,
            Err(error) => {
                self.note_refused(began, meant, &error).await;
                return Err(error);
            }
        };
        let plan = chosen.planned.plan.clone();
        let mut record = RehearsalRecord::begun(began, super::restore::show::end(&plan));
        record.seed = chosen.seed;
        VERSION.clone_into(&mut record.wale_version);
        record.postgres_version.clone_from(&chosen.programs.version);
        record.host.clone_from(&chosen.options.host_name);
        if !self.arguments.json {
            let shown = show::plan(&plan, &record);
            print(&shown).map_err(|failure| failure.error)?;
        }
        let options = self.options(&chosen);
        let copy = RestoredCopy {
            places: self.scratch.places(),
            major: chosen.major,
            target: plan.target.clone(),
            newest_commit: newest_commit(&plan),
        };
        let report = match self.restore(chosen).await {
            Ok(report) => report,
            Err(error) => {
                if is_finding(error.kind) {
                    let findings = Findings::not_restored(error.chain());
                    self.note(&plan.files.backup, &findings, &mut record).await;
                }
                return Err(error);
            }
        };
        let millis = u64::try_from(report.duration.as_millis());
        record.restore_milliseconds = Some(millis.unwrap_or(u64::MAX));
        let findings = rehearse::run(&copy, &options, self.progress, self.cancel).await?;
        let not_recorded = self.note(&plan.files.backup, &findings, &mut record).await;
        Ok(Rehearsed {
            plan,
            record,
            last_lines: findings.last_lines,
            not_recorded,
        })
    }

    /// What is restored, and to where. `meant` is the backup, as soon as it is known.
    async fn choose(
        self,
        now: DateTime<Utc>,
        meant: &mut Option<BackupName>,
    ) -> Result<Chosen, OpError> {
        let seed = self.seed(now);
        let mut dice = Dice::new(seed.unwrap_or_default());
        let selector = self.selector(&mut dice).await?;
        if let BackupSelector::Name(name) = &selector {
            *meant = Some(name.clone());
        }
        let mut options = self.restore_options(selector, None)?;
        options.fetch.missing_libraries = MissingLibraries::Warn;
        let planned = self.plan(&options).await?;
        let files = &planned.plan.files;
        *meant = Some(files.backup.clone());
        let major = files.major.ok_or_else(|| {
            let message = format!(
                "the version of the server of backup {} is not recorded",
                files.backup
            );
            OpError::new(Kind::CorruptData, message)
        })?;
        let programs = Programs::find(self.arguments.bin_dir.as_deref(), major).await;
        let programs =
            programs.map_err(|error| OpError::from_cluster(error, "find the server's programs"))?;
        self.check_psql(&programs)?;
        let moment = if self.arguments.random {
            // Also where a gap lies behind it.
            let newest = planned.plan.wal.as_ref().and_then(|wal| wal.newest_commit);
            random_moment(files.ended, newest, &mut dice)
        } else {
            None
        };
        if self.arguments.random && moment.is_none() {
            tracing::info!(
                "nothing was committed after the backup: the rehearsal recovers to the end of the archive"
            );
        }
        // The second plan is of this very backup, and knows the libraries of the server that will run.
        let name = BackupSelector::Name(files.backup.clone());
        let moment = moment.map(super::restore::show::time);
        let mut options = self.restore_options(name, moment.as_deref())?;
        options.fetch.libraries = programs.libraries().await;
        let why = planned.plan.why;
        let mut planned = self.plan(&options).await?;
        planned.plan.why = why;
        Ok(Chosen {
            planned,
            options,
            programs,
            major,
            seed,
        })
    }

    async fn plan(self, options: &RestoreClusterOptions) -> Result<PlannedRestore, OpError> {
        Box::pin(backup_fetch::plan_restore(
            self.archive,
            options,
            self.progress,
        ))
        .await
    }

    /// The seed, where anything is chosen at random.
    fn seed(self, now: DateTime<Utc>) -> Option<u64> {
        let is_random = self.arguments.random || self.arguments.backup.as_deref() == Some(RANDOM);
        let other = || now.timestamp_micros().unsigned_abs();
        is_random.then(|| self.arguments.seed.unwrap_or_else(other))
    }

    async fn selector(self, dice: &mut Dice) -> Result<BackupSelector, OpError> {
        match self.arguments.backup.as_deref() {
            None => Ok(BackupSelector::Latest),
            Some(RANDOM) => {
                let catalog = self.archive.catalog().await?;
                let count = catalog.backups.len();
                let index = dice.below(u64::try_from(count).unwrap_or(u64::MAX));
                let index = usize::try_from(index).unwrap_or_default();
                let entry = catalog.backups.get(index).ok_or_else(|| {
                    OpError::new(Kind::NotFound, "there is no base backup in the archive")
                        .hint("take one")
                })?;
                Ok(BackupSelector::Name(entry.name.clone()))
            }
            Some(name) => name.parse().map_err(|problem: String| {
                OpError::new(Kind::Usage, problem)
                    .hint("write LATEST, RANDOM or a name that backup-list prints")
            }),
        }
    }

    fn restore_options(
        self,
        selector: BackupSelector,
        moment: Option<&str>,
    ) -> Result<RestoreClusterOptions, OpError> {
        let arguments = self.arguments;
        let said = Said {
            time: moment.or(arguments.to_time.as_deref()),
            lsn: arguments.to_lsn.as_deref(),
            name: arguments.to_name.as_deref(),
            xid: arguments.to_xid.as_deref(),
            timeline: arguments.timeline.as_deref(),
            immediate: arguments.immediate,
            latest: arguments.latest,
            exclusive: arguments.exclusive,
            // At the end of recovery it is looked at, and what looks must be able to write.
            action: Some(TargetAction::Promote),
        };
        let request = ClusterRequest {
            directory: self.scratch.data(),
            selector,
            restore_as: RestoreAs::Primary,
            goal: said.items(),
            wal_from: WalFrom::Archive,
            // A command of the settings leads to a sidecar, as a rule, which a rehearsal does without.
            restore_command: None,
            rehearsal: Some(Rehearsal {
                port: NO_PORT,
                shared_buffers: self.shared_buffers(),
            }),
        };
        let mut options = assemble::restore_cluster(self.settings, request)?;
        // Nothing is written outside of the scratch folder.
        options.fetch.tablespace_mapping.clear();
        options.fetch.tablespaces_below = Some(self.scratch.tablespaces());
        options.fetch.pg_wal_link = None;
        options.fetch.missing_libraries = MissingLibraries::Refuse;
        Ok(options)
    }

    fn shared_buffers(self) -> u64 {
        self.arguments.shared_buffers.unwrap_or(SHARED_BUFFERS)
    }

    fn check_psql(self, programs: &Programs) -> Result<(), OpError> {
        let wants = !self.arguments.sql.is_empty() || self.arguments.fingerprint.is_some();
        if !wants || programs.has("psql") {
            return Ok(());
        }
        let folder = programs.folder.display();
        Err(OpError::new(
            Kind::Configuration,
            format!("{folder} has no psql, by which SQL and fingerprint run"),
        )
        .hint("name a folder that has it, or leave them out"))
    }

    fn options(self, chosen: &Chosen) -> RehearseOptions {
        let (arguments, settings) = (self.arguments, self.settings);
        let control_database = settings.get(&declared::PGDATABASE);
        let database = arguments.database.clone();
        let fingerprint = arguments.fingerprint.clone();
        RehearseOptions {
            programs: chosen.programs.clone(),
            home: settings.home().map(std::path::Path::to_path_buf),
            user: settings.get(&declared::PGUSER),
            database: database.unwrap_or_else(|| control_database.clone()),
            control_database,
            shared_buffers: self.shared_buffers(),
            limit: arguments.timeout.unwrap_or(LIMIT),
            sql: arguments
                .sql
                .iter()
                .map(|path| absolute(path).unwrap_or_else(|_| path.clone()))
                .collect(),
            fingerprint: fingerprint.map(|sql| Fingerprint {
                sql,
                expected: arguments.expect.clone(),
            }),
            left_out: arguments.without.iter().copied().map(left_out).collect(),
        }
    }

    async fn restore(self, chosen: Chosen) -> Result<RestoreReport, OpError> {
        let Chosen {
            planned, options, ..
        } = chosen;
        let notes = planned.plan.files.notes.clone();
        let work = planned.run(self.archive, &options, self.progress, self.cancel);
        let report = Box::pin(work).await?;
        tell(&report, &notes);
        Ok(report)
    }

    /// Records that there is no restore to plan, with the backup that was meant, otherwise with the newest. What somebody wrote and
    /// the archive never had is none of the archive's faults.
    async fn note_refused(self, began: DateTime<Utc>, meant: Option<BackupName>, error: &OpError) {
        let is_own = error.kind == Kind::CorruptData || !self.arguments.names_target();
        if !is_finding(error.kind) || !is_own {
            return;
        }
        let backup = match meant {
            Some(backup) => backup,
            None => match self.archive.catalog().await {
                Ok(catalog) => match catalog.backups.last() {
                    Some(newest) => newest.name.clone(),
                    None => return,
                },
                Err(error) => {
                    return tracing::warn!("the rehearsal is not recorded: {}", error.chain());
                }
            },
        };
        let mut record = RehearsalRecord::begun(began, self.goal().to_owned());
        record.seed = self.seed(began);
        VERSION.clone_into(&mut record.wale_version);
        let findings = Findings::not_restored(error.chain());
        self.note(&backup, &findings, &mut record).await;
    }

    /// Where a recovery was to end of which there is no plan, in words.
    fn goal(self) -> &'static str {
        let arguments = self.arguments;
        if arguments.names_target() {
            "the target that was named"
        } else if arguments.immediate {
            "the end of the base backup"
        } else if arguments.random {
            "a random moment"
        } else {
            "the end of the archive"
        }
    }

    /// Puts what was found into the record, and that into the archive. A record that cannot be stored is no failure of the
    /// rehearsal; says why it could not.
    async fn note(
        self,
        backup: &BackupName,
        findings: &Findings,
        record: &mut RehearsalRecord,
    ) -> Option<String> {
        findings.fill(record);
        record.ended = self.archive.clock().now();
        let stored = async {
            let keeper = self.readers.keeper(self.archive, backup).await?;
            keeper.note_rehearsal(backup, record.clone()).await
        };
        let error = stored.await.err()?;
        tracing::warn!(
            "the rehearsal is not recorded in the archive: {}",
            error.chain()
        );
        Some(error.chain())
    }
}

/// The word for a backup that the dice choose.
const RANDOM: &str = "RANDOM";

fn left_out(without: Without) -> LeftOut {
    match without {
        Without::Amcheck => LeftOut::Amcheck,
        Without::Checksums => LeftOut::Checksums,
    }
}

/// Whether a restore that failed so says something about the archive.
fn is_finding(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CorruptData | Kind::NotFound | Kind::ArchiveMismatch
    )
}

/// The newest commit that a recovery to the end must come to. One before the end of the backup may lie before the place from which
/// it replays.
fn newest_commit(plan: &RestorePlan) -> Option<DateTime<Utc>> {
    let wal = plan.wal.as_ref()?;
    let is_wanted = plan.target == RecoveryTargetKind::Latest && wal.gap.is_none();
    let replayed = |commit: &DateTime<Utc>| is_wanted && *commit > plan.files.ended;
    wal.newest_commit.filter(replayed)
}
