//! One upload: file → digest of its content, where the seal notes one; file → seal → bounded channel → `put_if_absent`.
//!
//! The last chunk is sent only after the file was seen unchanged, and the body ends only when the push's turn has come. A
//! reader that fails before that breaks the body, and a broken body leaves nothing under the final name: that is the
//! store's promise.

use std::io::{Read, Write};

use futures_util::{StreamExt, stream};
use wale_archive::{Archive, ContentHash, Sealed};
use wale_format::{Codec, ContentDigest, SealWriter};
use wale_pipeline::{ChunkWriter, blocking};
use wale_storage::{BodyError, ObjectKey, PutOutcome, StoreError};

use super::compare::content_digest;
use super::memory::{CHUNK_BYTES, READ_BYTES};
use super::running_push::PushOrder;
use super::source::{Source, changed};
use crate::error::{OpError, Result};

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// The store confirmed a durable object of so many bytes.
    Created {
        /// The object's size.
        bytes_stored: u64,
    },
    /// Something has that name already; the store is unchanged.
    Exists,
}

/// Whether somebody has asked what there is under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nobody.
    No,
    /// There was nothing a moment ago.
    SawNothing,
}

/// Uploads `source` under `key`, unless something is there.
pub(super) async fn upload(
    archive: &Archive,
    source: &Source,
    key: &ObjectKey,
    codec: Codec,
    looked: Looked,
    turn: &PushOrder,
) -> Result<Uploaded> {
    let content = noted_content(archive, source).await?;
    let archive = &archive.for_one(Sealed::Wal);
    let (writer, body) = archive.sealed_wal(&source.stored_as, codec, CHUNK_BYTES, content)?;
    let (name, waiting, whose) = (source.name, turn.clone(), archive.clone());
    let end = stream::once(async move { whose.held_by(waiting.arrived(&name)).await.err() });
    let end = end.filter_map(|failed| async { failed.map(|e| Err(BodyError::new(e.to_string()))) });
    // Fused: a store that asks once more after the end must hear "end" again.
    let body = body.chain(end).fuse().boxed();
    let local = source.clone();
    let producer = tokio::task::spawn_blocking(move || produce(&local, writer, content));
    let store = archive.store();
    let stored = match looked {
        Looked::No => store.put_if_absent(key, body).await,
        Looked::SawNothing => store.put_unseen(key, body).await,
    };
    // The body is gone now, so a producer that is still at work fails at its next chunk and ends.
    let reading = producer.await.map_err(|e| {
        OpError::internal(format!("the reader of {} panicked", source.name)).source(e)
    })?;
    match stored {
        Ok(PutOutcome::Exists) => Ok(Uploaded::Exists),
        Ok(PutOutcome::Created(meta)) => match reading {
            Ok(()) => {
                archive.was_stored(source.size);
                Ok(Uploaded::Created {
                    bytes_stored: meta.size,
                })
            }
            Err(error) => Err(OpError::internal(format!(
                "{key} was stored from an unfinished body"
            ))
            .source(error)),
        },
        // The body's own reason says more than "the body failed".
        Err(error @ StoreError::BodyFailed { .. }) => {
            reading?;
            turn.arrived(&source.name).await?;
            Err(OpError::from_store(error, format_args!("store {key}")))
        }
        Err(error) => Err(OpError::from_store(error, format_args!("store {key}"))),
    }
}

/// What the object is to say of its content: computed before, since it stands at its beginning.
async fn noted_content(archive: &Archive, source: &Source) -> Result<Option<ContentDigest>> {
    if !archive.notes_content(&source.stored_as) {
        return Ok(None);
    }
    let local = source.clone();
    blocking(move || content_digest(&local)).await?
}

/// Reads, seals and sends the whole file, whose content is to be `noted`. Blocks. Dropping the writer before its end breaks the
/// body.
fn produce(
    source: &Source,
    mut writer: SealWriter<ChunkWriter>,
    noted: Option<ContentDigest>,
) -> Result<()> {
    let mut hash = noted.and_then(|_| source.content_hash());
    let failed = |e| OpError::from_io(e, format_args!("encode {}", source.name));
    let mut reader = source.reader();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|e| OpError::from_io(e, format_args!("read {}", source.name)))?;
        if count == 0 {
            break;
        }
        if let Some(hash) = &mut hash {
            hash.update(&buffer[..count]);
        }
        writer.write_all(&buffer[..count]).map_err(failed)?;
    }
    if hash.map(ContentHash::finish) != noted {
        return Err(changed(&source.name).detail("Two reads of it gave different bytes."));
    }
    source.check_unchanged()?;
    writer
        .finish()
        .and_then(ChunkWriter::finish)
        .map_err(failed)?;
    Ok(())
}
