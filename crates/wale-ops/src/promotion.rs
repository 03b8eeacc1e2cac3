//! After the promotion: what a restore wrote to steer its recovery is taken back.
//!
//! A restored server keeps the settings of its recovery for good, from PostgreSQL 12 on. A standby that is cloned from it
//! inherits the target, reaches it with the first commit that it replays, and promotes itself. So the sidecar beside
//! the server checks until the recovery has ended. Then it takes those lines out, and no others. A standby keeps them.
//!
//! `ALTER SYSTEM RESET` is the server's own way, under its own lock. Where the role has no right to it, the file is
//! edited.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use wale_cluster::recovery::{self, WrittenSetting};
use wale_cluster::{
    ClusterError, ConnectOptions, Control, DataDirectory, RestoreMarker, RestoreState,
    restore_marker,
};
use wale_pipeline::blocking;

use crate::error::{OpError, Result};

/// What a data directory says about its recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryProgress {
    /// No restore of ours is to be followed up here.
    Nothing,
    /// The restored server has not ended its recovery.
    Waiting,
    /// It has; this is to be taken back.
    Ended(Box<Pending>),
}

/// Settings that have done their work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    marker: RestoreMarker,
    written: Vec<WrittenSetting>,
}

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// When.
    pub at: DateTime<Utc>,
    /// The settings, by name; none where they were gone already.
    pub settings: Vec<String>,
}

/// Looks at a data directory.
///
/// # Errors
///
/// When it cannot be read.
pub async fn look(data_directory: &Path) -> Result<RecoveryProgress> {
    on_files(data_directory, "check the recovery settings in", look_at).await
}

fn look_at(data_directory: &Path) -> std::result::Result<RecoveryProgress, ClusterError> {
    let Some(marker) = restore_marker::read(data_directory)? else {
        return Ok(RecoveryProgress::Nothing);
    };
    if marker.state != RestoreState::Done || marker.settled_at.is_some() {
        return Ok(RecoveryProgress::Nothing);
    }
    if !recovery::has_ended(data_directory)? {
        return Ok(RecoveryProgress::Waiting);
    }
    let mut written = marker.written.clone();
    if written.is_empty() {
        written = recovery::block_settings(data_directory)?;
    }
    Ok(RecoveryProgress::Ended(Box::new(Pending {
        marker,
        written,
    })))
}

/// Takes the settings back and notes it in the marker. May be repeated after a failure.
///
/// # Errors
///
/// When `postgresql.auto.conf` or the marker cannot be written.
pub async fn take_back(
    data_directory: &Path,
    connect: &ConnectOptions,
    pending: Pending,
    now: DateTime<Utc>,
) -> Result<TakenBack> {
    let Pending {
        mut marker,
        written,
    } = pending;
    let own = written.clone();
    let (names, started) = on_files(data_directory, "read the settings in", move |path| {
        Ok((recovery::only_ours(path, &own)?, server_started(path)?))
    })
    .await?;
    let before = names.clone();
    if let Some(started) = started
        && !names.is_empty()
        && let Err(error) = reset(connect, &names, started).await
    {
        tracing::debug!(%error, "ALTER SYSTEM RESET is not possible: postgresql.auto.conf is edited");
    }
    let edited = on_files(data_directory, "edit the settings in", move |path| {
        // Whatever the server did not take out.
        let edited = recovery::take_back(path, &written)?;
        marker.settled_at = Some(now);
        marker.written = written;
        marker.written.retain(|setting| !setting.steers_recovery());
        restore_marker::write(path, &marker)?;
        Ok(edited)
    })
    .await?;
    let mut settings: Vec<String> = before.into_iter().chain(edited).collect();
    settings.sort();
    settings.dedup();
    Ok(TakenBack { at: now, settings })
}

/// The server does it, if it is the one of this directory: the role may reach another one, where the same settings are
/// at work.
async fn reset(
    connect: &ConnectOptions,
    names: &[String],
    started: DateTime<Utc>,
) -> std::result::Result<(), ClusterError> {
    let control = Control::connect(connect).await?;
    if control.started().await?.timestamp() == started.timestamp() {
        for name in names {
            control.reset_setting(name).await?;
        }
    }
    control.close().await;
    Ok(())
}

/// When the server of this directory started, as its `postmaster.pid` says to the second.
fn server_started(
    data_directory: &Path,
) -> std::result::Result<Option<DateTime<Utc>>, ClusterError> {
    let postmaster = DataDirectory::at(data_directory).postmaster()?;
    Ok(postmaster.file().and_then(|file| file.started))
}

async fn on_files<T: Send + 'static>(
    data_directory: &Path,
    what: &'static str,
    work: impl FnOnce(&Path) -> std::result::Result<T, ClusterError> + Send + 'static,
) -> Result<T> {
    let path: PathBuf = data_directory.to_owned();
    blocking(move || {
        work(&path).map_err(|error| {
            OpError::from_cluster(error, format_args!("{what} {}", path.display()))
        })
    })
    .await?
}
