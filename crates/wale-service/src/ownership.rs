//! Whose archive it is, and whether the keys are its keys, asked from the start: a sidecar with another cluster's prefix says so
//! before anything is pushed, and so does one whose encryption is not the archive's.
//!
//! It refuses no request: wale-ops compares everything that is pushed, fetched or backed up each time. Invariant: only
//! an answer counts; a store that is silent, or a data directory that is still empty, is no mismatch.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::Kind;
use wale_ops::ownership::{self, Ownership};
use wale_ops::retry::Pauses;

use crate::app::App;
use crate::journal::log_failure;
use crate::lifecycle::Topic;

/// Pauses between checks, doubled from the first to the last, until the two are known to belong together. A check is
/// one small request: 1,440 a day at most, while somebody has to put the prefix right or nothing was ever archived.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Checks until the archive is known to be the cluster's own. May be dropped at any await.
pub(crate) async fn watch(app: Arc<App>) {
    let mut pauses = Pauses::new(PAUSE, PAUSE_MAX);
    let mut told = None;
    loop {
        match ownership::check(&app.archive, &app.data_directory, &app.wal_directory).await {
            // The pushes are refused for it; this reports it before the first one.
            Ok(Ownership::Lost(text)) => {
                if told.as_ref() != Some(&text) {
                    tracing::error!("{text}");
                }
                app.life.complain(Topic::Identity, text.clone());
                told = Some(text);
            }
            Ok(found) => {
                app.life.resolve(Topic::Identity);
                if found == Ownership::Own {
                    return;
                }
                told = None;
            }
            Err(error) => {
                let text = error.chain();
                if told.as_ref() != Some(&text) {
                    log_failure("the identity of the archive", &error);
                }
                if matches!(error.kind, Kind::ArchiveMismatch | Kind::Configuration) {
                    app.life.complain(Topic::Identity, text.clone());
                }
                told = Some(text);
            }
        }
        tokio::time::sleep(pauses.take()).await;
    }
}
