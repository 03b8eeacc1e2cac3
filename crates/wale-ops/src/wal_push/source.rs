//! The local side of a push: opening the file, checking it, reading it. All of it blocks.
//!
//! It writes nothing. The file is held open, so that it cannot vanish in the middle, and it is checked again by
//! name after the last byte: PostgreSQL recycles a segment by renaming it, and bytes read after that are another
//! segment's.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wale_archive::control::control_file;
use wale_archive::{Beginning, ContentHash};
use wale_cluster::{ArchiveStatus, ClusterError, DataDirectory, FileStamp, WalDirectory};
use wale_pg::{
    ArchiveFileName, ClusterIdentity, ClusterNonce, ControlFile, TimelineHistory, TimelineId,
    WalPageHeader, WalSegmentName,
};

use super::memory::READ_BYTES;
use super::plan::{self, Origin};
use crate::error::{Kind, OpError, Result};
use crate::wal_file::{self, Unwritten};

/// A checked file of the WAL directory.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The file.
    pub(super) name: ArchiveFileName,
    /// What the archive is to call it: the same, or the partial segment of a segment.
    pub(super) stored_as: ArchiveFileName,
    /// Size in bytes, fixed.
    pub(super) size: u64,
    /// Identity of the file's content.
    pub(super) stamp: FileStamp,
    /// The cluster it comes from, where that is known.
    pub(super) cluster: Option<ClusterIdentity>,
    /// What is known in its data directories alone, where one can be seen.
    nonce: Option<ClusterNonce>,
    /// The error for a file that was never written as this segment: only an object under its name can excuse it.
    pub(super) unwritten: Option<Arc<OpError>>,
    /// The server's major version, where it is newer than any that is known.
    pub(super) newer: Option<u32>,
    directory: WalDirectory,
    data_directory: Option<PathBuf>,
    file: Arc<File>,
}

impl Source {
    /// Opens and checks `name`.
    pub(super) fn open(
        directory: &WalDirectory,
        name: &ArchiveFileName,
        data_directory: Option<&Path>,
    ) -> Result<Self> {
        let opened = directory.open_file(name).map_err(|e| open_error(name, e))?;
        refuse_unfinished(directory, name)?;
        let file = Arc::new(opened.file);
        let control = data_directory.and_then(control_file);
        let mut origin = Origin {
            control: control.as_ref().map(ControlFile::identity),
            header: None,
        };
        let (mut unwritten, mut newer) = (None, None);
        if matches!(
            name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        ) {
            let read = |e| OpError::from_io(e, format_args!("read {name}"));
            let head = read_head(&file).map_err(read)?;
            match wal_file::check_segment(name, &head, opened.size) {
                Ok(header) => {
                    if header.major.is_none() {
                        newer =
                            data_directory.and_then(|path| DataDirectory::at(path).newer_version());
                        if newer.is_none() {
                            let magic = u16::from_le_bytes([head[0], head[1]]);
                            return Err(wal_file::unknown_magic(name, magic));
                        }
                    }
                    origin.header = Some(header);
                }
                Err(error) => {
                    origin.header = match wal_file::unwritten(name, &head, opened.size) {
                        Some(Unwritten::Recycled(cluster)) => Some(cluster),
                        Some(Unwritten::Preallocated) if is_zero(&file).map_err(read)? => None,
                        _ => return Err(error),
                    };
                    unwritten = Some(Arc::new(error));
                }
            }
        } else {
            check_history(name, &file, opened.size)?;
            if origin.control.is_none() {
                origin.header = neighbour(directory);
            }
        }
        let cluster = plan::cluster_of(name, &origin)?;
        Ok(Self {
            name: *name,
            stored_as: *name,
            size: opened.size,
            stamp: opened.stamp,
            cluster,
            nonce: control.and_then(|control| control.nonce),
            unwritten,
            newer,
            directory: directory.clone(),
            data_directory: data_directory.map(Path::to_owned),
            file,
        })
    }

    /// Where its archive may be begun.
    pub(super) fn begin(&self) -> Beginning {
        Beginning::UnlessKnown {
            wal: self.directory.clone(),
            data: self.data_directory.clone(),
        }
    }

    /// The same file, to be stored as the partial segment of this segment.
    pub(super) fn as_partial(&self, segment: WalSegmentName) -> Self {
        Self {
            stored_as: ArchiveFileName::Partial(segment),
            ..self.clone()
        }
    }

    /// The timeline that the server of this WAL directory is on, as far as it can be seen. Blocks.
    pub(super) fn server_timeline(&self) -> Option<TimelineId> {
        let control = self.data_directory.as_deref().and_then(control_file);
        let histories = names(&self.directory).filter_map(|name| match name {
            ArchiveFileName::TimelineHistory(timeline) => Some(timeline),
            _ => None,
        });
        plan::server_timeline(control.as_ref(), histories.max())
    }

    /// The history of a timeline as the WAL directory has it. Blocks.
    pub(super) fn local_history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        let name = ArchiveFileName::TimelineHistory(timeline);
        let opened = self.directory.open_file(&name).ok()?;
        let mut text = Vec::new();
        let mut limited = opened.file.take(wal_file::HISTORY_FILE_MAX);
        limited.read_to_end(&mut text).ok()?;
        TimelineHistory::parse(timeline, &String::from_utf8_lossy(&text)).ok()
    }

    /// What computes the digest of its content, as its object may have it; nothing where the control file is not known.
    pub(super) fn content_hash(&self) -> Option<ContentHash> {
        let nonce = self.nonce.as_ref()?;
        Some(ContentHash::new(nonce, &self.stored_as))
    }

    /// Reads the file from its beginning, exactly `size` bytes.
    pub(super) fn reader(&self) -> SourceReader {
        SourceReader {
            file: Arc::clone(&self.file),
            offset: 0,
            size: self.size,
        }
    }

    /// Makes sure that the file under the name is still the one that was opened.
    ///
    /// # Errors
    /// [`Kind::LocalIo`] when it was changed, replaced or removed since.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        match self.directory.open_file(&self.name) {
            Ok(again) if again.stamp == self.stamp && again.size == self.size => Ok(()),
            Ok(_) => {
                Err(changed(&self.name).detail("Its size or modification time is not the same."))
            }
            Err(ClusterError::NotFound { .. }) => {
                Err(changed(&self.name).detail("It was removed or renamed."))
            }
            Err(error) => Err(open_error(&self.name, error)),
        }
    }
}

/// Reads a [`Source`] without a shared position; ends with an error when the file is shorter than it was.
pub(super) struct SourceReader {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.offset)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..left], self.offset)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.offset += count as u64;
        Ok(count)
    }
}

/// A segment that PostgreSQL is still writing has neither mark. Archiving it would store its present bytes under its
/// name, and the finished segment would be refused for ever.
fn refuse_unfinished(directory: &WalDirectory, name: &ArchiveFileName) -> Result<()> {
    if !name.is_segment() {
        return Ok(());
    }
    let status = directory
        .status(name)
        .map_err(|e| OpError::from_cluster(e, format_args!("read the archive status of {name}")))?;
    match status {
        ArchiveStatus::Ready | ArchiveStatus::Done | ArchiveStatus::NoStatusDirectory => Ok(()),
        ArchiveStatus::None => Err(OpError::new(
            Kind::ArchiveConflict,
            format!("{name} has not been handed over by PostgreSQL"),
        )
        .detail("There is neither a .ready nor a .done file for it in archive_status.")
        .hint("let archive_command push it; pg_switch_wal() ends the current segment")),
    }
}

fn open_error(name: &ArchiveFileName, error: ClusterError) -> OpError {
    match error {
        ClusterError::NotFound { path } => {
            OpError::new(Kind::NotFound, format!("there is no WAL file {name}"))
                .detail(format!("{} does not exist.", path.display()))
                .hint("check that PGWAL is the WAL directory of the server that archives; wal-push wants %p of archive_command, not %f, and runs where the server runs")
        }
        other => OpError::from_cluster(other, format_args!("open {name}")),
    }
}

pub(super) fn changed(name: &ArchiveFileName) -> OpError {
    OpError::new(Kind::LocalIo, format!("{name} changed while it was read"))
        .hint("nothing was archived; PostgreSQL will ask again")
}

/// The first page's header, or less where the file is shorter.
fn read_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; WalPageHeader::LENGTH];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// Whether a file holds nothing but zeros.
fn is_zero(file: &File) -> io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(true),
            count if buffer[..count].iter().all(|byte| *byte == 0) => offset += count as u64,
            _ => return Ok(false),
        }
    }
}

fn check_history(name: &ArchiveFileName, file: &File, size: u64) -> Result<()> {
    if size > wal_file::HISTORY_FILE_MAX {
        return Err(
            OpError::new(Kind::CorruptData, format!("{name} is far too large")).detail(format!(
                "It has {size} bytes; at most {} are expected.",
                wal_file::HISTORY_FILE_MAX
            )),
        );
    }
    let length = usize::try_from(size).expect("at most 1 MiB");
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)
        .map_err(|e| OpError::from_io(e, format_args!("read {name}")))?;
    wal_file::check_history(name, &content)
}

/// The WAL files of a directory; none when it cannot be read.
fn names(directory: &WalDirectory) -> impl Iterator<Item = ArchiveFileName> {
    let entries = std::fs::read_dir(directory.path()).into_iter().flatten();
    entries.filter_map(|entry| ArchiveFileName::parse(entry.ok()?.file_name().to_str()?).ok())
}

/// The word of any segment of the same WAL directory, for a history file, which does not name its cluster.
fn neighbour(directory: &WalDirectory) -> Option<ClusterIdentity> {
    let mut segments = names(directory).filter(ArchiveFileName::is_segment);
    segments.find_map(|name| {
        let head = read_head(&directory.open_file(&name).ok()?.file).ok()?;
        WalPageHeader::parse(&head).ok()?.identity()
    })
}
