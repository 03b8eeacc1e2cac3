//! Zstandard: RFC 8878, one frame, content checksum on. Follows the `zstd` library 1.5.

use std::io::{self, Read, Write};

use super::strict::{FrameDecoder, Source, Strict};

/// 2^27 = 128 MiB: what `zstd -d` accepts without `--long`. WAL-G writes 2^23.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) fn encoder<W: Write>(
    sink: W,
    level: i32,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(sink, level)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

pub(super) fn decoder<R: Read + Send + 'static>(source: R) -> io::Result<Strict<ZstdFrame>> {
    let mut inner = zstd::stream::read::Decoder::with_buffer(Source::new(source))?.single_frame();
    inner.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Strict::new(ZstdFrame { inner }))
}

pub(super) struct ZstdFrame {
    inner: zstd::stream::read::Decoder<'static, Source>,
}

impl FrameDecoder for ZstdFrame {
    const NAME: &'static str = "zstd";
    const MAGIC: &'static [u8] = &[0x28, 0xB5, 0x2F, 0xFD];

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out)
    }

    fn is_complete(&self) -> bool {
        // The library answers `UnexpectedEof` when the source ends inside a frame, so `Ok(0)` is the end.
        true
    }

    fn source(&mut self) -> &mut Source {
        self.inner.get_mut()
    }
}
