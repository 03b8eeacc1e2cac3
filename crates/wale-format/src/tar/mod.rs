//! Tar partitions as streams: a writer that emits the GNU dialect, a reader that takes GNU, ustar
//! and pax.
//!
//! Refuses to know: the file system (nothing is opened, nothing is created), compression, and which
//! member belongs where. Whether a link may point to where it points is the restore's decision.
//!
//! Sources followed: POSIX.1-2017 `pax`, GNU tar 1.34 `tar.h`, and what Python's and Go's tar
//! writers are seen to emit (WAL-E, WAL-G).
//!
//! ```text
//! archive = member* zero-block zero-block zero-padding
//! member  = [long name] [long link] header (512 bytes) body padding-to-512
//! ```
//!
//! Invariants:
//! * The reader gives out only names that stay below the directory they are joined to
//!   ([`MemberPath`]), and reports the end only when it has seen both zero blocks and nothing but
//!   zero bytes up to the end of the source: a reader that got `None` after members has everything.
//! * Memory does not depend on the input: one block, one extended header of at most 1 MiB.
//! * The same calls on the writer give the same bytes.

mod header;
mod path;
mod pax;
mod reader;
mod writer;

use std::io;

pub use path::MemberPath;
pub use reader::{Member, MemberKind, TarEnd, TarReader};
pub use writer::{MemberNames, Meta, TarWriter};

/// Tar's unit: headers are one block, bodies are padded to a multiple of it. Bytes.
pub const BLOCK_BYTES: usize = 512;
/// Twenty blocks: the length of an archive is a multiple of it, as GNU tar's default. Bytes.
const RECORD_BYTES: usize = 20 * BLOCK_BYTES;
/// Largest extended header (GNU long name, pax records) that the reader holds in memory. Bytes.
const EXTENDED_HEADER_MAX_BYTES: u64 = 1 << 20;

/// Why a tar stream cannot be read, or a member not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream ends before its end marks.
    #[error("tar stream is truncated: it ends in {at}")]
    Truncated {
        /// Where it ends.
        at: String,
    },
    /// The bytes are not a tar stream.
    #[error("tar stream is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// The member is well formed, and not one that a base backup may hold.
    #[error("tar member \"{name}\" refused: {reason}")]
    Refused {
        /// Name of the member as far as it can be printed.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TarError {
    fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged {
            reason: reason.into(),
        }
    }

    /// `name` may be hostile: control characters are escaped and its length is cut.
    fn refused(name: &[u8], reason: &'static str) -> Self {
        const SHOWN_CHARS: usize = 200;
        let text = String::from_utf8_lossy(name);
        let name = text
            .chars()
            .take(SHOWN_CHARS)
            .flat_map(char::escape_debug)
            .collect();
        Self::Refused { name, reason }
    }
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> Self {
        let kind = match &error {
            TarError::Io(_) => {
                let TarError::Io(inner) = error else {
                    return Self::other(error);
                };
                return inner;
            }
            TarError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            TarError::Damaged { .. } | TarError::Refused { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Bytes needed after `length` to reach a block boundary.
fn padding(length: u64) -> usize {
    let over = usize::try_from(length % BLOCK_BYTES as u64).expect("a remainder of 512 fits usize");
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

#[cfg(test)]
mod tests;
