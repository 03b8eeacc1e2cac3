//! The local side of a push: opening the file, checking it, reading it. All of it blocks.
//!
//! It writes nothing. The file is held open, so that it cannot vanish in the middle, and it is looked at again by
//! name after the last byte: PostgreSQL recycles a segment by renaming it, and bytes read after that are another
//! segment's.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use wale_cluster::{ArchiveStatus, ClusterError, DataDirectory, FileStamp, WalDirectory};
use wale_pg::{ArchiveFileName, WalPageHeader};

use super::plan::{self, Origin};
use crate::archive::ClusterIdentity;
use crate::error::{Kind, OpError, Result};

/// A checked file of the WAL directory.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: ArchiveFileName,
    /// Size in bytes, fixed.
    pub(super) size: u64,
    /// Identity of the file's content.
    pub(super) stamp: FileStamp,
    /// The cluster it comes from, where that can be told.
    pub(super) cluster: Option<ClusterIdentity>,
    directory: WalDirectory,
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
        let mut origin = Origin {
            control: data_directory.and_then(read_control),
            header: None,
        };
        if matches!(
            name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        ) {
            let head =
                read_head(&file).map_err(|e| OpError::from_io(e, format_args!("read {name}")))?;
            origin.header = Some(plan::check_segment(name, &head, opened.size)?);
        } else {
            check_history(name, &file, opened.size)?;
            if origin.control.is_none() {
                origin.header = neighbour(directory);
            }
        }
        let cluster = plan::cluster_of(name, &origin)?;
        Ok(Self {
            name: *name,
            size: opened.size,
            stamp: opened.stamp,
            cluster,
            directory: directory.clone(),
            file,
        })
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
                .hint("check that PGWAL is the WAL directory of the server that archives")
        }
        other => OpError::from_cluster(other, format_args!("open {name}")),
    }
}

fn changed(name: &ArchiveFileName) -> OpError {
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

fn check_history(name: &ArchiveFileName, file: &File, size: u64) -> Result<()> {
    if size > plan::HISTORY_FILE_MAX {
        return Err(
            OpError::new(Kind::CorruptData, format!("{name} is far too large")).detail(format!(
                "It has {size} bytes; at most {} are expected.",
                plan::HISTORY_FILE_MAX
            )),
        );
    }
    let length = usize::try_from(size).expect("at most 1 MiB");
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)
        .map_err(|e| OpError::from_io(e, format_args!("read {name}")))?;
    plan::check_history(name, &content)
}

/// `pg_control`'s word on the cluster. A data directory that cannot be read (a sidecar may see the WAL directory
/// only) is no failure: the WAL speaks for itself.
pub(crate) fn read_control(data_directory: &Path) -> Option<ClusterIdentity> {
    match DataDirectory::open(data_directory).and_then(|data| data.control_file()) {
        Ok(control) => Some(plan::cluster_of_control(&control)),
        Err(error) => {
            tracing::debug!(path = %data_directory.display(), %error, "goes on without pg_control");
            None
        }
    }
}

/// The word of any segment of the same WAL directory, for a history file, which does not name its cluster.
fn neighbour(directory: &WalDirectory) -> Option<ClusterIdentity> {
    let entries = std::fs::read_dir(directory.path()).ok()?;
    entries
        .filter_map(|entry| ArchiveFileName::parse(entry.ok()?.file_name().to_str()?).ok())
        .filter(ArchiveFileName::is_segment)
        .find_map(|name| {
            let head = read_head(&directory.open_file(&name).ok()?.file).ok()?;
            plan::cluster_of_header(&WalPageHeader::parse(&head).ok()?)
        })
}
