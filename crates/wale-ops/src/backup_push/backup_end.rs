//! How a base backup ended, by the kind of its server. What only one kind has is here.

use std::borrow::Cow;

use wale_cluster::StoppedBackup;
use wale_pg::{Lsn, byte_text};

use super::forks::Forks;
use super::ready::RunningServer;
use super::shutdown_checkpoint::ShutdownCheckpoint;

/// How a base backup ended.
pub(super) enum BackupEnd {
    /// The server ran, and has ended the backup. The WAL that a restore needs comes by its archiver.
    Running(Box<RunningEnd>),
    /// The server was stopped. The WAL that a restore needs goes with the files.
    Stopped(ShutdownCheckpoint),
}

/// The end of the backup of a running server.
pub(super) struct RunningEnd {
    /// What the server said of itself before it began.
    pub(super) server: RunningServer,
    /// What it said at the end.
    pub(super) stopped: StoppedBackup,
    /// The timelines that there were at the beginning, where that is known.
    pub(super) forks: Option<Forks>,
}

impl BackupEnd {
    /// The position that a restore must reach before the data is consistent.
    pub(super) fn stop_lsn(&self) -> Lsn {
        match self {
            Self::Running(end) => end.stopped.stop_lsn,
            Self::Stopped(checkpoint) => checkpoint.end,
        }
    }

    /// What a running server said; `None` of a stopped one, which says nothing.
    pub(super) fn running(&self) -> Option<&RunningEnd> {
        match self {
            Self::Running(end) => Some(end),
            Self::Stopped(_) => None,
        }
    }
}

impl RunningEnd {
    /// The files that the server made for the backup, byte for byte, by their paths: the label, and the map where there are
    /// tablespaces.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, Cow<'_, [u8]>)> {
        let label = Cow::from(self.stopped.label_text.as_bytes());
        let map = byte_text::to_bytes(&self.stopped.tablespace_map);
        let files = [("backup_label", label), ("tablespace_map", map)];
        files.into_iter().filter(|(_, content)| !content.is_empty())
    }
}
