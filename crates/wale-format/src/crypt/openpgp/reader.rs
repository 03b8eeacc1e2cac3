//! Reading: any message that WAL-E's `gpg`, `GnuPG` to 2.4 and WAL-G write, as a stream.
//!
//! ```text
//! source → protected packet → cipher and check (rPGP) → [compressed packet → decompression →] literal packet → plain
//! ```
//!
//! Packets are ours ([`super::packet`]): rPGP's reader of messages takes more of the source than it needs, and does not say what
//! follows. Cipher and code are rPGP's stream: measured (examples/openpgp.rs) it does 1.5 GB/s of AES-256 where AES and SHA-1
//! alone do 1.7, and it knows every cipher that an old key asks for.
//!
//! Invariants:
//! * Each stage ends only where the one below has ended as well. So the plain text ends (`Ok(0)`) only when the code was right
//!   and the source had nothing more.
//! * What was cut is `UnexpectedEof`, what was changed `InvalidData`, what this does not read `Unsupported`; an error of the
//!   source passes unchanged. A failed reader stays failed.
//! * Plain bytes come before the code is checked: who reads them keeps them apart until the end, as a restore does anyway.

use std::io::{self, BufRead, BufReader, Read};

use pgp::composed::PlainSessionKey;
use pgp::crypto::aead::{self, AeadAlgorithm, ChunkSize};
use pgp::crypto::sym::{self, SymmetricKeyAlgorithm};
use pgp::packet::{GnupgAeadDataConfig, PacketHeader, PublicKeyEncryptedSessionKey};
use pgp::types::{PacketHeaderVersion, PacketLength, Seipdv1ReadMode, Tag};

use super::error::{KeyId, NoKey, cut, damaged, unsupported};
use super::head;
use super::keys::{Opened, SecretKeys};
use super::packet::{self, Body, Heading, Length, OnlyBody};

/// The buffer before the first stage.
pub(super) const SOURCE_BYTES: usize = 64 << 10;

/// The largest packet of a session key that is read: RSA of 16,384 bits needs 2 KiB.
const SESSION_KEY_MAX: u64 = 4 << 10;

/// How many session keys are looked at. Each costs an operation with a secret key where its recipient is hidden.
const SESSION_KEYS_MAX: usize = 1024;

/// The plain content of a message. It ends only when the message was whole and undamaged, and nothing follows it.
///
/// # Errors
/// `PermissionDenied` around a [`NoKey`] when none of the keys opens it. While reading, too: `UnexpectedEof` for a truncated
/// message, `InvalidData` for a damaged one or for bytes after its end, `Unsupported` for what is not read, and those of the
/// source unchanged.
pub fn reader<R: Read + Send + 'static>(
    keys: &SecretKeys,
    source: R,
) -> io::Result<Box<dyn Read + Send>> {
    let mut source = BufReader::with_capacity(SOURCE_BYTES, source);
    let (header, session_key) = session_key(keys, &mut source)?;
    let decrypted = decrypted(header, &session_key, OnlyBody::new(header, source))?;
    let literal = literal(Box::new(Decrypted(decrypted)))?;
    Ok(Box::new(LiteralContent {
        literal,
        failed: false,
    }))
}

/// The content in packets that are not encrypted, for fuzz targets: they cannot get at these through a cipher.
///
/// # Errors
/// As [`reader`].
pub fn content_of_packets<R: Read + Send + 'static>(source: R) -> io::Result<Box<dyn Read + Send>> {
    let literal = literal(Box::new(BufReader::new(source)))?;
    Ok(Box::new(LiteralContent {
        literal,
        failed: false,
    }))
}

/// Reads up to the encrypted packet, and opens the session key.
fn session_key<R: Read>(
    keys: &SecretKeys,
    source: &mut BufReader<R>,
) -> io::Result<(Heading, PlainSessionKey)> {
    let mut search = Search::default();
    for _ in 0..SESSION_KEYS_MAX {
        let header = Heading::read(source)?.ok_or_else(cut)?;
        match header.tag {
            packet::SESSION_KEY => search.try_keys(keys, &session_key_packet(header, source)?),
            packet::PASSPHRASE_KEY => {
                session_key_packet(header, source)?;
                search.missing.passphrase = true;
            }
            packet::MARKER | packet::PADDING => drop(session_key_packet(header, source)?),
            packet::PROTECTED | packet::GNUPG_OCB => return Ok((header, search.found(keys)?)),
            packet::UNPROTECTED => {
                return Err(unsupported(
                    "an OpenPGP message whose integrity cannot be checked",
                ));
            }
            _ => return Err(damaged("it is no encrypted message of OpenPGP")),
        }
    }
    Err(unsupported("an OpenPGP message with so many recipients"))
}

/// The body of a small packet.
fn session_key_packet<R: Read>(header: Heading, source: &mut BufReader<R>) -> io::Result<Vec<u8>> {
    match header.length {
        Length::Last(count) if count <= SESSION_KEY_MAX => {
            let mut bytes = Vec::new();
            Body::new(header, source).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        _ => Err(damaged("a session key of OpenPGP has not this length")),
    }
}

/// The search for the session key.
#[derive(Default)]
struct Search {
    found: Option<PlainSessionKey>,
    missing: NoKey,
    /// A key for which it was meant did not open it.
    refused: Option<KeyId>,
}

impl Search {
    fn try_keys(&mut self, keys: &SecretKeys, bytes: &[u8]) {
        if self.found.is_some() {
            return;
        }
        // What cannot be understood is for somebody else, or there is another one.
        let Some(session_key) = parse_session_key(bytes) else {
            self.missing.wanted.extend(head::recipient(bytes));
            return;
        };
        match keys.open(&session_key) {
            Opened::Yes(key) => self.found = Some(key),
            Opened::Refused(key) => self.refused = Some(key),
            Opened::NotOurs => self.missing.wanted.extend(head::recipient(bytes)),
        }
    }

    fn found(self, keys: &SecretKeys) -> io::Result<PlainSessionKey> {
        if let Some(found) = self.found {
            return Ok(found);
        }
        if let Some(key) = self.refused {
            let problem = format!("the session key for the OpenPGP key {key} is damaged");
            return Err(damaged(problem));
        }
        let mut missing = self.missing;
        missing.locked = keys.locked_among(&missing.wanted);
        Err(missing.into())
    }
}

/// Parses the body of a session key's packet.
fn parse_session_key(bytes: &[u8]) -> Option<PublicKeyEncryptedSessionKey> {
    let length = PacketLength::Fixed(u32::try_from(bytes.len()).ok()?);
    let tag = Tag::PublicKeyEncryptedSessionKey;
    let header = PacketHeader::from_parts(PacketHeaderVersion::New, tag, length).ok()?;
    PublicKeyEncryptedSessionKey::try_from_reader(header, bytes).ok()
}

/// The stage that decrypts and checks.
enum Stage<B: BufRead> {
    /// Cipher feedback, and a code at the end.
    Code(Box<sym::StreamDecryptor<B>>),
    /// Chunks with a tag each.
    Chunks(Box<aead::StreamDecryptor<B>>),
}

/// Begins to decrypt the body of the encrypted packet.
fn decrypted<B: BufRead>(
    header: Heading,
    session_key: &PlainSessionKey,
    mut body: B,
) -> io::Result<Stage<B>> {
    if header.tag == packet::GNUPG_OCB {
        let (_, key) = old_key(session_key)?;
        let config = GnupgAeadDataConfig::try_from_reader(&mut body).map_err(start_is_wrong)?;
        fits(config.sym_alg, key)?;
        let (mode, size) = (config.aead, config.chunk_size);
        return aead::StreamDecryptor::new_gnupg(config.sym_alg, mode, size, key, &config.iv, body)
            .map(|stage| Stage::Chunks(Box::new(stage)))
            .map_err(|_| unsupported("this kind of chunks in an OpenPGP message"));
    }
    match (packet::byte(&mut body)?, session_key) {
        (1, PlainSessionKey::V3_4 { .. }) => {
            let (algorithm, key) = old_key(session_key)?;
            fits(algorithm, key)?;
            algorithm
                .stream_decryptor_protected(Seipdv1ReadMode::Streaming, key, body)
                .map(|stage| Stage::Code(Box::new(stage)))
                .map_err(|_| unsupported(format!("an OpenPGP message in {algorithm:?}")))
        }
        (2, PlainSessionKey::V6 { key }) => {
            let mut start = [0; 3];
            packet::exact(&mut body, &mut start)?;
            let mut salt = [0; 32];
            packet::exact(&mut body, &mut salt)?;
            let algorithm = SymmetricKeyAlgorithm::from(start[0]);
            fits(algorithm, key.as_ref())?;
            let size = ChunkSize::try_from(start[2])
                .map_err(|_| unsupported("an OpenPGP message in chunks above 4 MiB"))?;
            let mode = AeadAlgorithm::from(start[1]);
            // rPGP 0.20 takes the length of a nonce for granted that no other mode has.
            if !matches!(
                mode,
                AeadAlgorithm::Eax | AeadAlgorithm::Ocb | AeadAlgorithm::Gcm
            ) {
                return Err(unsupported("this kind of chunks in an OpenPGP message"));
            }
            aead::StreamDecryptor::new_rfc9580(algorithm, mode, size, &salt, key.as_ref(), body)
                .map(|stage| Stage::Chunks(Box::new(stage)))
                .map_err(|_| unsupported("this kind of chunks in an OpenPGP message"))
        }
        (1 | 2, _) => Err(damaged(
            "the session key is of another version than the message",
        )),
        (version, _) => Err(unsupported(format!(
            "an OpenPGP message of version {version}"
        ))),
    }
}

/// The session key of a packet of version 3.
fn old_key(session_key: &PlainSessionKey) -> io::Result<(SymmetricKeyAlgorithm, &[u8])> {
    match session_key {
        PlainSessionKey::V3_4 { sym_alg, key } => Ok((*sym_alg, key.as_ref())),
        _ => Err(damaged(
            "the session key is of another version than the message",
        )),
    }
}

/// Refuses a key that is none of this cipher.
fn fits(algorithm: SymmetricKeyAlgorithm, key: &[u8]) -> io::Result<()> {
    match algorithm.key_size() {
        0 => Err(unsupported(format!("an OpenPGP message in {algorithm:?}"))),
        size if size == key.len() => Ok(()),
        _ => Err(damaged("the session key does not fit the message")),
    }
}

fn start_is_wrong(error: pgp::errors::Error) -> io::Error {
    match error {
        pgp::errors::Error::IO { source, .. } => source,
        _ => unsupported("this kind of chunks in an OpenPGP message"),
    }
}

/// Decrypted bytes, with the errors of the check in our words.
struct Decrypted<B: BufRead>(Stage<B>);

impl<B: BufRead> BufRead for Decrypted<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.0 {
            Stage::Code(stage) => stage.fill_buf().map_err(explain),
            Stage::Chunks(stage) => stage.fill_buf().map_err(explain),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.0 {
            Stage::Code(stage) => stage.consume(count),
            Stage::Chunks(stage) => stage.consume(count),
        }
    }
}

impl<B: BufRead> Read for Decrypted<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// rPGP's errors of a check are errors of the message; all others are the source's.
fn explain(error: io::Error) -> io::Error {
    let is_check = error
        .get_ref()
        .is_some_and(|inner| inner.is::<pgp::errors::Error>() || inner.is::<aead::Error>());
    if is_check {
        return damaged("the OpenPGP message was changed: the check of its integrity fails");
    }
    error
}

type Packets = Box<dyn BufRead + Send>;

/// The literal packet in the decrypted stream, in a compressed packet or not, behind its own header.
pub(super) fn literal(mut packets: Packets) -> io::Result<OnlyBody<Packets>> {
    let mut header = next(&mut packets)?;
    if header.tag == packet::COMPRESSED {
        packets = decompressed(OnlyBody::new(header, packets))?;
        header = next(&mut packets)?;
    }
    match header.tag {
        packet::LITERAL => {}
        packet::ONE_PASS_SIGNATURE | packet::SIGNATURE => {
            return Err(unsupported("a signed OpenPGP message"));
        }
        packet::COMPRESSED => {
            return Err(unsupported("an OpenPGP message that is compressed twice"));
        }
        _ => return Err(damaged("the OpenPGP message holds no content")),
    }
    let mut body = OnlyBody::new(header, packets);
    let mut start = [0; 2];
    packet::exact(&mut body, &mut start)?;
    // Text, too: WAL-G writes `u` before what is none, so no end of a line is ever converted.
    if !matches!(start[0], b'b' | b't' | b'u') {
        return Err(unsupported("this kind of content in an OpenPGP message"));
    }
    let mut name_and_date = vec![0; usize::from(start[1]) + 4];
    packet::exact(&mut body, &mut name_and_date)?;
    Ok(body)
}

/// The next header but markers.
fn next(packets: &mut Packets) -> io::Result<Heading> {
    loop {
        let header = Heading::read(packets)?;
        let header = header.ok_or_else(|| damaged("the OpenPGP message holds no content"))?;
        if !matches!(header.tag, packet::MARKER | packet::PADDING) {
            return Ok(header);
        }
        io::copy(&mut Body::new(header, &mut *packets), &mut io::sink())?;
    }
}

/// What the compressed packet holds. RFC 4880, 9.3.
fn decompressed(mut body: OnlyBody<Packets>) -> io::Result<Packets> {
    let algorithm = packet::byte(&mut body)?;
    Ok(match algorithm {
        0 => Box::new(body),
        1 => Box::new(BufReader::new(Unpacked::new(
            flate2::bufread::DeflateDecoder::new(body),
        ))),
        2 => Box::new(BufReader::new(Unpacked::new(
            flate2::bufread::ZlibDecoder::new(body),
        ))),
        3 => Box::new(BufReader::new(Unpacked::new(
            bzip2::bufread::BzDecoder::new(body),
        ))),
        other => {
            let what = format!("compression {other} in an OpenPGP message");
            return Err(unsupported(what));
        }
    })
}

/// A decompressor over a body.
trait Unpack: Read {
    /// What it reads.
    fn body(&mut self) -> &mut OnlyBody<Packets>;
}

impl Unpack for flate2::bufread::DeflateDecoder<OnlyBody<Packets>> {
    fn body(&mut self) -> &mut OnlyBody<Packets> {
        self.get_mut()
    }
}

impl Unpack for flate2::bufread::ZlibDecoder<OnlyBody<Packets>> {
    fn body(&mut self) -> &mut OnlyBody<Packets> {
        self.get_mut()
    }
}

impl Unpack for bzip2::bufread::BzDecoder<OnlyBody<Packets>> {
    fn body(&mut self) -> &mut OnlyBody<Packets> {
        self.get_mut()
    }
}

/// Decompressed bytes, which end only where the body has ended.
struct Unpacked<D>(D);

impl<D: Unpack> Unpacked<D> {
    fn new(decoder: D) -> Self {
        Self(decoder)
    }
}

impl<D: Unpack> Read for Unpacked<D> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let count = self.0.read(out).map_err(|error| {
            // The libraries say so without words, or in words of their own type.
            let is_theirs = error.kind() == io::ErrorKind::InvalidInput;
            if is_theirs {
                damaged("the compressed packet of the OpenPGP message is damaged")
            } else {
                error
            }
        })?;
        if count == 0 && !packet::at_end(self.0.body())? {
            return Err(damaged("the compressed packet is followed by other bytes"));
        }
        Ok(count)
    }
}

/// The content, and that a failure is for ever.
struct LiteralContent {
    literal: OnlyBody<Packets>,
    failed: bool,
}

impl Read for LiteralContent {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(damaged("the OpenPGP message has already failed"));
        }
        let read = self.literal.read(out);
        self.failed = read
            .as_ref()
            .is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}
