//! What the server of a data directory does with the archive, as its signal files say.

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Bytes of `recovery.conf` that are read. PostgreSQL's sample, full of comments, has 6 KiB. From a longer one only the
/// beginning counts.
const RECOVERY_CONF_MAX: u64 = 1 << 20;

/// What the cluster for which a file is fetched is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryRole {
    /// Archive recovery that ends, and promotes, when the archive has no more.
    ArchiveRecovery,
    /// Standby: recovery that asks again.
    Standby,
    /// Neither, as far as can be seen: a person at a prompt, or `pg_rewind`.
    Other,
}

impl RecoveryRole {
    /// The role of the cluster that `destination` (`%p`) lies in: `pg_wal/RECOVERYXLOG`, relative to
    /// the data directory in which PostgreSQL runs the command.
    #[must_use]
    pub fn of_destination(destination: &Path) -> Self {
        let beside_pg_wal = destination.parent().and_then(Path::parent);
        let role = beside_pg_wal.map_or(RecoveryRole::Other, Self::of_directory);
        if role == RecoveryRole::Other {
            Self::of_directory(Path::new(""))
        } else {
            role
        }
    }

    /// The role of the cluster in this directory; the empty path is the working directory.
    #[must_use]
    pub fn of_directory(directory: &Path) -> Self {
        // Anything but a clear "no such file" counts as there: the status that stops is the safe one.
        let exists = |name: &str| directory.join(name).try_exists().unwrap_or(true);
        let recovery_conf = recovery_conf(&directory.join("recovery.conf"));
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
            _ if standby => RecoveryRole::Standby,
            Some(text) if is_standby(text) => RecoveryRole::Standby,
            Some(_) => RecoveryRole::ArchiveRecovery,
            None if recovery => RecoveryRole::ArchiveRecovery,
            None => RecoveryRole::Other,
        }
    }
}

/// The text of a `recovery.conf`, up to a bound; empty where it is there and cannot be read, or is no regular file: a FIFO is
/// opened without waiting for a writer, and a device is not read. `None`: there is none.
fn recovery_conf(path: &Path) -> Option<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(_) => return Some(String::new()),
    };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut bytes = Vec::new();
    if !is_file
        || file
            .take(RECOVERY_CONF_MAX)
            .read_to_end(&mut bytes)
            .is_err()
    {
        return Some(String::new());
    }
    // A comment may be in any encoding; the setting that counts is ASCII.
    Some(String::from_utf8_lossy(&bytes).into_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for (recovery, standby, conf, role) in [
            (false, false, None, RecoveryRole::Other),
            (true, false, None, RecoveryRole::ArchiveRecovery),
            (true, true, None, RecoveryRole::Standby),
            (false, true, None, RecoveryRole::Standby),
            (
                false,
                false,
                Some("restore_command = 'x'"),
                RecoveryRole::ArchiveRecovery,
            ),
            (
                false,
                false,
                Some("standby_mode = 'on'"),
                RecoveryRole::Standby,
            ),
            (
                false,
                false,
                Some("  STANDBY_MODE on # yes"),
                RecoveryRole::Standby,
            ),
            (
                false,
                false,
                Some("#standby_mode = on\n"),
                RecoveryRole::ArchiveRecovery,
            ),
            (
                false,
                false,
                Some("standby_mode=on\nstandby_mode = off"),
                RecoveryRole::ArchiveRecovery,
            ),
            (
                false,
                false,
                Some("standby_modes = on\n"),
                RecoveryRole::ArchiveRecovery,
            ),
        ] {
            assert_eq!(
                RecoveryRole::from_files(recovery, standby, conf),
                role,
                "{conf:?}"
            );
        }
    }

    #[test]
    fn the_cluster_of_a_destination() {
        let data = tempfile::tempdir().unwrap();
        let destination = data.path().join("pg_wal/RECOVERYXLOG");
        assert_eq!(
            RecoveryRole::of_destination(&destination),
            RecoveryRole::Other
        );
        std::fs::write(data.path().join("recovery.signal"), "").unwrap();
        assert_eq!(
            RecoveryRole::of_destination(&destination),
            RecoveryRole::ArchiveRecovery
        );
        std::fs::write(data.path().join("standby.signal"), "").unwrap();
        assert_eq!(
            RecoveryRole::of_destination(&destination),
            RecoveryRole::Standby
        );
    }

    /// What has no end is not read to its end, and what gives nothing is not waited for.
    #[test]
    fn fault_92_a_recovery_conf_without_an_end_is_bounded() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("recovery.conf");
        let role = || RecoveryRole::of_directory(data.path());
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(role(), RecoveryRole::ArchiveRecovery);
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(role(), RecoveryRole::ArchiveRecovery);
        std::fs::remove_file(&path).unwrap();
        // 600 MiB, most of it a hole.
        std::fs::write(&path, "standby_mode = on\n").unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_len(600 << 20).unwrap();
        assert_eq!(role(), RecoveryRole::Standby);
        assert!(recovery_conf(&path).unwrap().len() as u64 <= RECOVERY_CONF_MAX);
    }

    #[test]
    fn a_recovery_conf_that_cannot_be_read_is_one() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("recovery.conf");
        // A comment in Latin-1.
        std::fs::write(&path, b"# f\xfcr den Notfall\nrestore_command = 'x'\n").unwrap();
        assert_eq!(
            RecoveryRole::of_directory(data.path()),
            RecoveryRole::ArchiveRecovery
        );
        std::fs::write(&path, b"# f\xfcr den Notfall\nstandby_mode = on\n").unwrap();
        assert_eq!(
            RecoveryRole::of_directory(data.path()),
            RecoveryRole::Standby
        );
        // Reading fails, also for root.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(
            RecoveryRole::of_directory(data.path()),
            RecoveryRole::ArchiveRecovery
        );
    }
}
