//! `serve`: the sidecar.

use wale_ops::OpError;
use wale_service::HttpLimits;

use crate::assemble::{self, VERSION};
use crate::bounds::Bounds;
use crate::config::{Loaded, Settings, declared};
use crate::report::Failure;
use crate::runtime::{self, Signals};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require_first()?;
    Ok(runtime::large(streams(settings))?.block_on(serve(settings, loaded))?)
}

/// Partitions and segments that may move at a time: a base backup or a restore, the pushes that are
/// asked for and those ahead, the fetches that are asked for and those ahead. Requests beyond wait. Files
/// that go to slow readers have threads of their own, so that a push never waits for one.
fn streams(settings: &Settings) -> usize {
    const REQUESTED: usize = 8;
    settings
        .get(&declared::WALE_BACKUP_WORKERS)
        .max(settings.get(&declared::WALE_RESTORE_WORKERS))
        + REQUESTED
        + HttpLimits::default().files_at_once
        + settings.get(&declared::WALE_PUSH_LOOK_AHEAD)
        + settings.get(&declared::WALE_FETCH_PREFETCH)
}

async fn serve(settings: &Settings, loaded: &Loaded) -> Result<(), OpError> {
    let signals = Signals::listen()?;
    let opened = assemble::archive(settings, Bounds::of_sidecar(settings))?;
    let readers = assemble::readers(loaded, &opened.archive)?;
    let further = assemble::further(&opened.archive, &loaded.further);
    let options = assemble::service(settings, opened.archive, readers, further)?;
    let schedule = options.schedule.as_ref();
    tracing::info!(
        version = VERSION,
        mode = options.mode.name(),
        archive = options.archive.location(),
        further_archives = options.further.len(),
        listen = %options.listen,
        schedule = schedule.map_or("off", |schedule| schedule.text()),
        "starting"
    );
    signals
        .shut_down(|shutdown| {
            // Boxed: the service's own state is tens of kilobytes.
            Box::pin(wale_service::serve(options, async {
                // A sender that is gone means the same: it lives as long as this work.
                let _ = shutdown.await;
            }))
        })
        .await
}
