//! Documents in which Swift answers, all in JSON: listings, lists of segments, and what became of deletions.

use chrono::{DateTime, NaiveDateTime, Utc};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::refusal;
use crate::http::failure::Failure;
use crate::http::text::one_line;

/// An answer in JSON. It is not quoted: it may be anything.
pub(super) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::Nonsense(format!(
            "no document of Swift's, at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

/// A name of a listing.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Of a large object the sum of its segments.
    #[serde(default)]
    pub(super) bytes: u64,
    /// The MD5 of an object that is not large.
    #[serde(default)]
    pub(super) hash: String,
    #[serde(default)]
    pub(super) last_modified: String,
    /// The digest of a large object, where the server tells it: the MD5 of its segments' MD5s.
    #[serde(default)]
    pub(super) slo_etag: Option<String>,
}

impl Entry {
    /// When it was stored: in UTC, to the microsecond, without saying so.
    pub(super) fn modified(&self) -> Result<DateTime<Utc>, Failure> {
        let text = self.last_modified.trim_end_matches('Z');
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .map(|moment| moment.and_utc())
            .map_err(|_| Failure::Nonsense("a listing without times".to_owned()))
    }
}

/// A line of the list as the server gives it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ListedSegment {
    /// Container and name.
    pub(super) name: String,
}

/// What Swift says when it is to delete the segments of an object that has none.
const NOT_LARGE: &str = "Not an SLO manifest";

/// What became of a deletion of several objects, or of one with its segments. Its HTTP status is always 200.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Deletion {
    #[serde(rename = "Response Status")]
    pub(super) status: String,
    #[serde(default, rename = "Response Body")]
    pub(super) body: String,
    #[serde(rename = "Number Deleted")]
    pub(super) deleted: u64,
    #[serde(default, rename = "Number Not Found")]
    pub(super) not_found: u64,
    /// Escaped names, and what is wrong.
    #[serde(default, rename = "Errors")]
    pub(super) errors: Vec<(String, String)>,
}

impl Deletion {
    /// What one answer says; none when it has no document: then the server does not know such requests.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Option<Self>, Failure> {
        if body.is_empty() || status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let told: Self = read_json(body)?;
        let texts = told.errors.iter().map(|(_, why)| why).chain([&told.status]);
        let refused = texts
            .map(|why| refusal::of_text(why))
            .find(refusal::is_of_token);
        match refused {
            Some(refused) => Err(Failure::Refused(refused)),
            None => Ok(Some(told)),
        }
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.starts_with('2') && self.errors.is_empty()
    }

    /// Whether nothing was deleted because the object has no segments.
    pub(super) fn is_not_large(&self) -> bool {
        self.errors.iter().any(|(_, why)| why == NOT_LARGE) || self.body.contains(NOT_LARGE)
    }

    /// What is said of the first object that is left, or of all.
    pub(super) fn failure(&self) -> Failure {
        let why = self.errors.first().map_or(&self.status, |(_, why)| why);
        let mut refused = refusal::of_text(why);
        if !self.body.is_empty() {
            refused.reply.message = one_line(&format!("{why}: {}", self.body));
        }
        Failure::Refused(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_real_server() {
        let page = br#"[{"bytes": 10, "hash": "76734b6bfd489245168a8463625688f0", "name": "/a/b/big",
            "content_type": "application/octet-stream", "last_modified": "2026-11-29T07:46:01.530590",
            "slo_etag": "\"e0b153045b08d59d4e18a98ab823ac42\""}, {"bytes": 5, "hash": "5d41402abc4b2a76b9719d911017c592",
            "name": "/a/b/x", "content_type": "text/plain", "last_modified": "2026-11-29T07:45:47.000000"},
            {"subdir": "no object of ours", "name": "y"}]"#;
        let entries: Vec<Entry> = read_json(page).expect("it is one");
        assert_eq!(entries[0].bytes, 10);
        assert!(entries[0].slo_etag.is_some());
        let modified = entries[0].modified().expect("a time");
        assert_eq!(modified.to_rfc3339(), "2026-11-29T07:46:01.530590+00:00");
        assert!(entries[1].slo_etag.is_none());
        assert!(entries[2].modified().is_err());
        let failure = read_json::<Vec<Entry>>(b"<html>can ary").unwrap_err();
        assert!(!failure.to_string().contains("ary"), "{failure}");
    }

    #[test]
    fn answers_of_the_real_server() {
        let read = |text: &str| Deletion::read(StatusCode::OK, text.as_bytes());
        let whole = read(
            "  \r\n {\"Response Status\": \"200 OK\", \"Response Body\": \"\", \"Number Deleted\": 3, \
             \"Number Not Found\": 0, \"Errors\": []}",
        );
        let whole = whole.expect("it is one").expect("it is one");
        assert!(whole.is_success() && whole.deleted == 3);
        let small = read(
            r#"{"Response Status": "400 Bad Request", "Response Body": "", "Number Deleted": 0,
            "Number Not Found": 0, "Errors": [["/cont//a/b/x", "Not an SLO manifest"]]}"#,
        );
        let small = small.expect("it is one").expect("it is one");
        assert!(small.is_not_large() && !small.is_success());
        let denied = read(
            r#"{"Response Status": "400 Bad Request", "Response Body": "", "Number Deleted": 1,
            "Number Not Found": 0, "Errors": [["cont/x", "403 Forbidden"]]}"#,
        );
        let denied = denied.expect("it is one").expect("it is one").failure();
        assert_eq!(denied.refusal().map(|r| r.status.as_u16()), Some(403));
        let expired = read(
            r#"{"Response Status": "401 Unauthorized", "Response Body": "", "Number Deleted": 1,
            "Number Not Found": 0, "Errors": [["cont/x", "401 Unauthorized"]]}"#,
        );
        let expired = expired.expect_err("another token may be accepted");
        assert!(expired.refusal().is_some_and(refusal::is_of_token));
        assert_eq!(
            Deletion::read(StatusCode::NO_CONTENT, b"").expect("none"),
            None
        );
        assert!(read("<html>").is_err());
    }
}
