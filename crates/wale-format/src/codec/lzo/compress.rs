//! LZO1X-1: a greedy encoder of the LZO1X bit stream.
//!
//! Refuses to know: blocks, headers, checksums. Written from the description of the stream in the Linux kernel's
//! documentation (`Documentation/staging/lzo.rst`), which says what a decoder does with each instruction:
//!
//! | first byte | means | what follows |
//! |---|---|---|
//! | `1LLDDDSS`, `01LDDDSS` | copy 3 to 8 bytes from at most 2 KiB back | 1 byte of distance |
//! | `001LLLLL` | copy 2 + L bytes from at most 16 KiB back; L = 0: 33 + extension | 2 bytes of distance and `SS` |
//! | `0001HLLL` | copy 2 + L bytes from 16 to 48 KiB back; L = 0: 9 + extension | 2 bytes of distance and `SS` |
//! | `0000LLLL`, after a copy with `SS` = 0 | 3 + L plain bytes; L = 0: 18 + extension | the bytes |
//! | 18 to 255, at the very beginning | that many less 17 plain bytes | the bytes |
//!
//! `SS` is the number of plain bytes (0 to 3) after the copy. An extension is a run of zero bytes, 255 each, and a last
//! byte that is not zero. The stream ends with `11 00 00`. The two short copies that a decoder knows after plain bytes
//! (`0000DDSS`) are not used: they save a byte where hardly anything is to be saved.

/// Slots of the table of positions: 2^13 × 4 bytes = 32 KiB, which a processor's first-level cache holds.
const TABLE_BITS: u32 = 13;
/// The farthest that an instruction reaches: 16 KiB + 2^14 + (2^14 - 1).
const DISTANCE_MAX: usize = 0xBFFF;
const NEAR_MAX: usize = 0x0800;
const MIDDLE_MAX: usize = 0x4000;
/// Shorter copies are not looked for.
const MATCH_MIN: usize = 4;
/// The search stops so far before the end that it may read 16 bytes wherever it stands.
const TAIL_BYTES: usize = 16;
/// After 2^6 = 64 bytes without a copy each step is one byte longer: what does not compress is soon passed.
const SKIP_SHIFT: u32 = 6;

/// The longest stream that `plain` bytes can become, as LZO itself reckons it (`LZO.FAQ`): n + n / 16 + 64 + 3.
///
/// A copy may be no gain: four bytes from more than 2 KiB back take three, and 19 plain bytes after it two more for
/// their number. So 23 bytes become 24 at worst, again and again, and the remainder is room for the ends and for the
/// sixteen bytes that are written at once.
pub(super) const fn bound(plain: usize) -> usize {
    plain + plain / 16 + 64 + 3
}

/// Compresses blocks. Holds the table between blocks, 32 KiB.
pub(super) struct Compressor {
    table: Box<[u32; 1 << TABLE_BITS]>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            table: vec![0; 1 << TABLE_BITS]
                .try_into()
                .expect("as many slots as the table has"),
        }
    }

    /// Writes `plain` as one LZO1X stream into `out`, which has at least [`bound`] bytes; returns its length.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut [u8]) -> usize {
        self.table.fill(0);
        let mut stream = Stream {
            plain,
            out,
            length: 0,
        };
        // Every slot says position 0 at first, which is as good a candidate as any: candidates are compared.
        let mut at = 1;
        let mut anchor = 0;
        while let Some((found, candidate)) = self.search(plain, at, anchor) {
            let count = MATCH_MIN + common(plain, candidate + MATCH_MIN, found + MATCH_MIN);
            stream.literals(anchor, found);
            stream.copy(count, found - candidate);
            at = found + count;
            anchor = at;
            // The end of a copy is where the next one often begins.
            if at < plain.len().saturating_sub(TAIL_BYTES) {
                let slot = slot(word(plain, at - 2));
                self.table[slot] = narrow(at - 2);
            }
        }
        stream.last_literals(anchor);
        stream.put(&[0x11, 0, 0]);
        stream.length
    }

    /// The next position from `at` on where four bytes stand that stood before, and where they stood.
    #[inline]
    fn search(&mut self, plain: &[u8], mut at: usize, anchor: usize) -> Option<(usize, usize)> {
        let end = plain.len().checked_sub(TAIL_BYTES)?;
        while at < end {
            let sequence = word(plain, at);
            let slot = slot(sequence);
            let candidate = self.table[slot] as usize;
            self.table[slot] = narrow(at);
            if at - candidate <= DISTANCE_MAX && word(plain, candidate) == sequence {
                return Some((at, candidate));
            }
            at += 1 + ((at - anchor) >> SKIP_SHIFT);
        }
        None
    }
}

struct Stream<'a> {
    plain: &'a [u8],
    out: &'a mut [u8],
    length: usize,
}

impl Stream<'_> {
    #[inline]
    fn byte(&mut self, byte: usize) {
        self.out[self.length] = low(byte);
        self.length += 1;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// The plain bytes before a copy; at least [`TAIL_BYTES`] of the block follow them.
    #[inline]
    fn literals(&mut self, from: usize, to: usize) {
        let count = to - from;
        if count == 0 {
            return;
        }
        self.literal_length(count);
        if count <= 16 {
            // Sixteen bytes at once, of which the rest is written over, are faster than the right number.
            let piece: [u8; 16] = self.plain[from..from + 16]
                .try_into()
                .expect("sixteen bytes");
            self.out[self.length..self.length + 16].copy_from_slice(&piece);
            self.length += count;
        } else {
            self.put(&self.plain[from..to]);
        }
    }

    /// The plain bytes at the end of the block.
    fn last_literals(&mut self, from: usize) {
        if from < self.plain.len() {
            self.literal_length(self.plain.len() - from);
            self.put(&self.plain[from..]);
        }
    }

    #[inline]
    fn literal_length(&mut self, count: usize) {
        match count {
            // At the very beginning there is no copy that could carry the number.
            _ if self.length == 0 && count <= 238 => self.byte(17 + count),
            // Its low bits stand one byte before the last, whichever instruction it was.
            1..=3 => self.out[self.length - 2] |= low(count),
            4..=18 => self.byte(count - 3),
            _ => {
                self.byte(0);
                self.extension(count - 18);
            }
        }
    }

    #[inline]
    fn copy(&mut self, count: usize, distance: usize) {
        if distance <= NEAR_MAX && count <= 8 {
            let back = distance - 1;
            self.byte(((count - 1) << 5) | ((back & 7) << 2));
            self.byte(back >> 3);
            return;
        }
        let back = if distance <= MIDDLE_MAX {
            self.copy_length(0x20, 33, count);
            distance - 1
        } else {
            let back = distance - MIDDLE_MAX;
            self.copy_length(0x10 | ((back >> 11) & 8), 9, count);
            back & (MIDDLE_MAX - 1)
        };
        self.byte((back << 2) & 0xFF);
        self.byte(back >> 6);
    }

    /// `most` is the greatest length that fits into the instruction.
    #[inline]
    fn copy_length(&mut self, instruction: usize, most: usize, count: usize) {
        if count <= most {
            self.byte(instruction | (count - 2));
        } else {
            self.byte(instruction);
            self.extension(count - most);
        }
    }

    fn extension(&mut self, mut rest: usize) {
        while rest > 255 {
            self.byte(0);
            rest -= 255;
        }
        self.byte(rest);
    }
}

/// How many bytes are equal from two positions on, up to the end of the block.
#[inline]
fn common(plain: &[u8], one: usize, other: usize) -> usize {
    let tail = &plain[other..];
    let head = &plain[one..one + tail.len()];
    let mut count = 0;
    for (a, b) in head.chunks_exact(8).zip(tail.chunks_exact(8)) {
        let a = u64::from_le_bytes(a.try_into().expect("eight bytes"));
        let b = u64::from_le_bytes(b.try_into().expect("eight bytes"));
        let difference = a ^ b;
        if difference != 0 {
            return count + difference.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    let rest = head[count..].iter().zip(&tail[count..]);
    count + rest.take_while(|(a, b)| a == b).count()
}

#[inline]
fn word(plain: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(plain[at..at + 4].try_into().expect("four bytes"))
}

/// Knuth's multiplicative hash (The Art of Computer Programming, 6.4): 2^32 divided by the golden ratio.
#[inline]
const fn slot(sequence: u32) -> usize {
    (sequence.wrapping_mul(2_654_435_761) >> (32 - TABLE_BITS)) as usize
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a block has 256 KiB at most"
)]
const fn narrow(at: usize) -> u32 {
    at as u32
}

#[inline]
const fn low(value: usize) -> u8 {
    debug_assert!(value <= 0xFF, "an instruction has eight bits");
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compress(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; bound(plain.len())];
        let length = Compressor::new().compress(plain, &mut out);
        out.truncate(length);
        out
    }

    fn round_trip(plain: &[u8]) -> Vec<u8> {
        let stream = compress(plain);
        let mut out = vec![0; plain.len()];
        let length = lzokay::decompress::decompress(&stream, &mut out).expect("a valid stream");
        assert!(length == plain.len() && out == plain);
        stream
    }

    /// Bytes without any repetition of four.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        (0..bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    #[test]
    fn known_streams() {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"", b"\x11\0\0"),
            (b"abc", b"\x14abc\x11\0\0"),
            // 5 plain bytes, then 27 from one byte back (25 fits into the instruction), and five at the end.
            (
                b"hello hello hello hello hello hello\n",
                b"\x17hello \x3a\x14\0\x04o hello\n",
            ),
        ];
        assert_eq!(compress(cases[0].0), cases[0].1);
        assert_eq!(compress(cases[1].0), cases[1].1);
        round_trip(cases[2].0);
    }

    #[test]
    fn every_count_of_literals_and_every_length_and_distance_of_a_copy() {
        let noise = noise(60_000);
        let literals = [
            1, 2, 3, 4, 15, 16, 17, 18, 19, 200, 238, 239, 272, 273, 274, 528, 529, 5000,
        ];
        let lengths = [
            4, 5, 8, 9, 10, 32, 33, 34, 35, 263, 264, 265, 287, 288, 289, 543, 544, 3000,
        ];
        let distances = [
            2047, 2048, 2049, 16_383, 16_384, 16_385, 32_767, 32_768, 32_769, 49_150, 49_151,
            49_152,
        ];
        for &count in &literals {
            round_trip(&[&noise[..count], &noise[..count], &[7; 40]].concat());
            for length in lengths {
                // What comes first decides about the very first instruction; the second run is an ordinary one.
                let plain = [
                    &noise[..count],
                    &[7; 40],
                    &noise[300..300 + count],
                    &vec![9; length],
                ];
                round_trip(&plain.concat());
            }
        }
        for distance in distances {
            for length in lengths {
                let source = &noise[..distance];
                let repeated = &noise[..length.min(distance)];
                round_trip(&[source, repeated, &noise[..40]].concat());
            }
        }
    }

    #[test]
    fn what_repeats_becomes_small_and_what_does_not_stays_below_the_bound() {
        assert!(round_trip(&vec![0; 262_144]).len() < 1100);
        let noise = noise(262_144);
        let stream = round_trip(&noise);
        assert!(stream.len() <= bound(noise.len()), "{}", stream.len());
        // A copy from the farthest that can be reached is found.
        let far = [&noise[..60], &vec![0; DISTANCE_MAX - 60], &noise[..60]].concat();
        assert!(round_trip(&far).len() < 300);
    }

    /// Four bytes that stood at least so far back, then bytes that are new, again and again.
    fn short_copies(length: usize, back: usize, fresh: usize) -> Vec<u8> {
        let mut fresh_bytes = noise(length + back).into_iter();
        let mut plain: Vec<u8> = fresh_bytes.by_ref().take(back).collect();
        while plain.len() < length {
            let from = plain.len() - back;
            plain.extend_from_within(from..from + 4);
            plain.extend(fresh_bytes.by_ref().take(fresh));
        }
        plain.truncate(length);
        plain
    }

    /// A bound that reckons with plain bytes alone is too small for these: the encoder ran over its end.
    #[test]
    fn copies_that_are_no_gain_stay_below_the_bound() {
        let plain = short_copies(262_144, 2_185, 19);
        let stream = round_trip(&plain);
        assert!(
            stream.len() > plain.len() + plain.len() / 255 + 32,
            "{}: the pattern is no longer the worst",
            stream.len()
        );
        assert!(stream.len() <= bound(plain.len()), "{}", stream.len());
    }

    #[test]
    fn every_short_input() {
        for length in 0..300 {
            round_trip(&vec![b'x'; length]);
            round_trip(&noise(length));
            round_trip(&b"abcdefgh".repeat(40)[..length]);
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_the_plain_bytes(
            pieces in prop::collection::vec((0usize..3000, 1usize..400, any::<bool>()), 0..60)
        ) {
            let noise = noise(4000);
            let mut plain: Vec<u8> = Vec::new();
            for (at, length, repeat) in pieces {
                if repeat && !plain.is_empty() {
                    let from = at % plain.len();
                    let to = (from + length).min(plain.len());
                    plain.extend_from_within(from..to);
                } else {
                    plain.extend_from_slice(&noise[at..at + length]);
                }
            }
            round_trip(&plain);
        }

        #[test]
        fn no_mixture_of_short_copies_and_new_bytes_is_longer_than_the_bound(
            length in prop_oneof![1usize..5_000, 200_000usize..=262_144],
            back in 4usize..49_000,
            fresh in 0usize..40,
        ) {
            let plain = short_copies(length, back, fresh);
            prop_assert!(round_trip(&plain).len() <= bound(plain.len()));
        }
    }
}
