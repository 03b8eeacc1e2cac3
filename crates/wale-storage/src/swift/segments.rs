//! Segments of large objects: their names, the list of them that makes an object, and what an object's list says.
//!
//! ```text
//!   /a/b/wal_005/X.zst                               the object: a list of segments
//!   wale_segments/a/b/wal_005/X.zst/<mark>/00000001  its first segment
//! ```
//!
//! The mark is that of the upload, so that two uploads of one name never share a segment.

use md5::{Digest as _, Md5};
use serde::Serialize;

use super::client::SwiftClient;
use super::names;
use crate::ObjectKey;
use crate::http::text::hex;

/// A stored segment, as the list has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SegmentRecord {
    /// Container and name.
    path: String,
    /// Its MD5.
    etag: String,
    size_bytes: u64,
}

/// A segment's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentName {
    pub(super) key: ObjectKey,
    pub(super) mark: String,
}

impl SegmentRecord {
    pub(super) fn new(container: &str, name: &str, etag: &str, size_bytes: u64) -> Self {
        Self {
            path: format!("/{container}/{name}"),
            etag: etag.to_owned(),
            size_bytes,
        }
    }
}

/// What the names of the segments of all objects of this archive begin with.
pub(super) fn all(client: &SwiftClient) -> String {
    names::segments_of(client.prefix())
}

/// What the names of an object's segments begin with, whatever upload they are of.
pub(super) fn of_object(client: &SwiftClient, key: &ObjectKey) -> String {
    format!("{}{key}/", all(client))
}

/// What the names of an upload's segments begin with.
pub(super) fn of_upload(client: &SwiftClient, key: &ObjectKey, mark: &str) -> String {
    format!("{}{mark}/", of_object(client, key))
}

/// A segment, counted from 1.
pub(super) fn name(client: &SwiftClient, key: &ObjectKey, mark: &str, number: u32) -> String {
    format!("{}{number:08}", of_upload(client, key, mark))
}

/// The object and the upload that a segment is of; none when the name is none of ours.
pub(super) fn take_apart(client: &SwiftClient, name: &str) -> Option<SegmentName> {
    let path = name.strip_prefix(&all(client))?;
    let (path, number) = path.rsplit_once('/')?;
    let (key, mark) = path.rsplit_once('/')?;
    let is_number = number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_mark = mark.len() == 24 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && is_mark).then(|| {
        Some(SegmentName {
            key: ObjectKey::new(key).ok()?,
            mark: mark.to_owned(),
        })
    })?
}

/// The digest of a large object: the MD5 of its segments' MD5s, in hexadecimal, one after the other.
pub(super) fn digest<'a>(etags: impl IntoIterator<Item = &'a str>) -> String {
    let mut sum = Md5::new();
    for etag in etags {
        sum.update(etag.as_bytes());
    }
    hex(&sum.finalize())
}

/// The same of records.
pub(super) fn digest_of(records: &[SegmentRecord]) -> String {
    digest(records.iter().map(|record| record.etag.as_str()))
}

/// The list that makes an object of them.
pub(super) fn list(records: &[SegmentRecord]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swift::tests::client;

    #[test]
    fn names_are_put_together_and_taken_apart() {
        for (prefix, start) in [
            ("/", "wale_segments/"),
            ("/a/b/", "wale_segments/a/b/"),
            ("", "wale_segments_bare/"),
            ("a/b/", "wale_segments_bare/a/b/"),
        ] {
            let client = client(prefix);
            let key = ObjectKey::new("wal_005/X.zst").expect("valid");
            let mark = "0123456789abcdef01234567";
            let name = name(&client, &key, mark, 7);
            assert_eq!(name, format!("{start}wal_005/X.zst/{mark}/00000007"));
            let expected = SegmentName {
                key,
                mark: mark.into(),
            };
            assert_eq!(take_apart(&client, &name), Some(expected));
            assert_eq!(client.key_of(&name), None, "no archive lists it");
        }
        let client = client("/a/");
        for foreign in [
            "wale_segments/b/x/0123456789abcdef01234567/00000001",
            "wale_segments/a/x/0123456789abcdef01234567/1",
            "wale_segments/a/x/short/00000001",
            "wale_segments/a/0123456789abcdef01234567/00000001",
            "wale_segments/a/../x/0123456789abcdef01234567/00000001",
            "/a/x",
        ] {
            assert_eq!(take_apart(&client, foreign), None, "{foreign}");
        }
    }

    /// Numbers of the real server.
    #[test]
    fn the_digest_of_two_segments() {
        let hello = "5d41402abc4b2a76b9719d911017c592";
        assert_eq!(digest([hello, hello]), "e0b153045b08d59d4e18a98ab823ac42");
        let record = SegmentRecord::new("c", "wale_segments/x", hello, 5);
        let list = list(std::slice::from_ref(&record)).expect("it is written");
        assert_eq!(
            String::from_utf8(list).expect("text"),
            format!(r#"[{{"path":"/c/wale_segments/x","etag":"{hello}","size_bytes":5}}]"#)
        );
    }
}
