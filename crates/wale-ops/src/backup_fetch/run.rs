//! The straight line of a restore. What may be refused stands in `plan` and `prepare`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use wale_archive::Archive;
use wale_cluster::RestoreRequest;
use wale_pipeline::{CancellationToken, Progress};

use super::finish::{Finish, Finished, finish};
use super::held::check_own;
use super::marker::{self, MarkerAtEnd, request};
use super::open::open;
use super::options::RestoreOptions;
use super::prepare::{Prepared, prepare};
use super::report::{Preview, RestoreReport};
use super::source::version_of;
use super::target::Target;
use super::way::check_unwritten;
use super::{manifest, report};
use crate::backup_content::{BackupReader, WholeBackup};
use crate::error::{OpError, Result};
use wale_pipeline::blocking;

/// Restores the files of a base backup into an empty directory. Writes no recovery settings: the caller decides how
/// the cluster recovers.
///
/// # Errors
///
/// Of the kinds `NotEmpty`, `DiskFull`, `NotFound`, `PermissionDenied`, `Usage` and `CorruptData` before anything is
/// written, and of any kind after. A restore that failed after it began leaves a marker and no `global/pg_control`: no
/// server can start on it, and the next restore into it begins anew.
pub async fn run(
    archive: &Archive,
    options: &RestoreOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport> {
    let request = request(archive, options);
    let prepared = prepare_unwritten(archive, options, progress).await?;
    let restore = Restore {
        archive,
        options,
        progress,
        cancel,
        read_later: Vec::new(),
    };
    let own: Finish = Box::new(|target, _| {
        Ok(Finished {
            warnings: missing_configuration(target.path())?,
            ..Finished::default()
        })
    });
    restore
        .run(prepared, request, "", own, MarkerAtEnd::Removed)
        .await
}

/// What [`run`] would do: every check that it makes before the first write, and nothing is written.
///
/// # Errors
///
/// As [`run`] before it writes.
pub async fn preview(archive: &Archive, options: &RestoreOptions) -> Result<Preview> {
    let prepared = prepare_unwritten(archive, options, &Progress::new()).await?;
    Ok(report::preview(&prepared))
}

/// A restore whose recovery settings are only checked.
async fn prepare_unwritten(
    archive: &Archive,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<Prepared> {
    let mut prepared = prepare(archive, options, progress).await?;
    let source = prepared.sources.restored();
    let told = check_unwritten(archive, source, &options.recovery_addition).await?;
    prepared.warnings.extend(told);
    prepared.compare(archive, options, progress).await?;
    Ok(prepared)
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

/// One restore and what it works with.
pub(super) struct Restore<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a RestoreOptions,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    /// The backup's own configuration files that will be read when all files are there.
    pub(super) read_later: Vec<&'static str>,
}

impl Restore<'_> {
    /// Writes. From here on a failure leaves the marker behind.
    pub(super) async fn run(
        &self,
        prepared: Prepared,
        request: RestoreRequest,
        host: &str,
        own: Finish,
        at_end: MarkerAtEnd,
    ) -> Result<RestoreReport> {
        let begun = Instant::now();
        self.announce(&prepared);
        let marker = marker::begun(self.archive, &prepared, request, host);
        let target = open(self.options, &prepared, marker.clone()).await?;
        let target = Arc::new(target.reading_later(self.read_later.clone()));
        let whole = self.read(&prepared, &target).await?;
        self.progress.set_phase("flushing");
        let mut done = marker::done(self.archive, &marker);
        let work = move || {
            let finished = finish(&prepared, &whole, &target, &marker, own)?;
            done.written.clone_from(&finished.written);
            check_own(target.path(), &marker)?;
            marker::end(target.path(), &done, at_end)?;
            Ok::<_, OpError>((prepared, whole, finished))
        };
        let (prepared, whole, finished) = blocking(work).await??;
        let recorded = prepared.sources.restored().major;
        let major = version_of(recorded, &whole.control_file)?;
        self.progress.set_phase("done");
        let mut report = report::restored(prepared, self.options, major, &whole);
        report.warnings.extend(finished.warnings);
        report.notes.extend(finished.notes);
        report.jobs_held = finished.jobs_held;
        report.duration = begun.elapsed();
        Ok(report)
    }

    /// Says what will be written where, before the first write.
    fn announce(&self, prepared: &Prepared) {
        let (backup, uid) = (&prepared.sources.restored().name, prepared.found.owner.uid);
        let target = self.options.target.display();
        tracing::info!(%backup, %target, uid, "restoring into the data directory");
        for space in &prepared.places.tablespaces {
            let (target, named_by) = (space.target.display(), space.named_by);
            tracing::info!(oid = space.oid, %target, %named_by, "restoring a tablespace");
        }
        if let Some(wal) = &prepared.places.wal {
            tracing::info!(target = %wal.path().display(), "pg_wal leads to a directory of its own");
        }
    }

    /// Reads the backups into the target, and checks that each is whole. Gives the one that is restored, with the files and
    /// bytes of all.
    async fn read(&self, prepared: &Prepared, target: &Arc<Target>) -> Result<WholeBackup> {
        let sources = &prepared.sources;
        if let Some(bytes) = report::bytes_to_write(prepared) {
            self.progress.set_total(bytes);
        }
        if let Some(files) = sources.files() {
            let kept = prepared
                .compared
                .as_ref()
                .map_or(0, |compared| compared.kept_files);
            self.progress.set_total_files(files.saturating_sub(kept));
        }
        self.progress.set_phase("restoring files");
        let reader = BackupReader {
            archive: self.archive,
            progress: self.progress,
            cancel: self.cancel,
            workers: self.options.workers,
            described: sources.held_bytes(),
            damages: None,
        };
        let restored = sources.restored();
        if let Some(placed) = &restored.manifest {
            manifest::place(&reader, placed, target).await?;
        }
        let (mut files, mut bytes) = (0, 0);
        for source in sources.before() {
            let (came, size) = reader.read_base(source, target).await?;
            files += came;
            bytes += size;
        }
        let mut whole = reader.read(restored, target).await?;
        whole.files += files;
        whole.bytes += bytes;
        Ok(whole)
    }
}
