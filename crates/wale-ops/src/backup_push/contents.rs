//! What all partitions of a backup hold together.

use std::collections::BTreeMap;
use std::sync::Arc;

use wale_format::IndexedPartition;
use wale_format::sentinel::{DamagedPage, PartitionRecord};

use super::packed::{FileRecord, PackedRecords};
use super::partitions::StoredPartition;

/// Damaged pages that the sentinel and the report list; all are counted. 10,000 × about 60 bytes.
const LISTED_PAGES_MAX: usize = 10_000;

/// The files of all partitions.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredFiles(BTreeMap<u32, PackedRecords>);

impl StoredFiles {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.values().map(PackedRecords::files).sum()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(PackedRecords::bytes).sum()
    }

    /// They, each with the number of its partition: partition by partition, as they lie there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, FileRecord)> {
        let parts = self.partitions();
        parts.flat_map(|(number, files)| files.iter().map(move |file| (number, file)))
    }

    /// They, by their partitions.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (u32, &PackedRecords)> {
        self.0.iter().map(|(number, files)| (*number, files))
    }
}

/// What all partitions of a backup hold together.
#[derive(Debug, Default)]
pub(super) struct BackupContents {
    pub(super) partitions: Vec<PartitionRecord>,
    /// Shared with those who write lists of them.
    pub(super) files: Arc<StoredFiles>,
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
        let has_files = contents.files.files() > 0;
        if !frames.is_empty() && has_files {
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
        if has_files {
            Arc::make_mut(&mut self.files)
                .0
                .insert(number, contents.files);
        }
        self.damaged.extend(contents.damaged);
        self.damaged.truncate(LISTED_PAGES_MAX);
        self.damaged_count += contents.damaged_count;
    }

    /// The number of the partition that comes next.
    pub(super) fn next_number(&self) -> u32 {
        let after = self.partitions.iter().map(|partition| partition.number + 1);
        after.max().unwrap_or(0)
    }

    /// Whether a file is part of the backup, with so many bytes.
    pub(super) fn holds(&self, path: &str, size: u64) -> bool {
        let mut files = self.files.iter();
        files.any(|(_, file)| file.path == path && file.size == size)
    }
}
