//! What must be true before the server is asked to start a backup.
//!
//! The server must be the one of the data directory, the archive must be this cluster's, and no other backup of this
//! server may be running. Everything here only reads, except the archive's identity, which is claimed on first use.

use std::collections::BTreeMap;
use std::time::Duration;

use wale_archive::Archive;
use wale_cluster::{ClusterError, Control, ControlStamp, ExtensionInventory, TimescaleFacts};
use wale_format::sentinel::TimescaleRecord;

use super::configuration;
use super::options::BackupOptions;
use super::plan::{other_server, same_cluster};
use super::ready::{Ready, RunningServer, read_directory, refuse_rehearsal};
use crate::error::{Declined, Kind, OpError, Result};

/// Connects and checks. The session has the advisory lock of base backups, and runs one.
pub(super) async fn prepare(
    archive: &Archive,
    options: &BackupOptions,
) -> Result<(Ready, RunningServer, Control)> {
    let failed = |error, what: &str| OpError::from_cluster(error, what);
    let (directory, control_file) = read_directory(options).await?;
    refuse_rehearsal(options).await?;
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
        .map_err(|error| failed(error, "ask the server for its identity"))?;
    let cluster = facts.identity();
    // A control file may not show the major version; then the server's word is taken.
    same_cluster(&cluster, &control_file.identity())?;
    refuse_other_files(&control, options).await?;
    archive.ensure_identity(&cluster, &options.begin()).await?;
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
    let inventory = extensions(&control, options).await?;
    let version = version(&control).await?;
    let configuration = configuration::look(&control, &facts, directory.path(), &settings).await?;
    let server = RunningServer {
        in_recovery: facts.in_recovery,
        data_directory: facts.data_directory,
        extensions: inventory.databases,
        timescaledb: counts(inventory.timescaledb),
        configuration,
    };
    let ready = Ready {
        directory,
        control_file,
        major: facts.major,
        version_num: facts.version_num,
        version,
        settings,
    };
    Ok((ready, server, control))
}

/// How often the control file is compared with what the server says of it, and the pause in between: 10 checks in 5 s.
/// A server may write it between two questions, but not between all of them.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Refuses the files of another server of the same cluster: a clone that goes on by itself, another standby. The server reads
/// its own control file for us, and ours must be that one.
async fn refuse_other_files(control: &Control, options: &BackupOptions) -> Result<()> {
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

/// A database that cannot be asked does not fail the backup, nor a catalogue that somebody has locked: the extensions
/// are a help, not a need.
async fn extensions(control: &Control, options: &BackupOptions) -> Result<ExtensionInventory> {
    let inventory = match control.extensions(&options.connect).await {
        Ok(inventory) => inventory,
        Err(error @ ClusterError::Query { .. }) => {
            let error = OpError::from_cluster(error, "list the server's extensions");
            tracing::warn!(error = %error.chain(), "the extensions are not recorded");
            return Ok(ExtensionInventory::default());
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
    for (database, reason) in &inventory.uncounted {
        tracing::warn!(
            database,
            reason,
            "what TimescaleDB counts in this database is not recorded"
        );
    }
    Ok(inventory)
}

/// As they are recorded.
fn counts(found: BTreeMap<String, TimescaleFacts>) -> BTreeMap<String, TimescaleRecord> {
    let record = |(database, counts): (String, TimescaleFacts)| {
        let record = TimescaleRecord {
            hypertables: counts.hypertables,
            chunks: counts.chunks,
            compressed_chunks: counts.compressed_chunks,
            jobs: counts.jobs,
            licence: counts.licence,
        };
        (database, record)
    };
    found.into_iter().map(record).collect()
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
