//! Whether a server is stopped, and was from the first look to the last. Nothing holds it back.

use wale_cluster::{DataDirectory, PostmasterState};
use wale_pg::ControlFile;

use wale_pipeline::blocking;

use super::contents::BackupContents;
use super::ready::Ready;
use super::shutdown_checkpoint::ShutdownCheckpoint;
use crate::error::{Kind, OpError, Result};

/// Refuses a data directory on which a server runs, or may run.
pub(super) async fn refuse_running(directory: &DataDirectory) -> Result<()> {
    let looked = directory.clone();
    let state = blocking(move || looked.postmaster())
        .await?
        .map_err(|error| OpError::from_cluster(error, "check whether a server runs"))?;
    if state == PostmasterState::Absent {
        return Ok(());
    }
    // Even a file that a crash left behind: then the server was not shut down in good order.
    let path = directory.path().join("postmaster.pid");
    Err(
        OpError::new(Kind::Busy, "a server may be running on the data directory")
            .detail(format!("{} exists.", path.display()))
            .hint("stop the server, or leave --while-offline out"),
    )
}

/// Checks that the server was not started since the first look: `copied` is its control file as it was read after all other
/// files.
pub(super) async fn still_stopped(ready: &Ready, copied: &[u8]) -> Result<()> {
    let is_as_before =
        |bytes: &[u8]| ControlFile::parse(bytes).is_ok_and(|control| control == ready.control_file);
    if !is_as_before(copied) {
        return Err(ran_meanwhile("Its control file has changed."));
    }
    // In this order: a server that starts between the two looks is still there at the second one.
    let looked = ready.directory.clone();
    let now = blocking(move || looked.control_bytes())
        .await?
        .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))?;
    if !is_as_before(&now.1) {
        return Err(ran_meanwhile("Its control file has changed."));
    }
    refuse_running(&ready.directory).await
}

/// Checks that the WAL of the last checkpoint is part of the backup.
pub(super) fn check_wal_is_among(
    contents: &BackupContents,
    checkpoint: &ShutdownCheckpoint,
) -> Result<()> {
    let mut files = checkpoint.files.iter();
    match files.find(|file| !contents.holds(&file.relative, file.size)) {
        None => Ok(()),
        Some(file) => Err(ran_meanwhile(&format!(
            "{} was removed or changed.",
            file.relative
        ))),
    }
}

fn ran_meanwhile(detail: &str) -> OpError {
    OpError::new(
        Kind::Busy,
        "the server was started while it was backed up: the backup cannot be used",
    )
    .detail(detail)
    .hint("take the backup again, with the server stopped, or leave --while-offline out")
}
