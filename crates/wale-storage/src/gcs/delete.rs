//! Deleting: one object, or many.

use futures_util::{StreamExt, stream};
use http::Method;

use super::bucket::{Request, Target};
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure};
use crate::{ObjectKey, StoreError};

/// Requests at a time. 16: at 30 ms each five hundred objects a second. Google's batches hold a hundred deletions, are
/// billed as a hundred, and answer in a format of their own that emulators do not speak.
const AT_A_TIME: usize = 16;

/// Objects that are asked for the end of their retention in one call; the others say only that they are retained.
const ENDS_ASKED: usize = 20;

impl GcsStore {
    /// Deletes one object.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        match self.delete_request(key, None).await {
            Err(error @ StoreError::Retained { .. }) => Err(self.with_end(error).await),
            other => other,
        }
    }

    /// Deletes one object, if it is still of this generation.
    pub(super) async fn delete_request(
        &self,
        key: &ObjectKey,
        generation: Option<&str>,
    ) -> Result<(), StoreError> {
        let bucket = &self.inner.bucket;
        let mut request = Request::new(Method::DELETE, Target::Object(key));
        if let Some(generation) = generation {
            request = request.query(&[("ifGenerationMatch", generation)]);
        }
        match bucket.call(&request).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                bucket.confirm_absence(key).await
            }
            // Another has taken its place.
            Err(Failure::Refused(refusal)) if generation.is_some() && refusal.is_existence() => {
                Ok(())
            }
            Err(failure) => Err(bucket.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let deletions = keys.iter().cloned().map(|key| {
            let store = self.clone();
            async move {
                let result = store.delete_request(&key, None).await;
                (key, result)
            }
        });
        let results: Vec<_> = stream::iter(deletions)
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let failed = |(key, result): (ObjectKey, Result<(), _>)| Some((key, result.err()?));
        let mut failed: Vec<_> = results.into_iter().filter_map(failed).collect();
        let retained = failed
            .iter_mut()
            .filter(|(_, error)| matches!(error, StoreError::Retained { .. }));
        for (_, error) in retained.take(ENDS_ASKED) {
            let bare = std::mem::replace(error, StoreError::unavailable("", ""));
            *error = self.with_end(bare).await;
        }
        failed
    }

    /// The same error; that an object is retained also says until when, if the store says it.
    async fn with_end(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Retained {
                key,
                until: None,
                source,
            } => {
                let record = self.inner.bucket.record(&key).await.ok();
                let until = record.and_then(|record| record.retention_expiration_time);
                StoreError::Retained { key, until, source }
            }
            other => other,
        }
    }
}
