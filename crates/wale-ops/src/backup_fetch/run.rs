//! The straight line of a restore. What may be refused stands in `plan`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use wale_cluster::{Owner, RestoreMarker, RestoreRequest, RestoreState, durable, restore_marker};
use wale_format::ManifestBuilder;
use wale_pg::{ControlFile, TablespaceMap};
use wale_pipeline::{CancellationToken, Progress};

use super::extract::{Extraction, Kept, WORKER_BYTES};
use super::ledger::{Carrier, Ledger};
use super::options::Options;
use super::plan::{self, Begin, PlannedTablespace, StoredPart};
use super::report::RestoreReport;
use super::source::Source;
use super::target::{Target, WalPlace};
use super::{facts, wipe};
use crate::archive::Archive;
use crate::backup_push::{Crc32c, blocking, cancelled};
use crate::error::{Kind, OpError, Result};

/// Attempts for one partition, and the pause before the second; it doubles each time: 2, 4, 8, 16 s.
const ATTEMPTS_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
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
    let prepared = prepare(archive, options, progress).await?;
    let restore = Restore { archive, options, progress, cancel };
    let nothing: Finish = Box::new(|_, _| Ok(Vec::new()));
    restore.run(prepared, request, "", nothing, Ending::RemoveMarker).await
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
        request.other.insert(format!("tablespace {source}"), target.display().to_string());
    }
    request
}

/// What is done to the whole directory before `global/pg_control` makes it startable; returns warnings.
pub(super) type Finish = Box<dyn FnOnce(&Target, &ControlFile) -> Result<Vec<String>> + Send>;

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
    pub(super) warnings: Vec<String>,
}

/// Everything that can be refused, in the order in which the reasons matter. Writes nothing.
pub(super) async fn prepare(archive: &Archive, options: &Options, progress: &Progress) -> Result<Prepared> {
    progress.set_phase("checking");
    let (target, lock_file) = (options.target.clone(), lock_file_name(options));
    let (state, _) = blocking(move || facts::target(&target, &lock_file)).await??;
    let begin = plan::judge_target(&options.target, &state)?;
    let owner = facts::owner(options.owner, &options.target)?;
    let source = Source::load(archive, &options.selector).await?;
    let (tablespaces, mut warnings) = plan::place_tablespaces(&source.tablespaces()?, &options.tablespace_mapping)?;
    let wal = facts::wal_place(&options.target, options.pg_wal_link.as_deref());

    let wiped = if begin == Begin::AfterWiping { wipe::outside_of(&options.target) } else { Vec::new() };
    let mut outside: Vec<plan::OutsideFacts> = Vec::new();
    for space in &tablespaces {
        outside.push(facts::outside(&space.target, format!("tablespace {}", space.oid), false, &wiped));
    }
    if let Some(wal) = &wal {
        outside.push(facts::outside(wal.path(), "the WAL directory".to_owned(), true, &[]));
    }
    plan::check_outside(&outside)?;
    if begin == Begin::Fresh {
        check_space(options, &source, &tablespaces)?;
    }
    for part in &source.parts {
        if !part.codec.can_read() {
            return Err(OpError::new(
                Kind::Configuration,
                format!("backup {} is compressed with {}, which this version cannot read yet", source.name, part.codec),
            )
            .hint("use a version of wale that reads this codec, or the tool that made the backup"));
        }
    }
    warnings.extend(warnings_about(&source, &options.pg_wal_link));
    Ok(Prepared { source, tablespaces, wal, owner, begin, warnings })
}

fn lock_file_name(options: &Options) -> String {
    options.lock_file_name.clone().unwrap_or_default()
}

fn check_space(options: &Options, source: &Source, tablespaces: &[PlannedTablespace]) -> Result<()> {
    let bytes = source.sentinel.bytes().unwrap_or(0);
    let volumes = facts::volumes(&options.target, tablespaces, source.expected().as_ref(), bytes)?;
    plan::check_space(&volumes)
}

fn warnings_about(source: &Source, pg_wal_link: &Option<PathBuf>) -> Vec<String> {
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
        warnings.push(format!("pg_wal was a link to \"{link}\" when the backup was made; it is a directory now"));
    }
    warnings
}

/// One restore and what it works with.
pub(super) struct Restore<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
}

impl Restore<'_> {
    /// Writes. From here on a failure leaves the marker behind.
    pub(super) async fn run(
        &self,
        prepared: Prepared,
        request: RestoreRequest,
        host: &str,
        finish: Finish,
        ending: Ending,
    ) -> Result<RestoreReport> {
        let begun = Instant::now();
        let mut marker = RestoreMarker {
            format: restore_marker::FORMAT,
            state: RestoreState::Running,
            request,
            backup: prepared.source.name.to_string(),
            started_at: self.archive.clock().now(),
            finished_at: None,
            host: host.to_owned(),
            wale_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let target = self.open(&prepared, marker.clone()).await?;
        let extraction = Arc::new(self.extraction(&prepared, target));
        self.progress.set_phase("restoring files");
        self.fetch_all(&prepared.source.parts, &extraction).await?;
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }

        self.progress.set_phase("flushing");
        let Prepared { source, tablespaces, owner, mut warnings, .. } = prepared;
        let (files, bytes) = extraction.counts();
        let bytes_stored = source.parts.iter().map(|part| part.size).sum();
        let verified = source.manifest.is_some();
        let (name, sentinel, timeline) = (source.name.clone(), source.sentinel.clone(), source.timeline);
        let spaces = tablespaces.iter().map(|space| (space.oid, space.target.clone())).collect();
        let finished_at = self.archive.clock().now();
        let (major, more) = blocking(move || {
            let whole = Whole { extraction: &extraction, source: &source, tablespaces: &tablespaces, owner };
            let (control_file, more) = whole.complete(finish)?;
            marker.state = RestoreState::Done;
            marker.finished_at = Some(finished_at);
            end(&extraction.target, &marker, ending)?;
            let major = source.major.or_else(|| control_file.major());
            Ok::<_, OpError>((major, more))
        })
        .await??;
        warnings.extend(more);
        let major = major.ok_or_else(|| OpError::new(Kind::CorruptData, "the restored cluster has an unknown version"))?;
        self.progress.set_phase("done");
        Ok(RestoreReport {
            target: self.options.target.clone(),
            major,
            timeline,
            start_lsn: sentinel.start_lsn(),
            stop_lsn: sentinel.stop_lsn(),
            files,
            bytes,
            bytes_stored,
            verified,
            damaged_pages: sentinel.wale.as_ref().map_or(0, |wale| wale.damaged_pages.len() as u64),
            tablespaces: spaces,
            duration: begun.elapsed(),
            warnings,
            backup: name,
        })
    }

    /// Marks the target as half done, wipes it where it was that before, and makes what comes before the files.
    async fn open(&self, prepared: &Prepared, marker: RestoreMarker) -> Result<Target> {
        let path = self.options.target.clone();
        let (owner, major, begin) = (prepared.owner, prepared.source.major, prepared.begin);
        let (tablespaces, wal) = (prepared.tablespaces.clone(), prepared.wal.clone());
        let lock_file = lock_file_name(self.options);
        blocking(move || {
            let failed = |error, path: &PathBuf| OpError::from_cluster(error, format_args!("write {}", path.display()));
            wale_cluster::RestoreTree::create(&path, 0o700, Some(owner)).map_err(|error| failed(error, &path))?;
            restore_marker::write(&path, &marker).map_err(|error| failed(error, &path))?;
            if begin == Begin::AfterWiping {
                wipe::wipe(&path, &lock_file, owner)?;
            }
            let target = Target::open(&path, &tablespaces, wal.as_ref(), major, owner)?;
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

    fn extraction(&self, prepared: &Prepared, target: Target) -> Extraction {
        let source = &prepared.source;
        let expected = source.expected();
        let strict = expected.is_some();
        let told = source.sentinel.bytes();
        self.progress.set_total(told.unwrap_or(0));
        if let Some(files) = &expected {
            self.progress.set_total_files(files.len() as u64);
        }
        let bytes_max = match told {
            Some(bytes) if !strict => bytes.saturating_mul(2).saturating_add(FOREIGN_SLACK_BYTES),
            _ => u64::MAX,
        };
        Extraction::new(target, Ledger::new(expected), self.progress.clone(), strict, bytes_max)
    }

    /// All partitions, some at a time; the first error stops the others and is returned when they have ended.
    async fn fetch_all(&self, parts: &[StoredPart], extraction: &Arc<Extraction>) -> Result<()> {
        let workers = self.options.workers.max(1);
        let token = self.cancel.child_token();
        let _cancel_when_dropped = token.clone().drop_guard();
        let _memory = self.archive.budget().acquire(WORKER_BYTES * workers as u64).await;
        // A list, not an iterator: the compiler cannot see that a stream over this closure may move to another thread.
        let work: Vec<_> =
            (0u32..).zip(parts).map(|(number, part)| self.fetch(number, part, extraction, &token)).collect();
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
        extraction: &Arc<Extraction>,
        token: &CancellationToken,
    ) -> Result<()> {
        let key = Archive::key(&part.key)?;
        let partition = part.number.unwrap_or(number);
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            if token.is_cancelled() {
                return Err(cancelled());
            }
            let carrier = Carrier { partition, attempt };
            let (extraction, stop) = (Arc::clone(extraction), token.clone());
            let consume = move |plain: &mut dyn std::io::Read| extraction.extract(carrier, plain, &stop);
            match self.archive.decode(&key, part.codec, consume).await {
                Err(error) if error.kind == Kind::StorageUnavailable && attempt < ATTEMPTS_MAX => {
                    tracing::warn!(%key, attempt, error = %error.chain(), "partition is fetched again");
                    tokio::select! {
                        () = token.cancelled() => return Err(cancelled()),
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause *= 2;
                }
                other => return other,
            }
        }
        unreachable!("the last attempt returns whatever it had")
    }
}

/// The files are all there: what makes a startable cluster of them. Sync.
struct Whole<'a> {
    extraction: &'a Extraction,
    source: &'a Source,
    tablespaces: &'a [PlannedTablespace],
    pub(super) owner: Owner,
}

impl Whole<'_> {
    fn complete(&self, finish: Finish) -> Result<(ControlFile, Vec<String>)> {
        let target = &self.extraction.target;
        self.extraction.ledger.check_complete()?;
        let kept = self.extraction.take_control_file().ok_or_else(|| {
            OpError::new(Kind::CorruptData, format!("backup {} has no global/pg_control", self.source.name))
        })?;
        let control_file = self.check_control_file(&kept)?;
        let mut warnings = self.extraction.take_warnings();
        let map = self.write_tablespace_map(&control_file)?;
        self.write_manifest(map.as_deref())?;
        warnings.extend(finish(target, &control_file)?);
        target.flush()?;
        // From this rename on a server can start.
        let path = target.path().join(ControlFile::PATH);
        durable::write_atomic(&path, &kept.content, 0o600, Some(self.owner))
            .map_err(|error| OpError::from_io(error, format_args!("write {}", path.display())))?;
        Ok((control_file, warnings))
    }

    fn check_control_file(&self, kept: &Kept) -> Result<ControlFile> {
        let control_file = ControlFile::parse(&kept.content).map_err(|error| {
            OpError::new(Kind::CorruptData, format!("global/pg_control in backup {} is damaged", self.source.name))
                .source(error)
        })?;
        match self.source.sentinel.system_identifier {
            Some(expected) if expected != control_file.system_identifier.as_u64() => {
                Err(OpError::new(Kind::CorruptData, format!("backup {} holds another cluster's files", self.source.name))
                    .detail(format!(
                        "Its sentinel says system identifier {expected}, its control file {}.",
                        control_file.system_identifier
                    )))
            }
            _ => Ok(control_file),
        }
    }

    /// Writes the map with the places of this restore. The server makes the links from it when recovery begins, so with
    /// the old places it would go to the original's tablespaces without a word.
    fn write_tablespace_map(&self, control_file: &ControlFile) -> Result<Option<Vec<u8>>> {
        let Some(kept) = self.extraction.take_tablespace_map().filter(|kept| !kept.content.is_empty()) else {
            return Ok(None);
        };
        let damaged = |reason: String| {
            OpError::new(Kind::CorruptData, format!("the tablespace map of backup {} is damaged: {reason}", self.source.name))
        };
        let content = if self.tablespaces.iter().all(|space| space.origin == space.target) {
            kept.content
        } else {
            let major = self.source.major.or_else(|| control_file.major());
            let major = major.ok_or_else(|| damaged("the server's version is not known".to_owned()))?;
            let text = String::from_utf8(kept.content).map_err(|error| damaged(error.to_string()))?;
            let mut map = TablespaceMap::parse(&text, major).map_err(|error| damaged(error.to_string()))?;
            for (oid, path) in &mut map.entries {
                if let Some(space) = self.tablespaces.iter().find(|space| space.oid == *oid) {
                    *path = space.target.to_string_lossy().into_owned();
                }
            }
            map.to_text(major).into_bytes()
        };
        self.extraction.target.small_file("tablespace_map", kept.mode, &content)?;
        Ok(Some(content))
    }

    /// Writes the manifest into the directory, with the entry of the map as it is now, so that `pg_verifybackup`
    /// proves the restore.
    fn write_manifest(&self, map: Option<&[u8]>) -> Result<()> {
        let Some(manifest) = &self.source.manifest else { return Ok(()) };
        let mut builder = ManifestBuilder::new();
        for (path, file) in &manifest.files {
            let (size, crc32c) = match map {
                Some(map) if path == "tablespace_map" => (map.len() as u64, Some(Crc32c::of(map))),
                _ => (file.size, file.crc32c),
            };
            // wale writes no other kind of checksum.
            let crc32c = crc32c.ok_or_else(|| OpError::internal(format!("the manifest has no CRC-32C of \"{path}\"")))?;
            builder.add_file(path, size, file.mtime, crc32c);
        }
        let bytes = builder.finish_with_ranges(&manifest.wal_ranges);
        self.extraction.target.small_file("backup_manifest", 0o600, &bytes)
    }
}

fn end(target: &Target, marker: &RestoreMarker, ending: Ending) -> Result<()> {
    let path = target.path();
    let result = match ending {
        Ending::RemoveMarker => restore_marker::remove(path).map(drop),
        Ending::MarkDone => restore_marker::write(path, marker),
    };
    result.map_err(|error| OpError::from_cluster(error, format_args!("end the restore in {}", path.display())))
}
