//! What a restore finds where it is to write.

use std::path::Path;

use wale_pg::{ControlFile, MajorVersion, SystemIdentifier};

use super::DataDirectory;
use crate::durable;
use crate::error::ClusterError;
use crate::restore_marker::{self, RestoreMarker};

/// What lies in a data directory, as far as a restore has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryContent {
    /// The directory does not exist.
    Missing,
    /// Nothing that anybody would miss: at most the lock file, `lost+found`, temp files of wale, and a
    /// `pg_wal` that is an empty folder, a mounted volume or a link to an empty folder (images set it up
    /// before the database exists), and a `pg_tblspc` with nothing but links.
    Empty,
    /// A restore of wale has been here; its marker says what it was asked and how far it came.
    Marked(Box<RestoreMarker>),
    /// A cluster that wale did not restore.
    Cluster {
        /// From `PG_VERSION`, if it is there and known.
        version: Option<MajorVersion>,
        /// From the control file, if it can be read.
        system_identifier: Option<SystemIdentifier>,
    },
    /// Something else.
    Foreign {
        /// The first name found, in sorted order.
        first: String,
    },
}

impl DirectoryContent {
    /// Whether a fresh restore may write here without a further look.
    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Missing | Self::Empty)
    }
}

impl DataDirectory {
    /// Looks what lies here. `lock_file` is the name of the lock file inside of the directory, or empty.
    ///
    /// # Errors
    /// When the directory cannot be read, or the marker of a restore is damaged.
    pub fn content(&self, lock_file: &str) -> Result<DirectoryContent, ClusterError> {
        if !exists(&self.path)? {
            return Ok(DirectoryContent::Missing);
        }
        if let Some(marker) = restore_marker::read(&self.path)? {
            return Ok(DirectoryContent::Marked(Box::new(marker)));
        }
        if exists(&self.path.join("PG_VERSION"))? || exists(&self.path.join(ControlFile::PATH))? {
            return Ok(DirectoryContent::Cluster {
                version: self.version().ok().flatten(),
                system_identifier: self.control_file().ok().map(|c| c.system_identifier),
            });
        }
        for name in sorted_names(&self.path)? {
            if name == lock_file || is_nothing(&name) {
                continue;
            }
            if name == "pg_tblspc" {
                match first_that_is_no_link(&self.path.join("pg_tblspc"))? {
                    None => continue,
                    Some(inside) => {
                        return Ok(DirectoryContent::Foreign {
                            first: format!("pg_tblspc/{inside}"),
                        });
                    }
                }
            }
            if name == "pg_wal" {
                match first_inside(&self.path.join("pg_wal"))? {
                    None => continue,
                    Some(inside) => {
                        return Ok(DirectoryContent::Foreign {
                            first: format!("pg_wal/{inside}"),
                        });
                    }
                }
            }
            return Ok(DirectoryContent::Foreign { first: name });
        }
        Ok(DirectoryContent::Empty)
    }
}

/// The first thing of value in a folder. What is no folder at all is its own content.
fn first_inside(folder: &Path) -> Result<Option<String>, ClusterError> {
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        // A link to nowhere, or a file.
        _ => return Ok(Some(String::new())),
    }
    let names = sorted_names(folder)?;
    Ok(names.into_iter().find(|name| !is_nothing(name)))
}

/// The first thing in a folder of tablespaces that is no link. Links alone are the way in which WAL-E is told, before a
/// restore, where tablespaces go; what they lead to is the restore's to look at.
fn first_that_is_no_link(folder: &Path) -> Result<Option<String>, ClusterError> {
    if !std::fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Some(String::new()));
    }
    let names = sorted_names(folder)?;
    let is_link = |name: &String| folder.join(name).is_symlink();
    Ok(names
        .into_iter()
        .find(|name| !is_nothing(name) && !is_link(name)))
}

/// Names that stand for nothing: the file system's own, and temp files of a wale that was killed.
fn is_nothing(name: &str) -> bool {
    name == "lost+found" || durable::is_temporary_name(name)
}

fn sorted_names(folder: &Path) -> Result<Vec<String>, ClusterError> {
    let entries = std::fs::read_dir(folder).map_err(ClusterError::io("list", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(ClusterError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn exists(path: &Path) -> Result<bool, ClusterError> {
    path.try_exists().map_err(ClusterError::io("look at", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use chrono::DateTime;

    use super::*;
    use crate::restore_marker::{RestoreRequest, RestoreState};

    const LOCK: &str = "wale_init_lockfile";

    fn content_after(prepare: impl FnOnce(&Path)) -> DirectoryContent {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(folder.path().join("wal")).unwrap();
        prepare(&data);
        DataDirectory::at(data).content(LOCK).unwrap()
    }

    type Prepare = fn(&Path);

    /// What is there, how it comes there, and the first thing that makes it foreign.
    const PREPARED: [(&str, Prepare, Option<&str>); 11] = [
        ("nothing", |_| {}, None),
        (
            "lock file and lost+found",
            |data| {
                std::fs::write(data.join(LOCK), b"").unwrap();
                std::fs::create_dir(data.join("lost+found")).unwrap();
            },
            None,
        ),
        (
            "a temp file of ours",
            |data| std::fs::write(data.join(".wale_restore.json.1.0.wale-tmp"), b"").unwrap(),
            None,
        ),
        (
            "an empty pg_wal",
            |data| std::fs::create_dir_all(data.join("pg_wal/lost+found")).unwrap(),
            None,
        ),
        (
            "a link to an empty pg_wal",
            |data| symlink("../wal", data.join("pg_wal")).unwrap(),
            None,
        ),
        (
            "links of tablespaces, made for a restore",
            |data| {
                std::fs::create_dir(data.join("pg_tblspc")).unwrap();
                symlink("/anywhere", data.join("pg_tblspc/16384")).unwrap();
            },
            None,
        ),
        (
            "a tablespace in its place",
            |data| std::fs::create_dir_all(data.join("pg_tblspc/16384")).unwrap(),
            Some("pg_tblspc/16384"),
        ),
        (
            "a dangling link",
            |data| symlink("../nowhere", data.join("pg_wal")).unwrap(),
            Some("pg_wal/"),
        ),
        (
            "WAL left behind",
            |data| {
                std::fs::create_dir(data.join("pg_wal")).unwrap();
                std::fs::write(data.join("pg_wal/000000010000000000000001"), b"").unwrap();
            },
            Some("pg_wal/000000010000000000000001"),
        ),
        (
            "a file of the user",
            |data| std::fs::write(data.join("notes.txt"), b"").unwrap(),
            Some("notes.txt"),
        ),
        (
            "an empty folder of the user",
            |data| std::fs::create_dir(data.join("base")).unwrap(),
            Some("base"),
        ),
    ];

    /// Fault 55 of the battery, the directory's part.
    #[test]
    fn only_directories_without_anything_of_value_are_free() {
        for (what, prepare, foreign) in PREPARED {
            let expected = match foreign {
                None => DirectoryContent::Empty,
                Some(first) => DirectoryContent::Foreign {
                    first: first.to_owned(),
                },
            };
            let found = content_after(prepare);
            assert_eq!(found, expected, "{what}");
            assert_eq!(found.is_free(), foreign.is_none(), "{what}");
        }
    }

    #[test]
    fn clusters_and_markers_are_recognised() {
        let cluster =
            content_after(|data| std::fs::write(data.join("PG_VERSION"), "15\n").unwrap());
        assert_eq!(
            cluster,
            DirectoryContent::Cluster {
                version: MajorVersion::new(15).ok(),
                system_identifier: None
            }
        );
        let marker = RestoreMarker {
            format: restore_marker::FORMAT,
            state: RestoreState::Done,
            request: RestoreRequest::default(),
            backup: String::new(),
            started_at: DateTime::UNIX_EPOCH,
            finished_at: None,
            host: String::new(),
            wale_version: String::new(),
            written: Vec::new(),
            settled_at: None,
            attempt: String::new(),
            outside: Vec::new(),
            wal_directory: None,
            is_delta: false,
            delta_directory: None,
            system_identifier: None,
        };
        let restored = content_after(|data| {
            std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
            restore_marker::write(data, &marker).unwrap();
        });
        assert_eq!(restored, DirectoryContent::Marked(Box::new(marker)));
        let missing = DataDirectory::at("/nonexistent/data").content(LOCK);
        assert_eq!(missing.unwrap(), DirectoryContent::Missing);
    }
}
