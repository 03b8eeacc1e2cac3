//! A token that is rotated in its file reaches the servers that got it from a restore.
//!
//! The endpoint itself reads its file at each request. A restored server shows the token of a file in its data
//! directory, which the restore wrote. So that file is written anew, at the start and whenever the token changes.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::{Secret, renew_authorization};

use crate::app::App;
use crate::options::HttpToken;

/// Between two checks: two small reads. A recovery that asks with the old token within this time is refused, and stops
/// unharmed; a standby asks again.
const EVERY: Duration = Duration::from_secs(1);

/// Checks until it is dropped. Without a file nothing changes, and nothing is done.
pub(crate) async fn watch(app: Arc<App>, token: Option<HttpToken>) {
    let Some(token) = token else { return };
    let mut last = None;
    let mut is_told = false;
    loop {
        if let Some(now) = token.in_file()
            && last.as_ref() != Some(&now)
        {
            let (data_directory, shown) = (app.data_directory.clone(), Secret::new(now.clone()));
            let renew = move || renew_authorization(&data_directory, &shown);
            match tokio::task::spawn_blocking(renew).await {
                Ok(Ok(true)) => {
                    tracing::info!(
                        "the token was rotated: the restored server shows the new one from now on"
                    );
                    (last, is_told) = (Some(now), false);
                }
                Ok(Ok(false)) => (last, is_told) = (Some(now), false),
                Ok(Err(error)) if !is_told => {
                    is_told = true;
                    tracing::warn!(
                        %error,
                        hint = "let the sidecar write into the data directory: until then recovery is refused with the old token",
                        "the token was rotated, but the restored server's copy could not be renewed"
                    );
                }
                // It is tried again, or the process is shutting down.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
