//! `serve`: the sidecar.

use std::sync::Arc;

use wale_ops::OpError;
use wale_service::HttpLimits;
use wale_storage::Store;

use crate::assemble::{self, Bounds, STALE_AFTER, VERSION};
use crate::config::{Loaded, Settings};
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require_all()?;
    Ok(runtime::large(streams(settings))?.block_on(serve(settings))?)
}

/// Partitions and segments that may move at a time: a base backup or a restore, the pushes that are
/// asked for and those ahead, the fetches that are asked for and those ahead. Requests beyond wait. Files
/// that go to slow readers have threads of their own, so that a push never waits for one.
fn streams(settings: &Settings) -> usize {
    const REQUESTED: usize = 8;
    settings.backup_workers.max(settings.restore_workers)
        + REQUESTED
        + HttpLimits::default().files_at_once
        + settings.push_look_ahead
        + settings.fetch_prefetch
}

async fn serve(settings: &Settings) -> Result<(), OpError> {
    let signals = Signals::listen()?;
    let opened = assemble::archive(settings, Bounds::of_sidecar(settings))?;
    let options = assemble::service(settings, opened.archive)?;
    tracing::info!(
        version = VERSION,
        mode = options.mode.name(),
        archive = options.archive.location(),
        listen = %options.listen,
        schedule = settings.schedule.as_ref().map_or("off", |schedule| schedule.text()),
        "starting"
    );
    let sweep = sweep(opened.store);
    signals
        .shut_down(|shutdown| async move {
            // Boxed: the service's own state is tens of kilobytes.
            let mut service = Box::pin(wale_service::serve(options, async {
                // A sender that is gone means the same: it lives as long as this work.
                let _ = shutdown.await;
            }));
            tokio::select! {
                result = &mut service => return result,
                () = sweep => {}
            }
            service.await
        })
        .await
}

/// Removes what crashes left in the archive: unfinished writes, never an object.
async fn sweep(store: Arc<dyn Store>) {
    match store.discard_unfinished(STALE_AFTER).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(
            removed,
            "removed unfinished writes that a crash left in the archive"
        ),
        Err(error) => tracing::warn!(%error, "could not look for unfinished writes in the archive"),
    }
}
