//! The verbs of [`Store`], each in the words of Azure.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use http::Method;

use super::client::BlobCall;
use super::commit::{Manner, UploadEnd};
use super::state::AzureStore;
use super::{download, listing};
use crate::http::failure::{Asked, Failure};
use crate::http::reading;
use crate::store::check_prefix;
use crate::{Body, InvalidKey, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store, StoreError};

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
        let _name = self.inner.names.lock(key).await;
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Exists);
        }
        let condition = if self.creation_is_guarded().await? {
            Manner::Create
        } else {
            Manner::CreateUnguarded
        };
        match self.upload(key, body, condition).await? {
            UploadEnd::Ours(meta) => Ok(PutOutcome::Created(meta)),
            UploadEnd::Others => Ok(PutOutcome::Exists),
        }
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        check_name(key)?;
        match self.upload(key, body, Manner::Replace).await? {
            UploadEnd::Ours(meta) => Ok(meta),
            UploadEnd::Others => Err(StoreError::unavailable(
                self.location(),
                "it refused to replace an object, without being asked to",
            )),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        check_name(key)?;
        download::open(&self.inner.client, key, &self.inner.retry).await
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
        listing::list(&self.inner.client, prefix, &self.inner.retry).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        check_name(key)?;
        self.delete_one(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let (mut named, mut failed) = (Vec::new(), Vec::new());
        for key in keys {
            match check_name(key) {
                Ok(()) => named.push(key.clone()),
                Err(error) => failed.push((key.clone(), error)),
            }
        }
        failed.extend(self.delete_all(&named).await);
        failed
    }

    /// Blocks that nobody made a blob of go by themselves, a week after the last of them.
    async fn discard_unfinished(
        &self,
        older_than: Duration,
        _ours: Ours,
    ) -> Result<u64, StoreError> {
        self.discard_trials().await;
        self.discard_stale_trials(older_than).await
    }

    fn location(&self) -> String {
        self.inner.client.location().to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.client.ask_container().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.vouchers().await?;
        self.creation_is_guarded().await?;
        self.assembly_is_guarded().await.map(drop)
    }
}
