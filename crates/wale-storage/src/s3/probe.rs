//! Whether the store compares a body with the checksum that goes along, and what it says of it where it does not.

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use md5::{Digest as _, Md5};

use super::checksum::Vouchers;
use super::client::Call;
use super::options::UploadChecksum;
use super::state::{BodyCheck, S3Store};
use crate::http::failure::Failure;
use crate::http::part::{Sums, SumsWanted};
use crate::http::probe::{ComparesSums, TRIAL_BODY, try_sums};
use crate::http::text::hex;
use crate::http::transport::Answer;
use crate::{ObjectKey, StoreError};

#[async_trait]
impl ComparesSums for S3Store {
    fn sum_sent(&self) -> SumsWanted {
        Vouchers::checksum_only(self.inner.checksum).sums()
    }

    async fn put_trial(&self, key: &ObjectKey, sums: &Sums) -> Result<Answer, Failure> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::PUT, key)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key())
            .payload(Bytes::from_static(TRIAL_BODY));
        if let Some(sum) = Vouchers::checksum_only(inner.checksum).sent(sums) {
            call = call.header(sum.header, &sum.value);
        }
        inner.client.call(&call).await
    }
}

impl S3Store {
    /// The side that makes sure that a stored body is the one that was sent. Whoever asks first finds it out.
    pub(super) async fn body_check(&self) -> Result<BodyCheck, StoreError> {
        let inner = &*self.inner;
        if inner.is_amazon && inner.checksum != UploadChecksum::None {
            return Ok(BodyCheck::Server);
        }
        let found = inner.body_check.get_or_try_init(|| async {
            let Some(answer) = try_sums(self).await? else {
                return Ok(BodyCheck::Server);
            };
            let etag = answer.header("etag").unwrap_or_default();
            let digest = hex(&Md5::digest(TRIAL_BODY));
            if etag.trim_matches('"').eq_ignore_ascii_case(&digest) {
                return Ok(BodyCheck::Answer);
            }
            tracing::warn!(
                location = inner.client.location(),
                "the store does not compare checksums, and its ETags are no digests: every object is read back after it \
                 was stored",
            );
            Ok(BodyCheck::Nobody)
        });
        found.await.copied()
    }
}
