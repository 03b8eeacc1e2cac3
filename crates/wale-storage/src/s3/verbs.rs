//! The verbs of [`Store`], each in the words of S3.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http::Method;

use super::client::Call;
use super::download;
use super::listing::Below;
use super::state::S3Store;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::Listing;
use crate::http::probe::{discard_stale_trials, is_guarded};
use crate::http::writes::{UploadStore, Way};
use crate::http::{reading, upload};
use crate::store::check_prefix;
use crate::{
    Body, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store,
    StoreError,
};

#[async_trait]
impl Store for S3Store {
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
        let below = Below::new(&self.inner.client, prefix, None);
        let listing = Listing::open(below, &self.inner.uploads.retry).await?;
        Ok(listing.into_stream())
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let below = Below::new(&self.inner.client, prefix, Some(after));
        let listing = Listing::open(below, &self.inner.uploads.retry).await?;
        // A server that does not know where to begin begins where the prefix does.
        let (after, client) = (after.to_owned(), Arc::clone(&self.inner.client));
        let is_behind = move |meta: &ObjectMeta| {
            let is_behind = meta.key.as_str() > after.as_str();
            if !is_behind {
                client.note_early_beginning();
            }
            std::future::ready(is_behind)
        };
        Ok(listing.into_stream().try_filter(is_behind).boxed())
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
        let uploads = self.discard_stale_uploads(older_than, ours).await?;
        Ok(uploads + discard_stale_trials(self, older_than).await?)
    }

    fn looking(&self) -> Looking {
        let client = &self.inner.client;
        match (client.lists_at_once(), client.begins_anywhere()) {
            (true, true) => Looking::FromAnyKey,
            (true, false) => Looking::ByPrefix,
            (false, _) => Looking::ByName,
        }
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.client.credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_bucket().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.body_check().await?;
        is_guarded(self, Way::AtOnce).await?;
        is_guarded(self, Way::InParts).await.map(drop)
    }
}
