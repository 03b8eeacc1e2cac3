//! Writes an lzop stream: header, blocks of 256 KiB, end mark.

use std::io::{self, Write};

use super::compress::{Compressor, bound};
use super::{BLOCK_BYTES, adler32, header};

/// An lzop stream in the making. Memory: one plain block and one stored block, 2 × 256 KiB, and 32 KiB of positions.
///
/// A block goes out when it is full; [`Write::flush`] does not cut a block short, so the same bytes give the same
/// stream however they arrive. Dropping it leaves a stream without its end mark.
pub(in super::super) struct LzopEncoder<W> {
    sink: W,
    compressor: Compressor,
    plain: Vec<u8>,
    /// Header of the next block and its compressed bytes; first of all, the header of the stream.
    stored: Vec<u8>,
    began: bool,
}

/// Plain length, stored length, Adler-32.
const BLOCK_HEADER_BYTES: usize = 12;

impl<W: Write> LzopEncoder<W> {
    pub(in super::super) fn new(sink: W) -> Self {
        Self {
            sink,
            compressor: Compressor::new(),
            plain: Vec::with_capacity(BLOCK_BYTES),
            stored: vec![0; BLOCK_HEADER_BYTES + bound(BLOCK_BYTES)],
            began: false,
        }
    }

    #[cfg(test)]
    pub(in super::super) const fn get_ref(&self) -> &W {
        &self.sink
    }

    pub(in super::super) fn finish(mut self) -> io::Result<W> {
        if !self.plain.is_empty() {
            self.write_block()?;
        }
        self.begin()?;
        self.sink.write_all(&[0; 4])?;
        Ok(self.sink)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.began {
            self.sink.write_all(&header::bytes())?;
            self.began = true;
        }
        Ok(())
    }

    /// Writes the plain bytes as one block: compressed, or as they are where that is not shorter.
    fn write_block(&mut self) -> io::Result<()> {
        self.begin()?;
        let plain = &self.plain[..];
        let (head, body) = self.stored.split_at_mut(BLOCK_HEADER_BYTES);
        let compressed = self.compressor.compress(plain, body);
        let is_shorter = compressed < plain.len();
        let length = if is_shorter { compressed } else { plain.len() };
        let fields = [number(plain.len()), number(length), adler32(plain)];
        for (place, field) in head.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        if is_shorter {
            self.sink
                .write_all(&self.stored[..BLOCK_HEADER_BYTES + compressed])?;
        } else {
            self.sink.write_all(head)?;
            self.sink.write_all(plain)?;
        }
        self.plain.clear();
        Ok(())
    }
}

impl<W: Write> Write for LzopEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Before, not after: a failure while a full block goes out must not look as if no byte of this call were taken.
        if self.plain.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        let count = bytes.len().min(BLOCK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("a block has 256 KiB at most")
}
