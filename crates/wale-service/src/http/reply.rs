//! Replies: success, failure, and the failure that even a plain `curl` notices.
//!
//! It refuses to know why something failed; the kind's table in `wale-ops` gives the status.
//!
//! Invariant: a failure on a WAL route declares one byte more than it sends and then closes. `curl` without `-f` ends
//! with status 0 on any HTTP status, and PostgreSQL would delete a segment that nobody stored; a body cut short makes it
//! end with 18. The body's text arrives whole all the same.

use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use wale_ops::{Kind, Nonce, OpError};
use wale_pg::ArchiveFileName;

use super::answer::{ANSWER_HEADER, HANDED, HANDED_HEADER};
use super::connections::Busy;
use super::io::Flushed;
use super::turns::Turn;
use crate::lifecycle::Permit;
use crate::remedy::advice;

/// Media type of texts.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Media type of a WAL file.
pub(crate) const BINARY: &str = "application/octet-stream";

/// How much of the end of a file hyper is given at once, copied. hyper asks for more while it keeps less than this, and keeps
/// it until the client reads, after the last piece without the file's turn. So every connection may hold two of them, beside
/// hyper's own 16 KiB.
const PIECE_BYTES: usize = 16 << 10;

/// The end of a file: two pieces. When hyper asks for the second, it keeps less than the first, so of what came before them,
/// which is handed on as it is, nothing is left when the file's turn ends.
const END_BYTES: u64 = 2 * PIECE_BYTES as u64;

/// A browser gives no reply to pages of other sites, whatever it is.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// After so many seconds a client may repeat a request that was refused for a passing reason.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// What goes back to a client.
pub(crate) enum Reply {
    /// A whole body.
    Whole {
        status: StatusCode,
        media: &'static str,
        body: Bytes,
    },
    /// A verified file of known length. The permit and its turn among the files are held until its last byte.
    File {
        size: u64,
        body: BoxStream<'static, Result<Bytes, OpError>>,
        held: (Permit, Turn),
    },
    /// No body: the file of that many bytes lies where its client waits for it.
    Handed {
        name: ArchiveFileName,
        nonce: Nonce,
        size: u64,
    },
    /// A failure.
    Failure(Failure),
}

/// How a failure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One byte declared too much, then the connection closes.
    CutShort,
    /// An ordinary reply.
    Plain,
}

/// Whether the client asked for JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    Text,
    Json,
}

/// A failure as a client sees it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// The methods that would be allowed (405).
    pub(crate) allow: Option<&'static str>,
    /// Whether the request left the connection in a state that nothing else may be read from.
    pub(crate) close: bool,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            detail: None,
            hint: None,
            allow: None,
            close: false,
        }
    }

    /// A failure of a kind that the error table knows, and without an error of an operation.
    pub(crate) fn of(kind: Kind, message: impl Into<String>) -> Self {
        // A row that is no status would be a bug of the table, which has its own test; 500 says so to the client.
        let status =
            StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, kind.name(), message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Closes the connection after the reply, whatever its manner.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.message);
        for (word, value) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{word}: {value}");
            }
        }
        text
    }

    fn json(&self) -> String {
        let value = serde_json::json!({
            "kind": self.kind, "message": self.message, "detail": self.detail, "hint": self.hint,
        });
        format!("{value}\n")
    }
}

impl From<&OpError> for Failure {
    fn from(error: &OpError) -> Self {
        // As the verbs do: the causes name the object, the detail is what is known of it.
        let (message, detail) = match &error.detail {
            Some(detail) => (error.chain(), Some(detail.clone())),
            None => (error.message.clone(), cause(error)),
        };
        Self {
            detail,
            hint: advice(error),
            ..Self::of(error.kind, message)
        }
    }
}

/// The chain of causes behind the message, for an error that brings no detail of its own.
fn cause(error: &OpError) -> Option<String> {
    let chain = error.chain();
    let causes = chain.strip_prefix(&error.message)?.trim_start_matches(": ");
    (!causes.is_empty()).then(|| causes.to_owned())
}

impl From<OpError> for Reply {
    fn from(error: OpError) -> Self {
        Self::Failure(Failure::from(&error))
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Reply {
    /// One line of text, status 200.
    pub(crate) fn line(text: impl Into<String>) -> Self {
        Self::text(StatusCode::OK, format!("{}\n", text.into()))
    }

    pub(crate) fn text(status: StatusCode, text: String) -> Self {
        Self::Whole {
            status,
            media: TEXT,
            body: Bytes::from(text),
        }
    }

    pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::Whole {
            status,
            media: JSON,
            body: Bytes::from(format!("{value}\n")),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Whole { status, .. } => *status,
            Self::File { .. } | Self::Handed { .. } => StatusCode::OK,
            Self::Failure(failure) => failure.status,
        }
    }

    /// The reply for hyper. `busy` is held until the body's last byte.
    pub(crate) fn render(
        self,
        manner: Manner,
        voice: Voice,
        flushed: &Flushed,
        busy: Option<Busy>,
    ) -> Response<ReplyBody> {
        let status = self.status();
        let (media, length, content) = match self {
            Self::Whole { media, body, .. } => {
                (media, body.len() as u64, Content::Whole(Some(body)))
            }
            Self::File { size, body, held } => (
                BINARY,
                size,
                Content::File {
                    left: size,
                    piece: Bytes::new(),
                    body,
                    held,
                },
            ),
            Self::Handed { name, nonce, size } => return handed(&name, &nonce, size, busy),
            Self::Failure(failure) => return failure.render(manner, voice, flushed, busy),
        };
        respond(
            status,
            media,
            length,
            ReplyBody {
                content,
                _busy: busy,
            },
        )
    }
}

impl Failure {
    fn render(
        self,
        manner: Manner,
        voice: Voice,
        flushed: &Flushed,
        busy: Option<Busy>,
    ) -> Response<ReplyBody> {
        let (media, body) = match voice {
            Voice::Text => (TEXT, Bytes::from(self.text())),
            Voice::Json => (JSON, Bytes::from(self.json())),
        };
        let sent = body.len() as u64;
        let (length, content) = match manner {
            Manner::Plain => (sent, Content::Whole(Some(body))),
            Manner::CutShort => (
                sent + 1,
                Content::CutShort {
                    text: Some(body),
                    flushed: flushed.clone(),
                    seen: None,
                },
            ),
        };
        let mut response = respond(
            self.status,
            media,
            length,
            ReplyBody {
                content,
                _busy: busy,
            },
        );
        let headers = response.headers_mut();
        if manner == Manner::CutShort || self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Basic first: wget only knows that one, and takes the first it knows.
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"wale\""),
            );
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"wale\""),
            );
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// The reply to a client that has its file already.
fn handed(
    name: &ArchiveFileName,
    nonce: &Nonce,
    size: u64,
    busy: Option<Busy>,
) -> Response<ReplyBody> {
    let body = ReplyBody {
        content: Content::Whole(None),
        _busy: busy,
    };
    let mut response = respond(StatusCode::OK, BINARY, 0, body);
    for (header, text) in [
        (ANSWER_HEADER, format!("{HANDED} {name}")),
        (HANDED_HEADER, format!("{nonce} {size}")),
    ] {
        let value = HeaderValue::try_from(text).expect("names, digits and spaces are text");
        response.headers_mut().insert(header, value);
    }
    response
}

fn respond(
    status: StatusCode,
    media: &'static str,
    length: u64,
    body: ReplyBody,
) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// A 503 for a passing reason of the service itself.
pub(crate) fn busy(message: impl Into<String>, hint: impl Into<String>) -> OpError {
    OpError::new(Kind::Busy, message).hint(hint)
}

/// The body of a reply.
pub(crate) struct ReplyBody {
    content: Content,
    _busy: Option<Busy>,
}

enum Content {
    Whole(Option<Bytes>),
    File {
        left: u64,
        /// What came of the body and was not handed on.
        piece: Bytes,
        body: BoxStream<'static, Result<Bytes, OpError>>,
        held: (Permit, Turn),
    },
    CutShort {
        text: Option<Bytes>,
        flushed: Flushed,
        seen: Option<u64>,
    },
}

/// What hyper is told when a body cannot go on; it closes the connection, which the client sees as a cut.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Whole(body) => Poll::Ready(
                body.take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(|b| Ok(Frame::data(b))),
            ),
            Content::File {
                left,
                piece,
                body,
                held: (_, turn),
            } => {
                turn.taken();
                while piece.is_empty() {
                    match ready!(body.poll_next_unpin(context)) {
                        Some(Ok(next)) => *piece = next,
                        Some(Err(error)) => return Poll::Ready(Some(Err(broke_off(error)))),
                        None => return Poll::Ready(None),
                    }
                }
                let before = *left;
                let piece = file_piece(piece, left);
                turn.handed(usize::try_from(before - *left).unwrap_or(0));
                Poll::Ready(Some(piece))
            }
            Content::CutShort {
                text,
                flushed,
                seen,
            } => {
                if let Some(text) = text.take() {
                    return Poll::Ready(Some(Ok(Frame::data(text))));
                }
                // Ending at once would throw away what hyper still buffers: wait until it has flushed the text.
                let seen = *seen.get_or_insert_with(|| flushed.count());
                ready!(flushed.poll_beyond(seen, context));
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(body) => body.as_ref().is_none_or(Bytes::is_empty),
            Content::File { left, .. } => *left == 0,
            Content::CutShort { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::File { left, .. } => SizeHint::with_exact(*left),
            // Not exact: hyper must believe the header.
            Content::CutShort { .. } => SizeHint::default(),
        }
    }
}

fn broke_off(error: OpError) -> BodyError {
    tracing::warn!(
        error = error.chain(),
        "a WAL file broke off while it was sent; the client sees a short reply"
    );
    Box::new(error)
}

/// The next piece for hyper. What comes before the end is not copied: a part of the whole keeps all of it in memory, and so does
/// the body, whose turn it is. Of the end hyper gets copies, for it keeps them after the turn.
fn file_piece(whole: &mut Bytes, left: &mut u64) -> Result<Frame<Bytes>, BodyError> {
    let before_end = left.saturating_sub(END_BYTES);
    let piece = if before_end > 0 {
        let bytes = usize::try_from(before_end).map_or(whole.len(), |most| whole.len().min(most));
        whole.split_to(bytes)
    } else {
        Bytes::copy_from_slice(&whole.split_to(whole.len().min(PIECE_BYTES)))
    };
    *left = left
        .checked_sub(piece.len() as u64)
        .ok_or_else(|| BodyError::from("the file brought more bytes than it had announced"))?;
    Ok(Frame::data(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_then_detail_then_hint() {
        let error = OpError::new(Kind::NotFound, "it is gone")
            .detail("It was here.")
            .hint("look again");
        let failure = Failure::from(&error);
        assert_eq!(failure.status, StatusCode::NOT_FOUND);
        assert_eq!(
            failure.text(),
            "it is gone\ndetail: It was here.\nhint: look again\n"
        );
        let value: serde_json::Value = serde_json::from_str(&failure.json()).unwrap();
        assert_eq!(value["kind"], "not-found");
        assert_eq!(value["hint"], "look again");
        let bare = OpError::new(Kind::LocalIo, "could not read it").source("disk on fire");
        assert_eq!(
            Failure::from(&bare).text(),
            "could not read it\ndetail: disk on fire\n"
        );
        // The cause names the object; the detail must not hide it.
        let both = OpError::new(Kind::PostgresUnavailable, "could not connect")
            .source("could not reach the server at /run/x")
            .detail("Connection refused.");
        assert_eq!(
            Failure::from(&both).text(),
            "could not connect: could not reach the server at /run/x\ndetail: Connection refused.\n"
        );
    }

    /// The byte at a place of a file.
    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).expect("below 251")
    }

    /// All pieces of a file of so many bytes that comes in parts of `part`.
    fn pieces(size: usize, part: usize) -> Vec<(Bytes, Bytes)> {
        let content: Vec<u8> = (0..size).map(byte).collect();
        let mut rest = Bytes::from(content);
        let (mut left, mut pieces) = (size as u64, Vec::new());
        while left > 0 {
            let mut whole = rest.split_to(rest.len().min(part));
            while !whole.is_empty() {
                let source = whole.clone();
                let piece = file_piece(&mut whole, &mut left).expect("as announced");
                pieces.push((piece.into_data().expect("data"), source));
            }
        }
        assert!(rest.is_empty());
        pieces
    }

    #[test]
    fn what_hyper_keeps_after_the_last_piece_is_copied() {
        let end = usize::try_from(END_BYTES).expect("small");
        for (size, part) in [
            (1 << 20, 256 << 10),
            (1 << 20, 1 << 20),
            (end + 1, 1 << 20),
            (end, 7_000),
            (5, 3),
        ] {
            let pieces = pieces(size, part);
            let mut sent = Vec::new();
            for (piece, source) in &pieces {
                let is_copy = piece.as_ptr() != source.as_ptr();
                assert_eq!(
                    is_copy,
                    sent.len() + end >= size,
                    "{size}, {part}: at {}",
                    sent.len()
                );
                assert!(!is_copy || piece.len() <= PIECE_BYTES);
                sent.extend_from_slice(piece);
            }
            let expected: Vec<u8> = (0..size).map(byte).collect();
            assert_eq!(sent, expected);
        }
        let mut more = Bytes::from_static(b"more");
        assert!(
            file_piece(&mut more, &mut 3).is_err(),
            "more than announced"
        );
    }

    #[test]
    fn only_the_cut_reply_declares_a_byte_too_much() {
        let flushed = Flushed::default();
        for (manner, extra, close) in [(Manner::CutShort, 1, true), (Manner::Plain, 0, false)] {
            let failure = Failure::new(StatusCode::NOT_FOUND, "not-found", "x");
            let response = failure.render(manner, Voice::Text, &flushed, None);
            assert_eq!(
                response.headers()[CONTENT_LENGTH],
                HeaderValue::from(2_u64 + extra)
            );
            assert_eq!(response.headers().contains_key(CONNECTION), close);
        }
    }
}
