//! The header of an lzop stream.

use std::io::{self, Read};

use super::{MAGIC, adler32, crc32, flag};

/// lzop 1.04, whose header this is.
const VERSION: u16 = 0x1040;
/// LZO 2.10.
const LIBRARY_VERSION: u16 = 0x20A0;
/// The first version with `version needed`, `level` and `mtime high`.
const VERSION_0_940: u16 = 0x0940;
/// The oldest that lzop 1.04 still reads.
const VERSION_0_900: u16 = 0x0900;
/// LZO1X-1. lzop's `-1` is method 2, its `-7` to `-9` are 3: the same stream, searched for in other ways.
const LZO1X_1: u8 = 1;
const LZO1X_999: u8 = 3;
/// What `lzop` without an option records.
const LEVEL: u8 = 5;
/// Nobody writes an extra field; one of more than 64 KiB is damage.
const EXTRA_FIELD_MAX_BYTES: u32 = 64 << 10;

/// What the blocks of a stream carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u32,
}

impl Header {
    pub(super) const fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// The header of our streams, with the magic number: what `lzop -c` writes when its input is a pipe, at time 0.
pub(super) fn bytes() -> Vec<u8> {
    let flags = flag::ON_UNIX | flag::TO_STDOUT | flag::FROM_STDIN | flag::ADLER32_PLAIN;
    let mut fields = Vec::with_capacity(29);
    for version in [VERSION, LIBRARY_VERSION, VERSION_0_940] {
        fields.extend(version.to_be_bytes());
    }
    fields.extend([LZO1X_1, LEVEL]);
    // Mode, time and time's high word say nothing about a stream that never was a file; nor does the empty name.
    for number in [flags, 0, 0, 0] {
        fields.extend(number.to_be_bytes());
    }
    fields.push(0);
    let checksum = adler32(&fields);
    [&MAGIC[..], &fields, &checksum.to_be_bytes()].concat()
}

/// Reads the header up to the first block.
///
/// # Errors
/// `InvalidData` for what is no header, is damaged, or speaks of a stream that no decoder of LZO1X can read.
pub(super) fn read(source: &mut impl Read) -> io::Result<Header> {
    let mut magic = [0; MAGIC.len()];
    source.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("it does not start with lzop's magic number"));
    }
    let mut fields = Fields {
        source,
        seen: Vec::with_capacity(64),
    };
    let version = fields.u16()?;
    if version < VERSION_0_900 {
        return Err(damaged(&format!("its version {version:#06x} is too old")));
    }
    let is_recent = version >= VERSION_0_940;
    fields.u16()?;
    if is_recent {
        let needed = fields.u16()?;
        if needed > VERSION {
            return Err(damaged(&format!(
                "it needs version {needed:#06x} of lzop, {VERSION:#06x} is known"
            )));
        }
    }
    let method = fields.u8()?;
    if !(LZO1X_1..=LZO1X_999).contains(&method) {
        return Err(damaged(&format!("its method {method} is not LZO1X")));
    }
    if is_recent {
        fields.u8()?;
    }
    let flags = fields.u32()?;
    if flags & flag::FILTER != 0 && fields.u32()? != 0 {
        return Err(damaged("it was filtered before it was compressed"));
    }
    if flags & flag::MULTIPART != 0 {
        return Err(damaged("it is one part of several"));
    }
    // Mode and time of modification.
    fields.u32()?;
    fields.u32()?;
    if is_recent {
        fields.u32()?;
    }
    let name = usize::from(fields.u8()?);
    fields.skip(name)?;
    fields.check(flags, "its header")?;
    if flags & flag::EXTRA_FIELD != 0 {
        let length = fields.u32()?;
        if length > EXTRA_FIELD_MAX_BYTES {
            return Err(damaged("its extra field is longer than 64 KiB"));
        }
        fields.skip(usize::try_from(length).expect("at most 64 KiB"))?;
        fields.check(flags, "its extra field")?;
    }
    Ok(Header { flags })
}

/// Reads numbers and remembers the bytes for the checksum after them.
struct Fields<'a, R> {
    source: &'a mut R,
    seen: Vec<u8>,
}

impl<R: Read> Fields<'_, R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.seen.extend(bytes);
        Ok(bytes)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn skip(&mut self, count: usize) -> io::Result<()> {
        let start = self.seen.len();
        self.seen.resize(start + count, 0);
        self.source.read_exact(&mut self.seen[start..])
    }

    /// Holds what was seen since the last check against the checksum that follows.
    fn check(&mut self, flags: u32, what: &str) -> io::Result<()> {
        let expected = if flags & flag::HEADER_CRC32 != 0 {
            crc32(&self.seen)
        } else {
            adler32(&self.seen)
        };
        let found = self.u32()?;
        self.seen.clear();
        if found == expected {
            Ok(())
        } else {
            Err(damaged(&format!(
                "the checksum of {what} is {expected:08x}, it says {found:08x}"
            )))
        }
    }
}

pub(super) fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
