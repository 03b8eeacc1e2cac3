//! `wale.json`: which cluster an archive belongs to, and what one must know to read it.
//!
//! Refuses to know: how it is claimed (create-if-absent) and compared; that is for operations.
//!
//! Invariants: parse ∘ print = id; fields of later versions survive a rewrite; a later *format*
//! is refused, because not knowing what changed is worse than stopping. It holds no secret, and no name of a table.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wale_pg::ClusterIdentity;

use crate::{Codec, Encryption};

/// What new objects are encrypted with from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// The method.
    pub method: Encryption,
    /// The keys' fingerprints, sorted ([`WriteKey::fingerprints`](crate::WriteKey::fingerprints)): of age the recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Objects from then on.
    pub since: DateTime<Utc>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl EncryptionRecord {
    /// Method and keys in one word, as [`WriteKey::word`](crate::WriteKey::word).
    #[must_use]
    pub fn word(&self) -> String {
        self.method.word(&self.keys)
    }
}

/// The content of `wale.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveIdentity {
    /// Format of the archive; [`ArchiveIdentity::FORMAT`] is the newest this version knows.
    pub format: u32,
    /// The cluster, as it was known when the archive was claimed. In JSON its fields stand beside the others.
    #[serde(flatten)]
    pub cluster: ClusterIdentity,
    /// Every codec that any object of the archive was ever written with.
    pub codecs: BTreeSet<Codec>,
    /// How new objects are encrypted.
    #[serde(default)]
    pub encryption: Encryption,
    /// What new objects were encrypted with from when on, in the order of time. Empty while there was no encryption.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encryptions: Vec<EncryptionRecord>,
    /// When the archive was claimed.
    pub created_at: DateTime<Utc>,
    /// What claimed it, for example `wale 0.1.0`.
    pub created_by: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `wale.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is not JSON, or fields are missing or of the wrong type.
    #[error("wale.json is not readable: {0}")]
    Invalid(#[from] serde_json::Error),
    /// It was written by a later version of wale.
    #[error(
        "wale.json has format {found}, this version knows {} at most",
        ArchiveIdentity::FORMAT
    )]
    LaterFormat {
        /// The format it has.
        found: u32,
    },
}

impl ArchiveIdentity {
    /// The newest format this version reads.
    pub const FORMAT: u32 = 2;

    /// The format of an archive in which nothing was ever encrypted.
    pub const FORMAT_CLEAR: u32 = 1;

    /// The format of an archive with encrypted objects. A wale that knows no encryption would call them damaged.
    const FORMAT_ENCRYPTED: u32 = 2;

    /// Records what new objects are encrypted with from `since` on.
    pub fn record(&mut self, method: Encryption, keys: Vec<String>, since: DateTime<Utc>) {
        self.format = self.format.max(Self::FORMAT_ENCRYPTED);
        self.encryption = method;
        self.encryptions.push(EncryptionRecord {
            method,
            keys,
            since,
            extra: Map::new(),
        });
    }

    /// Reads the object.
    ///
    /// # Errors
    /// When it is not JSON of this form, or of a later format.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        /// This is read first, so that a later format is named as such whatever else it changed.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes)?;
        if format > Self::FORMAT {
            return Err(IdentityError::LaterFormat { found: format });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The object's bytes: indented JSON and a newline, for a person reads it too.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_vec_pretty(self).expect("string keys and plain values always serialise");
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{
  "format": 1,
  "system_identifier": "7447234573249283074",
  "major": 15,
  "wal_segment_size": 16777216,
  "codecs": [
    "zstd",
    "lzo"
  ],
  "encryption": "none",
  "created_at": "2026-01-02T03:04:05Z",
  "created_by": "wale 0.1.0",
  "later": {
    "number": 18446744073709551615
  }
}
"#;

    #[test]
    fn rewrites_to_the_same_bytes_with_unknown_fields() {
        let identity = ArchiveIdentity::parse(SAMPLE.as_bytes()).expect("valid");
        assert_eq!(
            identity.cluster.system_identifier.as_u64(),
            7_447_234_573_249_283_074
        );
        assert_eq!(identity.codecs, BTreeSet::from([Codec::Zstd, Codec::Lzo]));
        assert_eq!(String::from_utf8(identity.to_json()).expect("text"), SAMPLE);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let later = SAMPLE
            .replace("\"format\": 1", "\"format\": 3")
            .replace("none", "rot13");
        assert!(matches!(
            ArchiveIdentity::parse(later.as_bytes()),
            Err(IdentityError::LaterFormat { found: 3 })
        ));
        let cases = [
            SAMPLE.replace("none", "rot13"),
            SAMPLE.replace("\"zstd\"", "\"zip\""),
            SAMPLE.replace("\"7447234573249283074\"", "7447234573249283074"),
            SAMPLE.replace("\"major\": 15", "\"major\": 9"),
            SAMPLE.replace("16777216", "16777215"),
            SAMPLE.replace("  \"wal_segment_size\": 16777216,\n", ""),
            SAMPLE[..SAMPLE.len() - 3].to_owned(),
            String::new(),
            "[]".to_owned(),
        ];
        for text in cases {
            assert!(
                matches!(
                    ArchiveIdentity::parse(text.as_bytes()),
                    Err(IdentityError::Invalid(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn an_encryption_is_recorded_beside_the_one_before_and_a_wale_without_it_refuses() {
        let mut identity = ArchiveIdentity::parse(SAMPLE.as_bytes()).expect("valid");
        let at = DateTime::UNIX_EPOCH;
        identity.record(Encryption::Age, vec!["age1x".to_owned()], at);
        identity.record(Encryption::None, Vec::new(), at);
        assert_eq!(identity.format, ArchiveIdentity::FORMAT_ENCRYPTED);
        let again = ArchiveIdentity::parse(&identity.to_json()).expect("valid");
        assert_eq!(again, identity);
        let methods: Vec<_> = again.encryptions.iter().map(|one| one.method).collect();
        assert_eq!(methods, [Encryption::Age, Encryption::None]);
        assert!(again.encryptions[0].word().starts_with("age-"));
    }

    #[test]
    fn the_major_version_may_be_unknown() {
        let identity = ArchiveIdentity::parse(SAMPLE.replace("  \"major\": 15,\n", "").as_bytes())
            .expect("valid");
        assert_eq!(identity.cluster.major, None);
    }
}
