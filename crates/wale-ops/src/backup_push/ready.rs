//! What is known before the first file is read: of every cluster, and of one whose server runs.

use std::collections::BTreeMap;

use wale_cluster::{ClusterError, DataDirectory, Owner, Situation, restore_marker};
use wale_format::sentinel::TimescaleRecord;
use wale_format::tar::Meta;
use wale_pg::{ControlFile, MajorVersion};

use wale_pipeline::blocking;

use super::configuration::Outside;
use super::options::BackupOptions;
use crate::error::{Kind, OpError, Result};

/// A cluster that may be backed up, whether its server runs or not.
pub(super) struct Ready {
    pub(super) directory: DataDirectory,
    /// The control file as it was before the backup began.
    pub(super) control_file: ControlFile,
    pub(super) major: MajorVersion,
    /// `server_version_num`. A stopped server does not say its minor version: then that is 0.
    pub(super) version_num: u32,
    /// For `extended_version.txt`.
    pub(super) version: String,
    /// Settings that recovery compares with the primary's.
    pub(super) settings: BTreeMap<String, String>,
}

/// What only a running server says of itself.
pub(super) struct RunningServer {
    /// Whether it is a standby (or in archive recovery).
    pub(super) in_recovery: bool,
    /// PGDATA as it sees it; `None` where our role has no right to know it.
    pub(super) data_directory: Option<String>,
    /// Database → extension → version.
    pub(super) extensions: BTreeMap<String, BTreeMap<String, String>>,
    /// Database → what TimescaleDB counts there.
    pub(super) timescaledb: BTreeMap<String, TimescaleRecord>,
    /// The configuration, where it lies outside of the data directory and can be read.
    pub(super) configuration: Option<Outside>,
}

impl Ready {
    /// Owner of the data directory, for the tar members that are made here.
    pub(super) fn owner_meta(&self) -> Meta {
        let owner = self.directory.owner().unwrap_or(Owner { uid: 0, gid: 0 });
        Meta {
            uid: u64::from(owner.uid),
            gid: u64::from(owner.gid),
            ..Meta::default()
        }
    }

    /// Permission bits of files that are made here, as the server would make them: readable for the group where the
    /// data directory is.
    pub(super) fn file_mode(&self) -> u32 {
        wale_cluster::durable::mode_beside(&self.directory.path().join(ControlFile::PATH))
    }
}

/// Refuses a copy that was restored to be looked at beside production: its base backup would become the one that the next
/// restore takes.
///
/// # Errors
///
/// [`Kind::Configuration`] for such a copy; when the note of its restore cannot be read.
pub(super) async fn refuse_rehearsal(options: &BackupOptions) -> Result<()> {
    let path = options.data_directory.clone();
    let shown = path.display().to_string();
    let marker = blocking(move || restore_marker::read(&path))
        .await?
        .map_err(|error| OpError::from_cluster(error, format_args!("look at {shown}")))?;
    if !marker.is_some_and(|marker| marker.request.is_rehearsal()) {
        return Ok(());
    }
    Err(OpError::new(
        Kind::Configuration,
        format!("\"{shown}\" is a rehearsal: a copy that was restored beside production"),
    )
    .detail("A base backup of it would stand in production's archive as its newest. Nothing was written.")
    .hint(format!(
        "to keep the copy as a cluster of its own, restore it without --rehearsal into an archive of its own; \
         or take wale's block out of postgresql.auto.conf, remove {} and name another archive",
        restore_marker::FILE_NAME
    )))
}

/// Opens the data directory and reads its control file.
pub(super) async fn read_directory(
    options: &BackupOptions,
) -> Result<(DataDirectory, ControlFile)> {
    let path = options.data_directory.clone();
    let read = move || {
        let directory = DataDirectory::open(&path)?;
        let control_file = directory.control_file()?;
        Ok((directory, control_file))
    };
    blocking(read).await?.map_err(|error: ClusterError| {
        let shown = options.data_directory.display();
        let missing = error.situation() == Situation::NotFound;
        let is_unknown = matches!(error, ClusterError::UnsupportedControlFile { .. });
        let error = OpError::from_cluster(error, format_args!("read {shown}"));
        if is_unknown {
            return error
                .detail("What a base backup must know of the server cannot be read. Nothing was written; WAL is archived all the same.")
                .hint("use a version of wale that knows this server");
        }
        if missing {
            // The images of PostgreSQL 18 moved it to /var/lib/postgresql/18/docker.
            return error.hint(format!(
                "let PGDATA name the data directory as it is mounted here; there is no cluster in {shown}"
            ));
        }
        error
    })
}
