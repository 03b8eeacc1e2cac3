//! Configuration files in the place of those that a restored cluster has not got.
//!
//! WAL-E left `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` out of its backups, and without the first two no
//! server starts. A person who restores at night gets a server that starts, says nothing to strangers, and says in the
//! file itself what is missing.

use std::path::Path;

use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// The files, and what stands in for each: PostgreSQL's own defaults, local connections for the users of this machine,
/// and a password for everybody else. (`md5` takes SCRAM passwords too, and those of before PostgreSQL 14.)
const STAND_INS: [(&str, &str); 3] = [
    ("postgresql.conf", ""),
    (
        "pg_hba.conf",
        "local all all peer\nhost all all 127.0.0.1/32 md5\nhost all all ::1/128 md5\n",
    ),
    ("pg_ident.conf", ""),
];

/// Whether a path in a data directory is that of a configuration file in whose place another would be written.
#[must_use]
pub fn is_stood_in_for(path: &str) -> bool {
    STAND_INS.iter().any(|(name, _)| *name == path)
}

/// The configuration files that a data directory lacks.
///
/// # Errors
/// When the directory cannot be looked at.
pub fn missing_configuration(data_directory: &Path) -> Result<Vec<&'static str>, ClusterError> {
    let mut missing = Vec::new();
    for (name, _) in STAND_INS {
        let path = data_directory.join(name);
        // A link counts, wherever it leads: somebody has thought of the file.
        match std::fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(name),
            Err(error) => return Err(ClusterError::io("look at", &path)(error)),
        }
    }
    Ok(missing)
}

/// Writes a stand-in for each configuration file that the data directory lacks; returns their names. To be done after
/// [`super::copy_configuration`]: nothing that is there is touched.
///
/// # Errors
/// When a file cannot be written.
pub fn write_missing_configuration(
    data_directory: &Path,
    owner: Option<Owner>,
) -> Result<Vec<&'static str>, ClusterError> {
    let missing = missing_configuration(data_directory)?;
    for (name, lines) in STAND_INS.iter().filter(|(name, _)| missing.contains(name)) {
        let text = format!(
            "# Written by wale's restore, because the backup has no {name} and PGCONF_BACKUP_DIR gave none.\n\
             # Put your own in its place.\n{lines}"
        );
        let path = data_directory.join(name);
        durable::write_atomic(&path, text.as_bytes(), durable::mode_beside(&path), owner)
            .map_err(ClusterError::io("write", &path))?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_missing_is_written_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("pg_hba.conf"), "mine").unwrap();
        symlink("/nowhere", path.join("pg_ident.conf")).unwrap();
        let write = || write_missing_configuration(path, Some(Owner::of_process())).unwrap();
        assert_eq!(write(), ["postgresql.conf"]);
        assert!(write().is_empty());
        let text = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!(text("pg_hba.conf"), "mine");
        assert!(
            text("postgresql.conf")
                .lines()
                .all(|line| line.starts_with('#'))
        );
        std::fs::remove_file(path.join("pg_hba.conf")).unwrap();
        assert_eq!(write(), ["pg_hba.conf"]);
        assert!(!text("pg_hba.conf").contains("trust"));
        assert!(missing_configuration(&path.join("none")).unwrap().len() == 3);
    }
}
