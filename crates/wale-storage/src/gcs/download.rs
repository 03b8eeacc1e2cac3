//! Objects on their way out: exactly as many bytes as were announced, of one and the same object, with its sum.
//!
//! A connection that breaks is taken up again after the last byte, of the same generation: another object under the name
//! has another. At the end the CRC-32C that the store has of the object is compared with that of the bytes that came.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Method, StatusCode};

use super::bucket::{Request, SharedBucket, Target};
use super::resource::crc32c_of;
use crate::http::failure::{Asked, Failure};
use crate::http::part::Passing;
use crate::http::text::moment;
use crate::http::transport::Answer;
use crate::retry::Attempts;
use crate::{Object, ObjectKey, ObjectMeta, ObjectStream, RetryPolicy, StoreError};

/// Opens an object.
pub(super) async fn open(
    bucket: &SharedBucket,
    key: &ObjectKey,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let request = content_of(bucket, key);
    let answer = match bucket.call(&request).await {
        Ok(answer) => answer,
        Err(Failure::Refused(refusal)) if refusal.may_be_absence() && !refusal.is_absence() => {
            bucket.confirm_absence(key).await?;
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Err(failure) => return Err(bucket.error(failure, Asked::Object(key))),
    };
    let opened = opened(bucket, key, &answer).await;
    let (meta, generation) = opened.map_err(|failure| bucket.error(failure, Asked::Object(key)))?;
    let reading = OpenObject {
        bucket: bucket.clone(),
        key: key.clone(),
        generation,
        size: meta.size,
        at: 0,
        expected: sum_of(&answer),
        passed: Passing::new(),
        answer: Some(answer),
        retry: retry.clone(),
    };
    Ok(Object {
        meta,
        body: reading.into_stream(),
    })
}

fn content_of<'a>(bucket: &'a SharedBucket, key: &'a ObjectKey) -> Request<'a> {
    Request::new(Method::GET, Target::Object(key))
        .query(&[("alt", "media")])
        .headers(bucket.customer_key())
}

/// What the headers of an answer say of an object, and its generation. What they leave out is in its record.
async fn opened(
    bucket: &SharedBucket,
    key: &ObjectKey,
    answer: &Answer,
) -> Result<(ObjectMeta, String), Failure> {
    let size = answer.header("content-length");
    let Some(size) = size.and_then(|text| text.parse().ok()) else {
        return Err(Failure::Nonsense("an object without a length".to_owned()));
    };
    let modified = moment(answer.header("last-modified"));
    let generation = answer.header("x-goog-generation").map(str::to_owned);
    if let (Some(modified), Some(generation)) = (modified, &generation) {
        let meta = ObjectMeta {
            key: key.clone(),
            size,
            modified,
        };
        return Ok((meta, generation.clone()));
    }
    let record = bucket.record(key).await?;
    let is_same = generation.is_none() || generation == record.generation;
    match &record.generation {
        Some(told) if is_same && record.size == size => Ok((record.meta(key), told.clone())),
        _ => Err(Failure::Nonsense(
            "an object whose record is another's".to_owned(),
        )),
    }
}

/// The CRC-32C of the stored bytes, where they are sent as they are stored.
fn sum_of(answer: &Answer) -> Option<[u8; 4]> {
    let encoding = answer.header("x-goog-stored-content-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return None;
    }
    // Google sends a header for each sum, or one with all of them.
    let sums = answer.headers.get_all("x-goog-hash").into_iter();
    let texts = sums.filter_map(|value| value.to_str().ok());
    let mut words = texts.flat_map(|text| text.split(','));
    let sum = words.find_map(|word| word.trim().strip_prefix("crc32c="))?;
    crc32c_of(sum)
}

/// What comes next of an object.
enum Next {
    Bytes(Bytes),
    End,
    Replaced,
}

/// An object that is being read.
struct OpenObject {
    bucket: SharedBucket,
    key: ObjectKey,
    generation: String,
    size: u64,
    /// Bytes that were handed on.
    at: u64,
    /// Their sum when it ends, where the store says it.
    expected: Option<[u8; 4]>,
    passed: Passing,
    /// The answer that is being read; none after it broke.
    answer: Option<Answer>,
    retry: RetryPolicy,
}

impl OpenObject {
    fn into_stream(self) -> ObjectStream {
        stream::unfold(Some(self), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let retry = self.retry.clone();
        let mut attempts = Attempts::from_failure(&retry);
        loop {
            let failure = match self.piece().await {
                Ok(Next::Bytes(piece)) => return Ok(Some(piece)),
                Ok(Next::Replaced) => {
                    let reason = format!(
                        "object {} was replaced or deleted while it was read",
                        self.key
                    );
                    return Err(StoreError::unavailable(self.bucket.location(), reason));
                }
                Ok(Next::End) if self.at == self.size => return self.compare().map(|()| None),
                Ok(Next::End) => Failure::Nonsense(format!(
                    "object {} ended after {} of {} bytes",
                    self.key, self.at, self.size
                )),
                Err(failure) => failure,
            };
            self.answer = None;
            let error = self.bucket.error(failure, Asked::Object(&self.key));
            attempts.pause(error).await?;
            tracing::debug!(key = %self.key, at = self.at, "the object is read on");
        }
    }

    /// Whether the bytes that came are those that the store has. They were handed on already: the error comes in place
    /// of the end.
    fn compare(&self) -> Result<(), StoreError> {
        let sum = self.passed.whole().crc32c();
        if self.expected.is_none_or(|expected| expected == sum) {
            return Ok(());
        }
        let reason = format!(
            "object {} came with other bytes than the store has",
            self.key
        );
        Err(StoreError::unavailable(self.bucket.location(), reason))
    }

    /// The next piece of the answer, or of a new one that begins where the last one broke.
    async fn piece(&mut self) -> Result<Next, Failure> {
        if self.at == self.size {
            return Ok(Next::End);
        }
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => match self.reopen().await? {
                Some(answer) => answer,
                None => return Ok(Next::Replaced),
            },
        };
        let Some(piece) = answer.chunk().await? else {
            return Ok(Next::End);
        };
        // HTTP itself ends a body at its announced length, which the size was taken from.
        self.at += piece.len() as u64;
        self.passed.update(&piece);
        self.answer = Some(answer);
        Ok(Next::Bytes(piece))
    }

    /// The rest of the object; none when it is not there any more.
    async fn reopen(&self) -> Result<Option<Answer>, Failure> {
        let request = content_of(&self.bucket, &self.key)
            .query(&[("generation", &self.generation)])
            .header("range", &format!("bytes={}-", self.at));
        let answer = match self.bucket.call(&request).await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) if refusal.may_be_absence() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let rest = format!("bytes {}-{}/{}", self.at, self.size - 1, self.size);
        let is_whole = answer.status == StatusCode::OK && self.at == 0;
        let is_rest = answer.header("content-range") == Some(rest.as_str());
        let generation = answer.header("x-goog-generation");
        let is_same = generation.is_none_or(|generation| generation == self.generation);
        Ok((is_same && (is_whole || is_rest)).then_some(answer))
    }
}
