//! The seal of an object: how plain content becomes the bytes that are stored, and plain content again.
//!
//! ```text
//! writing: plain → codec → stored
//! reading: stored → codec → plain
//! ```
//!
//! A key is one stage more, between the codec and what is stored. Its place is in [`Seal::writer`] and [`Seal::reader`];
//! nothing outside of this file knows the stages.
//!
//! Refuses to know: names of objects, where their bytes come from or go to, how much memory there is.

use std::io::{self, Chain, Cursor, Read, Write};

use crate::codec::{self, Codec, CodecError, CodecSettings, Content, Encoder};
use crate::identity::Encryption;

/// How objects are sealed.
///
/// ```
/// use std::io::{Read, Write};
/// use wale_format::{Codec, Seal};
///
/// let seal = Seal::unencrypted(Codec::Lz4);
/// let mut writer = seal.writer(Vec::new()).expect("lz4 is written");
/// writer.write_all(b"plain").expect("a vector takes everything");
/// let stored = writer.finish().expect("a vector takes everything");
///
/// let reader = seal.reader(std::io::Cursor::new(stored)).expect("it has a beginning");
/// let mut plain = Vec::new();
/// reader.plain(0).expect("lz4 is read").read_to_end(&mut plain).expect("whole");
/// assert_eq!(plain, b"plain");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    codec: CodecSettings,
    encryption: Encryption,
}

impl Seal {
    /// A seal of these stages.
    #[must_use]
    pub const fn new(codec: CodecSettings, encryption: Encryption) -> Self {
        Self { codec, encryption }
    }

    /// A seal of this codec at its default level, without encryption.
    #[must_use]
    pub fn unencrypted(codec: Codec) -> Self {
        Self {
            codec: codec.into(),
            encryption: Encryption::None,
        }
    }

    /// The codec, which an object's name shows.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec.codec
    }

    /// How the objects are encrypted.
    #[must_use]
    pub const fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// The same seal under another codec, at that codec's default level: for an object whose name shows it.
    #[must_use]
    pub fn with_codec(&self, codec: Codec) -> Self {
        if codec == self.codec() {
            return self.clone();
        }
        Self {
            codec: codec.into(),
            ..self.clone()
        }
    }

    /// Seals what is written to it, into `sink`. Write pieces of 64 KiB and more where possible.
    ///
    /// # Errors
    /// When the codec cannot be written, has no such level, or cannot be set up.
    pub fn writer<W: Write + Send + 'static>(&self, sink: W) -> Result<SealWriter<W>, CodecError> {
        let Encryption::None = self.encryption;
        Ok(SealWriter {
            encoder: codec::encoder(self.codec, sink)?,
        })
    }

    /// The memory that a writer takes, in bytes, beside its sink.
    #[must_use]
    pub fn writer_bytes(&self) -> u64 {
        codec::encoder_bytes(self.codec)
    }

    /// Begins to read a stored object: its first bytes, by which it is recognised.
    ///
    /// # Errors
    /// Those of the source.
    pub fn reader<R: Read + Send + 'static>(&self, mut source: R) -> io::Result<SealReader<R>> {
        let Encryption::None = self.encryption;
        let mut head = Vec::with_capacity(codec::HEAD_BYTES);
        let mut beginning = (&mut source).take(codec::HEAD_BYTES as u64);
        beginning.read_to_end(&mut head)?;
        Ok(SealReader {
            codec: self.codec(),
            source: Cursor::new(head).chain(source),
        })
    }
}

/// Seals what is written to it. Only [`SealWriter::finish`] makes the object whole.
#[derive(Debug)]
pub struct SealWriter<W: Write> {
    encoder: Encoder<W>,
}

impl<W: Write> SealWriter<W> {
    /// Ends the object and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> io::Result<W> {
        self.encoder.finish()
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// A stored object whose beginning is known.
#[derive(Debug)]
pub struct SealReader<R> {
    codec: Codec,
    source: Chain<Cursor<Vec<u8>>, R>,
}

impl<R: Read + Send + 'static> SealReader<R> {
    /// Whether it may be another tool's, encrypted, in the place of `content`, by its first bytes: they look like noise. What
    /// begins as it should, be it damaged, like text or like nothing is none.
    #[must_use]
    pub fn may_be_encrypted(&self, content: Content) -> bool {
        codec::may_be_encrypted(self.codec, content, self.head())
    }

    /// The memory that its window takes while it is read, in bytes; 0 for codecs that have none, and where its beginning
    /// says nothing (reading it says then what is wrong).
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        codec::window_bytes(self.codec, self.head())
    }

    /// The plain content, if its window (of lzo, its two blocks) has at most `window_max` bytes. It ends only when the
    /// object was whole and undamaged, and nothing follows it.
    ///
    /// # Errors
    /// While reading: those of the source unchanged, `UnexpectedEof` for a truncated object, `InvalidData` for a damaged one or for bytes after its
    /// end, `Unsupported` for what is encrypted, `OutOfMemory` for a larger window.
    pub fn plain(self, window_max: u64) -> io::Result<Box<dyn Read + Send>> {
        codec::decoder_within(self.codec, self.source, window_max)
    }

    fn head(&self) -> &[u8] {
        self.source.get_ref().0.get_ref()
    }
}
