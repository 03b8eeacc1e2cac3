//! Recognising what another tool encrypted, in the place of a stream or of plain bytes.
//!
//! No name shows it: WAL-E and WAL-G give what they encrypt the extension of its codec. An object that is encrypted is
//! a good one, so it must never be called damaged; and what is damaged is reported as such where that is certain.

use std::io;

use wale_pg::WalPageHeader;

/// First byte of an OpenPGP message that begins with a session key: packet tag 1 with one, two or four bytes of length,
/// or in the new format.
const OPENPGP: [u8; 4] = [0x84, 0x85, 0x86, 0xC1];

/// Bytes of an object by which it is recognised: the header of a tar has its mark within these.
pub(crate) const HEAD_BYTES: usize = 512;

/// Bytes in which noise is distinguished from text.
const NOISE_BYTES: usize = 24;

/// So many of them are printable in a damaged text, too. Of 24 random bytes 20 are so 6 times in a million: 98 of 256 bytes
/// are printable.
const TEXT_BYTES: usize = 20;

/// Where a tar has its mark.
const TAR_MARK: (usize, &[u8]) = (257, b"ustar");

/// What an object holds once its codec is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A WAL segment, or a partial one.
    Wal,
    /// The history of a timeline or of a backup.
    Text,
    /// A partition of a base backup.
    Tar,
}

/// Whether noise stands in the place of a stream that begins with `magic`. What begins almost so is damaged.
pub(super) fn in_place_of_stream(magic: &[u8], head: &[u8]) -> bool {
    !is_almost(magic, head) && is_noise(head)
}

/// Whether noise stands in the place of what is not compressed. What begins as it should, be it damaged, is none.
pub(super) fn in_place_of_plain(content: Content, head: &[u8]) -> bool {
    let begins_rightly = match content {
        Content::Wal => WalPageHeader::resembles(head),
        Content::Text => false,
        Content::Tar => {
            let mark = head.get(TAR_MARK.0..);
            mark.is_none_or(|rest| rest.starts_with(TAR_MARK.1))
        }
    };
    !begins_rightly && is_noise(head)
}

/// Whether a magic number has at least two bytes right.
fn is_almost(magic: &[u8], head: &[u8]) -> bool {
    let alike = magic.iter().zip(head).filter(|(one, other)| one == other);
    alike.count() >= 2
}

/// Whether the bytes are neither text nor one and the same.
pub(super) fn is_noise(head: &[u8]) -> bool {
    let Some(noise) = head.get(..NOISE_BYTES) else {
        return false;
    };
    let is_text = |byte: &&u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let is_constant = noise.iter().all(|byte| *byte == noise[0]);
    !is_constant && noise.iter().filter(is_text).count() < TEXT_BYTES
}

/// Refuses what does not begin with a frame's magic number, and says nothing about damage. Zeros are what a lost write
/// leaves: what is wrong with them the decoder says.
///
/// # Errors
/// `Unsupported`.
pub(super) fn refuse_stranger(magic: &[u8], head: &[u8]) -> io::Result<()> {
    let head = &head[..head.len().min(magic.len())];
    if magic.starts_with(head) || head.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(stranger(head[0]))
}

/// The error for what does not begin as a stream, by its first byte. It says nothing about damage.
pub(super) fn stranger(first: u8) -> io::Error {
    let what = if OPENPGP.contains(&first) {
        "it is encrypted with OpenPGP, which this version cannot decrypt"
    } else {
        "it does not begin as one, and may be encrypted"
    };
    io::Error::new(io::ErrorKind::Unsupported, what)
}
