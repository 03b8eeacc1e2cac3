//! What the literals of a zstd frame are worth compressing.
//!
//! What no match covers is a literal, and zstd looks for a shorter code for them. In text that is a third of the object. In numbers,
//! which most of a database and of its WAL is, it is a thirtieth, for a tenth of the time of writing and a sixth of that of reading.
//! A frame says how much it was, so the fastest level goes by what it has seen.
//!
//! The format: RFC 8878, 3.1.1.1 (frame header), 3.1.1.2 (blocks), 3.1.1.3.1 (literals section).

/// Literals stay as they are where less than one part in so many of the stored bytes is saved. In frames of time series and of
/// pgbench's tables a thirtieth to a fiftieth is, in JSON a fifth and more.
const WORTH_ONE_IN: usize = 20;

/// So many frames follow each other with literals as they are. Then one is compressed whole again, and shows whether the content has
/// changed: text that follows numbers is noticed within 16 MiB.
const PROBE_EVERY: u32 = 8;

/// What the next frame's literals are, by what the frames before it showed.
#[derive(Debug, Default)]
pub(super) struct LiteralsAhead {
    /// So many frames are still to come that leave them as they are.
    as_they_are: u32,
}

impl LiteralsAhead {
    /// What is done with the literals of the frame that is written next.
    pub(super) const fn next(&self) -> Literals {
        if self.as_they_are > 0 {
            Literals::AsTheyAre
        } else {
            Literals::Compressed
        }
    }

    /// Notes what was written as [`LiteralsAhead::next`] said.
    pub(super) fn note(&mut self, frame: &[u8]) {
        match self.next() {
            Literals::AsTheyAre => self.as_they_are -= 1,
            Literals::Compressed if are_worth_it(frame) => {}
            Literals::Compressed => self.as_they_are = PROBE_EVERY,
        }
    }
}

/// What is done with literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literals {
    /// Coded where that is shorter.
    Compressed,
    /// Stored.
    AsTheyAre,
}

/// Whether compressing the literals of this whole frame has saved enough. What cannot be read says yes: then all goes on as it was.
pub(super) fn are_worth_it(frame: &[u8]) -> bool {
    saved_bytes(frame).is_none_or(|saved| saved >= frame.len() / WORTH_ONE_IN)
}

/// Bytes that the codes of the literals have saved in a frame; `None` where it is none or is cut.
fn saved_bytes(frame: &[u8]) -> Option<usize> {
    let mut rest = frame.get(header_bytes(frame)?..)?;
    let mut saved = 0;
    loop {
        let (head, blocks) = rest.split_at_checked(3)?;
        let head = little_endian(head);
        let size = head >> 3;
        let stored = match head >> 1 & 3 {
            // One byte that is repeated.
            1 => 1,
            2 => {
                saved += saved_in_block(blocks.get(..size)?)?;
                size
            }
            _ => size,
        };
        rest = blocks.get(stored..)?;
        if head & 1 == 1 {
            return Some(saved);
        }
    }
}

/// Bytes of a frame's header.
fn header_bytes(frame: &[u8]) -> Option<usize> {
    let descriptor = *frame.get(4)?;
    let is_single_segment = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    Some(5 + usize::from(!is_single_segment) + dictionary + size)
}

/// What the literals section at the beginning of a compressed block has saved.
fn saved_in_block(block: &[u8]) -> Option<usize> {
    let first = *block.first()?;
    if first & 3 < 2 {
        // Stored, or one byte that is repeated.
        return Some(0);
    }
    let (bytes, bits) = match first >> 2 & 3 {
        0 | 1 => (3, 10),
        2 => (4, 14),
        _ => (5, 18),
    };
    let head = little_endian(block.get(..bytes)?);
    let most = (1 << bits) - 1;
    let (plain, coded) = (head >> 4 & most, head >> (4 + bits) & most);
    Some(plain.saturating_sub(coded))
}

/// Up to five bytes as a number.
fn little_endian(bytes: &[u8]) -> usize {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |value, byte| value << 8 | usize::from(*byte))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read as _, Write as _};

    use super::super::tests::sample;
    use super::*;

    /// A frame of the library's level 1, with its literals coded or not.
    fn frame(content: &[u8], literals: Literals) -> Vec<u8> {
        let mut library = zstd::bulk::Compressor::new(1).unwrap();
        let length = u32::from(literals == Literals::AsTheyAre);
        let length = zstd::zstd_safe::CParameter::TargetLength(length);
        library.set_parameter(length).unwrap();
        library.compress(content).unwrap()
    }

    #[test]
    fn what_the_codes_save_is_what_the_frame_is_larger_without_them() {
        for content in [text(3_000_000), sample(700_000), numbers(2_000_000)] {
            let coded = frame(&content, Literals::Compressed);
            let without = frame(&content, Literals::AsTheyAre);
            let larger = without.len() - coded.len();
            let saved = saved_bytes(&coded).unwrap();
            // Where literals are stored, zstd parts some blocks elsewhere.
            assert!(
                saved.abs_diff(larger) <= 500 + coded.len() / 50,
                "{saved}, {larger}"
            );
            assert_eq!(saved_bytes(&without), Some(0));
        }
    }

    #[test]
    fn text_is_worth_it_and_numbers_are_not() {
        assert!(are_worth_it(&frame(&text(1_000_000), Literals::Compressed)));
        assert!(!are_worth_it(&frame(
            &numbers(1_000_000),
            Literals::Compressed
        )));
    }

    #[test]
    fn what_is_no_whole_frame_says_nothing() {
        let whole = frame(&text(500_000), Literals::Compressed);
        for cut in 0..whole.len() {
            assert_eq!(saved_bytes(&whole[..cut]), None, "{cut}");
        }
        assert!(saved_bytes(&whole).is_some());
        for seed in 0..2000_u32 {
            let noise: Vec<u8> = (0..64_u32)
                .map(|at| {
                    seed.wrapping_mul(2_654_435_761)
                        .wrapping_add(at * 40_503)
                        .to_le_bytes()[1]
                })
                .collect();
            let _ = saved_bytes(&noise);
        }
    }

    #[test]
    fn numbers_leave_literals_alone_until_the_next_look() {
        let (text, numbers) = (
            frame(&text(1_000_000), Literals::Compressed),
            frame(&numbers(1_000_000), Literals::Compressed),
        );
        let mut ahead = LiteralsAhead::default();
        ahead.note(&text);
        assert_eq!(ahead.next(), Literals::Compressed);
        ahead.note(&numbers);
        for _ in 0..PROBE_EVERY {
            assert_eq!(ahead.next(), Literals::AsTheyAre);
            ahead.note(&text);
        }
        assert_eq!(ahead.next(), Literals::Compressed);
        ahead.note(&text);
        assert_eq!(ahead.next(), Literals::Compressed);
    }

    #[test]
    fn one_frame_goes_by_its_beginning_and_several_by_those_before() {
        let settings = crate::CodecSettings::from(crate::Codec::Zstd);
        for (content, is_coded) in [(text(6 << 20), true), (numbers(6 << 20), false)] {
            let mut one = super::super::encoder(settings, Vec::new()).unwrap();
            // By pieces that end within the sample, and behind it.
            for piece in content.chunks(100_000) {
                one.write_all(piece).unwrap();
            }
            let one = one.finish().unwrap();
            assert_eq!(saved_bytes(&one).unwrap() > 0, is_coded);
            let mut several = super::super::partition_encoder(settings, Vec::new()).unwrap();
            // A first frame whose literals are worth nothing decides nothing.
            let content = [vec![0; 256], content].concat();
            several.write_all(&content).unwrap();
            let (several, frames) = several.finish_frames().unwrap();
            let second = usize::try_from(frames[1].stored).unwrap();
            let third = usize::try_from(frames[2].stored).unwrap();
            assert!(saved_bytes(&several[second..third]).unwrap() > 0);
            let last = usize::try_from(frames.last().unwrap().stored).unwrap();
            assert_eq!(saved_bytes(&several[last..]).unwrap() > 0, is_coded);
            for (stored, content) in [(one, &content[256..]), (several, &content)] {
                let source = std::io::Cursor::new(stored);
                let mut decoder =
                    super::super::frames_decoder(settings.codec, source, 1 << 20).unwrap();
                let mut plain = Vec::new();
                decoder.read_to_end(&mut plain).unwrap();
                assert!(plain == content);
            }
        }
    }

    /// Words by an uneven law, from a fixed seed.
    pub(in super::super) fn text(bytes: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut content = Vec::with_capacity(bytes + 16);
        while content.len() < bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let letters = 2 + (state >> 60) as usize;
            for place in 0..letters {
                let skewed = (state >> (place * 3)) & 63;
                content.push(b'a' + (skewed * skewed / 160).to_le_bytes()[0]);
            }
            content.push(b' ');
        }
        content.truncate(bytes);
        content
    }

    /// Rows of a time series as they lie on pages: a header, a time, a device, a value.
    pub(in super::super) fn numbers(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut content = Vec::with_capacity(bytes + 64);
        for row in 0_u64.. {
            if content.len() >= bytes {
                break;
            }
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            content.extend_from_slice(&[0xDA, 2, 0, 0, 0, 0, 0, 0, 4, 0, 2, 9, 24, 0, 0, 0]);
            content.extend_from_slice(&(row * 1_000_000 + 0x0002_9C3A_0000_0000).to_le_bytes());
            content.extend_from_slice(&(row % 50).to_le_bytes());
            content.extend_from_slice(&(state >> 12 | 0x4059 << 48).to_le_bytes());
        }
        content.truncate(bytes);
        content
    }
}
