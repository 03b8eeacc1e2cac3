//! The last checkpoint of a stopped server: its WAL record is start and end of the backup.

use std::os::unix::fs::FileExt;
use std::path::Path;

use wale_cluster::{ClusterError, Situation, WalDirectory};
use wale_pg::{
    ArchiveFileName, ControlFile, HeaderExpectation, Lsn, WalPageHeader, WalSegmentName,
    end_of_shutdown_checkpoint,
};

use super::packed::SourceFile;
use super::plan;
use crate::error::{Kind, OpError, Result};

/// The record of a stopped server's last checkpoint.
pub(super) struct ShutdownCheckpoint {
    /// Where it ends. Nothing is replayed after it.
    pub(super) end: Lsn,
    /// The segments that hold it, which go with the files.
    pub(super) files: Vec<SourceFile>,
}

/// Finds the record of the last checkpoint in the WAL directory, checks it, and returns which files hold it. Blocks.
pub(super) fn find_checkpoint(wal: &Path, control: &ControlFile) -> Result<ShutdownCheckpoint> {
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
    let mut files = Vec::new();
    for segment in plan::required_segments(control.timeline, at, end, size)? {
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
            size: opened.size,
        });
    }
    Ok(ShutdownCheckpoint { end, files })
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
