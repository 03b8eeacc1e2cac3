//! The WAL that lies in a data directory: which files of it may hold what nobody else has. Sync; for blocking threads.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use wale_pg::{ArchiveFileName, ClusterState, ControlFile, WalPageHeader};

use crate::error::{OpError, Result};
use crate::wal_file::{check_segment, unwritten};

/// Bytes of a segment that say what it is: its first page.
const HEAD_BYTES: u64 = 8192;

/// A file of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalWal {
    pub(super) name: ArchiveFileName,
    /// What its server knew of it.
    pub(super) status: Status,
}

/// What a server knows of a file of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It was archived.
    Done,
    /// It was to be archived.
    Ready,
    /// Nothing.
    Unknown,
}

/// The files of WAL in a data directory with this control file, in the order of names. What its server made ahead and never
/// wrote, and the segment of its shutdown checkpoint where nothing else is in it, are left out; so are backup history files.
pub(super) fn list(data: &Path, control: &ControlFile) -> Result<Vec<LocalWal>> {
    let folder = data.join("pg_wal");
    let failed = |error| OpError::from_io(error, format_args!("list {}", folder.display()));
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name
            .to_str()
            .and_then(|name| ArchiveFileName::parse(name).ok())
        else {
            continue;
        };
        let counts = match name {
            ArchiveFileName::BackupHistory { .. } => false,
            ArchiveFileName::TimelineHistory(_) => true,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_) => {
                let path = entry.path();
                let holds = holds_wal(&path, &name, control);
                holds.map_err(|error| {
                    OpError::from_io(error, format_args!("read {}", path.display()))
                })?
            }
        };
        if counts {
            let status = status_of(&folder, &name);
            found.push(LocalWal { name, status });
        }
    }
    found.sort_by_key(|wal| wal.name.to_string());
    Ok(found)
}

fn status_of(folder: &Path, name: &ArchiveFileName) -> Status {
    let is_there = |end: &str| {
        let status = folder.join("archive_status").join(format!("{name}.{end}"));
        status.symlink_metadata().is_ok()
    };
    if is_there("ready") {
        Status::Ready
    } else if is_there("done") {
        Status::Done
    } else {
        Status::Unknown
    }
}

/// Whether a segment may hold WAL of its own. What is not understood may.
fn holds_wal(path: &Path, name: &ArchiveFileName, control: &ControlFile) -> std::io::Result<bool> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_file() {
        return Ok(true);
    }
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    if check_segment(name, &head, metadata.len()).is_ok() {
        return Ok(!begins_with_the_end(name, control));
    }
    Ok(unwritten(name, &head, metadata.len()).is_none())
}

/// Whether the first record of a segment is the checkpoint with which its server was shut down: it is the last one that was written.
/// A server that archives begins a new segment before it, so after every orderly end there is such a one, and it is never archived.
fn begins_with_the_end(name: &ArchiveFileName, control: &ControlFile) -> bool {
    let ArchiveFileName::Segment(segment) = name else {
        return false;
    };
    let start = segment.start_lsn(control.wal_segment_size);
    let first = start
        .ok()
        .and_then(|start| start.checked_add(WalPageHeader::LENGTH as u64));
    control.state == ClusterState::ShutDown
        && segment.timeline() == control.timeline
        && first == Some(control.checkpoint)
}

#[cfg(test)]
mod tests {
    use wale_pg::Lsn;

    use super::*;

    const CONTROL_FILE: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");

    #[test]
    fn a_segment_with_nothing_but_the_shutdown_is_not_missed() {
        let name = ArchiveFileName::parse("000000010000000000000003").unwrap();
        let control = ControlFile {
            state: ClusterState::ShutDown,
            checkpoint: Lsn::new(0x300_0028),
            timeline: name.timeline(),
            ..ControlFile::parse(CONTROL_FILE).unwrap()
        };
        assert!(begins_with_the_end(&name, &control));
        let later = ControlFile {
            checkpoint: Lsn::new(0x300_0080),
            ..control.clone()
        };
        let crashed = ControlFile {
            state: ClusterState::InProduction,
            ..control.clone()
        };
        let standby = ControlFile {
            state: ClusterState::ShutDownInRecovery,
            ..control.clone()
        };
        for other in [later, crashed, standby] {
            assert!(!begins_with_the_end(&name, &other), "{other:?}");
        }
        let partial = ArchiveFileName::parse("000000010000000000000003.partial").unwrap();
        assert!(!begins_with_the_end(&partial, &control));
    }

    #[test]
    fn what_is_not_understood_counts_and_what_was_never_written_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().join("pg_wal");
        let control = ControlFile::parse(CONTROL_FILE).unwrap();
        assert_eq!(list(folder.path(), &control).unwrap(), []);
        fs::create_dir_all(wal.join("archive_status")).unwrap();
        let write = |name: &str, content: &[u8]| fs::write(wal.join(name), content).unwrap();
        write("000000010000000000000001", b"nonsense");
        write("000000010000000000000002", &[0; 8192]);
        write("00000002.history", b"1\t0/5000000\tx\n");
        write("000000010000000000000001.00000028.backup", b"x");
        write("archive_status/000000010000000000000001.ready", b"");
        write("archive_status/00000002.history.done", b"");
        write("xlogtemp.12", b"x");
        let found = list(folder.path(), &control).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|wal| (wal.name.to_string(), wal.status))
            .collect();
        let expected = [
            ("000000010000000000000001".to_owned(), Status::Ready),
            ("00000002.history".to_owned(), Status::Done),
        ];
        assert_eq!(found, expected);
    }
}
