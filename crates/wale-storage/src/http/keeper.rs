//! Credentials that are in use, and when they are asked for again.
//!
//! Temporary ones are renewed five minutes before they expire; any are asked for again when the store refuses them,
//! because a file may have been rotated. How they are granted is the store's own: it hands in the question, which is
//! asked only when it is due. Nothing here is ever printed.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::Failure;

/// Temporary credentials are renewed when less than this is left of them: a request may take minutes.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// Credentials that the store refused, and that were asked for again, are not asked for once more sooner than this, so that a
/// store which refuses everything makes no storm at their source.
const PAUSE_REFUSED: Duration = Duration::from_secs(1);

/// Credentials that are about to end and could not be renewed are asked for again after this.
const PAUSE_RENEWAL: Duration = Duration::from_secs(10);

/// Credentials, and when they end.
#[derive(Debug, Clone)]
pub(crate) struct Granted<C> {
    pub(crate) credentials: C,
    pub(crate) expires: Option<DateTime<Utc>>,
}

/// Keeps the credentials that are in use.
#[derive(Debug)]
pub(crate) struct Keeper<C> {
    kept: Mutex<Option<Kept<C>>>,
}

impl<C> Default for Keeper<C> {
    fn default() -> Self {
        Self {
            kept: Mutex::new(None),
        }
    }
}

#[derive(Debug)]
struct Kept<C> {
    credentials: Arc<C>,
    expires: Option<DateTime<Utc>>,
    asked: Instant,
    /// Whether they were asked for because the ones before them were refused.
    after_refusal: bool,
}

impl<C> Kept<C> {
    /// Whether less than this is left of them.
    fn ends_within(&self, time: Duration) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Utc::now() + time)
    }
}

impl<C: PartialEq> Keeper<C> {
    /// The credentials to use. `grant` asks for them where there are none, or not for much longer.
    pub(crate) async fn get(
        &self,
        grant: impl Future<Output = Result<Granted<C>, Failure>>,
    ) -> Result<Arc<C>, Failure> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = &*kept
            && (!kept.ends_within(RENEW_BEFORE) || kept.asked.elapsed() < PAUSE_RENEWAL)
        {
            return Ok(Arc::clone(&kept.credentials));
        }
        let failure = match grant.await {
            Ok(granted) => return Ok(keep(&mut kept, granted, false)),
            Err(failure) => failure,
        };
        match &mut *kept {
            Some(kept) if !kept.ends_within(Duration::ZERO) => {
                tracing::warn!(reason = %failure, "the credentials could not be renewed yet");
                kept.asked = Instant::now();
                Ok(Arc::clone(&kept.credentials))
            }
            _ => Err(failure),
        }
    }

    /// When those in use end, where they say it and nobody is renewing them at this moment.
    pub(crate) fn expires(&self) -> Option<DateTime<Utc>> {
        self.kept.try_lock().ok()?.as_ref()?.expires
    }

    /// Other credentials than these, which were refused; `None` when `grant` has none.
    pub(crate) async fn other_than(
        &self,
        refused: &Arc<C>,
        grant: impl Future<Output = Result<Granted<C>, Failure>>,
    ) -> Result<Option<Arc<C>>, Failure> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = &*kept {
            if kept.credentials != *refused {
                return Ok(Some(Arc::clone(&kept.credentials)));
            }
            if kept.after_refusal && kept.asked.elapsed() < PAUSE_REFUSED {
                return Ok(None);
            }
        }
        let credentials = keep(&mut kept, grant.await?, true);
        Ok((credentials != *refused).then_some(credentials))
    }
}

fn keep<C>(kept: &mut Option<Kept<C>>, granted: Granted<C>, after_refusal: bool) -> Arc<C> {
    let credentials = Arc::new(granted.credentials);
    *kept = Some(Kept {
        credentials: Arc::clone(&credentials),
        expires: granted.expires,
        asked: Instant::now(),
        after_refusal,
    });
    credentials
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    async fn granted(keeper: &Keeper<u32>, number: u32) -> Option<Arc<u32>> {
        let grant = Granted {
            credentials: number,
            expires: None,
        };
        let first = keeper.get(ready(Ok(grant.clone()))).await;
        let refused = first.expect("granted");
        let next = Granted {
            credentials: number + 1,
            ..grant
        };
        let other = keeper.other_than(&refused, ready(Ok(next))).await;
        other.expect("granted")
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_credentials_that_are_refused_are_asked_for_again_at_once_and_then_not_for_a_while()
     {
        let keeper = Keeper::default();
        assert_eq!(granted(&keeper, 1).await.as_deref(), Some(&2));
        // The next ones are refused as soon as they are there: no storm.
        assert_eq!(granted(&keeper, 2).await, None);
        tokio::time::advance(PAUSE_REFUSED).await;
        assert_eq!(granted(&keeper, 2).await.as_deref(), Some(&3));
        // They were replaced meanwhile: nobody is asked.
        let replaced = keeper
            .other_than(&Arc::new(2), std::future::pending())
            .await;
        assert_eq!(replaced.expect("kept").as_deref(), Some(&3));
    }
}
