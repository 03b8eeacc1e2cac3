//! Uploads in the words of Azure: what [`UploadStore`] asks of it.

use async_trait::async_trait;
use chrono::Utc;
use http::Method;

use super::blocks::BlockIds;
use super::checksum;
use super::client::BlobCall;
use super::options::BLOCKS_MAX;
use super::state::AzureStore;
use super::xml;
use crate::http::failure::{Asked, Failure};
use crate::http::leftovers::Leftover;
use crate::http::marks::content_type;
use crate::http::part::Cutter;
use crate::http::text::moment;
use crate::http::transport::Answer;
use crate::http::writes::{
    Condition, LastRequest, Limit, NamedObject, NewObject, PlacedPart, Stored, UploadStore,
    Uploads, Way,
};
use crate::{Body, ObjectKey, StoreError};

/// The header in which an object remembers the upload that made it. Azure's names of such headers are identifiers, without
/// a dash.
pub(super) const MARK_HEADER: &str = "x-ms-meta-waleupload";

/// An upload in blocks.
#[derive(Debug)]
pub(crate) struct SentBlocks {
    key: ObjectKey,
    mark: String,
    /// How they are named; none before the first.
    names: Option<BlockIds>,
    ids: Vec<String>,
}

#[async_trait]
impl UploadStore for AzureStore {
    type Request<'a> = BlobCall<'a>;
    type Parts = SentBlocks;

    const LIMIT: Limit = Limit::Parts(BLOCKS_MAX, "blocks");

    fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    fn known_guard(&self, _way: Way) -> Option<bool> {
        self.inner.is_azure.then_some(true)
    }

    fn conditions(way: Way) -> &'static str {
        match way {
            Way::AtOnce => "conditions of a write (If-None-Match)",
            Way::InParts => "conditions of a list of blocks",
        }
    }

    async fn cutter(&self, body: Body) -> Result<Cutter, StoreError> {
        let cutter = Cutter::new(body, checksum::wanted(self.inner.checksum));
        Ok(if self.are_sums_compared().await? {
            cutter
        } else {
            cutter.with_whole()
        })
    }

    fn at_once<'a>(
        &'a self,
        object: &NewObject<'a>,
        only: &PlacedPart,
    ) -> LastRequest<BlobCall<'a>> {
        let call = BlobCall::blob(Method::PUT, object.key)
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", content_type(object.key))
            .header(MARK_HEADER, object.mark)
            .payload(only.part.payload.clone());
        let sum = checksum::of(self.inner.checksum, &only.part.sums);
        LastRequest {
            request: call.summed(sum.as_ref()),
            sum: sum.map(|sum| sum.value),
        }
    }

    async fn begin(&self, object: &NewObject<'_>) -> Result<Option<SentBlocks>, StoreError> {
        Ok(Some(SentBlocks {
            key: object.key.clone(),
            mark: object.mark.to_owned(),
            names: None,
            ids: Vec::new(),
        }))
    }

    async fn put_part(&self, sent: &mut SentBlocks, piece: &PlacedPart) -> Result<(), StoreError> {
        let (key, part) = (&sent.key, &piece.part);
        let names = if let Some(names) = sent.names.take() {
            self.put_block(key, &names.id(piece.number), part).await?;
            names
        } else {
            self.put_first_block(key, &sent.mark, part).await?
        };
        sent.ids.push(names.id(piece.number));
        sent.names = Some(names);
        Ok(())
    }

    async fn last<'a>(
        &'a self,
        object: &NewObject<'a>,
        sent: &'a mut SentBlocks,
        last: PlacedPart,
    ) -> Result<LastRequest<BlobCall<'a>>, StoreError> {
        if last.part.payload.len() > 0 {
            self.put_part(sent, &last).await?;
        }
        let call = BlobCall::blob(Method::PUT, object.key)
            .query(&[("comp", "blocklist")])
            .header("content-type", "application/xml")
            .header("x-ms-blob-content-type", content_type(object.key))
            .header(MARK_HEADER, object.mark)
            .payload(xml::block_list(sent.ids.iter().map(String::as_str)))
            .answer_limit(self.inner.client.timeouts().assembly);
        Ok(LastRequest {
            request: call,
            sum: None,
        })
    }

    fn ended(_sent: SentBlocks, _stored: &Stored) {}

    async fn make(
        &self,
        object: &NewObject<'_>,
        request: &BlobCall<'_>,
    ) -> Result<Option<NamedObject>, Failure> {
        let mut call = request.clone();
        if object.condition == Condition::Create {
            call = call.header("if-none-match", "*");
        }
        let answer = self.inner.client.call(&call).await?;
        // Anybody can say that it succeeded; only the store has an `ETag`. A list is taken once: repeated after a lost reply
        // it finds its blocks gone, as it does when another writer was faster, so every list is looked at.
        let has_etag = answer.header("etag").is_some_and(|etag| !etag.is_empty());
        let is_proof = has_etag && object.way == Way::AtOnce;
        let sum = answer.header(checksum::header(self.inner.checksum));
        Ok(is_proof.then(|| NamedObject {
            mark: object.mark.to_owned(),
            bytes: None,
            // Not every answer has one.
            sum: sum.map(str::to_owned),
            ..found(&answer)
        }))
    }

    async fn look(&self, key: &ObjectKey) -> Result<Option<NamedObject>, StoreError> {
        let client = &self.inner.client;
        match client.call(&BlobCall::blob(Method::HEAD, key)).await {
            Ok(answer) => Ok(Some(found(&answer))),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(None),
            Err(failure) => Err(client.explain(key, failure).await),
        }
    }

    async fn remove(&self, key: &ObjectKey, found: &NamedObject) -> Result<bool, StoreError> {
        let mut call = BlobCall::blob(Method::DELETE, key);
        // Only while it is the one that was looked at.
        if let Some(etag) = &found.version {
            call = call.header("if-match", etag);
        }
        match self.inner.client.call(&call).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.is_absence() => Ok(true),
            Err(Failure::Refused(refusal)) if refusal.is_existence() => Ok(false),
            Err(failure) => Err(self.not_stored(key, failure)),
        }
    }

    fn not_stored(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        self.inner.client.error(failure, Asked::Object(key))
    }

    async fn discard(&self, left: &Leftover) -> Result<(), StoreError> {
        self.delete_one(&left.key).await
    }
}

/// What the headers of an answer say of a blob.
fn found(answer: &Answer) -> NamedObject {
    let text = |name| answer.header(name).unwrap_or_default();
    let modified = answer.header("last-modified").or(answer.header("date"));
    NamedObject {
        mark: text(MARK_HEADER).to_owned(),
        bytes: text("content-length").parse().ok(),
        sum: None,
        version: answer.header("etag").map(str::to_owned),
        modified: moment(modified).unwrap_or_else(Utc::now),
    }
}
