//! What a caller may choose about a restore.

use std::path::PathBuf;

use wale_archive::BackupSelector;
use wale_cluster::recovery::Rehearsal;
use wale_cluster::{Owner, Secret};
use wale_pipeline::default_workers;

use super::libraries::MissingLibraries;

/// The tablespace that a mapping speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablespaceSource {
    /// By object identifier.
    Oid(u32),
    /// By its location when the backup was made.
    Location(PathBuf),
}

impl std::fmt::Display for TablespaceSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Oid(oid) => oid.fmt(f),
            Self::Location(path) => path.display().fmt(f),
        }
    }
}

/// What becomes of a tablespace whose directory does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingTablespace {
    /// The restore is refused before anything is written.
    #[default]
    Refuse,
    /// The directory is made, mode 0700, if the one above it exists.
    Make,
}

/// What becomes of a cluster that lies in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The restore is refused before anything is written.
    #[default]
    Refuse,
    /// Its files are kept where they are the backup's to the byte; the others are written anew, and what the backup does not have is
    /// removed.
    Keep(UnarchivedWal),
}

/// What becomes of WAL of that cluster which the archive does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnarchivedWal {
    /// The restore is refused before anything is written: nobody else may have these transactions.
    #[default]
    Refuse,
    /// It is removed with all other WAL.
    Discard,
}

/// What a caller may choose about the files of a restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The data directory to make: missing or empty, unless what is there may be kept.
    pub target: PathBuf,
    /// What becomes of a cluster that lies there already.
    pub existing: Existing,
    /// Which backup.
    pub selector: BackupSelector,
    /// Partitions read at the same time.
    pub workers: usize,
    /// Tablespaces that go elsewhere, and the existing, empty directory of each.
    pub tablespace_mapping: Vec<(TablespaceSource, PathBuf)>,
    /// Below it goes each tablespace that no mapping names and that did not lie in the data directory, under its OID.
    pub tablespaces_below: Option<PathBuf>,
    /// What becomes of a tablespace whose directory does not exist.
    pub missing_tablespace: MissingTablespace,
    /// What happens about libraries that a server which is installed here lacks.
    pub missing_libraries: MissingLibraries,
    /// Where the server that will run has its libraries; `None`: any that is installed here may run.
    pub libraries: Option<PathBuf>,
    /// Owner of the files; `None` is the owner of the target (or of its parent).
    pub owner: Option<Owner>,
    /// Name of the sidecar's lock file, which may lie in an otherwise empty target.
    pub lock_file_name: Option<String>,
    /// Where `pg_wal` shall be a link to; `None` makes it a directory.
    pub pg_wal_link: Option<PathBuf>,
    /// Recovery settings that the user adds, as written. They decide which backup may be restored; RESTORE also writes
    /// them.
    pub recovery_addition: String,
    /// The archive that was asked, where another one stands in for it: the marker keeps what was asked for.
    pub asked_of: Option<String>,
}

impl RestoreOptions {
    /// The latest backup into `target`, nothing mapped.
    #[must_use]
    pub fn new(target: PathBuf) -> Self {
        Self {
            target,
            existing: Existing::default(),
            selector: BackupSelector::Latest,
            workers: default_workers(),
            tablespace_mapping: Vec::new(),
            tablespaces_below: None,
            missing_tablespace: MissingTablespace::default(),
            missing_libraries: MissingLibraries::default(),
            libraries: None,
            owner: None,
            lock_file_name: Some("wale_init_lockfile".to_owned()),
            pg_wal_link: None,
            recovery_addition: String::new(),
            asked_of: None,
        }
    }
}

/// What the restored cluster shall become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreAs {
    /// A cluster of its own: recovery ends at the target, or at the end of the archive.
    #[default]
    Primary,
    /// A standby: recovery goes on until it is promoted.
    Standby,
}

impl RestoreAs {
    /// Every choice, the default first.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Standby];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// Where the restored server gets its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalSource {
    /// From the backup's archive: what is not there, is nowhere.
    #[default]
    Archive,
    /// By a command of the user's own, or from another server.
    Elsewhere,
}

/// What the sidecar's RESTORE needs to know.
#[derive(Debug, Clone)]
pub struct RestoreClusterOptions {
    /// The files.
    pub fetch: RestoreOptions,
    /// `restore_command`, complete.
    pub restore_command: String,
    /// Where that command looks.
    pub wal_source: WalSource,
    /// Content of the file from which `restore_command` takes the sidecar's token, if it does.
    pub authorization: Option<Secret>,
    /// Which program that command wants in the database's image, as a sentence.
    pub client_note: Option<String>,
    /// What the cluster shall become.
    pub restore_as: RestoreAs,
    /// Directory whose `*.conf` are copied into the data directory.
    pub configuration_directory: Option<PathBuf>,
    /// Name of this host, recorded in the marker.
    pub host_name: String,
    /// Content of the file from which `restore_command` takes wale's settings, if it does.
    pub archive_settings: Option<Secret>,
    /// The cluster is a copy that is started beside production.
    pub rehearsal: Option<Rehearsal>,
}
