//! The errors of Azure Storage: how they are read, and what they mean.
//!
//! Codes are those of "Common REST API error codes" and "Blob Storage error codes". They come in a header, so also in
//! answers to HEAD. A code that is in no list is reported as it came.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::http::failure::{ANSWERS_WITH_AN_ERROR, Meaning, Refusal};
use crate::http::text::{one_line, words_of_page};
use crate::{Misconfiguration, ServerReply};

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AzureErrorBody {
    code: String,
    message: String,
    authentication_error_detail: String,
}

/// An error from an answer's status, headers and body, in which a message of somebody else's may stand.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let parsed = std::str::from_utf8(body)
        .ok()
        // Microsoft's begin with a mark of the byte order.
        .map(|text| text.trim_start_matches('\u{feff}'))
        .and_then(|text| quick_xml::de::from_str::<AzureErrorBody>(text).ok())
        .unwrap_or_default();
    let header = |name| {
        let text = headers.get(name).and_then(|value| value.to_str().ok());
        text.unwrap_or_default()
    };
    let code = match header("x-ms-error-code") {
        "" => parsed.code.as_str(),
        code => code,
    };
    // What is not Azure's is a page for people, which may say what is wrong in words. After the first line the request and
    // the time follow.
    let message = if code.is_empty() && parsed.message.is_empty() {
        words_of_page(body)
    } else {
        one_line(parsed.message.lines().next().unwrap_or_default())
    };
    let reply = ServerReply {
        status: status.as_u16(),
        code: one_line(code),
        message,
        request_id: one_line(header("x-ms-request-id")),
    };
    let answer = AzureError {
        status,
        reply: &reply,
        detail: &parsed.authentication_error_detail,
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
    refusal.status == StatusCode::UNAUTHORIZED
        || refusal.is(&[
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
            "NoAuthenticationInformation",
            "ExpiredAuthenticationToken",
            // Azurite says this of a wrong signature; Azure of a network that is shut out.
            "AuthorizationFailure",
        ])
}

/// An error that is being judged.
struct AzureError<'a> {
    status: StatusCode,
    reply: &'a ServerReply,
    /// What is said about a signature or token. It holds what was signed, and is not repeated.
    detail: &'a str,
}

impl AzureError<'_> {
    /// What it means. The code counts first.
    fn meaning(&self) -> Meaning {
        if let Some(meaning) = self.misconfiguration() {
            return meaning;
        }
        let by_status = Meaning::of_status(self.status);
        match self.reply.code.as_str() {
            "BlobNotFound" if self.status == StatusCode::NOT_FOUND => Meaning::Absent,
            "BlobAlreadyExists"
            | "ConditionNotMet"
            | "TargetConditionNotMet"
            // One may create and not replace, and there is something.
            | "UnauthorizedBlobOverwrite" => Meaning::Exists,
            "Md5Mismatch" | "Crc64Mismatch" => Meaning::Garbled,
            // Azurite's words.
            "InvalidOperation" if self.says(&["md5 doesn't match"]) => Meaning::Garbled,
            "ServerBusy" => Meaning::Passing("it asks to be asked less often"),
            "InvalidBlockList" => Meaning::UploadGone,
            "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" | "SnapshotsPresent" => {
                Meaning::Retained
            }
            // A lease keeps everybody but its holder from writing and deleting.
            code if code.starts_with("LeaseId") || code.starts_with("LeaseIs") => Meaning::Retained,
            "AuthorizationPermissionMismatch"
            | "AuthorizationProtocolMismatch"
            | "AuthorizationSourceIPMismatch"
            | "AuthorizationServiceMismatch"
            | "AuthorizationResourceTypeMismatch"
            | "AuthorizationFailure"
            | "InsufficientAccountPermissions"
            | "KeyBasedAuthenticationNotPermitted"
            | "PublicAccessNotPermitted" => Meaning::Denied,
            // Azure says what is absent. This is somebody else's answer.
            _ if by_status == Meaning::PerhapsAbsent => Meaning::Passing(ANSWERS_WITH_AN_ERROR),
            _ => by_status,
        }
    }

    /// What has to be changed before anything works, and what was seen of it.
    fn misconfiguration(&self) -> Option<Meaning> {
        use Misconfiguration as M;
        let (problem, reason) = match self.reply.code.as_str() {
            "ContainerNotFound" => (M::NoSuchBucket, "the container does not exist"),
            "ContainerBeingDeleted" | "ContainerDisabled" => {
                (M::NoSuchBucket, "the container is being deleted")
            }
            "AuthenticationFailed" => self.authentication(),
            // Azurite's word for a wrong key.
            "AuthorizationFailure" if self.says(&["failed to authenticate"]) => {
                (M::WrongSignature, "the signature does not match")
            }
            "InvalidAuthenticationInfo"
            | "NoAuthenticationInformation"
            | "ExpiredAuthenticationToken" => (
                M::ExpiredCredentials,
                "the credentials are not accepted, or not any more",
            ),
            "BlobArchived" | "BlobBeingRehydrated" => {
                (M::ArchivedClass, "the blob's access tier cannot be read")
            }
            "AccountRequiresHttps" => (M::OtherProtocol, "the account takes TLS only"),
            "FeatureNotSupported"
            | "NotImplemented"
            | "UnsupportedHttpVerb"
            | "UnsupportedHeader" => {
                return Some(Meaning::Unsupported);
            }
            _ if self.wants_tls() => (
                M::OtherProtocol,
                "the server speaks TLS, and was asked without it",
            ),
            _ if self.status.is_redirection() && self.status != StatusCode::NOT_MODIFIED => {
                (M::OtherRegion, "the container is somewhere else")
            }
            _ => return None,
        };
        Some(Meaning::Misconfigured(problem, reason.to_owned()))
    }

    /// Why a signature is not accepted: one code stands for all reasons.
    fn authentication(&self) -> (Misconfiguration, &'static str) {
        use Misconfiguration as M;
        if self.says(&["date header too old", "date header"]) {
            (M::ClockSkew, "the clocks differ too much")
        } else if self.says(&["time frame", "expired", "lifetime"]) {
            (
                M::ExpiredCredentials,
                "the credentials have expired, or are not valid yet",
            )
        } else {
            (M::WrongSignature, "the signature does not match")
        }
    }

    /// Whether the words hold one of these, in lower case.
    fn says(&self, words: &[&str]) -> bool {
        let told = format!("{} {}", self.reply.message, self.detail).to_ascii_lowercase();
        words.iter().any(|word| told.contains(word))
    }

    /// Whether the request came in clear text to a port for TLS: there is no code for this, so web servers say it in
    /// words (nginx, Go, Apache).
    fn wants_tls(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
            && self.reply.code.is_empty()
            && self.says(&["https", "ssl-enabled"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::{Asked, Failure};
    use crate::{ObjectKey, StoreError};

    fn error(status: u16, code: &str, detail: &str) -> StoreError {
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>Words.\nRequestId:r\n\
             Time:t</Message><AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
        );
        let body = if code.is_empty() { "" } else { body.as_str() };
        let status = StatusCode::from_u16(status).expect("a status");
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-request-id", "r".parse().expect("a value"));
        let refusal = read(status, &headers, body.as_bytes());
        let key = ObjectKey::new("a").expect("valid");
        Failure::Refused(refusal).into_store_error("wabs://c/p", Asked::Object(&key))
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

    #[test]
    fn row_32_each_situation_is_its_own() {
        const OLD: &str = "Request date header too old: 'Fri, 26 Jun 2015 23:39:12 GMT'";
        const OVER: &str =
            "Signature not valid in the specified time frame: Start [a] - Expiry [b] - Current [c]";
        const OTHER: &str = "The MAC signature found in the HTTP request 'x' is not the same as any computed signature.";
        for (status, code, detail, expected) in [
            (404, "BlobNotFound", "", "NotFound"),
            (404, "", "", "Unavailable"),
            // What a private container says to strangers.
            (404, "ResourceNotFound", "", "Unavailable"),
            (404, "ContainerNotFound", "", "NoSuchBucket"),
            (409, "ContainerBeingDeleted", "", "NoSuchBucket"),
            (403, "AuthenticationFailed", OLD, "ClockSkew"),
            (403, "AuthenticationFailed", OVER, "ExpiredCredentials"),
            (403, "AuthenticationFailed", OTHER, "WrongSignature"),
            (403, "AuthenticationFailed", "", "WrongSignature"),
            (401, "InvalidAuthenticationInfo", "", "ExpiredCredentials"),
            (401, "NoAuthenticationInformation", "", "ExpiredCredentials"),
            (403, "AuthorizationFailure", "", "PermissionDenied"),
            (
                403,
                "AuthorizationPermissionMismatch",
                "",
                "PermissionDenied",
            ),
            (
                403,
                "KeyBasedAuthenticationNotPermitted",
                "",
                "PermissionDenied",
            ),
            (403, "", "", "PermissionDenied"),
            (409, "BlobImmutableDueToPolicy", "", "Retained"),
            (412, "LeaseIdMissing", "", "Retained"),
            (409, "SnapshotsPresent", "", "Retained"),
            (409, "BlobArchived", "", "ArchivedClass"),
            (400, "AccountRequiresHttps", "", "OtherProtocol"),
            (405, "UnsupportedHttpVerb", "", "Unsupported"),
            (503, "ServerBusy", "", "Unavailable"),
            (500, "InternalError", "", "Unavailable"),
            (500, "OperationTimedOut", "", "Unavailable"),
            (502, "", "", "Unavailable"),
            (400, "Md5Mismatch", "", "Unavailable"),
            (400, "Crc64Mismatch", "", "Unavailable"),
            (400, "InvalidBlockList", "", "Unavailable"),
            (400, "InvalidResourceName", "", "Io"),
        ] {
            let error = error(status, code, detail);
            assert_eq!(situation(&error), expected, "{status} {code} {detail}");
            let is_passing = expected == "Unavailable";
            assert_eq!(error.is_transient(), is_passing, "{status} {code}");
        }
    }

    #[test]
    fn fault_24_the_header_has_the_code_where_there_is_no_body() {
        let mut headers = HeaderMap::new();
        for (code, meaning) in [
            ("BlobNotFound", Meaning::Absent),
            ("BlobAlreadyExists", Meaning::Exists),
        ] {
            headers.insert("x-ms-error-code", code.parse().expect("a value"));
            let status = match meaning {
                Meaning::Absent => StatusCode::NOT_FOUND,
                _ => StatusCode::CONFLICT,
            };
            assert_eq!(read(status, &headers, b"").meaning, meaning);
        }
        // A code of absence with another status is none.
        headers.insert("x-ms-error-code", "BlobNotFound".parse().expect("a value"));
        let refusal = read(StatusCode::FORBIDDEN, &headers, b"");
        assert_eq!(refusal.meaning, Meaning::Denied);
    }

    #[test]
    fn the_cause_is_told_on_one_line_without_what_was_signed() {
        let error = error(403, "AuthenticationFailed", "is not the same: canary");
        let source = std::error::Error::source(&error).expect("a cause");
        let told = source.to_string();
        assert_eq!(
            told,
            "HTTP status 403 AuthenticationFailed: Words., request r"
        );
    }
}
