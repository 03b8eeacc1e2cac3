//! The lock file: while it exists the database container waits.
//!
//! It refuses to care whether there is one: no current image makes it, and its absence never blocks. Invariant: it is
//! only removed once the sidecar listens and the database may start; from then on one that appears later (the database
//! was restarted) is removed too.

use std::time::Duration;

use wale_ops::{Kind, LockFile, OpError};

/// How often a lock that appears later is looked for: a database that is restarted waits so long at most, and a sidecar at rest
/// does next to nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Removes the lock, and every later one. Runs for ever; may be dropped at any await.
pub(crate) async fn keep_removed(lock: LockFile) {
    let mut failing = false;
    loop {
        match remove(&lock).await {
            Ok(removed) => {
                if removed {
                    tracing::info!(path = %lock.path().display(), "lock file removed: the database may start");
                }
                failing = false;
            }
            // Once, not every second.
            Err(error) if !failing => {
                tracing::error!("{}", error.chain());
                failing = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes the lock if there is one; whether there was.
async fn remove(lock: &LockFile) -> Result<bool, OpError> {
    let file = lock.clone();
    let removing = tokio::task::spawn_blocking(move || {
        if file.exists() {
            file.remove()
        } else {
            Ok(false)
        }
    });
    match removing.await {
        Ok(removed) => removed.map_err(|error| {
            OpError::from_cluster(
                error,
                format_args!("remove the lock file {}", lock.path().display()),
            )
        }),
        Err(error) => {
            Err(OpError::new(Kind::Internal, "the removal of the lock file died").source(error))
        }
    }
}
