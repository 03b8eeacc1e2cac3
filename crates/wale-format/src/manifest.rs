//! PostgreSQL's `backup_manifest`, written as version 1 and read as version 1 and 2.
//!
//! The layout is that of PostgreSQL 13 to 16, byte for byte (`src/backend/backup/backup_manifest.c`,
//! `escape_json`), so that `pg_verifybackup` of every major proves a restore, also one of a cluster whose
//! major has no manifest of its own. Version 2 (PostgreSQL 17) adds the system identifier.
//!
//! Refuses to know: the file system, and who computes the checksums.
//!
//! Invariants: a manifest is read to its end only when its own SHA-256 matches; times are UTC, whole seconds.
//!
//! Memory: writer and reader hold one line, however many files there are.

mod read;

pub use read::{ManifestItem, ManifestReader, copy_with_changed_file};

use std::fmt::Write as _;
use std::io::{self, Write};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use wale_pg::{Lsn, TimelineId, byte_text};

use crate::checksum::push_hex;

/// Form of `Last-Modified`; PostgreSQL prints the zone of its own UTC, which is called GMT.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S GMT";

/// WAL that a backup needs: from `start` up to `end` on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First position needed.
    pub start: Lsn,
    /// Position after the last byte needed.
    pub end: Lsn,
}

/// Writes a manifest while its files are told, in any order.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    sink: W,
    /// Of what was written so far.
    digest: Sha256,
    line: String,
    files: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins one.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn new(sink: W) -> io::Result<Self> {
        let mut writer = Self {
            sink,
            digest: Sha256::new(),
            line: "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n".to_owned(),
            files: 0,
        };
        writer.put()?;
        Ok(writer)
    }

    /// Adds a file: path relative to the data directory ([`byte_text`]; one that is not UTF-8 is stored as
    /// hexadecimal), size in bytes, time of last modification, and CRC-32C of the content as it was archived.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn add_file(
        &mut self,
        path: &str,
        size: u64,
        modified: DateTime<Utc>,
        crc32c: u32,
    ) -> io::Result<()> {
        if self.files > 0 {
            self.line.push_str(",\n");
        }
        self.files += 1;
        push_file(&mut self.line, path, size, modified, crc32c);
        self.put()
    }

    /// Ends it, with the WAL that the backup needs: where the timeline changed during it several ranges, the newest timeline first,
    /// as PostgreSQL lists them. Gives the sink, and the SHA-256 of all that was written.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self, ranges: &[WalRange]) -> io::Result<(W, [u8; 32])> {
        self.line.push_str("\n],\n\"WAL-Ranges\": [\n");
        for (index, range) in ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ",\n" };
            write!(
                self.line,
                "{separator}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                range.timeline, range.start, range.end
            )
            .expect("writing to a string does not fail");
        }
        self.line.push_str("\n],\n");
        self.put()?;
        self.line = checksum_line(&self.digest.clone().finalize());
        self.put()?;
        Ok((self.sink, self.digest.finalize().into()))
    }

    fn put(&mut self) -> io::Result<()> {
        self.digest.update(self.line.as_bytes());
        self.sink.write_all(self.line.as_bytes())?;
        self.line.clear();
        Ok(())
    }
}

/// A manifest in memory.
#[derive(Debug)]
pub struct ManifestBuilder(ManifestWriter<Vec<u8>>);

impl Default for ManifestBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a manifest in memory is always written.
const IN_MEMORY: &str = "writing into memory does not fail";

impl ManifestBuilder {
    /// A manifest without files.
    #[must_use]
    pub fn new() -> Self {
        Self(ManifestWriter::new(Vec::new()).expect(IN_MEMORY))
    }

    /// As [`ManifestWriter::add_file`].
    pub fn add_file(&mut self, path: &str, size: u64, modified: DateTime<Utc>, crc32c: u32) {
        let added = self.0.add_file(path, size, modified, crc32c);
        added.expect(IN_MEMORY);
    }

    /// The manifest of a backup that needs the WAL of one timeline.
    #[must_use]
    pub fn finish(self, timeline: TimelineId, start: Lsn, stop: Lsn) -> Vec<u8> {
        self.finish_with_ranges(&[WalRange {
            timeline,
            start,
            end: stop,
        }])
    }

    /// The manifest of a backup during which the timeline changed.
    #[must_use]
    pub fn finish_with_ranges(self, ranges: &[WalRange]) -> Vec<u8> {
        self.0.finish(ranges).expect(IN_MEMORY).0
    }
}

/// One file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Path relative to the data directory ([`byte_text`]).
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The CRC-32C, when that is the checksum.
    pub crc32c: Option<u32>,
    /// The checksum, whatever its algorithm.
    pub checksum: ManifestChecksum,
    /// Time of last modification.
    pub mtime: DateTime<Utc>,
}

/// The checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestChecksum {
    /// None was recorded.
    None,
    /// CRC-32C, PostgreSQL's default.
    Crc32c(u32),
    /// SHA-224, 28 bytes.
    Sha224(Box<[u8]>),
    /// SHA-256, 32 bytes.
    Sha256(Box<[u8]>),
    /// SHA-384, 48 bytes.
    Sha384(Box<[u8]>),
    /// SHA-512, 64 bytes.
    Sha512(Box<[u8]>),
}

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Its last line is not the one with the checksum: it is truncated, or something else.
    #[error("backup manifest is truncated: it does not end in the line of its checksum")]
    Truncated,
    /// Its checksum does not match its text.
    #[error("backup manifest is damaged: its checksum does not match")]
    ChecksumMismatch,
    /// It is not of a manifest's form.
    #[error("backup manifest is not readable: {0}")]
    Invalid(String),
    /// A line has no end where every line of a manifest has.
    #[error("backup manifest is not readable: a line of it is longer than any of a manifest")]
    LineTooLong,
    /// It could not be read.
    #[error("backup manifest could not be read")]
    Read(#[from] std::io::Error),
    /// Its copy could not be written.
    #[error("backup manifest could not be written")]
    Write(#[source] std::io::Error),
    /// Its version is neither 1 nor 2.
    #[error("backup manifest has version {found}, known are 1 and 2")]
    UnknownVersion {
        /// The version it has.
        found: u64,
    },
}

/// Appends the entry of a file, as [`ManifestWriter::add_file`] describes it.
fn push_file(text: &mut String, path: &str, size: u64, modified: DateTime<Utc>, crc32c: u32) {
    let bytes = byte_text::to_bytes(path);
    if let Ok(name) = std::str::from_utf8(&bytes) {
        text.push_str("{ \"Path\": ");
        push_json_string(text, name);
    } else {
        text.push_str("{ \"Encoded-Path\": \"");
        push_hex(text, &bytes);
        text.push('"');
    }
    let time = modified.format(TIME_FORMAT);
    write!(
        text,
        ", \"Size\": {size}, \"Last-Modified\": \"{time}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \""
    )
    .expect("writing to a string does not fail");
    // PostgreSQL prints the checksum's bytes as they lie in memory: little-endian.
    push_hex(text, &crc32c.to_le_bytes());
    text.push_str("\" }");
}

/// The last line, with the SHA-256 of all before it.
fn checksum_line(sha256: &[u8]) -> String {
    let mut line = "\"Manifest-Checksum\": \"".to_owned();
    push_hex(&mut line, sha256);
    line.push_str("\"}\n");
    line
}

/// Appends a string as PostgreSQL's `escape_json` prints it: `serde_json` escapes the same bytes the same way.
fn push_json_string(text: &mut String, value: &str) {
    let quoted = serde_json::to_string(value).expect("a string always serialises");
    text.push_str(&quoted);
}

#[cfg(test)]
mod tests;
