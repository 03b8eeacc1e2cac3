//! Zstandard: RFC 8878, content checksums on. Follows the `zstd` library 1.5.
//!
//! What wale writes is one frame, or several that follow each other, which every reader of zstd takes for one stream. A **full**
//! frame ([`is_full`]) is followed by another one; any other is the last.

use std::io::{self, BufRead, Read, Write};

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, Strategy};

use super::strict::{FrameDecoder, Source, Strict};

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

/// Plain bytes of a full frame at the levels up to 3. More gains nothing there, and costs memory.
const FRAME_BYTES: usize = (1 << 20) - 1;

/// Plain bytes of a full frame at the levels above, which find more in more.
const LARGE_FRAME_BYTES: usize = (4 << 20) - 1;

/// How hard a level tries, and over how much at a time.
///
/// Levels 1 to 3 are parameters of our own, and the others the library's. All three are the strategy that looks in one place; they differ
/// from the library's level 1 in the least length of a match, 5 bytes where that has 7: numbers on a page differ in few bytes.
/// Measured on pages, WAL, text and TOAST (bench/README.md).
#[derive(Debug)]
struct Effort {
    /// The library's level.
    base: i32,
    /// The size of the table that our own parameters have, as a power of two.
    hash_log: Option<u32>,
    /// Plain bytes of a full frame.
    frame_bytes: usize,
}

impl Effort {
    /// The least length of a match in our own parameters.
    const MIN_MATCH: u32 = 5;
    /// The window of our own parameters as a power of two: a whole frame.
    const WINDOW_LOG: u32 = 20;

    const fn of(level: i32) -> Self {
        let (base, hash_log, frame_bytes) = match level {
            ..=-1 => (level, None, FRAME_BYTES),
            1 => (1, Some(13), FRAME_BYTES),
            2 => (1, Some(14), FRAME_BYTES),
            // 0 is the library's word for 3.
            0 | 3 => (1, Some(15), FRAME_BYTES),
            4.. => (level, None, LARGE_FRAME_BYTES),
        };
        Self {
            base,
            hash_log,
            frame_bytes,
        }
    }

    fn context(&self) -> io::Result<CCtx<'static>> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        let own = self.hash_log.map(|hash_log| {
            [
                CParameter::WindowLog(Self::WINDOW_LOG),
                CParameter::HashLog(hash_log),
                CParameter::ChainLog(hash_log),
                CParameter::SearchLog(1),
                CParameter::MinMatch(Self::MIN_MATCH),
                CParameter::TargetLength(0),
                CParameter::Strategy(Strategy::ZSTD_fast),
            ]
        });
        let all = [
            CParameter::CompressionLevel(self.base),
            CParameter::ChecksumFlag(true),
        ];
        for parameter in all.into_iter().chain(own.into_iter().flatten()) {
            context.set_parameter(parameter).map_err(library)?;
        }
        Ok(context)
    }
}

/// The library's words for one of its codes.
fn library(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}

/// Whether a frame of so many plain bytes is followed by another one. It is what tells a cut between two frames from the end.
/// Neither number is one that a tar or a segment has.
const fn is_full(plain_bytes: u64) -> bool {
    plain_bytes == FRAME_BYTES as u64 || plain_bytes == LARGE_FRAME_BYTES as u64
}

/// Compresses what is written to it: full frames, and one that is not full at the end. One call for each, over all its
/// bytes: where the library gets them piece by piece, it copies them, and searches in two places.
pub(super) struct ZstdWriter<W: Write> {
    sink: W,
    context: CCtx<'static>,
    plain: Vec<u8>,
    frame_bytes: usize,
    stored: Vec<u8>,
}

pub(super) fn encoder<W: Write>(sink: W, level: i32) -> io::Result<ZstdWriter<W>> {
    let effort = Effort::of(level);
    Ok(ZstdWriter {
        sink,
        context: effort.context()?,
        plain: Vec::new(),
        frame_bytes: effort.frame_bytes,
        stored: Vec::new(),
    })
}

impl<W: Write> ZstdWriter<W> {
    /// Writes what has come as a frame.
    fn end_frame(&mut self) -> io::Result<()> {
        self.stored.clear();
        self.stored
            .reserve(zstd_safe::compress_bound(self.plain.len()));
        self.context
            .compress2(&mut self.stored, &self.plain)
            .map_err(library)?;
        self.plain.clear();
        self.sink.write_all(&self.stored)
    }

    /// Ends the stream and gives the sink back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let is_followed = is_full(self.plain.len() as u64);
        self.end_frame()?;
        if is_followed {
            self.end_frame()?;
        }
        Ok(self.sink)
    }

    #[cfg(test)]
    pub(super) const fn get_ref(&self) -> &W {
        &self.sink
    }
}

impl<W: Write> Write for ZstdWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() == self.frame_bytes {
            self.end_frame()?;
        }
        let taken = bytes.len().min(self.frame_bytes - self.plain.len());
        let needed = self.plain.len() + taken;
        if needed > self.plain.capacity() {
            // Small objects are many, so the room grows as it is needed, and never beyond a frame.
            let room = needed.max(2 * self.plain.capacity()).min(self.frame_bytes);
            self.plain.reserve_exact(room - self.plain.len());
        }
        self.plain.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Flushes the sink. What has come of a frame stays here: only [`ZstdWriter::finish`] ends one early.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// What an encoder takes at the levels from 1 to 19, in MiB, rounded up: the plain bytes of a frame and the room for what becomes of
/// them; hash and chain tables of 4 bytes an entry (`lib/compress/clevels.h`); sequences and tables of codes, 0.5 MiB.
/// A test compares it with what the library says.
const ENCODER_MIB: [u64; 19] = [
    3, 3, 3, 11, 12, 12, 14, 14, 19, 29, 29, 49, 41, 57, 73, 41, 57, 58, 58,
];

/// The memory that an encoder takes, in bytes. Levels below 0 take no more than level 1, and 0 is level 3.
pub(super) fn encoder_bytes(level: i32) -> u64 {
    let level = if level == 0 { 3 } else { level };
    let above_first = usize::try_from(level.saturating_sub(1)).unwrap_or(0);
    let last = ENCODER_MIB.len() - 1;
    ENCODER_MIB[above_first.min(last)] << 20
}

/// A decoder that refuses frames with a larger window than so many bytes (rounded up to a power of two).
pub(super) fn decoder<R: Read + Send + 'static>(
    source: R,
    window_max: u64,
) -> io::Result<Strict<ZstdFrames>> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let log = window_max.next_power_of_two().trailing_zeros();
    context
        .set_parameter(DParameter::WindowLogMax(log.clamp(10, 27)))
        .map_err(library)?;
    Ok(Strict::new(ZstdFrames {
        context,
        source: Source::new(source),
        window_max,
        in_frame: 0,
        ended: None,
    }))
}

/// Full frames, and one that is not full: the last. A foreign stream is one frame, whose length is hardly ever that of a full one.
pub(super) struct ZstdFrames {
    context: DCtx<'static>,
    source: Source,
    window_max: u64,
    /// Plain bytes that have come of the frame that is being read.
    in_frame: u64,
    /// The plain bytes of the frame that has ended, where none has begun since.
    ended: Option<u64>,
}

impl ZstdFrames {
    /// One call of the library. `Ok(0)` bytes: nothing has come out, but something went in, or the frame has ended.
    fn step(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let stored = self.source.fill_buf()?;
        let is_at_end = stored.is_empty();
        if is_at_end && self.ended.is_some() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = InBuffer::around(stored);
        let mut output = OutBuffer::around(out);
        let result = self.context.decompress_stream(&mut output, &mut input);
        let (taken, made) = (input.pos(), output.pos());
        let left = result.map_err(|code| self.explain(code))?;
        self.source.consume(taken);
        self.in_frame += made as u64;
        self.ended = None;
        if left == 0 {
            self.ended = Some(std::mem::take(&mut self.in_frame));
        } else if is_at_end && made == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(made)
    }

    fn explain(&self, code: usize) -> io::Error {
        let error = library(code);
        // The library's words for ZSTD_error_frameParameter_windowTooLarge: nothing is damaged.
        if error.to_string().contains("too much memory") {
            let most = self.window_max >> 20;
            let message =
                format!("its window is larger than the {most} MiB that are set aside for it");
            return io::Error::new(io::ErrorKind::OutOfMemory, message);
        }
        error
    }
}

impl FrameDecoder for ZstdFrames {
    const NAME: &'static str = "zstd";
    const MAGIC: &'static [u8] = &[0x28, 0xB5, 0x2F, 0xFD];

    fn decode(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.is_complete() {
            let made = self.step(out)?;
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }

    fn is_complete(&self) -> bool {
        self.ended.is_some_and(|bytes| !is_full(bytes))
    }

    fn source(&mut self) -> &mut Source {
        &mut self.source
    }
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

    /// Bytes that look like a table of numbers.
    fn numbers(bytes: usize) -> Vec<u8> {
        let mut plain = vec![0; bytes];
        for (index, byte) in plain.iter_mut().enumerate() {
            *byte = u8::try_from(index * index / 7 % 251).unwrap();
        }
        plain
    }

    fn written(level: i32, plain: &[u8]) -> Vec<u8> {
        let mut encoder = encoder(Vec::new(), level).unwrap();
        for piece in plain.chunks(300_000) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn read(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decoder(io::Cursor::new(stored.to_vec()), 8 << 20)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn an_encoder_takes_what_is_counted_for_it() {
        for level in crate::CodecSettings::ZSTD_LEVELS {
            let mut encoder = encoder(io::sink(), level).unwrap();
            let plain = numbers(encoder.frame_bytes + 1);
            // Every other step of the capacity, so that it does not come out even by luck.
            for piece in plain.chunks(100_001) {
                encoder.write_all(piece).unwrap();
            }
            let taken = encoder.context.sizeof() as u64
                + (encoder.plain.capacity() + encoder.stored.capacity()) as u64;
            let counted = encoder_bytes(level);
            assert!(
                (counted / 2..=counted).contains(&taken),
                "level {level}: {taken} bytes, {counted} are counted"
            );
        }
    }

    #[test]
    fn frames_of_every_length_are_read_as_one_stream_by_us_and_by_the_library() {
        for (level, full) in [(1, FRAME_BYTES), (3, FRAME_BYTES), (4, LARGE_FRAME_BYTES)] {
            for bytes in [0, 1, full - 1, full, full + 1, 2 * full, FRAME_BYTES] {
                let plain = numbers(bytes);
                let stored = written(level, &plain);
                assert!(
                    read(&stored).unwrap() == plain,
                    "level {level}, {bytes} bytes"
                );
                let theirs = zstd::decode_all(stored.as_slice()).unwrap();
                assert!(theirs == plain, "level {level}, {bytes} bytes");
            }
        }
    }

    #[test]
    fn a_cut_between_two_frames_is_noticed() {
        for (level, full) in [(1, FRAME_BYTES), (4, LARGE_FRAME_BYTES)] {
            let stored = written(level, &numbers(3 * full));
            let mut cuts = 0;
            for cut in 1..stored.len() {
                if stored[cut..].starts_with(ZstdFrames::MAGIC) {
                    cuts += 1;
                    let error = read(&stored[..cut]).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
                }
            }
            assert!(cuts >= 3, "three full frames and an empty one: {cuts}");
        }
    }

    #[test]
    fn what_was_written_without_its_end_is_no_stream() {
        let mut encoder = encoder(Vec::new(), 1).unwrap();
        encoder.write_all(&numbers(2 * FRAME_BYTES + 1)).unwrap();
        encoder.flush().unwrap();
        let error = read(encoder.get_ref()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn fault_92_a_window_that_is_too_large_is_no_damage() {
        let bytes = frame(|encoder| encoder.window_log(27).unwrap(), &vec![1; 100_000]);
        let read = |window_max| {
            let mut plain = Vec::new();
            decoder(io::Cursor::new(bytes.clone()), window_max)
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
