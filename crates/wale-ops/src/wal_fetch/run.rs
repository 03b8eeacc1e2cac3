//! One fetch: find, decode, verify, and only then deliver.
//!
//! What goes into a file is decoded into it, under a temporary name, and gets its own when all is right. What is sent is decoded
//! into memory when the budget has room for it. Otherwise (large segments, or a budget in use)
//! it is decoded twice: once to verify it, once to send it; the second pass must be the same bytes as the first.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;
use wale_archive::{Archive, ConsumeError, StoredWal, damaged};
use wale_cluster::Owner;
use wale_cluster::durable::{PendingFile, mode_beside};
use wale_pg::ArchiveFileName;
use wale_pipeline::{ChunkSender, MemoryBudget, StreamReader, blocking};
use wale_storage::ObjectKey;

use super::report::{FetchReport, FetchedWal};
use super::room::Room;
use crate::error::{Kind, OpError, Result};
use crate::wal_content::{self, Decoded, Expectation, PIECE_BYTES, checksum, too_long};

/// Pieces waiting between the decoder and the receiver in the two-pass way: 4 of 256 KiB make 1 MiB.
const PIECES_AHEAD: usize = 4;

/// The largest part of the budget that one file may take: a quarter, so that four fetches go on at once.
const BUDGET_SHARE: u64 = 4;

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

/// Where a file goes that is not sent.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) path: PathBuf,
    pub(super) owner: Option<Owner>,
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
    let destination = Destination {
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
        pending,
        ..
    } = fetched;
    let mut source = StreamReader::new(body, 1, &Handle::current());
    let target = path.to_owned();
    blocking(move || {
        let failed = |e| local_or_body(e, &target);
        if let Some(file) = pending {
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
        match room_in(budget, expectation.size_max()) {
            Some(room) => fetch_into_memory(archive, stored, expectation, room).await,
            None => fetch_in_two_passes(archive, stored, expectation).await,
        }
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

/// Decodes and verifies a segment into memory that was taken for it already.
pub(super) async fn fetch_into_room(
    archive: &Archive,
    name: &ArchiveFileName,
    room: Room,
) -> Result<FetchedWal> {
    let mut copies = match archive.recent_tail(name) {
        Some(tail) => archive.copies_in(&tail, name),
        None => archive.find_wal_copies_nearby(name).await?,
    };
    let stored = copies.pop().ok_or_else(|| not_found(name))?;
    if !copies.is_empty() {
        let message = format!("{name} has several copies, which are compared when it is asked for");
        return Err(OpError::new(Kind::Busy, message));
    }
    let expectation = Expectation::of(archive, &stored).await?;
    if expectation.size_max() > room.bytes() {
        return Err(OpError::new(
            Kind::Busy,
            format!("no room to fetch {name} ahead"),
        ));
    }
    fetch_into_memory(archive, &stored, expectation, room).await
}

/// Decodes and verifies one object into a file beside its destination, which does not have its name yet. `None` where the file
/// cannot be written: that says nothing of the object, and who writes it in the usual way is told why.
async fn fetch_into_file(
    archive: &Archive,
    stored: &StoredWal,
    expectation: Expectation,
    destination: &Destination,
) -> Result<Option<FetchedWal>> {
    let (key, Destination { path, owner }) = (stored.key.clone(), destination.clone());
    let written = archive
        .decode(&stored.key, stored.codec, move |plain| {
            let Ok(mut file) = PendingFile::create(&path, mode_beside(&path), owner) else {
                return Ok(None);
            };
            let mut written = Ok(());
            let seen = expectation.verify_through(&key, plain, |piece| {
                if written.is_ok() {
                    written = file.write_all(piece);
                }
            })?;
            Ok(written.is_ok().then_some((file, seen.size)))
        })
        .await?;
    Ok(written.map(|(file, size)| FetchedWal {
        pending: Some(file),
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
        match object.read(|plain| send_again(&key, plain, seen, &mut sender)) {
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
        pending: None,
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
