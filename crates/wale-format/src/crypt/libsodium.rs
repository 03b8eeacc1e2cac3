//! libsodium's secret stream as WAL-G frames it (`crypto_secretstream_xchacha20poly1305`, WAL-G 3.0.9
//! `internal/crypto/libsodium`).
//!
//! ```text
//! header            24 random bytes
//! chunk …           8192 plain bytes → 8209: one encrypted tag (MESSAGE), the bytes, a MAC of 16
//! last chunk        0 to 8191 plain bytes → 17 more, tag FINAL
//! ```
//!
//! So a stream of L plain bytes has 24 + L + 17 · (⌊L / 8192⌋ + 1). WAL-G refuses a full last chunk, and so none is written. It
//! does not notice a stream that is cut between two chunks; here the last chunk must have come.
//!
//! Invariant: a reader gives out no byte whose MAC did not match, and ends only after the final chunk with nothing behind it.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dryoc::classic::crypto_secretstream_xchacha20poly1305 as stream;
use sha2::{Digest, Sha256};

use crate::hex;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes before the first chunk.
const HEADER_BYTES: usize = 24;

/// Plain bytes of every chunk but the last, which has fewer.
const PLAIN_BYTES: usize = 8192;

/// What a chunk has beside its plain bytes: the tag and the MAC.
const MORE_BYTES: usize = 1 + 16;

/// Bytes of a whole chunk: 8209.
const CHUNK_BYTES: usize = PLAIN_BYTES + MORE_BYTES;

/// First bytes of an object that show whether a key opens it: the header and the first chunk, 8233.
pub(crate) const HEAD_BYTES: usize = HEADER_BYTES + CHUNK_BYTES;

/// Memory of a writer or a reader beside its sink or source: a plain and a sealed chunk, and some.
pub(super) const MEMORY_BYTES: u64 = 32 << 10;

/// Tag of a chunk that is followed by another.
const MESSAGE: u8 = 0;

/// Tag of the last chunk.
const FINAL: u8 = 3;

/// Bytes that a key of plain text must have at least, as for WAL-G: libsodium's older key length less 7.
const TEXT_MIN: usize = 25;

/// How the text of a setting becomes a key (`WALG_LIBSODIUM_KEY_TRANSFORM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeyTransform {
    /// Its bytes are the key: at least 25, the first 32 of more, zeros behind fewer. WAL-G's default.
    #[default]
    None,
    /// 64 hexadecimal digits.
    Hex,
    /// Base64 of 32 bytes, padded.
    Base64,
}

impl KeyTransform {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Hex, Self::Base64];

    /// WAL-G's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

/// A key. `Debug` shows only its fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

/// Why a text is no key. It holds nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SodiumKeyError {
    /// Too little text.
    #[error("the key has {found} bytes, and must have 25 at least")]
    TooShort {
        /// Bytes that it has.
        found: usize,
    },
    /// It is not written as the transform says.
    #[error("the key is not {} of 32 bytes", .transform.name())]
    Encoding {
        /// How it should be written.
        transform: KeyTransform,
    },
}

impl Key {
    /// The key of a text.
    ///
    /// # Errors
    /// When it is too short, or not written as `transform` says.
    pub fn parse(text: &str, transform: KeyTransform) -> Result<Self, SodiumKeyError> {
        let decoded = match transform {
            KeyTransform::None => return Self::of_text(text.as_bytes()),
            KeyTransform::Hex => unhex(text),
            KeyTransform::Base64 => STANDARD.decode(text).ok(),
        };
        let key = decoded.and_then(|bytes| bytes.try_into().ok());
        key.map(Self).ok_or(SodiumKeyError::Encoding { transform })
    }

    fn of_text(text: &[u8]) -> Result<Self, SodiumKeyError> {
        if text.len() < TEXT_MIN {
            return Err(SodiumKeyError::TooShort { found: text.len() });
        }
        let mut key = [0; KEY_BYTES];
        let used = text.len().min(KEY_BYTES);
        key[..used].copy_from_slice(&text[..used]);
        Ok(Self(key))
    }

    /// What the archive may say of the key: 32 hexadecimal digits that show whether it is the same, and nothing else of it.
    /// SHA-256 of a word of ours and the key, cut to 16 bytes.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"wale: fingerprint of a libsodium key\0");
        hash.update(self.0);
        hex(&hash.finalize()[..16])
    }

    /// Whether it opens the object that begins with `head`: its first [`HEAD_BYTES`], or all there are.
    pub(super) fn opens(&self, head: &[u8]) -> bool {
        let Some((header, rest)) = head.split_first_chunk() else {
            return false;
        };
        let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
        Pull::new(self, header).chunk(chunk).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.fingerprint())
    }
}

/// Whether a text that is taken as it is looks like 32 bytes in hexadecimal or base64. Then its first 32 characters are the
/// key, which has half the bits that were meant, and whoever sets the transform later opens nothing.
#[must_use]
pub fn looks_encoded(text: &str) -> Option<KeyTransform> {
    [KeyTransform::Hex, KeyTransform::Base64]
        .into_iter()
        .find(|transform| Key::parse(text, *transform).is_ok())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = digits?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Encrypts what is written to it into `W`.
///
/// Only [`SodiumWriter::finish`] makes the stream whole.
pub struct SodiumWriter<W> {
    sink: W,
    state: stream::State,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// Opens a stream that goes into `sink`. Its header is written at once.
///
/// # Errors
/// Those of the sink.
pub fn writer<W: Write>(key: &Key, mut sink: W) -> io::Result<SodiumWriter<W>> {
    let mut state = stream::State::new();
    let mut header = stream::Header::default();
    stream::crypto_secretstream_xchacha20poly1305_init_push(&mut state, &mut header, &key.0);
    sink.write_all(&header)?;
    Ok(SodiumWriter {
        sink,
        state,
        plain: Vec::with_capacity(PLAIN_BYTES),
        sealed: vec![0; CHUNK_BYTES],
    })
}

impl<W: Write> SodiumWriter<W> {
    /// Writes the last chunk and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> io::Result<W> {
        self.push(FINAL)?;
        Ok(self.sink)
    }

    fn push(&mut self, tag: u8) -> io::Result<()> {
        let sealed = &mut self.sealed[..self.plain.len() + MORE_BYTES];
        stream::crypto_secretstream_xchacha20poly1305_push(
            &mut self.state,
            sealed,
            &self.plain,
            None,
            tag,
        )
        .expect("the room for a chunk is made of its length");
        self.plain.clear();
        self.sink.write_all(sealed)
    }
}

impl<W: Write> Write for SodiumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PLAIN_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == PLAIN_BYTES {
            self.push(MESSAGE)?;
        }
        Ok(taken)
    }

    /// Flushes the sink. What makes no whole chunk yet stays.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl<W> fmt::Debug for SodiumWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SodiumWriter").finish_non_exhaustive()
    }
}

/// What a chunk was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkPlace {
    Before,
    Last,
}

/// The state of a stream that is read.
struct Pull {
    state: stream::State,
    plain: Vec<u8>,
}

impl Pull {
    fn new(key: &Key, header: &[u8; HEADER_BYTES]) -> Self {
        let mut state = stream::State::new();
        stream::crypto_secretstream_xchacha20poly1305_init_pull(&mut state, header, &key.0);
        Self {
            state,
            plain: Vec::with_capacity(PLAIN_BYTES),
        }
    }

    /// Opens a chunk into `plain`.
    fn chunk(&mut self, sealed: &[u8]) -> io::Result<ChunkPlace> {
        let Some(length) = sealed.len().checked_sub(MORE_BYTES) else {
            return Err(truncated());
        };
        self.plain.resize(length, 0);
        let mut tag = 0xFF;
        let opened = stream::crypto_secretstream_xchacha20poly1305_pull(
            &mut self.state,
            &mut self.plain,
            &mut tag,
            sealed,
            None,
        );
        let is_full = length == PLAIN_BYTES;
        match (opened, tag, is_full) {
            (Ok(_), MESSAGE, true) => Ok(ChunkPlace::Before),
            (Ok(_), FINAL, false) => Ok(ChunkPlace::Last),
            (Ok(_), _, _) => Err(damaged("a chunk is not framed as WAL-G frames it")),
            (Err(_), _, true) => Err(damaged("a chunk is not what was encrypted")),
            // A short one is the last, or what a cut left of another: nothing distinguishes them.
            (Err(_), _, false) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "libsodium stream is truncated or damaged in its last chunk",
            )),
        }
    }
}

/// Decrypts a stream.
pub struct SodiumReader<R> {
    source: R,
    pull: Pull,
    given: usize,
    sealed: Vec<u8>,
    state: ReaderState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    Open,
    LastChunk,
    Failed,
}

/// Reads the header of a stream, and opens it.
///
/// # Errors
/// Those of the source; `UnexpectedEof` without a whole header.
pub fn reader<R: Read>(key: &Key, mut source: R) -> io::Result<SodiumReader<R>> {
    let mut header = [0; HEADER_BYTES];
    source.read_exact(&mut header)?;
    Ok(SodiumReader {
        source,
        pull: Pull::new(key, &header),
        given: 0,
        sealed: vec![0; CHUNK_BYTES],
        state: ReaderState::Open,
    })
}

impl<R: Read> SodiumReader<R> {
    /// Opens the next chunk.
    fn next(&mut self) -> io::Result<()> {
        let mut filled = 0;
        while filled < CHUNK_BYTES {
            match self.source.read(&mut self.sealed[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.given = 0;
        self.pull.plain.clear();
        match self.state {
            ReaderState::LastChunk if filled > 0 => {
                Err(damaged("its last chunk is followed by other bytes"))
            }
            ReaderState::LastChunk => Ok(()),
            ReaderState::Failed => Err(damaged("it has already failed")),
            ReaderState::Open if filled == 0 => Err(truncated()),
            ReaderState::Open => {
                if self.pull.chunk(&self.sealed[..filled])? == ChunkPlace::Last {
                    self.state = ReaderState::LastChunk;
                }
                Ok(())
            }
        }
    }
}

impl<R: Read> Read for SodiumReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.given == self.pull.plain.len() {
            if let Err(error) = self.next() {
                self.pull.plain.clear();
                self.state = ReaderState::Failed;
                return Err(error);
            }
            if self.state == ReaderState::LastChunk && self.pull.plain.is_empty() {
                return Ok(0);
            }
        }
        let rest = &self.pull.plain[self.given..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

impl<R> fmt::Debug for SodiumReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SodiumReader")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "libsodium stream is truncated: its last chunk is missing",
    )
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("libsodium stream is damaged: {what}"),
    )
}
