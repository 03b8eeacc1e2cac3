//! The straight line of a base backup. What each step may refuse stands in `plan` and `preflight`.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wale_cluster::{
    ClusterError, Entry, EntryKind, Listing, RunningBackup, StoppedBackup, WalkOptions, recovery,
    restore_marker, text_of_path,
};
use wale_format::sentinel::TablespaceRecord;
use wale_format::tar::Meta;
use wale_format::{BackupName, PartitionPlan, PlanLimits, PlannedFile, layout};
use wale_pg::{ControlFile, byte_text};
use wale_pipeline::{CancellationToken, Progress, run_workers};

use super::commit::{self, Evidence};
use super::copied::{Copied, ListingFacts};
use super::files::{PageVerification, SourceFile};
use super::forks::Forks;
use super::options::Options;
use super::partitions::{CopyJob, PartitionJob, SourceDirectory, WORKER_BYTES, make_partition};
use super::plan;
use super::preflight::{self, Ready};
use super::report::{BackupReport, Started};
use super::throttle::Throttle;
use super::uploads::Uploads;
use super::wal_wait::wait_for_segments;
use super::{place, slot};
use crate::archive::{Archive, former};
use crate::blocking::blocking;
use crate::error::{OpError, Result};
use crate::rival;

/// Takes a base backup.
///
/// `on_started` is called once, when the server has fixed the start position: from then on WAL may be accepted
/// without a gap before this backup.
///
/// # Errors
///
/// Any kind. Whatever it is, the archive has no sentinel of this backup afterwards, the server's session is closed, and
/// the objects written are removed as far as the store allows. The one exception is a store that does not answer
/// whether the sentinel was stored: then the objects stay, so that a sentinel that did arrive has its backup.
pub async fn run(
    archive: &Archive,
    options: &Options,
    progress: &Progress,
    cancel: &CancellationToken,
    on_started: impl FnOnce(&Started) + Send,
) -> Result<BackupReport> {
    // Boxed: it is large, and lives as long as the backup.
    let take = async || {
        let work = attempt(archive, options, progress, cancel, async |backup| {
            backup.take(on_started).await
        });
        Box::pin(work).await
    };
    match options.slot {
        Some(slot) => slot::serve(archive, slot, &options.data_directory, take).await,
        None => take().await,
    }
}

/// Runs one attempt; removes what it wrote when it fails.
pub(super) async fn attempt(
    archive: &Archive,
    options: &Options,
    progress: &Progress,
    cancel: &CancellationToken,
    take: impl AsyncFnOnce(&Backup<'_>) -> Result<BackupReport>,
) -> Result<BackupReport> {
    let begun = Instant::now();
    let uploads = Arc::new(Uploads::new(Arc::clone(archive.store())));
    let (stop, done) = (cancel.child_token(), CancellationToken::new());
    let claimed = Notify::new();
    let backup = Backup {
        archive,
        options,
        progress,
        cancel: &stop,
        uploads: &uploads,
        claimed: &claimed,
    };
    let work = async {
        let taken = take(&backup).await;
        done.cancel();
        taken
    };
    let (taken, kept) = tokio::join!(work, keep_claim(&uploads, &claimed, &done, &stop));
    match taken {
        Ok(mut report) => {
            uploads.release().await;
            match rival::warnings(archive, &report.name, report.timeline, report.stop_lsn).await {
                Ok(warnings) => report.warnings.extend(warnings),
                Err(error) => tracing::info!(
                    "whether LATEST chooses this backup is not looked at: {}",
                    error.chain()
                ),
            }
            report.duration = begun.elapsed();
            Ok(report)
        }
        Err(error) => {
            progress.set_phase("removing what was written");
            uploads.remove_all().await;
            // Work that lost the claim was stopped for that; what it says itself is not the reason.
            Err(kept.err().unwrap_or(error))
        }
    }
}

/// Refreshes the claim on the backup's name while the work goes on. When it is lost, the work is stopped.
async fn keep_claim(
    uploads: &Uploads,
    claimed: &Notify,
    done: &CancellationToken,
    stop: &CancellationToken,
) -> Result<()> {
    let waiting = done.run_until_cancelled(claimed.notified()).await;
    let (Some(()), Some(claim)) = (waiting, uploads.claim()) else {
        return Ok(());
    };
    claim.keep(done).await.inspect_err(|_| stop.cancel())
}

/// One attempt and what it works with.
pub(super) struct Backup<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    cancel: &'a CancellationToken,
    uploads: &'a Arc<Uploads>,
    /// Rings when there is a claim to be kept.
    claimed: &'a Notify,
}

impl Backup<'_> {
    async fn take(&self, on_started: impl FnOnce(&Started) + Send) -> Result<BackupReport> {
        self.progress.set_phase("checking");
        let ready = self
            .unless_cancelled(preflight::prepare(self.archive, self.options))
            .await??;
        self.progress
            .set_phase("waiting for the server's checkpoint");
        let (ready, running, started) = self.start(ready).await?;
        on_started(&started);
        tracing::info!(backup = %started.name, start_lsn = %started.start_lsn, "base backup started");

        self.occupy(&ready, &started.name).await?;
        let forks = Forks::note(
            self.archive,
            self.options,
            started.timeline,
            ready.facts.wal_segment_size,
            ready.facts.in_recovery,
        )
        .await;
        let copied = self
            .copy(&ready, &started, Vec::new(), running.lost())
            .await?;
        self.progress.set_phase("stopping");
        let stopped = self
            .unless_cancelled(running.stop())
            .await?
            .map_err(|error| OpError::from_cluster(error, "end the base backup on the server"))?;
        let stopped_at = self.archive.clock().now();
        let copy_duration = (stopped_at - started.started_at)
            .to_std()
            .unwrap_or_default();
        let segments = check_positions(&ready, &started, &stopped)?;

        let name = started.name.clone();
        let evidence = Evidence::new(ready, started, stopped, stopped_at, copied)?;
        let evidence = self.store_ends(evidence).await?;

        self.progress.set_phase("waiting for WAL");
        let limit = self.options.wal_wait_limit;
        let wal_wait = wait_for_segments(
            self.archive,
            &segments,
            &self.options.wal_directory,
            limit,
            forks.as_ref(),
            self.cancel,
        )
        .await?;

        self.commit(&evidence).await?;
        commit::check_wal(self.archive, &name, &segments).await?;
        Ok(evidence.report(&segments, copy_duration, wal_wait))
    }

    /// Stores what can be said only when all files are: the last partition and the manifest.
    pub(super) async fn store_ends(&self, mut evidence: Evidence) -> Result<Evidence> {
        evidence
            .store_last_partition(self.archive, self.uploads)
            .await?;
        evidence.store_manifest(self.uploads).await?;
        evidence.store_configuration(self.uploads).await?;
        Ok(evidence)
    }

    /// Makes the backup exist.
    pub(super) async fn commit(&self, evidence: &Evidence) -> Result<()> {
        self.progress.set_phase("committing");
        // Before the objects are checked: work that lost the claim finds another's objects, and that is not the reason.
        self.uploads.check_claim().await?;
        commit::check_stored(self.archive, evidence).await?;
        let sentinel = evidence
            .store_metadata(self.archive, self.options, self.uploads)
            .await?;
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        commit::store_sentinel(self.archive, evidence, &sentinel, self.uploads).await?;
        self.progress.set_phase("done");
        Ok(())
    }

    /// Waits for `work`, or for the cancellation; dropping the work closes the server's session.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(OpError::cancelled()),
            value = work => Ok(value),
        }
    }

    async fn start(&self, mut ready: Ready) -> Result<(Ready, RunningBackup, Started)> {
        let control = ready.take_control();
        let now = self.archive.clock().now();
        let label = former::label(&self.options.label_prefix, now, &self.archive.location());
        let running = self
            .unless_cancelled(RunningBackup::start(
                control,
                &label,
                self.options.checkpoint,
            ))
            .await?
            .map_err(|error| OpError::from_cluster(error, "start a base backup on the server"))?;
        let started_at = self.archive.clock().now();
        // The checkpoint that begins the backup is in the control file now, and with it the timeline.
        let control_file = self.control_file(&ready).await?;
        plan::same_server(ready.facts.in_recovery, running.start_lsn(), &control_file)?;
        let timeline = control_file.timeline;
        let size = ready.facts.wal_segment_size;
        let start_lsn = running.start_lsn();
        let segment = wale_pg::WalSegmentName::from_lsn(timeline, start_lsn, size);
        let name = BackupName::new(&segment, size.offset_in_segment(start_lsn));
        Ok((
            ready,
            running,
            Started {
                name,
                start_lsn,
                timeline,
                started_at,
            },
        ))
    }

    async fn control_file(&self, ready: &Ready) -> Result<ControlFile> {
        let directory = ready.directory.clone();
        blocking(move || directory.control_file())
            .await?
            .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))
    }

    /// Takes the backup's name, makes sure that nobody else's objects are under it, and puts the first one there.
    pub(super) async fn occupy(&self, ready: &Ready, name: &BackupName) -> Result<()> {
        let claim = place::occupy(self.archive, name).await?;
        self.uploads.claimed(claim);
        self.claimed.notify_one();
        let key = layout::extended_version(name);
        self.uploads
            .put_bytes(&key, ready.version.clone().into())
            .await?;
        Ok(())
    }

    /// Copies all files, and `wal` beside those of the listing; gives up at once when the server's session is `lost`.
    pub(super) async fn copy(
        &self,
        ready: &Ready,
        started: &Started,
        wal: Vec<SourceFile>,
        lost: impl Future<Output = ClusterError>,
    ) -> Result<Copied> {
        self.progress.set_phase("listing files");
        let listing = self.list(ready).await?;
        let (job, parts, listing_facts) = self.plan(ready, started, listing, wal);
        let job = Arc::new(job);
        let total: u64 = job.files.iter().map(|file| file.size).sum();
        self.progress.set_total(total);
        self.progress.set_total_files(job.files.len() as u64);
        let workers = self.options.workers.max(1);
        let _memory = self
            .unless_cancelled(self.archive.budget().acquire(WORKER_BYTES * workers as u64))
            .await?;
        self.progress.set_phase("copying files");

        let token = self.cancel.child_token();
        let work = {
            let job = Arc::clone(&job);
            run_workers(parts, workers, &token, move |part, token| {
                make_partition(&job, &part, &token)
            })
        };
        tokio::pin!(work);
        let partitions = tokio::select! {
            partitions = &mut work => partitions?,
            error = lost => {
                token.cancel();
                // The workers end at their next piece; what they say about it does not matter any more.
                let _ = work.await;
                return Err(OpError::from_cluster(error, "keep the base backup open: it is void"));
            }
        };
        let directory = ready.directory.clone();
        let (_, control_bytes) = blocking(move || directory.control_bytes())
            .await?
            .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))?;
        Ok(Copied {
            partitions,
            control_bytes,
            listing_facts,
        })
    }

    async fn list(&self, ready: &Ready) -> Result<Listing> {
        let directory = ready.directory.clone();
        let mut ignore = self.options.ignore.clone();
        // A note about an earlier restore is not part of the cluster, and a token of the sidecar's never leaves it.
        ignore.push(restore_marker::FILE_NAME.to_owned());
        ignore.push(recovery::AUTHORIZATION_FILE.to_owned());
        let walk = WalkOptions {
            major: ready.facts.major,
            ignore,
        };
        blocking(move || directory.walk(&walk))
            .await?
            .map_err(|error| OpError::from_cluster(error, "list the files of the data directory"))
    }

    fn plan(
        &self,
        ready: &Ready,
        started: &Started,
        listing: Listing,
        wal: Vec<SourceFile>,
    ) -> (CopyJob, Vec<PartitionJob>, ListingFacts) {
        let facts = listing_facts(&listing);
        let (directories, mut files) = sources(listing);
        files.extend(wal);
        let parts = parts_of(&files, self.options.workers);
        let verify = ready
            .control_file
            .has_data_checksums()
            .then_some(PageVerification {
                start_lsn: started.start_lsn,
                blocks_per_segment: ready.control_file.blocks_per_segment,
                directory: ready.directory.clone(),
            });
        let job = CopyJob {
            name: started.name.clone(),
            codec: *self.archive.codec(),
            directories,
            files,
            verify,
            policy: self.options.damaged_pages,
            throttle: Throttle::new(self.options.read_rate, Instant::now()),
            progress: self.progress.clone(),
            uploads: Arc::clone(self.uploads),
            runtime: Handle::current(),
        };
        (job, parts, facts)
    }
}

/// Checks what the server said at the end against what it said at the beginning; returns the segments that a restore
/// needs.
fn check_positions(
    ready: &Ready,
    started: &Started,
    stopped: &StoppedBackup,
) -> Result<Vec<wale_pg::WalSegmentName>> {
    plan::same_timeline(started.timeline, stopped.timeline, stopped.stop_timeline)?;
    plan::required_segments(
        started.timeline,
        started.start_lsn,
        stopped.stop_lsn,
        ready.facts.wal_segment_size,
    )
}

fn listing_facts(listing: &Listing) -> ListingFacts {
    ListingFacts {
        tablespaces: listing
            .tablespaces
            .iter()
            .map(|space| TablespaceRecord {
                oid: space.oid,
                location: text_of_path(&space.location),
                inside: space.inside.clone(),
            })
            .collect(),
        pg_wal_link: listing.pg_wal_link.as_deref().map(text_of_path),
        skipped_links: listing
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Symlink { .. }))
            .map(|entry| entry.relative.clone())
            .collect(),
        vanished: listing.vanished,
        warnings: listing
            .warnings
            .iter()
            .map(|warning| {
                format!(
                    "{}: {}",
                    byte_text::shown(&warning.relative),
                    warning.reason
                )
            })
            .collect(),
    }
}

/// Directories and regular files of the listing. Symbolic links are left out, as `pg_basebackup` does: where they
/// lead is not part of the cluster, and on another host it is somebody else's file.
pub(super) fn sources(listing: Listing) -> (Vec<SourceDirectory>, Vec<SourceFile>) {
    let mut directories = vec![directory(listing.root)];
    let mut files = Vec::new();
    for entry in listing.entries {
        match entry.kind {
            EntryKind::Directory => directories.push(directory(entry)),
            EntryKind::File { size } => {
                files.push(SourceFile {
                    relative: entry.relative,
                    absolute: entry.absolute,
                    size,
                });
            }
            EntryKind::Symlink { .. } => {}
        }
    }
    (directories, files)
}

/// Partition 0 has the directories, the following ones the files; the last one comes later.
pub(super) fn parts_of(files: &[SourceFile], workers: usize) -> Vec<PartitionJob> {
    let planned: Vec<PlannedFile<'_>> = files
        .iter()
        .map(|file| PlannedFile {
            path: &file.relative,
            size: file.size,
        })
        .collect();
    let total = files.iter().map(|file| file.size).sum();
    let plan = PartitionPlan::new(&planned, &PlanLimits::for_total(total, workers));
    let mut parts = vec![PartitionJob {
        number: 0,
        files: None,
    }];
    let files = plan.partitions().iter().cloned().map(Some);
    parts.extend(
        (1..)
            .zip(files)
            .map(|(number, files)| PartitionJob { number, files }),
    );
    parts
}

fn directory(entry: Entry) -> SourceDirectory {
    let meta = Meta {
        mode: entry.mode & 0o7777,
        uid: u64::from(entry.uid),
        gid: u64::from(entry.gid),
        mtime: u64::try_from(DateTime::<Utc>::from(entry.mtime).timestamp()).unwrap_or(0),
    };
    SourceDirectory {
        relative: entry.relative,
        meta,
    }
}
