//! `postmaster.pid`: what a server says about itself while it runs.
//!
//! Written by `CreateLockFile` and `AddToDataDirLockFile` (PostgreSQL: `miscinit.c`, lines as in
//! `utils/pidfile.h`), removed at an orderly end, left behind by a crash.
//!
//! The server often lives in another container, with process ids of its own: its id 1 is not our id 1. So
//! this judgement is made to be believed only where it is certain, and callers must treat
//! [`PostmasterState::Unknown`] as "perhaps": to learn more, connect to the server; to be safe, do not
//! touch the directory.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};

use super::{DataDirectory, read_small};
use crate::error::ClusterError;

/// The content of `postmaster.pid`. Everything but the process id may be missing for an instant while the
/// server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostmasterFile {
    /// Process id in the server's own numbering.
    pub pid: u32,
    /// The data directory as the server sees it.
    pub data_directory: Option<PathBuf>,
    /// When the server started, by the clock of its host.
    pub started: Option<DateTime<Utc>>,
    /// TCP port.
    pub port: Option<u16>,
    /// Directory of the first Unix socket, as the server sees it.
    pub socket_directory: Option<PathBuf>,
    /// First address that it listens on, or `*`.
    pub listen_address: Option<String>,
    /// `starting`, `stopping`, `ready` or `standby`.
    pub status: Option<String>,
    /// When the file was last written: with a new `status`, not regularly.
    pub modified: SystemTime,
}

/// Whether a server runs on the data directory, as far as this process can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostmasterState {
    /// There is no `postmaster.pid`: no server runs, unless it was removed by hand.
    Absent,
    /// A process with that id runs beside us and is a PostgreSQL server.
    Live(PostmasterFile),
    /// The file says that the server started before this machine did (or is empty): left by a crash. On a
    /// volume that several machines share, this may be another machine's live server.
    Stale(Option<PostmasterFile>),
    /// No such process is visible here. It may be gone, or run in a container of its own.
    Unknown(PostmasterFile),
}

impl PostmasterState {
    /// The file's content, where there is any.
    #[must_use]
    pub fn file(&self) -> Option<&PostmasterFile> {
        match self {
            Self::Absent => None,
            Self::Live(file) | Self::Unknown(file) => Some(file),
            Self::Stale(file) => file.as_ref(),
        }
    }

    /// Whether a server may be running: live or unknown.
    #[must_use]
    pub fn may_run(&self) -> bool {
        matches!(self, Self::Live(_) | Self::Unknown(_))
    }
}

impl DataDirectory {
    /// Checks whether a server runs here. The states say what the answer is worth.
    ///
    /// # Errors
    /// When `postmaster.pid` is there and cannot be read.
    pub fn postmaster(&self) -> Result<PostmasterState, ClusterError> {
        let path = self.path.join("postmaster.pid");
        let Some(text) = read_small(&path)? else {
            return Ok(PostmasterState::Absent);
        };
        let Ok(modified) = std::fs::metadata(&path).and_then(|metadata| metadata.modified()) else {
            // Removed between the two looks: the server has just ended.
            return Ok(PostmasterState::Absent);
        };
        Ok(match parse(&text, modified) {
            None => PostmasterState::Stale(None),
            Some(file) if is_postgres(Path::new("/proc"), file.pid) => PostmasterState::Live(file),
            Some(file) if started_before(&file, boot_time(Path::new("/proc/stat"))) => {
                PostmasterState::Stale(Some(file))
            }
            Some(file) => PostmasterState::Unknown(file),
        })
    }
}

fn parse(text: &str, modified: SystemTime) -> Option<PostmasterFile> {
    let mut lines = text.lines().map(str::trim);
    // A server in single-user mode writes its id negative.
    let pid = lines.next()?.parse::<i32>().ok()?.unsigned_abs();
    let mut next = || lines.next().filter(|line| !line.is_empty());
    let data_directory = next().map(PathBuf::from);
    let started = next()
        .and_then(|line| line.parse().ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let port = next().and_then(|line| line.parse().ok());
    let socket_directory = next().map(PathBuf::from);
    let listen_address = next().map(str::to_owned);
    let _shared_memory = next();
    let status = next().map(str::to_owned);
    Some(PostmasterFile {
        pid,
        data_directory,
        started,
        port,
        socket_directory,
        listen_address,
        status,
        modified,
    })
}

/// Whether the process is visible here and calls itself postgres.
fn is_postgres(proc: &Path, pid: u32) -> bool {
    let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm"));
    name.is_ok_and(|name| matches!(name.trim(), "postgres" | "postmaster"))
}

fn started_before(file: &PostmasterFile, boot: Option<DateTime<Utc>>) -> bool {
    match (file.started, boot) {
        (Some(started), Some(boot)) => started < boot,
        _ => false,
    }
}

/// When the kernel started: the line `btime` of `/proc/stat`, seconds since 1970.
fn boot_time(stat: &Path) -> Option<DateTime<Utc>> {
    let text = std::fs::read_to_string(stat).ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    DateTime::from_timestamp(seconds.trim().parse().ok()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "42\n/var/lib/postgresql/data\n1700000000\n5432\n/var/run/postgresql\n*\n  \
                        1234567         7\nready   \n";

    #[test]
    fn a_whole_file_is_read() {
        let file = parse(FILE, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(file.pid, 42);
        assert_eq!(
            file.data_directory.unwrap(),
            Path::new("/var/lib/postgresql/data")
        );
        assert_eq!(file.started.unwrap().timestamp(), 1_700_000_000);
        assert_eq!(file.port, Some(5432));
        assert_eq!(
            file.socket_directory.unwrap(),
            Path::new("/var/run/postgresql")
        );
        assert_eq!(file.listen_address.as_deref(), Some("*"));
        assert_eq!(file.status.as_deref(), Some("ready"));
    }

    #[test]
    fn partial_and_damaged_files_are_read_as_far_as_they_go() {
        let cases = [
            ("42\n", Some(42)),
            ("-42\n/data\n", Some(42)),
            ("42\n/data\nnonsense\nnonsense\n\n\n", Some(42)),
            ("", None),
            ("\n\n", None),
            ("nonsense\n", None),
        ];
        for (text, pid) in cases {
            let file = parse(text, SystemTime::UNIX_EPOCH);
            assert_eq!(file.as_ref().map(|file| file.pid), pid, "{text:?}");
            assert!(file.is_none_or(|file| file.started.is_none() && file.port.is_none()));
        }
    }

    #[test]
    fn only_a_server_started_before_the_machine_is_stale() {
        let file = parse(FILE, SystemTime::UNIX_EPOCH).unwrap();
        let boot = |seconds| DateTime::from_timestamp(seconds, 0);
        assert!(started_before(&file, boot(1_700_000_001)));
        assert!(!started_before(&file, boot(1_699_999_999)));
        assert!(!started_before(&file, None));
        assert!(boot_time(Path::new("/proc/stat")).is_some());
    }

    #[test]
    fn a_process_is_known_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (pid, name, expected) in [(1, "postgres\n", true), (2, "sh\n", false)] {
            let process = folder.path().join(pid.to_string());
            std::fs::create_dir(&process).unwrap();
            std::fs::write(process.join("comm"), name).unwrap();
            assert_eq!(is_postgres(folder.path(), pid), expected);
        }
        assert!(!is_postgres(folder.path(), 3));
    }

    #[test]
    fn the_states_of_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::at(folder.path());
        assert_eq!(directory.postmaster().unwrap(), PostmasterState::Absent);
        let write = |text: &str| std::fs::write(folder.path().join("postmaster.pid"), text);
        write("").unwrap();
        assert_eq!(
            directory.postmaster().unwrap(),
            PostmasterState::Stale(None)
        );
        write("4194305\n/data\n1\n").unwrap();
        let stale = directory.postmaster().unwrap();
        assert!(
            matches!(stale, PostmasterState::Stale(Some(_))),
            "{stale:?}"
        );
        write("4194305\n/data\n4102444800\n").unwrap();
        let unknown = directory.postmaster().unwrap();
        assert!(
            matches!(unknown, PostmasterState::Unknown(_)),
            "{unknown:?}"
        );
        assert!(unknown.may_run());
    }
}
