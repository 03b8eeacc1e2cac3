//! Whether the archive answers: checked from the start and then every minute, and reported by readiness.
//!
//! Without it a sidecar whose folder, bucket or network is not there is "ready" until the first push fails, which on a
//! quiet server takes as long as `archive_timeout`. It refuses to know what the archive holds. Invariants: `/startupz`
//! does not wait for it; only an answer of the store turns readiness on, and only a failure to answer turns it off. An
//! archive that this process has seen, and that answers without its identity, was emptied: that is no answer.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::OpError;
use wale_ops::retry::Pauses;

use crate::app::App;
use crate::journal::log_failure;
use crate::lifecycle::{Lifecycle, Topic};

/// Between two checks while all is well. A check is one small request: 1,440 a day.
const EVERY: Duration = Duration::from_mins(1);

/// The pause after a check that failed, doubled up to [`EVERY`].
const AGAIN: Duration = Duration::from_secs(2);

/// A failed fetch is forgotten when none has failed for so long: on a primary nobody fetches, so no success would ever
/// clear it. Recovery asks again within seconds.
const FETCH_REMEMBERED: Duration = Duration::from_mins(3);

/// Looks for ever. May be dropped at any await.
pub(crate) async fn watch(app: Arc<App>) {
    let mut pauses = Pauses::new(AGAIN, EVERY);
    let mut told = None;
    loop {
        let answer = app.archive.ensure_still_there().await;
        let answered = note(&app.life, answer.as_ref().err());
        if let Err(error) = answer
            && !answered
            && told.replace(error.kind) != Some(error.kind)
        {
            log_failure("the archive", &error);
        }
        if answered {
            if told.take().is_some() {
                tracing::info!(
                    archive = app.archive.location(),
                    "the archive answers again"
                );
            }
            app.life.forget(Topic::WalFetch, FETCH_REMEMBERED);
            app.backups.forget_failure();
            pauses = Pauses::new(AGAIN, EVERY);
            tokio::time::sleep(EVERY).await;
        } else {
            tokio::time::sleep(pauses.take()).await;
        }
    }
}

/// Takes a check's outcome into account. Returns whether the archive answered.
fn note(life: &Lifecycle, failure: Option<&OpError>) -> bool {
    match failure {
        None => life.resolve(Topic::Archive),
        Some(error) => life.complain(Topic::Archive, error.chain()),
    }
    failure.is_none()
}

#[cfg(test)]
mod tests {
    use wale_ops::Kind;

    use super::*;
    use crate::lifecycle::{NOT_YET, Phase};

    #[test]
    fn fault_70_only_an_answer_makes_ready_and_a_failure_says_why() {
        let life = Lifecycle::new();
        life.complain(Topic::Archive, NOT_YET.to_owned());
        life.ready();
        assert!(life.phase().started(), "the database may start");
        assert_eq!(life.phase(), Phase::Degraded);
        let refused = OpError::new(Kind::PermissionDenied, "the store refuses access");
        assert!(!note(&life, Some(&refused)));
        assert_eq!(life.reasons()[&Topic::Archive], "the store refuses access");
        assert!(note(&life, None));
        assert_eq!(life.phase(), Phase::Ready);
    }
}
