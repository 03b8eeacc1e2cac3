//! LZ4 frame format 1.6.x, one frame, content checksum on.
//!
//! The frame is ours, the blocks are the C library's: it takes four fifths of the time of `lz4_flex` to write them and half of it to
//! read them (bench/README.md). Its wrapper knows no blocks that go on where the one before ended; those, which only others
//! write, `lz4_flex` reads. Legacy and skippable frames are refused: no tool writes them into an archive.

use std::hash::Hasher as _;
use std::io::{self, Read, Write};

use ::lz4::block::{CompressionMode, compress_bound, compress_to_buffer, decompress_to_buffer};
use twox_hash::XxHash32;

use super::strict::{FrameDecoder, Source, Strict};

/// `04 22 4D 18` on disk.
const MAGIC: u32 = 0x184D_2204;
const VERSION: u8 = 0x40;
const VERSION_MASK: u8 = 0xC0;
const FLAG_DICTIONARY_ID: u8 = 0x01;
const FLAG_RESERVED: u8 = 0x02;
const FLAG_CONTENT_CHECKSUM: u8 = 0x04;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_BLOCK_CHECKSUM: u8 = 0x10;
const FLAG_INDEPENDENT: u8 = 0x20;
/// The one field of a block descriptor: how many bytes a block has at most.
const BLOCK_SIZE_MASK: u8 = 0x70;
/// Top bit of a block's length: the block is stored, not compressed.
const STORED_BLOCK: u32 = 0x8000_0000;
/// So far back a block may refer to the blocks before it.
const HISTORY_BYTES: usize = 64 << 10;

/// Plain bytes of a block as it is written.
const BLOCK_BYTES: usize = 256 << 10;
/// Its code in the block descriptor.
const BLOCK_CODE: u8 = 0x50;

/// Compresses into one frame.
pub(super) struct Lz4Encoder<W> {
    sink: W,
    /// What the block holds that is not yet written.
    plain: Vec<u8>,
    packed: Vec<u8>,
    checksum: XxHash32,
    is_begun: bool,
}

impl<W: Write> Lz4Encoder<W> {
    pub(super) fn new(sink: W) -> io::Result<Self> {
        Ok(Self {
            sink,
            plain: Vec::with_capacity(BLOCK_BYTES),
            packed: vec![0; compress_bound(BLOCK_BYTES)?],
            checksum: XxHash32::with_seed(0),
            is_begun: false,
        })
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.is_begun {
            return Ok(());
        }
        self.is_begun = true;
        let descriptor = [
            VERSION | FLAG_INDEPENDENT | FLAG_CONTENT_CHECKSUM,
            BLOCK_CODE,
        ];
        self.sink.write_all(&MAGIC.to_le_bytes())?;
        self.sink.write_all(&descriptor)?;
        self.sink.write_all(&[header_checksum(&descriptor)])
    }

    /// Ends the frame and gives the sink back, not flushed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        if !self.plain.is_empty() {
            let Self {
                sink,
                plain,
                packed,
                checksum,
                ..
            } = &mut self;
            write_block(sink, plain, packed, checksum)?;
        }
        self.sink.write_all(&0_u32.to_le_bytes())?;
        self.sink
            .write_all(&self.checksum.finish_32().to_le_bytes())?;
        Ok(self.sink)
    }

    #[cfg(test)]
    pub(super) const fn get_ref(&self) -> &W {
        &self.sink
    }
}

impl<W: Write> Write for Lz4Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin()?;
        let Self {
            sink,
            plain,
            packed,
            checksum,
            ..
        } = self;
        if plain.is_empty() && bytes.len() >= BLOCK_BYTES {
            write_block(sink, &bytes[..BLOCK_BYTES], packed, checksum)?;
            return Ok(BLOCK_BYTES);
        }
        let taken = bytes.len().min(BLOCK_BYTES - plain.len());
        plain.extend_from_slice(&bytes[..taken]);
        if plain.len() == BLOCK_BYTES {
            write_block(sink, plain, packed, checksum)?;
            plain.clear();
        }
        Ok(taken)
    }

    /// Does not end a block.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn write_block<W: Write>(
    sink: &mut W,
    plain: &[u8],
    packed: &mut [u8],
    checksum: &mut XxHash32,
) -> io::Result<()> {
    checksum.write(plain);
    let mode = CompressionMode::FAST(1);
    let length = compress_to_buffer(plain, Some(mode), false, packed)?;
    let (mark, block) = if length < plain.len() {
        (0, &packed[..length])
    } else {
        (STORED_BLOCK, plain)
    };
    let length = u32::try_from(block.len()).map_err(io::Error::other)?;
    sink.write_all(&(length | mark).to_le_bytes())?;
    sink.write_all(block)
}

/// The byte that ends a frame's header, over flags, block descriptor and what follows them.
fn header_checksum(descriptor: &[u8]) -> u8 {
    XxHash32::oneshot(0, descriptor).to_le_bytes()[1]
}

pub(super) fn decoder<R: Read + Send + 'static>(source: R) -> Strict<Lz4Frame> {
    Strict::new(Lz4Frame {
        source: Source::new(source),
        header: None,
        packed: Vec::new(),
        plain: Vec::new(),
        given: 0,
        history: Vec::new(),
        checksum: XxHash32::with_seed(0),
        content_bytes: 0,
        is_complete: false,
    })
}

/// What a frame says of itself.
#[derive(Clone, Copy)]
struct FrameHeader {
    flags: u8,
    /// Plain bytes of a block, at most.
    block_bytes: usize,
    content_bytes: Option<u64>,
}

impl FrameHeader {
    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn read(source: &mut Source) -> io::Result<Self> {
        if u32::from_le_bytes(read_array(source)?) != MAGIC {
            return Err(damaged("it does not start with a frame's magic number"));
        }
        let [flags, block] = read_array(source)?;
        let mut checked = vec![flags, block];
        let mut content_bytes = None;
        if flags & FLAG_CONTENT_SIZE != 0 {
            let size: [u8; 8] = read_array(source)?;
            checked.extend_from_slice(&size);
            content_bytes = Some(u64::from_le_bytes(size));
        }
        if flags & FLAG_DICTIONARY_ID != 0 {
            let dictionary: [u8; 4] = read_array(source)?;
            checked.extend_from_slice(&dictionary);
        }
        let [checksum] = read_array(source)?;
        if checksum != header_checksum(&checked) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        if flags & (VERSION_MASK | FLAG_RESERVED) != VERSION || block & !BLOCK_SIZE_MASK != 0 {
            return Err(damaged("its header has fields of another version"));
        }
        if flags & FLAG_DICTIONARY_ID != 0 {
            let message = "it was written with a dictionary, which this version cannot read";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let block_bytes = match block >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => {
                return Err(damaged(
                    "its blocks have a size that the format does not know",
                ));
            }
        };
        Ok(Self {
            flags,
            block_bytes,
            content_bytes,
        })
    }
}

/// Decodes one frame.
pub(super) struct Lz4Frame {
    source: Source,
    header: Option<FrameHeader>,
    /// The block as it is stored.
    packed: Vec<u8>,
    /// The block, for a caller who has no room for it.
    plain: Vec<u8>,
    /// So many of its bytes were given away.
    given: usize,
    /// What the next block may refer to; nothing where blocks are independent.
    history: Vec<u8>,
    checksum: XxHash32,
    content_bytes: u64,
    is_complete: bool,
}

impl FrameDecoder for Lz4Frame {
    const NAME: &'static str = "lz4";
    const MAGIC: &'static [u8] = &MAGIC.to_le_bytes();

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let header = match self.header {
            Some(header) => header,
            None => *self.header.insert(FrameHeader::read(&mut self.source)?),
        };
        loop {
            let left = &self.plain[self.given..];
            if !left.is_empty() {
                let count = left.len().min(out.len());
                out[..count].copy_from_slice(&left[..count]);
                self.given += count;
                return Ok(count);
            }
            if self.is_complete {
                return Ok(0);
            }
            let Some(is_stored) = self.read_block(header)? else {
                self.end(header)?;
                return Ok(0);
            };
            if header.has(FLAG_INDEPENDENT) && out.len() >= header.block_bytes {
                let count = unpack(&self.packed, is_stored, &mut out[..header.block_bytes])?;
                self.count(&out[..count]);
                if count > 0 {
                    return Ok(count);
                }
                continue;
            }
            self.unpack_here(header, is_stored)?;
        }
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn source(&mut self) -> &mut Source {
        &mut self.source
    }
}

impl Lz4Frame {
    /// Reads a block and says whether it is stored as it is; `None` at the end mark.
    fn read_block(&mut self, header: FrameHeader) -> io::Result<Option<bool>> {
        let length = u32::from_le_bytes(read_array(&mut self.source)?);
        if length == 0 {
            return Ok(None);
        }
        let bytes = (length & !STORED_BLOCK) as usize;
        // A block that would be larger is stored, so that none is.
        if bytes > header.block_bytes {
            return Err(damaged("a block is larger than the header allows"));
        }
        self.packed.resize(bytes, 0);
        self.source.read_exact(&mut self.packed)?;
        if header.has(FLAG_BLOCK_CHECKSUM) {
            let wanted = u32::from_le_bytes(read_array(&mut self.source)?);
            if XxHash32::oneshot(0, &self.packed) != wanted {
                return Err(damaged("the checksum of a block is wrong"));
            }
        }
        Ok(Some(length & STORED_BLOCK != 0))
    }

    /// Unpacks the block into memory of our own, from where it is given away.
    fn unpack_here(&mut self, header: FrameHeader, is_stored: bool) -> io::Result<()> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(header.block_bytes, 0);
        let count = if header.has(FLAG_INDEPENDENT) || is_stored {
            unpack(&self.packed, is_stored, &mut plain)?
        } else {
            let unpacked =
                lz4_flex::block::decompress_into_with_dict(&self.packed, &mut plain, &self.history);
            unpacked.map_err(|error| damaged(&error.to_string()))?
        };
        plain.truncate(count);
        self.count(&plain);
        if !header.has(FLAG_INDEPENDENT) {
            self.history.extend_from_slice(&plain);
            let past = self.history.len().saturating_sub(HISTORY_BYTES);
            self.history.drain(..past);
        }
        self.plain = plain;
        self.given = 0;
        Ok(())
    }

    fn count(&mut self, plain: &[u8]) {
        self.checksum.write(plain);
        self.content_bytes += plain.len() as u64;
    }

    fn end(&mut self, header: FrameHeader) -> io::Result<()> {
        if header.has(FLAG_CONTENT_CHECKSUM) {
            let wanted = u32::from_le_bytes(read_array(&mut self.source)?);
            if self.checksum.finish_32() != wanted {
                return Err(damaged("the checksum of its content is wrong"));
            }
        }
        let wanted = header.content_bytes;
        if wanted.is_some_and(|wanted| wanted != self.content_bytes) {
            return Err(damaged("it does not hold as much as its header says"));
        }
        self.is_complete = true;
        Ok(())
    }
}

/// Unpacks a block that refers to no other, and says how many plain bytes it had.
fn unpack(packed: &[u8], is_stored: bool, plain: &mut [u8]) -> io::Result<usize> {
    if is_stored {
        let room = plain.get_mut(..packed.len());
        let room = room.ok_or_else(|| damaged("a block is larger than the header allows"))?;
        room.copy_from_slice(packed);
        return Ok(packed.len());
    }
    let most = i32::try_from(plain.len()).map_err(io::Error::other)?;
    decompress_to_buffer(packed, Some(most), plain)
        .map_err(|_| damaged("a block cannot be unpacked"))
}

fn read_array<const N: usize>(source: &mut Source) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
