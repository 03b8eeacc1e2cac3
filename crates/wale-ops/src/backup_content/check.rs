//! Whether a backup whose partitions have all been read is whole: everything came, and it is one cluster's. Writes nothing
//! but second names of files, to the sink.

use std::sync::Arc;

use wale_archive::Archive;
use wale_format::BackupName;
use wale_pg::ControlFile;

use super::extract::{Extraction, ForeignLink};
use super::manifest::TABLESPACE_MAP;
use super::sink::Sink;
use super::stored::StoredBackup;
use crate::error::{Kind, OpError, Result};
use wale_pipeline::blocking;

/// What says where the recovery of a backup of a running server begins.
const LABEL: &str = "backup_label";

/// A backup that was read to its end and found whole, and what of it the sink did not get.
#[derive(Debug)]
pub(crate) struct WholeBackup {
    pub(crate) control_file: ControlFile,
    /// `global/pg_control` as it came.
    pub(crate) control_bytes: Vec<u8>,
    /// `tablespace_map` as it came, if it did.
    pub(crate) tablespace_map: Option<Vec<u8>>,
    /// The symbolic links of a foreign backup.
    pub(crate) links: Vec<ForeignLink>,
    /// Files that came.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// A sentence about members that were left out.
    pub(crate) left_out: Option<String>,
}

/// Files of a backup that came.
#[derive(Debug)]
pub(crate) struct SomeFiles {
    /// How many.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Those that the sink did not get, by their paths.
    pub(crate) kept: Vec<(&'static str, Vec<u8>)>,
}

/// Checks that all came that were wanted.
///
/// # Errors
///
/// [`Kind::CorruptData`] for what is missing; those of the sink.
pub(super) async fn some_files<S: Sink>(
    archive: &Archive,
    backup: &StoredBackup,
    extraction: &Arc<Extraction<S>>,
) -> Result<SomeFiles> {
    check_arrived(archive, backup).await?;
    let parts = Arc::clone(extraction);
    blocking(move || parts.second_names()).await??;
    let (files, bytes) = extraction.counts();
    let control_file = extraction.take_control_file();
    let map = extraction.take_tablespace_map();
    let kept = [(ControlFile::PATH, control_file), (TABLESPACE_MAP, map)];
    let kept = kept.into_iter();
    Ok(SomeFiles {
        files,
        bytes,
        kept: kept
            .filter_map(|(path, bytes)| Some((path, bytes?)))
            .collect(),
    })
}

/// Checks it.
///
/// # Errors
///
/// [`Kind::CorruptData`] for what is missing or belongs to another cluster; those of the sink.
pub(super) async fn check<S: Sink>(
    archive: &Archive,
    backup: &StoredBackup,
    extraction: &Arc<Extraction<S>>,
) -> Result<WholeBackup> {
    check_arrived(archive, backup).await?;
    let parts = Arc::clone(extraction);
    blocking(move || parts.second_names()).await??;
    let control_bytes = extraction.take_control_file().ok_or_else(|| {
        let name = &backup.name;
        OpError::new(
            Kind::CorruptData,
            format!("backup {name} has no global/pg_control"),
        )
    })?;
    let control_file = read_control_file(backup, &control_bytes)?;
    // Without its label a directory would start from the control file's checkpoint, and be silently corrupt. A copy of a
    // server that was shut down has none and needs none.
    if !backup.ledger.has(LABEL) && !control_file.state.is_clean_shutdown() {
        return Err(lacks_label(&backup.name));
    }
    extraction.check_version_folders(&control_file)?;
    let (files, bytes) = extraction.counts();
    Ok(WholeBackup {
        control_file,
        control_bytes,
        tablespace_map: extraction.take_tablespace_map(),
        links: extraction.take_links(),
        files,
        bytes,
        left_out: extraction.left_out(),
    })
}

/// Whether every file of the manifest, or every name of a foreign list, has come.
pub(super) async fn check_arrived(archive: &Archive, backup: &StoredBackup) -> Result<()> {
    let missing = backup.ledger.missing();
    if missing == 0 {
        return Ok(());
    }
    let announced_by = match &backup.manifest {
        Some(_) => "The manifest",
        None => "The list of its files",
    };
    let message = match backup.first_missing(archive).await {
        Some(first) => format!("the backup lacks \"{first}\""),
        None => format!("the backup lacks {missing} files"),
    };
    Err(OpError::new(Kind::CorruptData, message)
        .detail(format!(
            "{announced_by} has it, no partition brought it; {} more are missing.",
            missing.saturating_sub(1)
        ))
        .hint("restore another backup; this one was damaged in the archive"))
}

fn read_control_file(backup: &StoredBackup, bytes: &[u8]) -> Result<ControlFile> {
    let control_file = ControlFile::parse(bytes).map_err(|error| {
        OpError::new(
            Kind::CorruptData,
            format!("global/pg_control in backup {} is damaged", backup.name),
        )
        .source(error)
    })?;
    match backup.sentinel.system_identifier {
        Some(expected) if expected != control_file.system_identifier.as_u64() => Err(OpError::new(
            Kind::CorruptData,
            format!("backup {} holds another cluster's files", backup.name),
        )
        .detail(format!(
            "Its sentinel says system identifier {expected}, its control file {}.",
            control_file.system_identifier
        ))),
        _ => Ok(control_file),
    }
}

/// The error for a backup of a running server without its label.
pub(crate) fn lacks_label(backup: &BackupName) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("backup {backup} has no backup_label"),
    )
    .detail("It was taken of a running server: without the label it is not known where its recovery begins.")
    .hint("restore another backup; objects of this one are missing in the archive")
}
