//! Deleting: one blob in each request, several at a time, and what trials left behind.
//!
//! Azure bills no request that deletes, so many of them cost nothing but time, and one of many in a batch is signed for
//! itself anyway.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};
use http::Method;

use super::client::BlobCall;
use super::listing;
use super::probe::PROBE_PREFIX;
use super::state::AzureStore;
use crate::http::failure::{Asked, Failure};
use crate::store::moment_before;
use crate::{ObjectKey, StoreError};

/// Deletions at a time. 16: at 10 ms each 1,600 a second, as many as connections stay open.
const AT_A_TIME: usize = 16;

impl AzureStore {
    /// Deletes one blob.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let client = &self.inner.client;
        match client.call(&BlobCall::blob(Method::DELETE, key)).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(()),
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let deletions = keys.iter().cloned().map(|key| {
            let store = self.clone();
            async move { store.delete_one(&key).await.err().map(|error| (key, error)) }
        });
        let failed = stream::iter(deletions).buffer_unordered(AT_A_TIME);
        failed.filter_map(std::future::ready).collect().await
    }

    /// Deletes what trials left whose futures were dropped. The sweep finds what cannot be deleted now.
    pub(super) async fn discard_trials(&self) {
        loop {
            // It stays noted until it is gone: this future may itself be dropped.
            let Some(key) = self.noted().last().cloned() else {
                return;
            };
            let deleted = self.delete_one(&key).await;
            self.noted().retain(|one| *one != key);
            if let Err(error) = deleted {
                tracing::debug!(%key, %error, "a blob with which the store was tried could not be deleted");
                return;
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Vec<ObjectKey>> {
        let trials = self.inner.trials.lock();
        trials.unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the blobs of trials that were killed. Gives their number.
    pub(super) async fn discard_stale_trials(
        &self,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let Some(before) = moment_before(Utc::now(), older_than) else {
            return Ok(0);
        };
        let mut listed = listing::list(&inner.client, PROBE_PREFIX, &inner.retry).await?;
        let mut discarded = 0;
        while let Some(trial) = listed.try_next().await? {
            if trial.modified <= before {
                self.delete_one(&trial.key).await?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }
}
