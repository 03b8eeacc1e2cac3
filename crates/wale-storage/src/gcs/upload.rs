//! Uploads in the words of Google Cloud Storage: what [`UploadStore`] asks of it.

use async_trait::async_trait;
use serde_json::Value;

use super::bucket::Request;
use super::creation::crc32c_text;
use super::options::OBJECT_BYTES_MAX;
use super::resource::Resource;
use super::session::{Chunk, Session};
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::leftovers::Leftover;
use crate::http::part::{Cutter, Part, SumsWanted, Whole};
use crate::http::writes::{
    LastRequest, Limit, NamedObject, NewObject, PlacedPart, Stored, UploadStore, Uploads, Way,
};
use crate::{Body, ObjectKey, StoreError};

/// How an object appears.
pub(crate) enum Ending<'a> {
    /// In one request.
    AtOnce(Request<'a>),
    /// With the last chunk of a resumable upload, whose memory is held until then.
    Session {
        session: &'a Session,
        chunk: Chunk,
        _memory: Part,
    },
}

#[async_trait]
impl UploadStore for GcsStore {
    type Request<'a> = Ending<'a>;
    type Parts = Session;

    const LIMIT: Limit = Limit::Bytes(OBJECT_BYTES_MAX, "Google");

    fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    fn known_guard(&self, _way: Way) -> Option<bool> {
        self.inner.is_google.then_some(true)
    }

    fn conditions(way: Way) -> &'static str {
        match way {
            Way::AtOnce => "conditions of a write (ifGenerationMatch)",
            Way::InParts => "conditions at the end of a resumable upload (ifGenerationMatch)",
        }
    }

    /// The answer to each write has the store's own sum: nothing is sent along that a server could ignore.
    async fn cutter(&self, body: Body) -> Result<Cutter, StoreError> {
        Ok(Cutter::new(body, SumsWanted::default()).with_whole())
    }

    fn at_once<'a>(&'a self, object: &NewObject<'a>, only: &PlacedPart) -> LastRequest<Ending<'a>> {
        let sum = crc32c_text(&whole_at(only));
        let mut record = self.new_record(object.key, object.mark);
        record["crc32c"] = Value::String(sum.clone());
        let request =
            self.creation_at_once(object.key, &record, &only.part.payload, object.condition);
        LastRequest {
            request: Ending::AtOnce(request),
            sum: Some(sum),
        }
    }

    async fn begin(&self, object: &NewObject<'_>) -> Result<Option<Session>, StoreError> {
        let record = self.new_record(object.key, object.mark);
        self.begin_session(object.key, &record, object.condition)
            .await
    }

    async fn put_part(&self, session: &mut Session, piece: &PlacedPart) -> Result<(), StoreError> {
        let chunk = Chunk {
            start: piece.start,
            payload: piece.part.payload.clone(),
            end: None,
        };
        self.put_chunk(session, &chunk).await
    }

    async fn last<'a>(
        &'a self,
        _object: &NewObject<'a>,
        session: &'a mut Session,
        last: PlacedPart,
    ) -> Result<LastRequest<Ending<'a>>, StoreError> {
        let whole = whole_at(&last);
        let chunk = Chunk {
            start: last.start,
            payload: last.part.payload.clone(),
            end: Some(whole),
        };
        Ok(LastRequest {
            request: Ending::Session {
                session,
                chunk,
                _memory: last.part,
            },
            sum: Some(crc32c_text(&whole)),
        })
    }

    /// A resumable upload that is not ended is left to the store.
    fn ended(_session: Session, _stored: &Stored) {}

    async fn make(
        &self,
        object: &NewObject<'_>,
        request: &Ending<'_>,
    ) -> Result<Option<NamedObject>, Failure> {
        let bucket = &self.inner.bucket;
        let record = match request {
            Ending::AtOnce(request) => bucket.record_in(bucket.call(request).await?).await?,
            Ending::Session { session, chunk, .. } => {
                self.end_session(session, chunk.clone()).await?
            }
        };
        let is_ours = record.name == bucket.name_of(object.key) && record.mark() == object.mark;
        Ok(is_ours.then(|| found(object.key, record)))
    }

    async fn look(&self, key: &ObjectKey) -> Result<Option<NamedObject>, StoreError> {
        let bucket = &self.inner.bucket;
        match bucket.record(key).await {
            Ok(record) => Ok(Some(found(key, record))),
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                bucket.confirm_absence(key).await.map(|()| None)
            }
            Err(failure) => Err(self.not_stored(key, failure)),
        }
    }

    async fn remove(&self, key: &ObjectKey, found: &NamedObject) -> Result<bool, StoreError> {
        self.delete_request(key, found.version.as_deref()).await
    }

    fn not_stored(&self, key: &ObjectKey, failure: Failure) -> StoreError {
        self.inner.bucket.error(failure, Asked::Object(key))
    }

    async fn discard(&self, left: &Leftover) -> Result<(), StoreError> {
        self.delete_one(&left.key).await
    }

    /// A resumable upload has nothing left to end: its parts are gone, or have become another object.
    fn are_parts_gone(refusal: &Refusal) -> bool {
        refusal.may_be_absence()
            || matches!(refusal.meaning, Meaning::UploadGone | Meaning::Garbled)
    }
}

/// The whole body, which is known with its last part.
fn whole_at(last: &PlacedPart) -> Whole {
    last.end.unwrap_or_else(Whole::of_nothing)
}

/// What a record says of the object.
fn found(key: &ObjectKey, record: Resource) -> NamedObject {
    NamedObject {
        mark: record.mark().to_owned(),
        bytes: Some(record.size),
        sum: record.sum(),
        modified: record.meta(key).modified,
        version: record.generation,
    }
}
