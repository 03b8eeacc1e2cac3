//! The verbs of [`Store`], each in the words of Google Cloud Storage.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;

use super::creation::Precondition;
use super::insert::Inserted;
use super::state::GcsStore;
use super::{download, listing};
use crate::http::failure::{Asked, Failure};
use crate::store::check_prefix;
use crate::{Body, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store, StoreError};

#[async_trait]
impl Store for GcsStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let _name = self.inner.names.lock(key).await;
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let condition = if self.creation_is_guarded().await? {
            Precondition::Absent
        } else {
            // Only the check keeps this write from another's object, so the listing must agree with it.
            self.inner.bucket.confirm_absence(key).await?;
            Precondition::AbsentUnguarded
        };
        match self.upload(key, body, condition).await? {
            Inserted::Ours(meta) => Ok(PutOutcome::Created(meta)),
            Inserted::Others => Ok(PutOutcome::Exists),
        }
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        match self.upload(key, body, Precondition::None).await? {
            Inserted::Ours(meta) => Ok(meta),
            Inserted::Others => Err(StoreError::unavailable(
                self.location(),
                "it refused to replace an object, without being asked to",
            )),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        download::open(&self.inner.bucket, key, &self.inner.retry).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let bucket = &self.inner.bucket;
        match bucket.record(key).await {
            Ok(record) => Ok(Some(record.meta(key))),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                bucket.confirm_bucket().await.map(|()| None)
            }
            Err(failure) => Err(bucket.error(failure, Asked::Object(key))),
        }
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        listing::list(&self.inner.bucket, prefix, None, &self.inner.retry).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let listed =
            listing::list(&self.inner.bucket, prefix, Some(after), &self.inner.retry).await?;
        // The store begins with the name itself.
        let after = after.to_owned();
        let is_behind =
            move |meta: &ObjectMeta| std::future::ready(meta.key.as_str() > after.as_str());
        Ok(Box::pin(listed.try_filter(is_behind)))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_one(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        self.delete_all(keys).await
    }

    /// Unfinished resumable uploads cannot be listed. The store drops them by itself after a week, so only the objects
    /// of trials that were killed are left to discard.
    async fn discard_unfinished(
        &self,
        older_than: Duration,
        _ours: Ours,
    ) -> Result<u64, StoreError> {
        self.discard_stale_trials(older_than).await
    }

    fn location(&self) -> String {
        self.inner.bucket.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.bucket.ask().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.inner.bucket.confirm_spelling().await?;
        self.creation_is_guarded().await?;
        self.session_is_guarded().await.map(drop)
    }
}
