//! Whether the archive's newest timeline is another server's, while the primary here goes on beside it: reported in the
//! log, in `/status` and as a note of `/readyz`, from the start on.
//!
//! It refuses to judge: wale-ops does. It fails no probe, because archiving goes on. Everything may be dropped at any await.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::rival;

use crate::app::App;
use crate::journal::log_failure;

/// Between two checks. A check lists the base backups (10 requests for 100 of 100 partitions each) and asks for eight
/// histories under each of the codecs' names, some 40 requests: 7,000 a day, which is less than a cent on S3.
const EVERY: Duration = Duration::from_mins(10);

/// Looks for ever, and after each base backup.
pub(crate) async fn watch(app: Arc<App>) {
    let mut completions = app.backups.completions();
    let mut failed = None;
    loop {
        let looked = rival::look(&app.archive, &app.data_directory, app.wal_directory.path()).await;
        match looked {
            Ok(found) => {
                failed = None;
                note(&app, found.map(|found| found.of_server()));
            }
            Err(error) => {
                let text = error.chain();
                if failed.as_ref() != Some(&text) {
                    log_failure("the check for timelines of other servers", &error);
                }
                failed = Some(text);
            }
        }
        // Their sender lives as long as the application does.
        let _ = tokio::time::timeout(EVERY, completions.changed()).await;
    }
}

fn note(app: &App, said: Option<String>) {
    let known = app.journal.entries().newest_is_anothers;
    match &said {
        Some(said) if known.as_ref() != Some(said) => {
            tracing::warn!(hint = rival::HINT, "{said}");
        }
        None if known.is_some() => {
            tracing::info!("the newest timeline of the archive is this server's again");
        }
        _ => {}
    }
    app.journal
        .note(|entries| entries.newest_is_anothers = said);
}
