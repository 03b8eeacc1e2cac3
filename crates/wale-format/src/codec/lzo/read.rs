//! Reads an lzop stream: a block goes out only when its lengths and checksums are right.
//!
//! Memory: the plain and the stored bytes of one block, 0.5 MiB for the blocks that lzop and BusyBox write. A foreign
//! block may declare up to 64 MiB of plain bytes, if the caller allows so much, so 128 MiB is the most that a stream can ask
//! for; and it is only given for bytes that really came, because no LZO1X stream grows to more than 255 times its length.

use std::io::{self, Read};

use super::super::strict::{FrameDecoder, Source, Strict};
use super::header::{self, Header, damaged};
use super::{BLOCK_BYTES, BLOCK_MAX_BYTES, MAGIC, adler32, crc32, flag};

/// Plain bytes that one byte of an LZO1X stream can stand for: a zero byte in the extension of a length.
const EXPANSION_MAX: usize = 255;

/// A decoder that holds so many bytes at most: two blocks, one plain and one stored.
pub(in super::super) fn decoder<R: Read + Send + 'static>(
    source: R,
    memory_max: u64,
) -> Strict<LzopFrame> {
    let half = u32::try_from(memory_max / 2).unwrap_or(u32::MAX);
    let least = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
    Strict::new(LzopFrame {
        block_max: half.clamp(least, BLOCK_MAX_BYTES),
        source: Source::new(source),
        state: LzopState::Start,
        stored: Vec::new(),
        plain: Vec::new(),
        given: 0,
    })
}

enum LzopState {
    /// Nothing has been read.
    Start,
    /// Blocks of this stream follow.
    Blocks(Header),
    /// The end mark was there.
    End,
}

/// One lzop stream.
pub(in super::super) struct LzopFrame {
    /// Plain bytes of a block that are taken at most.
    block_max: u32,
    source: Source,
    state: LzopState,
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// How many of the plain bytes have gone out.
    given: usize,
}

impl FrameDecoder for LzopFrame {
    const NAME: &'static str = "lzop";
    const MAGIC: &'static [u8] = &MAGIC;

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() {
            match self.state {
                LzopState::Start => self.state = LzopState::Blocks(header::read(&mut self.source)?),
                LzopState::Blocks(header) => self.next_block(header)?,
                LzopState::End => return Ok(0),
            }
        }
        let count = out.len().min(self.plain.len() - self.given);
        out[..count].copy_from_slice(&self.plain[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, LzopState::End)
    }

    fn source(&mut self) -> &mut Source {
        &mut self.source
    }
}

/// What a block says about itself.
struct BlockHeader {
    plain: usize,
    stored: usize,
    adler32_plain: Option<u32>,
    crc32_plain: Option<u32>,
    adler32_stored: Option<u32>,
    crc32_stored: Option<u32>,
}

impl LzopFrame {
    /// Reads, checks and decodes one block, or the end mark.
    fn next_block(&mut self, header: Header) -> io::Result<()> {
        let Some(block) = self.block_header(header)? else {
            self.state = LzopState::End;
            return Ok(());
        };
        // The buffer grows with what arrives: a length alone takes no memory.
        self.stored.clear();
        let mut limited = (&mut self.source).take(block.stored as u64);
        if limited.read_to_end(&mut self.stored)? < block.stored {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        check(block.adler32_stored, adler32, &self.stored, "Adler-32")?;
        check(block.crc32_stored, crc32, &self.stored, "CRC-32")?;
        self.given = 0;
        if block.stored == block.plain {
            std::mem::swap(&mut self.plain, &mut self.stored);
        } else {
            self.decompress(block.plain)?;
        }
        let checked = check(block.adler32_plain, adler32, &self.plain, "Adler-32")
            .and_then(|()| check(block.crc32_plain, crc32, &self.plain, "CRC-32"));
        if checked.is_err() {
            self.plain.clear();
        }
        checked
    }

    fn decompress(&mut self, length: usize) -> io::Result<()> {
        self.plain.clear();
        if length > self.stored.len().saturating_mul(EXPANSION_MAX) {
            return Err(damaged(
                "a block declares more bytes than its data can stand for",
            ));
        }
        self.plain.resize(length, 0);
        let outcome = lzokay::decompress::decompress(&self.stored, &mut self.plain);
        if outcome == Ok(length) {
            return Ok(());
        }
        self.plain.clear();
        Err(damaged(&match outcome {
            Ok(found) => format!("a block of {length} bytes decodes to {found}"),
            Err(error) => format!("a block is not LZO1X: {error}"),
        }))
    }

    fn block_header(&mut self, header: Header) -> io::Result<Option<BlockHeader>> {
        let plain = self.number()?;
        if plain == 0 {
            return Ok(None);
        }
        if plain > BLOCK_MAX_BYTES {
            return Err(damaged(&format!(
                "a block declares {plain} bytes, lzop's limit is {BLOCK_MAX_BYTES}"
            )));
        }
        if plain > self.block_max {
            let most = self.block_max;
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("a block has {plain} bytes, and {most} at most are set aside for one"),
            ));
        }
        let stored = self.number()?;
        if stored == 0 || stored > plain {
            return Err(damaged(&format!(
                "a block of {plain} bytes is said to be stored in {stored}"
            )));
        }
        let mut field = |flag| -> io::Result<Option<u32>> {
            if header.has(flag) {
                self.number().map(Some)
            } else {
                Ok(None)
            }
        };
        let adler32_plain = field(flag::ADLER32_PLAIN)?;
        let crc32_plain = field(flag::CRC32_PLAIN)?;
        let (adler32_stored, crc32_stored) = if stored < plain {
            (field(flag::ADLER32_STORED)?, field(flag::CRC32_STORED)?)
        } else {
            (None, None)
        };
        Ok(Some(BlockHeader {
            plain: usize::try_from(plain).expect("at most 64 MiB"),
            stored: usize::try_from(stored).expect("at most 64 MiB"),
            adler32_plain,
            crc32_plain,
            adler32_stored,
            crc32_stored,
        }))
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.source.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }
}

fn check(
    expected: Option<u32>,
    checksum: impl Fn(&[u8]) -> u32,
    bytes: &[u8],
    name: &str,
) -> io::Result<()> {
    match expected {
        Some(expected) if checksum(bytes) != expected => {
            Err(damaged(&format!("the {name} of a block is wrong")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn fault_92_a_block_that_is_larger_than_allowed_is_no_damage() {
        let stream = [
            header::bytes(),
            (5u32 << 20).to_be_bytes().to_vec(),
            vec![0; 1000],
        ];
        let mut plain = Vec::new();
        let mut decoder = decoder(Cursor::new(stream.concat()), 8 << 20);
        let error = decoder.read_to_end(&mut plain).expect_err("too large");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn a_length_alone_takes_no_memory() {
        let stream = [
            header::bytes(),
            (64u32 << 20).to_be_bytes().to_vec(),
            ((64u32 << 20) - 1).to_be_bytes().to_vec(),
            vec![0; 1000],
        ];
        let source = Source::new(Cursor::new(stream.concat()));
        let mut frame = LzopFrame {
            block_max: BLOCK_MAX_BYTES,
            source,
            state: LzopState::Start,
            stored: Vec::new(),
            plain: Vec::new(),
            given: 0,
        };
        let error = frame.decode(&mut [0; 10]).expect_err("it is truncated");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(frame.stored.capacity() < 1 << 20 && frame.plain.capacity() == 0);
    }
}
