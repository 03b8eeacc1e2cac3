//! Which exit status a failed `wal-fetch` gives: the one place where a status can lose data.
//!
//! PostgreSQL takes 1 to 125 from `restore_command` as "the archive does not have it", and outside of
//! standby mode that is the end of recovery: the server promotes with what it has. Only a status
//! above 125 stops it, with its files intact and ready to be started again (observed on 11 to 18).
//! A standby asks again after any status up to 125, so there 1 is right.

use std::path::Path;

use wale_cluster::DataDirectory;
pub(crate) use wale_cluster::RecoveryRole as Role;
use wale_cluster::recovery::surely_has_target;
use wale_ops::readers::Readers;
use wale_ops::wal_fetch::has_namesake;
use wale_ops::{InRecovery, Kind, OpError};
use wale_pg::{ArchiveFileName, SystemIdentifier};

use crate::cli::Face;

/// The exit status for a fetch that failed with this kind.
pub(crate) fn status(kind: Kind, role: Role, stops_recovery: bool, face: Face) -> u8 {
    match (kind.in_recovery(), role) {
        (absent @ InRecovery::Absent, _) => absent.of_wal_fetch(),
        (_, Role::Standby) => InRecovery::Absent.of_wal_fetch(),
        (stop, Role::ArchiveRecovery) if stops_recovery => stop.of_wal_fetch(),
        (_, Role::ArchiveRecovery | Role::Other) => face.exit_status(kind),
    }
}

/// The first major version whose recovery reads ahead of what it replays (`recovery_prefetch`).
const READS_AHEAD_SINCE: u32 = 15;

/// Whether a server may hear that a segment is absent which is damaged, or missing from the middle of the log.
///
/// From 15 on a recovery asks for segments far after its target. It must not stop for one of those; and where it comes to
/// the segment after all, it stops by itself, because it has a target. Before 15 it asks for what it replays next, and
/// the status that stops it comes with the better message. Without a target, or where another timeline's segment would be
/// replayed in its place, nothing but the status that stops is safe.
///
/// # Errors
/// The store's.
pub(crate) async fn may_end_before(
    readers: &Readers,
    name: &ArchiveFileName,
    destination: &Path,
) -> Result<bool, OpError> {
    let ArchiveFileName::Segment(segment) = name else {
        return Ok(false);
    };
    let data = data_of(destination);
    let major = DataDirectory::at(data).version();
    let reads_ahead = matches!(major, Ok(Some(major)) if major.get() >= READS_AHEAD_SINCE);
    if !reads_ahead || !surely_has_target(data) {
        return Ok(false);
    }
    let others = readers.others();
    let all = std::iter::once(readers.first()).chain(others.iter().map(|(_, archive)| archive));
    for archive in all {
        if has_namesake(archive, *segment).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The data directory that `destination` (`%p`) lies in.
fn data_of(destination: &Path) -> &Path {
    match destination.parent().and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The cluster that `destination` (`%p`) lies in, or else that of the working directory, in which PostgreSQL runs its commands.
pub(crate) fn cluster_of(destination: &Path) -> Option<SystemIdentifier> {
    let places = [data_of(destination), Path::new(".")];
    places.into_iter().find_map(|data| {
        let control = DataDirectory::open(data).and_then(|data| data.control_file());
        control.ok().map(|control| control.system_identifier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_in_a_data_directory_says_whose_it_is() {
        let data = tempfile::tempdir().expect("made");
        let destination = data.path().join("pg_wal/RECOVERYXLOG");
        assert_eq!(cluster_of(&destination), None);
        std::fs::create_dir(data.path().join("global")).expect("made");
        let control = include_bytes!("../../../wale-pg/testdata/control_file/15");
        std::fs::write(data.path().join("global/pg_control"), control).expect("written");
        let whole = wale_pg::ControlFile::parse(control).expect("whole");
        assert_eq!(cluster_of(&destination), Some(whole.system_identifier));
    }

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
}
