//! Which exit status a failed `wal-fetch` gives: the one place where a status can lose data.
//!
//! PostgreSQL takes 1 to 125 from `restore_command` as "the archive does not have it", and outside of
//! standby mode that is the end of recovery: the server promotes with what it has. Only a status
//! above 125 stops it, with its files intact and ready to be started again (observed on 11 to 18).
//! A standby asks again after any status up to 125, so there 1 is right.

use std::io::ErrorKind;
use std::path::Path;

use wale_ops::Kind;

use crate::cli::Face;

/// Stops the recovery. Above 125, and none of those that shells use (126, 127, 128 plus a signal).
pub(crate) const STOP_RECOVERY: u8 = 250;

/// What the cluster for which a file is fetched is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Archive recovery that ends, and promotes, when the archive has no more.
    ArchiveRecovery,
    /// Standby: recovery that asks again.
    Standby,
    /// Neither, as far as can be seen: a person at a prompt, or `pg_rewind`.
    Other,
}

impl Role {
    /// The role of the cluster that `destination` (`%p`) lies in: `pg_wal/RECOVERYXLOG`, relative to
    /// the data directory in which PostgreSQL runs the command.
    pub(crate) fn of_destination(destination: &Path) -> Self {
        let beside_pg_wal = destination.parent().and_then(Path::parent);
        let role = beside_pg_wal.map_or(Role::Other, Self::of_directory);
        if role == Role::Other {
            Self::of_directory(Path::new(""))
        } else {
            role
        }
    }

    /// The role of the cluster in this directory; the empty path is the working directory.
    pub(crate) fn of_directory(directory: &Path) -> Self {
        // Anything but a clear "no such file" counts as there: the status that stops is the safe one.
        let exists = |name: &str| directory.join(name).try_exists().unwrap_or(true);
        let recovery_conf = match std::fs::read(directory.join("recovery.conf")) {
            // A comment may be in any encoding; the setting that counts is ASCII.
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => Some(String::new()),
        };
        Self::from_files(
            exists("recovery.signal"),
            exists("standby.signal"),
            recovery_conf.as_deref(),
        )
    }

    /// From PostgreSQL 12 on two signal files say it, of which standby.signal wins; before, the text
    /// of recovery.conf.
    fn from_files(recovery: bool, standby: bool, recovery_conf: Option<&str>) -> Self {
        match recovery_conf {
            _ if standby => Role::Standby,
            Some(text) if is_standby(text) => Role::Standby,
            Some(_) => Role::ArchiveRecovery,
            None if recovery => Role::ArchiveRecovery,
            None => Role::Other,
        }
    }
}

/// The last `standby_mode` line of a recovery.conf decides.
fn is_standby(recovery_conf: &str) -> bool {
    let value_of = |line: &str| {
        let line = line.trim_start();
        let (name, rest) = line.split_at_checked("standby_mode".len())?;
        if !name.eq_ignore_ascii_case("standby_mode") {
            return None;
        }
        let rest = rest.split('#').next().unwrap_or_default().trim();
        let value = rest
            .strip_prefix('=')
            .unwrap_or(rest)
            .trim()
            .trim_matches('\'');
        Some(matches!(
            value.to_ascii_lowercase().as_str(),
            "on" | "true" | "yes" | "1" | "t" | "y"
        ))
    };
    recovery_conf
        .lines()
        .filter_map(value_of)
        .next_back()
        .unwrap_or(false)
}

/// The exit status for a fetch that failed with this kind.
pub(crate) fn status(kind: Kind, role: Role, stops_recovery: bool, face: Face) -> u8 {
    match (kind, role) {
        (Kind::NotFound, _) | (_, Role::Standby) => 1,
        (_, Role::ArchiveRecovery) if stops_recovery => STOP_RECOVERY,
        (kind, Role::ArchiveRecovery | Role::Other) => face.exit_status(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_failed_fetch() {
        use Role::{ArchiveRecovery, Other, Standby};
        let down = Kind::StorageUnavailable;
        for (kind, role, stops, wale, wal_e) in [
            (Kind::NotFound, ArchiveRecovery, true, 1, 1),
            (Kind::NotFound, Standby, true, 1, 1),
            (Kind::NotFound, Other, false, 1, 1),
            (down, ArchiveRecovery, true, 250, 250),
            (Kind::CorruptData, ArchiveRecovery, true, 250, 250),
            (Kind::Configuration, ArchiveRecovery, true, 250, 250),
            (Kind::Internal, ArchiveRecovery, true, 250, 250),
            (down, ArchiveRecovery, false, 75, 1),
            (down, Standby, true, 1, 1),
            (Kind::Internal, Standby, true, 1, 1),
            (down, Other, true, 75, 1),
            (Kind::Internal, Other, true, 70, 2),
        ] {
            assert_eq!(
                status(kind, role, stops, Face::Wale),
                wale,
                "{kind} {role:?}"
            );
            assert_eq!(
                status(kind, role, stops, Face::WalE),
                wal_e,
                "{kind} {role:?}"
            );
        }
    }

    #[test]
    fn roles() {
        for (recovery, standby, conf, role) in [
            (false, false, None, Role::Other),
            (true, false, None, Role::ArchiveRecovery),
            (true, true, None, Role::Standby),
            (false, true, None, Role::Standby),
            (
                false,
                false,
                Some("restore_command = 'x'"),
                Role::ArchiveRecovery,
            ),
            (false, false, Some("standby_mode = 'on'"), Role::Standby),
            (false, false, Some("  STANDBY_MODE on # yes"), Role::Standby),
            (
                false,
                false,
                Some("#standby_mode = on\n"),
                Role::ArchiveRecovery,
            ),
            (
                false,
                false,
                Some("standby_mode=on\nstandby_mode = off"),
                Role::ArchiveRecovery,
            ),
        ] {
            assert_eq!(Role::from_files(recovery, standby, conf), role, "{conf:?}");
        }
    }

    #[test]
    fn the_cluster_of_a_destination() {
        let data = tempfile::tempdir().unwrap();
        let destination = data.path().join("pg_wal/RECOVERYXLOG");
        assert_eq!(Role::of_destination(&destination), Role::Other);
        std::fs::write(data.path().join("recovery.signal"), "").unwrap();
        assert_eq!(Role::of_destination(&destination), Role::ArchiveRecovery);
        std::fs::write(data.path().join("standby.signal"), "").unwrap();
        assert_eq!(Role::of_destination(&destination), Role::Standby);
    }

    #[test]
    fn a_recovery_conf_that_cannot_be_read_is_one() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("recovery.conf");
        // A comment in Latin-1.
        std::fs::write(&path, b"# f\xfcr den Notfall\nrestore_command = 'x'\n").unwrap();
        assert_eq!(Role::of_directory(data.path()), Role::ArchiveRecovery);
        std::fs::write(&path, b"# f\xfcr den Notfall\nstandby_mode = on\n").unwrap();
        assert_eq!(Role::of_directory(data.path()), Role::Standby);
        // Reading fails, also for root.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(Role::of_directory(data.path()), Role::ArchiveRecovery);
    }
}
