//! The verbs of [`Store`], each in the words of Swift.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use http::Method;

use super::state::SwiftStore;
use super::{download, listing};
use crate::http::failure::Asked;
use crate::http::probe::{discard_stale_trials, try_conditions};
use crate::http::upload;
use crate::http::writes::{UploadStore, Way};
use crate::store::check_prefix;
use crate::{
    Body, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store,
    StoreError,
};

#[async_trait]
impl Store for SwiftStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        upload::put_if_absent(self, key, body).await
    }

    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        upload::put_unseen(self, key, body).await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        upload::put(self, key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        download::open(&self.inner.client, key, None, &self.inner.uploads.retry).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        let retry = &self.inner.uploads.retry;
        download::open(&self.inner.client, key, Some(range), retry).await
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
        listing::list(&self.inner.client, &self.inner.uploads.retry, prefix, after).await
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
        self.discard_leftovers().await;
        let uploads = self.discard_orphans(older_than, ours).await?;
        Ok(uploads + discard_stale_trials(self, older_than).await?)
    }

    /// A container's listing may lag behind its objects.
    fn looking(&self) -> Looking {
        Looking::ByName
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.client.credential_ends()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_container().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        try_conditions(self, Way::AtOnce).await.map(drop)
    }
}
