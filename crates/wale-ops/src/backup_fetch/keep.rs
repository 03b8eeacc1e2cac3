//! Which files of a stopped cluster are the backup's, and the removal of all others. Sync; for blocking threads.
//!
//! A file is kept where its size and its CRC-32C are those of the manifest: it is read to its end, for neither a time nor a size says
//! what is in it. A file with a second name, of another owner or with other permissions is written anew: the restored server would
//! write through it into what is not its own. Nothing is removed, and nothing read, through a link.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use wale_cluster::{
    ClusterError, Fate, Owner, RestoreTree, TreeEntry, restore_marker, text_of_path,
};
use wale_format::Crc32c;
use wale_pg::{ControlFile, MajorVersion};

use super::tablespaces::PlannedTablespace;
use super::target::WalPlace;
use super::wipe;
use crate::backup_content::{DiskNeed, DiskNeeds, KeptFiles, is_version_folder};
use crate::error::{OpError, Result};

/// Bytes of a file that are read at once, by each worker: less than what a worker takes later, when it writes.
const READ_BYTES: usize = 1 << 20;
/// Files that wait for a worker: 256 paths of 4 KiB at the worst.
const WAITING_MAX: usize = 256;

/// Permissions with which a server makes its files.
const MODES: [u32; 2] = [0o600, 0o640];

/// What is found in a cluster that lies where a restore goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Files that are kept.
    pub(super) kept_files: u64,
    /// Their bytes.
    pub(super) kept_bytes: u64,
    /// Files that go.
    pub(super) removed_files: u64,
    /// Their bytes.
    pub(super) removed_bytes: u64,
    /// What the kept files need, by tablespace.
    kept: DiskNeeds,
    /// What the others use now, by tablespace.
    removed: DiskNeeds,
}

impl Compared {
    /// What is still needed of these: without what is kept, and what becomes free.
    pub(super) fn left(&self, needs: DiskNeeds) -> DiskNeeds {
        let less = |need: DiskNeed, by: Option<&DiskNeed>| {
            let by = by.copied().unwrap_or_default();
            DiskNeed {
                bytes: need.bytes.saturating_sub(by.bytes),
                files: need.files.saturating_sub(by.files),
            }
        };
        let of = |(space, need)| {
            let left = less(less(need, self.kept.get(&space)), self.removed.get(&space));
            (space, left)
        };
        needs.into_iter().map(of).collect()
    }
}

/// Where a cluster lies that is kept in part.
#[derive(Debug, Clone)]
pub(super) struct KeptPlaces {
    /// The data directory.
    pub(super) data: std::path::PathBuf,
    /// Its tablespaces, as the restore places them.
    pub(super) tablespaces: Vec<PlannedTablespace>,
    /// The WAL directory, where it is not simply a directory.
    pub(super) wal: Option<WalPlace>,
    /// Name of the sidecar's lock file, or empty.
    pub(super) lock_file_name: String,
    /// Version of the backup's server, where it is known.
    pub(super) major: Option<MajorVersion>,
}

/// One of these directories.
struct Part<'a> {
    tree: RestoreTree,
    /// What stands before its paths in the backup: empty, or with a slash at its end.
    prefix: String,
    space: Option<u32>,
    kind: PartKind<'a>,
}

enum PartKind<'a> {
    Data {
        places: &'a KeptPlaces,
        /// Tablespaces in the data directory: places of their own.
        inside: Vec<String>,
    },
    Tablespace(Option<MajorVersion>),
    Wal,
}

impl KeptPlaces {
    fn parts(&self, owner: Option<Owner>) -> Result<Vec<Part<'_>>, ClusterError> {
        let below = |space: &PlannedTablespace| {
            let inside = space.target.strip_prefix(&self.data).ok()?;
            Some(text_of_path(inside))
        };
        let mut parts = vec![Part {
            tree: RestoreTree::open(&self.data, owner)?,
            prefix: String::new(),
            space: None,
            kind: PartKind::Data {
                places: self,
                inside: self.tablespaces.iter().filter_map(below).collect(),
            },
        }];
        for space in self
            .tablespaces
            .iter()
            .filter(|space| space.target.is_dir())
        {
            parts.push(Part {
                tree: RestoreTree::open(&space.target, owner)?,
                prefix: format!("pg_tblspc/{}/", space.oid),
                space: Some(space.oid),
                kind: PartKind::Tablespace(self.major),
            });
        }
        if let Some(wal) = self.wal.as_ref().filter(|wal| wal.path().is_dir()) {
            parts.push(Part {
                tree: RestoreTree::open(wal.path(), owner)?,
                prefix: "pg_wal/".to_owned(),
                space: None,
                kind: PartKind::Wal,
            });
        }
        Ok(parts)
    }
}

impl Part<'_> {
    /// Whether something is no business of a restore's.
    fn is_foreign(&self, path: &str, found: TreeEntry) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name == "lost+found" && found == TreeEntry::Folder {
            return true;
        }
        match &self.kind {
            PartKind::Data { places, inside } => {
                path == restore_marker::FILE_NAME
                    || path == places.lock_file_name
                    || inside.iter().any(|inside| inside == path)
                    || (path == "pg_wal" && matches!(places.wal, Some(WalPlace::LinkThere(_))))
            }
            PartKind::Tablespace(major) => {
                !path.contains('/')
                    && (found != TreeEntry::Folder || !is_version_folder(path, *major))
            }
            PartKind::Wal => !path.contains('/') && !wipe::is_of_server_wal(path),
        }
    }
}

/// A file that may be the backup's.
struct Unread {
    part: usize,
    path: String,
    size: u64,
    crc32c: u32,
}

/// Compares all files with the manifest, and notes in `kept` which are the backup's. Writes nothing.
///
/// # Errors
///
/// When a directory cannot be listed. A file that cannot be read is not kept.
pub(super) fn compare(
    places: &KeptPlaces,
    kept: &KeptFiles,
    owner: Owner,
    workers: usize,
) -> Result<Compared> {
    let parts = places
        .parts(None)
        .map_err(|error| could_not("look at", &places.data, error))?;
    let compared = Mutex::new(Compared::default());
    let (sender, receiver) = sync_channel::<Unread>(WAITING_MAX);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| work(&parts, &receiver, kept, owner, &compared));
        }
        for (number, part) in parts.iter().enumerate() {
            let walked = part.tree.walk(&mut |path, found| {
                if part.is_foreign(path, found) {
                    return Fate::Ignored;
                }
                let TreeEntry::File(size) = found else {
                    return Fate::Stays;
                };
                match kept.expected(&format!("{}{path}", part.prefix)) {
                    Some((expected, crc32c)) if expected == size => {
                        // The workers live as long as this end.
                        let _ = sender.send(Unread {
                            part: number,
                            path: path.to_owned(),
                            size,
                            crc32c,
                        });
                    }
                    _ => lock(&compared).goes(part.space, size),
                }
                Fate::Stays
            });
            if let Err(error) = walked {
                drop(sender);
                return Err(could_not("list", part.tree.path(), error));
            }
        }
        drop(sender);
        Ok(())
    })?;
    Ok(compared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

impl Compared {
    fn goes(&mut self, space: Option<u32>, size: u64) {
        self.removed_files += 1;
        self.removed_bytes += size;
        self.removed.entry(space).or_default().add(size);
    }

    fn stays(&mut self, space: Option<u32>, size: u64) {
        self.kept_files += 1;
        self.kept_bytes += size;
        self.kept.entry(space).or_default().add(size);
    }
}

/// Reads files until there are no more.
fn work(
    parts: &[Part<'_>],
    waiting: &Mutex<Receiver<Unread>>,
    kept: &KeptFiles,
    owner: Owner,
    compared: &Mutex<Compared>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // The lock is held while this one waits, and let go before it reads.
        let next = lock(waiting).recv();
        let Ok(unread) = next else {
            return;
        };
        let part = &parts[unread.part];
        let is_same = part
            .tree
            .open_file(&unread.path)
            .is_ok_and(|file| is_same(file, &unread, owner, &mut buffer));
        if is_same {
            kept.keep(&format!("{}{}", part.prefix, unread.path));
            lock(compared).stays(part.space, unread.size);
        } else {
            lock(compared).goes(part.space, unread.size);
        }
    }
}

/// Whether an open file is the backup's to the byte, and nobody else's.
fn is_same(mut file: File, wanted: &Unread, owner: Owner, buffer: &mut [u8]) -> bool {
    let is_own = file.metadata().is_ok_and(|metadata| {
        metadata.nlink() == 1
            && metadata.uid() == owner.uid
            && MODES.contains(&(metadata.permissions().mode() & 0o7777))
    });
    if !is_own {
        return false;
    }
    let (mut crc, mut size) = (Crc32c::new(), 0_u64);
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                crc.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
        if size > wanted.size {
            return false;
        }
    }
    size == wanted.size && crc.finish() == wanted.crc32c
}

/// Removes everything that is not kept: `global/pg_control` first and durably, so that nothing can be started from now on.
///
/// # Errors
///
/// Those of the disk.
pub(super) fn clear(places: &KeptPlaces, kept: &KeptFiles, owner: Owner) -> Result<()> {
    let clear = || -> Result<(), ClusterError> {
        let parts = places.parts(Some(owner))?;
        parts[0].tree.remove_file(ControlFile::PATH)?;
        for part in &parts {
            part.tree.walk(&mut |path, found| {
                if part.is_foreign(path, found) {
                    Fate::Ignored
                } else if found != TreeEntry::Folder
                    && kept.is_kept(&format!("{}{path}", part.prefix))
                {
                    Fate::Stays
                } else {
                    Fate::Goes
                }
            })?;
        }
        Ok(())
    };
    clear().map_err(|error| could_not("remove what is not the backup's in", &places.data, error))
}

fn could_not(what: &str, path: &Path, error: ClusterError) -> OpError {
    OpError::from_cluster(error, format_args!("{what} {}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
