//! A server that this version does not know: newer than all that it was made for. Reads only.
//!
//! Its WAL is archived all the same, because a server whose archiving stands still fills its disk. wale reports from
//! the start what cannot be checked or done, and not when the first base backup fails.

use std::path::Path;

use wale_cluster::{ClusterError, DataDirectory};
use wale_pg::MajorVersion;
use wale_pipeline::blocking;

use crate::error::Result;

/// What is not known of the server of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownServer {
    /// Its major version, where that is newer than any that is known.
    pub major: Option<u32>,
    /// The layout of its control file, where that is not known. Base backups are refused then.
    pub control_version: Option<u32>,
}

impl UnknownServer {
    /// What follows from it, as a sentence without a full stop.
    #[must_use]
    pub fn consequence(&self) -> String {
        let newest = MajorVersion::NEWEST;
        let mut said = Vec::new();
        if let Some(major) = self.major {
            said.push(format!(
                "PostgreSQL {major} is newer than {newest}, the newest that this wale knows: its WAL is archived, and checked \
                 by size, system identifier, segment size and page address only"
            ));
        }
        if let Some(version) = self.control_version {
            said.push(format!(
                "pg_control has the layout {version}, which this wale does not know: base backups are refused"
            ));
        }
        said.join("; ")
    }
}

/// Looks at `PG_VERSION` and `pg_control`. `None` for a server that is known, and where nothing can be read yet.
///
/// # Errors
/// Only a panic of the reader.
pub async fn look(data_directory: &Path) -> Result<Option<UnknownServer>> {
    let directory = DataDirectory::at(data_directory);
    let look = move || {
        let control_version = match directory.control_file() {
            Err(ClusterError::UnsupportedControlFile { version, .. }) => Some(version),
            _ => None,
        };
        let found = UnknownServer {
            major: directory.newer_version(),
            control_version,
        };
        (found.major.is_some() || control_version.is_some()).then_some(found)
    };
    Ok(blocking(look).await?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_pg::ControlFile;

    use super::*;

    #[tokio::test]
    async fn fault_102_a_server_that_is_not_known_is_told_from_one_that_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert_eq!(look(path).await.expect("read"), None);
        fs::create_dir(path.join("global")).expect("made");
        let known = include_bytes!("../../wale-pg/testdata/control_file/15");
        fs::write(path.join(ControlFile::PATH), known).expect("written");
        fs::write(path.join("PG_VERSION"), "15\n").expect("written");
        assert_eq!(look(path).await.expect("read"), None);
        fs::write(path.join("PG_VERSION"), "20\n").expect("written");
        let mut newer = known.to_vec();
        newer[8..12].copy_from_slice(&2000_u32.to_le_bytes());
        fs::write(path.join(ControlFile::PATH), newer).expect("written");
        let found = look(path).await.expect("read").expect("not known");
        assert_eq!((found.major, found.control_version), (Some(20), Some(2000)));
        let said = found.consequence();
        assert!(said.contains("PostgreSQL 20"), "{said}");
        assert!(said.contains("base backups are refused"), "{said}");
    }
}
