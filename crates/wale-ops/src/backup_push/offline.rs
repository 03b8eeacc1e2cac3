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

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use wale_cluster::{
    ClusterError, DataDirectory, PostmasterState, ServerFacts, Situation, StoppedBackup,
    WalDirectory,
};
use wale_format::BackupName;
use wale_pg::{
    ArchiveFileName, ClusterIdentity, ClusterState, ControlFile, HeaderExpectation, Lsn,
    WalPageHeader, WalSegmentName, end_of_shutdown_checkpoint,
};
use wale_pipeline::{CancellationToken, Progress};

use super::commit::Evidence;
use super::configuration;
use super::files::SourceFile;
use super::options::Options;
use super::plan;
use super::preflight::{Ready, read_directory};
use super::report::{BackupReport, Started};
use super::run::{Backup, attempt};
use crate::archive::Archive;
use crate::blocking::blocking;
use crate::error::{Kind, OpError, Result};

/// Takes a base backup of a stopped server. `options.connect` is not used.
///
/// # Errors
///
/// As [`super::run`]. Besides [`Kind::Busy`] when a server may run on the data directory, or did meanwhile;
/// [`Kind::Configuration`] when it was not shut down in good order.
pub async fn run_offline(
    archive: &Archive,
    options: &Options,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport> {
    attempt(archive, options, progress, cancel, async |backup| {
        backup.take_offline().await
    })
    .await
}

/// The log of the last checkpoint.
struct Checkpoint {
    end: Lsn,
    segments: Vec<WalSegmentName>,
    files: Vec<SourceFile>,
}

impl Backup<'_> {
    async fn take_offline(&self) -> Result<BackupReport> {
        self.progress.set_phase("checking");
        let (ready, checkpoint) = self
            .unless_cancelled(prepare(self.archive, self.options))
            .await??;
        let Checkpoint {
            end,
            segments,
            files: wal,
        } = checkpoint;
        let control = &ready.control_file;
        let (start, timeline) = (control.redo, control.timeline);
        let size = control.wal_segment_size;
        let segment = WalSegmentName::from_lsn(timeline, start, size);
        let started = Started {
            name: BackupName::new(&segment, size.offset_in_segment(start)),
            start_lsn: start,
            timeline,
            started_at: self.archive.clock().now(),
        };
        tracing::info!(backup = %started.name, start_lsn = %start, "base backup of a stopped server started");
        self.occupy(&ready, &started.name).await?;
        let nobody = std::future::pending();
        let copied = self.copy(&ready, &started, wal.clone(), nobody).await?;

        let stopped_at = self.archive.clock().now();
        let copy_duration = (stopped_at - started.started_at)
            .to_std()
            .unwrap_or_default();
        let before = ready.control_file.clone();
        let directory = ready.directory.clone();
        let stopped = StoppedBackup {
            start_lsn: start,
            stop_lsn: end,
            timeline,
            stop_timeline: timeline,
            from_standby: false,
            label_text: String::new(),
            tablespace_map: String::new(),
        };
        let evidence = Evidence::new(ready, started, stopped, stopped_at, copied)?;
        for file in &wal {
            if !evidence.holds(&file.relative, file.size) {
                return Err(ran_meanwhile(&format!(
                    "{} was removed or changed.",
                    file.relative
                )));
            }
        }
        let evidence = self.store_ends(evidence).await?;
        still_stopped(directory, &before, evidence.control_bytes()).await?;
        self.commit(&evidence).await?;
        Ok(evidence.report(&segments, copy_duration, std::time::Duration::ZERO))
    }
}

/// Checks whether the server is stopped in good order, and claims the archive for the cluster.
async fn prepare(archive: &Archive, options: &Options) -> Result<(Ready, Checkpoint)> {
    let (directory, control_file) = read_directory(options).await?;
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
    let settings: BTreeMap<String, String> = minimums
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    let ready = Ready {
        configuration: None,
        control: None,
        facts: ServerFacts {
            version_num: major.get() * 10_000,
            major,
            system_identifier: control_file.system_identifier,
            wal_segment_size: control_file.wal_segment_size,
            in_recovery: false,
            data_directory: None,
        },
        directory,
        control_file,
        settings,
        extensions: BTreeMap::new(),
        version: format!("PostgreSQL {major}"),
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

async fn refuse_running(directory: &DataDirectory) -> Result<()> {
    let looked = directory.clone();
    let state = blocking(move || looked.postmaster())
        .await?
        .map_err(|error| OpError::from_cluster(error, "look whether a server runs"))?;
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

/// The server must not have been started since the first look.
async fn still_stopped(
    directory: DataDirectory,
    before: &ControlFile,
    copied: &[u8],
) -> Result<()> {
    let is_as_before =
        |bytes: &[u8]| ControlFile::parse(bytes).is_ok_and(|control| control == *before);
    if !is_as_before(copied) {
        return Err(ran_meanwhile("Its control file has changed."));
    }
    // In this order: a server that starts between the two looks is still there at the second one.
    let looked = directory.clone();
    let now = blocking(move || looked.control_bytes())
        .await?
        .map_err(|error| OpError::from_cluster(error, "read global/pg_control"))?;
    if !is_as_before(&now.1) {
        return Err(ran_meanwhile("Its control file has changed."));
    }
    refuse_running(&directory).await
}

fn ran_meanwhile(detail: &str) -> OpError {
    OpError::new(
        Kind::Busy,
        "the server was started while it was backed up: the backup is void",
    )
    .detail(detail)
    .hint("take the backup again, with the server stopped, or leave --while-offline out")
}

/// Finds the record of the last checkpoint in the WAL directory, checks it, and returns which files hold it. Blocks.
fn find_checkpoint(wal: &Path, control: &ControlFile) -> Result<Checkpoint> {
    let (at, size) = (control.redo, control.wal_segment_size);
    let directory = WalDirectory::open(wal)
        .map_err(|error| OpError::from_cluster(error, format_args!("open {}", wal.display())))?;
    let log = read_pages(&directory, control)?;
    let damaged = |reason: String| {
        OpError::new(
            Kind::CorruptData,
            "the WAL directory does not hold the last checkpoint of the server",
        )
        .detail(reason)
        .hint("let PGWAL name the WAL directory of this server; if it does, the server cannot start from it either")
    };
    let end = end_of_shutdown_checkpoint(at, &log, control.wal_block_size, size)
        .map_err(|error| damaged(format!("In {}: {error}.", wal.display())))?;
    let segments = plan::required_segments(control.timeline, at, end, size)?;
    let mut files = Vec::new();
    for &segment in &segments {
        let opened = open(&directory, segment, wal)?;
        let mut head = vec![0; WalPageHeader::LENGTH];
        opened
            .file
            .read_exact_at(&mut head, 0)
            .map_err(|error| OpError::from_io(error, format_args!("read {segment}")))?;
        let expectation = HeaderExpectation {
            system_identifier: Some(control.system_identifier),
            segment_size: Some(size),
            file_size: opened.size,
        };
        WalPageHeader::verify(&head, &segment, &expectation)
            .map_err(|error| damaged(format!("{segment}: {error}.")))?;
        files.push(SourceFile {
            relative: format!("pg_wal/{segment}"),
            absolute: wal.join(segment.to_string()),
            size: opened.size,
        });
    }
    Ok(Checkpoint {
        end,
        segments,
        files,
    })
}

/// The page in which the checkpoint begins, and the one after it if there is one.
fn read_pages(directory: &WalDirectory, control: &ControlFile) -> Result<Vec<u8>> {
    let page_size = u64::from(control.wal_block_size);
    let first = control.redo.as_u64() - control.redo.as_u64() % page_size.max(1);
    let mut log = Vec::new();
    for page in [first, first + page_size].map(Lsn::new) {
        let size = control.wal_segment_size;
        let segment = WalSegmentName::from_lsn(control.timeline, page, size);
        let opened = match directory.open_file(&ArchiveFileName::Segment(segment)) {
            Ok(opened) => opened,
            Err(error) if error.situation() == Situation::NotFound => break,
            Err(error) => return Err(unreadable(error, segment)),
        };
        let mut bytes = vec![0; control.wal_block_size as usize];
        let offset = size.offset_in_segment(page);
        match opened.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => log.extend(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => {
                return Err(OpError::from_io(error, format_args!("read {segment}")));
            }
        }
    }
    Ok(log)
}

fn open(
    directory: &WalDirectory,
    segment: WalSegmentName,
    wal: &Path,
) -> Result<wale_cluster::WalFile> {
    directory
        .open_file(&ArchiveFileName::Segment(segment))
        .map_err(|error| unreadable(error, segment).detail(format!("In {}.", wal.display())))
}

fn unreadable(error: ClusterError, segment: WalSegmentName) -> OpError {
    OpError::from_cluster(error, format_args!("read WAL segment {segment}"))
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
