//! Uploads in the words of S3: what [`UploadStore`] asks of it.

use async_trait::async_trait;
use chrono::Utc;
use http::Method;

use super::checksum::Vouchers;
use super::client::{Call, SHORT_BYTES_MAX};
use super::headers::MARK_HEADER;
use super::multipart::Upload;
use super::options::PARTS_MAX;
use super::state::{BodyCheck, S3Store};
use super::xml::{self, Assembled};
use crate::http::failure::{Asked, Failure};
use crate::http::leftovers::{Leftover, Remains};
use crate::http::marks::content_type;
use crate::http::part::Cutter;
use crate::http::text::moment;
use crate::http::transport::Answer;
use crate::http::writes::{
    Condition, LastRequest, Limit, NamedObject, NewObject, PlacedPart, Stored, UploadStore,
    Uploads, Way,
};
use crate::{Body, ObjectKey, StoreError};

#[async_trait]
impl UploadStore for S3Store {
    type Request<'a> = Call<'a>;
    type Parts = Upload;

    const LIMIT: Limit = Limit::Parts(PARTS_MAX, "parts");

    fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    fn known_guard(&self, _way: Way) -> Option<bool> {
        self.inner.is_amazon.then_some(true)
    }

    fn conditions(way: Way) -> &'static str {
        match way {
            Way::AtOnce => "conditions of a write (If-None-Match)",
            Way::InParts => "conditions at the end of a multipart upload",
        }
    }

    async fn cutter(&self, body: Body) -> Result<Cutter, StoreError> {
        self.body_check().await?;
        Ok(self.vouchers().cut(body))
    }

    fn at_once<'a>(&'a self, object: &NewObject<'a>, only: &PlacedPart) -> LastRequest<Call<'a>> {
        let inner = &*self.inner;
        let vouched = self.vouchers().of(&only.part);
        let mut call = Call::object(Method::PUT, object.key)
            .header("content-type", content_type(object.key))
            .header(MARK_HEADER, object.mark)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key())
            .payload(only.part.payload.clone());
        if let Some(sum) = &vouched.checksum {
            call = call.header(sum.header, &sum.value);
        }
        LastRequest {
            request: call.sha256(vouched.sha256),
            sum: vouched.etag,
        }
    }

    async fn begin(&self, object: &NewObject<'_>) -> Result<Option<Upload>, StoreError> {
        self.begin_upload(object).await.map(Some)
    }

    async fn put_part(&self, upload: &mut Upload, piece: &PlacedPart) -> Result<(), StoreError> {
        self.send_part(upload, piece).await
    }

    async fn last<'a>(
        &'a self,
        object: &NewObject<'a>,
        upload: &'a mut Upload,
        last: PlacedPart,
    ) -> Result<LastRequest<Call<'a>>, StoreError> {
        let client = &self.inner.client;
        if last.part.payload.len() > 0 {
            self.send_part(upload, &last).await?;
        }
        let call = Call::object(Method::POST, object.key)
            .query(&[("uploadId", &upload.id)])
            .headers(&client.customer_key())
            .payload(xml::complete(&upload.records))
            .answer_limit(client.timeouts().assembly);
        Ok(LastRequest {
            request: call,
            sum: None,
        })
    }

    fn ended(upload: Upload, stored: &Stored) {
        if matches!(stored, Stored::Ours(_)) {
            upload.finished();
        }
    }

    async fn make(
        &self,
        object: &NewObject<'_>,
        request: &Call<'_>,
    ) -> Result<Option<NamedObject>, Failure> {
        let mut call = request.clone();
        if object.condition == Condition::Create {
            call = call.header("if-none-match", "*");
        }
        let mut answer = self.inner.client.call(&call).await?;
        if object.way == Way::AtOnce {
            // Anybody can say that it succeeded; only the store knows the object's digest.
            let has_etag = answer.header("etag").is_some_and(|etag| !etag.is_empty());
            return Ok(has_etag.then(|| NamedObject {
                mark: object.mark.to_owned(),
                bytes: None,
                ..found(&answer)
            }));
        }
        // Some servers report success although they have assembled nothing, when a former end was lost; Ceph does, with an
        // empty ETag, where two ends meet. That may have been the end of another process's upload: the name is checked
        // after every end.
        let Assembled { etag } = xml::read(&answer.read(SHORT_BYTES_MAX).await?)?;
        if etag.is_empty() {
            tracing::debug!(key = %object.key, "the answer to the end of an upload has no ETag");
        }
        Ok(None)
    }

    async fn look(&self, key: &ObjectKey) -> Result<Option<NamedObject>, StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::HEAD, key).headers(&client.customer_key());
        match client.call(&call).await {
            Ok(answer) => Ok(Some(found(&answer))),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                client.confirm_absence(key).await.map(|()| None)
            }
            Err(failure) => Err(client.explain(key, failure).await),
        }
    }

    async fn remove(&self, key: &ObjectKey, _found: &NamedObject) -> Result<bool, StoreError> {
        self.delete_one(key).await.map(|()| true)
    }

    fn not_stored(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        self.inner.client.error(failure, Asked::Object(key))
    }

    async fn discard(&self, left: &Leftover) -> Result<(), StoreError> {
        match &left.what {
            Remains::Upload { id, .. } => self.abort(&left.key, id).await,
            Remains::Trial => self.delete_one(&left.key).await,
        }
    }
}

impl S3Store {
    /// The sums that are taken of a body for this store, once it is known what the store compares.
    pub(super) fn vouchers(&self) -> Vouchers {
        let inner = &*self.inner;
        let check = inner.body_check.get().copied();
        Vouchers {
            checksum: inner.checksum,
            signed: !inner.client.is_secure(),
            etag: check == Some(BodyCheck::Answer),
            whole: check == Some(BodyCheck::Nobody),
        }
    }
}

/// What the headers of an answer say of an object.
fn found(answer: &Answer) -> NamedObject {
    let text = |name| answer.header(name).unwrap_or_default();
    let etag = answer.header("etag");
    let modified = answer.header("last-modified").or(answer.header("date"));
    NamedObject {
        mark: text(MARK_HEADER).to_owned(),
        bytes: text("content-length").parse().ok(),
        sum: etag.map(|etag| etag.trim_matches('"').to_ascii_lowercase()),
        version: None,
        modified: moment(modified).unwrap_or_else(Utc::now),
    }
}
