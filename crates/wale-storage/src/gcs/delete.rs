//! Deleting: one object, or many.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::Method;

use super::bucket::{Request, Target};
use super::state::GcsStore;
use crate::http::deletions::{Retains, each};
use crate::http::failure::{Asked, Failure};
use crate::{ObjectKey, StoreError};

/// Requests at a time. 16: at 30 ms each five hundred objects a second. Google's batches hold a hundred deletions, are
/// billed as a hundred, and answer in a format of their own that emulators do not speak.
const AT_A_TIME: usize = 16;

impl GcsStore {
    /// Deletes one object.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        match self.delete_request(key, None).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.with_end(error).await),
        }
    }

    /// Deletes one object, if it is still of this generation; `false` when another has taken its place.
    pub(super) async fn delete_request(
        &self,
        key: &ObjectKey,
        generation: Option<&str>,
    ) -> Result<bool, StoreError> {
        let bucket = &self.inner.bucket;
        let mut request = Request::new(Method::DELETE, Target::Object(key));
        if let Some(generation) = generation {
            request = request.query(&[("ifGenerationMatch", generation)]);
        }
        match bucket.call(&request).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                bucket.confirm_absence(key).await.map(|()| true)
            }
            Err(Failure::Refused(refusal)) if generation.is_some() && refusal.is_existence() => {
                Ok(false)
            }
            Err(failure) => Err(bucket.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let delete = |key: ObjectKey| {
            let store = self.clone();
            async move { store.delete_request(&key, None).await.map(drop) }
        };
        let failed = each(keys.to_vec(), AT_A_TIME, delete).await;
        self.with_ends(failed).await
    }
}

#[async_trait]
impl Retains for GcsStore {
    async fn retained_until(&self, key: &ObjectKey) -> Option<DateTime<Utc>> {
        let record = self.inner.bucket.record(key).await.ok()?;
        record.retention_expiration_time
    }
}
