//! Answers in JSON: the record of an object, and a page of a listing.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SubsecRound as _, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::http::failure::Failure;
use crate::{ObjectKey, ObjectMeta};

/// The name under which an object remembers the upload that made it, among its metadata.
pub(super) const MARK: &str = "wale-upload";

/// The fields of an object's record that are asked for.
pub(super) const RESOURCE_FIELDS: &str =
    "name,size,updated,generation,crc32c,metadata,retentionExpirationTime";

/// The fields of a page.
pub(super) const PAGE_FIELDS: &str = "nextPageToken,items(name,size,updated)";

/// The record of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    pub(super) name: String,
    #[serde(deserialize_with = "number")]
    pub(super) size: u64,
    pub(super) updated: DateTime<Utc>,
    pub(super) generation: Option<String>,
    crc32c: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
    pub(super) retention_expiration_time: Option<DateTime<Utc>>,
}

impl Resource {
    /// Its name in the store, length and time. Times are given in whole seconds, because headers know no others and a
    /// listing must agree with them.
    pub(super) fn meta(&self, key: &ObjectKey) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size: self.size,
            modified: self.updated.trunc_subsecs(0),
        }
    }

    /// The mark of the upload that made it; empty when it has none.
    pub(super) fn mark(&self) -> &str {
        self.metadata.get(MARK).map_or("", String::as_str)
    }

    /// Its CRC-32C as Google writes it; none where the server does not tell it.
    pub(super) fn sum(&self) -> Option<String> {
        let sum = self.crc32c.clone();
        sum.filter(|text| crc32c_of(text).is_some())
    }
}

/// A CRC-32C as Google writes it.
pub(super) fn crc32c_of(text: &str) -> Option<[u8; 4]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectPage {
    #[serde(default)]
    pub(super) items: Vec<ListedObject>,
    pub(super) next_page_token: Option<String>,
}

/// An entry of it.
#[derive(Debug, Deserialize)]
pub(super) struct ListedObject {
    pub(super) name: String,
    #[serde(deserialize_with = "number")]
    pub(super) size: u64,
    pub(super) updated: DateTime<Utc>,
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// A number of 64 bits, which Google writes as a text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }
    match Written::deserialize(deserializer)? {
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Written::Number(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_pages() {
        let text = br#"{"kind":"storage#object","name":"/a/b","size":"5","crc32c":"mnG7TA==",
            "updated":"2026-11-29T07:43:05.208995Z","generation":"1795938185209009","metadata":{"wale-upload":"m"}}"#;
        let record: Resource = read(text).expect("a record");
        assert_eq!((record.size, record.mark()), (5, "m"));
        assert_eq!(record.sum().as_deref(), Some("mnG7TA=="));
        let key = ObjectKey::new("b").expect("valid");
        assert_eq!(record.meta(&key).modified.timestamp_subsec_nanos(), 0);
        let page: ObjectPage = read(br#"{"kind":"storage#objects"}"#).expect("an empty page");
        assert!(page.items.is_empty() && page.next_page_token.is_none());
        for text in [
            "",
            "<html>",
            "{}",
            r#"{"name":"a","size":"x","updated":"y"}"#,
        ] {
            assert!(read::<Resource>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
