//! The settings that a restore wrote to steer its recovery go when the recovery has ended.
//!
//! It checks two small files every other second, from the start on until there is nothing to do. It refuses to know
//! how settings are taken back (wale-ops).

use std::sync::Arc;
use std::time::Duration;

use wale_ops::promotion::{self, Pending, RecoveryProgress};

use crate::app::App;
use crate::journal::PromotionRecord;

/// Between two checks while the recovery goes on: some calls of `stat` and a read of 8 KiB. A standby that is cloned
/// within this time after the promotion still inherits the target.
const EVERY: Duration = Duration::from_secs(2);

/// After a failure: somebody must mend it first.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// Checks until it is done, or there is nothing to do. May be dropped at any await.
pub(crate) async fn watch(app: Arc<App>) {
    let mut is_told = false;
    loop {
        let pending = match promotion::look(&app.data_directory).await {
            Ok(RecoveryProgress::Nothing) => return,
            Ok(RecoveryProgress::Waiting) => {
                tokio::time::sleep(EVERY).await;
                continue;
            }
            Ok(RecoveryProgress::Ended(pending)) => pending,
            Err(error) => {
                // The code that needs the directory reports it; this one may never have been restored.
                tracing::debug!("could not check the recovery settings: {}", error.chain());
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let Err(error) = take_back(&app, *pending).await else {
            return;
        };
        if !is_told {
            tracing::warn!(
                hint = "remove them yourself before a standby is cloned: ALTER SYSTEM RESET recovery_target_time, and so on",
                "the recovery settings of the restore could not be taken back: {}",
                error.chain()
            );
        }
        is_told = true;
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

async fn take_back(app: &App, pending: Pending) -> Result<(), wale_ops::OpError> {
    let now = app.archive.clock().now();
    let done = promotion::take_back(&app.data_directory, &app.connect, pending, now).await?;
    if done.settings.is_empty() {
        return Ok(());
    }
    tracing::info!(
        settings = done.settings.join(" "),
        "the recovery of the restored server has ended: the settings that steered it are taken out of postgresql.auto.conf"
    );
    let record = PromotionRecord {
        at: done.at,
        removed_settings: done.settings,
    };
    app.journal.note(|entries| entries.promotion = Some(record));
    Ok(())
}
