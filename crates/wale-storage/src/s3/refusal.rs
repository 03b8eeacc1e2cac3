//! The errors of S3: how they are read, and what they mean.
//!
//! Codes are those of Amazon's "List of error codes", which the others copy. A code that is in no list is reported as
//! it came.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::http::failure::{ANSWERS_WITH_AN_ERROR, Meaning, Refusal};
use crate::http::text::{one_line, words_of_page};
use crate::{Misconfiguration, ServerReply};

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorBody {
    code: String,
    message: String,
    request_id: String,
    region: Option<String>,
}

/// An error from an answer's status, headers and body, in which a message of somebody else's may stand.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
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
    let region = parsed.region.or_else(|| header("x-amz-bucket-region"));
    let reply = ServerReply {
        status: status.as_u16(),
        code: one_line(&parsed.code),
        message,
        request_id: one_line(&request_id),
    };
    judged(status, reply, region.as_deref().map(one_line))
}

/// An error of this status, code and message, as one of many in an answer.
pub(super) fn with_code(status: StatusCode, code: &str, message: &str) -> Refusal {
    let reply = ServerReply {
        status: status.as_u16(),
        code: one_line(code),
        message: one_line(message),
        request_id: String::new(),
    };
    judged(status, reply, None)
}

fn judged(status: StatusCode, reply: ServerReply, region: Option<String>) -> Refusal {
    let answer = ErrorAnswer {
        status,
        reply: &reply,
        region,
    };
    let meaning = answer.meaning();
    Refusal {
        status,
        reply,
        meaning,
    }
}

/// Whether other credentials of the same source may be accepted.
pub(super) fn is_of_credentials(refusal: &Refusal) -> bool {
    refusal.is(&[
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "InvalidToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
    ])
}

/// An error that is being judged.
struct ErrorAnswer<'a> {
    status: StatusCode,
    reply: &'a ServerReply,
    /// The bucket's region, where the server says it.
    region: Option<String>,
}

impl ErrorAnswer<'_> {
    /// What it means. The code counts first: servers give one code with several statuses.
    fn meaning(&self) -> Meaning {
        if self.is(&["PreconditionFailed", "ObjectAlreadyExists"])
            || Meaning::of_status(self.status) == Meaning::Exists
        {
            return Meaning::Exists;
        }
        if let Some(meaning) = self.misconfiguration() {
            return meaning;
        }
        // A bucket that is not there is something else.
        if self.status == StatusCode::NOT_FOUND && self.is(&["NoSuchKey"]) {
            return Meaning::Absent;
        }
        if self.is_retention() {
            return Meaning::Retained;
        }
        match self.reply.code.as_str() {
            "BadDigest"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch"
            | "IncompleteBody" => Meaning::Garbled,
            "SlowDown" => Meaning::Passing("it asks to be asked less often"),
            "InternalError"
            | "ServiceUnavailable"
            | "RequestTimeout"
            | "OperationAborted"
            | "ConditionalRequestConflict" => Meaning::Passing(ANSWERS_WITH_AN_ERROR),
            "NoSuchUpload" => Meaning::UploadGone,
            // Ceph reports a full quota with the status of a refusal.
            "XMinioStorageFull" | "QuotaExceeded" => Meaning::Full,
            // rclone and others report it with another status.
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => self.denied(),
            _ => Meaning::of_status(self.status),
        }
    }

    /// A refusal, unless its status says that it passes.
    fn denied(&self) -> Meaning {
        match Meaning::of_status(self.status) {
            passing @ (Meaning::Passing(_) | Meaning::PerhapsAbsent) => passing,
            _ => Meaning::Denied,
        }
    }

    fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.reply.code.as_str())
    }

    /// Whether retention keeps the object. Amazon has no code of its own for this.
    fn is_retention(&self) -> bool {
        let message = self.reply.message.to_ascii_lowercase();
        self.is(&["ObjectLocked"])
            || !self.reply.code.is_empty()
                && (self.status == StatusCode::FORBIDDEN
                    || self.is(&["AccessDenied", "InvalidRequest"]))
                && ["object lock", "worm", "retention", "legal hold"]
                    .iter()
                    .any(|word| message.contains(word))
    }

    /// What has to be changed before anything works, and what was seen of it.
    fn misconfiguration(&self) -> Option<Meaning> {
        use Misconfiguration as M;
        let elsewhere = self.status.is_redirection()
            || self.is(&[
                "PermanentRedirect",
                "TemporaryRedirect",
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException",
            ]);
        let (problem, reason) = match self.reply.code.as_str() {
            "NoSuchBucket" => (M::NoSuchBucket, "the bucket does not exist"),
            "RequestTimeTooSkewed" | "RequestExpired" => {
                (M::ClockSkew, "the clocks differ too much")
            }
            // The last two are versitygw's.
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "NotSignedUp"
            | "XAdminUserNotFound"
            | "XAdminNoSuchUser" => (M::UnknownAccessKey, "the access key is not known"),
            "SignatureDoesNotMatch" => (M::WrongSignature, "the signature does not match"),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
                (M::ExpiredCredentials, "the credentials have expired")
            }
            "InvalidObjectState" => (
                M::ArchivedClass,
                "the object's storage class cannot be read",
            ),
            _ if elsewhere => {
                let reason = match &self.region {
                    Some(region) => format!("the bucket is in region {region}"),
                    None => "the bucket is somewhere else".to_owned(),
                };
                return Some(Meaning::Misconfigured(M::OtherRegion, reason));
            }
            "NotImplemented" | "MethodNotAllowed" => return Some(Meaning::Unsupported),
            _ if Meaning::of_status(self.status) == Meaning::Unsupported => {
                return Some(Meaning::Unsupported);
            }
            _ if self.wants_tls() => (
                M::OtherProtocol,
                "the server speaks TLS, and was asked without it",
            ),
            _ => self.told_in_words()?,
        };
        Some(Meaning::Misconfigured(problem, reason.to_owned()))
    }

    /// Whether the request came in clear text to a port for TLS: there is no code for this, so web servers say it in
    /// words (nginx, Go, Apache).
    fn wants_tls(&self) -> bool {
        let message = self.reply.message.to_ascii_lowercase();
        self.status == StatusCode::BAD_REQUEST
            && self.reply.code.is_empty()
            && (message.contains("https") || message.contains("ssl-enabled"))
    }

    /// Some servers refuse with one code whatever the reason, which stands in the message (Garage, rclone). Amazon's
    /// own messages of this code have none of these words.
    fn told_in_words(&self) -> Option<(Misconfiguration, &'static str)> {
        use Misconfiguration as M;
        if !self.is(&["AccessDenied", "Forbidden"]) {
            return None;
        }
        let message = self.reply.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&["skew", "too far", "request time", "date is too"]) {
            Some((M::ClockSkew, "the clocks differ too much"))
        } else if says(&["no such key", "access key id", "unknown access key"]) {
            Some((M::UnknownAccessKey, "the access key is not known"))
        } else if says(&[
            "invalid signature",
            "signature does not match",
            "signature mismatch",
        ]) {
            Some((M::WrongSignature, "the signature does not match"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::{Asked, Failure};
    use crate::{ObjectKey, StoreError};

    fn error(status: u16, code: &str, message: &str) -> StoreError {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message>\
             <Resource>/x</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        let body = if code.is_empty() { "" } else { body.as_str() };
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = read(status, &HeaderMap::new(), body.as_bytes());
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
        let (status, headers) = (StatusCode::MOVED_PERMANENTLY, HeaderMap::new());
        let refused = Failure::Refused(read(status, &headers, body));
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
        let told = read(StatusCode::BAD_REQUEST, &HeaderMap::new(), page);
        assert_eq!(
            told.reply.message,
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
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-west-3".parse().expect("a value"));
        let refusal = read(StatusCode::MOVED_PERMANENTLY, &headers, b"");
        let error = Failure::Refused(refusal).into_store_error("s3://b/p", Asked::Bucket);
        assert_eq!(
            error.to_string(),
            "s3://b/p cannot be used: the bucket is in region eu-west-3"
        );
        assert_eq!(error.hint(), Some("set the region in which the bucket is"));
    }
}
