//! Reading a manifest line by line: nothing of it is kept, so its size bounds no memory.
//!
//! PostgreSQL and wale print one file a line, within a frame whose lines are always the same. A manifest that is
//! printed otherwise is not understood. Believe what a line says only after the last one has come, with the checksum
//! over the others.

use std::borrow::Cow;
use std::io::{BufRead, Read as _, Write};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wale_pg::{Lsn, SystemIdentifier, TimelineId, byte_text};

use super::{
    ManifestChecksum, ManifestError, ManifestFile, TIME_FORMAT, WalRange, checksum_line, push_file,
};

/// Bytes of a line at most: a path of 4,096 bytes, each escaped as six, and some 300 for the rest make 25 kB.
const LINE_MAX: usize = 64 << 10;

/// What a line of a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestItem {
    /// The version: 1 or 2.
    Version(u32),
    /// The cluster; only version 2 says it.
    SystemIdentifier(SystemIdentifier),
    /// A file.
    File(ManifestFile),
    /// A range of the WAL that the backup needs.
    WalRange(WalRange),
    /// Nothing: it opens or closes a list.
    Frame,
    /// The checksum over all lines before it, which matches. It is the last.
    End,
}

/// A manifest of version 1 or 2, PostgreSQL's or ours, from beginning to end.
///
/// A path that occurs twice is not noticed here: that takes a memory of all.
#[derive(Debug)]
pub struct ManifestReader<R> {
    source: R,
    line: Vec<u8>,
    expects: Expects,
    /// Of what was read so far.
    digest: Sha256,
}

/// What the next line must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Version,
    Files,
    File(Place),
    Ranges,
    Range(Place),
    Checksum,
    Nothing,
}

/// Where in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before its first entry.
    First,
    /// After an entry and its comma.
    Next,
    /// After the last entry.
    Closing,
}

impl<R: BufRead> ManifestReader<R> {
    /// A reader that has read nothing yet.
    pub fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::new(),
            expects: Expects::Version,
            digest: Sha256::new(),
        }
    }

    /// What the next line says; `None` after the last one, when nothing follows it.
    ///
    /// # Errors
    /// Those of the source; when the line is not of a manifest's form, or too long; when the manifest is of a later
    /// version, ends before its last line or does not match its checksum.
    pub fn next_item(&mut self) -> Result<Option<ManifestItem>, ManifestError> {
        let before = self.digest.clone();
        if !self.read_line()? {
            return match self.expects {
                Expects::Nothing => Ok(None),
                _ => Err(ManifestError::Truncated),
            };
        }
        let line = self
            .line
            .strip_suffix(b"\n")
            .ok_or(ManifestError::Truncated)?;
        let (item, expects) = match self.expects {
            Expects::Version => (version(line)?, Expects::Files),
            Expects::Files if line == b"\"Files\": [" => {
                (ManifestItem::Frame, Expects::File(Place::First))
            }
            Expects::Files => (system_identifier(line)?, Expects::Files),
            Expects::File(place) => match entry(line, place)? {
                Entry::Item(text, place) => (ManifestItem::File(file(text)?), Expects::File(place)),
                Entry::Empty => (ManifestItem::Frame, Expects::File(Place::Closing)),
                Entry::Close => (ManifestItem::Frame, Expects::Ranges),
            },
            Expects::Ranges if line == b"\"WAL-Ranges\": [" => {
                (ManifestItem::Frame, Expects::Range(Place::First))
            }
            Expects::Ranges => return Err(strange(line)),
            Expects::Range(place) => match entry(line, place)? {
                Entry::Item(text, place) => {
                    (ManifestItem::WalRange(range(text)?), Expects::Range(place))
                }
                Entry::Empty => (ManifestItem::Frame, Expects::Range(Place::Closing)),
                Entry::Close => (ManifestItem::Frame, Expects::Checksum),
            },
            Expects::Checksum => {
                check(&self.line, before)?;
                (ManifestItem::End, Expects::Nothing)
            }
            Expects::Nothing => return Err(ManifestError::Truncated),
        };
        self.expects = expects;
        Ok(Some(item))
    }

    /// The line of the last item as it is stored, with what ends it.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The SHA-256 of all that was read.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Reads a line; `false` at the end of the source.
    fn read_line(&mut self) -> Result<bool, ManifestError> {
        self.line.clear();
        let most = LINE_MAX as u64 + 1;
        self.source
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line)?;
        if self.line.len() > LINE_MAX {
            return Err(ManifestError::LineTooLong);
        }
        self.digest.update(&self.line);
        Ok(!self.line.is_empty())
    }
}

/// Copies a manifest line by line, except for the entry of `path`, which gets another size and CRC-32C, and for the
/// checksum. Returns the SHA-256 of what was read.
///
/// # Errors
/// As [`ManifestReader::next_item`], and those of `target`.
pub fn copy_with_changed_file(
    source: impl BufRead,
    target: &mut impl Write,
    path: &str,
    (size, crc32c): (u64, u32),
) -> Result<[u8; 32], ManifestError> {
    let mut reader = ManifestReader::new(source);
    let mut written = Sha256::new();
    let mut printed = String::new();
    while let Some(item) = reader.next_item()? {
        printed.clear();
        match item {
            ManifestItem::File(file) if file.path == path => {
                push_file(&mut printed, path, size, file.mtime, crc32c);
                let more = reader.line().ends_with(b",\n");
                printed.push_str(if more { ",\n" } else { "\n" });
            }
            ManifestItem::End => printed.push_str(&checksum_line(&written.clone().finalize())),
            _ => {}
        }
        let line = if printed.is_empty() {
            reader.line()
        } else {
            printed.as_bytes()
        };
        written.update(line);
        target.write_all(line).map_err(ManifestError::Write)?;
    }
    Ok(reader.sha256())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what map_err hands over is a value"
)]
fn invalid(reason: impl ToString) -> ManifestError {
    ManifestError::Invalid(reason.to_string())
}

/// Begins of a line that is shown.
const SHOWN_MAX: usize = 80;

fn strange(line: &[u8]) -> ManifestError {
    let shown = &line[..line.len().min(SHOWN_MAX)];
    invalid(format_args!(
        "the line \"{}\" is not expected",
        shown.escape_ascii()
    ))
}

/// The number between `begin` and `end`.
fn number(line: &[u8], begin: &str, end: &str) -> Result<u64, ManifestError> {
    let digits = line
        .strip_prefix(begin.as_bytes())
        .and_then(|rest| rest.strip_suffix(end.as_bytes()))
        .ok_or_else(|| strange(line))?;
    serde_json::from_slice(digits).map_err(invalid)
}

fn version(line: &[u8]) -> Result<ManifestItem, ManifestError> {
    let version = number(line, "{ \"PostgreSQL-Backup-Manifest-Version\": ", ",")?;
    match u32::try_from(version) {
        Ok(known @ 1..=2) => Ok(ManifestItem::Version(known)),
        _ => Err(ManifestError::UnknownVersion { found: version }),
    }
}

fn system_identifier(line: &[u8]) -> Result<ManifestItem, ManifestError> {
    let number = number(line, "\"System-Identifier\": ", ",")?;
    Ok(ManifestItem::SystemIdentifier(SystemIdentifier::new(
        number,
    )))
}

/// A line within a list.
enum Entry<'a> {
    /// An entry, and where the next line is.
    Item(&'a [u8], Place),
    /// The empty line that wale writes into a list of nothing.
    Empty,
    /// The end of the list.
    Close,
}

fn entry(line: &[u8], place: Place) -> Result<Entry<'_>, ManifestError> {
    match (line, place) {
        (b"],", Place::First | Place::Closing) => Ok(Entry::Close),
        (b"", Place::First) => Ok(Entry::Empty),
        (_, Place::First | Place::Next) => Ok(match line.strip_suffix(b",") {
            Some(entry) => Entry::Item(entry, Place::Next),
            None => Entry::Item(line, Place::Closing),
        }),
        (_, Place::Closing) => Err(strange(line)),
    }
}

/// The last line holds the SHA-256 of all lines before it (PostgreSQL: `verify_manifest_checksum`).
fn check(line: &[u8], before: Sha256) -> Result<(), ManifestError> {
    let stored = line
        .strip_prefix(b"\"Manifest-Checksum\": \"")
        .and_then(|rest| rest.strip_suffix(b"\"}\n"))
        .and_then(|digits| unhex(std::str::from_utf8(digits).ok()?))
        .ok_or(ManifestError::Truncated)?;
    if stored[..] == before.finalize()[..] {
        Ok(())
    } else {
        Err(ManifestError::ChecksumMismatch)
    }
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

fn range(text: &[u8]) -> Result<WalRange, ManifestError> {
    let RawRange {
        timeline,
        start,
        end,
    } = serde_json::from_slice(text).map_err(invalid)?;
    Ok(WalRange {
        timeline,
        start,
        end,
    })
}

fn file(text: &[u8]) -> Result<ManifestFile, ManifestError> {
    let raw: RawFile<'_> = serde_json::from_slice(text).map_err(invalid)?;
    let path = match (&raw.path, &raw.encoded_path) {
        (Some(path), None) => byte_text::from_bytes(path.as_bytes()).into_owned(),
        // PostgreSQL can be told to encode every path, so most of these are text after all.
        (None, Some(hex)) => {
            let bytes = unhex(hex)
                .ok_or_else(|| invalid(format_args!("encoded path {hex:?} is not hexadecimal")))?;
            byte_text::from_bytes(&bytes).into_owned()
        }
        _ => return Err(invalid("a file has not exactly one path")),
    };
    let mtime = NaiveDateTime::parse_from_str(&raw.last_modified, TIME_FORMAT).map_err(|_| {
        invalid(format_args!(
            "time {:?} is not of the form \"YYYY-MM-DD HH:MM:SS GMT\"",
            raw.last_modified
        ))
    })?;
    let checksum = checksum(raw.algorithm.as_deref(), raw.checksum.as_deref()).map_err(invalid)?;
    Ok(ManifestFile {
        path,
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
