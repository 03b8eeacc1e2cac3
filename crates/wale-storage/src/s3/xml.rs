//! The XML of S3: what is read of its answers, and the two bodies that are written.
//!
//! Elements that are not named here are skipped, as the protocol wants it. The outermost element must be the one that was
//! asked for.

use std::fmt::Write as _;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::refusal;
use crate::http::failure::Failure;
use crate::http::markup::root;

/// An answer of status 200.
pub(super) trait AnswerBody: DeserializeOwned {
    /// The names that its outermost element may have (Amazon S3 API reference, "Response Syntax" of each action). With
    /// none any does: what the answer must hold is mark enough, and servers differ in the name.
    const ROOTS: &'static [&'static str];
    /// What it is, for messages.
    const NAME: &'static str;
}

impl AnswerBody for ListPage {
    const ROOTS: &'static [&'static str] = &["ListBucketResult"];
    const NAME: &'static str = "ListBucketResult";
}

impl AnswerBody for UploadPage {
    const ROOTS: &'static [&'static str] = &["ListMultipartUploadsResult"];
    const NAME: &'static str = "ListMultipartUploadsResult";
}

impl AnswerBody for PartPage {
    // The second is moto's.
    const ROOTS: &'static [&'static str] = &["ListPartsResult", "ListPartsResponse"];
    const NAME: &'static str = "ListPartsResult";
}

impl AnswerBody for Begun {
    // rclone's is InitiateMultipartUpload. It must hold an UploadId.
    const ROOTS: &'static [&'static str] = &[];
    const NAME: &'static str = "InitiateMultipartUploadResult";
}

impl AnswerBody for Assembled {
    // It must hold an ETag.
    const ROOTS: &'static [&'static str] = &[];
    const NAME: &'static str = "CompleteMultipartUploadResult";
}

impl AnswerBody for DeleteResult {
    const ROOTS: &'static [&'static str] = &["DeleteResult"];
    const NAME: &'static str = "DeleteResult";
}

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListPage {
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
    pub(super) contents: Vec<Listed>,
}

/// An object in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) last_modified: DateTime<Utc>,
}

/// A page of unfinished uploads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UploadPage {
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
    #[serde(rename = "Upload")]
    pub(super) uploads: Vec<Unfinished>,
}

/// An unfinished upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Unfinished {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: DateTime<Utc>,
}

/// A page of the parts of an unfinished upload.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PartPage {
    pub(super) is_truncated: bool,
    pub(super) next_part_number_marker: Option<String>,
    #[serde(rename = "Part")]
    pub(super) parts: Vec<StoredPart>,
}

/// A part that a server has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StoredPart {
    pub(super) last_modified: DateTime<Utc>,
}

/// The answer to the beginning of a multipart upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub(super) upload_id: String,
}

/// The answer to its end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Assembled {
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

/// What could not be deleted of many.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DeleteResult {
    #[serde(rename = "Error")]
    pub(super) errors: Vec<NotDeleted>,
}

/// One object that could not be deleted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NotDeleted {
    pub(super) key: String,
    pub(super) code: String,
    pub(super) message: String,
}

/// Reads an answer of status 200. S3 begins some answers before it knows how they end, so an error may stand in them.
pub(super) fn read<T: AnswerBody>(body: &[u8]) -> Result<T, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Failure::Nonsense("the answer is not UTF-8".to_owned()))?
        .trim_start();
    match root(text).as_deref() {
        Some("Error") => Err(Failure::Refused(refusal::read(
            StatusCode::OK,
            &http::HeaderMap::new(),
            body,
        ))),
        Some(name) if T::ROOTS.is_empty() || T::ROOTS.contains(&name) => {
            quick_xml::de::from_str(text).map_err(|error| Failure::Nonsense(error.to_string()))
        }
        _ => Err(Failure::Nonsense(format!("it is no {}", T::NAME))),
    }
}

/// A part that was stored.
#[derive(Debug, Clone)]
pub(super) struct PartRecord {
    pub(super) number: u32,
    pub(super) etag: String,
    /// Element and value of its checksum.
    pub(super) checksum: Option<(&'static str, String)>,
}

/// The body that ends a multipart upload: at most 10,000 parts of some 150 bytes, 1.5 MiB.
pub(super) fn complete(parts: &[PartRecord]) -> Bytes {
    let mut text =
        String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for PartRecord {
        number,
        etag,
        checksum,
    } in parts
    {
        let etag = escape(etag);
        let _ = write!(
            text,
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>"
        );
        if let Some((element, value)) = checksum {
            let _ = write!(text, "<{element}>{value}</{element}>");
        }
        text.push_str("</Part>");
    }
    text.push_str("</CompleteMultipartUpload>");
    text.into()
}

/// The body that deletes many objects: at most 1,000 names of at most 1,024 bytes.
pub(super) fn delete(names: impl Iterator<Item = String>) -> Bytes {
    let mut text = String::from(
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>",
    );
    for name in names {
        let _ = write!(text, "<Object><Key>{}</Key></Object>", escape(&name));
    }
    text.push_str("</Delete>");
    text.into()
}

fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing() {
        let page: ListPage = read(
            b"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><Prefix>p/</Prefix><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated>\
            <Contents><Key>p/a&amp;b</Key><LastModified>2026-11-23T10:00:00.123Z</LastModified>\
            <ETag>&quot;x&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>\
            <CommonPrefixes><Prefix>q</Prefix></CommonPrefixes>\
            <Contents><Key>p/ c</Key><Size>0</Size><LastModified>2026-11-23T10:00:00Z</LastModified></Contents>\
            <NextContinuationToken>t/+=</NextContinuationToken></ListBucketResult>",
        )
        .expect("reads");
        assert!(page.is_truncated);
        assert_eq!(page.next_continuation_token.as_deref(), Some("t/+="));
        let keys: Vec<_> = page
            .contents
            .iter()
            .map(|c| (c.key.as_str(), c.size))
            .collect();
        assert_eq!(keys, [("p/a&b", 5), ("p/ c", 0)]);
        let empty: ListPage = read(b"<ListBucketResult/>").expect("reads");
        assert!(empty.contents.is_empty() && !empty.is_truncated);
    }

    #[test]
    fn fault_24_an_error_with_status_200() {
        let body = b"  \n<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>We encountered an internal \
            error. Please try again.</Message></Error>";
        let failure = read::<Assembled>(body).expect_err("an error is no success");
        assert!(failure.is_transient());
        assert_eq!(failure.refusal().expect("told").reply.code, "InternalError");
        for body in [
            "",
            "<html></html>",
            "<CompleteMultipartUploadResult/>",
            "\u{0}",
        ] {
            assert!(read::<Assembled>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn fault_24_a_page_of_somebody_else_is_no_answer() {
        /// Whether a page with this outermost element, and nothing in it, is taken for the answer.
        fn passes<T: AnswerBody>(root: &str, content: &str) -> bool {
            let page = format!("<?xml version=\"1.0\"?><!-- c -->\n<{root}>{content}</{root}>");
            read::<T>(page.as_bytes()).is_ok()
        }
        fn check<T: AnswerBody>(content: &str) {
            assert!(passes::<T>(T::NAME, content), "{}", T::NAME);
            for other in ["html", "ListAllMyBucketsResult", "Errors", "error"] {
                let taken = passes::<T>(other, content);
                assert_eq!(taken, T::ROOTS.is_empty(), "{other} as {}", T::NAME);
                assert!(!passes::<T>(other, "<p>?</p>"), "{other} as {}", T::NAME);
            }
        }
        check::<ListPage>("");
        check::<UploadPage>("");
        check::<PartPage>("");
        check::<DeleteResult>("");
        check::<Begun>("<UploadId>u</UploadId>");
        check::<Assembled>("<ETag>e</ETag>");
        for body in [
            "",
            "<",
            "text",
            "<!DOCTYPE html><html></html>",
            "<a/><ListBucketResult/>",
        ] {
            assert!(read::<ListPage>(body.as_bytes()).is_err(), "{body}");
        }
        let named = b"<s3:ListBucketResult xmlns:s3=\"x\"></s3:ListBucketResult>";
        assert!(read::<ListPage>(named).is_ok(), "a namespace may be named");
    }

    #[test]
    fn bodies() {
        let parts = [PartRecord {
            number: 1,
            etag: "\"e\"".into(),
            checksum: Some(("ChecksumCRC32C", "AAAAAA==".into())),
        }];
        let text = complete(&parts);
        let text = std::str::from_utf8(&text).expect("UTF-8");
        assert!(
            text.contains("<ETag>&quot;e&quot;</ETag><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>"),
            "{text}"
        );
        let text = delete(["a<b".to_owned()].into_iter());
        assert!(text.ends_with(b"<Object><Key>a&lt;b</Key></Object></Delete>"));
    }
}
