//! The verbs of [`Store`], each in the words of Swift.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use http::Method;

use super::commit::{Creation, Whose};
use super::state::SwiftStore;
use super::{download, listing};
use crate::http::failure::Asked;
use crate::store::check_prefix;
use crate::{Body, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store, StoreError};

#[async_trait]
impl Store for SwiftStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let _name = self.inner.names.lock(key).await;
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        match self.upload(key, body, Creation::IfAbsent).await? {
            Whose::Ours(meta) => Ok(PutOutcome::Created(meta)),
            Whose::Others => Ok(PutOutcome::Exists),
        }
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        match self.upload(key, body, Creation::Replaces).await? {
            Whose::Ours(meta) => Ok(meta),
            Whose::Others => Err(StoreError::unavailable(
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
        let call = client.object(Method::HEAD, key).newest();
        let failure = match client.call(&call).await {
            Ok(answer) => match download::meta(key, &answer) {
                Ok(meta) => return Ok(Some(meta)),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        match failure.refusal() {
            Some(refusal) if refusal.may_be_absence() => {
                client.confirm_absence(key, &failure).await.map(|()| None)
            }
            _ => Err(client.error(failure, Asked::Object(key))),
        }
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        self.list_after(prefix, "").await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        listing::list(&self.inner.client, &self.inner.retry, prefix, after).await
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
        self.discard_remains().await;
        let uploads = self.discard_orphans(older_than, ours).await?;
        Ok(uploads + self.discard_old_trials(older_than).await?)
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_container().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.looks_first().await.map(drop)
    }
}
