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

use rustix::fs::Advice;
use wale_cluster::{
    ClusterError, DataDirectory, Fate, Owner, PostmasterState, RestoreTree, TreeEntry, TreeKind,
    recovery, restore_marker, text_of_path,
};
use wale_format::Crc32c;
use wale_pg::{ControlFile, MajorVersion};

use super::tablespaces::PlannedTablespace;
use super::target::WalPlace;
use super::wipe;
use crate::backup_content::{DiskNeed, DiskNeeds, KeptFiles, is_version_folder};
use crate::error::{Kind, OpError, Result};

/// Bytes of a file that are read at once, by each worker: less than what a worker takes later, when it writes.
const READ_BYTES: usize = 1 << 20;
/// Files that wait for a worker: 256 paths of 4 KiB at the worst.
const WAITING_MAX: usize = 256;

/// What the control file is called between the moment in which nothing can be started any more and its removal.
const CONTROL_ASIDE: &str = "pg_control.wale-aside";

/// Permissions with which a server makes its files.
const MODES: [u32; 2] = [0o600, 0o640];

/// What is found in a cluster that lies where a restore goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Files that are kept.
    pub(super) kept_files: u64,
    /// Their bytes.
    pub(super) kept_bytes: u64,
    /// Files that go, but for the control file and those of `pg_wal`.
    pub(super) removed_files: u64,
    /// Their bytes.
    pub(super) removed_bytes: u64,
    /// Whether the control file is there, and goes.
    pub(super) control_goes: bool,
    /// Configuration files that the backup does not have: they stay, for a server would start with defaults in their place.
    pub(super) configuration: Vec<String>,
    /// What the kept files need, by tablespace.
    kept: DiskNeeds,
    /// What the others use now and becomes free, by tablespace.
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
    /// Device and inode of it.
    identity: (u64, u64),
    /// Those of the others: by whatever name one of them is met in here, it is a place of its own.
    others: Vec<(u64, u64)>,
}

enum PartKind<'a> {
    Data {
        places: &'a KeptPlaces,
        /// Tablespaces in the data directory, by their path there: also a link to one is met by its name.
        inside: Vec<String>,
    },
    Tablespace(Option<MajorVersion>),
    Wal,
}

impl KeptPlaces {
    fn parts(&self, owner: Option<Owner>) -> Result<Vec<Part<'_>>, ClusterError> {
        let mut parts = vec![Part {
            tree: RestoreTree::open(&self.data, owner)?,
            prefix: String::new(),
            space: None,
            kind: PartKind::Data {
                places: self,
                inside: self.tablespaces_inside(),
            },
            identity: (0, 0),
            others: Vec::new(),
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
                identity: (0, 0),
                others: Vec::new(),
            });
        }
        if let Some(wal) = self.wal.as_ref().filter(|wal| wal.path().is_dir()) {
            parts.push(Part {
                tree: RestoreTree::open(wal.path(), owner)?,
                prefix: "pg_wal/".to_owned(),
                space: None,
                kind: PartKind::Wal,
                identity: (0, 0),
                others: Vec::new(),
            });
        }
        for part in &mut parts {
            part.identity = part.tree.identity()?;
        }
        let all: Vec<_> = parts.iter().map(|part| part.identity).collect();
        for (number, part) in parts.iter_mut().enumerate() {
            part.others.clone_from(&all);
            part.others.remove(number);
        }
        Ok(parts)
    }

    /// The tablespaces in the data directory, whatever names lead to both.
    fn tablespaces_inside(&self) -> Vec<String> {
        let real_data = std::fs::canonicalize(&self.data).ok();
        let mut inside = Vec::new();
        for space in &self.tablespaces {
            let real = space.target.parent().and_then(|above| {
                let name = space.target.file_name()?;
                Some(std::fs::canonicalize(above).ok()?.join(name))
            });
            let by_name = space.target.strip_prefix(&self.data).ok();
            let by_place = real
                .as_deref()
                .zip(real_data.as_deref())
                .and_then(|(real, data)| real.strip_prefix(data).ok());
            inside.extend(by_name.into_iter().chain(by_place).map(text_of_path));
        }
        inside
    }
}

impl Part<'_> {
    /// The name in the backup.
    fn name(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Whether something is no business of a restore's.
    fn is_foreign(&self, path: &str, found: TreeEntry) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_folder = found.kind == TreeKind::Folder;
        if is_folder && (name == "lost+found" || self.others.contains(&found.identity)) {
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
                !path.contains('/') && (!is_folder || !is_version_folder(path, *major))
            }
            PartKind::Wal => !path.contains('/') && !wipe::is_of_server_wal(path),
        }
    }

    /// Whether something is mounted there that may be anybody's: a `pg_wal` may be a volume of its own, and nothing else.
    fn is_strange_mount(&self, path: &str, found: TreeEntry) -> bool {
        let is_wal = match &self.kind {
            PartKind::Data { places, .. } => path == "pg_wal" && places.wal.is_none(),
            _ => false,
        };
        found.is_mounted && !is_wal
    }

    /// Size and CRC-32C with which a file is kept. Where `pg_wal` becomes a link, nothing is kept in the folder that it was.
    fn expected(&self, kept: &KeptFiles, path: &str) -> Option<(u64, u32)> {
        if let PartKind::Data { places, .. } = &self.kind
            && matches!(places.wal, Some(WalPlace::Link(_)))
            && is_of_wal(path)
        {
            return None;
        }
        kept.expected(&self.name(path))
    }

    /// Whether it is a configuration file that the backup does not have. One that the backup brings all the same replaces it.
    fn is_own_configuration(&self, kept: &KeptFiles, path: &str) -> bool {
        matches!(self.kind, PartKind::Data { .. })
            && recovery::is_stood_in_for(path)
            && kept.expected(path).is_none()
    }

    /// Whether the volume to which its bytes are booked has them free when it goes.
    fn frees(&self, path: &str, found: TreeEntry) -> bool {
        let is_here = match &self.kind {
            PartKind::Data { .. } => !is_of_wal(path) || found.identity.0 == self.identity.0,
            PartKind::Tablespace(_) => true,
            PartKind::Wal => false,
        };
        is_here && found.has_one_name
    }
}

fn is_of_wal(path: &str) -> bool {
    path.starts_with("pg_wal/")
}

/// A file that may be the backup's.
struct Unread {
    part: usize,
    path: String,
    size: u64,
    crc32c: u32,
    frees: bool,
}

/// Compares all files with the manifest, and notes in `kept` which are the backup's. Writes nothing.
///
/// # Errors
///
/// When a directory cannot be listed; [`Kind::NotEmpty`] where something is mounted in one. A file that cannot be read is not kept.
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
            let mut mounted = None;
            let walked = part.tree.walk(&mut |path, found| {
                if part.is_foreign(path, found) {
                    return Fate::Ignored;
                }
                if part.is_strange_mount(path, found) {
                    mounted.get_or_insert_with(|| path.to_owned());
                    return Fate::Ignored;
                }
                match part.judge(path, found, kept) {
                    Comparison::Unread(unread) => {
                        let part = number;
                        // The workers live as long as this end.
                        let _ = sender.send(Unread { part, ..unread });
                    }
                    Comparison::Goes(size) => {
                        lock(&compared).goes(part, path, size, part.frees(path, found));
                    }
                    Comparison::Configuration => {
                        lock(&compared).configuration.push(path.to_owned());
                    }
                    Comparison::Nothing => {}
                }
                Fate::Stays
            });
            let walked = walked
                .map_err(|error| could_not("list", part.tree.path(), error))
                .and_then(|()| mounted.map_or(Ok(()), |path| Err(is_mounted(part, &path))));
            if let Err(error) = walked {
                drop(sender);
                return Err(error);
            }
        }
        drop(sender);
        Ok(())
    })?;
    Ok(compared
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// What a look at an entry says.
enum Comparison {
    /// It may be the backup's.
    Unread(Unread),
    /// It is not, and has these bytes.
    Goes(u64),
    /// It is a configuration file that the backup does not have.
    Configuration,
    /// A folder, or a link that goes.
    Nothing,
}

impl Part<'_> {
    fn judge(&self, path: &str, found: TreeEntry, kept: &KeptFiles) -> Comparison {
        if found.kind != TreeKind::Folder && self.is_own_configuration(kept, path) {
            return Comparison::Configuration;
        }
        let TreeKind::File(size) = found.kind else {
            return Comparison::Nothing;
        };
        match self.expected(kept, path) {
            Some((expected, crc32c)) if expected == size => Comparison::Unread(Unread {
                part: 0,
                path: path.to_owned(),
                size,
                crc32c,
                frees: self.frees(path, found),
            }),
            _ => Comparison::Goes(size),
        }
    }
}

impl Compared {
    fn goes(&mut self, part: &Part<'_>, path: &str, size: u64, frees: bool) {
        let name = part.name(path);
        if name == ControlFile::PATH {
            self.control_goes = true;
        } else if !is_of_wal(&name) {
            self.removed_files += 1;
            self.removed_bytes += size;
        }
        if frees {
            self.removed.entry(part.space).or_default().add(size);
        }
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
            kept.keep(&part.name(&unread.path));
            lock(compared).stays(part.space, unread.size);
        } else {
            lock(compared).goes(part, &unread.path, unread.size, unread.frees);
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
    // What was written and is not on the disk yet goes there, and what is read comes from there: a write-back that failed once left
    // the new page in memory alone, and its error is told to the next one who asks.
    if !is_own || file.sync_data().is_err() {
        return false;
    }
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
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

/// Takes the control file away, durably: nothing can be started from now on. Then it looks whether a server was started just before,
/// and gives it back its file.
///
/// # Errors
///
/// [`Kind::Busy`] where one was; those of the disk. The control file is where it was then, if the disk allows it.
pub(super) fn prevent_start(data: &Path, owner: Owner) -> Result<()> {
    let failed = |error| could_not("take the control file of", data, error);
    let tree = RestoreTree::open(data, Some(owner)).map_err(failed)?;
    let is_there = tree
        .rename_file(ControlFile::PATH, CONTROL_ASIDE)
        .map_err(failed)?;
    // A server makes its postmaster.pid before it reads the control file: one that comes later than this look finds none.
    let looked = DataDirectory::open(data).and_then(|directory| directory.postmaster());
    if matches!(looked, Ok(PostmasterState::Absent)) {
        return Ok(());
    }
    if is_there {
        tree.rename_file(&format!("global/{CONTROL_ASIDE}"), "pg_control")
            .map_err(failed)?;
    }
    looked.map_err(failed)?;
    Err(OpError::new(
        Kind::Busy,
        format!(
            "a server was started on \"{}\" while the restore began",
            data.display()
        ),
    )
    .detail("Its postmaster.pid is there. Its control file was put back, and nothing was removed.")
    .hint("stop the server, see to it that nothing starts it, and restore again"))
}

/// Removes everything that is not kept, once nothing can be started any more. `kept_files` are to stay, and are counted.
///
/// # Errors
///
/// Those of the disk; [`Kind::Busy`] where other files are there than were compared. The next run compares them anew.
pub(super) fn clear(
    places: &KeptPlaces,
    kept: &KeptFiles,
    kept_files: u64,
    owner: Owner,
) -> Result<()> {
    let failed = |error| could_not("remove what is not the backup's in", &places.data, error);
    let parts = places.parts(Some(owner)).map_err(failed)?;
    let mut left = 0;
    for part in &parts {
        let mut mounted = None;
        let walked = part.tree.walk(&mut |path, found| {
            if part.is_foreign(path, found) {
                return Fate::Ignored;
            }
            if part.is_strange_mount(path, found) {
                mounted.get_or_insert_with(|| path.to_owned());
                return Fate::Ignored;
            }
            if found.kind == TreeKind::Folder {
                return Fate::Goes;
            }
            if kept.is_kept(&part.name(path)) {
                left += 1;
                return Fate::Stays;
            }
            if part.is_own_configuration(kept, path) {
                return Fate::Stays;
            }
            Fate::Goes
        });
        walked.map_err(failed)?;
        if let Some(path) = mounted {
            return Err(is_mounted(part, &path));
        }
    }
    check_left(places, &parts, left, kept_files)
}

/// What was kept must still be there, by the names with which the server will look for it.
fn check_left(places: &KeptPlaces, parts: &[Part<'_>], left: u64, kept_files: u64) -> Result<()> {
    let is_in_place = |part: &Part<'_>| {
        std::fs::metadata(part.tree.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == part.identity)
    };
    let moved = parts.iter().find(|part| !is_in_place(part));
    if left == kept_files && moved.is_none() {
        return Ok(());
    }
    let shown = moved.map_or(places.data.as_path(), |part| part.tree.path());
    Err(OpError::new(
        Kind::Busy,
        format!(
            "\"{}\" changed while it was cleared: {kept_files} files were to stay, and {left} are left",
            shown.display()
        ),
    )
    .detail("Nothing can be started on it: its control file is gone, and comes back when all files are there.")
    .hint("see to it that nothing else works there, and run the restore again: it looks anew at what is there"))
}

/// Refuses a directory in which something is mounted.
fn is_mounted(part: &Part<'_>, path: &str) -> OpError {
    let (shown, root) = (
        part.tree.path().join(wale_cluster::path_of_text(path)),
        part.tree.path().display(),
    );
    OpError::new(
        Kind::NotEmpty,
        format!(
            "\"{}\", in \"{root}\", is mounted there: it may be anybody's, and nothing behind it is touched",
            shown.display()
        ),
    )
    .hint("unmount it, or restore into an empty directory")
}

fn could_not(what: &str, path: &Path, error: ClusterError) -> OpError {
    OpError::from_cluster(error, format_args!("{what} {}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
