//! Removing what a restore of ours left half done. Sync; for blocking threads.
//!
//! Only ever called for a directory whose marker says that a restore of wale runs in it and in which no server was
//! started. That restore found the directory, its tablespaces' directories and its WAL directory empty, so all that is
//! in them now is its own. The marker stays until the new attempt replaces it: a crash in here is just another
//! half-done restore.

use std::fs;
use std::path::{Path, PathBuf};

use wale_cluster::{ClusterError, Owner, RestoreTree, restore_marker};

use crate::error::{OpError, Result};

/// The directories outside that a half-done restore writes into: where its links lead.
pub(super) fn outside_of(target: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(target.join("pg_tblspc")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

/// Removes everything that the restore wrote below `target` and its tablespaces.
pub(super) fn wipe(target: &Path, lock_file_name: &str, owner: Owner) -> Result<()> {
    let clear = || -> Result<(), ClusterError> {
        for location in outside_of(target)
            .iter()
            .filter(|location| location.is_dir())
        {
            let foreign = names_but(location, |name| name.starts_with("PG_"));
            let keep: Vec<&str> = foreign.iter().map(String::as_str).collect();
            RestoreTree::open(location, Some(owner))?.clear(&keep)?;
        }
        let mut keep = vec![restore_marker::FILE_NAME, lock_file_name];
        // A link of the WAL directory may have been there before us, and leads to an empty directory.
        if target.join("pg_wal").is_symlink() {
            keep.push("pg_wal");
        }
        RestoreTree::open(target, Some(owner))?.clear(&keep)
    };
    clear().map_err(|error| {
        OpError::from_cluster(
            error,
            format_args!("remove the half-done restore in {}", target.display()),
        )
    })
}

fn names_but(folder: &Path, ours: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !ours(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_restore_wrote_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (data, space, wal) = (
            folder.path().join("data"),
            folder.path().join("space"),
            folder.path().join("wal"),
        );
        for path in [
            "data/base/1",
            "data/pg_tblspc",
            "space/PG_15_1/5",
            "space/other",
            "wal/archive_status",
        ] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/7")).unwrap();
        std::os::unix::fs::symlink(&wal, data.join("pg_wal")).unwrap();
        for name in [restore_marker::FILE_NAME, "lock", "PG_VERSION", "base/1/2"] {
            fs::write(data.join(name), "x").unwrap();
        }
        assert_eq!(outside_of(&data), std::slice::from_ref(&space));
        wipe(&data, "lock", Owner::of_process()).unwrap();
        let mut left = names_but(&data, |_| false);
        left.sort();
        assert_eq!(left, ["lock", "pg_wal", restore_marker::FILE_NAME]);
        assert_eq!(names_but(&space, |_| false), ["other"]);
        assert!(wal.join("archive_status").is_dir());
    }
}
