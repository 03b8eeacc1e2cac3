//! Objects on their way out: exactly as many bytes as were announced, of one and the same object.
//!
//! A connection that breaks is taken up again after the last byte, on the condition that the object is still the
//! one of before (its `ETag`).

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::StatusCode;

use super::failure::{Asked, Failure};
use super::text::moment;
use super::transport::Answer;
use crate::retry::Attempts;
use crate::{Object, ObjectKey, ObjectMeta, ObjectStream, RetryPolicy, StoreError};

/// Asks for an object from this byte on, on the condition that it has this `ETag`, where it had one. A store hands in
/// the question, with its own address and signature.
pub(crate) type AskAgain =
    Box<dyn Fn(u64, Option<String>) -> BoxFuture<'static, Result<Answer, Failure>> + Send + Sync>;

/// The object that this answer begins. `location` is for messages.
///
/// # Errors
///
/// When the answer says neither length nor time.
pub(crate) fn object(
    key: &ObjectKey,
    answer: Answer,
    location: &str,
    retry: &RetryPolicy,
    ask_again: AskAgain,
) -> Result<Object, Failure> {
    let meta = meta(key, &answer)?;
    let reading = Download {
        location: location.to_owned(),
        key: key.clone(),
        etag: answer.header("etag").map(str::to_owned),
        size: meta.size,
        at: 0,
        answer: Some(answer),
        retry: retry.clone(),
        ask_again,
    };
    Ok(Object {
        meta,
        body: reading.into_stream(),
    })
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
    etag: Option<String>,
    size: u64,
    /// Bytes that were handed on.
    at: u64,
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
                    let reason = format!("object {} was replaced while it was read", self.key);
                    return Err(StoreError::unavailable(&self.location, reason));
                }
                Ok(Piece::End) if self.at == self.size => return Ok(None),
                Ok(Piece::End) => Failure::Nonsense(format!(
                    "object {} ended after {} of {} bytes",
                    self.key, self.at, self.size
                )),
                Err(failure) => failure,
            };
            self.answer = None;
            let error = failure.into_store_error(&self.location, Asked::Object(&self.key));
            attempts.pause(error).await?;
            tracing::debug!(key = %self.key, at = self.at, "the object is read on");
        }
    }

    /// The next piece of the answer, or of a new one that begins where the last one broke.
    async fn piece(&mut self) -> Result<Piece, Failure> {
        if self.at == self.size {
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
        self.answer = Some(answer);
        Ok(Piece::Bytes(piece))
    }

    /// The rest of the object; none when another object has taken its place.
    async fn reopen(&self) -> Result<Option<Answer>, Failure> {
        let asked = (self.ask_again)(self.at, self.etag.clone());
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) if refusal.is_existence() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let rest = format!("bytes {}-{}/{}", self.at, self.size - 1, self.size);
        let is_whole = answer.status == StatusCode::OK && self.at == 0;
        let is_rest = answer.header("content-range") == Some(rest.as_str());
        let is_same = answer.header("etag") == self.etag.as_deref();
        Ok((is_same && (is_whole || is_rest)).then_some(answer))
    }
}
