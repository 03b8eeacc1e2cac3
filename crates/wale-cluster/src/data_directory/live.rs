//! Whether somebody outside of the server may put WAL files into `pg_wal`.
//!
//! A server in recovery reads them. Beside a primary each of them is harm: it fills the disk, and the segment that is
//! being written would be replaced, so that the next crash recovery replays another history. So where it is not certain
//! that the server recovers from an archive, the answer is no.

use std::path::Path;

use wale_pg::{ClusterState, ControlFile};

use super::{DataDirectory, PostmasterState, RecoveryRole};

impl DataDirectory {
    /// Why no WAL file may be put into this directory's `pg_wal`; `None` where one may: the server is in recovery, or will
    /// be when it starts.
    ///
    /// That no server runs is no permission: a primary that crashed has its last WAL there, perhaps nowhere else, and
    /// recovers with it when it starts. So without a server the signal files decide.
    ///
    /// `postmaster.pid` says what the server is doing (`starting`, `standby`, `ready`, `stopping`), in whatever container
    /// it runs; its signal files and `pg_control` must say the same. `wal` is the WAL directory in question: where there is
    /// no `pg_control`, it must be this data directory's, or the path of the data directory may be a mistake.
    #[must_use]
    pub fn refuses_wal(&self, wal: &Path) -> Option<&'static str> {
        let status = match self.postmaster() {
            Ok(PostmasterState::Absent) => None,
            Ok(state) => Some(state.file().and_then(|file| file.status.clone())),
            Err(_) => return Some("its postmaster.pid cannot be read"),
        };
        let (status, control) = match (status, self.control_file()) {
            (None, Ok(_)) if RecoveryRole::of_directory(&self.path) == RecoveryRole::Other => {
                return Some(
                    "no server runs there, and no signal file says that the next one recovers from an archive",
                );
            }
            (None, Ok(_)) => return None,
            // Nothing can run here before there is one.
            (None, Err(_)) if self.lacks_control() && self.has_wal_in(wal) => return None,
            (_, Err(_)) => {
                return Some("pg_control cannot be read, so it is not known whether a server runs");
            }
            (Some(status), Ok(control)) => (status, control),
        };
        refusal(
            RecoveryRole::of_directory(&self.path),
            status.as_deref(),
            control.state,
        )
    }

    fn lacks_control(&self) -> bool {
        matches!(self.path.join(ControlFile::PATH).try_exists(), Ok(false))
    }

    fn has_wal_in(&self, wal: &Path) -> bool {
        let own = std::fs::canonicalize(self.path.join("pg_wal"));
        own.is_ok_and(|own| std::fs::canonicalize(wal).is_ok_and(|wal| wal == own))
    }
}

/// The same, where there is a `postmaster.pid`.
fn refusal(role: RecoveryRole, status: Option<&str>, state: ClusterState) -> Option<&'static str> {
    if role == RecoveryRole::Other {
        return Some("a server may be running there that is not in recovery");
    }
    match (status, state) {
        // The signal file was made after the start, for the next one.
        (Some("starting"), ClusterState::InCrashRecovery) => {
            Some("its server recovers from a crash, not from an archive")
        }
        // A hot standby that takes connections is `ready`, too.
        (Some("starting"), _) | (Some("standby" | "ready"), ClusterState::InArchiveRecovery) => {
            None
        }
        (Some("standby" | "ready"), _) => {
            Some("its pg_control does not say that the server is in recovery")
        }
        _ => Some("its postmaster.pid does not say that the server is in recovery"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_86_wal_is_put_beside_a_server_in_recovery_only() {
        use ClusterState::{InArchiveRecovery, InCrashRecovery, InProduction};
        use RecoveryRole::{ArchiveRecovery, Other, Standby};
        for (role, status, state, expected) in [
            (Other, "ready", InProduction, false),
            // A signal file for the next start.
            (Standby, "ready", InProduction, false),
            (Standby, "stopping", InArchiveRecovery, false),
            // Just promoted.
            (Other, "standby", InArchiveRecovery, false),
            (Standby, "standby", InProduction, false),
            (Standby, "standby", InArchiveRecovery, true),
            (Standby, "ready", InArchiveRecovery, true),
            (Other, "ready", InArchiveRecovery, false),
            (ArchiveRecovery, "standby", InArchiveRecovery, true),
            // A restored backup: pg_control is the primary's until the first checkpoint was read.
            (ArchiveRecovery, "starting", InProduction, true),
            (ArchiveRecovery, "starting", InArchiveRecovery, true),
            (ArchiveRecovery, "starting", InCrashRecovery, false),
            (Other, "starting", InCrashRecovery, false),
            // Half of the file is written.
            (ArchiveRecovery, "st", InArchiveRecovery, false),
        ] {
            let may = refusal(role, Some(status), state).is_none();
            assert_eq!(may, expected, "{role:?} {status} {state:?}");
        }
        assert!(refusal(Standby, None, InArchiveRecovery).is_some());
    }

    #[test]
    fn fault_86_a_directory_that_tells_nothing_takes_no_wal_and_one_that_will_recover_does() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("pg_wal");
        let refuses = || DataDirectory::at(data.path()).refuses_wal(&wal);
        assert!(refuses().is_some(), "perhaps another directory's");
        std::fs::create_dir(&wal).unwrap();
        assert!(refuses().is_none());
        std::fs::create_dir(data.path().join("global")).unwrap();
        let control = include_bytes!("../../../wale-pg/testdata/control_file/15");
        std::fs::write(data.path().join(ControlFile::PATH), control).unwrap();
        assert!(refuses().is_some(), "perhaps a primary that crashed");
        std::fs::write(data.path().join("recovery.signal"), "").unwrap();
        assert!(refuses().is_none());
        std::fs::remove_file(data.path().join("recovery.signal")).unwrap();
        let pid = "1\n/data\n1700000000\n5432\n/run\n*\n  1  2\nready   \n";
        std::fs::write(data.path().join("postmaster.pid"), pid).unwrap();
        assert!(refuses().is_some());
    }
}
