//! What the server of a data directory is at the moment, as far as its files show: a primary, a standby, or a server that
//! recovers and will become one of the two. No connection is needed.

use std::path::Path;

use wale_cluster::{DataDirectory, RecoveryRole};
use wale_pg::{ClusterState, TimelineId};

use crate::error::{OpError, Result};

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It accepts writes, or did when it crashed.
    Primary,
    /// It follows a primary or an archive until it is promoted.
    Standby,
    /// It recovers towards a target or the end of the archive, and perhaps waits there. It is neither primary nor
    /// standby yet.
    Recovering,
    /// It was shut down, or is not up yet.
    Stopped,
}

impl ServerState {
    /// The name in `/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Recovering => "recovering",
            Self::Stopped => "stopped",
        }
    }
}

/// State and timeline of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub state: ServerState,
    /// The timeline of its last checkpoint.
    pub timeline: TimelineId,
}

/// Looks once. Blocks.
///
/// # Errors
///
/// When the control file cannot be read: no cluster is there, or not ours to read.
pub fn look(data_directory: &Path) -> Result<Standing> {
    let failed = |error| OpError::from_cluster(error, "find out the role of the server");
    let directory = DataDirectory::open(data_directory).map_err(failed)?;
    let control = directory.control_file().map_err(failed)?;
    Ok(Standing {
        state: judge(control.state, signal(data_directory)),
        timeline: control.timeline,
    })
}

/// What the signal files ask for. They are gone after the promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    None,
    Recovery,
    Standby,
}

/// A directory that was restored has the control file of the server that was backed up, so its signals count first.
fn judge(control: ClusterState, signal: Signal) -> ServerState {
    match (control, signal) {
        (
            ClusterState::InProduction
            | ClusterState::InArchiveRecovery
            | ClusterState::InCrashRecovery,
            Signal::Standby,
        ) => ServerState::Standby,
        (ClusterState::InProduction | ClusterState::InArchiveRecovery, Signal::Recovery)
        | (ClusterState::InArchiveRecovery, Signal::None) => ServerState::Recovering,
        (ClusterState::InProduction, Signal::None) => ServerState::Primary,
        _ => ServerState::Stopped,
    }
}

/// What the signal files say, or before 12 `recovery.conf`.
fn signal(data_directory: &Path) -> Signal {
    match RecoveryRole::of_directory(data_directory) {
        RecoveryRole::Standby => Signal::Standby,
        RecoveryRole::ArchiveRecovery => Signal::Recovery,
        RecoveryRole::Other => Signal::None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn fault_85_a_recovery_is_no_standby() {
        use ClusterState::{InArchiveRecovery, InCrashRecovery, InProduction, ShutDown};
        let folder = tempfile::TempDir::new().expect("a folder");
        let global = folder.path().join("global");
        fs::create_dir(&global).expect("made");
        look(folder.path()).expect_err("there is no cluster");
        let control = include_bytes!("../../wale-pg/testdata/control_file/15");
        fs::write(global.join("pg_control"), control).expect("written");
        let found = look(folder.path()).expect("read");
        assert_eq!(found.timeline.get(), 1);
        let seen = || signal(folder.path());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
        assert_eq!(seen(), Signal::None);
        write("recovery.signal", "").expect("written");
        assert_eq!(seen(), Signal::Recovery);
        write("standby.signal", "").expect("written");
        assert_eq!(seen(), Signal::Standby);
        fs::remove_file(folder.path().join("standby.signal")).expect("removed");
        write("recovery.conf", "standby_mode = on\n").expect("written");
        assert_eq!(seen(), Signal::Standby);
        let cases = [
            (InProduction, Signal::None, ServerState::Primary),
            // Restored from a primary, and not started yet.
            (InProduction, Signal::Recovery, ServerState::Recovering),
            (InArchiveRecovery, Signal::Recovery, ServerState::Recovering),
            (InArchiveRecovery, Signal::None, ServerState::Recovering),
            (InArchiveRecovery, Signal::Standby, ServerState::Standby),
            (InCrashRecovery, Signal::None, ServerState::Stopped),
            (ShutDown, Signal::None, ServerState::Stopped),
            (ShutDown, Signal::Standby, ServerState::Stopped),
        ];
        for (control, signal, expected) in cases {
            assert_eq!(judge(control, signal), expected, "{control:?} {signal:?}");
        }
    }
}
