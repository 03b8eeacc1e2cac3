//! The stopped cluster in a target, of which a restore keeps what is the backup's. Sync; for blocking threads.
//!
//! Whose it is, its control file says, or, where an earlier attempt has taken that away, the marker of that attempt. Nothing is
//! taken for stopped that may be running: any `postmaster.pid` is in the way, also one that a crash has left.

use std::path::Path;

use wale_cluster::{ClusterError, DataDirectory, PostmasterState, RestoreMarker, RestoreState};
use wale_pg::ControlFile;

use super::facts;
use super::local_wal::{self, LocalWal};
use super::options::Existing;
use super::plan::{self, Begin, TargetState};
use crate::error::{Kind, OpError, Result};

/// The cluster that lies in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PresentCluster {
    /// Whose it is.
    pub(super) system_identifier: u64,
    /// Its control file, byte for byte; `None` where an earlier attempt has taken it away.
    control: Option<Vec<u8>>,
    /// What of its WAL may be nowhere else. Nothing without a control file: it was looked at before that was taken away, and no
    /// server has run since.
    pub(super) wal: Vec<LocalWal>,
}

/// What a look at the target shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetLook {
    /// How the restore may begin.
    pub(super) begin: Begin,
    /// The marker that was found.
    pub(super) earlier: Option<RestoreMarker>,
    /// The cluster that is kept in part.
    pub(super) present: Option<PresentCluster>,
}

/// Looks at the target, and decides whether it may be written to.
///
/// # Errors
///
/// [`Kind::NotEmpty`] when anything is there that the restore would destroy, or a server may run on it.
pub(super) fn look(path: &Path, lock_file_name: &str, existing: Existing) -> Result<TargetLook> {
    let (state, earlier) = facts::target(path, lock_file_name)?;
    let is_free = matches!(state, TargetState::Missing | TargetState::Empty);
    let present = match existing {
        Existing::Keep(_) if !is_free && !matches!(state, TargetState::Running(_)) => {
            present(path, earlier.as_ref())?
        }
        _ => None,
    };
    let begin = match present {
        Some(_) => Begin::Keeping,
        None => plan::judge_target(path, &state)?,
    };
    Ok(TargetLook {
        begin,
        earlier,
        present,
    })
}

/// The cluster in a directory; `None` where nothing says that it is one.
fn present(path: &Path, earlier: Option<&RestoreMarker>) -> Result<Option<PresentCluster>> {
    let shown = path.display();
    let failed =
        |error: ClusterError| OpError::from_cluster(error, format_args!("look at {shown}"));
    let directory = DataDirectory::open(path).map_err(failed)?;
    if directory.postmaster().map_err(failed)? != PostmasterState::Absent {
        return Err(OpError::new(
            Kind::NotEmpty,
            format!("a server may be running on \"{shown}\": its postmaster.pid is there"),
        )
        .detail("A server that was killed leaves it, too; from here that cannot be told for certain.")
        .hint("stop the server; when none runs on this directory, in any container and on any machine, remove the file"));
    }
    let is_there = path.join(ControlFile::PATH).symlink_metadata().is_ok();
    if is_there {
        let (control, bytes) = directory.control_bytes().map_err(failed)?;
        return Ok(Some(PresentCluster {
            system_identifier: control.system_identifier.as_u64(),
            control: Some(bytes),
            wal: local_wal::list(path, &control)?,
        }));
    }
    let running = earlier.filter(|marker| marker.state == RestoreState::Running);
    let system_identifier = running.and_then(|marker| marker.system_identifier);
    Ok(system_identifier.map(|system_identifier| PresentCluster {
        system_identifier,
        control: None,
        wal: Vec::new(),
    }))
}

/// Refuses another cluster than the one whose backup is restored.
///
/// # Errors
///
/// [`Kind::ArchiveMismatch`], and [`Kind::Configuration`] where nobody recorded whose backup it is.
pub(super) fn check_whose(
    path: &Path,
    present: &PresentCluster,
    backup: Option<u64>,
) -> Result<()> {
    let (shown, found) = (path.display(), present.system_identifier);
    let Some(wanted) = backup else {
        return Err(OpError::new(
            Kind::Configuration,
            format!("it is not recorded whose backup it is: nothing of \"{shown}\" is kept"),
        )
        .hint("name an empty directory"));
    };
    if found == wanted {
        return Ok(());
    }
    Err(OpError::new(
        Kind::ArchiveMismatch,
        format!("\"{shown}\" holds another cluster than the backup"),
    )
    .detail(format!(
        "Its system identifier is {found}, that of the backup's cluster is {wanted}. Nothing was written."
    ))
    .hint("look which directory and which archive are meant; another cluster is restored into an empty directory"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_cluster::restore_marker;

    use super::super::options::UnarchivedWal;
    use super::*;

    const CONTROL_FILE: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");
    const KEEP: Existing = Existing::Keep(UnarchivedWal::Refuse);

    #[test]
    fn only_a_stopped_cluster_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let begin = |existing| look(path, "lock", existing).map(|looked| looked.begin);
        assert_eq!(begin(KEEP).unwrap(), Begin::Fresh);
        // No data directory.
        fs::write(path.join("notes"), "x").unwrap();
        assert_eq!(begin(KEEP).unwrap_err().kind, Kind::NotEmpty);
        // A control file that cannot be read says nothing.
        fs::create_dir(path.join("global")).unwrap();
        fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        fs::write(path.join(ControlFile::PATH), "x").unwrap();
        assert!(begin(KEEP).is_err());
        fs::write(path.join(ControlFile::PATH), CONTROL_FILE).unwrap();
        assert_eq!(begin(KEEP).unwrap(), Begin::Keeping);
        assert_eq!(begin(Existing::Refuse).unwrap_err().kind, Kind::NotEmpty);
        // Whatever is known of the process: also a file that a server of another machine may have written before this one started.
        for text in ["", "4194305\n/data\n1\n", "4194305\n/data\n4102444800\n"] {
            fs::write(path.join("postmaster.pid"), text).unwrap();
            assert_eq!(begin(KEEP).unwrap_err().kind, Kind::NotEmpty, "{text:?}");
        }
        fs::remove_file(path.join("postmaster.pid")).unwrap();
        let present = look(path, "lock", KEEP).unwrap().present.unwrap();
        let control = ControlFile::parse(CONTROL_FILE).unwrap();
        let own = control.system_identifier.as_u64();
        assert!(check_whose(path, &present, Some(own)).is_ok());
        let foreign = check_whose(path, &present, Some(own + 1)).unwrap_err();
        assert_eq!(foreign.kind, Kind::ArchiveMismatch);
        assert!(check_whose(path, &present, None).is_err());
    }

    #[test]
    fn a_half_done_attempt_says_whose_the_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let marker = |is_delta, system_identifier| {
            let marker = serde_json::json!({
                "format": 2, "state": "running", "backup": "b", "started_at": "2026-01-01T00:00:00Z",
                "request": {"archive": "a", "label": "LATEST", "restore_as": "recover"},
                "is_delta": is_delta, "system_identifier": system_identifier,
            });
            fs::write(path.join(restore_marker::FILE_NAME), marker.to_string()).unwrap();
        };
        let begin = |existing| look(path, "lock", existing).map(|looked| looked.begin);
        marker(true, Some(7));
        assert_eq!(begin(KEEP).unwrap(), Begin::Keeping);
        // Not all of it is that restore's own: nobody clears it.
        let error = begin(Existing::Refuse).unwrap_err();
        assert_eq!(error.kind, Kind::NotEmpty);
        assert_eq!(
            error.remedy.as_deref(),
            Some(&wale_archive::Remedy::KeepFiles)
        );
        // That of a usual one is, and what it has is as good as an older copy.
        marker(false, Some(7));
        assert_eq!(begin(KEEP).unwrap(), Begin::Keeping);
        assert_eq!(begin(Existing::Refuse).unwrap(), Begin::AfterWiping);
        marker(false, None);
        assert_eq!(begin(KEEP).unwrap(), Begin::AfterWiping);
    }
}
