//! A partition as several zstd frames, one behind the other: each by one call over the plain bytes that it holds.
//!
//! `zstd -d`, `tar --zstd` and WAL-G read what follows as one stream. Frames can be decoded one by one: a file that is wanted
//! alone needs only those that hold it, and several threads can share a partition.
//!
//! Nothing in the last frame says that it is the last. So only what has an end of its own may be written and read this way: a
//! tar, whose end marks stand in the last frame.

use std::io::{self, Write};

use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use super::literals::LiteralsAhead;
use super::zstd_frame::{OWN_BASE, encoder_bytes, has_choice, own_parameters};

/// Plain bytes of a frame, at most. Measured on 472 MB of a data directory (time series, rows, JSON), beside frames of 8 MiB: 2 MiB make
/// the object larger by 0.07 % at level 1 and by 0.18 % at level 3, 1 MiB by 0.18 and 0.49 %, and levels 6 and 12 lose nothing
/// either. Smaller ones take less memory, plain and compressed, and less is read for one file.
pub(super) const FRAME_BYTES: usize = 2 << 20;

/// Plain bytes of the first frame: half a header of a tar. WAL-RUS 0.4 reads the first frame and takes its end for the end of the object.
/// Where that were the border of a member it would take the tar to be over and say that all is restored. So the tar
/// breaks off there in the midst of its first header, which every reader of tars refuses, before it has written a file.
pub(super) const FIRST_FRAME_BYTES: usize = 256;

/// Plain bytes of a frame that shows what the next ones' literals are worth. Less says nothing: the first frame is half a header.
const SHOWS_BYTES: usize = 128 << 10;

/// Where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStart {
    /// Offset in the plain bytes.
    pub plain: u64,
    /// Offset in the stored ones.
    pub stored: u64,
}

/// Compresses into frames.
pub(super) struct FramesEncoder<W> {
    sink: W,
    context: CCtx<'static>,
    level: i32,
    literals: LiteralsAhead,
    /// What the frame holds that is not yet written.
    plain: Vec<u8>,
    /// The frame as it is written.
    packed: Vec<u8>,
    frames: Vec<FrameStart>,
    /// Where the frame will begin.
    next: FrameStart,
}

/// The memory that such an encoder takes, in bytes: what the library takes, the plain bytes of a frame, and the compressed ones.
pub(super) fn frames_encoder_bytes(level: i32) -> u64 {
    encoder_bytes(level) + (FRAME_BYTES + compress_bound(FRAME_BYTES)) as u64
}

impl<W: Write> FramesEncoder<W> {
    pub(super) fn new(sink: W, level: i32) -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        let literals = LiteralsAhead::default();
        let own = own_parameters(level, literals.next());
        let base = if own.is_some() { OWN_BASE } else { level };
        set(
            &mut context,
            [
                CParameter::CompressionLevel(base),
                CParameter::ChecksumFlag(true),
            ],
        )?;
        set(&mut context, own.into_iter().flatten())?;
        Ok(Self {
            sink,
            context,
            level,
            literals,
            plain: Vec::with_capacity(FRAME_BYTES),
            packed: Vec::new(),
            frames: Vec::new(),
            next: FrameStart {
                plain: 0,
                stored: 0,
            },
        })
    }

    /// So many bytes follow that should be in one frame, where one can hold them; where none can, a frame begins with them.
    pub(super) fn begin_unit(&mut self, bytes: u64) -> io::Result<()> {
        let room = (self.most() - self.plain.len()) as u64;
        // The first frame ends where it ends.
        if bytes > room && !self.plain.is_empty() && !self.frames.is_empty() {
            return self.end_frame();
        }
        Ok(())
    }

    /// Plain bytes that the frame can hold.
    fn most(&self) -> usize {
        if self.frames.is_empty() {
            FIRST_FRAME_BYTES
        } else {
            FRAME_BYTES
        }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.packed.clear();
        self.packed.reserve_exact(compress_bound(self.plain.len()));
        let packed = self.context.compress2(&mut self.packed, &self.plain);
        packed.map_err(failed)?;
        if has_choice(self.level) && self.plain.len() >= SHOWS_BYTES {
            self.choose_literals()?;
        }
        self.sink.write_all(&self.packed)?;
        self.frames.push(self.next);
        self.next.plain += self.plain.len() as u64;
        self.next.stored += self.packed.len() as u64;
        self.plain.clear();
        Ok(())
    }

    /// Looks at the frame that was made, and sets the next one up.
    fn choose_literals(&mut self) -> io::Result<()> {
        let before = self.literals.next();
        self.literals.note(&self.packed);
        let next = self.literals.next();
        if next != before {
            let own = own_parameters(self.level, next);
            set(&mut self.context, own.into_iter().flatten())?;
        }
        Ok(())
    }

    /// Ends the last frame, and gives the sink back, not flushed, and where the frames begin.
    pub(super) fn finish(mut self) -> io::Result<(W, Vec<FrameStart>)> {
        if !self.plain.is_empty() || self.frames.is_empty() {
            self.end_frame()?;
        }
        Ok((self.sink, self.frames))
    }

    #[cfg(test)]
    pub(super) const fn get_ref(&self) -> &W {
        &self.sink
    }
}

impl<W: Write> Write for FramesEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.most() - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == self.most() {
            self.end_frame()?;
        }
        Ok(taken)
    }

    /// Does not end a frame.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn set(
    context: &mut CCtx<'static>,
    parameters: impl IntoIterator<Item = CParameter>,
) -> io::Result<()> {
    for parameter in parameters {
        context.set_parameter(parameter).map_err(failed)?;
    }
    Ok(())
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, ErrorKind, Read};

    use super::super::tests::sample;
    use super::super::{Codec, CodecSettings, WINDOW_MAX_BYTES};
    use super::*;

    /// Frames around units of these sizes.
    fn framed(level: i32, units: &[usize]) -> (Vec<u8>, Vec<u8>, Vec<FrameStart>) {
        let plain = sample(units.iter().sum());
        let mut encoder = FramesEncoder::new(Vec::new(), level).unwrap();
        let mut rest = &plain[..];
        for &unit in units {
            encoder.begin_unit(unit as u64).unwrap();
            for piece in rest[..unit].chunks(1 << 20) {
                encoder.write_all(piece).unwrap();
            }
            rest = &rest[unit..];
        }
        let (stored, frames) = encoder.finish().unwrap();
        (plain, stored, frames)
    }

    fn decode(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let source = Cursor::new(stored.to_vec());
        super::super::frames_decoder(Codec::Zstd, source, WINDOW_MAX_BYTES)?
            .read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn frames_end_where_units_do_and_the_first_in_the_midst_of_a_header() {
        let units = [
            1024,
            FRAME_BYTES - 768,
            512,
            FRAME_BYTES,
            2 * FRAME_BYTES + 512,
            1024,
        ];
        let (plain, stored, frames) = framed(1, &units);
        let begins: Vec<usize> = frames
            .iter()
            .map(|frame| usize::try_from(frame.plain).unwrap())
            .collect();
        let full = 1024 + FRAME_BYTES - 768;
        assert_eq!(
            begins,
            [
                0,
                FIRST_FRAME_BYTES,
                full,
                full + 512,
                full + 512 + FRAME_BYTES,
                full + 512 + 2 * FRAME_BYTES,
                full + 512 + 3 * FRAME_BYTES,
            ]
        );
        assert!(decode(&stored).unwrap() == plain);
        // Each stands by itself, and so does every row of them.
        for (from, frame) in frames.iter().enumerate() {
            let (begin, at) = (
                usize::try_from(frame.stored).unwrap(),
                usize::try_from(frame.plain).unwrap(),
            );
            let to = frames.get(from + 1);
            let end = to.map_or(stored.len(), |to| usize::try_from(to.stored).unwrap());
            let until = to.map_or(plain.len(), |to| usize::try_from(to.plain).unwrap());
            assert!(decode(&stored[begin..end]).unwrap() == plain[at..until]);
            assert!(decode(&stored[begin..]).unwrap() == plain[at..]);
        }
    }

    #[test]
    fn every_level_is_read_again_and_takes_what_is_counted_for_it() {
        let units = [FRAME_BYTES + 5000, 70_000];
        for level in CodecSettings::ZSTD_LEVELS {
            let plain = sample(units.iter().sum());
            let mut encoder = FramesEncoder::new(Vec::new(), level).unwrap();
            encoder.write_all(&plain).unwrap();
            let library = encoder.context.sizeof();
            let taken = (library + encoder.plain.capacity() + encoder.packed.capacity()) as u64;
            let counted = frames_encoder_bytes(level);
            assert!(
                (counted / 4..=counted).contains(&taken),
                "level {level}: {taken} bytes, {counted} are counted"
            );
            let (stored, _) = encoder.finish().unwrap();
            assert!(decode(&stored).unwrap() == plain, "level {level}");
        }
    }

    #[test]
    fn nothing_is_one_frame() {
        let (_, stored, frames) = framed(1, &[]);
        assert_eq!(frames.len(), 1);
        assert_eq!(decode(&stored).unwrap(), b"");
        assert_eq!(decode(b"").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_cut_is_noticed_everywhere_but_at_the_borders_of_frames() {
        let (plain, stored, frames) = framed(1, &[3000, 3000]);
        let borders: Vec<u64> = frames.iter().map(|frame| frame.stored).collect();
        assert_eq!(borders.len(), 2);
        for cut in 1..stored.len() {
            let read = decode(&stored[..cut]);
            if borders.contains(&(cut as u64)) {
                // The tar in it has to notice.
                assert!(read.unwrap() == plain[..FIRST_FRAME_BYTES]);
                continue;
            }
            let error = read.expect_err("truncated");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}: {error}");
        }
    }

    #[test]
    fn only_frames_may_follow_and_none_that_is_skipped() {
        let (plain, stored, _) = framed(1, &[3000]);
        let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd";
        for tail in [
            &b"\0"[..],
            b"garbage",
            skippable,
            b"\x28\xb5\x2f\xfe",
            &[0; 5000],
        ] {
            let error = decode(&[&stored, tail].concat()).expect_err("trailing bytes");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{tail:?}: {error}");
            assert!(error.to_string().contains("other bytes"), "{error}");
        }
        let error = decode(&[&stored[..], b"\x28\xb5"].concat()).expect_err("a cut");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(decode(&[&skippable[..], &stored].concat()).is_err());
        assert!(decode(&[&stored[..], &stored].concat()).unwrap() == [&plain[..], &plain].concat());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (plain, stored, _) = framed(1, &[10_000]);
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            changed[at] ^= 0x10;
            if let Ok(decoded) = decode(&changed) {
                assert!(decoded == plain, "byte {at}");
            }
        }
    }
}
