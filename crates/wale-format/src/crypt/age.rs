//! The age format, version 1 (<https://age-encryption.org/v1>), binary: to public keys of age (X25519) and of OpenSSH (Ed25519,
//! RSA), read with the identities of a file.
//!
//! Whoever writes needs no secret: a host that has only recipients cannot read what it wrote.
//!
//! A writer may put a digest of the content into the header, in a stanza of its own that the format tells every program to leave
//! alone. It is readable without a key, and the header's MAC covers it.
//!
//! Invariants of a reader: the header has a bound; no byte is given out whose MAC did not match; it ends only after the final
//! chunk with nothing behind it; a failure stays.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Write};

use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, Identity, IdentityFile, ssh, x25519};
use age_core::format::{FileKey, Stanza};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use super::content_digest::ContentDigest;
use super::locked::Locked;
use crate::Encryption;

/// What every file begins with. Later versions of the format begin with the same and another number.
const MAGIC: &[u8] = b"age-encryption.org/";

/// What follows in the first line of this version.
const VERSION: &[u8] = b"v1";

/// First bytes of an object that show whether it is a file of age.
pub(super) const HEAD_BYTES: usize = MAGIC.len();

/// What a secret key of age begins with, which somebody may give in the place of a recipient.
const SECRET: &str = "AGE-SECRET-KEY-";

/// A header of more bytes is refused. A recipient takes 100 to 800, so some hundred fit.
const HEADER_MAX: u64 = 64 << 10;

/// Bytes of a source that are read at once while its header is read.
const BUFFER_BYTES: usize = 4 << 10;

/// Memory of a writer or a reader beside its sink or source: a plain chunk of 64 KiB, a sealed one, and the header.
pub(super) const MEMORY_BYTES: u64 = (3 * 64) << 10;

/// The tag of the stanza that holds the digest of the content; the body is the digest.
const CONTENT_TAG: &str = "wale-content-v1";

/// Public keys to which objects are encrypted: each of their owners can read.
#[derive(Clone)]
pub struct Recipients {
    keys: Vec<Recipient>,
    /// What the header says of the content.
    content: Option<ContentDigest>,
}

#[derive(Clone)]
enum Recipient {
    X25519(x25519::Recipient),
    Ssh(ssh::Recipient),
}

/// Why a text holds no keys. It holds nothing of the text, which may be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgeKeyError {
    /// There is no key at all.
    #[error("there is no key in it")]
    None,
    /// A secret key stands where a public one should.
    #[error("key {number} is a secret one, and a recipient is public")]
    Secret {
        /// Which key, from 1 on.
        number: usize,
    },
    /// A key that cannot be used.
    #[error("key {number} {reason}")]
    Unusable {
        /// Which key, from 1 on.
        number: usize,
        /// Why, in words that follow it.
        reason: &'static str,
    },
    /// A file that holds something else than identities.
    #[error("{0}")]
    Identities(&'static str),
    /// A line that is no identity.
    #[error("line {number} is no identity of age")]
    Line {
        /// Which line, from 1 on.
        number: usize,
    },
}

impl Recipients {
    /// The keys of a text, separated by commas or ends of lines; `#` begins a line that is none.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be used.
    pub fn parse(text: &str) -> Result<Self, AgeKeyError> {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let keys = lines.flat_map(|line| line.split(',')).map(str::trim);
        let keys: Vec<Recipient> = (1..)
            .zip(keys.filter(|key| !key.is_empty()))
            .map(|(number, key)| Recipient::parse(key, number))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(AgeKeyError::None);
        }
        Ok(Self {
            keys,
            content: None,
        })
    }

    /// The same keys for one file, whose header says this of its content.
    #[must_use]
    pub fn with_content(&self, digest: ContentDigest) -> Self {
        Self {
            content: Some(digest),
            ..self.clone()
        }
    }

    /// What the archive says of the keys, sorted: a key of age as it is, since it is public, and of OpenSSH's the fingerprint that
    /// `ssh-keygen -l` prints.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        let mut all: Vec<String> = self.keys.iter().map(Recipient::fingerprint).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Recipient {
    fn parse(key: &str, number: usize) -> Result<Self, AgeKeyError> {
        use ssh::ParseRecipientKeyError as Bad;
        let unusable = |reason| AgeKeyError::Unusable { number, reason };
        if key.starts_with(SECRET) {
            return Err(AgeKeyError::Secret { number });
        }
        if key.starts_with("age1") {
            let parsed = key.parse().map(Self::X25519);
            return parsed.map_err(|_| unusable("is no public key of age (X25519), which has 62 characters; keys of plugins are not supported"));
        }
        if !key.starts_with("ssh-") {
            return Err(unusable(
                "is neither a public key of age (age1…) nor of OpenSSH (ssh-ed25519 or ssh-rsa …)",
            ));
        }
        key.parse().map(Self::Ssh).map_err(|bad| match bad {
            Bad::RsaModulusTooLarge => unusable("is an RSA key with more than 4096 bits"),
            Bad::RsaModulusTooSmall => unusable("is an RSA key with less than 2048 bits"),
            Bad::Unsupported(_) => unusable("is of another kind than ssh-ed25519 and ssh-rsa"),
            _ => unusable("is no public key of OpenSSH"),
        })
    }

    fn as_dyn(&self) -> &dyn age::Recipient {
        match self {
            Self::X25519(key) => key,
            Self::Ssh(key) => key,
        }
    }

    fn fingerprint(&self) -> String {
        match self {
            Self::X25519(key) => key.to_string(),
            Self::Ssh(key) => {
                let text = key.to_string();
                let blob = text
                    .split(' ')
                    .nth(1)
                    .and_then(|blob| STANDARD.decode(blob).ok());
                let digest = Sha256::digest(blob.unwrap_or_default());
                format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
            }
        }
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

/// Secret keys, with which objects are read.
pub struct Identities(Vec<Box<dyn Identity + Send + Sync>>);

impl Identities {
    /// The keys of a file: one or several identities of age with comments, or one private key of OpenSSH without a
    /// passphrase.
    ///
    /// # Errors
    /// When there is none, or one of them cannot be used.
    pub fn parse(text: &str) -> Result<Self, AgeKeyError> {
        let text = text.trim_start();
        if text.starts_with("-----BEGIN AGE ENCRYPTED FILE") || text.starts_with("age-encryption") {
            return Err(AgeKeyError::Identities(
                "the identities are protected by a passphrase, and nobody is here to be asked for it",
            ));
        }
        if text.starts_with("-----BEGIN") {
            return Self::of_openssh(text);
        }
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Box<dyn Identity + Send + Sync>> = lines
            .map(|(number, line)| {
                let file = IdentityFile::from_buffer(line.as_bytes()).ok();
                let keys = file.and_then(|file| file.into_identities().ok());
                keys.ok_or(AgeKeyError::Line { number })
            })
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        if keys.is_empty() {
            return Err(AgeKeyError::None);
        }
        Ok(Self(keys))
    }

    fn of_openssh(text: &str) -> Result<Self, AgeKeyError> {
        match ssh::Identity::from_buffer(text.as_bytes(), None) {
            Ok(key @ ssh::Identity::Unencrypted(_)) => Ok(Self(vec![Box::new(key)])),
            Ok(ssh::Identity::Encrypted(_)) => Err(AgeKeyError::Identities(
                "the private key of OpenSSH is protected by a passphrase, and nobody is here to be asked for it",
            )),
            Ok(ssh::Identity::Unsupported(_)) => Err(AgeKeyError::Identities(
                "the private key of OpenSSH is of another kind than Ed25519 and RSA",
            )),
            Err(_) => Err(AgeKeyError::Identities("it is no private key of OpenSSH")),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// Whether an object begins as a file of age does.
pub(super) fn is_begun(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Encrypts what is written to it into `W`. Only [`AgeWriter::finish`] makes the file whole.
pub struct AgeWriter<W: Write>(StreamWriter<W>);

/// Opens a file that goes into `sink`. Its header is written at once.
///
/// # Errors
/// Those of the sink.
pub fn writer<W: Write>(recipients: &Recipients, sink: W) -> io::Result<AgeWriter<W>> {
    let keys = recipients.keys.iter().map(Recipient::as_dyn);
    let content = recipients
        .content
        .iter()
        .map(|one| one as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(keys.chain(content)).map_err(io::Error::other)?;
    encryptor.wrap_output(sink).map(AgeWriter)
}

/// Not a recipient, which gets no key: a stanza of the header.
impl age::Recipient for ContentDigest {
    fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let stanza = Stanza {
            tag: CONTENT_TAG.to_owned(),
            args: Vec::new(),
            body: self.as_bytes().to_vec(),
        };
        Ok((vec![stanza], HashSet::new()))
    }
}

/// Stanzas of a header that are told, at most: who needs more reads `wale.json`.
const STANZAS_TOLD: usize = 16;

/// What the header of a file says of its content, without a key. Nothing where the object is no file of this version, or
/// says nothing, or several things.
///
/// # Errors
/// Those of the source; `InvalidData` or `UnexpectedEof` for a header that does not end.
pub(crate) fn content_digest(source: impl Read) -> io::Result<Option<ContentDigest>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let mut begun = Vec::new();
    (&mut source)
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut begun)?;
    if !is_begun(&begun) {
        return Ok(None);
    }
    let header = header(&mut source)?;
    let mut lines = header.split(|byte| *byte == b'\n');
    if lines.next() != Some(VERSION) {
        return Ok(None);
    }
    let tag = format!("-> {CONTENT_TAG}");
    let mut found = None;
    while let Some(line) = lines.next() {
        if line != tag.as_bytes() {
            continue;
        }
        // 32 bytes are 43 characters: one line, which is short and so the last one.
        let body = lines
            .next()
            .and_then(|body| STANDARD_NO_PAD.decode(body).ok());
        let Some(digest) = body.and_then(|body| body.try_into().ok()) else {
            return Ok(None);
        };
        if found.replace(ContentDigest::new(digest)).is_some() {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Who can open a file, as far as its first bytes show it: the kind of each stanza of the header, and what it says of its key.
/// X25519 says nothing; OpenSSH's keys have the beginning of a digest, which is the same for the same key. At most
/// [`STANZAS_TOLD`].
pub(super) fn recipients_of(head: &[u8]) -> Vec<String> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let header = lines.take_while(|line| !line.starts_with(b"---"));
    let stanzas = header.filter_map(|line| line.strip_prefix(b"-> "));
    let words = stanzas.filter_map(|stanza| {
        let stanza = std::str::from_utf8(stanza).ok()?;
        let mut words = stanza.split(' ');
        let (tag, argument) = (words.next()?, words.next());
        let is_word = |word: &&str| {
            (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
        };
        // Noise, so that no reader gets used to what it knows.
        let is_grease = tag.ends_with("-grease");
        if !is_word(&tag) || tag == CONTENT_TAG || is_grease {
            return None;
        }
        let names_key = tag.starts_with("ssh-");
        Some(match argument.filter(is_word).filter(|_| names_key) {
            Some(argument) => format!("{tag} {argument}"),
            None => tag.to_owned(),
        })
    });
    words.take(STANZAS_TOLD).collect()
}

impl<W: Write> AgeWriter<W> {
    /// Writes the last chunk and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for AgeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> fmt::Debug for AgeWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgeWriter").finish_non_exhaustive()
    }
}

/// Decrypts a file.
pub struct AgeReader<R: Read> {
    stream: StreamReader<Chain<Cursor<Vec<u8>>, BufReader<R>>>,
    has_failed: bool,
}

/// Reads the header of a file and opens it with the first of `identities` that can.
///
/// # Errors
/// Those of the source; [`Locked`] within `Unsupported` where no identity opens it; `InvalidData` or `UnexpectedEof` for a header
/// that is damaged.
pub fn reader<'a, R: Read>(
    identities: impl Iterator<Item = &'a Identities>,
    source: R,
) -> io::Result<AgeReader<R>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let header = header(&mut source)?;
    let decryptor =
        Decryptor::new_buffered(Cursor::new(header).chain(source)).map_err(explained)?;
    let keys = identities.flat_map(|file| &file.0);
    let keys = keys.map(|key| &**key as &dyn Identity);
    let stream = decryptor.decrypt(keys).map_err(explained)?;
    Ok(AgeReader {
        stream,
        has_failed: false,
    })
}

/// The header, and nothing behind it: its lines up to the one that begins with three dashes.
fn header(source: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut source = source.take(HEADER_MAX);
    loop {
        let begins = header.len();
        source.read_until(b'\n', &mut header)?;
        if header.last() != Some(&b'\n') || header.len() == begins {
            let is_long = header.len() as u64 >= HEADER_MAX;
            return Err(if is_long {
                damaged("its header does not end")
            } else {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "age file is truncated in its header",
                )
            });
        }
        if header[begins..].starts_with(b"---") {
            return Ok(header);
        }
    }
}

fn explained(error: DecryptError) -> io::Error {
    match error {
        DecryptError::Io(error) => error,
        DecryptError::NoMatchingKeys => Locked {
            method: Some(Encryption::Age),
            has_key: true,
        }
        .into(),
        DecryptError::UnknownFormat => io::Error::new(
            io::ErrorKind::Unsupported,
            "it is encrypted with a version of age that this version does not know",
        ),
        _ => damaged("its header is not what was written"),
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("age file is damaged: {what}"),
    )
}

impl<R: Read> Read for AgeReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.has_failed {
            return Err(damaged("it has already failed"));
        }
        // The crate ends without an error when it is asked once more after one.
        self.stream
            .read(out)
            .inspect_err(|_| self.has_failed = true)
    }
}

impl<R: Read> fmt::Debug for AgeReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgeReader").finish_non_exhaustive()
    }
}
