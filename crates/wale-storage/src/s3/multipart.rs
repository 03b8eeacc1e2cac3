//! An upload in parts: its beginning, each part, and its end without an object.

use http::Method;

use super::checksum::contradicts;
use super::client::Call;
use super::headers::MARK_HEADER;
use super::options::UploadChecksum;
use super::state::S3Store;
use super::xml::{Begun, PartRecord};
use crate::http::failure::{Asked, Failure};
use crate::http::leftovers::{Leftover, NotedOnDrop, Remains};
use crate::http::marks::content_type;
use crate::http::writes::{NewObject, PlacedPart};
use crate::retry::Attempts;
use crate::{ObjectKey, StoreError};

/// A multipart upload that has begun. If it is dropped before its end, the next upload discards it.
#[derive(Debug)]
pub(crate) struct Upload {
    key: ObjectKey,
    pub(super) id: String,
    /// The parts that are stored.
    pub(super) records: Vec<PartRecord>,
    left: NotedOnDrop,
}

impl Upload {
    /// There is nothing left to discard.
    pub(super) fn finished(mut self) {
        self.left.let_go();
    }
}

impl S3Store {
    /// Begins a multipart upload, which is discarded unless it comes to its end.
    pub(super) async fn begin_upload(&self, object: &NewObject<'_>) -> Result<Upload, StoreError> {
        let (inner, key) = (&*self.inner, object.key);
        let mut call = Call::object(Method::POST, key)
            .query(&[("uploads", "")])
            .header("content-type", content_type(key))
            .header(MARK_HEADER, object.mark)
            .headers(&inner.object_headers)
            .headers(&inner.client.customer_key());
        match inner.checksum {
            UploadChecksum::Crc32c => call = call.header("x-amz-checksum-algorithm", "CRC32C"),
            UploadChecksum::Sha256 => call = call.header("x-amz-checksum-algorithm", "SHA256"),
            UploadChecksum::Md5 | UploadChecksum::None => {}
        }
        let mut attempts = Attempts::from_failure(&inner.uploads.retry);
        loop {
            match inner.client.short_answer::<Begun>(&call).await {
                Ok(Begun { upload_id }) => {
                    let mut left = NotedOnDrop::new(&inner.uploads.leftovers);
                    let (id, parts) = (upload_id.clone(), 0);
                    left.hold(Leftover {
                        key: key.clone(),
                        what: Remains::Upload { id, parts },
                    });
                    return Ok(Upload {
                        key: key.clone(),
                        id: upload_id,
                        records: Vec::new(),
                        left,
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
    pub(super) async fn send_part(
        &self,
        upload: &mut Upload,
        piece: &PlacedPart,
    ) -> Result<(), StoreError> {
        let (client, number) = (&self.inner.client, piece.number);
        let part = self.vouchers().of(&piece.part);
        let number_text = number.to_string();
        let mut call = Call::object(Method::PUT, &upload.key)
            .query(&[("partNumber", &number_text), ("uploadId", &upload.id)])
            .headers(&client.customer_key())
            .payload(piece.part.payload.clone())
            .sha256(part.sha256);
        if let Some(sum) = &part.checksum {
            call = call.header(sum.header, &sum.value);
        }
        let mut attempts = Attempts::from_failure(&self.inner.uploads.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match answer.header("etag") {
                    Some(etag) if contradicts(etag, part.etag.as_deref()) => Failure::Garbled,
                    Some(etag) => {
                        let checksum = part
                            .checksum
                            .as_ref()
                            .and_then(|sum| Some((sum.element?, sum.value.clone())));
                        let etag = etag.to_owned();
                        upload.records.push(PartRecord {
                            number,
                            etag,
                            checksum,
                        });
                        return Ok(());
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
