//! The verbs of [`Store`], each in the words of S3.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use http::Method;

use super::client::Call;
use super::commit::{Condition, Stored};
use super::state::S3Store;
use super::{download, listing};
use crate::http::failure::{Asked, Failure};
use crate::http::reading;
use crate::store::check_prefix;
use crate::{Body, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store, StoreError};

#[async_trait]
impl Store for S3Store {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let _name = self.inner.names.lock(key).await;
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let condition = if self.creation_is_guarded().await? {
            Condition::Create
        } else {
            // Only the check keeps this write from another's object, so the listing must agree with it.
            self.inner.client.confirm_absence(key).await?;
            Condition::CreateUnguarded
        };
        match self.upload(key, body, condition).await? {
            Stored::Ours(meta) => Ok(PutOutcome::Created(meta)),
            Stored::Others => Ok(PutOutcome::Exists),
        }
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        match self.upload(key, body, Condition::Replace).await? {
            Stored::Ours(meta) => Ok(meta),
            Stored::Others => Err(StoreError::unavailable(
                self.location(),
                "it refused to replace an object, without being asked to",
            )),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        download::open(&self.inner.client, key, &self.inner.retry).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::HEAD, key).headers(&client.customer_key());
        match client.call(&call).await {
            Ok(answer) => reading::meta(key, &answer)
                .map(Some)
                .map_err(|failure| client.error(failure, Asked::Object(key))),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                client.confirm_bucket().await.map(|()| None)
            }
            Err(failure) => Err(client.explain(key, failure).await),
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
        listing::list(&self.inner.client, prefix, &self.inner.retry).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete_one(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        self.delete_all(keys).await
    }

    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        self.discard_abandoned().await;
        let uploads = self.discard_stale_uploads(older_than, ours).await?;
        Ok(uploads + self.discard_stale_trials(older_than).await?)
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_bucket().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.wanted_sums().await?;
        self.creation_is_guarded().await?;
        self.assembly_is_guarded().await.map(drop)
    }
}
