//! What can go wrong with a living cluster, as situations.
//!
//! A variant names what the caller is looking at, not which library said so. [`ClusterError::situation`]
//! is the coarse form that decides exit status and retry in the rooms above; `Display` is the message,
//! [`ClusterError::detail`] the facts, [`ClusterError::hint`] what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use wale_pg::byte_text;

use crate::recovery::SettingMistake;

/// A failed look at, or change of, a database cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file or folder that was asked for is not there.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
    },
    /// Something other than a regular file lies under a WAL file's name.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// What was looked at.
        path: PathBuf,
        /// What it is instead.
        found: FileKind,
    },
    /// A path that must be a directory is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was looked at.
        path: PathBuf,
    },
    /// A tablespace whose files cannot be seen from here.
    #[error("the files of tablespace {oid} are not in {}", path.display())]
    TablespaceMissing {
        /// The tablespace.
        oid: u32,
        /// Where its link leads.
        path: PathBuf,
    },
    /// The operating system refused or failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// Infinitive, for the message: `read`, `write`, `list` …
        action: &'static str,
        /// The object of the action.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the cluster holds something that PostgreSQL would not have written.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of the cluster's data is a symbolic link: a backup would lack what it leads to.
    #[error(
        "\"{}\" in the data directory is a symbolic link: what it leads to would be missing in the backup",
        byte_text::shown(relative)
    )]
    LinkInCluster {
        /// The path relative to the data directory.
        relative: String,
        /// What the link holds.
        target: PathBuf,
    },
    /// A relative path would leave the directory that it is meant for, or goes through a symbolic link.
    #[error("the path {relative:?} leaves {}", root.display())]
    OutsideOfTree {
        /// The directory.
        root: PathBuf,
        /// The path as given.
        relative: String,
    },
    /// Nobody answers at the server's address.
    #[error("could not reach the server at {server}")]
    Unreachable {
        /// Host and port, or socket.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// The server answers, but takes no session now: starting, stopping, or out of connections.
    #[error("the server at {server} does not accept connections now")]
    NotReady {
        /// Host and port, or socket.
        server: String,
        /// The server's own words.
        reason: String,
    },
    /// The server refused user, password or address.
    #[error("the server at {server} did not let user {user:?} in")]
    Authentication {
        /// Host and port, or socket.
        server: String,
        /// The user that was refused.
        user: String,
        /// The server's own words.
        reason: String,
        /// Why the password file was not used, where one was given.
        note: Option<String>,
    },
    /// No TLS session could be made, or the certificate was refused.
    #[error("could not make a TLS connection to the server at {server}")]
    Tls {
        /// Host and port.
        server: String,
        /// Why.
        reason: String,
    },
    /// The user is let in, but has no right to do what a backup needs.
    #[error("user {user:?} has no right to {action}")]
    Privileges {
        /// The user.
        user: String,
        /// Infinitive: `start a base backup` …
        action: &'static str,
        /// The SQL statement that an administrator has to run.
        grants: String,
    },
    /// The session ended under our hands. A backup that ran in it is void.
    #[error("the connection to the server was lost while {during}")]
    ConnectionLost {
        /// Present participle: `running a base backup` …
        during: &'static str,
        /// What is known of the end.
        reason: String,
    },
    /// The server rejected a statement.
    #[error("the server reported an error while {during}")]
    Query {
        /// Present participle.
        during: &'static str,
        /// Five characters, e.g. `55000`; empty where there is none.
        sqlstate: String,
        /// The server's own words.
        message: String,
    },
    /// The backup cannot be used, for a reason that lies in the cluster: e.g. a promotion during it.
    #[error("the base backup cannot be used")]
    BackupVoid {
        /// The server's own words.
        reason: String,
    },
    /// A server of a major version that wale does not know.
    #[error("the server has an unsupported version ({version_num})")]
    UnsupportedServer {
        /// `server_version_num`, or the text of `PG_VERSION`.
        version_num: String,
    },
    /// A control file whose layout wale does not know: of a newer major version, or of a beta.
    #[error("{} has the layout {version}, which this version of wale does not know", path.display())]
    UnsupportedControlFile {
        /// The file.
        path: PathBuf,
        /// Its `pg_control_version`.
        version: u32,
    },
    /// The server's answer makes no sense.
    #[error("the server gave an answer that could not be understood while {during}")]
    UnexpectedAnswer {
        /// Present participle.
        during: &'static str,
        /// What was expected and what came.
        reason: String,
    },
    /// An option that cannot work.
    #[error("{message}")]
    Configuration {
        /// What is wrong, naming the object.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Recovery settings that PostgreSQL would refuse, or that would not do what was meant.
    #[error("{} cannot be used", plural(mistakes.len(), "recovery setting", "recovery settings"))]
    RecoverySettings {
        /// All of them.
        mistakes: Vec<SettingMistake>,
    },
}

/// What kind of thing lies in the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
    /// Anything else.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Device => "device",
            Self::Other => "special file",
        })
    }
}

/// The coarse form of an error: what the rooms above decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// The file that was asked for is not there.
    NotFound,
    /// A local file could not be read or written.
    LocalIo,
    /// No space, no inodes, or over quota.
    DiskFull,
    /// The operating system or the server forbids it.
    PermissionDenied,
    /// Bytes that must not be trusted.
    CorruptData,
    /// The server is out of reach or not ready; trying again helps.
    PostgresUnavailable,
    /// The options are wrong; an operator has to change them.
    Configuration,
    /// The server refused a statement, or answered strangely.
    ServerError,
}

impl ClusterError {
    /// The coarse form.
    #[must_use]
    pub fn situation(&self) -> Situation {
        match self {
            Self::NotFound { .. } => Situation::NotFound,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Situation::DiskFull,
                io::ErrorKind::PermissionDenied => Situation::PermissionDenied,
                // Not `NotFound`: a folder that is missing for a write says nothing about the archive, and
                // PostgreSQL would take it for the end of the WAL.
                _ => Situation::LocalIo,
            },
            Self::NotRegular { .. }
            | Self::NotADirectory { .. }
            | Self::LinkInCluster { .. }
            | Self::TablespaceMissing { .. } => Situation::LocalIo,
            Self::Damaged { .. } | Self::OutsideOfTree { .. } => Situation::CorruptData,
            Self::Unreachable { .. } | Self::NotReady { .. } | Self::ConnectionLost { .. } => {
                Situation::PostgresUnavailable
            }
            Self::Authentication { .. } | Self::Privileges { .. } => Situation::PermissionDenied,
            Self::Tls { .. }
            | Self::UnsupportedServer { .. }
            | Self::UnsupportedControlFile { .. }
            | Self::Configuration { .. }
            | Self::RecoverySettings { .. } => Situation::Configuration,
            Self::Query { .. } | Self::BackupVoid { .. } | Self::UnexpectedAnswer { .. } => {
                Situation::ServerError
            }
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::BackupVoid { .. } => true,
            // Class 53 is "insufficient resources", 57 "operator intervention", 40 "rollback".
            Self::Query { sqlstate, .. } => {
                sqlstate.starts_with("53")
                    || sqlstate.starts_with("57")
                    || sqlstate.starts_with("40")
                    // Another session held a lock for too long.
                    || sqlstate == "55P03"
            }
            other => other.situation() == Situation::PostgresUnavailable,
        }
    }

    /// The facts, as a sentence, where there are more than the message says.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::TablespaceMissing { .. } => Some(
                "The server has made a folder of its version there, which cannot be seen from here.".to_owned(),
            ),
            Self::NotRegular { found, .. } => Some(format!("It is a {found}.")),
            Self::LinkInCluster { target, .. } => Some(format!(
                "It leads to \"{}\". PostgreSQL knows no links but those of tablespaces and of pg_wal; \
                 pg_basebackup leaves such files out, too.",
                target.display()
            )),
            Self::Io { source, .. } => Some(sentence(&source.to_string())),
            Self::Damaged { reason, .. }
            | Self::Unreachable { reason, .. }
            | Self::NotReady { reason, .. }
            | Self::Tls { reason, .. }
            | Self::ConnectionLost { reason, .. }
            | Self::BackupVoid { reason }
            | Self::UnexpectedAnswer { reason, .. } => Some(sentence(reason)),
            Self::Authentication { reason, note, .. } => Some(match note {
                Some(note) => format!("{} {}", sentence(reason), sentence(note)),
                None => sentence(reason),
            }),
            Self::Query {
                sqlstate, message, ..
            } => Some(if sqlstate.is_empty() {
                sentence(message)
            } else {
                format!("{} (SQLSTATE {sqlstate})", sentence(message))
            }),
            Self::RecoverySettings { mistakes } => Some(
                mistakes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            _ => None,
        }
    }

    /// What to do about it, in the imperative.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Privileges { grants, .. } => {
                Some(format!("Run as a superuser of that server: {grants}"))
            }
            Self::Unreachable { .. } => {
                Some("Check host and port, and that the server listens there.".to_owned())
            }
            Self::Authentication { .. } => Some(
                "Check user and password, and that the server's pg_hba.conf lets this host in."
                    .to_owned(),
            ),
            Self::Tls { .. } => Some(
                "Check sslmode, the file of root certificates (a self-signed certificate must itself \
                 stand in it), and with verify-full the host's name."
                    .to_owned(),
            ),
            Self::NotRegular { .. } => {
                Some("Remove it; PostgreSQL puts only regular files there.".to_owned())
            }
            Self::TablespaceMissing { oid, .. } => Some(format!(
                "Mount the tablespace's folder here under the same path as at the server. If the tablespace is lost, \
                 drop it in the server, or remove the link pg_tblspc/{oid} while the server is stopped."
            )),
            Self::LinkInCluster { .. } => Some(
                "Stop the server and move the files back; to keep them on another disk, make a tablespace there and \
                 move the tables or the database into it (ALTER DATABASE … SET TABLESPACE)."
                    .to_owned(),
            ),
            Self::Query { sqlstate, .. } if sqlstate == "55P03" => Some(
                "Look in pg_locks for the session that holds a lock on a system catalogue, and end it.".to_owned(),
            ),
            Self::Configuration { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| {
            if source.kind() == io::ErrorKind::NotFound && action != "write" {
                Self::NotFound { path }
            } else {
                Self::Io {
                    action,
                    path,
                    source,
                }
            }
        }
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// First letter upper case, full stop at the end.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let cases = [
            (io::ErrorKind::StorageFull, Situation::DiskFull),
            (io::ErrorKind::QuotaExceeded, Situation::DiskFull),
            (io::ErrorKind::PermissionDenied, Situation::PermissionDenied),
            (io::ErrorKind::ReadOnlyFilesystem, Situation::LocalIo),
            (io::ErrorKind::NotFound, Situation::LocalIo),
            (io::ErrorKind::Other, Situation::LocalIo),
        ];
        for (kind, expected) in cases {
            let error = ClusterError::io("write", Path::new("/x"))(io::Error::from(kind));
            assert_eq!(error.situation(), expected, "{kind:?}");
        }
        let error = ClusterError::io("read", Path::new("/x"))(io::ErrorKind::NotFound.into());
        assert_eq!(error.situation(), Situation::NotFound);
    }

    #[test]
    fn messages_are_one_line_and_details_are_sentences() {
        let error = ClusterError::Query {
            during: "starting a base backup",
            sqlstate: "55000".to_owned(),
            message: "a backup is already in progress in this session".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "the server reported an error while starting a base backup"
        );
        assert_eq!(
            error.detail().unwrap(),
            "A backup is already in progress in this session. (SQLSTATE 55000)"
        );
        assert!(!error.is_transient());
    }
}
