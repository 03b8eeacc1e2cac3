//! What a cluster says about itself, and the error for another cluster's data or archive.

use wale_pg::{MajorVersion, SystemIdentifier, WalSegmentSize};

use crate::error::{Kind, OpError};

/// What a cluster says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The number that initdb gave to the cluster.
    pub system_identifier: SystemIdentifier,
    /// The major version, where it is known.
    pub major: Option<MajorVersion>,
    /// The size of its WAL segments.
    pub wal_segment_size: WalSegmentSize,
}

/// The error for data of another cluster than the archive's.
pub(crate) fn foreign_cluster(
    archive: SystemIdentifier,
    cluster: SystemIdentifier,
    location: &str,
) -> OpError {
    OpError::new(Kind::ArchiveMismatch, format!("the archive {location} belongs to another cluster"))
        .detail(format!(
            "Its system identifier is {archive}; the data to be archived comes from system identifier {cluster}."
        ))
        .hint("give each cluster a prefix of its own; after pg_upgrade or initdb use a new prefix")
}
