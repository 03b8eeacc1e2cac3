//! A base backup of a stopped server (`--while-offline`).
//!
//! There is nobody to ask, so the control file speaks: the state must be that of an orderly shutdown, and the last
//! checkpoint is start and end of the backup. A copy of such a directory needs no label. But it needs the record of that
//! checkpoint, and a server switches to a new segment before it writes it: the segment is archived only after the
//! next start, perhaps never. So the segment goes with the files, and the backup can be restored although nothing
//! else is ever archived.
//!
//! Invariant: the server was stopped from the first look to the last. Nothing holds it back, so the control file and
//! `postmaster.pid` are checked before the first file is read and after the last one.

use wale_archive::Archive;
use wale_pg::{ClusterIdentity, ClusterState, ControlFile};
use wale_pipeline::{CancellationToken, Progress, blocking};

use super::attempt::{attempt, finish};
use super::backup::Backup;
use super::backup_end::BackupEnd;
use super::commit::Committed;
use super::configuration;
use super::options::BackupOptions;
use super::ready::{Ready, read_directory, refuse_rehearsal};
use super::report::{BackupReport, Started};
use super::shutdown_checkpoint::{ShutdownCheckpoint, find_checkpoint};
use super::stopped::refuse_running;
use crate::error::{Kind, OpError, Result};

/// Takes a base backup of a stopped server. `options.connect` is not used.
///
/// # Errors
///
/// As [`super::run`]. Besides [`Kind::Busy`] when a server may run on the data directory, or did meanwhile;
/// [`Kind::Configuration`] when it was not shut down in good order.
pub async fn run_offline(
    archive: &Archive,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport> {
    attempt(archive, options, progress, cancel, async |backup| {
        backup.take_offline().await
    })
    .await
}

impl Backup<'_> {
    async fn take_offline(&self) -> Result<Committed> {
        self.progress.set_phase("checking");
        let (ready, checkpoint) = self
            .unless_cancelled(prepare(self.archive, self.options))
            .await??;
        let control = &ready.control_file;
        let now = self.archive.clock().now();
        let started = Started::at(
            control.timeline,
            control.redo,
            control.wal_segment_size,
            now,
        );
        tracing::info!(backup = %started.name, start_lsn = %started.start_lsn, "base backup of a stopped server started");
        self.occupy(&started.name, &ready.version).await?;
        let nobody = std::future::pending();
        let wal = checkpoint.files.clone();
        let copied = self.copy(ready, started, wal, nobody).await?;
        finish(self, copied, BackupEnd::Stopped(checkpoint)).await
    }
}

/// Checks whether the server is stopped in good order, and claims the archive for the cluster.
async fn prepare(
    archive: &Archive,
    options: &BackupOptions,
) -> Result<(Ready, ShutdownCheckpoint)> {
    let (directory, control_file) = read_directory(options).await?;
    refuse_rehearsal(options).await?;
    refuse_running(&directory).await?;
    let label = directory.path().join("backup_label");
    judge(&control_file, label.exists())?;
    let looked = directory.clone();
    let version = blocking(move || looked.version())
        .await?
        .map_err(|error| OpError::from_cluster(error, "read PG_VERSION"))?;
    let Some(major) = version.or_else(|| control_file.major()) else {
        return Err(OpError::new(
            Kind::CorruptData,
            "the data directory has no PG_VERSION",
        ));
    };
    let own = ClusterIdentity {
        major: Some(major),
        ..control_file.identity()
    };
    archive.ensure_identity(&own, &options.begin()).await?;
    configuration::look_offline(directory.path());
    let (wal, control) = (options.wal_directory.clone(), control_file.clone());
    let checkpoint = blocking(move || find_checkpoint(&wal, &control)).await??;
    let minimums = control_file.settings.minimums();
    let ready = Ready {
        directory,
        major,
        version_num: major.get() * 10_000,
        version: format!("PostgreSQL {major}"),
        settings: minimums
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect(),
        control_file,
    };
    Ok((ready, checkpoint))
}

/// Whether a copy of this directory starts from its last checkpoint.
fn judge(control: &ControlFile, has_label: bool) -> Result<()> {
    let refused = |message: &str, hint: &str| {
        Err(OpError::new(Kind::Configuration, message)
            .detail("Nothing was written into the archive.")
            .hint(hint))
    };
    match control.state {
        ClusterState::ShutDown if has_label => refused(
            "the data directory has a backup_label: it was restored, and its recovery has not begun",
            "let the server recover once, and stop it, or keep the backup that it was restored from",
        ),
        ClusterState::ShutDown => Ok(()),
        ClusterState::ShutDownInRecovery => refused(
            "a stopped standby cannot be backed up: what it needs from its primary is not all there",
            "start it and leave --while-offline out, or back up its primary",
        ),
        _ => refused(
            "the server was not shut down in good order: a copy of its data directory would be damaged",
            "start it and stop it (pg_ctl stop -m fast), or start it and leave --while-offline out",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_orderly_shutdown_of_a_primary_is_backed_up() {
        let bytes = include_bytes!("../../../wale-pg/testdata/control_file/15");
        let mut control = ControlFile::parse(bytes).unwrap();
        let cases = [
            (ClusterState::ShutDown, false, true),
            (ClusterState::ShutDown, true, false),
            (ClusterState::ShutDownInRecovery, false, false),
            (ClusterState::InProduction, false, false),
            (ClusterState::ShuttingDown, false, false),
            (ClusterState::InCrashRecovery, false, false),
            (ClusterState::StartingUp, false, false),
        ];
        for (state, has_label, acceptable) in cases {
            control.state = state;
            let judged = judge(&control, has_label);
            assert_eq!(judged.is_ok(), acceptable, "{state:?} {has_label}");
        }
    }
}
