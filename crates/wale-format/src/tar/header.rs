//! One 512-byte header block, decoded and checked.
//!
//! Offsets (POSIX.1-2017 `ustar`, GNU tar 1.34 `tar.h`):
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 100 | name |
//! | 100 | 8 | mode |
//! | 108, 116 | 8, 8 | uid, gid |
//! | 124 | 12 | size |
//! | 136 | 12 | mtime |
//! | 148 | 8 | checksum: sum of all bytes with this field as spaces |
//! | 156 | 1 | type |
//! | 157 | 100 | link name |
//! | 257 | 8 | magic and version: `ustar\0` `00`, or GNU's `ustar  \0` |
//! | 345 | 155 | ustar only: prefix |

use std::ops::Range;

use super::{BLOCK_BYTES, TarError};

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const PREFIX: Range<usize> = 345..500;

/// A header whose checksum is right.
pub(super) struct RawHeader<'a>(&'a [u8; BLOCK_BYTES]);

impl<'a> RawHeader<'a> {
    /// # Errors
    /// When the checksum does not match the block.
    pub(super) fn parse(block: &'a [u8; BLOCK_BYTES]) -> Result<Self, TarError> {
        let stored = number(&block[CHECKSUM], "checksum")?;
        let sums = block
            .iter()
            .enumerate()
            .fold((0i64, 0i64), |sums, (index, &byte)| {
                let byte = if CHECKSUM.contains(&index) {
                    b' '
                } else {
                    byte
                };
                (
                    sums.0 + i64::from(byte),
                    sums.1 + i64::from(byte.cast_signed()),
                )
            });
        // Some old writers summed signed bytes; GNU tar accepts both, so do we.
        let stored = i64::try_from(stored).unwrap_or(-1);
        if stored != sums.0 && stored != sums.1 {
            return Err(TarError::damaged("a header does not match its checksum"));
        }
        Ok(Self(block))
    }

    pub(super) const fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// The name, with the prefix of the ustar dialect; GNU uses those bytes for other things.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let prefix = text(&self.0[PREFIX]);
        if &self.0[MAGIC] == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        number(&self.0[SIZE], "size")
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        // Some writers add the file type above the permission bits.
        let mode = number(&self.0[MODE], "mode")? & 0o7777;
        Ok(u32::try_from(mode).expect("twelve bits fit"))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        number(&self.0[UID], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        number(&self.0[GID], "gid")
    }

    /// Times before 1970 count as 0.
    pub(super) fn mtime(&self) -> Result<u64, TarError> {
        if self.0[MTIME.start] == 0xFF {
            return Ok(0);
        }
        number(&self.0[MTIME], "mtime")
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between spaces and NULs, or GNU's base-256 with the top bit of the first byte set.
fn number(field: &[u8], what: &'static str) -> Result<u64, TarError> {
    let bad = || TarError::damaged(format!("a header's {what} is not a number"));
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        // 0xFF starts a negative number.
        return rest
            .iter()
            .try_fold(u64::from(first & 0x7F), |value, &byte| {
                value.checked_mul(256)?.checked_add(u64::from(byte))
            })
            .filter(|_| *first != 0xFF)
            .ok_or_else(bad);
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(u64::from(byte - b'0')))
            .ok_or_else(bad),
        _ => Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let good: [(&[u8], u64); 8] = [
            (b"0000644\0", 0o644),
            (b"000644 \0", 0o644),
            (b"    644 ", 0o644),
            (b"77777777777\0", 0o77_777_777_777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", 1 << 33),
            (b"\x80\0\0\0\0\x20\0\0", 1 << 21),
        ];
        for (field, expected) in good {
            assert_eq!(number(field, "x").expect("valid"), expected, "{field:?}");
        }
        let bad: [&[u8]; 5] = [
            b"0000648\0",
            b"-000001\0",
            b"12 34\0\0\0",
            b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
        ];
        for field in bad {
            assert!(number(field, "x").is_err(), "{field:?}");
        }
    }
}
