//! Reading a manifest: its own checksum first, then JSON, file by file into the map.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use wale_pg::{Lsn, SystemIdentifier, TimelineId, byte_text};

use super::{Manifest, ManifestChecksum, ManifestError, ManifestFile, TIME_FORMAT, WalRange};

impl Manifest {
    /// Reads a manifest of version 1 or 2, PostgreSQL's or ours.
    ///
    /// # Errors
    /// When it is truncated, does not match its checksum, is of a later version, or is not of a
    /// manifest's form (which includes a path that occurs twice).
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        check_own_checksum(bytes)?;
        let Version { version } = serde_json::from_slice(bytes)?;
        if !(1..=2).contains(&version) {
            return Err(ManifestError::UnknownVersion { found: version });
        }
        let raw: Raw<'_> = serde_json::from_slice(bytes)?;
        Ok(Self {
            version,
            system_identifier: raw.system_identifier.map(SystemIdentifier::new),
            files: raw.files.named,
            wal_ranges: raw.wal_ranges,
        })
    }
}

/// The last line holds the SHA-256 of all lines before it (PostgreSQL: `verify_manifest_checksum`).
fn check_own_checksum(bytes: &[u8]) -> Result<(), ManifestError> {
    let body = bytes.strip_suffix(b"\n").ok_or(ManifestError::Truncated)?;
    let newline = body
        .iter()
        .rposition(|&byte| byte == b'\n')
        .ok_or(ManifestError::Truncated)?;
    let (covered, last_line) = body.split_at(newline + 1);
    let stored = last_line
        .strip_prefix(b"\"Manifest-Checksum\": \"")
        .and_then(|rest| rest.strip_suffix(b"\"}"))
        .and_then(|digits| unhex(std::str::from_utf8(digits).ok()?))
        .ok_or(ManifestError::Truncated)?;
    if stored[..] == Sha256::digest(covered)[..] {
        Ok(())
    } else {
        Err(ManifestError::ChecksumMismatch)
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(borrow, rename = "Files")]
    files: Files<'a>,
    #[serde(rename = "WAL-Ranges", deserialize_with = "wal_ranges")]
    wal_ranges: Vec<WalRange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    #[serde(borrow, rename = "Path")]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "Encoded-Path")]
    encoded_path: Option<Cow<'a, str>>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(borrow, rename = "Last-Modified")]
    last_modified: Cow<'a, str>,
    #[serde(borrow, rename = "Checksum-Algorithm")]
    algorithm: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "Checksum")]
    checksum: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

fn wal_ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WalRange>, D::Error> {
    let ranges = Vec::<RawRange>::deserialize(deserializer)?;
    Ok(ranges
        .into_iter()
        .map(
            |RawRange {
                 timeline,
                 start,
                 end,
             }| WalRange {
                timeline,
                start,
                end,
            },
        )
        .collect())
}

/// The maps of a manifest, filled while the text is read: no list of all entries in between.
#[derive(Default)]
struct Files<'a> {
    named: BTreeMap<String, ManifestFile>,
    text: std::marker::PhantomData<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Files<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FilesVisitor<'a>(Files<'a>);

        impl<'de: 'a, 'a> Visitor<'de> for FilesVisitor<'a> {
            type Value = Files<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of files")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                mut self,
                mut list: A,
            ) -> Result<Self::Value, A::Error> {
                while let Some(file) = list.next_element::<RawFile<'de>>()? {
                    self.0.insert(file).map_err(A::Error::custom)?;
                }
                Ok(self.0)
            }
        }

        deserializer.deserialize_seq(FilesVisitor(Self::default()))
    }
}

impl Files<'_> {
    fn insert(&mut self, raw: RawFile<'_>) -> Result<(), String> {
        let file = file(&raw)?;
        let path = match (raw.path, raw.encoded_path) {
            (Some(path), None) => byte_text::from_bytes(path.as_bytes()).into_owned(),
            // PostgreSQL can be told to encode every path, so most of these are text after all.
            (None, Some(hex)) => {
                let bytes = unhex(&hex)
                    .ok_or_else(|| format!("encoded path {hex:?} is not hexadecimal"))?;
                byte_text::from_bytes(&bytes).into_owned()
            }
            _ => return Err("a file has not exactly one path".to_owned()),
        };
        insert_new(&mut self.named, path, file).map_err(|path| format!("path {path} occurs twice"))
    }
}

/// Inserts, or gives the printed key back when it is there already.
fn insert_new<K: Ord + fmt::Debug, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
) -> Result<(), String> {
    match map.entry(key) {
        Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        Entry::Occupied(place) => Err(format!("{:?}", place.key())),
    }
}

fn file(raw: &RawFile<'_>) -> Result<ManifestFile, String> {
    let mtime = NaiveDateTime::parse_from_str(&raw.last_modified, TIME_FORMAT).map_err(|_| {
        format!(
            "time {:?} is not of the form \"YYYY-MM-DD HH:MM:SS GMT\"",
            raw.last_modified
        )
    })?;
    let checksum = checksum(raw.algorithm.as_deref(), raw.checksum.as_deref())?;
    Ok(ManifestFile {
        size: raw.size,
        crc32c: match checksum {
            ManifestChecksum::Crc32c(crc) => Some(crc),
            _ => None,
        },
        checksum,
        mtime: DateTime::<Utc>::from_naive_utc_and_offset(mtime, Utc),
    })
}

fn checksum(algorithm: Option<&str>, digits: Option<&str>) -> Result<ManifestChecksum, String> {
    let (algorithm, digits) = match (algorithm, digits) {
        (None, None) => return Ok(ManifestChecksum::None),
        (Some(algorithm), Some(digits)) => (algorithm, digits),
        _ => return Err("a file has half a checksum".to_owned()),
    };
    let bytes = unhex(digits).ok_or_else(|| format!("checksum {digits:?} is not hexadecimal"))?;
    let sha = |length: usize, make: fn(Box<[u8]>) -> ManifestChecksum| {
        let right = bytes.len() == length;
        right.then(|| make(bytes.clone().into_boxed_slice()))
    };
    let checksum = match algorithm {
        // PostgreSQL's own reader takes the name in any case; its writer prints upper case.
        "NONE" => Some(ManifestChecksum::None),
        "CRC32C" => bytes
            .as_slice()
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
            .map(ManifestChecksum::Crc32c),
        "SHA224" => sha(28, ManifestChecksum::Sha224),
        "SHA256" => sha(32, ManifestChecksum::Sha256),
        "SHA384" => sha(48, ManifestChecksum::Sha384),
        "SHA512" => sha(64, ManifestChecksum::Sha512),
        _ => return Err(format!("checksum algorithm {algorithm:?} is not known")),
    };
    checksum.ok_or_else(|| format!("checksum {digits:?} has the wrong length"))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}
