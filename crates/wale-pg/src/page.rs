//! Data pages: their checksum, their position, and whether they are whole.
//!
//! PostgreSQL's `pg_checksum_page` (`src/include/storage/checksum_impl.h`) and `PageHeaderData`
//! (`src/include/storage/bufpage.h`), 10 to 19, little endian, pages of 8 kB:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 + 4 | position of the last change, high half first |
//! | 8 | 2 | checksum |
//! | 14 | 2 | `pd_upper`; 0 on a page that was never written |
//!
//! The sum is 32 lanes of a FNV-1a-like hash over the page's words, plainly written so that the compiler makes vector
//! instructions of it. A mismatch in an online backup is not yet damage: the server may be writing the page.

use crate::lsn::Lsn;

/// The size of a page in bytes. Servers compiled with another are not supported.
pub const SIZE: usize = 8192;

/// What a page is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Never written: all zeros, without a checksum.
    New,
    /// The checksum is right.
    Valid,
    /// The checksum is wrong.
    Mismatch {
        /// The checksum in the page.
        found: u16,
        /// The checksum of its content.
        expected: u16,
        /// The page's position of last change, as far as it can be believed.
        lsn: Lsn,
    },
    /// The header is that of a page never written, yet the page is not all zeros.
    NotZero {
        /// The page's position of last change, as far as it can be believed.
        lsn: Lsn,
    },
    /// Not a page at all: the end of a file that the server is just extending or cutting.
    Incomplete {
        /// The bytes there are.
        length: usize,
    },
}

impl PageState {
    /// Whether the page is as a server leaves it.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::New | Self::Valid)
    }

    /// Whether recovery from a backup that began at `start` will overwrite the page with a whole image of it, whatever
    /// is in it now. So `pg_basebackup` passes over the pages changed since the backup began.
    pub fn is_replaced_by_recovery(self, start: Lsn) -> bool {
        match self {
            Self::Mismatch { lsn, .. } | Self::NotZero { lsn } => lsn >= start,
            Self::New | Self::Valid | Self::Incomplete { .. } => false,
        }
    }
}

/// What a page is, given its number in the whole relation (not in the file: see
/// [`crate::relation::RelationFile::first_block`]). Computes the checksum: ask only where checksums are on.
pub fn check(page: &[u8], block: u32) -> PageState {
    let Ok(page) = <&[u8; SIZE]>::try_from(page) else {
        return PageState::Incomplete { length: page.len() };
    };
    if u16::from_le_bytes([page[14], page[15]]) == 0 {
        return if is_zero(page) {
            PageState::New
        } else {
            PageState::NotZero { lsn: lsn(page) }
        };
    }
    let found = u16::from_le_bytes([page[8], page[9]]);
    let expected = checksum(page, block);
    if found == expected {
        PageState::Valid
    } else {
        PageState::Mismatch {
            found,
            expected,
            lsn: lsn(page),
        }
    }
}

/// The position of the last change to a page: the WAL must be durable up to there before the page is written.
pub fn lsn(page: &[u8; SIZE]) -> Lsn {
    let high = u32::from_le_bytes([page[0], page[1], page[2], page[3]]);
    let low = u32::from_le_bytes([page[4], page[5], page[6], page[7]]);
    Lsn::new(u64::from(high) << 32 | u64::from(low))
}

/// Lanes that are summed side by side, `N_SUMS`.
const LANES: usize = 32;
/// The bytes of one word for each lane.
const ROW_BYTES: usize = LANES * 4;

/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;

/// `checksumBaseOffsets`: where each lane begins.
#[rustfmt::skip]
const BASE_OFFSETS: [u32; LANES] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

/// The checksum of a page, given its number in the whole relation. The checksum field itself counts as zero.
///
/// Never 0. Only meaningful for a page that was written at least once.
pub fn checksum(page: &[u8; SIZE], block: u32) -> u16 {
    let mut sums = BASE_OFFSETS;
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let (first, rest) = rows.split_first().expect("a page has 64 rows");
    let mut first = row_words(first);
    // The checksum is the low half of the third word.
    first[2] &= 0xFFFF_0000;
    mix_row(&mut sums, first);
    for row in rest {
        mix_row(&mut sums, row_words(row));
    }
    // Two rounds of zeros, so that the last words are mixed as well as the first.
    mix_row(&mut sums, [0; LANES]);
    mix_row(&mut sums, [0; LANES]);
    let folded = sums.into_iter().fold(0, |folded, sum| folded ^ sum);
    u16::try_from((folded ^ block) % 65_535 + 1)
        .expect("a remainder of 65535 plus one fits 16 bits")
}

#[inline]
fn row_words(row: &[u8; ROW_BYTES]) -> [u32; LANES] {
    std::array::from_fn(|lane| {
        u32::from_le_bytes([
            row[4 * lane],
            row[4 * lane + 1],
            row[4 * lane + 2],
            row[4 * lane + 3],
        ])
    })
}

/// `CHECKSUM_COMP` for each lane.
#[inline]
fn mix_row(sums: &mut [u32; LANES], words: [u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

fn is_zero(page: &[u8; SIZE]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAP: &[u8; SIZE] = include_bytes!("../testdata/page/heap-3");
    const INDEX: &[u8; SIZE] = include_bytes!("../testdata/page/index-1");
    const FSM: &[u8; SIZE] = include_bytes!("../testdata/page/fsm-2");

    #[test]
    fn pages_of_a_real_server_are_valid() {
        for (page, block) in [(HEAP, 3), (INDEX, 1), (FSM, 2)] {
            assert_eq!(check(page, block), PageState::Valid, "block {block}");
        }
        assert_eq!(lsn(HEAP), "0/1998800".parse().unwrap());
    }

    #[test]
    fn the_block_number_counts() {
        // As page_checksum() of pageinspect computed them for this page.
        assert_eq!(checksum(HEAP, 3), 50_097);
        assert_eq!(checksum(HEAP, 131_075), 50_099);
        assert_eq!(
            check(HEAP, 131_075),
            PageState::Mismatch {
                found: 50_097,
                expected: 50_099,
                lsn: "0/1998800".parse().unwrap()
            }
        );
    }

    #[test]
    fn a_new_page_is_all_zeros() {
        let mut page = [0; SIZE];
        assert_eq!(check(&page, 7), PageState::New);
        page[SIZE - 1] = 1;
        assert_eq!(check(&page, 7), PageState::NotZero { lsn: Lsn::new(0) });
        page[8] = 1;
        assert!(!check(&page, 7).is_good());
    }

    #[test]
    fn half_a_page_is_none() {
        for length in [0, 1, 4096, SIZE - 1, SIZE + 1] {
            assert_eq!(check(&vec![1; length], 0), PageState::Incomplete { length });
        }
    }

    #[test]
    fn recovery_replaces_what_changed_since_the_backup_began() {
        let at = |lsn| PageState::Mismatch {
            found: 1,
            expected: 2,
            lsn: Lsn::new(lsn),
        };
        for (state, expected) in [
            (at(99), false),
            (at(100), true),
            (at(101), true),
            (PageState::NotZero { lsn: Lsn::new(100) }, true),
            (PageState::NotZero { lsn: Lsn::new(0) }, false),
            (PageState::Valid, false),
            (PageState::New, false),
            (PageState::Incomplete { length: 5 }, false),
        ] {
            assert_eq!(
                state.is_replaced_by_recovery(Lsn::new(100)),
                expected,
                "{state:?}"
            );
        }
    }

    /// The algorithm as PostgreSQL's comment describes it, one lane after the other, on a copy without the checksum.
    fn plain_checksum(page: &[u8; SIZE], block: u32) -> u16 {
        let mut copy = *page;
        copy[8..10].fill(0);
        let mut result = 0;
        for (lane, base) in BASE_OFFSETS.iter().enumerate() {
            let mut sum = *base;
            for round in 0..66 {
                let at = (round * LANES + lane) * 4;
                let word = copy
                    .get(at..at + 4)
                    .map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()));
                let mixed = sum ^ word;
                sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
            }
            result ^= sum;
        }
        u16::try_from((result ^ block) % 65_535 + 1).unwrap()
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_plain_one(seed: [u8; 32], block: u32) {
            let page: [u8; SIZE] = std::array::from_fn(|at| seed[at % 32].wrapping_mul(u8::try_from(at / 32).unwrap()));
            prop_assert_eq!(checksum(&page, block), plain_checksum(&page, block));
        }

        #[test]
        fn any_flipped_bit_is_seen(at in 0..SIZE, bit in 0..8) {
            let mut page = *HEAP;
            page[at] ^= 1_u8 << bit;
            prop_assert!(!check(&page, 3).is_good());
        }
    }
}
