//! LZ4 frame format 1.6.x, one frame, content checksum on.
//!
//! `lz4_flex` decodes concatenated frames as one stream and takes an end of file between two blocks,
//! or before the first, for the end of the content. So a tap below it follows the framing and
//! knows whether the end mark and its checksum were really there. Legacy and skippable frames are
//! refused: no tool writes them into an archive.

use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::strict::{FrameDecoder, Source, Strict};

/// `04 22 4D 18` on disk.
const MAGIC: u32 = 0x184D_2204;
const FLAG_DICTIONARY_ID: u8 = 0x01;
const FLAG_CONTENT_CHECKSUM: u8 = 0x04;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_BLOCK_CHECKSUM: u8 = 0x10;
/// Top bit of a block's length: the block is stored, not compressed.
const STORED_BLOCK: u32 = 0x8000_0000;

pub(super) fn encoder<W: Write>(sink: W) -> FrameEncoder<W> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max256KB)
        .block_mode(BlockMode::Independent)
        .content_checksum(true);
    FrameEncoder::with_frame_info(info, sink)
}

pub(super) fn decoder<R: Read + Send + 'static>(source: R) -> Strict<Lz4Frame> {
    let tap = FrameTap {
        source: Source::new(source),
        field: [0; 6],
        filled: 0,
        flags: 0,
        expect: Expect::Descriptor,
    };
    Strict::new(Lz4Frame {
        inner: lz4_flex::frame::FrameDecoder::new(tap),
    })
}

pub(super) struct Lz4Frame {
    inner: lz4_flex::frame::FrameDecoder<FrameTap>,
}

impl FrameDecoder for Lz4Frame {
    const NAME: &'static str = "lz4";
    const MAGIC: &'static [u8] = &MAGIC.to_le_bytes();

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out)
    }

    fn is_complete(&self) -> bool {
        matches!(self.inner.get_ref().expect, Expect::Nothing)
    }

    fn source(&mut self) -> &mut Source {
        &mut self.inner.get_mut().source
    }
}

/// What the next bytes of the frame are.
enum Expect {
    /// Magic number, FLG and BD: 6 bytes that say how long the rest of the header is.
    Descriptor,
    /// Bytes without a decision in them: rest of the header, a block, a checksum.
    Bytes { left: u64, last: bool },
    /// The 4-byte length of a block, or the end mark.
    BlockLength,
    /// The frame is over.
    Nothing,
}

/// Passes the bytes of exactly one frame through and follows its structure.
struct FrameTap {
    source: Source,
    field: [u8; 6],
    filled: usize,
    flags: u8,
    expect: Expect,
}

impl FrameTap {
    /// How many bytes may be read before the next decision.
    fn limit(&self) -> usize {
        match self.expect {
            Expect::Descriptor => 6 - self.filled,
            Expect::BlockLength => 4 - self.filled,
            Expect::Bytes { left, .. } => usize::try_from(left).unwrap_or(usize::MAX),
            Expect::Nothing => 0,
        }
    }

    fn advance(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.expect {
            Expect::Descriptor | Expect::BlockLength => {
                self.field[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
                self.filled += bytes.len();
                self.decide()
            }
            Expect::Bytes { left, last } => {
                *left -= bytes.len() as u64;
                if *left == 0 {
                    self.expect = if *last {
                        Expect::Nothing
                    } else {
                        Expect::BlockLength
                    };
                }
                Ok(())
            }
            Expect::Nothing => Ok(()),
        }
    }

    /// Looks at a field once it is complete.
    fn decide(&mut self) -> io::Result<()> {
        let [a, b, c, d, flags, _] = self.field;
        let number = u32::from_le_bytes([a, b, c, d]);
        match self.expect {
            Expect::Descriptor if self.filled == 6 => {
                if number != MAGIC {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it does not start with a frame's magic number",
                    ));
                }
                self.flags = flags;
                let left = 1
                    + 8 * u64::from(flags & FLAG_CONTENT_SIZE != 0)
                    + 4 * u64::from(flags & FLAG_DICTIONARY_ID != 0);
                self.expect = Expect::Bytes { left, last: false };
            }
            Expect::BlockLength if self.filled == 4 => {
                let (left, last) = if number == 0 {
                    (4 * u64::from(self.flags & FLAG_CONTENT_CHECKSUM != 0), true)
                } else {
                    let checksum = 4 * u64::from(self.flags & FLAG_BLOCK_CHECKSUM != 0);
                    (u64::from(number & !STORED_BLOCK) + checksum, false)
                };
                self.expect = match (left, last) {
                    (0, true) => Expect::Nothing,
                    // A stored block of no bytes: `lz4` does not write it, the format does not forbid it.
                    (0, false) => Expect::BlockLength,
                    (left, last) => Expect::Bytes { left, last },
                };
            }
            _ => return Ok(()),
        }
        self.filled = 0;
        Ok(())
    }
}

impl Read for FrameTap {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let limit = out.len().min(self.limit());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut out[..limit])?;
        self.advance(&out[..count])?;
        Ok(count)
    }
}
