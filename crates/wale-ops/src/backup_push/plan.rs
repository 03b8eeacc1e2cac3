//! The decisions of a base backup, without I/O: may it begin, where does it go, which WAL does it need.

use chrono::{DateTime, TimeDelta, Utc};
use wale_archive::claim::{self, Holder};
use wale_format::BackupName;
use wale_pg::{
    ClusterIdentity, ClusterState, ControlFile, Lsn, TimelineId, WalSegmentName, WalSegmentSize,
};

use crate::error::{Declined, Kind, OpError, Result};

/// Objects without a claim are another tool's or an older wale's, and it is not known whether the writer lives: WAL-E
/// stores partitions of 1.5 GiB, and an older wale silently waits an hour for WAL. So they count as alive for as long as
/// the sweep and retention let them be (`WALE_SWEEP_GRACE` by default).
const UNCLAIMED_QUIET: TimeDelta = TimeDelta::hours(24);

/// Segments that one backup may need. At 16 MiB this is 16 TiB of WAL: more is damage, not a backup.
const SEGMENTS_MAX: u64 = 1 << 20;

/// Refuses a server that is not the one of the data directory: otherwise a wrong host name would make a backup of one
/// cluster's files with another cluster's positions.
///
/// # Errors
///
/// [`Kind::ArchiveMismatch`] when they differ in anything that both know.
pub(super) fn same_cluster(server: &ClusterIdentity, directory: &ClusterIdentity) -> Result<()> {
    let Some(found) = server.difference(directory) else {
        return Ok(());
    };
    Err(OpError::new(
        Kind::ArchiveMismatch,
        format!(
            "the server is not the one of the data directory: {} differs",
            found.what
        ),
    )
    .detail(format!(
        "The server has {}, the data directory has {}.",
        found.first, found.second
    ))
    .hint("let PGHOST and PGPORT name the server whose data directory is mounted here"))
}

/// Refuses a data directory that belongs to another server of the same cluster, a standby's beside its primary: both
/// have the same system identifier. This is asked when the backup has begun: the checkpoint at which it begins, or a
/// later one, is in the control file then, and a standby's control file says that it is in recovery.
///
/// # Errors
///
/// [`Kind::ArchiveMismatch`] when the files are not those that the server writes.
pub(super) fn same_server(in_recovery: bool, start: Lsn, control: &ControlFile) -> Result<()> {
    let here_in_recovery = control.state == ClusterState::InArchiveRecovery;
    let what = if here_in_recovery != in_recovery {
        let role = |in_recovery| {
            if in_recovery {
                "a standby"
            } else {
                "a primary"
            }
        };
        format!(
            "The server is {}, the data directory is that of {}.",
            role(in_recovery),
            role(here_in_recovery)
        )
    } else if control.redo < start {
        format!(
            "The server began the backup at {start}, the last checkpoint of the data directory begins at {}.",
            control.redo
        )
    } else {
        return Ok(());
    };
    Err(other_server(what))
}

/// The error for a data directory that another server of the same cluster writes.
pub(super) fn other_server(what: String) -> OpError {
    OpError::new(
        Kind::ArchiveMismatch,
        "the data directory belongs to another server of this cluster",
    )
    .detail(what)
    .hint("let PGHOST and PGPORT name the server whose data directory is mounted here, not the service of the cluster")
}

/// What the archive has under the name of a new backup, beside the claim on it, which is ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Occupancy {
    /// Whether the sentinel exists.
    pub(super) sentinel: bool,
    /// When the newest object of the folder was stored, if there is any.
    pub(super) newest_object: Option<DateTime<Utc>>,
    /// Whether a deletion of the backup has begun.
    pub(super) deletion: bool,
    /// Whether the claim was taken from somebody who died.
    pub(super) from_the_dead: bool,
}

/// Whether a new backup may use its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// Nothing is there.
    Free,
    /// An earlier attempt died there: its objects are removed first.
    Leftover,
}

/// The archive has this very backup.
pub(super) fn exists_already(name: &BackupName) -> OpError {
    OpError::new(Kind::ArchiveConflict, format!("the archive already has the backup {name}"))
        .detail("A backup that begins at the same position has the same name; on a standby the position is that \
                 of the last restartpoint, of a stopped server that of its last checkpoint.")
        .hint("wait until the standby has made a new restartpoint, or take the backup on the primary; while a server \
               stays stopped, that backup is as good")
        .declined(Declined::Exists)
}

/// Another sidecar or command writes this very backup.
pub(super) fn written_elsewhere(name: &BackupName, holder: &Holder) -> OpError {
    OpError::new(
        Kind::Busy,
        format!("another backup named {name} is being written"),
    )
    .detail(format!(
        "The claim on the name is held by {}, and was refreshed at {}.",
        holder.who,
        holder.refreshed.to_rfc3339()
    ))
    .hint("wait for its end, that backup is as good; a claim that is not refreshed for ten minutes is dead, and the name is free")
    .declined(Declined::Elsewhere)
}

/// Decides whether a new backup named `name` may be written. `now` is the store's time where it matters.
///
/// # Errors
///
/// [`Kind::ArchiveConflict`] when such a backup exists; [`Kind::Busy`] when another one may be running.
pub(super) fn judge_vacancy(
    name: &BackupName,
    occupancy: &Occupancy,
    now: DateTime<Utc>,
) -> Result<Vacancy> {
    if occupancy.sentinel {
        return Err(exists_already(name));
    }
    let Some(newest) = occupancy.newest_object else {
        return Ok(Vacancy::Free);
    };
    if occupancy.from_the_dead {
        return Ok(Vacancy::Leftover);
    }
    let quiet = now.signed_duration_since(newest).abs();
    let (limit, what) = if occupancy.deletion {
        (claim::DEAD_AFTER, "is being deleted")
    } else {
        (UNCLAIMED_QUIET, "may be being written")
    };
    if quiet >= limit {
        return Ok(Vacancy::Leftover);
    }
    let limit = limit.num_minutes();
    Err(OpError::new(
        Kind::Busy,
        format!("another backup named {name} {what}"),
    )
    .detail(format!(
        "Its objects have no claim; the newest was stored at {}.",
        newest.to_rfc3339()
    ))
    .hint(format!(
        "wait until it is done; the next attempt removes objects that were not touched for {limit} minutes"
    )))
}

/// Refuses a backup during which the timeline changed: a standby was promoted, and replay from the start would end on
/// a history of which the later files are not a part.
///
/// # Errors
///
/// [`Kind::PostgresUnavailable`], because a new backup can succeed.
pub(super) fn same_timeline(start: TimelineId, label: TimelineId, stop: TimelineId) -> Result<()> {
    if start == label && label == stop {
        return Ok(());
    }
    Err(OpError::new(
        Kind::PostgresUnavailable,
        "the timeline changed while the backup ran: the backup cannot be used",
    )
    .detail(format!(
        "It started on timeline {start}, its label says {label}, it stopped on {stop}."
    ))
    .hint("take the backup again; the server was promoted or follows another primary now"))
}

/// The segments that a restore of the backup must find: from the one that holds `start` to the last one that holds a
/// byte before `stop`. On a segment's first byte the segment before it is the last.
///
/// # Errors
///
/// [`Kind::CorruptData`] when the positions are no range.
pub(super) fn required_segments(
    timeline: TimelineId,
    start: Lsn,
    stop: Lsn,
    size: WalSegmentSize,
) -> Result<Vec<WalSegmentName>> {
    let nonsense = || {
        OpError::new(
            Kind::CorruptData,
            format!("the server ended the backup at {stop}, before {start}"),
        )
    };
    let last_byte = stop.as_u64().checked_sub(1).ok_or_else(nonsense)?;
    let first = size.segment_number(start);
    let last = size.segment_number(Lsn::new(last_byte)).max(first);
    if stop < start || last - first >= SEGMENTS_MAX {
        return Err(nonsense());
    }
    (first..=last)
        .map(|number| {
            WalSegmentName::from_number(timeline, number, size)
                .map_err(|error| nonsense().source(error))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use wale_pg::{MajorVersion, SystemIdentifier};

    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn a_backup_needs_every_segment_from_start_to_the_byte_before_stop() {
        let cases = [
            ("0/2000028", "0/2000100", &["000000010000000000000002"][..]),
            ("0/2000028", "0/3000000", &["000000010000000000000002"]),
            (
                "0/2000028",
                "0/3000001",
                &["000000010000000000000002", "000000010000000000000003"],
            ),
            (
                "0/FF000028",
                "1/1000",
                &["0000000100000000000000FF", "000000010000000100000000"],
            ),
        ];
        for (start, stop, expected) in cases {
            let names =
                required_segments(timeline(1), lsn(start), lsn(stop), WalSegmentSize::DEFAULT)
                    .unwrap();
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(names, expected, "{start}..{stop}");
        }
        for (start, stop) in [
            ("0/2000028", "0/0"),
            ("0/2000028", "0/1000000"),
            ("0/28", "FFFFFFFF/0"),
        ] {
            let error =
                required_segments(timeline(1), lsn(start), lsn(stop), WalSegmentSize::DEFAULT)
                    .unwrap_err();
            assert_eq!(error.kind, Kind::CorruptData, "{start}..{stop}");
        }
    }

    #[test]
    fn a_name_is_free_left_over_or_taken() {
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(2);
        let at = |minutes| Some(now - TimeDelta::minutes(minutes));
        let free = Occupancy::default();
        let dead = Occupancy {
            from_the_dead: true,
            ..free
        };
        let deletion = Occupancy {
            deletion: true,
            ..free
        };
        let committed = Occupancy {
            sentinel: true,
            ..free
        };
        let cases = [
            (free, None, Ok(Vacancy::Free)),
            (dead, None, Ok(Vacancy::Free)),
            // The dead one had the claim: everything there was under it.
            (dead, at(1), Ok(Vacancy::Leftover)),
            (free, at(1), Err(Kind::Busy)),
            (free, at(-1), Err(Kind::Busy)),
            (free, at(23 * 60), Err(Kind::Busy)),
            (free, at(24 * 60), Ok(Vacancy::Leftover)),
            (deletion, at(9), Err(Kind::Busy)),
            (deletion, at(10), Ok(Vacancy::Leftover)),
            (committed, at(60), Err(Kind::ArchiveConflict)),
            (committed, None, Err(Kind::ArchiveConflict)),
        ];
        for (occupancy, newest_object, expected) in cases {
            let occupancy = Occupancy {
                newest_object,
                ..occupancy
            };
            let place = judge_vacancy(&name, &occupancy, now);
            assert_eq!(place.map_err(|error| error.kind), expected, "{occupancy:?}");
        }
    }

    #[test]
    fn a_promotion_voids_the_backup() {
        let (one, two) = (timeline(1), timeline(2));
        assert!(same_timeline(one, one, one).is_ok());
        for (start, label, stop) in [(one, one, two), (one, two, two), (two, one, one)] {
            assert_eq!(
                same_timeline(start, label, stop).unwrap_err().kind,
                Kind::PostgresUnavailable
            );
        }
    }

    #[test]
    fn a_data_directory_of_another_server_of_the_cluster_is_refused() {
        let bytes = include_bytes!("../../../wale-pg/testdata/control_file/15");
        let mut control = ControlFile::parse(bytes).unwrap();
        control.redo = lsn("0/5000028");
        // (state here, whether the server is in recovery, start, acceptable)
        let cases = [
            (ClusterState::InProduction, false, "0/5000028", true),
            // Another checkpoint may have come since.
            (ClusterState::InProduction, false, "0/4000028", true),
            (ClusterState::InArchiveRecovery, true, "0/5000028", true),
            // The files of a standby, the positions of its primary; and the other way round.
            (ClusterState::InArchiveRecovery, false, "0/5000028", false),
            (ClusterState::InProduction, true, "0/5000028", false),
            // Another standby, which has not come as far.
            (ClusterState::InArchiveRecovery, true, "0/6000028", false),
        ];
        for (state, in_recovery, start, acceptable) in cases {
            control.state = state;
            let result = same_server(in_recovery, lsn(start), &control);
            assert_eq!(
                result.is_ok(),
                acceptable,
                "{state:?} {in_recovery} {start}"
            );
        }
    }

    #[test]
    fn the_server_must_be_the_one_of_the_data_directory() {
        let cluster = |id, major, size| ClusterIdentity {
            system_identifier: SystemIdentifier::new(id),
            major: MajorVersion::parse(major).ok(),
            wal_segment_size: WalSegmentSize::new(size).unwrap(),
        };
        let here = cluster(1, "15", 16 << 20);
        assert!(same_cluster(&here, &here).is_ok());
        // 13 to 16 share a version of the control file; where it does not show which, the server's word is taken.
        assert!(same_cluster(&here, &cluster(1, "", 16 << 20)).is_ok());
        for there in [
            cluster(2, "15", 16 << 20),
            cluster(1, "14", 16 << 20),
            cluster(1, "15", 1 << 20),
        ] {
            assert_eq!(
                same_cluster(&there, &here).unwrap_err().kind,
                Kind::ArchiveMismatch,
                "{there:?}"
            );
        }
    }
}
