//! Brotli (RFC 7932), one stream, as WAL-G writes it.
//!
//! The format has no magic number and no checksum. What does not decode from its beginning may be anything, an encrypted
//! object too; what breaks off later is damage.

use std::io::{self, BufRead, Read};

use brotli_decompressor::{
    BrotliDecoderParameter, BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc,
};

use super::encrypted::{HEAD_BYTES, stranger};
use super::strict::{FrameDecoder, Source, Strict};

/// The largest window of the format, 16 MiB. The extension for larger ones is no part of the RFC, and no tool writes it into
/// an archive.
const WINDOW_BITS_MAX: u32 = 24;

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

fn state() -> Box<State> {
    let allocate = StandardAlloc::default;
    let mut state = Box::new(State::new(allocate(), allocate(), allocate()));
    state.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
    state
}

/// The memory of the window, in bytes, by the first byte of a stream; none where it begins none.
pub(super) fn window_bytes(head: &[u8]) -> Option<u64> {
    let first = *head.first()?;
    let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, _, _) => 16,
        (_, 0, 0) => 17,
        (_, 0, 1) => return None,
        (_, 0, more) => 8 + u32::from(more),
        (_, few, _) => 17 + u32::from(few),
    };
    debug_assert!(bits <= WINDOW_BITS_MAX);
    Some(1 << bits)
}

/// Whether the first bytes of an object cannot begin a stream.
pub(super) fn is_none(head: &[u8]) -> bool {
    let mut state = state();
    let mut plain = [0; HEAD_BYTES];
    let mut read = Progress::default();
    loop {
        match read.step(&mut state, head, &mut plain) {
            BrotliResult::ResultFailure => return true,
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess | BrotliResult::NeedsMoreInput => return false,
        }
        read.written = 0;
    }
}

/// Where one call of the decoder has got to.
#[derive(Default)]
struct Progress {
    taken: usize,
    written: usize,
}

impl Progress {
    /// Decodes from the rest of `input` into the rest of `out`.
    fn step(&mut self, state: &mut State, input: &[u8], out: &mut [u8]) -> BrotliResult {
        let mut available_in = input.len() - self.taken;
        let mut available_out = out.len() - self.written;
        let mut total = 0;
        BrotliDecompressStream(
            &mut available_in,
            &mut self.taken,
            input,
            &mut available_out,
            &mut self.written,
            out,
            &mut total,
            state,
        )
    }
}

pub(super) fn decoder<R: Read + Send + 'static>(
    source: R,
    window_max: u64,
) -> Strict<BrotliStream> {
    Strict::new(BrotliStream {
        source: Source::new(source),
        state: state(),
        window_max,
        taken: 0,
        first: None,
        is_complete: false,
    })
}

pub(super) struct BrotliStream {
    source: Source,
    state: Box<State>,
    window_max: u64,
    /// Bytes of the source that the decoder has taken.
    taken: u64,
    /// The first byte, once it was seen.
    first: Option<u8>,
    is_complete: bool,
}

impl BrotliStream {
    /// Looks at the first byte: the window must fit.
    fn begin(&mut self) -> io::Result<()> {
        let head = self.source.fill_buf()?;
        let window = window_bytes(head);
        self.first = head.first().copied();
        match window {
            Some(window) if window > self.window_max => Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("its window of {} MiB is larger than allowed", window >> 20),
            )),
            // What is no stream says the decoder.
            _ => Ok(()),
        }
    }

    fn refused(&self) -> io::Error {
        match self.first {
            Some(first) if self.taken <= HEAD_BYTES as u64 => stranger(first),
            _ => io::Error::new(io::ErrorKind::InvalidData, "it cannot be decompressed"),
        }
    }
}

impl FrameDecoder for BrotliStream {
    const NAME: &'static str = "brotli";
    /// The format has none.
    const MAGIC: &'static [u8] = &[];

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.first.is_none() {
            self.begin()?;
        }
        let mut written = 0;
        while !self.is_complete && written == 0 {
            let input = self.source.fill_buf()?;
            let is_over = input.is_empty();
            let mut progress = Progress::default();
            let result = progress.step(&mut self.state, input, out);
            let Progress {
                taken,
                written: new,
            } = progress;
            self.source.consume(taken);
            self.taken += taken as u64;
            written = new;
            match result {
                BrotliResult::ResultSuccess => self.is_complete = true,
                BrotliResult::ResultFailure => return Err(self.refused()),
                BrotliResult::NeedsMoreInput if is_over && written == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
        }
        Ok(written)
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn source(&mut self) -> &mut Source {
        &mut self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_says_the_window() {
        for (first, bits) in [
            (0b0000_0000, Some(16)),
            (0b0000_0001, Some(17)),
            (0b0010_0001, Some(10)),
            (0b0111_0001, Some(15)),
            (0b0000_0011, Some(18)),
            (0b0000_1011, Some(22)),
            (0b0000_1111, Some(24)),
            // The extension for larger ones.
            (0b0001_0001, None),
        ] {
            let expected = bits.map(|bits| 1_u64 << bits);
            assert_eq!(window_bytes(&[first]), expected, "{first:#b}");
        }
        assert_eq!(window_bytes(&[]), None);
    }
}
