//! What the files of a backup need on disk, counted while its manifest is read.

use std::collections::BTreeMap;

/// What the file system needs beyond the bytes: the last block of each file is used up whole.
const BLOCK_BYTES: u64 = 4096;

/// What will be written to one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DiskNeed {
    /// Bytes, whole blocks.
    pub(crate) bytes: u64,
    /// Files.
    pub(crate) files: u64,
}

impl DiskNeed {
    /// Adds a file of `size` bytes.
    pub(crate) fn add(&mut self, size: u64) {
        let blocks = size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        self.bytes = self.bytes.saturating_add(blocks);
        self.files += 1;
    }

    /// Adds what others need.
    pub(crate) fn merge(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
    }
}

/// What goes to each tablespace; `None` is the data directory itself.
pub(crate) type DiskNeeds = BTreeMap<Option<u32>, DiskNeed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_need_whole_blocks() {
        let mut need = DiskNeed::default();
        for size in [0, 1, 4096, 4097] {
            need.add(size);
        }
        let expected = DiskNeed {
            bytes: 4 * 4096,
            files: 4,
        };
        assert_eq!(need, expected);
        need.merge(DiskNeed {
            bytes: u64::MAX,
            files: 1,
        });
        assert_eq!((need.bytes, need.files), (u64::MAX, 5));
    }
}
