//! Compression codecs as `io::Write` and `io::Read` adapters: one object, one compressed stream. They are one stage of
//! a [`Seal`](crate::Seal), which is their only user.
//!
//! The extension of an object's name says its codec, always; nothing is guessed from the content.
//!
//! Refuses to know: names of objects, how to decrypt, where the bytes come from or go to.
//!
//! Invariants:
//! * An encoder writes exactly one frame with a checksum over the plain bytes (`none` copies). That of a partition writes several
//!   with zstd ([`frames`]), and only the decoder of a partition reads several.
//! * Dropping an [`Encoder`] without [`Encoder::finish`] leaves a stream that no decoder accepts
//!   (except `none`, which has no end mark: there the store's own length is the proof).
//! * A decoder ends (`Ok(0)`) only when the frame is whole, its checksum matched where the format has one (brotli and lzma have
//!   none), **and** the source is at its end. Truncation and trailing bytes are errors, so a reader that reached the end has
//!   seen everything there is.
//! * An error of the source passes through a decoder unchanged; damage found by the decoder is
//!   `InvalidData` or `UnexpectedEof`, something encrypted in the place of a stream `Unsupported`, a window above what
//!   the caller allows `OutOfMemory`. A failed decoder stays failed.
//!
//! Memory per open adapter, at the default settings:
//!
//! | codec | encoder | decoder |
//! |---|---|---|
//! | zstd 1 | 1.3 MiB window, tables and buffers; 90 MiB at level 19; of a partition 4 MiB more for the plain and the packed frame | window of the frame (0.25 MiB ours, 1 at level 3, 8 MiB WAL-G's, never above what the caller allows) + 0.25 MiB |
//! | lz4 | 2 × 256 KiB block buffers | up to 2 × 4 MiB block + 64 KiB for a foreign frame, 0.6 MiB for ours |
//! | lzo | 2 × 256 KiB block buffers + 32 KiB | 2 × 256 KiB; up to 2 × 64 MiB, never above what the caller allows, for a foreign stream that says so and brings the bytes |
//! | brotli | not written | window of the stream, 4 MiB as WAL-G writes it and 16 MiB at most + 0.5 MiB |
//! | lzma | not written | dictionary of the stream, 8 MiB as WAL-G writes it, never above what the caller allows + 0.1 MiB |
//! | none | 0 | 0 |

mod brotli;
mod encrypted;
mod frames;
mod literals;
mod lz4;
mod lzma;
mod lzo;
mod strict;
mod zstd_frame;

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use encrypted::Content;
pub(crate) use encrypted::HEAD_BYTES;
pub use frames::FrameStart;
use frames::FramesEncoder;
use lz4::Lz4Encoder;
use strict::FrameDecoder as _;
use zstd_frame::{FrameCount, ZstdEncoder};

/// A compression method, known by the extension it gives to an object's name.
///
/// ```
/// use wale_format::Codec;
/// assert_eq!("zstd".parse(), Ok(Codec::Zstd));
/// assert_eq!(Codec::Zstd.to_string(), "zstd");
/// assert_eq!(Codec::from_extension("lzo"), Some(Codec::Lzo));
/// ```
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// No compression: the bytes as they are, and no extension.
    None,
    /// One Zstandard frame, extension `zst`. What wale writes unless told otherwise.
    #[default]
    Zstd,
    /// One LZ4 frame, extension `lz4`. WAL-G's default.
    Lz4,
    /// One lzop stream, extension `lzo`. All that WAL-E knows.
    Lzo,
    /// One brotli stream, extension `br`. WAL-G's option.
    Brotli,
    /// One stream of the old LZMA-alone format, extension `lzma`. WAL-G's option; it is not xz.
    Lzma,
}

impl Codec {
    /// Every codec that has a name.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Zstd,
        Self::Lz4,
        Self::Lzo,
        Self::Brotli,
        Self::Lzma,
    ];

    /// Every codec, in the order in which a look-up should try them.
    pub const BY_USE: [Self; 6] = [
        Self::Zstd,
        Self::Lz4,
        Self::Lzo,
        Self::None,
        Self::Brotli,
        Self::Lzma,
    ];

    /// The codecs that this version writes, the default first.
    pub const ALL_WRITABLE: [Self; 4] = [Self::Zstd, Self::Lz4, Self::None, Self::Lzo];

    /// The extension without its dot; empty for [`Codec::None`].
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd => "zst",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
            Self::Brotli => "br",
            Self::Lzma => "lzma",
        }
    }

    /// What is appended to an object's name: the dot and the extension, or nothing.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
            Self::Lzo => ".lzo",
            Self::Brotli => ".br",
            Self::Lzma => ".lzma",
        }
    }

    /// The codec of an extension (without dot). Empty means [`Codec::None`]; an unknown one is `None`.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.extension() == extension)
    }

    /// The name used in settings and documents, lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
            Self::Brotli => "brotli",
            Self::Lzma => "lzma",
        }
    }

    /// Whether this version writes it.
    #[must_use]
    pub const fn can_write(self) -> bool {
        matches!(self, Self::None | Self::Zstd | Self::Lz4 | Self::Lzo)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| CodecError::UnknownName {
                name: text.to_owned(),
            })
    }
}

/// Why a codec cannot be used. Damage in a stream is not here: it is an `io::Error` of the reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The codec is known by name and extension, but this version cannot write it.
    #[error("{codec} cannot be written by this version, only zstd, lz4, lzo and none")]
    NotWritable {
        /// The codec that was asked for.
        codec: Codec,
    },
    /// No codec has this name.
    #[error("unknown compression \"{name}\", known are none, zstd, lz4, lzo, brotli and lzma")]
    UnknownName {
        /// The name as given.
        name: String,
    },
    /// The codec has no such level.
    #[error("{codec} has no compression level {level}{}", known_levels(*.codec))]
    Level {
        /// The codec.
        codec: Codec,
        /// The level that was asked for.
        level: i32,
    },
    /// The codec library could not be set up, in practice because memory is short.
    #[error("{codec} could not be set up: {reason}")]
    SetUp {
        /// The codec.
        codec: Codec,
        /// The library's words.
        reason: String,
    },
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        let kind = match &error {
            CodecError::NotWritable { .. } => io::ErrorKind::Unsupported,
            CodecError::UnknownName { .. } | CodecError::Level { .. } => {
                io::ErrorKind::InvalidInput
            }
            CodecError::SetUp { .. } => io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}

/// The levels that a codec has, for a message.
fn known_levels(codec: Codec) -> String {
    if codec != Codec::Zstd {
        return String::new();
    }
    let levels = CodecSettings::ZSTD_LEVELS;
    format!(", only {} to {}", levels.start(), levels.end())
}

/// A step of adaptive compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveStep {
    /// Its level of zstd. Beyond the first it can be set in no other way.
    pub level: i32,
    /// Its processor time for the same bytes, in hundredths of the first step's, measured on WAL and pages.
    pub cost: u32,
}

/// A codec and how hard it should try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CodecSettings {
    /// The codec; zstd by default.
    pub codec: Codec,
    /// The codec's own level, or `None` for its default. Only zstd has levels: [`CodecSettings::ZSTD_LEVELS`].
    pub level: Option<i32>,
}

impl CodecSettings {
    /// zstd's default, the fastest of the three levels that are set for PostgreSQL's pages and WAL.
    const DEFAULT_ZSTD_LEVEL: i32 = 1;

    /// The steps of adaptive compression, the fastest first: each takes fewer bytes, mostly, for more of the processor's time.
    pub const ADAPTIVE: [AdaptiveStep; 3] = [
        AdaptiveStep {
            level: Self::DEFAULT_ZSTD_LEVEL,
            cost: 100,
        },
        AdaptiveStep {
            level: zstd_frame::SMALL,
            cost: 450,
        },
        AdaptiveStep {
            level: zstd_frame::SMALLEST,
            cost: 2500,
        },
    ];

    /// What adaptive compression is set up with: zstd at the last of its steps, which takes the most memory.
    #[must_use]
    pub const fn adaptive() -> Self {
        Self {
            codec: Codec::Zstd,
            level: Some(zstd_frame::SMALLEST),
        }
    }

    /// zstd's levels, from the fastest on. Level 20 and above need a window of up to 128 MiB and some 700 MiB while
    /// writing.
    pub const ZSTD_LEVELS: RangeInclusive<i32> = -7..=19;

    /// Settings that are checked.
    ///
    /// # Errors
    /// When the codec cannot be written or has no such level.
    pub fn new(codec: Codec, level: Option<i32>) -> Result<Self, CodecError> {
        let settings = Self { codec, level };
        settings.check()?;
        Ok(settings)
    }

    /// Whether the codec can be written with these settings.
    ///
    /// # Errors
    /// When the codec cannot be written or has no such level.
    fn check(self) -> Result<(), CodecError> {
        let codec = self.codec;
        if !codec.can_write() {
            return Err(CodecError::NotWritable { codec });
        }
        match self.level {
            None => Ok(()),
            Some(level) if codec == Codec::Zstd && Self::has_level(level) => Ok(()),
            Some(level) => Err(CodecError::Level { codec, level }),
        }
    }

    fn has_level(level: i32) -> bool {
        let is_step = Self::ADAPTIVE.iter().any(|step| step.level == level);
        is_step || Self::ZSTD_LEVELS.contains(&level)
    }

    /// zstd's level.
    fn zstd_level(self) -> i32 {
        self.level.unwrap_or(Self::DEFAULT_ZSTD_LEVEL)
    }
}

impl From<Codec> for CodecSettings {
    fn from(codec: Codec) -> Self {
        Self { codec, level: None }
    }
}

/// Compresses what is written to it into `W`, as one frame.
///
/// Only [`Encoder::finish`] makes the stream whole.
pub(crate) struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Zstd(Box<ZstdEncoder<W>>),
    Frames(Box<FramesEncoder<W>>),
    Lz4(Box<Lz4Encoder<W>>),
    Lzo(Box<lzo::LzopEncoder<W>>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = match &self.inner {
            Inner::Plain(_) => Codec::None,
            Inner::Zstd(_) | Inner::Frames(_) => Codec::Zstd,
            Inner::Lz4(_) => Codec::Lz4,
            Inner::Lzo(_) => Codec::Lzo,
        };
        f.debug_struct("Encoder")
            .field("codec", &codec)
            .finish_non_exhaustive()
    }
}

/// Opens an encoder that writes into `sink`.
///
/// Write pieces of 64 KiB and more where possible; the encoder adds no buffer in front of its own.
///
/// # Errors
/// When the settings are not acceptable ([`CodecSettings::check`]) or the codec cannot be set up.
pub(crate) fn encoder<W: Write + Send + 'static>(
    settings: CodecSettings,
    sink: W,
) -> Result<Encoder<W>, CodecError> {
    settings.check()?;
    let inner = match settings.codec {
        Codec::Zstd => {
            let encoder = zstd_frame::encoder(sink, settings.zstd_level());
            Inner::Zstd(Box::new(encoder.map_err(|error| CodecError::SetUp {
                codec: Codec::Zstd,
                reason: error.to_string(),
            })?))
        }
        Codec::Lz4 => {
            let encoder = Lz4Encoder::new(sink).map_err(|error| CodecError::SetUp {
                codec: Codec::Lz4,
                reason: error.to_string(),
            })?;
            Inner::Lz4(Box::new(encoder))
        }
        Codec::Lzo => Inner::Lzo(Box::new(lzo::LzopEncoder::new(sink))),
        Codec::None => Inner::Plain(sink),
        codec @ (Codec::Brotli | Codec::Lzma) => {
            return Err(CodecError::NotWritable { codec });
        }
    };
    Ok(Encoder { inner })
}

/// As [`encoder`], of a partition, which zstd compresses into frames.
///
/// # Errors
/// As [`encoder`].
pub(crate) fn partition_encoder<W: Write + Send + 'static>(
    settings: CodecSettings,
    sink: W,
) -> Result<Encoder<W>, CodecError> {
    if settings.codec != Codec::Zstd {
        return encoder(settings, sink);
    }
    settings.check()?;
    let frames = FramesEncoder::new(sink, settings.zstd_level());
    let frames = frames.map_err(|error| CodecError::SetUp {
        codec: Codec::Zstd,
        reason: error.to_string(),
    })?;
    Ok(Encoder {
        inner: Inner::Frames(Box::new(frames)),
    })
}

impl<W: Write> Encoder<W> {
    /// So many bytes follow that should be in one frame; nothing where the object is one frame anyway.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn begin_unit(&mut self, bytes: u64) -> io::Result<()> {
        match &mut self.inner {
            Inner::Frames(frames) => frames.begin_unit(bytes),
            _ => Ok(()),
        }
    }

    /// As [`Encoder::finish`]; also gives where the frames begin, none where the object is not made of frames that can be decoded
    /// one by one.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish_frames(self) -> io::Result<(W, Vec<FrameStart>)> {
        match self.inner {
            Inner::Frames(frames) => frames.finish(),
            inner => Encoder { inner }.finish().map(|sink| (sink, Vec::new())),
        }
    }

    /// Ends the frame and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Plain(sink) => Ok(sink),
            Inner::Zstd(encoder) => encoder.finish(),
            Inner::Frames(frames) => frames.finish().map(|(sink, _)| sink),
            Inner::Lz4(encoder) => encoder.finish(),
            Inner::Lzo(encoder) => encoder.finish(),
        }
    }

    /// The sink, to look at (for example at how much it has taken).
    #[cfg(test)]
    fn get_ref(&self) -> &W {
        match &self.inner {
            Inner::Plain(sink) => sink,
            Inner::Zstd(encoder) => encoder.get_ref(),
            Inner::Frames(frames) => frames.get_ref(),
            Inner::Lz4(encoder) => encoder.get_ref(),
            Inner::Lzo(encoder) => encoder.get_ref(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(sink) => sink.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
            Inner::Frames(frames) => frames.write(bytes),
            Inner::Lz4(encoder) => encoder.write(bytes),
            Inner::Lzo(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(sink) => sink.flush(),
            Inner::Zstd(encoder) => encoder.flush(),
            Inner::Frames(frames) => frames.flush(),
            Inner::Lz4(encoder) => encoder.flush(),
            Inner::Lzo(encoder) => encoder.flush(),
        }
    }
}

/// The memory that an encoder of these settings takes, in bytes, beside its sink.
///
/// lz4: two blocks of 256 KiB and a table of 16 KiB. lzo: two blocks of 256 KiB and tables of 32 KiB. 1 MiB for either.
pub(crate) fn encoder_bytes(settings: CodecSettings) -> u64 {
    match settings.codec {
        Codec::Zstd => zstd_frame::encoder_bytes(settings.zstd_level()),
        Codec::Lz4 | Codec::Lzo => 1 << 20,
        Codec::None | Codec::Brotli | Codec::Lzma => 0,
    }
}

/// As [`encoder_bytes`], of a partition.
pub(crate) fn partition_encoder_bytes(settings: CodecSettings) -> u64 {
    match settings.codec {
        Codec::Zstd => frames::frames_encoder_bytes(settings.zstd_level()),
        _ => encoder_bytes(settings),
    }
}

/// The largest window of a zstd frame that anybody may allow: what `zstd -d` accepts without `--long`. 128 MiB.
pub const WINDOW_MAX_BYTES: u64 = 128 << 20;

/// The memory that the window of a stored object takes while it is decoded, by the object's first bytes (17 are enough); 0 for codecs
/// that have none, and where the bytes say nothing (the decoder then says what is wrong).
#[must_use]
pub(crate) fn window_bytes(codec: Codec, head: &[u8]) -> u64 {
    match codec {
        Codec::Zstd => zstd_frame::window_bytes(head).unwrap_or(0),
        Codec::Brotli => brotli::window_bytes(head).unwrap_or(0),
        Codec::Lzma => lzma::window_bytes(head).unwrap_or(0),
        Codec::None | Codec::Lz4 | Codec::Lzo => 0,
    }
}

/// Whether what stands in the place of a compressed stream, or of `content` where nothing is compressed, may be an encrypted
/// message, of OpenPGP or of libsodium, whose bytes look like noise. What begins as it should, be it damaged, like text or
/// like nothing is none. `head` are the first [`HEAD_BYTES`], or all there are.
#[must_use]
pub(crate) fn may_be_encrypted(codec: Codec, content: Content, head: &[u8]) -> bool {
    let mut magics = Codec::ALL.into_iter().filter_map(magic);
    if magics.any(|magic| head.starts_with(magic)) {
        return false;
    }
    match codec {
        Codec::None => encrypted::in_place_of_plain(content, head),
        // A stream of brotli looks like noise itself.
        Codec::Brotli => encrypted::is_noise(head) && brotli::is_none(head),
        codec => magic(codec).is_some_and(|magic| encrypted::in_place_of_stream(magic, head)),
    }
}

/// How the streams begin that have a beginning of their own.
const fn magic(codec: Codec) -> Option<&'static [u8]> {
    match codec {
        Codec::Zstd => Some(zstd_frame::ZstdFrames::MAGIC),
        Codec::Lz4 => Some(lz4::Lz4Frame::MAGIC),
        Codec::Lzo => Some(lzo::LzopFrame::MAGIC),
        Codec::Lzma => Some(lzma::LzmaStream::MAGIC),
        Codec::None | Codec::Brotli => None,
    }
}

/// Opens a decoder over `source` whose window (of lzo, whose two blocks) has at most `window_max` bytes. It reads the
/// source to its end and checks that nothing follows.
///
/// # Errors
/// While reading: the source's own errors unchanged, `UnexpectedEof` for a truncated stream,
/// `InvalidData` for a damaged one or for bytes after its end, `Unsupported` for what is encrypted, `OutOfMemory` for a
/// larger window.
pub(crate) fn decoder_within<R: Read + Send + 'static>(
    codec: Codec,
    source: R,
    window_max: u64,
) -> io::Result<Box<dyn Read + Send>> {
    match codec {
        Codec::None => Ok(Box::new(source)),
        Codec::Zstd => {
            let decoder = zstd_frame::decoder(source, window_max, FrameCount::One)?;
            Ok(Box::new(decoder))
        }
        Codec::Lz4 => Ok(Box::new(lz4::decoder(source))),
        Codec::Lzo => Ok(Box::new(lzo::decoder(source, window_max))),
        Codec::Brotli => Ok(Box::new(brotli::decoder(source, window_max))),
        Codec::Lzma => Ok(Box::new(lzma::decoder(source, window_max))),
    }
}

/// As [`decoder_within`], of what has an end of its own, a tar: with zstd one frame may follow another. Where an object was cut
/// between two of them only its content shows it.
///
/// # Errors
/// As [`decoder_within`].
pub(crate) fn frames_decoder<R: Read + Send + 'static>(
    codec: Codec,
    source: R,
    window_max: u64,
) -> io::Result<Box<dyn Read + Send>> {
    match codec {
        Codec::Zstd => {
            let decoder = zstd_frame::decoder(source, window_max, FrameCount::Several)?;
            Ok(Box::new(decoder))
        }
        codec => decoder_within(codec, source, window_max),
    }
}

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;
