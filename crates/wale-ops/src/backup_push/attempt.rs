//! One attempt at a base backup, of whichever kind of server: its claim is kept, and a failure takes back what was written.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use wale_archive::Archive;
use wale_pipeline::{CancellationToken, Progress};

use super::backup::Backup;
use super::backup_end::BackupEnd;
use super::commit::Committed;
use super::copied::Copied;
use super::ended::Ended;
use super::options::BackupOptions;
use super::report::BackupReport;
use super::uploads::Uploads;
use crate::error::Result;
use crate::rival;

/// Runs one attempt; removes what it wrote when it fails.
pub(super) async fn attempt(
    archive: &Archive,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancellationToken,
    take: impl AsyncFnOnce(&Backup<'_>) -> Result<Committed>,
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
        Ok(committed) => {
            uploads.release().await;
            let rivals = rivals(archive, &committed).await;
            Ok(committed.report(rivals, begun.elapsed()))
        }
        Err(error) => {
            progress.set_phase("removing what was written");
            uploads.remove_all().await;
            // Work that lost the claim was stopped for that; what it says itself is not the reason.
            Err(kept.err().unwrap_or(error))
        }
    }
}

/// The steps from the copied files to the commit. Each consumes the one before, so none can be left out: no sentinel is stored
/// before the WAL is there.
pub(super) async fn finish(
    backup: &Backup<'_>,
    copied: Copied,
    ending: BackupEnd,
) -> Result<Committed> {
    let ended = Ended::new(copied, ending, backup.archive.clock().now())?;
    let stored = ended.store(backup).await?;
    let restorable = stored.with_wal(backup).await?;
    restorable.commit(backup).await
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

/// Sentences for the user, where LATEST does not choose this backup.
async fn rivals(archive: &Archive, committed: &Committed) -> Vec<String> {
    let (started, stop_lsn) = (committed.started(), committed.stop_lsn());
    match rival::warnings(archive, &started.name, started.timeline, stop_lsn).await {
        Ok(warnings) => warnings,
        Err(error) => {
            tracing::info!(
                "could not check whether LATEST chooses this backup: {}",
                error.chain()
            );
            Vec::new()
        }
    }
}
