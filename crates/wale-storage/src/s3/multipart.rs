//! An upload in parts: its beginning, each part, and its end without an object. The end that makes the object is a
//! `commit`.

use std::sync::Arc;

use http::Method;

use super::checksum::{Vouched, contradicts};
use super::client::Call;
use super::headers::MARK_HEADER;
use super::leftovers::{Abandoned, Leftover, abandon};
use super::options::UploadChecksum;
use super::state::S3Store;
use super::xml::{Begun, PartRecord};
use crate::http::failure::{Asked, Failure};
use crate::http::marks::content_type;
use crate::retry::Attempts;
use crate::{ObjectKey, StoreError};

/// A multipart upload that has begun. If it is dropped before its end, it is noted as abandoned: a drop cannot
/// wait for the store, so the next upload discards it.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: ObjectKey,
    pub(super) id: String,
    abandoned: Option<Abandoned>,
}

impl Upload {
    /// There is nothing left to discard.
    pub(super) fn finished(mut self) {
        self.abandoned = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(abandoned) = self.abandoned.take() {
            let id = std::mem::take(&mut self.id);
            abandon(&abandoned, &self.key, Leftover::Upload(id));
        }
    }
}

impl S3Store {
    /// Begins a multipart upload, which is discarded unless it comes to its end.
    pub(super) async fn begin(&self, key: &ObjectKey, mark: &str) -> Result<Upload, StoreError> {
        let inner = &*self.inner;
        let mut call = Call::object(Method::POST, key)
            .query(&[("uploads", "")])
            .header("content-type", content_type(key))
            .header(MARK_HEADER, mark)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key());
        match inner.checksum {
            UploadChecksum::Crc32c => call = call.header("x-amz-checksum-algorithm", "CRC32C"),
            UploadChecksum::Sha256 => call = call.header("x-amz-checksum-algorithm", "SHA256"),
            UploadChecksum::Md5 | UploadChecksum::None => {}
        }
        let mut attempts = Attempts::from_failure(&inner.retry);
        loop {
            match inner.client.short_answer::<Begun>(&call).await {
                Ok(Begun { upload_id }) => {
                    return Ok(Upload {
                        key: key.clone(),
                        id: upload_id,
                        abandoned: Some(Arc::clone(&inner.abandoned)),
                    });
                }
                Err(failure) => {
                    let error = inner.client.error(failure, Asked::Object(key));
                    attempts.pause(error).await?;
                }
            }
        }
    }

    /// Sends a part, again as long as that may help: the part is in memory, and sending it twice stores it once.
    pub(super) async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        part: &Vouched,
    ) -> Result<PartRecord, StoreError> {
        let client = &self.inner.client;
        let number_text = number.to_string();
        let mut call = Call::object(Method::PUT, &upload.key)
            .query(&[("partNumber", &number_text), ("uploadId", &upload.id)])
            .headers(&client.customer_key());
        if let Some(sum) = &part.checksum {
            call = call.header(sum.header, &sum.value);
        }
        call.sha256.clone_from(&part.sha256);
        call.payload = part.gathered.payload.clone();
        let mut attempts = Attempts::from_failure(&self.inner.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match answer.header("etag") {
                    Some(etag) if contradicts(etag, part.etag.as_deref()) => Failure::Garbled,
                    Some(etag) => {
                        let checksum = part
                            .checksum
                            .as_ref()
                            .and_then(|sum| Some((sum.element?, sum.value.clone())));
                        return Ok(PartRecord {
                            number,
                            etag: etag.to_owned(),
                            checksum,
                        });
                    }
                    None => Failure::Nonsense("a part without an ETag".to_owned()),
                },
                Err(failure) => failure,
            };
            let error = client.error(failure, Asked::Object(&upload.key));
            attempts.pause(error).await?;
        }
    }

    /// Discards an unfinished upload. That it does not exist is no error.
    pub(super) async fn abort(&self, key: &ObjectKey, id: &str) -> Result<(), StoreError> {
        let client = &self.inner.client;
        let call = Call::object(Method::DELETE, key).query(&[("uploadId", id)]);
        match client.call(&call).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.status == http::StatusCode::NOT_FOUND => {
                Ok(())
            }
            Err(failure) => Err(client.error(failure, Asked::Object(key))),
        }
    }
}
