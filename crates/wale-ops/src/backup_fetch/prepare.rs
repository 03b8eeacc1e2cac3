//! From a request to a restore that may begin: everything is looked at, and everything that can be refused is refused, in the
//! order in which the reasons matter. Writes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use wale_archive::Archive;
use wale_cluster::{Owner, RestoreMarker, RestoreState, text_of_path};
use wale_pg::RecoveryTargetKind;
use wale_pipeline::Progress;

use super::aim::{self, Aim, Notes};
use super::held::HeldDirectory;
use super::keep::{self, Compared};
use super::options::{Existing, MissingTablespace, RestoreOptions};
use super::plan::{self, Begin};
use super::present::{self, PresentCluster, TargetLook};
use super::source::{Source, Sources};
use super::tablespaces::{self, NamedBy, PlannedTablespace};
use super::target::WalPlace;
use super::wipe::Wiped;
use super::{facts, libraries, lost, places, unarchived};
use crate::backup_content::DiskNeeds;
use crate::error::Result;
use wale_pipeline::blocking;

/// A restore that may begin.
pub(super) struct Prepared {
    /// The backups that feed it.
    pub(super) sources: Sources,
    /// What was found where it goes.
    pub(super) found: FoundTarget,
    /// Where its files go.
    pub(super) places: PlannedPlaces,
    /// What is kept of the cluster that is there; known when it has been read.
    pub(super) compared: Option<Compared>,
    /// Sentences that say what was decided.
    pub(super) notes: Vec<String>,
    /// Sentences about what the user should check.
    pub(super) warnings: Vec<String>,
    /// Those of them that say which newer backups were passed over.
    pub(super) passed_over: Vec<String>,
}

/// What the data directory to be was found to be.
pub(super) struct FoundTarget {
    pub(super) begin: Begin,
    /// The marker that was found.
    pub(super) earlier: Option<RestoreMarker>,
    /// The cluster that is kept in part.
    pub(super) present: Option<PresentCluster>,
    /// Where the data directory is, links followed, as a marker names it; `None` where it does not exist yet.
    pub(super) directory: Option<String>,
    /// The owner that the files are to have.
    pub(super) owner: Owner,
    /// A sentence about that owner, where it is perhaps the wrong one.
    doubt: Option<String>,
}

/// Where the files of a restore go, beside the data directory itself.
pub(super) struct PlannedPlaces {
    pub(super) tablespaces: Vec<PlannedTablespace>,
    pub(super) wal: Option<WalPlace>,
    /// The directories outside of the restore before, which are cleared first.
    pub(super) wiped: Wiped,
}

/// Everything that can be refused.
///
/// # Errors
///
/// The reasons of [`super::run`] before it writes.
pub(super) async fn prepare(
    archive: &Archive,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<Prepared> {
    progress.set_phase("checking");
    let found = find_target(options).await?;
    let aim = Aim::of(&options.recovery_addition);
    let (sources, chosen, passed_over) = choose(archive, options, &aim).await?;
    let source = sources.restored();
    if let Some(present) = &found.present {
        let recorded = match source.sentinel.system_identifier {
            Some(recorded) => Some(recorded),
            None => archive
                .identity()
                .await?
                .map(|own| own.cluster.system_identifier.as_u64()),
        };
        present::check_whose(&options.target, present, recorded)?;
    }
    let (places, mut warnings) = plan_places(options, &found, source)?;
    if found.begin == Begin::Fresh {
        check_space(options, &sources.needs(), &places)?;
    }
    warnings.extend(chosen.warnings);
    warnings.extend(warnings_about(source, options.pg_wal_link.as_deref()));
    check_unnamed(archive, source, &places.tablespaces, found.owner).await?;
    warnings.extend(lost::history(archive, source.timeline).await?);
    let mut notes = chosen.notes;
    check_libraries(options, &aim, source, &mut notes, &mut warnings)?;
    Ok(Prepared {
        sources,
        found,
        places,
        compared: None,
        notes,
        warnings,
        passed_over,
    })
}

/// Looks at the data directory to be.
async fn find_target(options: &RestoreOptions) -> Result<FoundTarget> {
    let (target, lock_file) = (options.target.clone(), lock_file_name(options));
    let existing = options.existing;
    let look = move || {
        HeldDirectory::look(&target)?;
        present::look(&target, &lock_file, existing)
    };
    let TargetLook {
        begin,
        earlier,
        present,
    } = blocking(look).await??;
    let (owner, doubt) = facts::owner(options.owner, &options.target)?;
    let directory = std::fs::canonicalize(&options.target).ok();
    Ok(FoundTarget {
        directory: directory.map(|path| text_of_path(&path)),
        begin,
        earlier,
        present,
        owner,
        doubt,
    })
}

/// Chooses the backup and reads what describes it. Also gives sentences about newer ones, which are among the warnings.
async fn choose(
    archive: &Archive,
    options: &RestoreOptions,
    aim: &Aim,
) -> Result<(Sources, Notes, Vec<String>)> {
    let catalog = archive.catalog().await?;
    let (chosen, mut notes) = aim::choose(archive, &catalog, &options.selector, aim).await?;
    notes.warnings.extend(chosen.passed_over.iter().cloned());
    let sources = Sources::load(archive, &catalog, &chosen.entry).await?;
    notes.notes.extend(sources.chain_note());
    notes.warnings.extend(sources.restored().doubt.clone());
    Ok((sources, notes, chosen.passed_over))
}

/// Decides where tablespaces and WAL go, and looks at those places. Also returns sentences about what the user should check.
fn plan_places(
    options: &RestoreOptions,
    found: &FoundTarget,
    source: &Source,
) -> Result<(PlannedPlaces, Vec<String>)> {
    let recorded = source.tablespaces()?;
    let mut mapping = options.tablespace_mapping.clone();
    mapping.extend(tablespaces::below(
        options.tablespaces_below.as_deref(),
        &recorded,
    ));
    let (tablespaces, mut warnings) = tablespaces::place_tablespaces(
        &recorded,
        &mapping,
        &facts::tablespace_links(&options.target),
        &options.target,
    )?;
    warnings.extend(found.doubt.clone());
    // A restore that is begun anew removes its links, and all that is beside them; one that keeps files removes other links.
    match found.begin {
        Begin::Fresh => warnings.extend(facts::links_of_nobody(
            &options.target,
            &tablespaces,
            "stays; remove it if it is a leftover",
        )),
        Begin::Keeping => warnings.extend(facts::links_of_nobody(
            &options.target,
            &tablespaces,
            "is removed",
        )),
        Begin::AfterWiping => {}
    }
    let wiped = match &found.earlier {
        Some(marker) if found.begin == Begin::AfterWiping => Wiped::named_by(marker),
        _ => Wiped::default(),
    };
    let places = PlannedPlaces {
        wal: facts::wal_place(&options.target, options.pg_wal_link.as_deref()),
        tablespaces,
        wiped,
    };
    plan::check_outside(&outside_of_target(options, found, &places))?;
    places::check_apart(&options.target, &places.tablespaces, places.wal.as_ref())?;
    Ok((places, warnings))
}

/// What is to be known of the directories outside that the restore will write into.
fn outside_of_target(
    options: &RestoreOptions,
    found: &FoundTarget,
    places: &PlannedPlaces,
) -> Vec<plan::OutsideFacts> {
    let keeps = found.begin == Begin::Keeping;
    let attempt = found.attempt_to_keep();
    let is_of_attempt =
        |path: &Path| attempt.is_some_and(|marker| marker.outside.contains(&text_of_path(path)));
    let is_wal_of_attempt = |path: &Path| {
        attempt.is_some_and(|marker| marker.wal_directory == Some(text_of_path(path)))
    };
    let mut outside: Vec<plan::OutsideFacts> = Vec::new();
    for space in &places.tablespaces {
        let makes = match space.named_by {
            NamedBy::Request => true,
            NamedBy::Backup => options.missing_tablespace == MissingTablespace::Make,
            NamedBy::Link => false,
            NamedBy::Itself => continue,
        };
        if makes && facts::can_be_made(&space.target) {
            continue;
        }
        // It is this cluster's where its own link and the request agree: the link alone may have been copied with the directory,
        // and lead to what another server uses.
        if keeps && makes && facts::is_linked(&options.target, space) {
            continue;
        }
        // An attempt that was interrupted had judged it before its first write, and then perhaps removed the link, or made it.
        if is_of_attempt(&space.target) {
            continue;
        }
        let purpose = format!("tablespace {}", space.oid);
        let facts = facts::outside(&space.target, purpose, false, &places.wiped);
        outside.push(if keeps { facts.unless_named() } else { facts });
    }
    match &places.wal {
        Some(WalPlace::LinkThere(path)) if keeps && options.pg_wal_link.is_some() => {
            outside.push(facts::outside_of_wal(path));
        }
        Some(wal) if is_wal_of_attempt(wal.path()) => {
            outside.push(facts::outside_of_wal(wal.path()));
        }
        Some(wal) => {
            let purpose = "the WAL directory".to_owned();
            let facts = facts::outside(wal.path(), purpose, true, &places.wiped);
            outside.push(if keeps { facts.unless_named() } else { facts });
        }
        None => {}
    }
    outside
}

/// Refuses file systems that are too small.
pub(super) fn check_space(
    options: &RestoreOptions,
    needs: &DiskNeeds,
    places: &PlannedPlaces,
) -> Result<()> {
    let wal = places.wal.as_ref().map(WalPlace::path);
    let volumes = facts::volumes(&options.target, &places.tablespaces, wal, needs)?;
    plan::check_space(&volumes)
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

/// What the backup's server had loaded, and whether a server that is installed here has it.
fn check_libraries(
    options: &RestoreOptions,
    aim: &Aim,
    source: &Source,
    notes: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let Some(record) = source.wale() else {
        return Ok(());
    };
    let loaded = libraries::Record::of(record);
    notes.extend(libraries::notes(&loaded));
    notes.extend(libraries::jobs_note(&loaded, &aim.kind));
    let question = libraries::Question {
        record: &loaded,
        major: record.major,
        policy: options.missing_libraries,
        folder: options.libraries.as_deref(),
        ends_with_backup: matches!(aim.kind, RecoveryTargetKind::Immediate),
    };
    warnings.extend(libraries::check(&question)?);
    Ok(())
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

/// The name of the sidecar's lock file; empty where there is none.
pub(super) fn lock_file_name(options: &RestoreOptions) -> String {
    options.lock_file_name.clone().unwrap_or_default()
}

impl Prepared {
    /// What has to go to each tablespace.
    pub(super) fn needs(&self) -> DiskNeeds {
        let needs = self.sources.needs();
        match &self.compared {
            Some(compared) => compared.left(needs),
            None => needs,
        }
    }

    /// The directories of a cluster that is kept in part.
    pub(super) fn kept_places(&self, options: &RestoreOptions) -> keep::KeptPlaces {
        keep::KeptPlaces {
            data: options.target.clone(),
            tablespaces: self.places.tablespaces.clone(),
            wal: self.places.wal.clone(),
            lock_file_name: lock_file_name(options),
            major: self.sources.restored().major,
        }
    }

    /// Reads the cluster that is kept in part, once all that refuses the restore has been asked: what of it is the backup's, and
    /// which partitions nobody needs then.
    ///
    /// # Errors
    ///
    /// Those of [`unarchived::check`]; [`Kind::DiskFull`](crate::Kind::DiskFull); when a directory cannot be listed.
    pub(super) async fn compare(
        &mut self,
        archive: &Archive,
        options: &RestoreOptions,
        progress: &Progress,
    ) -> Result<()> {
        let (Some(present), Existing::Keep(policy)) = (&self.found.present, options.existing)
        else {
            return Ok(());
        };
        let (spaces, wal) = (&self.places.tablespaces, self.places.wal.as_ref());
        let copies = archive.copies();
        let locations: Vec<_> = copies
            .iter()
            .chain([archive])
            .map(Archive::location)
            .collect();
        places::check_archive_apart(&locations, &options.target, spaces, wal)?;
        let source = self.sources.restored();
        let lost =
            unarchived::check(archive, &options.target, &present.wal, source, policy).await?;
        self.warnings.extend(lost);
        progress.set_phase("comparing files");
        tracing::info!(target = %options.target.display(), "reading the files that are there, to keep those that are the backup's");
        let (places, kept) = (self.kept_places(options), source.kept());
        let (owner, workers) = (self.found.owner, options.workers);
        let compared = blocking(move || keep::compare(&places, &kept, owner, workers)).await??;
        if !compared.configuration.is_empty() {
            self.notes.push(format!(
                "the backup's manifest has no {}: what the directory has stays",
                compared.configuration.join(", ")
            ));
        }
        self.compared = Some(compared);
        self.sources.spare_partitions(archive).await;
        check_space(options, &self.needs(), &self.places)
    }
}

impl FoundTarget {
    /// The marker of an interrupted attempt to keep files here: what it names outside was this cluster's. In a copy of its directory
    /// it says nothing, for there the places are the original's.
    fn attempt_to_keep(&self) -> Option<&RestoreMarker> {
        self.earlier.as_ref().filter(|marker| {
            self.begin == Begin::Keeping
                && marker.state == RestoreState::Running
                && marker.is_delta
                && marker.delta_directory.is_some()
                && marker.delta_directory == self.directory
        })
    }
}

impl PlannedPlaces {
    /// The tablespaces' directories that are this restore's own from its marker on, as the marker names them.
    pub(super) fn outside(&self) -> Vec<String> {
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
    pub(super) fn wal_directory(&self) -> Option<String> {
        self.wal.as_ref().map(|wal| text_of_path(wal.path()))
    }
}
