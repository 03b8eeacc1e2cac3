//! The folder of a rehearsal. Sync; for blocking threads.
//!
//! A rehearsal removes what it made, so the folder must be its own: missing or empty, or one that carries the mark of a rehearsal.
//! The mark is the first thing in it and the last to go, and only the names below are ever removed. Nobody else may write to it: whoever
//! could would choose what is started, and what is removed.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::json;
use wale_cluster::recovery::SETTINGS_FILE;
use wale_cluster::trial::TrialPlaces;
use wale_cluster::{
    DataDirectory, Owner, PostmasterState, RestoreTree, durable, read_bounded_text,
};

use crate::error::{Kind, OpError, Result};

/// The mark.
const MARK: &str = "wale_rehearsal.json";
/// Bytes of a mark; it has one line.
const MARK_MAX: u64 = 4 << 10;

const DATA: &str = "data";
const TABLESPACES: &str = "tablespaces";
const SOCKET: &str = "socket";
const HBA: &str = "pg_hba.conf";
const IDENT: &str = "pg_ident.conf";
/// What a rehearsal makes beside its mark.
const OURS: [&str; 5] = [DATA, TABLESPACES, SOCKET, HBA, IDENT];

/// A folder that is held by this rehearsal.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
    /// Whether a rehearsal made the folder itself.
    was_made: bool,
    _held: File,
}

impl ScratchFolder {
    /// Takes the folder, makes it if it is missing, and removes what a former rehearsal left in it.
    ///
    /// # Errors
    /// [`Kind::NotEmpty`] when it holds anything else, [`Kind::PermissionDenied`] when others may write to it, [`Kind::Busy`] while
    /// another rehearsal or its server is at work in it.
    pub fn take(path: &Path) -> Result<Self> {
        let shown = path.display();
        let io_failed = |what: &str, error| OpError::from_io(error, format_args!("{what} {shown}"));
        let is_new = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io_failed("make the scratch folder", error)),
        };
        let held = File::open(path).map_err(|error| io_failed("open the scratch folder", error))?;
        refuse_writable_by_others(path, &held)?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(OpError::new(
                    Kind::Busy,
                    format!("another rehearsal is at work in {shown}"),
                )
                .hint("wait for its end, or name another scratch folder"));
            }
            Err(error) => {
                tracing::debug!(path = %shown, %error, "the file system has no locks");
            }
        }
        let was_made = is_new || mark(path)?;
        let scratch = Self {
            path: path.to_owned(),
            was_made,
            _held: held,
        };
        let mark = json!({"format": 1, "was_made": was_made}).to_string();
        durable::write_atomic(&path.join(MARK), mark.as_bytes(), 0o600, None)
            .map_err(|error| io_failed("mark the scratch folder", error))?;
        scratch.clear()?;
        DirBuilder::new()
            .mode(0o700)
            .create(path.join(SOCKET))
            .map_err(|error| io_failed("make a folder in", error))?;
        Ok(scratch)
    }

    /// The data directory to be.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Below it each tablespace has a folder.
    #[must_use]
    pub fn tablespaces(&self) -> PathBuf {
        self.path.join(TABLESPACES)
    }

    /// Where the server lives.
    #[must_use]
    pub fn places(&self) -> TrialPlaces {
        TrialPlaces {
            data: self.data(),
            socket: self.path.join(SOCKET),
            hba: self.path.join(HBA),
            ident: self.path.join(IDENT),
        }
    }

    /// Removes all that the rehearsal made, and the folder if it was made for it.
    ///
    /// # Errors
    /// When something cannot be removed. It stays marked, and the next rehearsal removes it.
    pub fn give_back(self) -> Result<()> {
        self.clear()?;
        let shown = self.path.display();
        let failed = |error| OpError::from_io(error, format_args!("remove {shown}"));
        durable::remove(&self.path.join(MARK)).map_err(failed)?;
        if self.was_made {
            match std::fs::remove_dir(&self.path) {
                // Somebody put something of their own there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                removed => removed.map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Leaves the copy to be looked at, without the archive's keys. The next rehearsal here removes it.
    ///
    /// # Errors
    /// When the file with the keys cannot be removed.
    pub fn keep(self) -> Result<()> {
        let path = self.data().join(SETTINGS_FILE);
        durable::remove(&path)
            .map_err(|error| OpError::from_io(error, format_args!("remove {}", path.display())))?;
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        let is_ours = |name: &OsStr| {
            let name = name.to_str();
            name.is_some_and(|name| OURS.contains(&name) || durable::is_temporary_name(name))
        };
        RestoreTree::open(&self.path, None)
            .and_then(|tree| tree.clear_where(is_ours))
            .map_err(|error| {
                let what = format_args!("remove what a rehearsal made in {}", self.path.display());
                OpError::from_cluster(error, what)
            })
    }
}

/// Whether a former rehearsal made the folder that it marked.
///
/// # Errors
/// When the folder is nobody's and not empty, or a server runs in it.
fn mark(path: &Path) -> Result<bool> {
    let shown = path.display();
    let text = match read_bounded_text(&path.join(MARK), MARK_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_occupied(path)?;
            return Ok(false);
        }
        Err(error) => {
            let what = format_args!("read the mark of a rehearsal in {shown}");
            return Err(OpError::from_io(error, what));
        }
    };
    let data = path.join(DATA);
    if let Ok(PostmasterState::Live(file)) = DataDirectory::at(&data).postmaster() {
        refuse_running(&data, file.pid, Path::new("/proc"))?;
    }
    let mark: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(mark["was_made"] == true)
}

/// Refuses a folder in which others than this user may make files, or remove them.
fn refuse_writable_by_others(path: &Path, folder: &File) -> Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    let shown = path.display();
    let own = Owner::of_process().uid;
    let found = folder
        .metadata()
        .map_err(|error| OpError::from_io(error, format_args!("look at {shown}")))?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner == own && mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let error = OpError::new(
        Kind::PermissionDenied,
        format!("others may write to the scratch folder {shown}"),
    );
    let error = error.detail(format!(
        "It belongs to user {owner}, with mode {mode:04o}, and the rehearsal is user {own}. A server is started from what lies in it. \
         Nothing was touched."
    ));
    Err(error.hint(
        "name a folder below it that does not exist, or take it for this user alone: chmod go-w",
    ))
}

/// Refuses while process `pid`, which is a server, works in the data directory. A server's working directory is its data directory,
/// so another server that has the same number by now is none of ours.
fn refuse_running(data: &Path, pid: u32, proc: &Path) -> Result<()> {
    let place = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let works_in = place(&proc.join(pid.to_string()).join("cwd"));
    let own = place(data);
    let hint = match (works_in, own) {
        (Ok(works_in), Ok(own)) if works_in != own => return Ok(()),
        (Ok(_), Ok(_)) => format!("stop it: pg_ctl -D {} -m immediate stop", data.display()),
        // Another user's, which cannot be looked at.
        _ => format!(
            "look at that process; if it is another server, remove {}/postmaster.pid",
            data.display()
        ),
    };
    let folder = data.parent().unwrap_or(data).display();
    let error = OpError::new(
        Kind::Busy,
        format!("the server of a former rehearsal may still run in {folder}"),
    );
    Err(error
        .detail(format!("Its postmaster.pid names process {pid}."))
        .hint(hint))
}

fn refuse_occupied(path: &Path) -> Result<()> {
    let failed = |error| OpError::from_io(error, format_args!("look at {}", path.display()));
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name != "lost+found" && !durable::is_temporary_name(&name) {
            return Err(OpError::new(
                Kind::NotEmpty,
                format!("the scratch folder {} holds \"{name}\"", path.display()),
            )
            .detail("A rehearsal removes what is in its folder, and this is none of a rehearsal's. Nothing was touched.")
            .hint("name an empty folder, or one that does not exist"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_with_something_of_others_is_refused_and_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("data")).unwrap();
        fs::write(path.join("data/PG_VERSION"), "15").unwrap();
        let error = ScratchFolder::take(path).unwrap_err();
        assert_eq!(error.kind, Kind::NotEmpty);
        assert_eq!(names(path), ["data"]);
        assert_eq!(names(&path.join("data")), ["PG_VERSION"]);
    }

    #[test]
    fn what_a_rehearsal_made_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch");
        let scratch = ScratchFolder::take(&path).unwrap();
        let busy = ScratchFolder::take(&path).unwrap_err();
        assert_eq!(busy.kind, Kind::Busy);
        fs::create_dir_all(scratch.data().join("base/1")).unwrap();
        fs::create_dir_all(scratch.tablespaces().join("7")).unwrap();
        // One that was killed leaves everything, and the next one removes it.
        drop(scratch);
        let scratch = ScratchFolder::take(&path).unwrap();
        assert_eq!(names(&path), [SOCKET, MARK]);
        scratch.give_back().unwrap();
        assert!(!path.exists());

        // A folder that was there stays, and what somebody put beside ours.
        fs::create_dir(&path).unwrap();
        let scratch = ScratchFolder::take(&path).unwrap();
        fs::write(path.join("notes"), "mine").unwrap();
        fs::create_dir(scratch.data()).unwrap();
        scratch.give_back().unwrap();
        assert_eq!(names(&path), ["notes"]);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused_marked_or_not() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for with_mark in [false, true] {
            for writable in [0o720, 0o702, 0o1777] {
                mode(writable);
                let error = ScratchFolder::take(path).unwrap_err();
                assert_eq!(error.kind, Kind::PermissionDenied, "{writable:o}");
                assert_eq!(names(path).len(), if with_mark { 2 } else { 0 });
            }
            mode(0o755);
            drop(ScratchFolder::take(path).unwrap());
        }
    }

    #[test]
    fn a_server_that_works_elsewhere_is_not_taken_for_the_copys() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path().join("proc");
        let data = folder.path().join("scratch/data");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(proc.join("7")).unwrap();
        let cwd = proc.join("7/cwd");
        std::os::unix::fs::symlink(&data, &cwd).unwrap();
        let error = refuse_running(&data, 7, &proc).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.hint.unwrap().contains("pg_ctl -D"));
        fs::remove_file(&cwd).unwrap();
        std::os::unix::fs::symlink(folder.path(), &cwd).unwrap();
        assert!(refuse_running(&data, 7, &proc).is_ok());
        // What cannot be seen is not stopped.
        let error = refuse_running(&data, 8, &proc).unwrap_err();
        assert!(!error.hint.unwrap().contains("pg_ctl"));
    }

    #[test]
    fn a_kept_copy_has_no_keys_and_is_the_next_rehearsals_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = ScratchFolder::take(folder.path()).unwrap();
        let data = scratch.data();
        fs::create_dir(&data).unwrap();
        fs::write(data.join(SETTINGS_FILE), "secret").unwrap();
        fs::write(data.join("PG_VERSION"), "15").unwrap();
        scratch.keep().unwrap();
        assert_eq!(names(&data), ["PG_VERSION"]);
        ScratchFolder::take(folder.path())
            .unwrap()
            .give_back()
            .unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
