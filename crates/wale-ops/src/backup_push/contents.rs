//! What all partitions of a backup hold together.

use wale_format::IndexedPartition;
use wale_format::sentinel::{DamagedPage, PartitionRecord};

use super::files::FileRecord;
use super::partitions::StoredPartition;

/// Damaged pages that the sentinel and the report list; all are counted. 10,000 × about 60 bytes.
const LISTED_PAGES_MAX: usize = 10_000;

/// What all partitions of a backup hold together.
#[derive(Debug, Default)]
pub(super) struct BackupContents {
    pub(super) partitions: Vec<PartitionRecord>,
    pub(super) files: Vec<FileRecord>,
    /// The partitions that are made of frames, and where these begin: 16 bytes for each 2 MiB of the cluster.
    pub(super) framed: Vec<IndexedPartition>,
    /// The first damaged pages.
    pub(super) damaged: Vec<DamagedPage>,
    /// All damaged pages.
    pub(super) damaged_count: u64,
}

impl BackupContents {
    /// Those of these partitions.
    pub(super) fn of(partitions: Vec<StoredPartition>) -> Self {
        let mut all = Self::default();
        for partition in partitions {
            all.add(partition);
        }
        all
    }

    /// Adds those of one more partition.
    pub(super) fn add(&mut self, partition: StoredPartition) {
        let StoredPartition {
            number,
            contents,
            bytes_plain,
            bytes_stored,
            frames,
        } = partition;
        // What has no files has directories, and everybody reads it.
        if !frames.is_empty() && !contents.files.is_empty() {
            self.framed.push(IndexedPartition {
                number,
                plain_bytes: bytes_plain,
                stored_bytes: bytes_stored,
                frames,
            });
        }
        self.partitions.push(PartitionRecord {
            number,
            members: contents.members,
            bytes_plain,
            bytes_stored,
        });
        let files = contents.files.into_iter();
        self.files.extend(files.map(|file| FileRecord {
            partition: number,
            ..file
        }));
        self.damaged.extend(contents.damaged);
        self.damaged.truncate(LISTED_PAGES_MAX);
        self.damaged_count += contents.damaged_count;
    }

    /// The number of the partition that comes next.
    pub(super) fn next_number(&self) -> u32 {
        let after = self.partitions.iter().map(|partition| partition.number + 1);
        after.max().unwrap_or(0)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Whether a file is part of the backup, with so many bytes.
    pub(super) fn holds(&self, path: &str, size: u64) -> bool {
        let mut files = self.files.iter();
        files.any(|file| file.path == path && file.size == size)
    }
}
