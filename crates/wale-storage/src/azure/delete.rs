//! Deleting: one blob in each request, several at a time.
//!
//! Azure bills no request that deletes, so many of them cost nothing but time, and one of many in a batch is signed for
//! itself anyway.

use http::Method;

use super::client::BlobCall;
use super::state::AzureStore;
use crate::http::deletions::each;
use crate::http::failure::{Asked, Failure};
use crate::{ObjectKey, Store, StoreError};

/// Deletions at a time. 16: at 10 ms each 1,600 a second, as many as connections stay open.
const AT_A_TIME: usize = 16;

impl AzureStore {
    /// Deletes one blob.
    pub(super) async fn delete_one(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let client = &self.inner.client;
        match client.call(&BlobCall::blob(Method::DELETE, key)).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(()),
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }

    /// Deletes many, and reports which it could not and why.
    pub(super) async fn delete_all(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        let delete = |key: ObjectKey| {
            let store = self.clone();
            async move { store.delete(&key).await }
        };
        each(keys.to_vec(), AT_A_TIME, delete).await
    }
}
