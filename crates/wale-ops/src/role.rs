//! What the server of a data directory is at the moment, as far as its files tell: a primary, a standby, or a server that
//! recovers and will become one of the two. No connection is needed.

use std::io::Read;
use std::path::Path;

use wale_cluster::DataDirectory;
use wale_pg::{ClusterState, TimelineId};

use crate::error::{OpError, Result};

/// Bytes of `recovery.conf` that are read. PostgreSQL's sample has 6 KiB.
const RECOVERY_CONF_MAX: u64 = 1 << 20;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It accepts writes, or did when it crashed.
    Primary,
    /// It follows a primary or an archive until it is promoted.
    Standby,
    /// It recovers towards a target or the end of the archive, and waits there perhaps. Its state is not yet anybody's.
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
    let failed = |error| OpError::from_cluster(error, "tell the role of the server");
    let directory = DataDirectory::open(data_directory).map_err(failed)?;
    let control = directory.control_file().map_err(failed)?;
    let state = match control.state {
        ClusterState::InProduction => ServerState::Primary,
        ClusterState::InArchiveRecovery if is_standby(data_directory) => ServerState::Standby,
        ClusterState::InArchiveRecovery => ServerState::Recovering,
        _ => ServerState::Stopped,
    };
    Ok(Standing {
        state,
        timeline: control.timeline,
    })
}

/// Whether a server in recovery stays a standby: 12 and later by `standby.signal`, which wins over `recovery.signal`;
/// before by `standby_mode` in `recovery.conf`. A server without any of them was told by hand, or recovers from a label.
fn is_standby(data_directory: &Path) -> bool {
    if data_directory.join("standby.signal").exists() {
        return true;
    }
    let mut text = String::new();
    std::fs::File::open(data_directory.join("recovery.conf"))
        .and_then(|file| file.take(RECOVERY_CONF_MAX).read_to_string(&mut text))
        .is_ok_and(|_| has_standby_mode(&text))
}

/// What `recovery.conf` says last of `standby_mode`.
fn has_standby_mode(text: &str) -> bool {
    let value = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line
            .get(.."standby_mode".len())
            .filter(|word| word.eq_ignore_ascii_case("standby_mode"))
            .map(|word| &line[word.len()..])?;
        let value = rest.trim_start().trim_start_matches('=').trim();
        Some(value.trim_matches('\'').to_ascii_lowercase())
    };
    let last = text.lines().filter_map(value).next_back();
    last.is_some_and(|value| matches!(value.as_str(), "on" | "true" | "yes" | "1" | "t" | "y"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn standby_mode_is_what_recovery_conf_says_last() {
        let cases = [
            ("", false),
            ("standby_mode = 'on'\n", true),
            ("restore_command = 'x'\nSTANDBY_MODE=on # so\n", true),
            ("standby_mode 'on'\nstandby_mode = off\n", false),
            ("#standby_mode = on\n", false),
            ("standby_modes = on\n", false),
        ];
        for (text, expected) in cases {
            assert_eq!(has_standby_mode(text), expected, "{text}");
        }
    }

    #[test]
    fn fault_85_a_recovery_is_no_standby() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let global = folder.path().join("global");
        fs::create_dir(&global).expect("made");
        look(folder.path()).expect_err("there is no cluster");
        let control = include_bytes!("../../wale-pg/testdata/control_file/15");
        fs::write(global.join("pg_control"), control).expect("written");
        let found = look(folder.path()).expect("read");
        assert_eq!(found.timeline.get(), 1);
        assert!(!is_standby(folder.path()));
        fs::write(folder.path().join("recovery.signal"), "").expect("written");
        assert!(!is_standby(folder.path()));
        fs::write(folder.path().join("standby.signal"), "").expect("written");
        assert!(is_standby(folder.path()));
    }
}
