//! Puts a file in place, whole or not at all: a reply's body, or what the sidecar has put beside the destination.

use std::io::Write;
use std::path::Path;

use wale_cluster::durable::{PendingFile, mode_beside};
use wale_cluster::hand_over::TakingPlace;
use wale_ops::{Kind, OpError};
use wale_pg::WalSegmentName;

use super::http::Reply;

/// What PostgreSQL's recovery calls a segment that it asks for. `pg_rewind` asks for others, beside a server that is stopped.
const RECOVERY_NAME: &str = "RECOVERYXLOG";

/// A place in which the sidecar can put the file, if it sees the volume; where none can be made, the bytes do.
pub(super) fn for_taking(name: &str, path: &Path) -> Option<TakingPlace> {
    if path.file_name()? != RECOVERY_NAME || WalSegmentName::parse(name).is_err() {
        return None;
    }
    let made = TakingPlace::beside(path);
    made.inspect_err(|error| tracing::debug!(%error, "no file can be taken beside the destination"))
        .ok()
}

/// Writes the body beside its destination and renames it when every byte of the declared length is
/// there and flushed.
///
/// # Errors
/// When the length is not declared or not met, or the file cannot be written. Nothing is left then.
pub(super) async fn whole(mut reply: Reply, name: &str, path: &Path) -> Result<(), OpError> {
    let Some(length) = reply.length() else {
        return Err(OpError::new(
            Kind::CorruptData,
            format!("the sidecar did not say how long {name} is"),
        ));
    };
    let failed = |error| OpError::from_io(error, format!("write \"{}\"", path.display()));
    // The owner is the user that runs restore_command: the server's. The writes go to the page cache,
    // and nothing else waits on this thread.
    let mut file = PendingFile::create(path, mode_beside(path), None).map_err(failed)?;
    let mut written: u64 = 0;
    while let Some(piece) = reply.next().await? {
        file.write_all(&piece).map_err(failed)?;
        written += piece.len() as u64;
    }
    if written != length {
        let message = format!("the sidecar sent {written} of {length} bytes of {name}");
        return Err(OpError::new(Kind::CorruptData, message));
    }
    file.commit().map_err(failed)
}
