//! The first step of a backup: its files are copied into the archive.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wale_cluster::{ClusterError, WalkOptions, recovery, restore_marker};
use wale_pipeline::{blocking, run_workers};

use super::backup::Backup;
use super::files::{PageVerification, SourcePlaces};
use super::listing::{ListingFacts, list, parts_of};
use super::packed::SourceFile;
use super::partitions::{
    CopyJob, PartitionJob, SourceDirectory, StoredPartition, make_partition, threads_per_lane,
    worker_bytes,
};
use super::ready::Ready;
use super::report::Started;
use super::throttle::Throttle;
use crate::error::{OpError, Result};

/// A backup whose files are stored, all but those that come last.
pub(super) struct Copied {
    pub(super) ready: Ready,
    pub(super) started: Started,
    pub(super) partitions: Vec<StoredPartition>,
    /// `global/pg_control` as it was read after all other files.
    pub(super) control_bytes: Vec<u8>,
    pub(super) listing: ListingFacts,
}

impl Backup<'_> {
    /// Copies all files, and `wal` beside those of the listing; gives up at once when the server's session is `lost`.
    pub(super) async fn copy(
        &self,
        ready: Ready,
        started: Started,
        wal: Vec<SourceFile>,
        lost: impl Future<Output = ClusterError>,
    ) -> Result<Copied> {
        self.progress.set_phase("listing files");
        let workers = self.options.workers_on(self.archive.line());
        let (directories, parts, listing) = self.plan(&ready, wal, workers).await?;
        let job = Arc::new(CopyJob {
            name: started.name.clone(),
            archive: self.archive.clone(),
            directories,
            places: SourcePlaces {
                data: ready.directory.path().to_owned(),
                wal: self.options.wal_directory.clone(),
            },
            verify: verification(&ready, &started),
            policy: self.options.damaged_pages,
            throttle: Throttle::new(
                self.options.read_rate,
                self.options.processors,
                Instant::now(),
            ),
            progress: self.progress.clone(),
            uploads: Arc::clone(self.uploads),
            runtime: Handle::current(),
            lanes: Arc::new(Semaphore::new(workers)),
        });
        let bytes = worker_bytes(self.archive) * workers as u64;
        let _memory = self
            .unless_cancelled(self.archive.budget().acquire(bytes))
            .await?;
        self.progress.set_phase("copying files");

        let token = self.cancel.child_token();
        let crew = self
            .options
            .priority
            .crew(workers * threads_per_lane(self.archive));
        let work = run_workers(parts, crew, &token, move |part, token| {
            make_partition(&job, &part, &token)
        });
        tokio::pin!(work);
        let partitions = tokio::select! {
            partitions = &mut work => partitions?,
            error = lost => {
                token.cancel();
                // The workers end at their next piece; what they say about it does not matter any more.
                let _ = work.await;
                return Err(OpError::from_cluster(error, "keep the base backup open"));
            }
        };
        let directory = ready.directory.clone();
        let (_, control_bytes) = blocking(move || directory.control_bytes())
            .await?
            .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))?;
        Ok(Copied {
            ready,
            started,
            partitions,
            control_bytes,
            listing,
        })
    }

    /// Lists the files, with `wal` after them, and decides which partition each goes to.
    async fn plan(
        &self,
        ready: &Ready,
        wal: Vec<SourceFile>,
        workers: usize,
    ) -> Result<(Vec<SourceDirectory>, Vec<PartitionJob>, ListingFacts)> {
        let directory = ready.directory.clone();
        let mut ignore = self.options.ignore.clone();
        // A note about an earlier restore is not part of the cluster, and secrets of wale's own never leave it.
        ignore.push(restore_marker::FILE_NAME.to_owned());
        ignore.push(recovery::AUTHORIZATION_FILE.to_owned());
        ignore.push(recovery::SETTINGS_FILE.to_owned());
        let walk = WalkOptions {
            major: ready.major,
            ignore,
        };
        let progress = self.progress.clone();
        let plan = move || {
            let mut listed = list(&directory, &walk)?;
            listed.files.extend(wal);
            progress.set_total(listed.files.bytes());
            progress.set_total_files(listed.files.files());
            let parts = parts_of(&listed.files, workers);
            Ok((listed.directories, parts, listed.facts))
        };
        blocking(plan)
            .await?
            .map_err(|error| OpError::from_cluster(error, "list the files of the data directory"))
    }
}

/// What the verification of pages needs; `None` where pages have no checksums.
fn verification(ready: &Ready, started: &Started) -> Option<PageVerification> {
    let control = &ready.control_file;
    control.has_data_checksums().then(|| PageVerification {
        start_lsn: started.start_lsn,
        blocks_per_segment: control.blocks_per_segment,
        directory: ready.directory.clone(),
    })
}
