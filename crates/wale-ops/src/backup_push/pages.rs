//! Page checksums of relation files, verified on the bytes that go into the backup.
//!
//! While the server runs a mismatch is not yet damage: the page may have been half written under the read. What
//! PostgreSQL's own base backup does (`verify_file_page`): a page whose LSN is not older than the backup's start is
//! skipped, because replay overwrites it by a full-page image; any other is read again. More attempts with short waits
//! cost nothing while they are rare, so their number is bounded per file. The bytes of the last attempt are the ones
//! stored.

use std::io;
use std::time::Duration;

use wale_format::sentinel::DamagedPage;
use wale_pg::Lsn;
use wale_pg::page;

/// Waits before the block is read again; 186 ms in all, longer than any write of 8 KiB takes on a healthy disk.
const WAITS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(100),
];

/// Pages of one file that get all attempts; the ones after that are read again once, without a wait. A file that is
/// damaged throughout (131,072 pages) would else take seven hours.
const PATIENT_PAGES_MAX: u64 = 32;

/// Damaged pages of one file that are remembered one by one; all are counted. 1,000 × about 60 bytes.
const REMEMBERED_PAGES_MAX: usize = 1_000;

/// Reads a page of the file again: fills the buffer from the byte offset, says how many bytes there were.
pub(super) trait Reread {
    /// Errors are those of the read.
    fn reread(&mut self, page: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Checks one file while it is read from its beginning.
pub(super) struct PageChecker<'a, R> {
    path: &'a str,
    start_lsn: Lsn,
    /// Number, within the relation, of the file's first block.
    first_block: u32,
    reread: R,
    patient_pages: u64,
    damaged: Vec<DamagedPage>,
    damaged_count: u64,
}

/// What a file's pages were found to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageFindings {
    /// The first damaged pages.
    pub(super) damaged: Vec<DamagedPage>,
    /// Number of all damaged pages.
    pub(super) damaged_count: u64,
}

impl<'a, R: Reread> PageChecker<'a, R> {
    /// For the file whose first block is `first_block` of its relation.
    pub(super) fn new(path: &'a str, start_lsn: Lsn, first_block: u32, reread: R) -> Self {
        Self {
            path,
            start_lsn,
            first_block,
            reread,
            patient_pages: 0,
            damaged: Vec::new(),
            damaged_count: 0,
        }
    }

    /// Checks the whole pages of `piece`, which lies at `offset` (a multiple of the page size) of the file. A page
    /// that a later read shows right is replaced in `piece`.
    pub(super) fn check_piece(&mut self, piece: &mut [u8], offset: u64) -> io::Result<()> {
        debug_assert_eq!(offset % page::SIZE as u64, 0, "pieces begin on a page");
        for (index, bytes) in (0u64..).zip(piece.chunks_exact_mut(page::SIZE)) {
            // A relation has less than 2^32 blocks; what a file has beyond belongs to none.
            let Some(block) = self.block_at(offset / page::SIZE as u64 + index) else {
                return Ok(());
            };
            if self.is_acceptable(bytes, block) {
                continue;
            }
            let at = offset + index * page::SIZE as u64;
            if !self.read_until_right(bytes, block, at)? {
                self.remember(block);
            }
        }
        Ok(())
    }

    /// The findings, when the file has been read.
    pub(super) fn finish(self) -> PageFindings {
        PageFindings {
            damaged: self.damaged,
            damaged_count: self.damaged_count,
        }
    }

    fn block_at(&self, index: u64) -> Option<u32> {
        u32::try_from(index)
            .ok()
            .and_then(|index| self.first_block.checked_add(index))
    }

    fn is_acceptable(&self, bytes: &[u8], block: u32) -> bool {
        let state = page::check(bytes, block);
        state.is_good() || state.is_replaced_by_recovery(self.start_lsn)
    }

    fn read_until_right(&mut self, bytes: &mut [u8], block: u32, at: u64) -> io::Result<bool> {
        self.patient_pages += 1;
        let waits = if self.patient_pages > PATIENT_PAGES_MAX {
            &[Duration::ZERO]
        } else {
            &WAITS[..]
        };
        let mut again = vec![0u8; page::SIZE];
        for wait in waits {
            std::thread::sleep(*wait);
            if self.reread.reread(&mut again, at)? < page::SIZE {
                // The server has cut the file here meanwhile: replay knows, the page does not matter.
                return Ok(true);
            }
            bytes.copy_from_slice(&again);
            if self.is_acceptable(bytes, block) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn remember(&mut self, block: u32) {
        self.damaged_count += 1;
        if self.damaged.len() < REMEMBERED_PAGES_MAX {
            self.damaged.push(DamagedPage {
                path: self.path.to_owned(),
                block,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the scripted pages one after the other, then the last one for ever.
    struct Script(Vec<Vec<u8>>);

    impl Reread for Script {
        fn reread(&mut self, page: &mut [u8], _offset: u64) -> io::Result<usize> {
            let next = if self.0.len() > 1 {
                self.0.remove(0)
            } else {
                self.0[0].clone()
            };
            page[..next.len()].copy_from_slice(&next);
            Ok(next.len())
        }
    }

    /// A page with content, the LSN and a right checksum for `block`.
    fn good(block: u32, lsn: u64) -> Vec<u8> {
        let mut bytes = [0u8; page::SIZE];
        bytes[0..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(lsn & 0xFFFF_FFFF).unwrap().to_le_bytes());
        bytes[12..14].copy_from_slice(&24u16.to_le_bytes());
        bytes[14..16].copy_from_slice(&8000u16.to_le_bytes());
        bytes[16..18].copy_from_slice(&8192u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&0x2004u16.to_le_bytes());
        bytes[8000..].fill(7);
        let sum = page::checksum(&bytes, block);
        bytes[8..10].copy_from_slice(&sum.to_le_bytes());
        bytes.to_vec()
    }

    fn torn(block: u32, lsn: u64) -> Vec<u8> {
        let mut bytes = good(block, lsn);
        bytes[8100] ^= 1;
        bytes
    }

    fn findings(piece: &mut [u8], first_block: u32, script: Vec<Vec<u8>>) -> PageFindings {
        let mut checker = PageChecker::new("base/1/2", Lsn::new(1000), first_block, Script(script));
        checker.check_piece(piece, 0).unwrap();
        checker.finish()
    }

    #[test]
    fn whole_pages_are_right_new_or_newer_than_the_start() {
        let mut piece = [
            good(0, 10),
            vec![0; page::SIZE],
            torn(2, 1000),
            vec![9; 100],
        ]
        .concat();
        assert_eq!(
            findings(&mut piece, 0, vec![vec![]]),
            PageFindings::default()
        );
    }

    #[test]
    fn a_torn_page_is_read_again_and_the_right_bytes_are_kept() {
        let mut piece = [good(131_072, 10), torn(131_073, 10)].concat();
        let found = findings(
            &mut piece,
            131_072,
            vec![torn(131_073, 10), good(131_073, 20)],
        );
        assert_eq!(found, PageFindings::default());
        assert_eq!(&piece[page::SIZE..], &good(131_073, 20)[..]);
    }

    #[test]
    fn a_page_that_was_cut_off_does_not_matter() {
        let mut piece = torn(0, 10);
        assert_eq!(
            findings(&mut piece, 0, vec![vec![0; 100]]),
            PageFindings::default()
        );
    }

    #[test]
    fn a_page_that_stays_wrong_is_reported_by_its_block_in_the_relation() {
        let mut piece = [good(131_072, 10), torn(131_073, 10)].concat();
        let found = findings(&mut piece, 131_072, vec![torn(131_073, 10)]);
        assert_eq!(found.damaged_count, 1);
        assert_eq!(
            found.damaged,
            vec![DamagedPage {
                path: "base/1/2".to_owned(),
                block: 131_073
            }]
        );
    }
}
