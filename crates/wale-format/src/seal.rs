//! The seal of an object: how plain content becomes the bytes that are stored, and plain content again.
//!
//! ```text
//! writing: plain → codec → cipher → stored
//! reading: stored → cipher → codec → plain
//! ```
//!
//! The codec is told by the object's name, the cipher by its first bytes ([`crypt`](crate::crypt)). Nothing outside of this file
//! knows the stages.
//!
//! Refuses to know: names of objects, where their bytes come from or go to, how much memory there is.

use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use crate::codec::{self, Codec, CodecError, CodecSettings, Content, Encoder, FrameStart};
use crate::crypt::{self, ContentDigest, CryptWriter, KeyRing, Locked, WriteKey};
use crate::encryption::Encryption;

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
#[derive(Clone, Debug)]
pub struct Seal {
    codec: CodecSettings,
    key: Arc<WriteKey>,
    ring: Arc<KeyRing>,
}

impl Seal {
    /// A seal of these stages, which reads with all keys of `ring`. What it writes it may not be able to read.
    #[must_use]
    pub fn new(codec: CodecSettings, key: WriteKey, ring: KeyRing) -> Self {
        Self {
            codec,
            key: Arc::new(key),
            ring: Arc::new(ring),
        }
    }

    /// A seal of this codec at its default level, without encryption.
    #[must_use]
    pub fn unencrypted(codec: Codec) -> Self {
        Self {
            codec: codec.into(),
            key: Arc::default(),
            ring: Arc::default(),
        }
    }

    /// The codec, which an object's name shows.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec.codec
    }

    /// What new objects are encrypted with.
    #[must_use]
    pub fn write_key(&self) -> &WriteKey {
        &self.key
    }

    /// The keys that objects are read with.
    #[must_use]
    pub fn key_ring(&self) -> &KeyRing {
        &self.ring
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

    /// The same seal at this level, where its codec has levels.
    #[must_use]
    pub fn at_level(&self, level: i32) -> Self {
        let mut seal = self.clone();
        if seal.codec() == Codec::Zstd {
            seal.codec.level = Some(level);
        }
        seal
    }

    /// The same seal without encryption.
    #[must_use]
    pub fn in_the_clear(&self) -> Self {
        Self {
            key: Arc::default(),
            ..self.clone()
        }
    }

    /// The same seal for one object that says this of its plain content, where its encryption can.
    #[must_use]
    pub fn with_content(&self, digest: ContentDigest) -> Self {
        Self {
            key: Arc::new(self.key.with_content(digest)),
            ..self.clone()
        }
    }

    /// What a stored object says of its plain content, without a key; nothing where it says nothing.
    ///
    /// # Errors
    /// Those of the source; `InvalidData` or `UnexpectedEof` when its encryption is damaged at its beginning.
    pub fn content_digest(source: impl Read) -> io::Result<Option<ContentDigest>> {
        crypt::age::content_digest(source)
    }

    /// Seals what is written to it, into `sink`. Write pieces of 64 KiB and more where possible.
    ///
    /// # Errors
    /// When the codec cannot be written, has no such level, or cannot be set up; those of the sink.
    pub fn writer<W: Write + Send + 'static>(&self, sink: W) -> Result<SealWriter<W>, CodecError> {
        let sink = self.key.writer(sink).map_err(|error| CodecError::SetUp {
            codec: self.codec(),
            reason: error.to_string(),
        })?;
        Ok(SealWriter {
            encoder: codec::encoder(self.codec, sink)?,
        })
    }

    /// As [`Seal::writer`], of a partition: zstd compresses it into several frames ([`SealWriter::begin_member`]), and
    /// [`SealReader::partition`] reads it.
    ///
    /// # Errors
    /// As [`Seal::writer`].
    pub fn partition_writer<W: Write + Send + 'static>(
        &self,
        sink: W,
    ) -> Result<SealWriter<W>, CodecError> {
        let sink = self.key.writer(sink).map_err(|error| CodecError::SetUp {
            codec: self.codec(),
            reason: error.to_string(),
        })?;
        Ok(SealWriter {
            encoder: codec::partition_encoder(self.codec, sink)?,
        })
    }

    /// The memory that a writer of a partition takes, in bytes, beside its sink.
    #[must_use]
    pub fn partition_writer_bytes(&self) -> u64 {
        codec::partition_encoder_bytes(self.codec) + self.key.writer_bytes()
    }

    /// The memory that a writer takes, in bytes, beside its sink.
    #[must_use]
    pub fn writer_bytes(&self) -> u64 {
        codec::encoder_bytes(self.codec) + self.key.writer_bytes()
    }

    /// Begins to read a stored object: its first bytes, by which it is recognised. One that no key opens is no error yet.
    ///
    /// # Errors
    /// Those of the source; `InvalidData` or `UnexpectedEof` when its encryption is damaged at its beginning.
    pub fn reader<R: Read + Send + 'static>(&self, source: R) -> io::Result<SealReader> {
        self.begin(source)
    }

    fn begin<R: Read + Send + 'static>(&self, source: R) -> io::Result<SealReader> {
        let (head, source) = beginning(source, self.ring.head_bytes())?;
        let recognised = self.ring.recognise(&head);
        let encryption = recognised.method();
        let opened = match self.ring.open(&recognised, Cursor::new(head).chain(source)) {
            Ok(opened) => beginning(opened, codec::HEAD_BYTES)?,
            Err(error) => match error.downcast::<Locked>() {
                Ok(locked) => {
                    return Ok(SealReader {
                        codec: self.codec(),
                        encryption,
                        content: Err(locked),
                        keys: Arc::clone(&self.ring),
                    });
                }
                Err(error) => return Err(error),
            },
        };
        Ok(SealReader {
            codec: self.codec(),
            encryption,
            content: Ok(opened),
            keys: Arc::clone(&self.ring),
        })
    }
}

/// How an object is encrypted, as its first bytes show it. None of its content is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEncryption {
    /// With what; nothing where its bytes do not show it, because no key of libsodium here opens it.
    pub method: Option<Encryption>,
    /// What names the keys that open it: ids of OpenPGP's, kinds of age's recipients, the fingerprint of the key of libsodium that
    /// opened it.
    pub keys: Vec<String>,
    /// Why no key here opens it; nothing where one does.
    pub locked: Option<Locked>,
}

/// First bytes of an object in which the names of keys are looked for: a message to eight RSA keys of 4,096 bits, an age file to
/// some hundred keys.
const SHOWN_BYTES: usize = 8 << 10;

/// The first bytes of a source, and the source without them.
fn beginning<R: Read>(mut source: R, bytes: usize) -> io::Result<(Vec<u8>, R)> {
    let mut head = Vec::with_capacity(bytes);
    (&mut source).take(bytes as u64).read_to_end(&mut head)?;
    Ok((head, source))
}

impl Seal {
    /// How a stored object is encrypted, where it holds such content; nothing where it is in the clear. Reads its beginning.
    ///
    /// # Errors
    /// As [`Seal::reader`].
    pub fn shown<R: Read + Send + 'static>(
        &self,
        source: R,
        content: Content,
    ) -> io::Result<Option<ShownEncryption>> {
        let (head, source) = beginning(source, SHOWN_BYTES)?;
        let keys = self.ring.recognise(&head).keys(&head);
        let reader = self.begin(Cursor::new(head).chain(source))?;
        let (method, locked) = (reader.encryption(), reader.locked(content));
        if method == Encryption::None && locked.is_none() {
            return Ok(None);
        }
        Ok(Some(ShownEncryption {
            method: (method != Encryption::None).then_some(method),
            keys,
            locked,
        }))
    }
}

/// Seals what is written to it. Only [`SealWriter::finish`] makes the object whole.
#[derive(Debug)]
pub struct SealWriter<W: Write> {
    encoder: Encoder<CryptWriter<W>>,
}

impl<W: Write> SealWriter<W> {
    /// Ends the object and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> io::Result<W> {
        self.encoder.finish()?.finish()
    }

    /// A member of so many bytes follows, header and padding counted: a frame ends before it where it does not fit any more.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn begin_member(&mut self, bytes: u64) -> io::Result<()> {
        self.encoder.begin_unit(bytes)
    }

    /// As [`SealWriter::finish`]; also gives where the frames begin, by what comes out of the codec: where the object is encrypted they
    /// lie elsewhere in it. None where there are no frames that can be decoded one by one.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish_frames(self) -> io::Result<(W, Vec<FrameStart>)> {
        let (sink, frames) = self.encoder.finish_frames()?;
        Ok((sink.finish()?, frames))
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
pub struct SealReader {
    codec: Codec,
    encryption: Encryption,
    /// What comes out of the cipher: its first bytes and the rest. Or why nothing does.
    content: Result<(Vec<u8>, Box<dyn Read + Send>), Locked>,
    keys: Arc<KeyRing>,
}

impl SealReader {
    /// The codec that its name shows.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// How it is encrypted, as far as its first bytes and the keys show it.
    #[must_use]
    pub const fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// Why it cannot be read with the keys that there are, in the place of `content`: it is known to be encrypted, or its first
    /// bytes look like noise. What begins as it should, be it damaged, like text or like nothing is not locked.
    #[must_use]
    pub fn locked(&self, content: Content) -> Option<Locked> {
        match &self.content {
            Err(locked) => Some(*locked),
            Ok((head, _)) if self.encryption == Encryption::None => {
                codec::may_be_encrypted(self.codec, content, head).then(|| self.keys.unknown())
            }
            Ok(_) => None,
        }
    }

    /// The memory that its window takes while it is read, in bytes; 0 for codecs that have none, and where its beginning
    /// says nothing (reading it says then what is wrong). What a cipher takes is less than 200 KiB and not in it.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        match &self.content {
            Ok((head, _)) => codec::window_bytes(self.codec, head),
            Err(_) => 0,
        }
    }

    /// The plain content, if its window (of lzo, its two blocks) has at most `window_max` bytes. It ends only when the
    /// object was whole and undamaged, and nothing follows it.
    ///
    /// # Errors
    /// Now and while reading: those of the source unchanged, `UnexpectedEof` for a truncated object, `InvalidData` for a damaged one
    /// or for bytes after its end, `Unsupported` for what is encrypted and not opened by any key ([`Locked`] within, where that is
    /// certain), `OutOfMemory` for a larger window.
    pub fn plain(self, window_max: u64) -> io::Result<Box<dyn Read + Send>> {
        let (head, rest) = self.content?;
        codec::decoder_within(self.codec, Cursor::new(head).chain(rest), window_max)
    }

    /// As [`SealReader::plain`], of what may be made of several frames. Its content must have an end of its own: that the object
    /// was cut between two of them shows nowhere else.
    ///
    /// # Errors
    /// As [`SealReader::plain`].
    pub fn partition(self, window_max: u64) -> io::Result<Box<dyn Read + Send>> {
        let (head, rest) = self.content?;
        codec::frames_decoder(self.codec, Cursor::new(head).chain(rest), window_max)
    }
}

impl std::fmt::Debug for SealReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealReader")
            .field("codec", &self.codec)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
