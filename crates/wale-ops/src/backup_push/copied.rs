//! What the copying of a cluster brought.

use wale_format::TablespaceRecord;

use super::partitions::StoredPartition;

/// What the copying brought.
pub(super) struct Copied {
    pub(super) partitions: Vec<StoredPartition>,
    pub(super) control_bytes: Vec<u8>,
    pub(super) listing_facts: ListingFacts,
}

/// What the listing says beside the files.
#[derive(Debug, Default)]
pub(super) struct ListingFacts {
    pub(super) tablespaces: Vec<TablespaceRecord>,
    pub(super) pg_wal_link: Option<String>,
    pub(super) skipped_links: Vec<String>,
    pub(super) vanished: u64,
    pub(super) warnings: Vec<String>,
}
