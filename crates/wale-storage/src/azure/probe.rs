//! Whether a server that is not Microsoft's compares a body with the checksum that goes along.

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;

use super::checksum;
use super::client::BlobCall;
use super::state::AzureStore;
use crate::http::failure::Failure;
use crate::http::part::{Sums, SumsWanted};
use crate::http::probe::{ComparesSums, TRIAL_BODY, try_sums};
use crate::http::transport::Answer;
use crate::{ObjectKey, StoreError};

#[async_trait]
impl ComparesSums for AzureStore {
    fn sum_sent(&self) -> SumsWanted {
        checksum::wanted(self.inner.checksum)
    }

    async fn put_trial(&self, key: &ObjectKey, sums: &Sums) -> Result<Answer, Failure> {
        let call = BlobCall::blob(Method::PUT, key)
            .header("x-ms-blob-type", "BlockBlob")
            .summed(checksum::of(self.inner.checksum, sums).as_ref())
            .payload(Bytes::from_static(TRIAL_BODY));
        self.inner.client.call(&call).await
    }
}

impl AzureStore {
    /// Whether the server compares sums. Whoever asks first finds it out.
    pub(super) async fn are_sums_compared(&self) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if inner.is_azure {
            return Ok(true);
        }
        let found = inner.sums_compared.get_or_try_init(|| async {
            let is_compared = try_sums(self).await?.is_none();
            if !is_compared {
                tracing::warn!(
                    location = inner.client.location(),
                    "the store does not compare checksums: every object is read back after it was stored",
                );
            }
            Ok::<_, StoreError>(is_compared)
        });
        found.await.copied()
    }
}
