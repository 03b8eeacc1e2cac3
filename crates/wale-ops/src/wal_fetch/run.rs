//! One fetch: find, decode, verify, and only then deliver.
//!
//! What goes into a file is decoded into it, under a temporary name, and gets its own when all is right. What is sent is decoded
//! into memory when the budget has room for it. Otherwise (large segments, or a budget in use)
//! it is decoded twice: once to verify it, once to send it; the second pass must be the same bytes as the first.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use wale_archive::{Archive, ConsumeError, StoredWal, damaged};
use wale_cluster::Owner;
use wale_cluster::durable::{PendingFile, mode_beside};
use wale_pg::ArchiveFileName;
use wale_pipeline::{ChunkSender, MemoryBudget, MemoryPermit, StreamReader, blocking};
use wale_storage::ObjectKey;

use super::landing::{Destination, Landed, PIECES_AHEAD, body_of};
use super::report::{FetchReport, FetchedWal};
use super::room::{DECODER_BYTES, Room};
use crate::error::{Kind, OpError, Result};
use crate::wal_content::{self, Decoded, Expectation, PIECE_BYTES, checksum, too_long};

/// The largest part of the budget that one file may take: a quarter, so that four fetches go on at once.
const BUDGET_SHARE: u64 = 4;

/// How many files of `segment_bytes` each may be sent at a time so that they stay within a budget: as many as fit into it as whole
/// files, or decoders where they are sent in two passes. Two in any case.
#[must_use]
pub fn files_at_once(budget_bytes: u64, segment_bytes: u64) -> u64 {
    let each = if segment_bytes <= budget_bytes / BUDGET_SHARE {
        segment_bytes
    } else {
        DECODER_BYTES
    };
    (budget_bytes / each).max(2)
}

/// What is said of a name under which two contents are stored.
pub(super) const DISPUTED: &str = "is in the archive twice, with different contents";

/// Finds, decodes and verifies `name`. What comes back is known to be right.
///
/// # Errors
/// `NotFound`: no object holds it (see [`super::prove_absent`] for what that is worth). `CorruptData`: what is
/// stored is not it; the object is named. `Configuration`: stored with a codec that this version cannot read.
/// `StorageUnavailable` and the like: the store did not answer.
pub async fn fetch(archive: &Archive, name: &ArchiveFileName) -> Result<FetchedWal> {
    let copies = archive.find_wal_copies(name).await?;
    fetch_found(archive, name, &copies, None).await
}

/// As [`fetch`], of what a check has found. What is for a destination is put beside it at once, where that can be.
pub(super) async fn fetch_found(
    archive: &Archive,
    name: &ArchiveFileName,
    copies: &[StoredWal],
    destination: Option<&Destination>,
) -> Result<FetchedWal> {
    if copies.is_empty() {
        return Err(not_found(name));
    }
    if copies.len() > 1 {
        refuse_disputed(archive, name, copies).await?;
    }
    let mut first_error = None;
    for stored in copies {
        match fetch_copy(archive, stored, archive.budget(), destination).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) if error.kind == Kind::CorruptData || error.kind == Kind::Configuration => {
                // Another copy, under another codec, may be sound.
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_error.unwrap_or_else(|| not_found(name)))
}

/// Refuses a name under which different contents are stored, which two servers of one origin can bring about that
/// compress differently: one of them was acknowledged, and it is not known which. Copies that cannot be read do not count.
async fn refuse_disputed(
    archive: &Archive,
    name: &ArchiveFileName,
    copies: &[StoredWal],
) -> Result<()> {
    let mut known: Option<(&StoredWal, Decoded)> = None;
    for stored in copies {
        let digest = match wal_content::decoded(archive, stored).await {
            Ok(digest) => digest,
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => continue,
            Err(error) => return Err(error),
        };
        match known {
            Some((other, before)) if before != digest => {
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("{name} {DISPUTED}"),
                )
                .detail(format!(
                    "Objects {} and {} are of two servers that archived into one prefix.",
                    other.key, stored.key
                ))
                .hint("find out which of the two is this server's, and move the other one away"));
            }
            _ => known = Some((stored, digest)),
        }
    }
    Ok(())
}

/// Fetches `name` and puts it at `path`, whole and durable, or leaves `path` as it is. The file is made in the same
/// folder under a temporary name, with mode 0600 and, where given, another owner.
///
/// # Errors
/// As [`fetch`], and `LocalIo`, `DiskFull`, `PermissionDenied` for the local side.
pub async fn fetch_to_path(
    archive: &Archive,
    name: &ArchiveFileName,
    path: &Path,
    owner: Option<Owner>,
) -> Result<FetchReport> {
    let started = Instant::now();
    let copies = archive.find_wal_copies(name).await?;
    let destination = Destination::At {
        path: path.to_owned(),
        owner,
    };
    let fetched = fetch_found(archive, name, &copies, Some(&destination)).await?;
    write_to_path(fetched, path, owner, started).await
}

/// Puts a fetched file at `path`, as [`fetch_to_path`]. `started` is when the request began.
///
/// # Errors
/// Those of the body and of the local side.
pub(super) async fn write_to_path(
    fetched: FetchedWal,
    path: &Path,
    owner: Option<Owner>,
    started: Instant,
) -> Result<FetchReport> {
    let FetchedWal {
        name,
        size,
        key,
        bytes_stored,
        body,
        landed,
        ..
    } = fetched.into_sent();
    let mut source = StreamReader::new(body, 1, &Handle::current());
    let target = path.to_owned();
    blocking(move || {
        let failed = |e| local_or_body(e, &target);
        if let Some(Landed::Pending(file)) = landed {
            return file.commit().map_err(failed);
        }
        let mut file = PendingFile::create(&target, mode_beside(&target), owner).map_err(failed)?;
        let written = copy(&mut source, &mut file).map_err(failed)?;
        if written != size {
            return Err(OpError::internal(format!(
                "{written} of {size} bytes of {name} were delivered"
            )));
        }
        file.commit().map_err(failed)
    })
    .await??;
    Ok(FetchReport {
        name,
        key,
        bytes_plain: size,
        bytes_stored,
        duration: started.elapsed(),
    })
}

/// Writes what comes in the pieces in which it comes, which are large.
fn copy(source: &mut impl BufRead, file: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    loop {
        let piece = source.fill_buf()?;
        if piece.is_empty() {
            return Ok(written);
        }
        file.write_all(piece)?;
        let count = piece.len();
        source.consume(count);
        written += count as u64;
    }
}

/// An error of the body is an [`OpError`] in disguise; the rest are the file's.
fn local_or_body(error: io::Error, path: &Path) -> OpError {
    error
        .downcast::<OpError>()
        .unwrap_or_else(|e| OpError::from_io(e, format_args!("write {}", path.display())))
}

/// The error for a name that no object has.
pub(super) fn not_found(name: &ArchiveFileName) -> OpError {
    OpError::new(Kind::NotFound, format!("{name} is not in the archive"))
}

/// Decodes and verifies one object, with a buffer from `budget` where it has room.
async fn fetch_copy(
    archive: &Archive,
    stored: &StoredWal,
    budget: &MemoryBudget,
    destination: Option<&Destination>,
) -> Result<FetchedWal> {
    let expectation = Expectation::of(archive, stored).await?;
    let result = async {
        if let Some(destination) = destination
            && let Some(fetched) =
                fetch_into_file(archive, stored, expectation, destination).await?
        {
            return Ok(fetched);
        }
        if let Some(room) = room_in(budget, expectation.size_max()) {
            return fetch_into_memory(archive, stored, expectation, room).await;
        }
        // Where there is none of it either, others have it, and few files are sent at a time.
        let memory = budget.try_acquire(DECODER_BYTES);
        fetch_in_two_passes(archive, stored, expectation, memory).await
    };
    result.await.map_err(|error| match error.kind {
        // It was there a moment ago. That is no absence.
        Kind::NotFound => OpError::new(
            Kind::StorageUnavailable,
            format!("object {} was there and is gone", stored.key),
        )
        .hint("find out who deletes objects of this archive")
        .source(error),
        _ => error,
    })
}

/// Room for `bytes`, if that is a fair share of the budget and free now. Nobody waits: without room there are two
/// passes.
fn room_in(budget: &MemoryBudget, bytes: u64) -> Option<Room> {
    (bytes <= budget.total() / BUDGET_SHARE)
        .then(|| budget.try_acquire(bytes))
        .flatten()
        .map(Room::of)
}

impl FetchedWal {
    /// The same with a body, where it lies in a file without a name that nobody takes.
    pub(super) fn into_sent(self) -> Self {
        match self.landed {
            Some(Landed::Unnamed(file)) => Self {
                body: body_of(file, self.size),
                landed: None,
                ..self
            },
            landed => Self { landed, ..self },
        }
    }
}

/// What a segment is fetched into before anybody has asked for it.
#[derive(Debug)]
pub(super) enum AheadInto {
    Memory(Room),
    File(Destination),
}

/// Decodes and verifies a segment ahead.
pub(super) async fn fetch_ahead(
    archive: &Archive,
    name: &ArchiveFileName,
    into: AheadInto,
) -> Result<FetchedWal> {
    let mut copies = match archive.recent_tail(name) {
        Some(tail) => archive.copies_in(&tail, name),
        None => archive.find_wal_copies_nearby(name).await?,
    };
    let stored = copies.pop().ok_or_else(|| not_found(name))?;
    let busy = |why| Err(OpError::new(Kind::Busy, format!("{name} {why}")));
    if !copies.is_empty() {
        return busy("has several copies, which are compared when it is asked for");
    }
    let expectation = Expectation::of(archive, &stored).await?;
    match into {
        AheadInto::Memory(room) if expectation.size_max() > room.bytes() => {
            busy("does not fit into the room to fetch it ahead")
        }
        AheadInto::Memory(room) => fetch_into_memory(archive, &stored, expectation, room).await,
        AheadInto::File(destination) => {
            let fetched = fetch_into_file(archive, &stored, expectation, &destination).await?;
            fetched.map_or_else(|| busy("cannot be written beside the WAL ahead"), Ok)
        }
    }
}

/// Decodes and verifies one object into a file that does not have its name yet. `None` where the file
/// cannot be written: that says nothing of the object, and who writes it in the usual way is told why.
async fn fetch_into_file(
    archive: &Archive,
    stored: &StoredWal,
    expectation: Expectation,
    destination: &Destination,
) -> Result<Option<FetchedWal>> {
    let (key, destination) = (stored.key.clone(), destination.clone());
    let written = archive
        .decode(&stored.key, stored.codec, move |plain| {
            let Ok(mut file) = destination.create() else {
                return Ok(None);
            };
            let mut written = Ok(());
            let size = expectation.verify_through(&key, plain, |piece| {
                if written.is_ok() {
                    written = file.write_all(piece);
                }
            })?;
            let written = written.and_then(|()| file.written());
            Ok(written.is_ok().then_some((file, size)))
        })
        .await?;
    Ok(written.map(|(file, size)| FetchedWal {
        landed: Some(file),
        ..delivered(stored, size, stream::empty().boxed())
    }))
}

async fn fetch_into_memory(
    archive: &Archive,
    stored: &StoredWal,
    expectation: Expectation,
    mut room: Room,
) -> Result<FetchedWal> {
    let key = stored.key.clone();
    let content = archive
        .decode(&stored.key, stored.codec, move |plain| {
            let size_max = expectation.size_max();
            match usize::try_from(size_max) {
                Ok(size) if expectation.is_segment_shaped() => room.read_segment(plain, size)?,
                _ => room.read_file(plain, size_max)?,
            }
            refuse_surplus(&key, plain, size_max)?;
            let content = room.content();
            expectation
                .check(content, content.len() as u64)
                .map_err(|why| damaged(&key, why))?;
            Ok(room.into_bytes())
        })
        .await?;
    let size = content.len() as u64;
    let body = stream::unfold(content, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        Some((Ok(piece), rest))
    });
    Ok(delivered(stored, size, body.fuse().boxed()))
}

async fn fetch_in_two_passes(
    archive: &Archive,
    stored: &StoredWal,
    expectation: Expectation,
    memory: Option<MemoryPermit>,
) -> Result<FetchedWal> {
    let key = stored.key.clone();
    let seen = archive
        .decode(&stored.key, stored.codec, move |plain| {
            expectation.verify(&key, plain)
        })
        .await?;
    let (mut sender, receiver) = wale_pipeline::channel(PIECES_AHEAD);
    let key = stored.key.clone();
    let object = archive.open_stored(&key, stored.codec).await?;
    // Ends by itself when the receiver is dropped: its next send fails.
    tokio::task::spawn_blocking(move || {
        let sent = object.read(|plain| send_again(&key, plain, seen, &mut sender));
        // Given back before anybody hears of the end.
        drop(memory);
        match sent {
            Ok(()) => sender.finish(),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "a verified object broke while it was sent");
                sender.fail(error.chain());
            }
        }
    });
    let named = stored.key.clone();
    let body = receiver.into_stream().map_err(move |error| {
        OpError::new(
            Kind::StorageUnavailable,
            format!("object {named} broke while it was sent"),
        )
        .source(error)
    });
    Ok(delivered(stored, seen.size, body.fuse().boxed()))
}

fn delivered(
    stored: &StoredWal,
    size: u64,
    body: futures_util::stream::BoxStream<'static, Result<Bytes, OpError>>,
) -> FetchedWal {
    FetchedWal {
        name: stored.name,
        size,
        key: stored.key.to_string(),
        codec: stored.codec,
        bytes_stored: stored.size,
        body,
        landed: None,
    }
}

/// The second pass: sends everything, the last piece only when all was as before. A receiver that is gone wants nothing
/// more. Blocks.
fn send_again(
    key: &ObjectKey,
    plain: &mut dyn Read,
    seen: Decoded,
    sender: &mut ChunkSender,
) -> Result<(), ConsumeError> {
    let mut digest = checksum();
    let mut size = 0;
    let mut held = Bytes::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        digest.update(&buffer[..count]);
        let piece = Bytes::copy_from_slice(&buffer[..count]);
        let before = std::mem::replace(&mut held, piece);
        if sender.blocking_send(before).is_err() {
            return Ok(());
        }
    }
    if size != seen.size || digest.finalize() != seen.checksum {
        return Err(damaged(key, "it was not the same when it was read again").into());
    }
    let _ = sender.blocking_send(held);
    Ok(())
}

fn refuse_surplus(
    key: &ObjectKey,
    plain: &mut dyn Read,
    size_max: u64,
) -> Result<(), ConsumeError> {
    // Reading to the very end is also what makes the decoder check the checksum of the whole.
    match plain.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(too_long(key, size_max).into()),
    }
}
