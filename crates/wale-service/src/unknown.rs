//! What this version does not know of the server and of the archive's WAL, reported from the start: in the log, in
//! `/status` and by a metric each.
//!
//! It refuses to judge: wale-ops does. Neither fails a probe, because archiving goes on. Everything may be dropped at any
//! await.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::retry::Pauses;
use wale_ops::{unknown_server, unreadable_wal};

use crate::app::App;
use crate::journal::{UnreadableWalRecord, log_failure};

/// Between two checks of the data directory: two small files. It may be empty at first, and a container may be started
/// with a newer server.
const EVERY: Duration = Duration::from_mins(1);

/// The pause after a listing that failed, doubled up to [`LISTING_AGAIN_MAX`].
const LISTING_AGAIN: Duration = Duration::from_mins(1);
const LISTING_AGAIN_MAX: Duration = Duration::from_hours(1);

/// Looks at the server for ever.
pub(crate) async fn watch_server(app: Arc<App>) {
    loop {
        match unknown_server::look(&app.data_directory).await {
            Ok(found) => {
                let said = found.map(|found| found.consequence());
                let known = app.journal.entries().unknown_server;
                if said != known
                    && let Some(said) = &said
                {
                    tracing::warn!(
                        hint = "use a version of wale that knows this server",
                        "{said}"
                    );
                }
                app.metrics.unknown_server(said.is_some());
                app.journal.note(|entries| entries.unknown_server = said);
            }
            Err(error) => log_failure("the check of the server's version", &error),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks through the archive's WAL once.
pub(crate) async fn look_for_unreadable(app: Arc<App>) {
    let mut pauses = Pauses::new(LISTING_AGAIN, LISTING_AGAIN_MAX);
    loop {
        match unreadable_wal::look(&app.archive).await {
            Ok(None) => return app.metrics.unreadable(0),
            Ok(Some(found)) => {
                tracing::warn!(
                    segments = found.segments,
                    example = found.example,
                    hint = "keep the tool and the keys that wrote it for as long as its backups count; take a base backup now",
                    "{}",
                    found.consequence()
                );
                app.metrics.unreadable(found.segments);
                let record = UnreadableWalRecord {
                    segments: found.segments,
                    example: found.example,
                };
                app.journal
                    .note(|entries| entries.unreadable_wal = Some(record));
                return;
            }
            Err(error) => log_failure("the check for WAL that cannot be read", &error),
        }
        tokio::time::sleep(pauses.take()).await;
    }
}
