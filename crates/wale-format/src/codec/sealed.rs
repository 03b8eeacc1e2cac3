//! Recognising what another tool encrypted, in the place of a stream or of plain bytes.
//!
//! No name tells: WAL-E and WAL-G give what they encrypt the extension of its codec. An object that is encrypted is a good
//! one, so it must never be called damaged; and what is damaged is told as such where that is certain.

use std::io;

use wale_pg::WalPageHeader;

use super::strict::FrameDecoder;
use super::{Codec, lz4, lzo, zstd_frame};

/// First byte of an OpenPGP message that begins with a session key: packet tag 1 with one, two or four bytes of length,
/// or in the new format.
const OPENPGP: [u8; 4] = [0x84, 0x85, 0x86, 0xC1];

/// Bytes of an object that [`may_be_encrypted`] wants to see: the header of a tar has its mark within these.
pub const SEALED_HEAD_BYTES: usize = 512;

/// Bytes in which noise is told from text.
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

/// Whether what stands in the place of a compressed stream, or of `content` where nothing is compressed, may be an encrypted
/// message, of OpenPGP or of libsodium, whose bytes look like noise. What begins as it should, be it damaged, like text or
/// like nothing is none. `head` are the first [`SEALED_HEAD_BYTES`], or all there are.
#[must_use]
pub fn may_be_encrypted(codec: Codec, content: Content, head: &[u8]) -> bool {
    if Codec::ALL
        .into_iter()
        .filter_map(magic)
        .any(|magic| head.starts_with(magic))
    {
        return false;
    }
    let begins_rightly = match (codec, content) {
        (Codec::None, Content::Wal) => WalPageHeader::resembles(head),
        (Codec::None, Content::Text) => false,
        (Codec::None, Content::Tar) => {
            let mark = head.get(TAR_MARK.0..);
            mark.is_none_or(|rest| rest.starts_with(TAR_MARK.1))
        }
        _ => match magic(codec) {
            Some(magic) => is_almost(magic, head),
            None => true,
        },
    };
    !begins_rightly && is_noise(head)
}

/// Whether a magic number has at least two bytes right.
fn is_almost(magic: &[u8], head: &[u8]) -> bool {
    let alike = magic.iter().zip(head).filter(|(one, other)| one == other);
    alike.count() >= 2
}

fn is_noise(head: &[u8]) -> bool {
    let Some(noise) = head.get(..NOISE_BYTES) else {
        return false;
    };
    let is_text = |byte: &&u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let is_constant = noise.iter().all(|byte| *byte == noise[0]);
    !is_constant && noise.iter().filter(is_text).count() < TEXT_BYTES
}

/// How the streams begin that have a beginning of their own.
const fn magic(codec: Codec) -> Option<&'static [u8]> {
    match codec {
        Codec::Zstd => Some(zstd_frame::ZstdFrame::MAGIC),
        Codec::Lz4 => Some(lz4::Lz4Frame::MAGIC),
        Codec::Lzo => Some(lzo::LzopFrame::MAGIC),
        Codec::None | Codec::Brotli | Codec::Lzma => None,
    }
}

/// Refuses what does not begin with a frame's magic number, without a word about damage. Zeros are what a lost write leaves:
/// what is wrong with them the decoder says.
///
/// # Errors
/// `Unsupported`.
pub(super) fn refuse_stranger(magic: &[u8], head: &[u8]) -> io::Result<()> {
    let head = &head[..head.len().min(magic.len())];
    if magic.starts_with(head) || head.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let what = if OPENPGP.contains(&head[0]) {
        "it is encrypted with OpenPGP, which this version cannot decrypt"
    } else {
        "it does not begin as one, and may be encrypted"
    };
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a segment of WAL-G's that libsodium encrypted.
    const SODIUM: [u8; 26] = [
        0x64, 0x99, 0xd6, 0x86, 0x07, 0xf1, 0x8a, 0x04, 0xb9, 0xb1, 0x55, 0x2b, 0x2f, 0x0b, 0xd6,
        0x14, 0xbc, 0x61, 0x64, 0xdd, 0xe3, 0x14, 0x66, 0xbc, 0xc1, 0x88,
    ];

    #[test]
    fn fault_118_noise_may_be_encrypted_and_a_damaged_stream_is_not() {
        for codec in [Codec::Zstd, Codec::Lz4, Codec::Lzo] {
            let sealed = |head: &[u8]| may_be_encrypted(codec, Content::Wal, head);
            assert!(sealed(&SODIUM), "{codec}");
            assert!(!sealed(&SODIUM[..20]), "{codec}");
            assert!(!sealed(&[0; 64]), "{codec}");
            assert!(!sealed(&[b'x'; 64]), "{codec}");
            let page = b"<html><body>What you wanted</body></html>";
            assert!(!sealed(page), "{codec}");
        }
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD];
        frame.extend_from_slice(&SODIUM);
        let sealed = |codec, head: &[u8]| may_be_encrypted(codec, Content::Tar, head);
        assert!(!sealed(Codec::Zstd, &frame));
        assert!(!sealed(Codec::Lz4, &frame), "another codec's");
        frame[0] ^= 1;
        assert!(!sealed(Codec::Zstd, &frame), "a flipped bit");
        let mut tar = [7u8; 512];
        tar[0] = 8;
        assert!(sealed(Codec::None, &tar));
        tar[257..262].copy_from_slice(b"ustar");
        assert!(!sealed(Codec::None, &tar));
        assert!(!sealed(Codec::None, b"tar"));
    }

    #[test]
    fn fault_118_plain_wal_and_text_are_told_from_noise_be_they_damaged() {
        let sealed = |content, head: &[u8]| may_be_encrypted(Codec::None, content, head);
        let noise: Vec<u8> = SODIUM.iter().chain(&SODIUM).copied().collect();
        assert!(sealed(Content::Wal, &noise));
        assert!(sealed(Content::Text, &noise));
        let history = b"1\t0/5000098\tno recovery target specified\n";
        assert!(!sealed(Content::Text, history));
        let mut flipped = history.to_vec();
        flipped[3] ^= 0x80;
        assert!(!sealed(Content::Text, &flipped));
        for content in [Content::Wal, Content::Text] {
            assert!(!sealed(content, &[0; 64]), "a lost write");
            assert!(!sealed(content, b""));
        }
    }
}
