//! What must be true before the server is asked to start a backup.
//!
//! The server must be the one of the data directory, the archive must be this cluster's, and no other backup of this
//! server may be running. Everything here only reads, except the archive's identity, which is claimed on first use.

use std::collections::BTreeMap;
use std::time::Duration;

use wale_cluster::{
    ClusterError, Control, ControlStamp, DataDirectory, Owner, ServerFacts, Situation,
};
use wale_format::tar::Meta;
use wale_pg::ControlFile;

use super::configuration::{self, Outside};
use super::options::Options;
use super::plan::{other_server, same_cluster};
use crate::archive::Archive;
use crate::blocking::blocking;
use crate::error::{Declined, Kind, OpError, Result};

/// A server that may be backed up, with the session that holds the lock.
pub(super) struct Ready {
    /// The session with the lock; taken by the backup that it runs. None of a stopped server.
    pub(super) control: Option<Control>,
    pub(super) directory: DataDirectory,
    pub(super) control_file: ControlFile,
    pub(super) facts: ServerFacts,
    /// Settings that recovery compares with the primary's.
    pub(super) settings: BTreeMap<String, String>,
    /// Database → extension → version.
    pub(super) extensions: BTreeMap<String, BTreeMap<String, String>>,
    /// For `extended_version.txt`.
    pub(super) version: String,
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

    /// The session that holds the lock.
    ///
    /// # Panics
    ///
    /// When it was taken before.
    pub(super) fn take_control(&mut self) -> Control {
        self.control.take().expect("a session runs one backup")
    }
}

/// Connects and checks.
pub(super) async fn prepare(archive: &Archive, options: &Options) -> Result<Ready> {
    let failed = |error, what: &str| OpError::from_cluster(error, what);
    let (directory, control_file) = read_directory(options).await?;
    let control = Control::connect(&options.connect).await.map_err(|error| {
        let error = failed(error, "connect to the server for a base backup");
        match error.kind {
            Kind::PostgresUnavailable => error.declined(Declined::ServerDown),
            _ => error,
        }
    })?;
    let facts = control
        .facts()
        .await
        .map_err(|error| failed(error, "ask the server who it is"))?;
    let server = facts.identity();
    // A control file may not show the major version; then the server's word is taken.
    same_cluster(&server, &control_file.identity())?;
    refuse_other_files(&control, options).await?;
    archive.ensure_identity(&server, &options.begin()).await?;
    control
        .check_backup_privileges(facts.major)
        .await
        .map_err(|error| failed(error, "take a base backup"))?;
    if !control
        .try_backup_lock()
        .await
        .map_err(|error| failed(error, "take the lock of base backups"))?
    {
        return Err(
            OpError::new(Kind::Busy, "another base backup of this server is running")
                .hint("wait until it ends; pg_locks shows the session that holds the advisory lock")
                .declined(Declined::Elsewhere),
        );
    }
    refuse_without_archiving(&control, facts.in_recovery).await?;
    let settings = control
        .enforced_settings()
        .await
        .map_err(|error| failed(error, "read the server's settings"))?;
    let extensions = extensions(&control, options).await?;
    let version = version(&control).await?;
    let configuration = configuration::look(&control, &facts, directory.path(), &settings).await?;
    Ok(Ready {
        configuration,
        control: Some(control),
        directory,
        control_file,
        facts,
        settings,
        extensions,
        version,
    })
}

/// How often the control file is compared with what the server says of it, and the pause in between: 10 checks in 5 s.
/// A server may write it between two questions, but not between all of them.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Refuses the files of another server of the same cluster: a clone that goes on by itself, another standby. The server reads
/// its own control file for us, and ours must be that one.
async fn refuse_other_files(control: &Control, options: &Options) -> Result<()> {
    let mut looks = 0;
    loop {
        let (_, before) = read_directory(options).await?;
        let there = control.control_stamp().await;
        let there =
            there.map_err(|e| OpError::from_cluster(e, "ask the server for its control file"))?;
        let (_, after) = read_directory(options).await?;
        let here = [&before, &after].map(ControlStamp::from);
        if here.contains(&there) {
            return Ok(());
        }
        looks += 1;
        if looks == LOOKS {
            return Err(other_server(format!(
                "The last checkpoint of the server begins at {}, that of the data directory at {}; their control files were \
                 written at {} and {} (seconds since 1970).",
                there.redo, here[1].redo, there.written_unix_s, here[1].written_unix_s
            )));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// A primary that archives nothing would let the backup wait to its limit for WAL that never comes. A standby's WAL may
/// come from its primary.
async fn refuse_without_archiving(control: &Control, in_recovery: bool) -> Result<()> {
    let name = "archive_mode";
    let settings = control
        .settings(&[name])
        .await
        .map_err(|error| OpError::from_cluster(error, "ask the server for its archive_mode"))?;
    if in_recovery || settings.get(name).is_none_or(|mode| mode != "off") {
        return Ok(());
    }
    Err(OpError::new(
        Kind::Configuration,
        "archive_mode of the server is off: a base backup without its WAL cannot be restored",
    )
    .hint("set archive_mode = on and archive_command, and restart the server"))
}

pub(super) async fn read_directory(options: &Options) -> Result<(DataDirectory, ControlFile)> {
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

/// A database that cannot be asked does not fail the backup, nor a catalogue that somebody has locked: the extensions
/// are a help, not a need.
async fn extensions(
    control: &Control,
    options: &Options,
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let inventory = match control.extensions(&options.connect).await {
        Ok(inventory) => inventory,
        Err(error @ ClusterError::Query { .. }) => {
            let error = OpError::from_cluster(error, "list the server's extensions");
            tracing::warn!(error = %error.chain(), "the extensions are not recorded");
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(OpError::from_cluster(error, "list the server's extensions")),
    };
    for (database, reason) in &inventory.failures {
        tracing::warn!(
            database,
            reason,
            "the extensions of this database are not recorded"
        );
    }
    Ok(inventory.databases)
}

async fn version(control: &Control) -> Result<String> {
    let name = "server_version";
    let settings = control
        .settings(&[name])
        .await
        .map_err(|error| OpError::from_cluster(error, "ask the server for its version"))?;
    Ok(format!(
        "PostgreSQL {}",
        settings.get(name).map_or("", String::as_str)
    ))
}
