//! Is a stored object the same as the local file? Decided on the plain bytes, since encoders do not agree.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::memory::READ_BYTES;
use super::source::Source;
use crate::archive::{Archive, ConsumeError, StoredWal};
use crate::error::{Kind, OpError, Result};

/// Whether `stored` decodes to exactly the bytes of `source`.
///
/// # Errors
/// The store's failures; [`Kind::CorruptData`] when the object cannot be decoded, so that nothing can be said.
pub(super) async fn same_content(
    archive: &Archive,
    source: &Source,
    stored: &StoredWal,
) -> Result<bool> {
    let local = source.clone();
    archive
        .decode(&stored.key, stored.codec, move |plain| {
            let same = same_bytes(&local, plain)?;
            local.check_unchanged()?;
            Ok(same)
        })
        .await
        .map_err(|error| explain(source, stored, error))
}

fn same_bytes(local: &Source, plain: &mut dyn Read) -> Result<bool, ConsumeError> {
    let mut reader = local.reader();
    let mut ours = vec![0; READ_BYTES];
    let mut theirs = vec![0; READ_BYTES];
    loop {
        let count = reader.read(&mut ours).map_err(|e| {
            ConsumeError::Refused(OpError::from_io(e, format_args!("read {}", local.name)))
        })?;
        if count == 0 {
            // Equal so far, and the file ends here: does the object, too?
            return Ok(plain.read(&mut theirs[..1])? == 0);
        }
        if read_full(plain, &mut theirs[..count])? < count || ours[..count] != theirs[..count] {
            return Ok(false);
        }
    }
}

/// Fills `buffer` as far as the source goes.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn explain(source: &Source, stored: &StoredWal, error: OpError) -> OpError {
    if error.kind != Kind::CorruptData {
        return error;
    }
    error
        .detail(format!(
            "{} is in the archive already, but what is stored cannot be compared with the file.",
            source.name
        ))
        .hint(format!(
            "remove or repair {}, then PostgreSQL's next attempt stores it anew",
            stored.key
        ))
}

/// SHA-256 of the file, 64 lower-case hexadecimal digits. Blocks.
pub(super) fn digest(source: &Source) -> Result<String> {
    let failed = |e| OpError::from_io(e, format_args!("read {}", source.name));
    let mut reader = source.reader();
    let mut buffer = vec![0; READ_BYTES];
    let mut hash = Sha256::new();
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    source.check_unchanged()?;
    let digest = hash.finalize();
    Ok(digest
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}
