//! The straight line of a base backup of a running server. What each step may refuse stands in `plan` and `preflight`.

use wale_archive::{Archive, former};
use wale_cluster::{Control, RunningBackup};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress, blocking};

use super::attempt::{attempt, finish};
use super::backup::Backup;
use super::backup_end::{BackupEnd, RunningEnd};
use super::commit::Committed;
use super::forks::Forks;
use super::options::BackupOptions;
use super::ready::{Ready, RunningServer};
use super::report::{BackupReport, Started};
use super::{plan, preflight, slot};
use crate::error::{OpError, Result};

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
    options: &BackupOptions,
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

impl Backup<'_> {
    async fn take(&self, on_started: impl FnOnce(&Started) + Send) -> Result<Committed> {
        self.progress.set_phase("checking");
        let (ready, server, session) = self
            .unless_cancelled(preflight::prepare(self.archive, self.options))
            .await??;
        self.progress
            .set_phase("waiting for the server's checkpoint");
        let (running, started) = self.start(&ready, &server, session).await?;
        on_started(&started);
        tracing::info!(backup = %started.name, start_lsn = %started.start_lsn, "base backup started");

        self.occupy(&started.name, &ready.version).await?;
        let forks = Forks::note(
            self.archive,
            self.options,
            started.timeline,
            ready.control_file.wal_segment_size,
            server.in_recovery,
        )
        .await;
        let copied = self
            .copy(ready, started, Vec::new(), running.lost())
            .await?;
        self.progress.set_phase("stopping");
        let stopped = self
            .unless_cancelled(running.stop())
            .await?
            .map_err(|error| OpError::from_cluster(error, "end the base backup on the server"))?;
        let end = RunningEnd {
            server,
            stopped,
            forks,
        };
        finish(self, copied, BackupEnd::Running(Box::new(end))).await
    }

    async fn start(
        &self,
        ready: &Ready,
        server: &RunningServer,
        session: Control,
    ) -> Result<(RunningBackup, Started)> {
        let now = self.archive.clock().now();
        let label = former::label(&self.options.label_prefix, now, &self.archive.location());
        let running = self
            .unless_cancelled(RunningBackup::start(
                session,
                &label,
                self.options.checkpoint,
            ))
            .await?
            .map_err(|error| OpError::from_cluster(error, "start a base backup on the server"))?;
        let started_at = self.archive.clock().now();
        // The checkpoint that begins the backup is in the control file now, and with it the timeline.
        let control_file = control_file(ready).await?;
        let start_lsn = running.start_lsn();
        plan::same_server(server.in_recovery, start_lsn, &control_file)?;
        let size = ready.control_file.wal_segment_size;
        let started = Started::at(control_file.timeline, start_lsn, size, started_at);
        Ok((running, started))
    }
}

async fn control_file(ready: &Ready) -> Result<ControlFile> {
    let directory = ready.directory.clone();
    blocking(move || directory.control_file())
        .await?
        .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))
}
