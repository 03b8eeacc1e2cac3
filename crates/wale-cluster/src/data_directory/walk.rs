//! The list of everything that belongs into a base backup.
//!
//! The server may be running: files and folders that vanish between being listed and being looked at are
//! normal, replay makes up for them. Every other failure ends the walk, naming the path: a backup must not
//! silently lack a folder. Which names are left out is decided by [`wale_pg::exclusion`]; this module knows
//! only what a file system can show: links, mounts, sockets.
//!
//! | Found | Listed as |
//! |---|---|
//! | regular file, folder | itself |
//! | `pg_tblspc/<oid>`, a link | a [`Tablespace`]; its `PG_<major>_<catalog>` folder beneath `pg_tblspc/<oid>/` |
//! | `pg_tblspc/<oid>`, a folder | an ordinary folder (a tablespace in place) |
//! | the location of a tablespace, met again inside of the data directory | a folder without what the tablespace has listed |
//! | `pg_wal`, a link | an empty folder, and [`Listing::pg_wal_link`] |
//! | another folder whose content is left out, a link | an empty folder |
//! | a link among the data of the cluster (`base`, `pg_xact` …, a tablespace) | an error: a backup without it is worthless |
//! | any other link | a link, with a warning: what it leads to is not in the backup |
//! | socket, pipe, device | nothing, with a warning |
//!
//! Entries come sorted by path within each folder, a folder before what is in it. Names are [`byte_text`]: they need
//! not be UTF-8. Nothing is kept of an entry; memory is taken by the names of the folder that is walked and of those above it,
//! some 20 bytes each.

use std::collections::BTreeSet;
use std::fs::{FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wale_pg::exclusion::{self, Rule, UnloggedRelations};
use wale_pg::{MajorVersion, byte_text, relation};

use super::DataDirectory;
use crate::byte_path::{path_of_text, text_of_path};
use crate::error::ClusterError;
use crate::folder_names::FolderNames;
use crate::wal_directory::kind_of;

/// Between two checks of a tablespace that may just be dropped; the server needs microseconds.
const DROP_PAUSE: Duration = Duration::from_millis(500);

/// What to walk for.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// The major version, which decides what is left out.
    pub major: MajorVersion,
    /// More to leave out: paths relative to the data directory, files or whole folders (the lock file, a
    /// `stats_temp_directory`).
    pub ignore: Vec<String>,
}

/// What a walk says beside the entries.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The data directory itself; its relative path is empty.
    pub root: Entry,
    /// Tablespaces that lie elsewhere, by oid. `pg_tblspc/<oid>` itself is no entry.
    pub tablespaces: Vec<Tablespace>,
    /// Where `pg_wal` leads, if it is a link.
    pub pg_wal_link: Option<PathBuf>,
    /// What is not in the backup although no rule says so.
    pub warnings: Vec<WalkWarning>,
}

/// A file or folder that belongs into a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the data directory, divided by slashes, as [`byte_text`]: it leads there, through the links of tablespaces.
    pub relative: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, as in `st_mode & 07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: SystemTime,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Bytes at the time of the walk; it may grow and shrink.
        size: u64,
    },
    /// A folder, perhaps listed without its content.
    Directory,
}

/// A tablespace outside of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The tablespace's oid.
    pub oid: u32,
    /// Where it lies: the link's target.
    pub location: PathBuf,
    /// Where it lies in the data directory, when it does: relative to it, as [`byte_text`]. A restore puts it there in
    /// its own.
    pub inside: Option<String>,
}

/// Something that is not in the backup although no rule says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkWarning {
    /// Path relative to the data directory.
    pub relative: String,
    /// What it is, and what that means.
    pub reason: String,
}

impl DataDirectory {
    /// Shows everything that belongs into a base backup to `take`, but for the data directory itself. Opens no file. The entries of a
    /// tablespace have relative paths as if it lay in `pg_tblspc/<oid>/`.
    ///
    /// # Errors
    /// When something that is there cannot be looked at, or a part of the cluster's data is a symbolic link.
    pub fn walk(
        &self,
        options: &WalkOptions,
        take: &mut dyn FnMut(Entry),
    ) -> Result<Listing, ClusterError> {
        let metadata =
            std::fs::metadata(&self.path).map_err(ClusterError::io("look at", &self.path))?;
        let mut walker = Walker {
            options,
            here: std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()),
            inside: BTreeSet::new(),
            take,
            listing: Listing {
                root: entry(String::new(), EntryKind::Directory, &metadata),
                tablespaces: Vec::new(),
                pg_wal_link: None,
                warnings: Vec::new(),
            },
        };
        walker.find_inside(&self.path)?;
        walker.folder("", &self.path)?;
        Ok(walker.listing)
    }
}

struct Walker<'a> {
    options: &'a WalkOptions,
    /// The data directory without links on the way.
    here: PathBuf,
    /// Folders of this version's tablespaces that lie in the data directory: `<location>/PG_<major>_<catalog>`. They
    /// are listed beneath `pg_tblspc` and not a second time.
    inside: BTreeSet<String>,
    take: &'a mut dyn FnMut(Entry),
    listing: Listing,
}

impl Walker<'_> {
    /// Finds the tablespaces whose location lies in the data directory. PostgreSQL warns when one is made and lives
    /// with it; in a container it is often the only volume.
    fn find_inside(&mut self, path: &Path) -> Result<(), ClusterError> {
        let spaces = path.join("pg_tblspc");
        let Some(found) = found_in(&spaces, false)? else {
            return Ok(());
        };
        for (name, kind) in found.iter() {
            if !kind.is_symlink() || tablespace_oid(&format!("pg_tblspc/{name}")).is_none() {
                continue;
            }
            let path = spaces.join(path_of_text(name));
            let Some(location) = self.place_inside(&path) else {
                continue;
            };
            let prefix = version_prefix(self.options.major);
            let Some(versions) = found_in(&path, false)? else {
                continue;
            };
            let versions = versions.iter().map(|(name, _)| name);
            for version in versions.filter(|name| name.starts_with(&prefix)) {
                self.inside.insert(joined(&location, version));
            }
        }
        Ok(())
    }

    /// Where a link leads in the data directory, if it does.
    fn place_inside(&self, link: &Path) -> Option<String> {
        let target = std::fs::canonicalize(link).ok()?;
        let rest = target.strip_prefix(&self.here).ok()?;
        Some(text_of_path(rest))
    }

    /// Lists what is in a folder. It may be gone by now; the data directory itself must not.
    fn folder(&mut self, relative: &str, path: &Path) -> Result<(), ClusterError> {
        let Some(found) = found_in(path, relative.is_empty())? else {
            return Ok(());
        };
        let unlogged = if relation::is_database_directory(relative) {
            UnloggedRelations::among(found.iter().map(|(name, _)| name))
        } else {
            UnloggedRelations::default()
        };
        for (name, kind) in found.iter().filter(|(name, _)| !unlogged.have(name)) {
            let relative = joined(relative, name);
            let path = path.join(path_of_text(name));
            let is_ignored =
                self.options.ignore.contains(&relative) || self.inside.contains(&relative);
            let is_left_out = || {
                !kind.is_dir()
                    && !kind.is_symlink()
                    && exclusion::file(&relative, self.options.major) != Rule::Keep
            };
            if is_ignored || is_left_out() {
                continue;
            }
            if kind.is_dir() {
                self.directory(relative, &path)?;
            } else if kind.is_symlink() {
                self.link(relative, &path)?;
            } else if kind.is_file() {
                self.file(relative, &path)?;
            } else {
                let reason = format!("it is a {} and is left out", kind_of(kind));
                self.listing.warnings.push(WalkWarning { relative, reason });
            }
        }
        Ok(())
    }

    fn file(&mut self, relative: String, path: &Path) -> Result<(), ClusterError> {
        let Some(metadata) = Self::look(path)? else {
            return Ok(());
        };
        let size = metadata.len();
        self.push(relative, EntryKind::File { size }, &metadata);
        Ok(())
    }

    fn directory(&mut self, relative: String, path: &Path) -> Result<(), ClusterError> {
        match exclusion::directory(&relative, self.options.major) {
            Rule::Skip => Ok(()),
            Rule::EmptyDirectory => self.emptied(relative, path),
            Rule::Keep => {
                let Some(metadata) = Self::look(path)? else {
                    return Ok(());
                };
                let kind = EntryKind::Directory;
                self.push(relative.clone(), kind, &metadata);
                self.folder(&relative, path)
            }
        }
    }

    /// A folder, or a link in its place, that is listed without its content. `pg_wal` gets the folders that
    /// the server needs in it, whether they exist now or not.
    fn emptied(&mut self, relative: String, path: &Path) -> Result<(), ClusterError> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ClusterError::io("look at", path)(error)),
        };
        let inside = format!("{relative}/");
        self.push(relative, EntryKind::Directory, &metadata);
        let major = self.options.major;
        for folder in exclusion::emptied_directories(major).filter(|f| f.starts_with(&inside)) {
            self.push(folder.to_owned(), EntryKind::Directory, &metadata);
        }
        Ok(())
    }

    fn link(&mut self, relative: String, path: &Path) -> Result<(), ClusterError> {
        let target = match std::fs::read_link(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ClusterError::io("read", path)(error)),
        };
        if relative == "pg_wal" {
            self.listing.pg_wal_link = Some(target);
            return self.emptied(relative, path);
        }
        if let Some(oid) = tablespace_oid(&relative) {
            return self.tablespace(oid, &relative, path, target);
        }
        match exclusion::directory(&relative, self.options.major) {
            Rule::EmptyDirectory => return self.emptied(relative, path),
            Rule::Keep if exclusion::file(&relative, self.options.major) == Rule::Keep => {}
            Rule::Keep | Rule::Skip => return Ok(()),
        }
        if is_cluster_data(&relative) {
            return Err(ClusterError::LinkInCluster { relative, target });
        }
        self.listing.warnings.push(WalkWarning {
            relative,
            reason: format!(
                "it is a symbolic link; what it leads to, {}, is not in the backup",
                target.display()
            ),
        });
        Ok(())
    }

    /// Only the folder of our version is ours; clusters of other versions may share the location.
    fn tablespace(
        &mut self,
        oid: u32,
        relative: &str,
        path: &Path,
        location: PathBuf,
    ) -> Result<(), ClusterError> {
        if !has_version_folder(path, self.options.major)? {
            // The server removes the folder and then the link. A link that stays leads to a folder that is not
            // visible here, most often a volume that only the server has: the backup would lack all of it.
            std::thread::sleep(DROP_PAUSE);
            return match std::fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                _ if has_version_folder(path, self.options.major)? => {
                    self.tablespace_files(oid, relative, path, location)
                }
                _ => Err(ClusterError::TablespaceMissing {
                    oid,
                    path: location,
                }),
            };
        }
        self.tablespace_files(oid, relative, path, location)
    }

    fn tablespace_files(
        &mut self,
        oid: u32,
        relative: &str,
        path: &Path,
        location: PathBuf,
    ) -> Result<(), ClusterError> {
        let inside = self.place_inside(path);
        self.listing.tablespaces.push(Tablespace {
            oid,
            location,
            inside,
        });
        self.folder(relative, path)
    }

    fn look(path: &Path) -> Result<Option<Metadata>, ClusterError> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClusterError::io("look at", path)(error)),
        }
    }

    fn push(&mut self, relative: String, kind: EntryKind, metadata: &Metadata) {
        (self.take)(entry(relative, kind, metadata));
    }
}

/// Whether a tablespace's location holds the folder that the server made in it for its version.
fn has_version_folder(path: &Path, major: MajorVersion) -> Result<bool, ClusterError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ClusterError::io("list", path)(error)),
    };
    let prefix = version_prefix(major);
    for entry in entries {
        let entry = entry.map_err(ClusterError::io("list", path))?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn version_prefix(major: MajorVersion) -> String {
    format!("PG_{major}_")
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Whether a path is part of what the server cannot be without: the folders of relations and of transactions, and all
/// that is in a tablespace. Whatever such a link leads to would be missing in the backup.
fn is_cluster_data(relative: &str) -> bool {
    const FOLDERS: [&str; 7] = [
        "base",
        "global",
        "pg_commit_ts",
        "pg_logical",
        "pg_multixact",
        "pg_twophase",
        "pg_xact",
    ];
    let (first, rest) = relative.split_once('/').unwrap_or((relative, ""));
    let in_tablespace = || {
        first == "pg_tblspc"
            && rest
                .split('/')
                .next()
                .is_some_and(|name| tablespace_oid(&format!("pg_tblspc/{name}")).is_some())
    };
    matches!(relative, "pg_tblspc" | "PG_VERSION") || FOLDERS.contains(&first) || in_tablespace()
}

/// The names in a folder, sorted. `None`: it vanished.
fn found_in(path: &Path, must_exist: bool) -> Result<Option<FolderNames<FileType>>, ClusterError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
            return Ok(None);
        }
        Err(error) => return Err(ClusterError::io("list", path)(error)),
    };
    let mut found = FolderNames::new();
    for entry in entries {
        let entry = entry.map_err(ClusterError::io("list", path))?;
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(ClusterError::io("look at", &entry.path())(error)),
        };
        let name = entry.file_name();
        let name = byte_text::from_bytes(name.as_bytes());
        found
            .push(&name, kind)
            .map_err(ClusterError::io("list", path))?;
    }
    found.sort();
    Ok(Some(found))
}

fn entry(relative: String, kind: EntryKind, metadata: &Metadata) -> Entry {
    Entry {
        relative,
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        // Linux always has it.
        mtime: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn tablespace_oid(relative: &str) -> Option<u32> {
    let name = relative.strip_prefix("pg_tblspc/")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    if plain { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
