//! The verbs of [`Store`], each in the words of Azure.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use http::Method;

use super::client::BlobCall;
use super::download;
use super::listing::BlobsBelow;
use super::state::AzureStore;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::Listing;
use crate::http::probe::{discard_stale_trials, is_guarded};
use crate::http::writes::{UploadStore, Way};
use crate::http::{reading, upload};
use crate::store::check_prefix;
use crate::{
    Body, CredentialEnd, InvalidKey, Looking, Object, ObjectKey, ObjectMeta, Ours, PutOutcome,
    Store, StoreError,
};

/// Refuses a name that the store would take for another: it makes slashes of backslashes, and drops dots from the ends of
/// components.
fn check_name(key: &ObjectKey) -> Result<(), StoreError> {
    let reason = if key.as_str().contains('\\') {
        "Azure makes slashes of backslashes"
    } else if key.as_str().split('/').any(|part| part.ends_with('.')) {
        "Azure keeps no dot at the end of a component"
    } else {
        return Ok(());
    };
    Err(StoreError::InvalidKey(InvalidKey {
        key: key.to_string(),
        reason,
    }))
}

#[async_trait]
impl Store for AzureStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        check_name(key)?;
        upload::put_if_absent(self, key, body).await
    }

    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        check_name(key)?;
        upload::put_unseen(self, key, body).await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        check_name(key)?;
        upload::put(self, key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        check_name(key)?;
        download::open(&self.inner.client, key, None, &self.inner.uploads.retry).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        check_name(key)?;
        let retry = &self.inner.uploads.retry;
        download::open(&self.inner.client, key, Some(range), retry).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        check_name(key)?;
        let client = &self.inner.client;
        match client.call(&BlobCall::blob(Method::HEAD, key)).await {
            Ok(answer) => reading::meta(key, &answer)
                .map(Some)
                .map_err(|failure| client.error(failure, Asked::Object(key))),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(None),
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
        let below = BlobsBelow::new(&self.inner.client, prefix);
        let listing = Listing::open(below, &self.inner.uploads.retry).await?;
        Ok(listing.into_stream())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        check_name(key)?;
        self.delete_one(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        self.delete_all(keys).await
    }

    /// Blocks that nobody made a blob of go by themselves, a week after the last of them.
    async fn discard_unfinished(
        &self,
        older_than: Duration,
        _ours: Ours,
    ) -> Result<u64, StoreError> {
        self.discard_leftovers().await;
        discard_stale_trials(self, older_than).await
    }

    /// Azure's listings show what was written before them. They begin where their prefix does.
    fn looking(&self) -> Looking {
        Looking::ByPrefix
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.client.credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_container().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.are_sums_compared().await?;
        is_guarded(self, Way::AtOnce).await?;
        is_guarded(self, Way::InParts).await.map(drop)
    }
}
