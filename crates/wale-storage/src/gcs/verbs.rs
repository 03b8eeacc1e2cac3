//! The verbs of [`Store`], each in the words of Google Cloud Storage.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;

use super::download;
use super::listing::ListedBelow;
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure};
use crate::http::listing::Listing;
use crate::http::probe::{discard_stale_trials, is_guarded};
use crate::http::upload;
use crate::http::writes::{UploadStore, Way};
use crate::store::check_prefix;
use crate::{
    Body, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store,
    StoreError,
};

#[async_trait]
impl Store for GcsStore {
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
        download::open(&self.inner.bucket, key, &self.inner.uploads.retry).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        let retry = &self.inner.uploads.retry;
        download::open_range(&self.inner.bucket, key, range, retry).await
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
        Ok(self.listing(prefix, None).await?.into_stream())
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let listing = self.listing(prefix, Some(after)).await?;
        // The store begins with the name itself.
        let after = after.to_owned();
        let is_behind =
            move |meta: &ObjectMeta| std::future::ready(meta.key.as_str() > after.as_str());
        Ok(Box::pin(listing.into_stream().try_filter(is_behind)))
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
        self.discard_leftovers().await;
        discard_stale_trials(self, older_than).await
    }

    /// Google's listings show what was written before them, and begin anywhere.
    fn looking(&self) -> Looking {
        Looking::FromAnyKey
    }

    fn location(&self) -> String {
        self.inner.bucket.location().to_owned()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.bucket.credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.bucket.ask().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.inner.bucket.confirm_spelling().await?;
        is_guarded(self, Way::AtOnce).await?;
        is_guarded(self, Way::InParts).await.map(drop)
    }
}

impl GcsStore {
    async fn listing(
        &self,
        prefix: &str,
        from: Option<&str>,
    ) -> Result<Listing<ListedBelow>, StoreError> {
        let bucket = &self.inner.bucket;
        let below = ListedBelow::new(bucket, prefix, from);
        let listing = Listing::open(below, &self.inner.uploads.retry).await?;
        let is_folder = prefix.is_empty() || prefix.ends_with('/');
        if listing.is_empty() && from.is_none() && is_folder {
            // A folder without anything: is it the archive that is not there, or is it spelled in another way?
            bucket.confirm_spelling().await?;
        }
        Ok(listing)
    }
}
