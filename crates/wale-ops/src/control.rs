//! What `pg_control` says about the cluster of a data directory, where it can be read.

use std::path::Path;

use wale_cluster::DataDirectory;
use wale_pg::ControlFile;

use crate::archive::ClusterIdentity;

/// What `pg_control` says about the cluster.
#[must_use]
pub(crate) fn cluster_of_control(control: &ControlFile) -> ClusterIdentity {
    ClusterIdentity {
        system_identifier: control.system_identifier,
        major: control.major(),
        wal_segment_size: control.wal_segment_size,
    }
}

/// `pg_control`'s word on the cluster. A data directory that cannot be read (a sidecar may see the WAL directory
/// only) is no failure: the WAL speaks for itself.
pub(crate) fn read_control(data_directory: &Path) -> Option<ClusterIdentity> {
    control_file(data_directory).map(|control| cluster_of_control(&control))
}

/// The control file of a data directory, where it can be read.
pub(crate) fn control_file(data_directory: &Path) -> Option<ControlFile> {
    match DataDirectory::open(data_directory).and_then(|data| data.control_file()) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::debug!(path = %data_directory.display(), %error, "goes on without pg_control");
            None
        }
    }
}
