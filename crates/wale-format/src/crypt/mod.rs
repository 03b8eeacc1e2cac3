//! Encryption, the outer stage of a [`Seal`](crate::Seal): what new objects are encrypted with, and all keys that old ones can be
//! read with.
//!
//! ```text
//! writing: compressed → WriteKey::writer → stored
//! reading: stored → KeyRing::open → compressed
//! ```
//!
//! An object is recognised by its own first bytes, never by what is configured: an archive may hold objects in the clear beside
//! encrypted ones, and objects of several keys. age begins with a line of text, OpenPGP with a packet for a key. libsodium's stream begins with nothing but
//! noise: whether a key opens it, the MAC of the first chunk decides.
//!
//! Refuses to know: names of objects, compression, settings, files.
//!
//! | method | writer and reader, each | what the database host needs |
//! |---|---|---|
//! | [`libsodium`] | 32 KiB | the one key, which also reads |
//! | [`age`] | 192 KiB | public keys, which do not read |
//! | [`openpgp`] | 129 KiB to write, 80 KiB to read what WAL-E, WAL-G and wale write | public keys, which do not read |

pub mod age;
mod content_digest;
pub mod libsodium;
mod locked;
pub mod openpgp;

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

pub use content_digest::ContentDigest;
pub use locked::Locked;

use crate::Encryption;

/// What new objects are encrypted with.
#[derive(Clone, Debug, Default)]
pub enum WriteKey {
    /// Nothing: they are stored in the clear.
    #[default]
    None,
    /// WAL-G's secret stream.
    Libsodium(libsodium::Key),
    /// age, to these recipients.
    Age(age::Recipients),
    /// OpenPGP, to these recipients.
    OpenPgp(openpgp::PgpRecipients),
}

impl WriteKey {
    /// The method.
    #[must_use]
    pub const fn method(&self) -> Encryption {
        match self {
            Self::None => Encryption::None,
            Self::Libsodium(_) => Encryption::Libsodium,
            Self::Age(_) => Encryption::Age,
            Self::OpenPgp(_) => Encryption::OpenPgp,
        }
    }

    /// What the archive records of the keys, sorted. Nothing of a secret can be told from it.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Libsodium(key) => vec![key.fingerprint()],
            Self::Age(recipients) => recipients.fingerprints(),
            Self::OpenPgp(recipients) => recipients.fingerprints(),
        }
    }

    /// Whether what is written with it can be read with it: a key that both sides share, or none.
    #[must_use]
    pub const fn opens_itself(&self) -> bool {
        match self {
            Self::None | Self::Libsodium(_) => true,
            Self::Age(_) | Self::OpenPgp(_) => false,
        }
    }

    /// Whether an object can say of its content what somebody without a key can compare.
    #[must_use]
    pub const fn notes_content(&self) -> bool {
        matches!(self, Self::Age(_))
    }

    /// The same key for one object that says this of its content, where its method can.
    pub(crate) fn with_content(&self, digest: ContentDigest) -> Self {
        match self {
            Self::Age(recipients) => Self::Age(recipients.with_content(digest)),
            other => other.clone(),
        }
    }

    /// A word for method and keys together, to be typed by a person: the method, and 8 digits that are others for other keys.
    #[must_use]
    pub fn word(&self) -> String {
        self.method().word(&self.fingerprints())
    }

    /// Encrypts what is written to it, into `sink`.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn writer<W: Write>(&self, sink: W) -> io::Result<CryptWriter<W>> {
        Ok(match self {
            Self::None => CryptWriter::Clear(sink),
            Self::Libsodium(key) => CryptWriter::Libsodium(Box::new(libsodium::writer(key, sink)?)),
            Self::Age(recipients) => CryptWriter::Age(Box::new(age::writer(recipients, sink)?)),
            Self::OpenPgp(recipients) => {
                CryptWriter::OpenPgp(Box::new(openpgp::writer(recipients, sink)?))
            }
        })
    }

    /// The memory that a writer takes, in bytes, beside its sink.
    pub(crate) const fn writer_bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Libsodium(_) => libsodium::MEMORY_BYTES,
            Self::Age(_) => age::MEMORY_BYTES,
            Self::OpenPgp(_) => openpgp::WRITER_BYTES,
        }
    }
}

/// Encrypts what is written to it. Only [`CryptWriter::finish`] makes the object whole.
pub(crate) enum CryptWriter<W: Write> {
    Clear(W),
    Libsodium(Box<libsodium::SodiumWriter<W>>),
    Age(Box<age::AgeWriter<W>>),
    OpenPgp(Box<openpgp::PgpWriter<W>>),
}

impl<W: Write> CryptWriter<W> {
    /// Ends the object and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Clear(sink) => Ok(sink),
            Self::Libsodium(writer) => writer.finish(),
            Self::Age(writer) => writer.finish(),
            Self::OpenPgp(writer) => writer.finish(),
        }
    }
}

impl<W: Write> Write for CryptWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(sink) => sink.write(bytes),
            Self::Libsodium(writer) => writer.write(bytes),
            Self::Age(writer) => writer.write(bytes),
            Self::OpenPgp(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(sink) => sink.flush(),
            Self::Libsodium(writer) => writer.flush(),
            Self::Age(writer) => writer.flush(),
            Self::OpenPgp(writer) => writer.flush(),
        }
    }
}

/// All keys that objects can be read with; clones share them.
#[derive(Clone, Default)]
pub struct KeyRing {
    libsodium: Vec<libsodium::Key>,
    age: Vec<Arc<age::Identities>>,
    openpgp: Option<openpgp::SecretKeys>,
}

impl KeyRing {
    /// Adds a key of libsodium.
    pub fn add_libsodium(&mut self, key: libsodium::Key) {
        if !self.libsodium.contains(&key) {
            self.libsodium.push(key);
        }
    }

    /// Adds identities of age.
    pub fn add_age(&mut self, identities: age::Identities) {
        self.age.push(Arc::new(identities));
    }

    /// Adds secret keys of OpenPGP.
    pub fn add_openpgp(&mut self, keys: openpgp::SecretKeys) {
        self.openpgp = Some(match self.openpgp.take() {
            Some(others) => others.and(keys),
            None => keys,
        });
    }

    /// Whether there is a key for objects of that method.
    #[must_use]
    pub fn has_key(&self, method: Encryption) -> bool {
        match method {
            Encryption::None => true,
            Encryption::Libsodium => !self.libsodium.is_empty(),
            Encryption::Age => !self.age.is_empty(),
            Encryption::OpenPgp => self.openpgp.is_some(),
        }
    }

    /// What is said of an object that looks like noise, and that no key opens.
    pub(crate) fn unknown(&self) -> Locked {
        Locked {
            method: None,
            has_key: !self.libsodium.is_empty(),
        }
    }

    /// First bytes of an object that must be seen to recognise it.
    pub(crate) fn head_bytes(&self) -> usize {
        let named = age::HEAD_BYTES.max(openpgp::HEAD_BYTES);
        if self.libsodium.is_empty() {
            named
        } else {
            named.max(libsodium::HEAD_BYTES)
        }
    }

    /// How an object is encrypted, by its first [`KeyRing::head_bytes`], or all there are.
    pub(crate) fn recognise(&self, head: &[u8]) -> Recognised<'_> {
        if age::is_begun(head) {
            return Recognised::Age;
        }
        // Before anything else that is told by a few bytes: the header of a secret stream is noise, and may begin like anything.
        match self.libsodium.iter().find(|key| key.opens(head)) {
            Some(key) => Recognised::Libsodium(key),
            None if openpgp::looks_like(head) => Recognised::OpenPgp,
            None => Recognised::Clear,
        }
    }

    /// Decrypts an object that was recognised.
    ///
    /// # Errors
    /// Those of the source; [`Locked`] within `Unsupported` where no key opens it; `InvalidData` or `UnexpectedEof` for a header that is
    /// damaged.
    pub(crate) fn open<R: Read + Send + 'static>(
        &self,
        recognised: &Recognised<'_>,
        source: R,
    ) -> io::Result<Box<dyn Read + Send>> {
        Ok(match recognised {
            Recognised::Clear => Box::new(source),
            Recognised::Libsodium(key) => Box::new(libsodium::reader(key, source)?),
            Recognised::Age if self.age.is_empty() => {
                return Err(Locked {
                    method: Some(Encryption::Age),
                    has_key: false,
                }
                .into());
            }
            Recognised::Age => Box::new(age::reader(self.age.iter().map(|file| &**file), source)?),
            Recognised::OpenPgp => {
                let locked = |has_key| Locked {
                    method: Some(Encryption::OpenPgp),
                    has_key,
                };
                let Some(keys) = &self.openpgp else {
                    return Err(locked(false).into());
                };
                openpgp::reader(keys, source).map_err(|error| {
                    match error.downcast::<openpgp::NoKey>() {
                        Ok(_) => locked(true).into(),
                        Err(error) => error,
                    }
                })?
            }
        })
    }
}

/// Only how many: the keys are secret.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("libsodium", &self.libsodium.len())
            .field("age", &self.age.len())
            .field("openpgp", &self.openpgp.is_some())
            .finish()
    }
}

/// How an object is encrypted.
pub(crate) enum Recognised<'a> {
    /// Not at all, or with something that no key here opens and that shows nothing of itself.
    Clear,
    /// With this key.
    Libsodium(&'a libsodium::Key),
    /// With age, to whomever.
    Age,
    /// With OpenPGP, to whomever.
    OpenPgp,
}

impl Recognised<'_> {
    pub(crate) const fn method(&self) -> Encryption {
        match self {
            Self::Clear => Encryption::None,
            Self::Libsodium(_) => Encryption::Libsodium,
            Self::Age => Encryption::Age,
            Self::OpenPgp => Encryption::OpenPgp,
        }
    }

    /// What names the keys that open the object, as far as it can be told without opening it. `head` are its first bytes, the more
    /// the better.
    pub(crate) fn keys(&self, head: &[u8]) -> Vec<String> {
        match self {
            Self::Clear => Vec::new(),
            Self::Libsodium(key) => vec![key.fingerprint()],
            Self::Age => age::recipients_of(head),
            Self::OpenPgp => {
                let keys = openpgp::recipients_of(head);
                keys.iter().map(ToString::to_string).collect()
            }
        }
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod program_tests;
#[cfg(test)]
mod tests;
