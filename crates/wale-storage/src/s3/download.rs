//! Objects on their way out: exactly as many bytes as were announced, of one and the same object.
//!
//! A connection that breaks is taken up again after the last byte, on the condition that the object is still the
//! one of before (its `ETag`).

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Method, StatusCode};

use super::client::{Call, SharedClient};
use crate::http::failure::{Asked, Failure};
use crate::http::text::moment;
use crate::http::transport::Answer;
use crate::retry::Attempts;
use crate::{Object, ObjectKey, ObjectMeta, ObjectStream, RetryPolicy, StoreError};

/// Opens an object.
pub(super) async fn open(
    client: &SharedClient,
    key: &ObjectKey,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let call = Call::object(Method::GET, key).headers(&client.customer_key());
    let answer = match client.call(&call).await {
        Ok(answer) => answer,
        Err(Failure::Refused(refusal)) if refusal.may_be_absence() && !refusal.is_absence() => {
            client.confirm_absence(key).await?;
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Err(failure) => return Err(client.error(failure, Asked::Object(key))),
    };
    let meta = meta(key, &answer).map_err(|failure| client.error(failure, Asked::Object(key)))?;
    let download = Download {
        client: client.clone(),
        key: key.clone(),
        etag: answer.header("etag").map(str::to_owned),
        size: meta.size,
        at: 0,
        answer: Some(answer),
        retry: retry.clone(),
    };
    Ok(Object {
        meta,
        body: download.into_stream(),
    })
}

/// What the headers of an answer say of an object. Times of S3 are given in whole seconds, because HEAD knows no
/// others and a listing must agree with it.
pub(super) fn meta(key: &ObjectKey, answer: &Answer) -> Result<ObjectMeta, Failure> {
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
    client: SharedClient,
    key: ObjectKey,
    etag: Option<String>,
    size: u64,
    /// Bytes that were handed on.
    at: u64,
    /// The answer that is being read; none after it broke.
    answer: Option<Answer>,
    retry: RetryPolicy,
}

impl Download {
    fn into_stream(self) -> ObjectStream {
        stream::unfold(Some(self), |download| async {
            let mut download = download?;
            match download.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(download))),
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
                    return Err(StoreError::unavailable(self.client.location(), reason));
                }
                Ok(Piece::End) if self.at == self.size => return Ok(None),
                Ok(Piece::End) => Failure::Nonsense(format!(
                    "object {} ended after {} of {} bytes",
                    self.key, self.at, self.size
                )),
                Err(failure) => failure,
            };
            self.answer = None;
            let error = self.client.error(failure, Asked::Object(&self.key));
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
        let mut call = Call::object(Method::GET, &self.key)
            .headers(&self.client.customer_key())
            .header("range", &format!("bytes={}-", self.at));
        if let Some(etag) = &self.etag {
            call = call.header("if-match", etag);
        }
        let answer = match self.client.call(&call).await {
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
