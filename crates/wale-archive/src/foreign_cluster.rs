//! The error for another cluster's data or archive.

use wale_pg::SystemIdentifier;

use crate::error::{Kind, OpError};

/// The error for data of another cluster than the archive's.
pub fn foreign_cluster(
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
