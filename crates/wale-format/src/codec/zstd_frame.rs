//! Zstandard: RFC 8878, one frame, content checksum on; where the caller says so, several that follow each other
//! ([`super::frames`]). Follows the `zstd` library 1.5.

use std::io::{self, BufRead, Read, Write};

use zstd::stream::raw::{self, Operation as _};
use zstd::zstd_safe::{CParameter, DParameter, Strategy};

use super::literals::{self, Literals};
use super::strict::{FrameDecoder, Source, Strict, followed};

/// The window that a frame asks for, by the beginning of the stream; `None` where it is no frame or ends too early.
pub(super) fn window_bytes(head: &[u8]) -> Option<u64> {
    let (descriptor, rest) = head
        .strip_prefix(&[0x28, 0xB5, 0x2F, 0xFD])?
        .split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The whole content is the window.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary..dictionary + size)?;
    let value = field
        .iter()
        .rev()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    Some(if size == 2 { value + 256 } else { value })
}

/// Compresses into one frame.
pub(super) struct ZstdEncoder<W: Write> {
    /// Where the frame will go, until it is begun.
    sink: Option<W>,
    /// The beginning of the content, until the frame is begun.
    sample: Vec<u8>,
    frame: Option<zstd::stream::write::Encoder<'static, W>>,
}

/// Bytes of content that show whether its literals are worth compressing: a block of the format. They are compressed twice, which is a
/// hundredth of a segment's time.
const SAMPLE_BYTES: usize = 128 << 10;

pub(super) fn encoder<W: Write>(sink: W, level: i32) -> io::Result<ZstdEncoder<W>> {
    let (sink, frame) = if has_choice(level) {
        (Some(sink), None)
    } else {
        (None, Some(open(sink, level, Literals::Compressed)?))
    };
    Ok(ZstdEncoder {
        sink,
        sample: Vec::new(),
        frame,
    })
}

fn open<W: Write>(
    sink: W,
    level: i32,
    literals: Literals,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let own = own_parameters(level, literals);
    let base = if own.is_some() { OWN_BASE } else { level };
    let mut encoder = zstd::stream::write::Encoder::new(sink, base)?;
    encoder.include_checksum(true)?;
    for parameter in own.into_iter().flatten() {
        encoder.set_parameter(parameter)?;
    }
    Ok(encoder)
}

/// The encoder of the fastest level, once the beginning of its content is known.
fn open_fastest<W: Write>(
    sink: W,
    sample: &[u8],
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut looked = zstd::bulk::Compressor::new(OWN_BASE)?;
    for parameter in own_parameters(FASTEST, Literals::Compressed)
        .into_iter()
        .flatten()
    {
        looked.set_parameter(parameter)?;
    }
    let literals = if literals::are_worth_it(&looked.compress(sample)?) {
        Literals::Compressed
    } else {
        Literals::AsTheyAre
    };
    drop(looked);
    let mut encoder = open(sink, FASTEST, literals)?;
    encoder.write_all(sample)?;
    Ok(encoder)
}

impl<W: Write> ZstdEncoder<W> {
    fn begin(&mut self) -> io::Result<&mut zstd::stream::write::Encoder<'static, W>> {
        let sink = self.sink.take().ok_or_else(failed_before)?;
        let sample = std::mem::take(&mut self.sample);
        Ok(self.frame.insert(open_fastest(sink, &sample)?))
    }

    /// Ends the frame and gives the sink back, not flushed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.frame.is_none() {
            self.begin()?;
        }
        self.frame.ok_or_else(failed_before)?.finish()
    }

    /// The sink, as long as nothing has failed.
    #[cfg(test)]
    pub(super) fn get_ref(&self) -> &W {
        let frame = self
            .frame
            .as_ref()
            .map(zstd::stream::write::Encoder::get_ref);
        frame.or(self.sink.as_ref()).unwrap()
    }
}

impl<W: Write> Write for ZstdEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(frame) = &mut self.frame {
            return frame.write(bytes);
        }
        let taken = bytes.len().min(SAMPLE_BYTES - self.sample.len());
        self.sample.extend_from_slice(&bytes[..taken]);
        if self.sample.len() == SAMPLE_BYTES {
            self.begin()?;
        }
        Ok(taken)
    }

    /// What is still the sample stays one.
    fn flush(&mut self) -> io::Result<()> {
        self.frame.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// The sink is gone with the error that was told before.
fn failed_before() -> io::Error {
    io::Error::other("writing to the compressed stream has failed before")
}

/// The library's level whose other parameters our own ones are set beside.
pub(super) const OWN_BASE: i32 = 1;

/// The level that is for speed, and the default. It leaves literals as they are where compressing them saves little ([`super::literals`]).
const FASTEST: i32 = 1;

/// Whether a level goes by what its content shows.
pub(super) const fn has_choice(level: i32) -> bool {
    level == FASTEST
}

/// What levels 1 to 3 are. Theirs is the strategy that looks in one place, with matches of 5 bytes and more: numbers on a page differ in
/// few bytes, and the library's level 1 passes over matches below 7. A small window and a small table stay in the processor's
/// cache. Measured on pages, WAL, text and TOAST (bench/README.md). `None` for the levels that are the library's.
///
/// Where literals stay as they are, the fastest level has a table of half the size: the content is numbers then, whose matches are near, and
/// the table leaves room in the processor's first cache. A target length is the library's way to say so with this strategy.
pub(super) fn own_parameters(level: i32, literals: Literals) -> Option<[CParameter; 7]> {
    let (window_log, hash_log) = match (level, literals) {
        (FASTEST, Literals::AsTheyAre) => (18, 12),
        (FASTEST, Literals::Compressed) => (18, 13),
        (2, _) => (19, 14),
        // 0 is the library's word for 3.
        (0 | 3, _) => (20, 15),
        (SMALL, _) => return Some(SMALL_PARAMETERS),
        (SMALLEST, _) => return Some(SMALLEST_PARAMETERS),
        _ => return None,
    };
    Some([
        CParameter::WindowLog(window_log),
        CParameter::HashLog(hash_log),
        CParameter::ChainLog(hash_log),
        CParameter::SearchLog(1),
        CParameter::MinMatch(5),
        CParameter::TargetLength(u32::from(literals == Literals::AsTheyAre)),
        CParameter::Strategy(Strategy::ZSTD_fast),
    ])
}

/// A level of adaptive compression alone, beyond those that can be set: every second place is looked at, and matches have 7 bytes
/// and more. On pages the library's levels up to 13 are larger than our level 1, because they take shorter ones. Of 24 MB each: WAL
/// of pgbench 2.48 % (level 1: 2.75, the library's level 6: 2.49), of a load of measurements 40.3 (40.3, 42.1), their table 41.8
/// (42.2, 43.3), at a quarter of level 1's speed or less.
pub(super) const SMALL: i32 = 1001;

const SMALL_PARAMETERS: [CParameter; 7] = [
    CParameter::WindowLog(20),
    CParameter::HashLog(16),
    CParameter::ChainLog(17),
    CParameter::SearchLog(3),
    CParameter::MinMatch(7),
    CParameter::TargetLength(0),
    CParameter::Strategy(Strategy::ZSTD_lazy2),
];

/// The same, whatever it costs: what is cheapest to write down is searched for, with matches of 6 bytes and more. The same data:
/// 2.42, 39.2, 38.6 %, at a twentieth of level 1's speed.
pub(super) const SMALLEST: i32 = 1002;

const SMALLEST_PARAMETERS: [CParameter; 7] = [
    CParameter::WindowLog(20),
    CParameter::HashLog(17),
    CParameter::ChainLog(18),
    CParameter::SearchLog(3),
    CParameter::MinMatch(6),
    CParameter::TargetLength(32),
    CParameter::Strategy(Strategy::ZSTD_btopt),
];

/// What an encoder takes at the levels of adaptive compression: the window of 1 MiB, its tables, 0.8 MiB as below, and what is
/// weighed at the second.
const SMALL_BYTES: u64 = 3 << 20;
const SMALLEST_BYTES: u64 = 5 << 20;

/// What an encoder takes at the levels from 1 to 19, in MiB, rounded up: the window; hash and chain tables of 4 bytes an
/// entry (`lib/compress/clevels.h`); a window and two blocks of 128 KiB as buffers, sequences and tables of codes, 0.8 MiB.
/// A test compares it with what the library says.
const ENCODER_MIB: [u64; 19] = [
    2, 2, 2, 5, 6, 6, 8, 8, 15, 25, 25, 45, 37, 53, 69, 37, 58, 58, 90,
];

/// The memory that an encoder takes, in bytes. Levels below 0 take no more than level 1, and 0 is the library's default, 3.
pub(super) fn encoder_bytes(level: i32) -> u64 {
    match level {
        SMALL => return SMALL_BYTES,
        SMALLEST => return SMALLEST_BYTES,
        _ => {}
    }
    let level = if level == 0 { 3 } else { level };
    let above_first = usize::try_from(level.saturating_sub(1)).unwrap_or(0);
    let last = ENCODER_MIB.len() - 1;
    ENCODER_MIB[above_first.min(last)] << 20
}

/// How many frames an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameCount {
    /// One: its end is the object's.
    One,
    /// One and more, of which the last says nothing about being it: the content must have an end of its own.
    Several,
}

/// A decoder that refuses frames with a larger window than so many bytes (rounded up to a power of two).
pub(super) fn decoder<R: Read + Send + 'static>(
    source: R,
    window_max: u64,
    count: FrameCount,
) -> io::Result<Strict<ZstdFrames>> {
    let mut inner = raw::Decoder::new()?;
    let log = window_max.next_power_of_two().trailing_zeros();
    inner.set_parameter(DParameter::WindowLogMax(log.clamp(10, 27)))?;
    Ok(Strict::new(ZstdFrames {
        inner,
        source: Source::new(source),
        window_max,
        count,
        place: FramePlace::Within,
    }))
}

/// Where a decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FramePlace {
    /// Within a frame, or before the first.
    Within,
    /// Behind a frame; of the next one's magic number so many bytes were seen.
    Behind(usize),
}

pub(super) struct ZstdFrames {
    inner: raw::Decoder<'static>,
    source: Source,
    window_max: u64,
    count: FrameCount,
    place: FramePlace,
}

impl FrameDecoder for ZstdFrames {
    const NAME: &'static str = "zstd";
    const MAGIC: &'static [u8] = &[0x28, 0xB5, 0x2F, 0xFD];

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.source.fill_buf()?;
            let is_over = input.is_empty();
            if let FramePlace::Behind(seen) = self.place {
                if self.count == FrameCount::One || is_over && seen == 0 {
                    return Ok(0);
                }
                // The library passes over what says that it may be skipped, and nobody would know what it was.
                let magic = &Self::MAGIC[seen..];
                let compared = magic.len().min(input.len());
                if input[..compared] != magic[..compared] {
                    return Err(followed());
                }
            }
            let status = self.inner.run_on_buffers(input, out);
            let status = status.map_err(|error| explained(error, self.window_max))?;
            self.source.consume(status.bytes_read);
            self.place = match self.place {
                _ if status.remaining == 0 => FramePlace::Behind(0),
                FramePlace::Behind(seen) if seen + status.bytes_read < Self::MAGIC.len() => {
                    FramePlace::Behind(seen + status.bytes_read)
                }
                _ => FramePlace::Within,
            };
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
            if is_over && !self.is_complete() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.place == FramePlace::Behind(0)
    }

    fn source(&mut self) -> &mut Source {
        &mut self.source
    }
}

/// The library's words for `ZSTD_error_frameParameter_windowTooLarge` mean no damage.
fn explained(error: io::Error, window_max: u64) -> io::Error {
    if error.to_string().contains("too much memory") {
        let most = window_max >> 20;
        let message = format!("its window is larger than the {most} MiB that are set aside for it");
        return io::Error::new(io::ErrorKind::OutOfMemory, message);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a frame header up to where its window is known: magic number, descriptor, window; or descriptor, dictionary
    /// (at most 4) and content size (at most 8). RFC 8878, 3.1.1.1.
    const HEAD_BYTES: usize = 4 + 1 + 4 + 8;

    fn frame(
        set: impl FnOnce(&mut zstd::stream::write::Encoder<'static, Vec<u8>>),
        content: &[u8],
    ) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        set(&mut encoder);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn fault_92_the_window_of_a_frame_is_known_by_its_head() {
        for log in [10, 17, 23, 27] {
            let bytes = frame(|encoder| encoder.window_log(log).unwrap(), b"x");
            assert_eq!(
                window_bytes(&bytes[..HEAD_BYTES.min(bytes.len())]),
                Some(1 << log)
            );
        }
        for size in [10, 300, 70_000] {
            let content = vec![7; size];
            let bytes = zstd::bulk::compress(&content, 1).unwrap();
            let window = window_bytes(&bytes).unwrap();
            assert!(window >= size as u64, "{size}: {window}");
        }
        for head in [
            &b""[..],
            b"\x28\xb5\x2f\xfd",
            b"\x28\xb5\x2f\xfd\xe0\x00",
            b"LZ4 no zstd",
        ] {
            assert_eq!(window_bytes(head), None, "{head:?}");
        }
    }

    #[test]
    fn an_encoder_takes_what_is_counted_for_it() {
        use zstd::zstd_safe::{CCtx, InBuffer, OutBuffer};
        let mut plain = vec![0; 1 << 20];
        for (index, byte) in plain.iter_mut().enumerate() {
            *byte = u8::try_from(index * index / 7 % 251).unwrap();
        }
        let mut stored = vec![0; 2 << 20];
        for level in crate::CodecSettings::ZSTD_LEVELS.chain([SMALL, SMALLEST]) {
            let mut context = CCtx::create();
            let own = own_parameters(level, Literals::Compressed);
            let base = own.map_or(level, |_| OWN_BASE);
            context
                .set_parameter(CParameter::CompressionLevel(base))
                .unwrap();
            for parameter in own.into_iter().flatten() {
                context.set_parameter(parameter).unwrap();
            }
            let mut output = OutBuffer::around(stored.as_mut_slice());
            let mut input = InBuffer::around(&plain);
            context.compress_stream(&mut output, &mut input).unwrap();
            let (taken, counted) = (context.sizeof() as u64, encoder_bytes(level));
            assert!(
                (counted / 2..=counted).contains(&taken),
                "level {level}: {taken} bytes, {counted} are counted"
            );
        }
    }

    #[test]
    fn fault_92_a_window_that_is_too_large_is_no_damage() {
        let bytes = frame(|encoder| encoder.window_log(27).unwrap(), &vec![1; 100_000]);
        let read = |window_max| {
            let mut plain = Vec::new();
            decoder(io::Cursor::new(bytes.clone()), window_max, FrameCount::One)
                .unwrap()
                .read_to_end(&mut plain)
        };
        assert_eq!(
            read(8 << 20).unwrap_err().kind(),
            io::ErrorKind::OutOfMemory
        );
        assert_eq!(read(128 << 20).unwrap(), 100_000);
    }
}
