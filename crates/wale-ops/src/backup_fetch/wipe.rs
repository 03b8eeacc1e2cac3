//! Removing what a restore of ours left half done. Sync; for blocking threads.
//!
//! Only ever called for a directory whose marker says that a restore of wale runs in it and in which no server was
//! started, by a restore that holds the directory. The one before found the directory, the tablespaces' directories that
//! its marker names and its WAL directory empty, so all that is in them now is its own. The marker names them until the
//! restore is complete: a crash in here is just another half-done restore.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use wale_cluster::{
    ClusterError, Owner, RestoreMarker, RestoreTree, durable, path_of_text, restore_marker,
};
use wale_pg::{ArchiveFileName, ControlFile};

use crate::error::{OpError, Result};

/// Directories that may be in an otherwise empty WAL directory: images make them beforehand.
pub(super) const WAL_SKELETON: [&str; 2] = ["archive_status", "summaries"];

/// The directories outside that the half-done restore of a marker writes into: those that it named before its first
/// write. A link in the data directory says nothing, for it may be older than the restore.
#[derive(Debug, Clone, Default)]
pub(super) struct Wiped {
    /// Those of tablespaces.
    pub(super) tablespaces: Vec<PathBuf>,
    /// That of WAL.
    pub(super) wal: Option<PathBuf>,
}

impl Wiped {
    pub(super) fn named_by(marker: &RestoreMarker) -> Self {
        let paths = marker.outside.iter();
        Self {
            tablespaces: paths.map(|path| path_of_text(path)).collect(),
            wal: marker.wal_directory.as_deref().map(path_of_text),
        }
    }
}

/// Whether a restore may have made this in a WAL directory that it found empty.
pub(super) fn is_of_wal(name: &str) -> bool {
    WAL_SKELETON.contains(&name)
        || ArchiveFileName::parse(name).is_ok()
        || durable::is_temporary_name(name)
}

/// Whether a name in a WAL directory is a server's or a restore's.
pub(super) fn is_of_server_wal(name: &str) -> bool {
    is_of_wal(name)
        || name.starts_with("xlogtemp.")
        || matches!(name, "RECOVERYXLOG" | "RECOVERYHISTORY")
}

/// Removes everything that the restore wrote below `target` and into the directories `outside`.
pub(super) fn wipe(
    target: &Path,
    outside: &Wiped,
    lock_file_name: &str,
    owner: Owner,
) -> Result<()> {
    let clear = || -> Result<(), ClusterError> {
        let tree = RestoreTree::open(target, Some(owner))?;
        // First, and durably: without its label a directory that still has a control file starts, and is corrupt.
        tree.remove_file(ControlFile::PATH)?;
        for location in outside.tablespaces.iter().filter(|path| path.is_dir()) {
            let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"PG_");
            RestoreTree::open(location, Some(owner))?.clear_where(ours)?;
        }
        if let Some(location) = outside.wal.as_ref().filter(|path| path.is_dir()) {
            let ours = |name: &OsStr| name.to_str().is_some_and(is_of_wal);
            RestoreTree::open(location, Some(owner))?.clear_where(ours)?;
        }
        let mut keep = vec![restore_marker::FILE_NAME, lock_file_name];
        // A link of the WAL directory may have been there before us, and leads to an empty directory.
        if target.join("pg_wal").is_symlink() {
            keep.push("pg_wal");
        }
        tree.clear(&keep)
    };
    clear().map_err(|error| {
        OpError::from_cluster(
            error,
            format_args!("remove the half-done restore in {}", target.display()),
        )
    })
}

/// Removes the temp files of a restore that was killed before its marker was there. They count as nothing when the
/// directory is looked at, and would stay in the restored one.
pub(super) fn remove_temporary(target: &Path, owner: Owner) -> Result<()> {
    let ours = |name: &OsStr| name.to_str().is_some_and(durable::is_temporary_name);
    RestoreTree::open(target, Some(owner))
        .and_then(|tree| tree.clear_where(ours))
        .map_err(|error| {
            OpError::from_cluster(
                error,
                format_args!("remove temp files in {}", target.display()),
            )
        })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn fault_08_only_what_the_restore_wrote_is_removed() {
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
            "older/PG_15_1/5",
            "wal/archive_status",
        ] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        // A name that is not UTF-8 is somebody's, too.
        fs::write(space.join(OsStr::from_bytes(b"\xFF")), "").unwrap();
        symlink(&space, data.join("pg_tblspc/7")).unwrap();
        symlink("../space", data.join("pg_tblspc/8")).unwrap();
        // It was there before the restore, and leads to what may be the only copy.
        symlink(folder.path().join("older"), data.join("pg_tblspc/9")).unwrap();
        symlink(&wal, data.join("pg_wal")).unwrap();
        for name in [restore_marker::FILE_NAME, "lock", "PG_VERSION", "base/1/2"] {
            fs::write(data.join(name), "x").unwrap();
        }
        let mut outside = Wiped {
            tablespaces: vec![space.clone()],
            wal: None,
        };
        fs::write(wal.join("000000010000000000000001"), "").unwrap();
        wipe(&data, &outside, "lock", Owner::of_process()).unwrap();
        assert_eq!(names(&data), ["lock", "pg_wal", restore_marker::FILE_NAME]);
        assert_eq!(names(&space), ["other", "\u{FFFD}"]);
        assert_eq!(names(&wal), ["000000010000000000000001", "archive_status"]);
        // Named by the marker, it is cleared, of what a restore brings.
        fs::write(wal.join("somebody's"), "").unwrap();
        outside.wal = Some(wal.clone());
        wipe(&data, &outside, "lock", Owner::of_process()).unwrap();
        assert_eq!(names(&wal), ["somebody's"]);
        assert!(data.join("pg_wal").is_symlink());
        assert!(folder.path().join("older/PG_15_1/5").is_dir());
    }

    #[test]
    fn a_control_file_is_the_first_to_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("global")).unwrap();
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        for name in ["global/pg_control", "backup_label"] {
            fs::write(data.join(name), "x").unwrap();
        }
        // A way to it that leads outside is not followed, and nothing else is removed before it.
        symlink(folder.path().join("space"), data.join("pg_tblspc/7")).unwrap();
        fs::create_dir(folder.path().join("space")).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("pg_control"), "x").unwrap();
        fs::remove_dir_all(data.join("global")).unwrap();
        symlink(&elsewhere, data.join("global")).unwrap();
        let nothing = Wiped::default();
        assert!(wipe(&data, &nothing, "lock", Owner::of_process()).is_err());
        assert!(data.join("backup_label").exists() && elsewhere.join("pg_control").exists());
        fs::remove_file(data.join("global")).unwrap();
        wipe(&data, &nothing, "lock", Owner::of_process()).unwrap();
        assert_eq!(names(&data), Vec::<String>::new());
    }
}
