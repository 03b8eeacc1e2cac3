//! Pushes under way, and the order in which they may end.
//!
//! PostgreSQL hands its files over one after the other, and stops at one that is refused. A file that is pushed ahead
//! of its request must not break that order. Take two servers that archive diverging histories into one archive. The
//! one that is refused at segment *n* would otherwise have stored its *n + 1* already, and the other one would be
//! refused there. So a file that is pushed ahead appears in the archive only after all files before it did. Reading and
//! compressing do not wait, only the end of the object's body does.

use std::sync::Arc;

use tokio::sync::watch;
use wale_pg::ArchiveFileName;

use super::report::PushReport;
use crate::error::{Kind, OpError, Result};

/// What a push came to; `None` as long as it runs.
pub(super) type Outcome = Option<Arc<Result<PushReport>>>;

/// A push that runs or waits for its permit.
#[derive(Clone, Debug)]
pub(super) struct RunningPush {
    pub(super) outcome: watch::Receiver<Outcome>,
    pub(super) ahead: bool,
}

impl RunningPush {
    /// Waits for the end of the push.
    pub(super) async fn ended(&self) -> Result<PushReport> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(ended) => match ended.as_deref() {
                Some(Ok(report)) => Ok(report.clone()),
                Some(Err(error)) => Err(error.duplicate()),
                None => Err(OpError::internal("a push ended without a result")),
            },
            Err(_) => Err(OpError::new(
                Kind::Cancelled,
                "the push was stopped before its end",
            )),
        }
    }
}

/// The pushes that must succeed before this one may. At most as many as the look-ahead window and the request.
#[derive(Clone, Debug, Default)]
pub(super) struct PushOrder {
    before: Vec<(ArchiveFileName, RunningPush)>,
}

impl PushOrder {
    /// Nobody is before: for files that were asked for.
    pub(super) fn now() -> Self {
        Self::default()
    }

    /// Adds a push that must succeed first.
    pub(super) fn after(&mut self, name: ArchiveFileName, push: RunningPush) {
        self.before.push((name, push));
    }

    /// Waits until every push before this one has succeeded. A push that waits here holds nothing that those before it
    /// need: requests have permits of their own, and files ahead begin in order.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] when one of them failed. A repetition does not help before that one was repeated.
    pub(super) async fn arrived(&self, name: &ArchiveFileName) -> Result<()> {
        for (earlier, push) in &self.before {
            push.ended().await.map_err(|error| {
                OpError::new(
                    Kind::Cancelled,
                    format!("{name} is not archived ahead of {earlier}, which failed"),
                )
                .source(error)
            })?;
        }
        Ok(())
    }
}
