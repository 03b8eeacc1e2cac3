//! Where a WAL file lands that is decoded into a file, and its bytes where it is sent after all.

use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use wale_cluster::Owner;
use wale_cluster::durable::{PendingFile, mode_beside};
use wale_cluster::hand_over::{HandOver, UnnamedFile};

use crate::error::OpError;
use crate::wal_content::PIECE_BYTES;

/// Pieces that are read ahead of the receiver: 4 of 256 KiB make 1 MiB.
pub(super) const PIECES_AHEAD: usize = 4;

/// Where a file goes that is not sent.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// Here, under a temporary name until it is whole.
    At { path: PathBuf, owner: Option<Owner> },
    /// To a client beside the server's WAL, without a name until then.
    Taker {
        over: HandOver,
        /// Free bytes of its volume when it asked.
        free: u64,
    },
}

/// A file that does not have its name yet.
#[derive(Debug)]
pub(super) enum Landed {
    Pending(PendingFile),
    Unnamed(UnnamedFile),
}

impl Destination {
    pub(super) fn create(&self) -> io::Result<Landed> {
        match self {
            Self::At { path, owner } => {
                PendingFile::create(path, mode_beside(path), *owner).map(Landed::Pending)
            }
            Self::Taker { over, .. } => over.file().map(Landed::Unnamed),
        }
    }
}

impl Landed {
    /// Ends the writing. What is handed over is flushed here, while nobody waits for it; the other one when it gets its name.
    pub(super) fn written(&self) -> io::Result<()> {
        match self {
            Self::Pending(_) => Ok(()),
            Self::Unnamed(file) => file.flush_to_disk(),
        }
    }
}

impl Write for Landed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pending(file) => file.write(bytes),
            Self::Unnamed(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Pending(file) => file.flush(),
            Self::Unnamed(file) => file.flush(),
        }
    }
}

/// The bytes of a file, read as the receiver takes them.
pub(super) fn body_of(file: UnnamedFile, size: u64) -> BoxStream<'static, Result<Bytes, OpError>> {
    let (mut sender, receiver) = wale_pipeline::channel(PIECES_AHEAD);
    // Ends by itself when the receiver is dropped: its next send fails.
    tokio::task::spawn_blocking(move || {
        let file = file.into_file();
        let mut at = 0;
        while at < size {
            let length =
                usize::try_from(size - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let mut piece = vec![0; length];
            if let Err(error) = file.read_exact_at(&mut piece, at) {
                return sender.fail(error.to_string());
            }
            at += length as u64;
            if sender.blocking_send(Bytes::from(piece)).is_err() {
                return;
            }
        }
        sender.finish();
    });
    let body = receiver.into_stream().map_err(|error| {
        OpError::internal("a file that was fetched ahead could not be read again").source(error)
    });
    body.fuse().boxed()
}
