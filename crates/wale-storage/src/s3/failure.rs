//! What went wrong with a request, and what it means for whoever asked.
//!
//! Codes are those of Amazon's "List of error codes", which the others copy. What is in no list is told as it came.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::{Misconfiguration, ObjectKey, StoreError};

/// Why a request has no good answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
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

/// An error that a server told.
#[derive(Debug, Clone, thiserror::Error)]
#[error("HTTP status {}{}{}{}", .status.as_u16(), told(" ", .code), told(": ", .message), told(", request ", .request_id))]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Empty when the answer had no body, as those to HEAD.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) request_id: String,
    /// The bucket's region, where the server says it.
    pub(super) region: Option<String>,
}

fn told(before: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{before}{text}")
    }
}

/// Why there was no whole answer.
#[derive(Debug, Clone)]
pub(super) struct NoAnswer {
    /// What was seen, in lower case.
    pub(super) reason: String,
}

impl NoAnswer {
    pub(super) fn silence(limit: Duration) -> Self {
        Self {
            reason: format!("no answer within {limit:?}"),
        }
    }
}

/// What was asked for, for the error's text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    Object(&'a ObjectKey),
    Bucket,
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorBody {
    code: String,
    message: String,
    request_id: String,
    region: Option<String>,
}

impl Refusal {
    /// From an answer's status, headers and body, in which a message of somebody else's may stand.
    pub(super) fn new(status: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> Self {
        let parsed = std::str::from_utf8(body)
            .ok()
            .and_then(|text| quick_xml::de::from_str::<ErrorBody>(text).ok())
            .unwrap_or_default();
        let header = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let request_id = if parsed.request_id.is_empty() {
            header("x-amz-request-id").unwrap_or_default()
        } else {
            parsed.request_id
        };
        // What is not S3's is a page for people, which may say what is wrong in words.
        let message = if parsed.code.is_empty() && parsed.message.is_empty() {
            words_of_page(body)
        } else {
            one_line(&parsed.message)
        };
        Self {
            status,
            code: one_line(&parsed.code),
            message,
            request_id: one_line(&request_id),
            region: parsed
                .region
                .or_else(|| header("x-amz-bucket-region"))
                .map(|region| one_line(&region)),
        }
    }

    pub(super) fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// Whether the store says that the object is not there. A bucket that is not there is something else.
    pub(super) fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.is(&["NoSuchKey"])
    }

    /// Whether the bucket is not there: S3's own reason, or a status of absence whose reason is of nothing else.
    fn is_absence_of_bucket(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && (self.code.is_empty() || self.is(&["NoSuchBucket", "NoSuchKey", "NotFound"]))
    }

    /// Whether the object may not be there: the status says so, and no reason comes with it, as in answers to HEAD, or
    /// one that nobody knows. The page of a gateway that has lost its way to the store looks like this too.
    pub(super) fn may_be_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.is(&["NoSuchBucket", "NoSuchUpload"])
    }

    /// Whether an object is there that the condition of the request forbids.
    pub(super) fn is_existence(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED
            || self.status == StatusCode::NOT_MODIFIED
            || self.is(&["PreconditionFailed", "ObjectAlreadyExists"])
    }

    /// Whether other credentials of the same source may be accepted.
    pub(super) fn is_of_credentials(&self) -> bool {
        self.is(&[
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
            "InvalidToken",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
        ])
    }

    /// Whether the same request may succeed soon. A body that the server finds garbled is sent again.
    pub(super) fn is_transient(&self) -> bool {
        let status = self.status;
        (status.is_server_error()
            && !matches!(
                status,
                StatusCode::NOT_IMPLEMENTED | StatusCode::INSUFFICIENT_STORAGE
            ))
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            )
            || self.is(&[
                "InternalError",
                "SlowDown",
                "ServiceUnavailable",
                "RequestTimeout",
                "OperationAborted",
                "ConditionalRequestConflict",
            ])
            || self.is_garbled()
    }

    /// Whether the server received other bytes than were sent.
    pub(super) fn is_garbled(&self) -> bool {
        self.is(&[
            "BadDigest",
            "InvalidDigest",
            "XAmzContentSHA256Mismatch",
            "XAmzContentChecksumMismatch",
            "IncompleteBody",
        ])
    }

    /// Whether the server does not do such requests.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED
        ) || self.is(&["NotImplemented", "MethodNotAllowed"])
    }

    /// Whether retention keeps the object. Amazon has no code of its own for this.
    fn is_retention(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.is(&["ObjectLocked"])
            || !self.code.is_empty()
                && (self.status == StatusCode::FORBIDDEN
                    || self.is(&["AccessDenied", "InvalidRequest"]))
                && ["object lock", "worm", "retention", "legal hold"]
                    .iter()
                    .any(|word| message.contains(word))
    }

    /// What has to be changed before anything works, and what was seen of it.
    fn misconfiguration(&self) -> Option<(Misconfiguration, String)> {
        use Misconfiguration as M;
        let said = |text: &str| Some(text.to_owned());
        let elsewhere = self.status.is_redirection()
            || self.is(&[
                "PermanentRedirect",
                "TemporaryRedirect",
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException",
            ]);
        let (problem, reason) = match self.code.as_str() {
            "NoSuchBucket" => (M::NoSuchBucket, said("the bucket does not exist")),
            "RequestTimeTooSkewed" | "RequestExpired" => {
                (M::ClockSkew, said("the clocks differ too much"))
            }
            // The last two are versitygw's.
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "NotSignedUp"
            | "XAdminUserNotFound"
            | "XAdminNoSuchUser" => (M::UnknownAccessKey, said("the access key is not known")),
            "SignatureDoesNotMatch" => (M::WrongSignature, said("the signature does not match")),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
                (M::ExpiredCredentials, said("the credentials have expired"))
            }
            "InvalidObjectState" => (
                M::ArchivedClass,
                said("the object's storage class cannot be read"),
            ),
            _ if elsewhere => (
                M::OtherRegion,
                Some(match &self.region {
                    Some(region) => format!("the bucket is in region {region}"),
                    None => "the bucket is somewhere else".to_owned(),
                }),
            ),
            _ if self.is_unsupported() => {
                (M::Unsupported, said("the server does not do such requests"))
            }
            _ if self.wants_tls() => (
                M::OtherProtocol,
                said("the server speaks TLS, and was asked without it"),
            ),
            _ => return self.told_in_words(),
        };
        reason.map(|reason| (problem, reason))
    }
}

impl Refusal {
    /// Whether the request came in clear text to a port for TLS: there is no code for this, so web servers say it in
    /// words (nginx, Go, Apache).
    fn wants_tls(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.status == StatusCode::BAD_REQUEST
            && self.code.is_empty()
            && (message.contains("https") || message.contains("ssl-enabled"))
    }

    /// Some servers refuse with one code whatever the reason, which stands in the message (Garage, rclone). Amazon's
    /// own messages of this code have none of these words.
    fn told_in_words(&self) -> Option<(Misconfiguration, String)> {
        use Misconfiguration as M;
        if !self.is(&["AccessDenied", "Forbidden"]) {
            return None;
        }
        let message = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let (problem, reason) = if says(&["skew", "too far", "request time", "date is too"]) {
            (M::ClockSkew, "the clocks differ too much")
        } else if says(&["no such key", "access key id", "unknown access key"]) {
            (M::UnknownAccessKey, "the access key is not known")
        } else if says(&[
            "invalid signature",
            "signature does not match",
            "signature mismatch",
        ]) {
            (M::WrongSignature, "the signature does not match")
        } else {
            return None;
        };
        Some((problem, reason.to_owned()))
    }
}

/// What somebody else wrote, on one line and not endless.
fn one_line(text: &str) -> String {
    const SHOWN_CHARS: usize = 300;
    text.chars()
        .take(SHOWN_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The words of a page, without its tags.
fn words_of_page(body: &[u8]) -> String {
    /// Of a page only its beginning says what it is about.
    const READ_BYTES: usize = 4096;
    let text = String::from_utf8_lossy(&body[..body.len().min(READ_BYTES)]);
    let mut words = String::new();
    for (n, piece) in text.split('<').enumerate() {
        let word = match piece.split_once('>') {
            Some((_, word)) if n > 0 => word,
            _ if n > 0 => "",
            _ => piece,
        };
        for word in word.split_whitespace() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
    }
    one_line(&words)
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
    /// Whether the same request may succeed soon.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_transient(),
            Self::NoAnswer(_) | Self::Nonsense(_) | Self::Garbled | Self::Unkept => true,
            Self::Untrusted(_) | Self::OtherProtocol(_) | Self::NoCredentials(_) => false,
        }
    }

    /// What the server said, if it said anything.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The same as the room's error.
    pub(super) fn into_store_error(self, location: &str, asked: Asked<'_>) -> StoreError {
        let misconfigured = |problem, reason, source| StoreError::Misconfigured {
            location: location.to_owned(),
            problem,
            reason,
            source,
        };
        match self {
            Self::Refused(refusal) => refused(refusal, location, asked),
            Self::NoAnswer(NoAnswer { reason }) => StoreError::unavailable(location, reason),
            Self::Untrusted(reason) => {
                misconfigured(Misconfiguration::UntrustedServer, reason, None)
            }
            Self::NoCredentials(reason) => {
                misconfigured(Misconfiguration::NoCredentials, reason, None)
            }
            Self::OtherProtocol(reason) => {
                misconfigured(Misconfiguration::OtherProtocol, reason, None)
            }
            Self::Garbled => StoreError::unavailable(location, GARBLED),
            Self::Unkept => StoreError::unavailable(location, UNKEPT),
            Self::Nonsense(reason) => {
                let reason = one_line(&reason);
                StoreError::unavailable(location, format!("the answer is not S3's: {reason}"))
            }
        }
    }
}

fn refused(refusal: Refusal, location: &str, asked: Asked<'_>) -> StoreError {
    let what = match asked {
        Asked::Object(key) => format!("object {key}"),
        Asked::Bucket => location.to_owned(),
    };
    let found = match asked {
        Asked::Bucket if refusal.is_absence_of_bucket() => {
            let reason = "the bucket does not exist".to_owned();
            Some((Misconfiguration::NoSuchBucket, reason))
        }
        _ => refusal.misconfiguration(),
    };
    if let Some((problem, reason)) = found {
        return StoreError::Misconfigured {
            location: location.to_owned(),
            problem,
            reason,
            source: Some(Box::new(refusal)),
        };
    }
    if let Asked::Object(key) = asked {
        if refusal.is_absence() {
            return StoreError::NotFound { key: key.clone() };
        }
        if refusal.is_retention() {
            return StoreError::Retained {
                key: key.clone(),
                until: None,
                source: Box::new(refusal),
            };
        }
    }
    // A status of absence without S3's reason is somebody else's word.
    let is_lost = refusal.may_be_absence();
    if refusal.is_transient() || is_lost || refusal.is(&["NoSuchUpload"]) {
        let reason = match refusal.status {
            _ if refusal.is_garbled() => GARBLED,
            _ if refusal.is(&["SlowDown"]) => "it asks to be asked less often",
            _ if refusal.is(&["NoSuchUpload"]) => "the unfinished upload was discarded meanwhile",
            _ => "it answers with an error",
        };
        return StoreError::Unavailable {
            location: location.to_owned(),
            reason: reason.to_owned(),
            source: Some(Box::new(refusal)),
        };
    }
    match refusal.status {
        // Ceph tells of a full quota with the status of a refusal, so the code counts first.
        _ if refusal.is(&["XMinioStorageFull", "QuotaExceeded"]) => StoreError::Full {
            what,
            source: Some(Box::new(refusal)),
        },
        StatusCode::INSUFFICIENT_STORAGE => StoreError::Full {
            what,
            source: Some(Box::new(refusal)),
        },
        // rclone and others tell it with another status, so the code counts first here, too.
        _ if refusal.is(&["AccessDenied", "AllAccessDisabled", "AccountProblem"]) => {
            StoreError::PermissionDenied {
                what,
                source: Some(Box::new(refusal)),
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StoreError::PermissionDenied {
            what,
            source: Some(Box::new(refusal)),
        },
        _ => StoreError::Io {
            what,
            source: Box::new(refusal),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str, message: &str) -> StoreError {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message>\
             <Resource>/x</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        let body = if code.is_empty() { "" } else { body.as_str() };
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = Refusal::new(status, &http::HeaderMap::new(), body.as_bytes());
        let key = ObjectKey::new("a").expect("valid");
        Failure::Refused(refusal).into_store_error("s3://b/p", Asked::Object(&key))
    }

    fn situation(error: &StoreError) -> String {
        match error {
            StoreError::Misconfigured { problem, .. } => format!("{problem:?}"),
            StoreError::NotFound { .. } => "NotFound".into(),
            StoreError::Unavailable { .. } => "Unavailable".into(),
            StoreError::PermissionDenied { .. } => "PermissionDenied".into(),
            StoreError::Full { .. } => "Full".into(),
            StoreError::Retained { .. } => "Retained".into(),
            StoreError::Io { .. } => "Io".into(),
            other => format!("{other:?}"),
        }
    }

    /// Found by the fuzz target `s3_xml`: a parser's error quotes what came.
    #[test]
    fn what_came_instead_of_an_answer_is_told_in_one_line() {
        let nonsense = Failure::Nonsense("expected `</N>`, `</N\u{1b}[0m\n>` was found".to_owned());
        let body =
            b"<Error><Code>A\rB</Code><Message>a\nb</Message><Region>eu\rcentral-1</Region></Error>";
        let (status, headers) = (StatusCode::MOVED_PERMANENTLY, http::HeaderMap::new());
        let refused = Failure::Refused(Refusal::new(status, &headers, body));
        for failure in [nonsense, refused] {
            let told = failure.to_string();
            let error = failure.into_store_error("s3://bucket", Asked::Bucket);
            for text in [told, error.to_string()] {
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }

    #[test]
    fn row_32_each_situation_is_its_own() {
        for (status, code, message, expected) in [
            (404, "NoSuchKey", "", "NotFound"),
            (404, "", "", "Unavailable"),
            (404, "NotFound", "", "Unavailable"),
            (404, "NoSuchBucket", "", "NoSuchBucket"),
            (404, "NoSuchUpload", "", "Unavailable"),
            (403, "AccessDenied", "Access Denied", "PermissionDenied"),
            (403, "", "", "PermissionDenied"),
            (
                403,
                "AccessDenied",
                "because object protected by object lock",
                "Retained",
            ),
            (403, "InvalidAccessKeyId", "", "UnknownAccessKey"),
            (403, "SignatureDoesNotMatch", "", "WrongSignature"),
            (403, "RequestTimeTooSkewed", "", "ClockSkew"),
            (400, "ExpiredToken", "", "ExpiredCredentials"),
            (403, "InvalidObjectState", "", "ArchivedClass"),
            (301, "PermanentRedirect", "", "OtherRegion"),
            (307, "TemporaryRedirect", "", "OtherRegion"),
            (400, "AuthorizationHeaderMalformed", "", "OtherRegion"),
            (501, "NotImplemented", "", "Unsupported"),
            (503, "SlowDown", "", "Unavailable"),
            (500, "InternalError", "", "Unavailable"),
            (502, "", "", "Unavailable"),
            (429, "", "", "Unavailable"),
            (400, "RequestTimeout", "", "Unavailable"),
            (400, "BadDigest", "", "Unavailable"),
            (409, "ConditionalRequestConflict", "", "Unavailable"),
            (507, "XMinioStorageFull", "", "Full"),
            (403, "QuotaExceeded", "", "Full"),
            (400, "EntityTooLarge", "", "Io"),
            // Row 115: codes decide.
            (400, "AccessDenied", "Access Denied", "PermissionDenied"),
            (404, "XAdminUserNotFound", "", "UnknownAccessKey"),
            (400, "AccessDenied", "Request time too skewed", "ClockSkew"),
            (
                403,
                "AccessDenied",
                "Forbidden: No such key: GK1",
                "UnknownAccessKey",
            ),
            (
                403,
                "AccessDenied",
                "Forbidden: Invalid signature",
                "WrongSignature",
            ),
        ] {
            let error = error(status, code, message);
            assert_eq!(situation(&error), expected, "{status} {code}");
            assert_eq!(
                error.is_transient(),
                expected == "Unavailable",
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_page_says_in_words_what_is_wrong() {
        let page = b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\n\
                     <body a=\"b\"><h1>400 Bad\n Request</h1></body></html>";
        let told = Refusal::new(StatusCode::BAD_REQUEST, &http::HeaderMap::new(), page);
        assert_eq!(
            told.message,
            "400 The plain HTTP request was sent to HTTPS port 400 Bad Request"
        );
        let failure = Failure::Refused(told).into_store_error("s3://b", Asked::Bucket);
        let problem = Misconfiguration::OtherProtocol;
        assert!(matches!(failure, StoreError::Misconfigured { problem: p, .. } if p == problem));
    }

    #[test]
    fn the_cause_is_told() {
        let error = error(403, "AccessDenied", "not\nyou");
        let source = std::error::Error::source(&error).expect("a cause");
        assert_eq!(
            source.to_string(),
            "HTTP status 403 AccessDenied: not you, request 4442587FB7D0A2F9"
        );
    }

    #[test]
    fn another_region_is_named() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-west-3".parse().expect("a value"));
        let refusal = Refusal::new(StatusCode::MOVED_PERMANENTLY, &headers, b"");
        let error = Failure::Refused(refusal).into_store_error("s3://b/p", Asked::Bucket);
        assert_eq!(
            error.to_string(),
            "s3://b/p cannot be used: the bucket is in region eu-west-3"
        );
        assert_eq!(error.hint(), Some("set the region in which the bucket is"));
    }
}
