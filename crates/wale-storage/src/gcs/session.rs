//! A resumable upload: its beginning, and each chunk of it. The last chunk makes the object.
//!
//! A chunk whose answer is lost is sent again: the store ignores what it has. The address of an upload lets everybody
//! write who knows it, so it is never printed.

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, StatusCode};
use serde_json::Value;

use super::bucket::{Request, Target};
use super::creation::crc32c_text;
use super::resource::Resource;
use super::state::GcsStore;
use crate::http::failure::{Asked, Failure};
use crate::http::part::Whole;
use crate::http::transport::Payload;
use crate::http::writes::Condition;
use crate::retry::Attempts;
use crate::{ObjectKey, StoreError};

/// A resumable upload that has begun. One that is dropped is left to the store, which forgets it after a week.
pub(crate) struct Session {
    key: ObjectKey,
    /// Path and query, as the store gave them.
    address: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(secret)")
    }
}

/// A piece of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Where in the object it begins.
    pub(super) start: u64,
    pub(super) payload: Payload,
    /// The whole object, which is told with the last one.
    pub(super) end: Option<Whole>,
}

/// What the store says to a chunk.
enum Arrived {
    /// It has so many bytes of the object, and waits for more.
    Bytes(u64),
    /// The object is there.
    Object(Box<Resource>),
}

impl GcsStore {
    /// Begins a resumable upload; none when the store says at once that an object is there which the condition forbids.
    pub(super) async fn begin_session(
        &self,
        key: &ObjectKey,
        metadata: &Value,
        condition: Condition,
    ) -> Result<Option<Session>, StoreError> {
        let inner = &*self.inner;
        let request = self
            .creation(key, "resumable", condition)
            .header("content-type", "application/json; charset=UTF-8")
            .payload(Bytes::from(metadata.to_string()));
        let mut attempts = Attempts::from_failure(&inner.uploads.retry);
        loop {
            let failure = match inner.bucket.call(&request).await {
                Ok(answer) => match address(answer.header(LOCATION)) {
                    Some(address) => {
                        let key = key.clone();
                        return Ok(Some(Session { key, address }));
                    }
                    None => Failure::Nonsense("an upload without an address".to_owned()),
                },
                Err(Failure::Refused(refusal)) if refusal.is_existence() => return Ok(None),
                Err(failure) => failure,
            };
            let error = inner.bucket.error(failure, Asked::Object(key));
            attempts.pause(error).await?;
        }
    }

    /// Sends a chunk that others follow, again as long as that may help.
    pub(super) async fn put_chunk(
        &self,
        session: &Session,
        chunk: &Chunk,
    ) -> Result<(), StoreError> {
        let (bucket, key) = (&self.inner.bucket, &session.key);
        let end = chunk.start + chunk.payload.len();
        let mut rest = chunk.clone();
        let mut attempts = Attempts::from_failure(&self.inner.uploads.retry);
        loop {
            let failure = match self.send(session, &rest).await {
                Ok(Arrived::Bytes(bytes)) if bytes == end => return Ok(()),
                Ok(Arrived::Bytes(bytes)) if bytes > rest.start && bytes < end => {
                    rest = rest.left_at(bytes);
                    continue;
                }
                Ok(Arrived::Bytes(bytes)) => Failure::Nonsense(format!(
                    "the store has {bytes} bytes of object {key}, after {} to {end} were sent",
                    rest.start
                )),
                Ok(Arrived::Object(_)) => {
                    Failure::Nonsense(format!("object {key} has ended before its last chunk"))
                }
                Err(failure) => failure,
            };
            let error = bucket.error(failure, Asked::Object(key));
            attempts.pause(error).await?;
        }
    }

    /// Sends the last chunk, which makes the object. Gives its record.
    pub(super) async fn end_session(
        &self,
        session: &Session,
        last: Chunk,
    ) -> Result<Resource, Failure> {
        let end = last.start + last.payload.len();
        let mut rest = last;
        loop {
            match self.send(session, &rest).await? {
                Arrived::Object(record) => return Ok(*record),
                Arrived::Bytes(bytes) if bytes > rest.start && bytes <= end => {
                    rest = rest.left_at(bytes);
                }
                Arrived::Bytes(bytes) => {
                    return Err(Failure::Nonsense(format!(
                        "the store has {bytes} of {end} bytes of object {}, and waits for others",
                        session.key
                    )));
                }
            }
        }
    }

    /// Sends a chunk once.
    async fn send(&self, session: &Session, chunk: &Chunk) -> Result<Arrived, Failure> {
        let bucket = &self.inner.bucket;
        let mut request = Request::new(Method::PUT, Target::Session(&session.address))
            .header("content-range", &chunk.range())
            .headers(bucket.customer_key())
            .payload(chunk.payload.clone());
        if let Some(end) = &chunk.end {
            request = request
                .header("x-goog-hash", &format!("crc32c={}", crc32c_text(end)))
                .answer_limit(bucket.timeouts().assembly);
        }
        let answer = bucket.call(&request).await?;
        if answer.status != StatusCode::PERMANENT_REDIRECT {
            let record = bucket.record_in(answer).await?;
            return Ok(Arrived::Object(Box::new(record)));
        }
        let Some(range) = answer.header("range") else {
            return Ok(Arrived::Bytes(0));
        };
        match bytes_in(range) {
            Some(bytes) => Ok(Arrived::Bytes(bytes)),
            None => Err(Failure::Nonsense(format!(
                "\"{range}\" is no range of an upload"
            ))),
        }
    }
}

impl Chunk {
    /// What is left of it when the store has so many bytes of the object.
    fn left_at(&self, bytes: u64) -> Self {
        let mut skipped = bytes.saturating_sub(self.start);
        let mut payload = Payload::default();
        for piece in self.payload.chunks() {
            let length = piece.len() as u64;
            let from = usize::try_from(skipped.min(length)).unwrap_or(piece.len());
            if from < piece.len() {
                payload.push(piece.slice(from..));
            }
            skipped = skipped.saturating_sub(length);
        }
        Self {
            start: bytes.max(self.start),
            payload,
            end: self.end,
        }
    }

    /// `bytes 0-9/10`; of a chunk that others follow `bytes 0-9/*`; of an end without bytes `bytes */10`.
    fn range(&self) -> String {
        let total = match &self.end {
            Some(end) => end.bytes().to_string(),
            None => "*".to_owned(),
        };
        match self.payload.len() {
            0 => format!("bytes */{total}"),
            length => format!("bytes {}-{}/{total}", self.start, self.start + length - 1),
        }
    }
}

/// Path and query of an upload's address. It is spoken to where the store is, whatever host it names: a token goes
/// nowhere else.
fn address(location: Option<&str>) -> Option<String> {
    let location = location?;
    let path = match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => location,
    };
    let is_sound = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then(|| path.to_owned())
}

/// The number of bytes of `bytes=0-9`.
fn bytes_in(range: &str) -> Option<u64> {
    let last: u64 = range.strip_prefix("bytes=0-")?.parse().ok()?;
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::part::Passing;

    fn chunk(start: u64, pieces: &[&'static str], end: Option<usize>) -> Chunk {
        let mut payload = Payload::default();
        for piece in pieces {
            payload.push(Bytes::from_static(piece.as_bytes()));
        }
        Chunk {
            start,
            payload,
            end: end.map(|bytes| {
                let mut passing = Passing::new();
                passing.update(&vec![0; bytes]);
                passing.whole()
            }),
        }
    }

    #[test]
    fn ranges_of_chunks() {
        for (chunk, expected) in [
            (chunk(0, &["abc", "de"], None), "bytes 0-4/*"),
            (chunk(5, &["x"], Some(6)), "bytes 5-5/6"),
            (chunk(5, &[], Some(5)), "bytes */5"),
        ] {
            assert_eq!(chunk.range(), expected);
        }
        assert_eq!(bytes_in("bytes=0-262143"), Some(262_144));
        for text in [
            "",
            "bytes=1-2",
            "bytes=0-",
            "0-2",
            "bytes=0-18446744073709551615",
        ] {
            assert_eq!(bytes_in(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_left_of_a_chunk() {
        let whole = chunk(10, &["abc", "de", "f"], Some(16));
        for (bytes, expected) in [
            (10, "abcdef"),
            (11, "bcdef"),
            (13, "def"),
            (15, "f"),
            (16, ""),
        ] {
            let rest = whole.left_at(bytes);
            assert_eq!(rest.start, bytes);
            assert_eq!(rest.payload.chunks().concat(), expected.as_bytes());
            assert_eq!(rest.payload.len(), expected.len() as u64);
        }
    }

    #[test]
    fn a_token_goes_to_the_store_and_nowhere_else() {
        for (location, expected) in [
            (
                "https://elsewhere.example/upload/x?upload_id=u",
                Some("/upload/x?upload_id=u"),
            ),
            ("/upload/x", Some("/upload/x")),
            ("https://elsewhere.example", None),
            ("upload/x", None),
            ("https://h/a b", None),
        ] {
            assert_eq!(address(Some(location)).as_deref(), expected, "{location}");
        }
        let session = Session {
            key: ObjectKey::new("k").expect("valid"),
            address: "/canary".to_owned(),
        };
        assert!(!format!("{session:?}").contains("canary"));
    }
}
