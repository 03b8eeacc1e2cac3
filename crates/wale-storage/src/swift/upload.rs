//! Uploads in the words of Swift: what [`UploadStore`] asks of it.
//!
//! Swift looks at `If-None-Match: *` when a write begins: another may have begun, too. So every creation is looked at
//! afterwards, whatever the server does about the header. That is found out when the sidecar starts. A verb saves the
//! requests: an object that comes to be between its first look and its write is all that the header would tell besides, and
//! Swift does not promise that either for a write that has begun.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::{Method, StatusCode};

use super::client::{About, SwiftCall};
use super::download;
use super::names::{MARK_HEADER, is_same};
use super::options::SEGMENTS_MAX;
use super::segments::{self, SegmentRecord};
use super::state::SwiftStore;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::leftovers::{Leftover, NotedOnDrop, Remains};
use crate::http::marks::content_type;
use crate::http::part::{Cutter, Part, SumsWanted};
use crate::http::text::{hex, moment};
use crate::http::transport::Answer;
use crate::http::writes::{
    Condition, LastRequest, Limit, NamedObject, NewObject, PlacedPart, Stored, UploadStore,
    Uploads, Way,
};
use crate::retry::Attempts;
use crate::{Body, ObjectKey, StoreError};

/// The header of a condition.
const CONDITION: &str = "if-none-match";

/// Segments that are being stored. If it is dropped before its end, the next upload discards them.
#[derive(Debug)]
pub(crate) struct SentSegments {
    key: ObjectKey,
    mark: String,
    records: Vec<SegmentRecord>,
    left: NotedOnDrop,
}

impl SentSegments {
    /// What is to be discarded when so many were begun.
    fn begun(&self, parts: u32) -> Leftover {
        let id = self.mark.clone();
        Leftover {
            key: self.key.clone(),
            what: Remains::Upload { id, parts },
        }
    }
}

#[async_trait]
impl UploadStore for SwiftStore {
    type Request<'a> = SwiftCall<'a>;
    type Parts = SentSegments;

    const LIMIT: Limit = Limit::Parts(SEGMENTS_MAX, "segments");

    /// Of writers at the same time several create, as documented: only a later one is refused.
    const WRITERS_TRIED: usize = 1;

    const PARTS_STAY: bool = true;

    fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// Not asked yet is taken for yes. A list of segments is a write like any other.
    fn known_guard(&self, _way: Way) -> Option<bool> {
        let found = self.inner.uploads.guarded(Way::AtOnce).get();
        Some(found.copied().unwrap_or(true))
    }

    fn conditions(_way: Way) -> &'static str {
        "conditions of a write (If-None-Match)"
    }

    async fn cutter(&self, body: Body) -> Result<Cutter, StoreError> {
        let wanted = SumsWanted {
            md5: true,
            ..SumsWanted::default()
        };
        Ok(Cutter::new(body, wanted))
    }

    fn at_once<'a>(
        &'a self,
        object: &NewObject<'a>,
        only: &PlacedPart,
    ) -> LastRequest<SwiftCall<'a>> {
        let payload = only.part.payload.clone();
        let etag = etag(&only.part);
        LastRequest {
            request: self.appearance(object, &etag).payload(payload),
            sum: Some(etag),
        }
    }

    async fn begin(&self, object: &NewObject<'_>) -> Result<Option<SentSegments>, StoreError> {
        Ok(Some(SentSegments {
            key: object.key.clone(),
            mark: object.mark.to_owned(),
            records: Vec::new(),
            left: NotedOnDrop::new(&self.inner.uploads.leftovers),
        }))
    }

    async fn put_part(
        &self,
        sent: &mut SentSegments,
        piece: &PlacedPart,
    ) -> Result<(), StoreError> {
        sent.left.hold(sent.begun(piece.number));
        let record = self.put_segment(sent, piece).await?;
        sent.records.push(record);
        Ok(())
    }

    async fn last<'a>(
        &'a self,
        object: &NewObject<'a>,
        sent: &'a mut SentSegments,
        last: PlacedPart,
    ) -> Result<LastRequest<SwiftCall<'a>>, StoreError> {
        if last.part.payload.len() > 0 {
            self.put_part(sent, &last).await?;
        }
        let client = &self.inner.client;
        let etag = segments::digest_of(&sent.records);
        let manifest = segments::list(&sent.records).map_err(|error| {
            let reason = format!("the list of segments cannot be written: {error}");
            StoreError::unavailable(client.location(), reason)
        })?;
        let call = self
            .appearance(object, &etag)
            .query(&[("multipart-manifest", "put")])
            .payload(bytes::Bytes::from(manifest))
            // The server looks at every segment before it answers.
            .answer_limit(client.timeouts().assembly);
        // From here on nobody but the sweep may discard them: they may be those of an object.
        sent.left.let_go();
        Ok(LastRequest {
            request: call,
            sum: Some(etag),
        })
    }

    fn ended(mut sent: SentSegments, stored: &Stored) {
        if matches!(stored, Stored::Others) {
            let parts = u32::try_from(sent.records.len()).unwrap_or(SEGMENTS_MAX);
            sent.left.hold(sent.begun(parts));
        }
    }

    async fn make(
        &self,
        object: &NewObject<'_>,
        request: &SwiftCall<'_>,
    ) -> Result<Option<NamedObject>, Failure> {
        let mut call = request.clone();
        if object.condition == Condition::Create {
            call = call.header(CONDITION, "*");
        }
        let answer = match self.inner.client.call(&call).await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) => {
                return Err(Failure::Refused(judged(object.way, refusal)));
            }
            Err(failure) => return Err(failure),
        };
        // Anybody can say that it succeeded; only the store knows the object's digest.
        let has_etag = answer.header("etag").is_some_and(|etag| !etag.is_empty());
        // Accepted, but a write that is later is there.
        let is_latest = answer.status != StatusCode::ACCEPTED;
        let is_proof = has_etag && is_latest && object.condition == Condition::Replace;
        Ok(is_proof.then(|| NamedObject {
            mark: object.mark.to_owned(),
            bytes: None,
            ..found(&answer, moment(answer.header("date")))
        }))
    }

    async fn look(&self, key: &ObjectKey) -> Result<Option<NamedObject>, StoreError> {
        let client = &self.inner.client;
        let call = client.object(Method::HEAD, key).newest();
        let failure = match client.call(&call).await {
            Ok(answer) => match download::meta(key, &answer) {
                Ok(meta) => return Ok(Some(found(&answer, Some(meta.modified)))),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        match failure.refusal() {
            Some(refusal) if refusal.may_be_absence() => {
                client.confirm_absence(key, &failure).await.map(|()| None)
            }
            _ => Err(client.error(failure, Asked::Object(key))),
        }
    }

    async fn remove(&self, key: &ObjectKey, _found: &NamedObject) -> Result<bool, StoreError> {
        self.delete_one(key).await.map(|()| true)
    }

    /// That something is not there can only mean the container.
    fn not_stored(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        let client = &self.inner.client;
        match failure.refusal() {
            Some(refusal) if refusal.is_absence() => client.error(failure, Asked::Bucket),
            _ => client.error(failure, Asked::Object(key)),
        }
    }

    async fn discard(&self, left: &Leftover) -> Result<(), StoreError> {
        let client = &self.inner.client;
        let names: Vec<String> = match &left.what {
            Remains::Upload { id, parts } => (1..=*parts)
                .map(|number| segments::name(client, &left.key, id, number))
                .collect(),
            Remains::Trial => vec![client.name_of(left.key.as_str())],
        };
        match self.delete_names(&names).await.into_iter().next() {
            Some((_, failure)) => Err(client.error(failure, Asked::Object(&left.key))),
            None => Ok(()),
        }
    }

    /// What refuses the header as such guards nothing, with whatever it says.
    fn may_refuse_condition(refusal: &Refusal) -> bool {
        refusal.is_unsupported() || refusal.status == StatusCode::BAD_REQUEST
    }

    fn does_without_conditions(&self) -> bool {
        let looks_first = self.inner.uploads.guarded(Way::AtOnce);
        let _ = looks_first.set(false);
        looks_first.get() == Some(&false)
    }
}

impl SwiftStore {
    /// The request that lets an object with this digest appear.
    fn appearance(&self, object: &NewObject<'_>, etag: &str) -> SwiftCall<'static> {
        let NewObject { key, mark, .. } = *object;
        self.inner
            .client
            .object(Method::PUT, key)
            .header("content-type", content_type(key))
            .header("etag", etag)
            .header(MARK_HEADER, mark)
    }

    /// Sends a segment, again as long as that may help: it is in memory, and sending it twice stores it once.
    async fn put_segment(
        &self,
        sent: &SentSegments,
        piece: &PlacedPart,
    ) -> Result<SegmentRecord, StoreError> {
        let (client, key) = (&self.inner.client, &sent.key);
        let etag = etag(&piece.part);
        let name = segments::name(client, key, &sent.mark, piece.number);
        let call = SwiftCall::new(Method::PUT, About::Named(name.clone()))
            .header("content-type", "application/octet-stream")
            .header("etag", &etag)
            .payload(piece.part.payload.clone());
        let mut attempts = Attempts::from_failure(&self.inner.uploads.retry);
        loop {
            let failure = match client.call(&call).await {
                Ok(answer) => match answer.header("etag") {
                    Some(found) if !is_same(found, &etag) => Failure::Garbled,
                    Some(_) => {
                        let bytes = piece.part.payload.len();
                        return Ok(SegmentRecord::new(client.container(), &name, &etag, bytes));
                    }
                    None => Failure::Nonsense("a segment without an ETag".to_owned()),
                },
                Err(failure) => failure,
            };
            attempts.pause(self.not_stored(key, failure)).await?;
        }
    }
}

/// What the store must answer.
fn etag(part: &Part) -> String {
    part.sums.md5.map(|sum| hex(&sum)).unwrap_or_default()
}

/// What the headers of an answer say of an object. Digests of large ones stand in quotes.
fn found(answer: &Answer, modified: Option<DateTime<Utc>>) -> NamedObject {
    let text = |name| answer.header(name).unwrap_or_default();
    NamedObject {
        mark: text(MARK_HEADER).to_owned(),
        bytes: text("content-length").parse().ok(),
        sum: Some(text("etag").trim_matches('"').to_ascii_lowercase()),
        version: None,
        modified: modified.unwrap_or_else(Utc::now),
    }
}

/// What a refusal of the last request means. One of a list names the segments that are not found; all of them were
/// stored.
fn judged(way: Way, refusal: Refusal) -> Refusal {
    let names_segments = refusal.reply.message.contains("Errors:");
    if way == Way::InParts && refusal.status == StatusCode::BAD_REQUEST && names_segments {
        return Refusal {
            meaning: Meaning::Passing("it does not find the segments of the object yet"),
            ..refusal
        };
    }
    refusal
}
