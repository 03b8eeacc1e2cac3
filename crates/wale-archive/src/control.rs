//! What `pg_control` says about the cluster of a data directory, where it can be read.

use std::path::Path;

use wale_cluster::DataDirectory;
use wale_pg::{ClusterIdentity, ControlFile};

/// `pg_control`'s word on the cluster. A data directory that cannot be read (a sidecar may see the WAL directory
/// only) is no failure: the WAL speaks for itself.
pub fn read_control(data_directory: &Path) -> Option<ClusterIdentity> {
    control_file(data_directory).map(|control| control.identity())
}

/// The control file of a data directory, where it can be read.
pub fn control_file(data_directory: &Path) -> Option<ControlFile> {
    match DataDirectory::open(data_directory).and_then(|data| data.control_file()) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::debug!(path = %data_directory.display(), %error, "goes on without pg_control");
            None
        }
    }
}
