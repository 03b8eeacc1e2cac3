//! Whether the cluster and its archiver are there, as the two directories show it: checked from the start, reported by
//! readiness.
//!
//! A push that fails says so by itself. What this finds is what no request shows: a data directory without a cluster, a
//! WAL directory that is not the server's (each push is 404, PostgreSQL keeps its WAL, and all else looks well), files
//! that wait and are not handed over. Invariants: only what lies in the two directories counts, never what a client
//! asked for; `/startupz` does not wait for any of it, because only the server makes these files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wale_ops::{DataDirectory, WalDirectory};
use wale_pg::{ArchiveFileName, ClusterState, ControlFile, WalSegmentName};

use crate::app::App;
use crate::lifecycle::{Lifecycle, Topic};

/// Between two checks. Each reads `pg_control` and lists `archive_status`.
const EVERY: Duration = Duration::from_secs(5);

/// A file that has waited as the first in line for so long is not being archived. PostgreSQL repeats a failed command
/// after a minute at most, and a segment of 16 MiB takes seconds on any link that keeps up.
const WAITS_TOO_LONG: Duration = Duration::from_mins(5);

/// What a check finds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ArchiverFindings {
    /// Why there is no cluster.
    no_cluster: Option<String>,
    /// Why the WAL directory is not the server's.
    no_wal: Option<String>,
    /// The file whose turn it is to be archived, and how many wait.
    waiting: Option<(ArchiveFileName, usize)>,
}

/// The file that was first in line, and since when.
type First = Option<(ArchiveFileName, Instant)>;

/// Looks for ever. May be dropped at any await.
pub(crate) async fn watch(app: Arc<App>) {
    let mut first: First = None;
    loop {
        let (data, wal) = (app.data_directory.clone(), app.wal_directory.clone());
        let looking = tokio::task::spawn_blocking(move || look(&data, &wal));
        // It dies only with the runtime.
        if let Ok(found) = looking.await {
            note(&app.life, &found, &mut first, Instant::now());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn note(life: &Lifecycle, found: &ArchiverFindings, first: &mut First, now: Instant) {
    match &found.waiting {
        Some((name, _)) if first.as_ref().is_none_or(|(before, _)| before != name) => {
            *first = Some((*name, now));
        }
        Some(_) => {}
        None => {
            *first = None;
            // A file that could not be pushed is wanted no more.
            if found.no_wal.is_none() {
                life.resolve(Topic::WalPush);
            }
        }
    }
    let stuck = match (&found.waiting, &*first) {
        (Some((name, count)), Some((_, since))) if now - *since >= WAITS_TOO_LONG => Some(format!(
            "{count} WAL files wait to be archived, the first of them, {name}, for {} minutes: PostgreSQL keeps its \
             WAL; check archive_command and PostgreSQL's log",
            (now - *since).as_secs() / 60
        )),
        _ => None,
    };
    tell(life, Topic::DataDirectory, found.no_cluster.clone());
    tell(life, Topic::Archiver, found.no_wal.clone().or(stuck));
}

/// Complains, or resolves.
fn tell(life: &Lifecycle, topic: Topic, reason: Option<String>) {
    let Some(reason) = reason else {
        return life.resolve(topic);
    };
    // Once: the reason itself may count minutes.
    if !life.reasons().contains_key(&topic) {
        tracing::warn!("{}: {reason}", topic.name());
    }
    life.complain(topic, reason);
}

fn look(data: &Path, wal: &WalDirectory) -> ArchiverFindings {
    let control = DataDirectory::open(data).and_then(|directory| directory.control_file());
    let no_cluster = control.as_ref().err().map(|error| {
        format!(
            "{} holds no cluster that can be read ({error}): nothing can be backed up; PostgreSQL has not made one yet, \
             or PGDATA is not what PostgreSQL uses",
            data.display()
        )
    });
    let (mut waiting, mut no_wal) = (None, None);
    match wal.ready() {
        Ok(names) => waiting = names.first().map(|first| (*first, names.len())),
        // A cluster that is not there has no WAL directory either: said once.
        Err(_) if no_cluster.is_some() => {}
        Err(error) => {
            no_wal = Some(format!(
                "the WAL directory cannot be read ({error}): nothing can be archived; check PGWAL and the mounts"
            ));
        }
    }
    if let (Ok(control), None) = (&control, &no_wal) {
        no_wal = strange_wal_directory(control, data, wal);
    }
    ArchiverFindings {
        no_cluster,
        no_wal,
        waiting,
    }
}

/// Why the WAL directory is not the cluster's, where that shows: a server that runs, and one that was shut down, has the segment of its
/// last checkpoint there. In recovery it may have come from elsewhere.
#[must_use]
pub fn strange_wal_directory(
    control: &ControlFile,
    data: &Path,
    wal: &WalDirectory,
) -> Option<String> {
    if !matches!(
        control.state,
        ClusterState::InProduction | ClusterState::ShutDown
    ) {
        return None;
    }
    // A restored cluster that no server has started yet: the control file describes the server that was backed up.
    if data.join("backup_label").exists() {
        return None;
    }
    let segment = last_checkpoint(control);
    if !matches!(wal.contains(&ArchiveFileName::from(segment)), Ok(false)) {
        return None;
    }
    // A checkpoint may have come between the two looks, and its segment before that have been removed.
    let again = DataDirectory::open(data).and_then(|directory| directory.control_file());
    if again.is_ok_and(|again| last_checkpoint(&again) != segment) {
        return None;
    }
    Some(format!(
        "{} is not the WAL directory of the cluster in {}: it lacks {segment}, which pg_control names, so what \
         PostgreSQL hands over is not found; check PGWAL and the mounts",
        wal.path().display(),
        data.display()
    ))
}

fn last_checkpoint(control: &ControlFile) -> WalSegmentName {
    WalSegmentName::from_lsn(
        control.timeline,
        control.checkpoint,
        control.wal_segment_size,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    const CONTROL: &[u8] = include_bytes!("../../wale-pg/testdata/control_file/15");

    #[test]
    fn fault_70_a_wal_directory_that_is_not_the_servers_and_a_missing_cluster_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let wal = WalDirectory::at(data.join("pg_wal"));
        let nothing = look(&data, &wal);
        assert!(nothing.no_cluster.is_some() && nothing.no_wal.is_none());
        std::fs::create_dir_all(data.join("global")).unwrap();
        std::fs::write(data.join(ControlFile::PATH), CONTROL).unwrap();
        let control = ControlFile::parse(CONTROL).unwrap();
        assert!(matches!(
            control.state,
            ClusterState::InProduction | ClusterState::ShutDown
        ));
        let unreadable = look(&data, &wal).no_wal.unwrap();
        assert!(unreadable.contains("cannot be read"), "{unreadable}");
        std::fs::create_dir_all(wal.path().join("archive_status")).unwrap();
        let segment = last_checkpoint(&control).to_string();
        let strange = look(&data, &wal).no_wal.unwrap();
        assert!(strange.contains(&segment), "{strange}");
        let well = ArchiverFindings {
            no_cluster: None,
            no_wal: None,
            waiting: None,
        };
        let label = data.join("backup_label");
        std::fs::write(&label, b"").unwrap();
        assert_eq!(look(&data, &wal), well, "restored and not started yet");
        std::fs::remove_file(&label).unwrap();
        std::fs::write(wal.path().join(&segment), b"").unwrap();
        assert_eq!(look(&data, &wal), well);
    }

    #[test]
    fn fault_70_files_that_wait_too_long_are_told_and_those_that_move_are_not() {
        let life = Lifecycle::new();
        life.ready();
        let begun = Instant::now();
        let waiting = |name: &str| ArchiverFindings {
            no_cluster: None,
            no_wal: None,
            waiting: Some((name.parse().unwrap(), 3)),
        };
        let (one, two) = (
            waiting("000000010000000000000001"),
            waiting("000000010000000000000002"),
        );
        let mut first = None;
        note(&life, &one, &mut first, begun);
        note(&life, &two, &mut first, begun + WAITS_TOO_LONG);
        assert_eq!(life.phase(), Phase::Ready, "the line moves");
        note(&life, &two, &mut first, begun + 2 * WAITS_TOO_LONG);
        let reason = life.reasons()[&Topic::Archiver].clone();
        assert!(
            reason.contains("000000010000000000000002") && reason.contains("5 minutes"),
            "{reason}"
        );
        let nothing = ArchiverFindings {
            waiting: None,
            ..one
        };
        note(&life, &nothing, &mut first, begun + 2 * WAITS_TOO_LONG);
        assert_eq!(life.phase(), Phase::Ready);
    }
}
