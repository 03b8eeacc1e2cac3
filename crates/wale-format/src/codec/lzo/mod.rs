//! LZO: one lzop stream, the only thing that WAL-E writes and reads.
//!
//! Refuses to know: which block size, method or library a stream was made with. BusyBox and three generations of lzop
//! fill these fields differently, and all of their streams decode alike.
//!
//! Sources followed: the streams that lzop 1.04 and BusyBox 1.35 write and accept; the Linux kernel's
//! `Documentation/staging/lzo.rst` for the data of a block. All numbers are big-endian.
//!
//! ```text
//! stream = 89 4C 5A 4F 00 0D 0A 1A 0A, header, block*, 00 00 00 00
//! header = version 2, library version 2, [version needed 2], method 1, [level 1], flags 4, [filter 4],
//!          mode 4, mtime 4, [mtime high 4], name length 1, name, checksum 4 (of all this), [extra field]
//! block  = plain length 4, stored length 4, [Adler-32 of plain 4], [CRC-32 of plain 4],
//!          [Adler-32 of stored 4], [CRC-32 of stored 4], bytes
//! ```
//!
//! The checksums of a block are there when the header's flags say so; those of the stored bytes only for a block that
//! is compressed. A block whose two lengths are equal holds the plain bytes themselves. What is in brackets in the header
//! depends on its version (0.940 and later have it) or on its flags.

mod compress;
mod header;
mod read;
mod write;

pub(super) use read::{LzopFrame, decoder};
pub(super) use write::LzopEncoder;

/// What a stream begins with.
const MAGIC: [u8; 9] = *b"\x89LZO\0\r\n\x1a\n";
/// Plain bytes in a block as lzop and BusyBox cut them.
const BLOCK_BYTES: usize = 256 << 10;
/// Plain bytes in a block that lzop accepts at most.
const BLOCK_MAX_BYTES: u32 = 64 << 20;

/// Meanings of the header's flags.
mod flag {
    pub(super) const ADLER32_PLAIN: u32 = 0x0001;
    pub(super) const ADLER32_STORED: u32 = 0x0002;
    pub(super) const FROM_STDIN: u32 = 0x0004;
    pub(super) const TO_STDOUT: u32 = 0x0008;
    pub(super) const EXTRA_FIELD: u32 = 0x0040;
    pub(super) const CRC32_PLAIN: u32 = 0x0100;
    pub(super) const CRC32_STORED: u32 = 0x0200;
    pub(super) const MULTIPART: u32 = 0x0400;
    pub(super) const FILTER: u32 = 0x0800;
    pub(super) const HEADER_CRC32: u32 = 0x1000;
    pub(super) const ON_UNIX: u32 = 0x0300_0000;
}

/// zlib's Adler-32.
fn adler32(bytes: &[u8]) -> u32 {
    simd_adler32::adler32(&bytes)
}

/// zlib's CRC-32.
fn crc32(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes);
    u32::try_from(crc).expect("a CRC-32 has 32 bits")
}

#[cfg(test)]
mod tests;
