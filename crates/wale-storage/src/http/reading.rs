//! Objects on their way out: exactly as many bytes as were announced, of one and the same object, with the store's sum
//! where it tells one.
//!
//! A connection that breaks is taken up again after the last byte, on the condition that the object is still the
//! one of before (its `ETag`, or what the store has in its place).

use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::StatusCode;

use super::failure::{Asked, Failure};
use super::part::Passing;
use super::text::moment;
use super::transport::Answer;
use crate::retry::Attempts;
use crate::store::cut;
use crate::{Object, ObjectKey, ObjectMeta, ObjectStream, RetryPolicy, StoreError};

/// What tells an object from another one of its name.
#[derive(Debug)]
pub(crate) struct Version {
    /// The header that has it.
    pub(crate) header: &'static str,
    pub(crate) text: Option<String>,
    /// Whether a question for this one gets no other, so that the answer to it need not repeat it.
    pub(crate) is_asked_for: bool,
}

/// What an answer says of the object that it begins.
pub(crate) struct Opening {
    pub(crate) meta: ObjectMeta,
    pub(crate) version: Version,
    /// The CRC-32C of the bytes that are to come, where it is told.
    pub(crate) sum: Option<[u8; 4]>,
}

/// Asks for an object from this byte on, on the condition that it has this version, where it had one. A store hands in
/// the question, with its own address and signature.
pub(crate) type AskAgain =
    Box<dyn Fn(u64, Option<String>) -> BoxFuture<'static, Result<Answer, Failure>> + Send + Sync>;

/// The object that this answer begins, or these bytes of one. What tells it is its `ETag`. `location` is for messages.
///
/// # Errors
///
/// When the answer says neither length nor time, or is for other bytes.
pub(crate) fn object(
    (key, wanted): (&ObjectKey, Option<Range<u64>>),
    answer: Answer,
    (location, retry): (&str, &RetryPolicy),
    ask_again: AskAgain,
) -> Result<Object, Failure> {
    let version = etag(&answer);
    if let Some(wanted) = wanted {
        return range((key, wanted), answer, version, (location, retry), ask_again);
    }
    let meta = meta(key, &answer)?;
    let sum = None;
    let opening = Opening { meta, version, sum };
    Ok(opened(opening, answer, location, retry, ask_again))
}

/// The same of an answer that was read already.
pub(crate) fn opened(
    opening: Opening,
    answer: Answer,
    location: &str,
    retry: &RetryPolicy,
    ask_again: AskAgain,
) -> Object {
    let Opening { meta, version, sum } = opening;
    let reading = Download {
        location: location.to_owned(),
        key: meta.key.clone(),
        version,
        size: meta.size,
        end: meta.size,
        at: 0,
        expected: sum,
        passed: Passing::new(),
        answer: Some(answer),
        retry: retry.clone(),
        ask_again,
    };
    Object {
        meta,
        body: reading.into_stream(),
    }
}

/// These bytes of an object, which this answer begins; `version` is what tells the object. A server that sends the whole is read as far
/// as the bytes lie in it. `ask_again` asks for no more than the range.
///
/// # Errors
///
/// When the answer is for other bytes, or says neither length nor time.
pub(crate) fn range(
    (key, range): (&ObjectKey, Range<u64>),
    answer: Answer,
    version: Version,
    (location, retry): (&str, &RetryPolicy),
    ask_again: AskAgain,
) -> Result<Object, Failure> {
    let mut meta = meta(key, &answer)?;
    if answer.status == StatusCode::OK {
        let sum = None;
        let opening = Opening { meta, version, sum };
        // Nobody asks on for what is not wanted: that it broke is an error then.
        let whole = opened(opening, answer, location, retry, ask_again);
        return cut(whole, range).map_err(|error| Failure::Nonsense(error.to_string()));
    }
    let (start, end) = (range.start, range.end);
    let told = answer.header("content-range").unwrap_or_default();
    let size = told.strip_prefix(&format!("bytes {start}-{}/", end.saturating_sub(1)));
    let Some(size) = size.and_then(|size| size.parse().ok()) else {
        let reason = format!("other bytes than {start} to {end}: \"{told}\"");
        return Err(Failure::Nonsense(reason));
    };
    meta.size = size;
    let reading = Download {
        location: location.to_owned(),
        key: key.clone(),
        version,
        size,
        end,
        at: start,
        expected: None,
        passed: Passing::new(),
        answer: Some(answer),
        retry: retry.clone(),
        ask_again,
    };
    Ok(Object {
        meta,
        body: reading.into_stream(),
    })
}

/// The header `range` for these bytes, where not all are wanted.
pub(crate) fn wanted_header(wanted: Option<&Range<u64>>) -> Option<String> {
    wanted.map(|wanted| range_header(wanted.start, Some(wanted.end)))
}

/// The header `range` for the bytes from `at` on, up to `end` where there is one.
pub(crate) fn range_header(at: u64, end: Option<u64>) -> String {
    match end {
        Some(end) => format!("bytes={at}-{}", end.saturating_sub(1)),
        None => format!("bytes={at}-"),
    }
}

/// The `ETag` of an answer, as what tells its object.
fn etag(answer: &Answer) -> Version {
    Version {
        header: "etag",
        text: answer.header("etag").map(str::to_owned),
        is_asked_for: false,
    }
}

/// What the headers of an answer say of an object. Times are given in whole seconds, because HEAD knows no others and a
/// listing must agree with it.
pub(crate) fn meta(key: &ObjectKey, answer: &Answer) -> Result<ObjectMeta, Failure> {
    let size = answer
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let modified = moment(answer.header("last-modified"));
    match (size, modified) {
        (Some(size), Some(modified)) => Ok(ObjectMeta {
            key: key.clone(),
            size,
            modified,
        }),
        _ => Err(Failure::Nonsense(
            "an object without length or time".to_owned(),
        )),
    }
}

/// What comes next of an object.
enum Piece {
    Bytes(Bytes),
    End,
    Replaced,
}

/// An object that is being read.
struct Download {
    location: String,
    key: ObjectKey,
    version: Version,
    size: u64,
    /// Where in the object the reading ends.
    end: u64,
    /// Up to where the bytes of the object were handed on.
    at: u64,
    /// Their sum when it ends, where the store says it.
    expected: Option<[u8; 4]>,
    passed: Passing,
    /// The answer that is being read; none after it broke.
    answer: Option<Answer>,
    retry: RetryPolicy,
    ask_again: AskAgain,
}

impl Download {
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
                Ok(Piece::Bytes(piece)) => return Ok(Some(piece)),
                Ok(Piece::Replaced) => {
                    let reason = format!(
                        "object {} was replaced or deleted while it was read",
                        self.key
                    );
                    return Err(StoreError::unavailable(&self.location, reason));
                }
                Ok(Piece::End) if self.at == self.end => return self.compare().map(|()| None),
                Ok(Piece::End) => Failure::Nonsense(format!(
                    "object {} ended after {} of {} bytes",
                    self.key, self.at, self.end
                )),
                Err(failure) => failure,
            };
            self.answer = None;
            let error = failure.into_store_error(&self.location, Asked::Object(&self.key));
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
        Err(StoreError::unavailable(&self.location, reason))
    }

    /// The next piece of the answer, or of a new one that begins where the last one broke.
    async fn piece(&mut self) -> Result<Piece, Failure> {
        if self.at == self.end {
            return Ok(Piece::End);
        }
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => match self.reopen().await? {
                Some(answer) => answer,
                None => return Ok(Piece::Replaced),
            },
        };
        let Some(piece) = answer.chunk().await? else {
            return Ok(Piece::End);
        };
        // HTTP itself ends a body at its announced length, which the size was taken from.
        self.at += piece.len() as u64;
        if self.expected.is_some() {
            self.passed.update(&piece);
        }
        self.answer = Some(answer);
        Ok(Piece::Bytes(piece))
    }

    /// The rest of the object; none when another object has taken its place.
    async fn reopen(&self) -> Result<Option<Answer>, Failure> {
        let asked = (self.ask_again)(self.at, self.version.text.clone());
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) if refusal.is_existence() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let rest = format!("bytes {}-{}/{}", self.at, self.end - 1, self.size);
        let is_whole = answer.status == StatusCode::OK && self.at == 0 && self.end == self.size;
        let is_rest = answer.header("content-range") == Some(rest.as_str());
        let Version {
            header,
            text,
            is_asked_for,
        } = &self.version;
        let is_same = match answer.header(*header) {
            None if *is_asked_for => true,
            found => found == text.as_deref(),
        };
        Ok((is_same && (is_whole || is_rest)).then_some(answer))
    }
}
