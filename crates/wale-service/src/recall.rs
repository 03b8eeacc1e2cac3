//! What the archive remembers about the time before this process: `/status` and the schedule survive a restart.
//!
//! Read only. It refuses to judge: an archive that cannot be read is asked again, with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_ops::backup_list::{self, BackupSummary};
use wale_ops::retry::Pauses;
use wale_ops::{Archive, OpError};

use crate::app::App;
use crate::journal::{BackupRecord, Journal};
use crate::metrics::Metrics;

/// Between two checks for backups that another process took: `wal-e backup-push` in this container, another sidecar. A
/// check lists the backups' objects and reads each sentinel: 144 times a day.
const EVERY: Duration = Duration::from_mins(10);

/// The first pause after the store did not answer; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Fills in the last backup, and returns until when a schedule is already served: the newest backup's beginning,
/// otherwise the archive's own, otherwise now, since without an archive nothing was missed.
pub(crate) async fn recall(
    archive: &Archive,
    journal: &Journal,
    metrics: &Metrics,
) -> DateTime<Utc> {
    let mut pauses = Pauses::new(PAUSE, PAUSE_MAX);
    loop {
        match read(archive, journal, metrics).await {
            // A backup "from the future" of a clock that was set back must not silence the schedule.
            Ok(base) => {
                return base
                    .unwrap_or_else(|| archive.clock().now())
                    .min(archive.clock().now());
            }
            Err(error) => {
                tracing::warn!(
                    kind = error.kind.name(),
                    "cannot tell which base backups exist, asking again: {}",
                    error.chain()
                );
            }
        }
        tokio::time::sleep(pauses.take()).await;
    }
}

/// Takes note of backups that another process took, for ever. May be dropped at any await.
pub(crate) async fn keep_looking(app: Arc<App>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = read(&app.archive, &app.journal, &app.metrics).await {
            tracing::debug!("cannot tell which base backups exist: {}", error.chain());
        }
    }
}

async fn read(
    archive: &Archive,
    journal: &Journal,
    metrics: &Metrics,
) -> Result<Option<DateTime<Utc>>, OpError> {
    let backups = backup_list::run(archive).await?;
    let Some(newest) = backups.iter().max_by_key(|backup| began(backup)) else {
        return Ok(archive
            .identity()
            .await?
            .map(|identity| identity.created_at));
    };
    let record = record_of(newest);
    journal.note(|entries| {
        let known = entries.last_backup.as_ref();
        let is_news = |known: &BackupRecord| {
            known.name != record.name && known.stopped_at < record.stopped_at
        };
        if known.is_none_or(is_news) {
            metrics.recalled_backup(
                record.bytes,
                record.stored_bytes,
                record.duration,
                record.stopped_at,
            );
            entries.last_backup = Some(record);
        }
    });
    Ok(Some(began(newest)))
}

fn began(backup: &BackupSummary) -> DateTime<Utc> {
    backup.start_time.unwrap_or(backup.modified)
}

fn record_of(backup: &BackupSummary) -> BackupRecord {
    let stopped_at = backup.stop_time.unwrap_or(backup.modified);
    BackupRecord {
        name: backup.name.to_string(),
        started_at: began(backup),
        stopped_at,
        duration: (stopped_at - began(backup)).to_std().unwrap_or_default(),
        files: backup.files.unwrap_or_default(),
        bytes: backup.expanded_size_bytes.unwrap_or_default(),
        stored_bytes: backup.stored_bytes.unwrap_or_default(),
        damaged_pages: backup.damaged_pages,
        warnings: Vec::new(),
    }
}
