//! The note that a restore leaves in the data directory about itself.
//!
//! It is written before the first restored file and says `running`, and again after the last one, then it
//! says `done`. By it a restarted sidecar knows whether it restored this very thing already (then it must
//! not do it again over a newer database), or whether what lies there is its own half-done work (then it
//! may be cleared). The file is plain JSON so that an operator can read it.
//!
//! It is not part of a base backup: a walk of the data directory leaves it out.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;
use crate::recovery::WrittenSetting;

/// The marker's name in PGDATA.
pub const FILE_NAME: &str = "wale_restore.json";

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// The format of a restore that keeps files while it runs. A version that does not know it must not take the directory for its own
/// half-done work and clear it.
pub const FORMAT_OF_DELTA: u32 = 2;

/// A marker larger than this was not written by wale. The largest part is the user's recovery settings.
const SIZE_MAX: u64 = 1 << 20;

/// What the restore of a data directory was asked, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMarker {
    /// Version of this file's format, [`FORMAT`] or [`FORMAT_OF_DELTA`].
    pub format: u32,
    /// How far it came.
    pub state: RestoreState,
    /// What was asked. Two equal requests are the same restore.
    pub request: RestoreRequest,
    /// The base backup that the request led to.
    pub backup: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// The host, in a container the container's name, that did it.
    #[serde(default)]
    pub host: String,
    /// The version of wale that did it.
    #[serde(default)]
    pub wale_version: String,
    /// The settings that it wrote into `postgresql.auto.conf`: by them the lines that steer recovery are known after the
    /// promotion, and taken back. Afterwards those that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<WrittenSetting>,
    /// When the recovery was seen to have ended, and the lines that steer it were taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<DateTime<Utc>>,
    /// What no other restore into this directory has: by it a restore knows its own marker.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attempt: String,
    /// The directories outside that were found empty, or made, for tablespaces: a restore that is begun anew clears these
    /// and no others. Bytes as [`crate::text_of_path`] writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
    /// The WAL directory outside that was found empty, or made: it is cleared likewise, of files of WAL alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_directory: Option<String>,
    /// Whether files that were there before are kept while it runs: then not all is its own, and nothing may be cleared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_delta: bool,
    /// Where the data directory of such a restore is, links followed: in a copy of it the places outside are the original's. Bytes as
    /// [`crate::text_of_path`] writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_directory: Option<String>,
    /// The cluster whose backup it restores, where that is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<u64>,
}

/// How far a restore came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreState {
    /// Not complete: the directory must not be started and may be cleared.
    Running,
    /// Complete: the directory is the server's now and must not be touched.
    Done,
}

/// What a restore was asked, in the user's words. Compared as text, so nothing in it may change by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Where the archive is, printable, without secrets.
    pub archive: String,
    /// The backup as asked for: a name, or `LATEST`.
    pub label: String,
    /// `recover`, `standby` or `none`.
    pub restore_as: String,
    /// The recovery settings that the user added.
    #[serde(default)]
    pub recovery_addition: String,
    /// Whatever else makes this restore another one, by name.
    #[serde(default, flatten)]
    pub other: BTreeMap<String, String>,
}

/// By this name a request says that the cluster is a copy beside production.
const REHEARSAL: &str = "rehearsal";

impl RestoreRequest {
    /// Says that the cluster is a copy beside production.
    pub fn mark_rehearsal(&mut self) {
        self.other.insert(REHEARSAL.to_owned(), "yes".to_owned());
    }

    /// Whether the cluster is a copy beside production.
    #[must_use]
    pub fn is_rehearsal(&self) -> bool {
        self.other.contains_key(REHEARSAL)
    }
}

/// Reads the marker of a data directory. `None`: there is none (or no directory).
///
/// # Errors
/// When it cannot be read, is not the JSON that wale writes, or is of a newer format.
pub fn read(data_directory: &Path) -> Result<Option<RestoreMarker>, ClusterError> {
    let path = data_directory.join(FILE_NAME);
    let file = match crate::regular_file::open_regular(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ClusterError::io("read", &path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(ClusterError::io("read", &path))?;
    let damaged = |reason: String| ClusterError::Damaged {
        path: path.clone(),
        reason,
    };
    if bytes.len() as u64 > SIZE_MAX {
        return Err(damaged(format!("it is larger than {SIZE_MAX} bytes")));
    }
    let marker: RestoreMarker =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if marker.format > FORMAT_OF_DELTA {
        return Err(damaged(format!(
            "it has format {}, and this version of wale knows only {FORMAT_OF_DELTA}",
            marker.format
        )));
    }
    Ok(Some(marker))
}

/// Writes the marker durably, readable by the directory's owner, to whom it is given.
///
/// # Errors
/// When the directory does not exist or cannot be written to.
pub fn write(data_directory: &Path, marker: &RestoreMarker) -> Result<(), ClusterError> {
    let path = data_directory.join(FILE_NAME);
    let owner = Owner::of(data_directory).map_err(ClusterError::io("look at", data_directory))?;
    let mut bytes = serde_json::to_vec_pretty(marker)
        .expect("a marker has only text keys, which JSON can always hold");
    bytes.push(b'\n');
    durable::write_atomic(&path, &bytes, 0o600, Some(owner))
        .map_err(ClusterError::io("write", &path))
}

/// Removes the marker. `false`: there was none.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(data_directory: &Path) -> Result<bool, ClusterError> {
    let path = data_directory.join(FILE_NAME);
    durable::remove(&path).map_err(ClusterError::io("remove", &path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn marker() -> RestoreMarker {
        RestoreMarker {
            format: FORMAT,
            state: RestoreState::Running,
            request: RestoreRequest {
                archive: "file:///archive".to_owned(),
                label: "LATEST".to_owned(),
                restore_as: "recover".to_owned(),
                recovery_addition: "recovery_target_time = '2026-01-01 00:00:00 UTC'".to_owned(),
                other: BTreeMap::from([("pg_wal".to_owned(), "/wal".to_owned())]),
            },
            backup: "base_000000010000000000000002_00000040".to_owned(),
            started_at: DateTime::UNIX_EPOCH,
            finished_at: None,
            host: "db-0".to_owned(),
            wale_version: "0.1.0".to_owned(),
            written: Vec::new(),
            settled_at: None,
            attempt: "7f".to_owned(),
            outside: vec!["/space".to_owned()],
            wal_directory: Some("/wal".to_owned()),
            is_delta: false,
            delta_directory: None,
            system_identifier: Some(7),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        write(folder.path(), &marker()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(marker()));
        let done = RestoreMarker {
            state: RestoreState::Done,
            finished_at: Some(DateTime::UNIX_EPOCH),
            written: vec![WrittenSetting {
                name: "recovery_target_xid".to_owned(),
                value: "7".to_owned(),
            }],
            ..marker()
        };
        write(folder.path(), &done).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(done));
        let path = folder.path().join(FILE_NAME);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(remove(folder.path()).unwrap());
        assert!(!remove(folder.path()).unwrap());
    }

    #[test]
    fn damaged_and_newer_markers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let newer = RestoreMarker {
            format: FORMAT_OF_DELTA + 1,
            ..marker()
        };
        let cases = [
            Vec::new(),
            b"{".to_vec(),
            b"null".to_vec(),
            vec![b' '; usize::try_from(SIZE_MAX).unwrap() + 1],
            serde_json::to_vec(&newer).unwrap(),
        ];
        for bytes in cases {
            std::fs::write(folder.path().join(FILE_NAME), &bytes).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert!(matches!(error, ClusterError::Damaged { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_missing_directory_has_no_marker_and_takes_none() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert_eq!(read(&missing).unwrap(), None);
        assert!(write(&missing, &marker()).is_err());
    }
}
