//! Writing: a binary message to every recipient, in pieces, as the bytes come.
//!
//! ```text
//! session key packet, version 3            one for each recipient
//! protected packet, version 1              in pieces of 64 KiB: AES in CFB mode over
//!     18 bytes                             16 of chance, the last two of them again
//!     literal packet `b`, no name, date 0  in pieces of 64 KiB
//!     modification detection code          SHA-1 of all plain bytes before
//! ```
//!
//! This is RFC 4880, sections 5.1, 5.9, 5.13 and 5.14, and what `gpg -e -z 0` (2.2) and WAL-G make. It is ours because rPGP's
//! builder wants to read its source, and here it is written to.
//!
//! Invariants: nothing is kept but one piece; a message that was not finished is a message without its end.

use std::io::{self, Write};

use aes::{Aes128, Aes192, Aes256};
use cfb_mode::Encryptor;
use cfb_mode::cipher::inout::InOutBuf;
use cfb_mode::cipher::{AsyncStreamCipher as _, BlockEncryptMut as _, KeyIvInit as _};
use pgp::composed::RawSessionKey;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use rand_core::OsRng;
use sha1::{Digest as _, Sha1};
use zeroize::Zeroizing;

use super::keys::PgpRecipients;
use super::packet;

/// A piece has 2 to the power of this many bytes: 64 KiB, of which its length is one byte.
const PIECE_BITS: u8 = 16;
const PIECE_BYTES: usize = 1 << PIECE_BITS;

/// Bytes that are hashed and then encrypted while they are in the processor's nearest cache: a fraction of its 32 KiB.
const STEP_BYTES: usize = 8 << 10;

/// The block of AES, in bytes.
const BLOCK_BYTES: usize = 16;

/// The version of the protected packet.
const VERSION: u8 = 1;

/// Of the literal packet: `b` for binary, no name, no date.
const LITERAL_START: [u8; 6] = [b'b', 0, 0, 0, 0, 0];

/// Tag and length of the modification detection code, both of which are part of what it checks.
const MDC_START: [u8; 2] = [0xd3, 0x14];

/// Room for one piece and what is left of the one before, which is less than another; 64 bytes are lengths and codes.
pub(super) const BUFFER_BYTES: usize = 2 * PIECE_BYTES + 64;

/// A message to these recipients, into `sink`. Write pieces of 64 KiB and more where possible.
///
/// # Errors
/// Those of the sink; `InvalidInput` without any recipient; `Other` when no random number is to be had or a recipient's key
/// cannot be used.
pub fn writer<W: Write>(recipients: &PgpRecipients, mut sink: W) -> io::Result<PgpWriter<W>> {
    let algorithm = recipients.cipher();
    let session_key = algorithm.new_session_key(OsRng);
    sink.write_all(&recipients.session_key_packets(&session_key, algorithm)?)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    buffer.push(VERSION);
    let mut writer = PgpWriter {
        sink,
        cipher: Cipher::new(algorithm, &session_key),
        hash: Sha1::new(),
        buffer: Zeroizing::new(buffer),
        hashed: VERSION_BYTES,
        sealed: VERSION_BYTES,
        piece: 0,
        begun: false,
    };
    writer.put_prefix()?;
    writer.buffer.push(packet::first_byte(packet::LITERAL));
    writer.begin_piece();
    writer.buffer.extend(LITERAL_START);
    Ok(writer)
}

/// The version is not encrypted.
const VERSION_BYTES: usize = 1;

/// Encrypts what is written to it. Only [`PgpWriter::finish`] makes the message whole.
pub struct PgpWriter<W> {
    sink: W,
    cipher: Cipher,
    /// Over all plain bytes.
    hash: Sha1,
    /// What the sink has not got yet: encrypted bytes, the length of a piece of the literal packet, and that piece in plain.
    buffer: Zeroizing<Vec<u8>>,
    /// How many bytes of the buffer are hashed.
    hashed: usize,
    /// How many of them are encrypted: those in whole blocks, until the end.
    sealed: usize,
    /// Where the piece begins, right behind its length of one byte.
    piece: usize,
    /// Whether the protected packet has its tag.
    begun: bool,
}

impl<W> std::fmt::Debug for PgpWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgpWriter").finish_non_exhaustive()
    }
}

impl<W: Write> PgpWriter<W> {
    /// Ends the message and gives the sink back, not flushed.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> io::Result<W> {
        let length = packet::last_length(self.buffer.len() - self.piece);
        self.buffer.splice(self.piece - 1..self.piece, length);
        self.buffer.extend(MDC_START);
        self.seal();
        let code: [u8; 20] = self.hash.finalize_reset().into();
        self.buffer.extend(code);
        self.hashed = self.buffer.len();
        let sealed = std::mem::replace(&mut self.sealed, self.hashed);
        self.cipher.clone().encrypt_rest(&mut self.buffer[sealed..]);
        self.put_pieces()?;
        let mut start = self.tag();
        start.extend(packet::last_length(self.buffer.len()));
        self.sink.write_all(&start)?;
        self.sink.write_all(&self.buffer)?;
        Ok(self.sink)
    }

    /// 16 random bytes and the last two of them again, by which a reader sees a wrong key early.
    fn put_prefix(&mut self) -> io::Result<()> {
        let mut chance = [0; BLOCK_BYTES];
        random(&mut chance)?;
        self.buffer.extend(chance);
        self.buffer.extend(&chance[BLOCK_BYTES - 2..]);
        Ok(())
    }

    /// Leaves room for the length of the next piece.
    fn begin_piece(&mut self) {
        self.buffer.push(packet::partial_length(PIECE_BITS));
        self.piece = self.buffer.len();
    }

    /// Hashes what is new, and encrypts whole blocks.
    fn seal(&mut self) {
        while self.hashed < self.buffer.len() {
            let end = self.buffer.len().min(self.hashed + STEP_BYTES);
            self.hash.update(&self.buffer[self.hashed..end]);
            self.hashed = end;
            self.sealed += self
                .cipher
                .encrypt_blocks(&mut self.buffer[self.sealed..end]);
        }
    }

    /// Gives the sink every whole piece of the protected packet behind which something follows.
    fn put_pieces(&mut self) -> io::Result<()> {
        let mut put = 0;
        while self.sealed - put > PIECE_BYTES {
            let mut start = self.tag();
            start.push(packet::partial_length(PIECE_BITS));
            self.sink.write_all(&start)?;
            self.sink.write_all(&self.buffer[put..put + PIECE_BYTES])?;
            put += PIECE_BYTES;
        }
        self.buffer.drain(..put);
        self.hashed -= put;
        self.sealed -= put;
        Ok(())
    }

    /// The tag of the protected packet, once.
    fn tag(&mut self) -> Vec<u8> {
        if self.begun {
            return Vec::new();
        }
        self.begun = true;
        vec![packet::first_byte(packet::PROTECTED)]
    }
}

impl<W: Write> Write for PgpWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() - self.piece == PIECE_BYTES {
            if bytes.is_empty() {
                return Ok(0);
            }
            self.seal();
            self.put_pieces()?;
            self.begin_piece();
        }
        let room = PIECE_BYTES - (self.buffer.len() - self.piece);
        let count = room.min(bytes.len());
        self.buffer.extend(&bytes[..count]);
        Ok(count)
    }

    /// What is not a whole piece stays: a piece of another length would end the message.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// AES in CFB mode, from an initial block of zeros.
#[derive(Clone)]
enum Cipher {
    Aes128(Encryptor<Aes128>),
    Aes192(Encryptor<Aes192>),
    Aes256(Encryptor<Aes256>),
}

impl Cipher {
    /// # Panics
    /// Where the key is not of the algorithm, which made it, or that is no AES.
    fn new(algorithm: SymmetricKeyAlgorithm, key: &RawSessionKey) -> Self {
        const FITS: &str = "the algorithm made the key";
        let (key, start) = (key.as_ref(), &[0; BLOCK_BYTES]);
        match algorithm {
            SymmetricKeyAlgorithm::AES128 => {
                Self::Aes128(Encryptor::new_from_slices(key, start).expect(FITS))
            }
            SymmetricKeyAlgorithm::AES192 => {
                Self::Aes192(Encryptor::new_from_slices(key, start).expect(FITS))
            }
            SymmetricKeyAlgorithm::AES256 => {
                Self::Aes256(Encryptor::new_from_slices(key, start).expect(FITS))
            }
            other => unreachable!("{other:?} is not written"),
        }
    }

    /// Encrypts whole blocks, and says how many bytes these have.
    fn encrypt_blocks(&mut self, bytes: &mut [u8]) -> usize {
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        let (blocks, _) = InOutBuf::from(&mut bytes[..whole]).into_chunks();
        match self {
            Self::Aes128(cipher) => cipher.encrypt_blocks_inout_mut(blocks),
            Self::Aes192(cipher) => cipher.encrypt_blocks_inout_mut(blocks),
            Self::Aes256(cipher) => cipher.encrypt_blocks_inout_mut(blocks),
        }
        whole
    }

    /// Encrypts the last bytes, however many they are.
    fn encrypt_rest(self, bytes: &mut [u8]) {
        match self {
            Self::Aes128(cipher) => cipher.encrypt(bytes),
            Self::Aes192(cipher) => cipher.encrypt(bytes),
            Self::Aes256(cipher) => cipher.encrypt(bytes),
        }
    }
}

/// Random bytes of the operating system.
fn random(out: &mut [u8]) -> io::Result<()> {
    use rand_core::RngCore as _;
    OsRng
        .try_fill_bytes(out)
        .map_err(|error| io::Error::other(format!("no random numbers: {error}")))
}
