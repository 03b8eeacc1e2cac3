//! The errors of Google Cloud Storage: how they are read, and what they mean.
//!
//! Reasons are those of "HTTP status and error codes for JSON". A reason that is in no list is judged by the status.

use http::StatusCode;
use serde::Deserialize;

use crate::http::failure::{ANSWERS_WITH_AN_ERROR, Meaning, Refusal};
use crate::http::text::{one_line, words_of_page};
use crate::{Misconfiguration, ServerReply};

/// The body of an error.
#[derive(Debug, Deserialize)]
struct ErrorDocument {
    error: ErrorDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetails {
    message: String,
    errors: Vec<ErrorReason>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorReason {
    reason: String,
}

/// An error from an answer's status and body, in which a message of somebody else's may stand.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Refusal {
    let (code, message) = match serde_json::from_slice::<ErrorDocument>(body) {
        Ok(ErrorDocument { error }) => {
            let first = error.errors.into_iter().next().unwrap_or_default();
            (first.reason, one_line(&error.message))
        }
        // What is answered in place of content is a text, and what is not Google's a page for people.
        Err(_) => (String::new(), words_of_page(body)),
    };
    // Emulators repeat the status, which says nothing more.
    let code = match status.canonical_reason() {
        Some(words) if words == code => String::new(),
        _ => one_line(&code),
    };
    let reply = ServerReply {
        status: status.as_u16(),
        code,
        message,
        request_id: String::new(),
    };
    let meaning = meaning(status, &reply);
    Refusal {
        status,
        reply,
        meaning,
    }
}

/// Whether another token of the same source may be accepted.
pub(super) fn is_of_credentials(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::UNAUTHORIZED
}

fn meaning(status: StatusCode, reply: &ServerReply) -> Meaning {
    use Misconfiguration as M;
    let message = reply.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let misconfigured = |problem, reason: &str| Meaning::Misconfigured(problem, reason.to_owned());
    match status {
        StatusCode::NOT_FOUND if message.starts_with("the specified bucket does not exist") => {
            return misconfigured(M::NoSuchBucket, "the bucket does not exist");
        }
        StatusCode::NOT_FOUND if message.starts_with("no such object") => return Meaning::Absent,
        // The end of a resumable upload.
        StatusCode::GONE => return Meaning::UploadGone,
        StatusCode::UNAUTHORIZED => {
            return misconfigured(M::ExpiredCredentials, "the credentials are not accepted");
        }
        StatusCode::BAD_REQUEST if says(&["doesn't match calculated", "does not match"]) => {
            return Meaning::Garbled;
        }
        // A port for TLS says it in words to a request without it.
        StatusCode::BAD_REQUEST if reply.code.is_empty() && says(&["https"]) => {
            let reason = "the server speaks TLS, and was asked without it";
            return misconfigured(M::OtherProtocol, reason);
        }
        _ if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
            return Meaning::Passing("it leads elsewhere, and is not followed");
        }
        _ => {}
    }
    match reply.code.as_str() {
        "conditionNotMet" => Meaning::Exists,
        "rateLimitExceeded" | "userRateLimitExceeded" => {
            Meaning::Passing("it asks to be asked less often")
        }
        "backendError" | "internalError" => Meaning::Passing(ANSWERS_WITH_AN_ERROR),
        "retentionPolicyNotMet" | "objectUnderActiveHold" => Meaning::Retained,
        _ if status == StatusCode::FORBIDDEN && says(&["retention policy", "is under active"]) => {
            Meaning::Retained
        }
        _ => Meaning::of_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::{Asked, Failure};
    use crate::{ObjectKey, StoreError};

    fn error(status: u16, reason: &str, message: &str) -> StoreError {
        let body = serde_json::json!({
            "error": {"code": status, "message": message, "errors": [{"reason": reason, "domain": "global"}]}
        });
        let body = if reason == "text" {
            message.to_owned()
        } else {
            body.to_string()
        };
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = read(status, body.as_bytes());
        let key = ObjectKey::new("a").expect("valid");
        Failure::Refused(refusal).into_store_error("gs://b/p", Asked::Object(&key))
    }

    fn situation(error: &StoreError) -> String {
        match error {
            StoreError::Misconfigured { problem, .. } => format!("{problem:?}"),
            other => {
                let shown = format!("{other:?}");
                let end = shown.find([' ', '(']).unwrap_or(shown.len());
                shown[..end].to_owned()
            }
        }
    }

    /// Status, reason (`text` where the body is one), message, and what it means.
    #[rustfmt::skip]
    const CASES: &[(u16, &str, &str, &str)] = &[
        (404, "notFound", "No such object: b/a", "NotFound"),
        (404, "text", "No such object: b/a", "NotFound"),
        (404, "notFound", "The specified bucket does not exist.", "NoSuchBucket"),
        (404, "text", "Not Found", "Unavailable"),
        (404, "notFound", "Not Found", "Unavailable"),
        (401, "authError", "Invalid Credentials", "ExpiredCredentials"),
        (401, "required", "Anonymous caller does not have access", "ExpiredCredentials"),
        (403, "forbidden", "x does not have storage.objects.get access", "PermissionDenied"),
        (403, "insufficientPermissions", "Insufficient Permission", "PermissionDenied"),
        (403, "accountDisabled", "The billing account is disabled", "PermissionDenied"),
        (403, "rateLimitExceeded", "slow down", "Unavailable"),
        (429, "rateLimitExceeded", "The object b/a exceeded the rate limit", "Unavailable"),
        (403, "retentionPolicyNotMet", "subject to retention policy", "Retained"),
        (403, "forbidden", "Object 'b/a' is under active Event-Based hold", "Retained"),
        (403, "objectUnderActiveHold", "", "Retained"),
        (400, "invalid", "Provided CRC32C \"AAAAAA==\" doesn't match calculated CRC32C \"x\".", "Unavailable"),
        (400, "invalid", "Bad Request", "Io"),
        (400, "text", "<h1>Client sent an HTTP request to an HTTPS server.</h1>", "OtherProtocol"),
        (302, "text", "<a href=\"http://portal/\">here</a>", "Unavailable"),
        (410, "gone", "", "Unavailable"),
        (500, "backendError", "", "Unavailable"),
        (503, "backendError", "", "Unavailable"),
        (502, "text", "<html>Bad Gateway", "Unavailable"),
        (501, "text", "", "Unsupported"),
    ];

    #[test]
    fn row_32_each_situation_is_its_own() {
        for (status, reason, message, expected) in CASES {
            let error = error(*status, reason, message);
            assert_eq!(situation(&error), *expected, "{status} {reason}: {error:?}");
        }
    }

    #[test]
    fn the_cause_is_told_in_one_line() {
        let error = error(403, "forbidden", "not\nyou");
        let source = std::error::Error::source(&error).expect("a cause");
        assert_eq!(source.to_string(), "HTTP status 403 forbidden: not you");
    }
}
