//! What went wrong with a request, and what it means for the caller.
//!
//! Each store reads the errors of its server and says what they mean ([`Refusal`]); from there on they are alike.

use std::time::Duration;

use http::StatusCode;

use super::text::one_line;
use crate::{Misconfiguration, ObjectKey, ServerReply, StoreError};

/// Why a request has no good answer.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The server answered with an error.
    Refused(Refusal),
    /// There was no whole answer. Whether the request was carried out is unknown.
    NoAnswer(NoAnswer),
    /// The server's certificate is not trusted. Nothing was sent.
    Untrusted(String),
    /// There are no credentials. Nothing was sent.
    NoCredentials(String),
    /// The answer is not what the protocol says.
    Nonsense(String),
    /// The server computed another digest of the body that it stored.
    Garbled,
    /// The answer says that the object was stored, and it is not there.
    Unkept,
    /// What answers does not speak the endpoint's protocol. Nothing was sent.
    OtherProtocol(String),
}

const GARBLED: &str = "it received other bytes than were sent";
const UNKEPT: &str = "it answers that the object was stored, and the object is not there: \
                      something else may answer in the store's place";

/// An error that a server reported, and what it means.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reply: ServerReply,
    pub(crate) meaning: Meaning,
}

/// What an error of a server means. A store decides by its codes, and by the status where it does not know the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The store says that the object is not there.
    Absent,
    /// Perhaps the object is not there. The status says so, and no reason comes with it, as in answers to HEAD, or an
    /// unknown one. The page of a gateway that has lost its way to the store looks like this too.
    PerhapsAbsent,
    /// An object is there that the condition of the request forbids.
    Exists,
    /// Retention keeps the object.
    Retained,
    /// The same request may succeed soon. With what is said of it.
    Passing(&'static str),
    /// The server received other bytes than were sent; they are sent again.
    Garbled,
    /// The unfinished upload is not there any more.
    UploadGone,
    /// There is no room left.
    Full,
    /// It is not permitted.
    Denied,
    /// The server does not do such requests.
    Unsupported,
    /// Something has to be changed before anything works. With what was seen of it.
    Misconfigured(Misconfiguration, String),
    /// None of these.
    Other,
}

/// What is said of a server that answers with an error of its own.
pub(crate) const ANSWERS_WITH_AN_ERROR: &str = "it answers with an error";

impl Meaning {
    /// What a status means when it comes without a code, or with an unknown one.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::PerhapsAbsent,
            StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => Self::Exists,
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => Self::Unsupported,
            StatusCode::INSUFFICIENT_STORAGE => Self::Full,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Self::Passing(ANSWERS_WITH_AN_ERROR)
            }
            status if status.is_server_error() => Self::Passing(ANSWERS_WITH_AN_ERROR),
            _ => Self::Other,
        }
    }
}

impl Refusal {
    /// An error of which only the status is known.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        Self {
            status,
            reply: ServerReply {
                status: status.as_u16(),
                ..ServerReply::default()
            },
            meaning: Meaning::of_status(status),
        }
    }

    /// Whether its code is one of these.
    pub(crate) fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.reply.code.as_str())
    }

    /// Whether the store says that the object is not there.
    pub(crate) fn is_absence(&self) -> bool {
        self.meaning == Meaning::Absent
    }

    /// Whether the object is perhaps not there.
    pub(crate) fn may_be_absence(&self) -> bool {
        matches!(self.meaning, Meaning::Absent | Meaning::PerhapsAbsent)
    }

    /// Whether an object is there that the condition of the request forbids.
    pub(crate) fn is_existence(&self) -> bool {
        self.meaning == Meaning::Exists
    }

    /// Whether the server does not do such requests.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.meaning == Meaning::Unsupported
    }

    /// Whether the same request may succeed soon. A body that the server finds garbled is sent again.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.meaning, Meaning::Passing(_) | Meaning::Garbled)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reply.fmt(f)
    }
}

/// Why there was no whole answer.
#[derive(Debug, Clone)]
pub(crate) struct NoAnswer {
    /// What was seen, in lower case.
    pub(crate) reason: String,
}

impl NoAnswer {
    pub(crate) fn silence(limit: Duration) -> Self {
        Self {
            reason: format!("no answer within {limit:?}"),
        }
    }
}

/// What was asked for, for the error's text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    Object(&'a ObjectKey),
    /// The bucket, or what the store calls it.
    Bucket,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NoAnswer(NoAnswer { reason })
            | Self::Untrusted(reason)
            | Self::OtherProtocol(reason)
            | Self::NoCredentials(reason) => f.write_str(reason),
            // It may quote what came.
            Self::Nonsense(reason) => f.write_str(&one_line(reason)),
            Self::Garbled => f.write_str(GARBLED),
            Self::Unkept => f.write_str(UNKEPT),
        }
    }
}

impl Failure {
    /// A failure of a source of credentials, with its name. A failure that may pass stays one that may pass.
    pub(crate) fn of_source(&self, source: &str) -> Self {
        let reason = format!("{source}: {self}");
        if self.is_transient() {
            Self::NoAnswer(NoAnswer { reason })
        } else {
            Self::NoCredentials(reason)
        }
    }

    /// Whether the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_transient(),
            Self::NoAnswer(_) | Self::Nonsense(_) | Self::Garbled | Self::Unkept => true,
            Self::Untrusted(_) | Self::OtherProtocol(_) | Self::NoCredentials(_) => false,
        }
    }

    /// What the server said, if it said anything.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The same as the room's error.
    pub(crate) fn into_store_error(self, location: &str, asked: Asked<'_>) -> StoreError {
        let misconfigured = |problem, reason| StoreError::Misconfigured {
            location: location.to_owned(),
            problem,
            reason,
            source: None,
        };
        match self {
            Self::Refused(refusal) => refused(refusal, location, asked),
            Self::NoAnswer(NoAnswer { reason }) => StoreError::unavailable(location, reason),
            Self::Untrusted(reason) => misconfigured(Misconfiguration::UntrustedServer, reason),
            Self::NoCredentials(reason) => misconfigured(Misconfiguration::NoCredentials, reason),
            Self::OtherProtocol(reason) => misconfigured(Misconfiguration::OtherProtocol, reason),
            Self::Garbled => StoreError::unavailable(location, GARBLED),
            Self::Unkept => StoreError::unavailable(location, UNKEPT),
            Self::Nonsense(reason) => {
                let reason = one_line(&reason);
                StoreError::unavailable(location, format!("the answer is not a store's: {reason}"))
            }
        }
    }
}

fn refused(refusal: Refusal, location: &str, asked: Asked<'_>) -> StoreError {
    let is_bucket_gone = matches!(asked, Asked::Bucket) && is_absence_of_all(&refusal);
    let Refusal { reply, meaning, .. } = refusal;
    let what = match asked {
        Asked::Object(key) => format!("object {key}"),
        Asked::Bucket => location.to_owned(),
    };
    let location = location.to_owned();
    let reply = Box::new(reply);
    let misconfigured = |problem, reason, source| StoreError::Misconfigured {
        location: location.clone(),
        problem,
        reason,
        source: Some(source),
    };
    let unavailable = |reason: &str, source| StoreError::Unavailable {
        location: location.clone(),
        reason: reason.to_owned(),
        source: Some(source),
    };
    if is_bucket_gone {
        let reason = "the bucket does not exist".to_owned();
        return misconfigured(Misconfiguration::NoSuchBucket, reason, reply);
    }
    match (meaning, asked) {
        (Meaning::Misconfigured(problem, reason), _) => misconfigured(problem, reason, reply),
        (Meaning::Unsupported, _) => {
            let reason = "the server does not do such requests".to_owned();
            misconfigured(Misconfiguration::Unsupported, reason, reply)
        }
        (Meaning::Absent, Asked::Object(key)) => StoreError::NotFound { key: key.clone() },
        (Meaning::Retained, Asked::Object(key)) => StoreError::Retained {
            key: key.clone(),
            until: None,
            source: reply,
        },
        (Meaning::Garbled, _) => unavailable(GARBLED, reply),
        (Meaning::Passing(reason), _) => unavailable(reason, reply),
        (Meaning::UploadGone, _) => {
            unavailable("the unfinished upload was discarded meanwhile", reply)
        }
        // A status of absence without the store's reason is somebody else's word.
        (Meaning::PerhapsAbsent | Meaning::Absent, _) => unavailable(ANSWERS_WITH_AN_ERROR, reply),
        (Meaning::Full, _) => StoreError::Full {
            what,
            source: Some(reply),
        },
        (Meaning::Denied | Meaning::Retained, _) => StoreError::PermissionDenied {
            what,
            source: Some(reply),
        },
        (Meaning::Exists | Meaning::Other, _) => StoreError::Io {
            what,
            source: reply,
        },
    }
}

/// Whether an answer to a request for the bucket says that the bucket is not there: with the store's reason, or with a
/// status of absence that has no reason but its own name.
fn is_absence_of_all(refusal: &Refusal) -> bool {
    match refusal.meaning {
        Meaning::Absent => true,
        Meaning::PerhapsAbsent => matches!(refusal.reply.code.as_str(), "" | "NotFound"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unknown code of a store is judged by its status.
    #[test]
    fn a_status_alone_has_a_meaning() {
        type Check = fn(&StoreError) -> bool;
        let key = ObjectKey::new("a").expect("valid");
        let unavailable: Check = |e| e.is_transient();
        let denied: Check = |e| matches!(e, StoreError::PermissionDenied { .. });
        let cases: [(u16, Check); 8] = [
            (404, unavailable),
            (429, unavailable),
            (500, unavailable),
            (401, denied),
            (403, denied),
            (507, |e| matches!(e, StoreError::Full { .. })),
            (501, |e| matches!(e, StoreError::Misconfigured { .. })),
            (400, |e| matches!(e, StoreError::Io { .. })),
        ];
        for (status, expected) in cases {
            let refusal = Refusal::of_status(StatusCode::from_u16(status).expect("a status"));
            let error = Failure::Refused(refusal).into_store_error("x://b", Asked::Object(&key));
            assert!(expected(&error), "{status} became {error:?}");
            let reply = error.server_reply().expect("the server's words");
            assert_eq!(reply.status, status);
        }
        let lost = Refusal::of_status(StatusCode::NOT_FOUND);
        let error = Failure::Refused(lost).into_store_error("x://b", Asked::Bucket);
        let problem = Misconfiguration::NoSuchBucket;
        assert!(matches!(error, StoreError::Misconfigured { problem: p, .. } if p == problem));
    }
}
