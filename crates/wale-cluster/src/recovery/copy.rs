//! Configuration files that an operator keeps apart and wants in every restored cluster.

use std::path::Path;

use wale_pg::MajorVersion;

use super::RECOVERY_CONF;
use super::configuration::is_configuration_name;
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// A configuration file larger than this is a mistake.
const SIZE_MAX: u64 = 16 << 20;

/// Copies `*.conf` of a folder into a restored data directory, over what came with the backup. Returns their
/// names, in order.
///
/// To be done after the data and before [`super::apply`]: a `postgresql.auto.conf` in the folder would undo
/// the recovery settings, and then has its own stripped. A `recovery.conf` is left out from PostgreSQL 12 on,
/// which refuses to start with one. Links are followed (a Kubernetes volume of a config map consists of
/// links), what is not a file in the end is left out. Files are written whole and durably, with mode 0600.
///
/// # Errors
/// When the folder or a file cannot be read, or a file cannot be written.
pub fn copy_configuration(
    from: &Path,
    data_directory: &Path,
    major: MajorVersion,
    owner: Option<Owner>,
) -> Result<Vec<String>, ClusterError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(from).map_err(ClusterError::io("list", from))? {
        let entry = entry.map_err(ClusterError::io("list", from))?;
        // A name that is not UTF-8 is none of PostgreSQL's files.
        if let Ok(name) = entry.file_name().into_string()
            && is_configuration_name(&name)
            && !(name == RECOVERY_CONF && major.has_recovery_signal())
        {
            names.push(name);
        }
    }
    names.sort();
    let mut copied = Vec::new();
    for name in names {
        let source = from.join(&name);
        let metadata = std::fs::metadata(&source).map_err(ClusterError::io("look at", &source))?;
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > SIZE_MAX {
            return Err(ClusterError::Damaged {
                path: source,
                reason: format!("it is larger than {SIZE_MAX} bytes"),
            });
        }
        let bytes = std::fs::read(&source).map_err(ClusterError::io("read", &source))?;
        let target = data_directory.join(&name);
        durable::write_atomic(&target, &bytes, durable::mode_beside(&target), owner)
            .map_err(ClusterError::io("write", &target))?;
        copied.push(name);
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn configuration_files_are_copied_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        let data = folder.path().join("data");
        std::fs::create_dir_all(from.join("folder.conf")).unwrap();
        std::fs::create_dir_all(from.join("..data")).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::fs::write(from.join("..data/pg_hba.conf"), "linked").unwrap();
        symlink("..data/pg_hba.conf", from.join("pg_hba.conf")).unwrap();
        for name in [
            "postgresql.conf",
            "recovery.conf",
            "notes.txt",
            ".hidden.conf",
            ".conf",
        ] {
            std::fs::write(from.join(name), name).unwrap();
        }
        std::fs::write(data.join("pg_hba.conf"), "of the backup").unwrap();
        let copy = |major| {
            let major = MajorVersion::new(major).unwrap();
            copy_configuration(&from, &data, major, Some(Owner::of_process())).unwrap()
        };
        assert_eq!(copy(15), ["pg_hba.conf", "postgresql.conf"]);
        assert!(!data.join("recovery.conf").exists());
        assert_eq!(
            std::fs::read_to_string(data.join("pg_hba.conf")).unwrap(),
            "linked"
        );
        let metadata = std::fs::symlink_metadata(data.join("pg_hba.conf")).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(
            copy(11),
            ["pg_hba.conf", "postgresql.conf", "recovery.conf"]
        );
    }

    #[test]
    fn a_missing_folder_and_a_dangling_link_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let copy =
            |from: &Path| copy_configuration(from, folder.path(), MajorVersion::NEWEST, None);
        assert!(copy(&missing).is_err());
        symlink("nowhere", folder.path().join("x.conf")).unwrap();
        assert!(copy(folder.path()).is_err());
    }
}
