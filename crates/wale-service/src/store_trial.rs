//! This finds out at the start what the store does and does not do, so that the log says it before it matters.
//!
//! The store itself warns; this only asks it to check. A failure that a repetition does not mend is reported, because
//! pushes will fail for the same reason. The retries themselves report one that may heal.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::OpError;

use crate::app::App;
use crate::remedy::advice;

/// Between two tries while the store cannot be asked.
const EVERY: Duration = Duration::from_mins(1);

/// Tries the store until it could be. May be dropped at any await.
pub(crate) async fn run(app: Arc<App>) {
    let mut told = String::new();
    while let Err(error) = app.archive.store().try_out().await {
        let is_transient = error.is_transient();
        let error = OpError::from_store(error, "try the store");
        let text = error.chain();
        if !is_transient && text != told {
            let hint = advice(&error).unwrap_or_default();
            tracing::warn!(kind = error.kind.name(), hint, "pushes will fail: {text}");
            told = text;
        }
        tokio::time::sleep(EVERY).await;
    }
}
