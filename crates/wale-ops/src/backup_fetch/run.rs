//! The straight line of a restore. What may be refused stands in `plan`.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use wale_cluster::{
    Owner, RestoreMarker, RestoreRequest, RestoreState, restore_marker, text_of_path,
};
use wale_pg::{MajorVersion, RecoveryTargetKind};
use wale_pipeline::{CancellationToken, Progress, blocking};
use wale_storage::ObjectKey;

use super::aim::Aim;
use super::extract::{Extraction, FOREIGN_DIRECTORIES_MAX, Limits, WORKER_BYTES};
use super::finish::{Finish, Finished};
use super::held::{HeldDirectory, check_own};
use super::ledger::{Carrier, lacks};
use super::options::{MissingTablespace, Options};
use super::plan::{self, Begin};
use super::report::{Preview, RestoreReport};
use super::source::Source;
use super::tablespaces::{self, NamedBy, PlannedTablespace};
use super::target::{Target, WalPlace};
use super::way::check_unwritten;
use super::whole::Whole;
use super::wipe::Wiped;
use super::{facts, libraries, lost, places, wipe};
use crate::archive::Archive;
use crate::archive::member_list::Keep;
use crate::archive::parts::StoredPart;
use crate::error::{Kind, OpError, Result};
use crate::retry::{Attempts, RetryBudget};

/// A foreign backup may hold more than its sentinel says by what its tool does not count: twice and 1 GiB.
const FOREIGN_SLACK_BYTES: u64 = 1 << 30;

/// Restores the files of a base backup into an empty directory. Writes no recovery settings: the caller decides how
/// the cluster recovers.
///
/// # Errors
///
/// [`Kind::NotEmpty`], [`Kind::DiskFull`], [`Kind::NotFound`], [`Kind::PermissionDenied`], [`Kind::Usage`] and
/// [`Kind::CorruptData`] before anything is written, and any kind after. A restore that failed after it began leaves a
/// marker and no `global/pg_control`: no server can start on it, and the next restore into it begins anew.
pub async fn run(
    archive: &Archive,
    options: &Options,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport> {
    let request = request(archive, options);
    let mut prepared = prepare(archive, options, progress).await?;
    let told = check_unwritten(archive, &prepared.source, &options.recovery_addition).await?;
    prepared.warnings.extend(told);
    let restore = Restore {
        archive,
        options,
        progress,
        cancel,
        read_later: Vec::new(),
    };
    let finish: Finish = Box::new(|target, _| {
        Ok(Finished {
            warnings: missing_configuration(target.path())?,
            ..Finished::default()
        })
    });
    restore
        .run(prepared, request, "", finish, Ending::RemoveMarker)
        .await
}

/// What [`run`] would do: every check that it makes before the first write, and nothing is written.
///
/// # Errors
///
/// As [`run`] before it writes.
pub async fn preview(archive: &Archive, options: &Options) -> Result<Preview> {
    let mut prepared = prepare(archive, options, &Progress::new()).await?;
    let told = check_unwritten(archive, &prepared.source, &options.recovery_addition).await?;
    prepared.warnings.extend(told);
    let Prepared {
        source,
        tablespaces,
        begin,
        notes,
        warnings,
        ..
    } = prepared;
    Ok(Preview {
        backup: source.name,
        ended: source.ended,
        sentinel: source.sentinel,
        major: source.major,
        timeline: source.timeline,
        partitions: source.parts.len() as u64,
        tablespaces,
        begins_anew: begin == Begin::AfterWiping,
        notes,
        warnings,
    })
}

/// A sentence about the configuration files without which no server starts; WAL-E's backups have none of them.
fn missing_configuration(path: &Path) -> Result<Vec<String>> {
    let missing = wale_cluster::recovery::missing_configuration(path).map_err(|error| {
        OpError::from_cluster(error, format_args!("look at {}", path.display()))
    })?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "the backup has no {}: put them into {} before you start the server, unless it finds them elsewhere",
        missing.join(", "),
        path.display()
    )])
}

/// What is asked for, as the marker keeps it.
pub(super) fn request(archive: &Archive, options: &Options) -> RestoreRequest {
    let mut request = RestoreRequest {
        archive: archive.location(),
        label: options.selector.to_string(),
        restore_as: "none".to_owned(),
        ..RestoreRequest::default()
    };
    for (source, target) in &options.tablespace_mapping {
        request
            .other
            .insert(format!("tablespace {source}"), target.display().to_string());
    }
    request
}

/// What becomes of the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It goes: the directory is the user's.
    RemoveMarker,
    /// It stays and says so: the sidecar must know later.
    MarkDone,
}

/// A restore that may begin.
pub(super) struct Prepared {
    pub(super) source: Source,
    tablespaces: Vec<PlannedTablespace>,
    wal: Option<WalPlace>,
    pub(super) owner: Owner,
    begin: Begin,
    /// The marker that was found.
    earlier: Option<RestoreMarker>,
    /// The directories outside of the restore before, which are cleared first.
    wiped: Wiped,
    /// Sentences that say what was decided.
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Everything that can be refused, in the order in which the reasons matter. Writes nothing.
pub(super) async fn prepare(
    archive: &Archive,
    options: &Options,
    progress: &Progress,
) -> Result<Prepared> {
    progress.set_phase("checking");
    let (target, lock_file) = (options.target.clone(), lock_file_name(options));
    let look = move || {
        HeldDirectory::look(&target)?;
        facts::target(&target, &lock_file)
    };
    let (state, earlier) = blocking(look).await??;
    let begin = plan::judge_target(&options.target, &state)?;
    let (owner, doubt) = facts::owner(options.owner, &options.target)?;
    let aim = Aim::of(&options.recovery_addition);
    let source = Source::load(archive, &options.selector, &aim).await?;
    let (tablespaces, mut warnings) = tablespaces::place_tablespaces(
        &source.tablespaces()?,
        &options.tablespace_mapping,
        &facts::tablespace_links(&options.target),
        &options.target,
    )?;
    warnings.extend(doubt);
    // A restore that is begun anew removes its links, and all that is beside them.
    if begin == Begin::Fresh {
        warnings.extend(facts::links_of_nobody(&options.target, &tablespaces));
    }
    let wal = facts::wal_place(&options.target, options.pg_wal_link.as_deref());

    let wiped = match &earlier {
        Some(marker) if begin == Begin::AfterWiping => Wiped::named_by(marker),
        _ => Wiped::default(),
    };
    plan::check_outside(&outside_of_target(
        options,
        &tablespaces,
        wal.as_ref(),
        &wiped,
    ))?;
    places::check_apart(&options.target, &tablespaces, wal.as_ref())?;
    if begin == Begin::Fresh {
        check_space(options, &source, &tablespaces)?;
    }
    for part in &source.parts {
        if !part.codec.can_read() {
            return Err(OpError::new(
                Kind::Configuration,
                format!(
                    "backup {} is compressed with {}, which this version cannot read yet",
                    source.name, part.codec
                ),
            )
            .hint(
                "use a version of wale that reads this codec, or the tool that made the backup",
            ));
        }
    }
    warnings.extend(source.notes.warnings.iter().cloned());
    warnings.extend(warnings_about(&source, options.pg_wal_link.as_deref()));
    check_unnamed(archive, &source, &tablespaces, owner).await?;
    warnings.extend(lost::history(archive, source.timeline).await?);
    let mut notes = source.notes.notes.clone();
    if let Some(record) = source.wale() {
        let loaded = libraries::Record::of(record);
        notes.extend(libraries::notes(&loaded));
        notes.extend(libraries::jobs_note(&loaded, &aim.kind));
        let question = libraries::Question {
            record: &loaded,
            major: record.major,
            policy: options.missing_libraries,
            ends_with_backup: matches!(aim.kind, RecoveryTargetKind::Immediate),
        };
        warnings.extend(libraries::check(&question)?);
    }
    Ok(Prepared {
        source,
        tablespaces,
        wal,
        owner,
        begin,
        earlier,
        wiped,
        notes,
        warnings,
    })
}

impl Prepared {
    /// The tablespaces' directories that are this restore's own from its marker on, as the marker names them.
    fn outside(&self) -> Vec<String> {
        let spaces = self.tablespaces.iter();
        let places = spaces
            .filter(|space| space.named_by != NamedBy::Itself)
            .map(|space| &space.target);
        let all: BTreeSet<_> = places
            .chain(&self.wiped.tablespaces)
            .map(|p| text_of_path(p))
            .collect();
        all.into_iter().collect()
    }

    /// Likewise the WAL directory, where it is not simply a directory in the target.
    fn wal_directory(&self) -> Option<String> {
        self.wal.as_ref().map(|wal| text_of_path(wal.path()))
    }
}

/// A name that no other attempt has: 64 random bits, in hexadecimal.
fn random_attempt() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// What is to be known of the directories outside that the restore will write into.
fn outside_of_target(
    options: &Options,
    tablespaces: &[PlannedTablespace],
    wal: Option<&WalPlace>,
    wiped: &Wiped,
) -> Vec<plan::OutsideFacts> {
    let mut outside: Vec<plan::OutsideFacts> = Vec::new();
    for space in tablespaces {
        let makes = match space.named_by {
            NamedBy::Request => true,
            NamedBy::Backup => options.missing_tablespace == MissingTablespace::Make,
            NamedBy::Link => false,
            NamedBy::Itself => continue,
        };
        if makes && facts::can_be_made(&space.target) {
            continue;
        }
        outside.push(facts::outside(
            &space.target,
            format!("tablespace {}", space.oid),
            false,
            wiped,
        ));
    }
    if let Some(wal) = wal {
        outside.push(facts::outside(
            wal.path(),
            "the WAL directory".to_owned(),
            true,
            wiped,
        ));
    }
    outside
}

/// Places that the request did not name: see [`tablespaces`].
async fn check_unnamed(
    archive: &Archive,
    source: &Source,
    tablespaces: &[PlannedTablespace],
    owner: Owner,
) -> Result<()> {
    let unnamed = || {
        tablespaces
            .iter()
            .filter(|space| space.named_by == NamedBy::Backup)
    };
    if unnamed().next().is_none() {
        return Ok(());
    }
    let map = source.tablespace_map(archive).await?;
    tablespaces::check_named_alike(tablespaces, map.as_ref())?;
    let mut unnamed = unnamed();
    unnamed.try_for_each(|space| facts::check_owner(space, owner))
}

fn lock_file_name(options: &Options) -> String {
    options.lock_file_name.clone().unwrap_or_default()
}

fn check_space(
    options: &Options,
    source: &Source,
    tablespaces: &[PlannedTablespace],
) -> Result<()> {
    let volumes = facts::volumes(&options.target, tablespaces, &source.needs())?;
    plan::check_space(&volumes)
}

fn warnings_about(source: &Source, pg_wal_link: Option<&Path>) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(wale) = source.wale() else {
        warnings.push(format!(
            "backup {} was not made by wale and has no manifest: its files were not checked against one",
            source.name
        ));
        return warnings;
    };
    if let Some(first) = wale.damaged_pages.first() {
        warnings.push(format!(
            "{} pages were damaged already when the backup was made, the first is block {} of \"{}\"",
            wale.damaged_pages.len(),
            first.block,
            first.path
        ));
    }
    if let (Some(link), None) = (&wale.pg_wal_link, pg_wal_link) {
        warnings.push(format!(
            "pg_wal was a link to \"{link}\" when the backup was made; it is a directory now"
        ));
    }
    warnings
}

/// One restore and what it works with.
pub(super) struct Restore<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    /// The backup's own configuration files that will be read when all files are there.
    pub(super) read_later: Vec<&'static str>,
}

impl Restore<'_> {
    /// Writes. From here on a failure leaves the marker behind.
    pub(super) async fn run(
        &self,
        mut prepared: Prepared,
        request: RestoreRequest,
        host: &str,
        finish: Finish,
        ending: Ending,
    ) -> Result<RestoreReport> {
        let begun = Instant::now();
        self.announce(&prepared);
        let marker = self.marker(&prepared, request, host);
        let target = self.open(&prepared, marker.clone()).await?;
        let extraction = Arc::new(self.extraction(&mut prepared.source, target));
        self.progress.set_phase("restoring files");
        self.place_manifest(&prepared.source, &extraction).await?;
        self.fetch_all(&prepared.source, &extraction).await?;
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        self.check_listed(&prepared.source, &extraction).await?;
        self.progress.set_phase("flushing");
        let prepared = Arc::new(prepared);
        let mut done = RestoreMarker {
            state: RestoreState::Done,
            finished_at: Some(self.archive.clock().now()),
            outside: Vec::new(),
            wal_directory: None,
            ..marker.clone()
        };
        let (whole, parts) = (Arc::clone(&prepared), Arc::clone(&extraction));
        let (control_file, finished) = blocking(move || {
            let whole = Whole {
                extraction: &parts,
                source: &whole.source,
                tablespaces: &whole.tablespaces,
                owner: whole.owner,
                marker: &marker,
            };
            let (control_file, finished) = whole.complete(finish)?;
            done.written.clone_from(&finished.written);
            check_own(parts.target.path(), &marker)?;
            end(&parts.target, &done, ending)?;
            Ok::<_, OpError>((control_file, finished))
        })
        .await??;
        let major = prepared.source.major.or_else(|| control_file.major());
        let major = major.ok_or_else(|| {
            OpError::new(
                Kind::CorruptData,
                "the restored cluster has an unknown version",
            )
        })?;
        self.progress.set_phase("done");
        let mut report = self.report(&prepared, major, extraction.counts());
        report.warnings.extend(finished.warnings);
        report.notes.extend(finished.notes);
        report.jobs_held = finished.jobs_held;
        report.duration = begun.elapsed();
        Ok(report)
    }

    /// Says what will be written where, before the first write.
    fn announce(&self, prepared: &Prepared) {
        let (backup, uid) = (&prepared.source.name, prepared.owner.uid);
        let target = self.options.target.display();
        tracing::info!(%backup, %target, uid, "restoring into the data directory");
        for space in &prepared.tablespaces {
            let (target, named_by) = (space.target.display(), space.named_by);
            tracing::info!(oid = space.oid, %target, %named_by, "restoring a tablespace");
        }
        if let Some(wal) = &prepared.wal {
            tracing::info!(target = %wal.path().display(), "pg_wal leads to a directory of its own");
        }
    }

    fn marker(&self, prepared: &Prepared, request: RestoreRequest, host: &str) -> RestoreMarker {
        RestoreMarker {
            format: restore_marker::FORMAT,
            state: RestoreState::Running,
            request,
            backup: prepared.source.name.to_string(),
            started_at: self.archive.clock().now(),
            finished_at: None,
            host: host.to_owned(),
            wale_version: env!("CARGO_PKG_VERSION").to_owned(),
            written: Vec::new(),
            settled_at: None,
            attempt: random_attempt(),
            outside: prepared.outside(),
            wal_directory: prepared.wal_directory(),
        }
    }

    fn report(
        &self,
        prepared: &Prepared,
        major: MajorVersion,
        (files, bytes): (u64, u64),
    ) -> RestoreReport {
        let source = &prepared.source;
        let damaged = source.wale().map_or(0, |wale| wale.damaged_pages.len());
        let spaces = prepared.tablespaces.iter();
        RestoreReport {
            backup: source.name.clone(),
            target: self.options.target.clone(),
            major,
            timeline: source.timeline,
            start_lsn: source.sentinel.start_lsn(),
            stop_lsn: source.sentinel.stop_lsn(),
            files,
            bytes,
            bytes_stored: source.parts.iter().map(|part| part.size).sum(),
            verified: source.manifest.is_some(),
            damaged_pages: damaged as u64,
            tablespaces: spaces
                .map(|space| (space.oid, space.target.clone()))
                .collect(),
            duration: Duration::ZERO,
            jobs_held: false,
            notes: prepared.notes.clone(),
            warnings: prepared.warnings.clone(),
        }
    }

    /// Marks the target as half done, wipes it where it was that before, and makes what comes before the files.
    async fn open(&self, prepared: &Prepared, marker: RestoreMarker) -> Result<Target> {
        let path = self.options.target.clone();
        let (owner, major, begin) = (prepared.owner, prepared.source.major, prepared.begin);
        let (tablespaces, wal) = (prepared.tablespaces.clone(), prepared.wal.clone());
        let (wiped, earlier) = (prepared.wiped.clone(), prepared.earlier.clone());
        let lock_file = lock_file_name(self.options);
        blocking(move || {
            let failed = |error, path: &PathBuf| {
                OpError::from_cluster(error, format_args!("write {}", path.display()))
            };
            wale_cluster::RestoreTree::create(&path, 0o700, Some(owner))
                .map_err(|error| failed(error, &path))?;
            let held = HeldDirectory::take(&path)?;
            // Another restore may have come and gone since the first look.
            let (state, found) = facts::target(&path, &lock_file)?;
            if plan::judge_target(&path, &state)? != begin || found != earlier {
                return Err(OpError::new(
                    Kind::Busy,
                    format!("another restore began in \"{}\" meanwhile", path.display()),
                )
                .hint("see what it left, and begin this one anew"));
            }
            restore_marker::write(&path, &marker).map_err(|error| failed(error, &path))?;
            if begin == Begin::AfterWiping {
                wipe::wipe(&path, &wiped, &lock_file, owner)?;
            } else {
                wipe::remove_temporary(&path, owner)?;
            }
            let target = Target::open(&path, &tablespaces, wal.as_ref(), major, owner)?;
            let target = target.held_by(held);
            if let Some(major) = major {
                // An image that finds PG_VERSION does not run initdb.
                target.small_file("PG_VERSION", 0o600, format!("{major}\n").as_bytes())?;
            }
            target.make_skeleton(major)?;
            Ok(target)
        })
        .await?
        .and_then(|target| {
            if begin == Begin::AfterWiping {
                check_space(self.options, &prepared.source, &prepared.tablespaces)?;
            }
            Ok(target)
        })
    }

    fn extraction(&self, source: &mut Source, target: Target) -> Extraction {
        let listed = std::mem::take(&mut source.listed);
        let strict = source.manifest.is_some();
        let told = source.sentinel.bytes();
        if let Some(bytes) = told {
            self.progress.set_total(bytes);
        }
        if let Some(manifest) = &source.manifest {
            self.progress.set_total_files(manifest.files);
        }
        let bytes_max = match told {
            Some(bytes) if !strict => bytes.saturating_mul(2).saturating_add(FOREIGN_SLACK_BYTES),
            _ => u64::MAX,
        };
        // wale counted them; a restore keeps nothing of a directory, so no memory has to be bounded.
        let directories_max = source.wale().map_or(FOREIGN_DIRECTORIES_MAX, |wale| {
            let members = wale.partitions.iter().map(|part| part.members);
            members.fold(0, u64::saturating_add)
        });
        let limits = Limits {
            bytes_max,
            directories_max,
            read_later: self.read_later.clone(),
        };
        Extraction::new(
            target,
            Arc::clone(&source.ledger),
            self.progress.clone(),
            strict,
            limits,
            listed,
        )
    }

    /// The manifest goes to its place before the files do.
    async fn place_manifest(&self, source: &Source, extraction: &Arc<Extraction>) -> Result<()> {
        let Some(manifest) = &source.manifest else {
            return Ok(());
        };
        let mut attempts = RetryBudget::OBJECT.begin();
        while let Err(error) = manifest.place(self.archive, extraction).await {
            wait_after(&mut attempts, error, manifest.key(), self.cancel).await?;
        }
        Ok(())
    }

    /// Whether every member that the maker of a foreign backup listed has come.
    async fn check_listed(&self, source: &Source, extraction: &Arc<Extraction>) -> Result<()> {
        let missing = extraction.listed_missing();
        if missing == 0 {
            return Ok(());
        }
        let extraction = Arc::clone(extraction);
        let keep = Keep::First(Arc::new(move |name| extraction.is_listed_missing(name)));
        let list = self
            .archive
            .member_list(&source.name, &source.sentinel, keep)
            .await;
        // Whatever became of the list meanwhile: it is only read for a name.
        let first = list.ok().flatten().and_then(|list| list.first);
        Err(lacks(first.as_deref(), missing, "The list of its files"))
    }

    /// All partitions, some at a time; the first error stops the others and is returned when they have ended.
    async fn fetch_all(&self, source: &Source, extraction: &Arc<Extraction>) -> Result<()> {
        let workers = self.options.workers.max(1);
        let token = self.cancel.child_token();
        let _cancel_when_dropped = token.clone().drop_guard();
        // The whole budget at most, of which the description holds a part already: more would never be free.
        let (budget, described) = (self.archive.budget(), source.held_bytes());
        let wanted = WORKER_BYTES * workers as u64;
        let free = budget.total().saturating_sub(described);
        let _memory = tokio::select! {
            () = token.cancelled() => return Err(OpError::cancelled()),
            memory = budget.acquire(wanted.min(free)) => memory,
        };
        // A list, not an iterator: the compiler cannot see that a stream over this closure may move to another thread.
        let held = wanted.saturating_add(described);
        let work: Vec<_> = (0u32..)
            .zip(&source.parts)
            .map(|(number, part)| self.fetch(number, part, held, extraction, &token))
            .collect();
        let mut results = stream::iter(work).buffer_unordered(workers);
        let mut outcome = Ok(());
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                token.cancel();
                if outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    async fn fetch(
        &self,
        number: u32,
        part: &StoredPart,
        held: u64,
        extraction: &Arc<Extraction>,
        token: &CancellationToken,
    ) -> Result<()> {
        let key = Archive::key(&part.key)?;
        let partition = part.number.unwrap_or(number);
        let (mut attempts, mut attempt) = (RetryBudget::OBJECT.begin(), NonZeroU8::MIN);
        loop {
            if token.is_cancelled() {
                return Err(OpError::cancelled());
            }
            let carrier = Carrier { partition, attempt };
            let (extraction, stop) = (Arc::clone(extraction), token.clone());
            let consume =
                move |plain: &mut dyn std::io::Read| extraction.extract(carrier, plain, &stop);
            let decoded = self
                .archive
                .decode_partition(&key, part.codec, held, consume);
            match decoded.await {
                Ok(()) => return Ok(()),
                Err(error) => wait_after(&mut attempts, error, &key, token).await?,
            }
            attempt = attempt.saturating_add(1);
        }
    }
}

/// Waits for the next attempt at an object, where there is one after this error.
async fn wait_after(
    attempts: &mut Attempts,
    error: OpError,
    key: &ObjectKey,
    token: &CancellationToken,
) -> Result<()> {
    let again = attempts.after(error)?;
    tracing::warn!(
        %key, attempt = again.failed, error = %again.error.chain(), "object is fetched again"
    );
    again.wait_unless(token).await
}

fn end(target: &Target, marker: &RestoreMarker, ending: Ending) -> Result<()> {
    let path = target.path();
    let result = match ending {
        Ending::RemoveMarker => restore_marker::remove(path).map(drop),
        Ending::MarkDone => restore_marker::write(path, marker),
    };
    result.map_err(|error| {
        OpError::from_cluster(error, format_args!("end the restore in {}", path.display()))
    })
}
