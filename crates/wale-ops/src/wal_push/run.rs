//! One push, from the file to the store's confirmation.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use wale_cluster::{FileStamp, WalDirectory};
use wale_format::layout;
use wale_pg::ArchiveFileName;
use wale_storage::{BodyError, ObjectKey, PutOutcome, StoreError};

use super::compare::{digest, same_content};
use super::flight::Turn;
use super::plan::{self, Decision};
use super::report::{PushOutcome, PushReport};
use super::source::Source;
use super::upload::{Uploaded, upload};
use crate::archive::{Archive, StoredWal};
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// What a caller may choose about a push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The cluster's data directory, if it can be seen: its `pg_control` must agree with the WAL.
    pub data_directory: Option<PathBuf>,
    /// How long an outage of the store is waited out.
    pub retry: RetryBudget,
}

impl Default for PushOptions {
    /// No data directory, and 20 s of patience: PostgreSQL repeats a failed push by itself, and an archiver that
    /// hears an error soon can be seen to fail.
    fn default() -> Self {
        Self {
            data_directory: None,
            retry: RetryBudget::within(Duration::from_secs(20)),
        }
    }
}

/// Pushes `name` from `directory`. Success means that the store confirmed a durable object with these bytes.
///
/// # Errors
/// `NotFound`: no such file. `CorruptData`: it is not what its name says. `ArchiveMismatch`: another cluster's.
/// `ArchiveConflict`: the name is taken by other bytes, or PostgreSQL has not handed it over. `LocalIo`,
/// `StorageUnavailable`, `DiskFull`, `PermissionDenied`: as they say; nothing is stored then, or the same bytes are.
pub async fn run(
    archive: &Archive,
    directory: &WalDirectory,
    name: &ArchiveFileName,
    options: &PushOptions,
) -> Result<PushReport> {
    run_stamped(archive, directory, name, options, &Turn::now())
        .await
        .map(|(report, _)| report)
}

/// Pushes the file at `path`, as WAL-E's verb does: its folder is taken for the WAL directory.
///
/// # Errors
/// As [`run`], and `InvalidName` when the last part of the path is no name that PostgreSQL archives.
pub async fn run_path(archive: &Archive, path: &Path, options: &PushOptions) -> Result<PushReport> {
    let text = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name = ArchiveFileName::parse(text).map_err(|error| {
        OpError::new(
            Kind::InvalidName,
            format!(
                "{:?} is not the name of a WAL file",
                path.display().to_string()
            ),
        )
        .hint("give the path that PostgreSQL put in place of %p")
        .source(error)
    })?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let directory = blocking(move || {
        WalDirectory::open(&folder)
            .map_err(|e| OpError::from_cluster(e, format_args!("open {}", folder.display())))
    })
    .await?;
    run(archive, &directory, &name, options).await
}

/// As [`run`], but nothing new appears in the archive before `turn` has come; also tells which content of the file was
/// pushed.
pub(super) async fn run_stamped(
    archive: &Archive,
    directory: &WalDirectory,
    name: &ArchiveFileName,
    options: &PushOptions,
    turn: &Turn,
) -> Result<(PushReport, FileStamp)> {
    let started = Instant::now();
    let (folder, file, data) = (directory.clone(), *name, options.data_directory.clone());
    let source = blocking(move || Source::open(&folder, &file, data.as_deref())).await?;
    let done = options
        .retry
        .run(|| attempt(archive, &source, turn))
        .await?;
    let report = PushReport {
        name: *name,
        outcome: done.outcome,
        key: done.key.to_string(),
        bytes_plain: source.size,
        bytes_stored: done.bytes_stored,
        duration: started.elapsed(),
    };
    tracing::debug!(%name, outcome = report.outcome.name(), key = %report.key, "pushed");
    Ok((report, source.stamp))
}

struct Done {
    outcome: PushOutcome,
    key: ObjectKey,
    bytes_stored: u64,
}

/// One attempt. It begins with a look at the store, because an attempt before it may have stored the object and lost
/// the reply.
async fn attempt(archive: &Archive, source: &Source, turn: &Turn) -> Result<Done> {
    claim(archive, source).await?;
    let copies = archive.find_wal_copies(&source.name).await?;
    let decision = plan::decide(&source.name, &compare_all(archive, source, &copies).await?);
    let done = match decision {
        Decision::Same(position) => confirm(archive, &copies[position]).await?,
        Decision::Conflict(position) => return Err(conflict(source, &copies[position].key)),
        Decision::KeepBeside => return keep_beside(archive, source, turn).await,
        Decision::Upload => store(archive, source, turn).await?,
    };
    refuse_disputed(archive, source, &done.key).await?;
    Ok(done)
}

/// Looks once more under the other codecs, now that the object exists. Creating is atomic for one key only: a clone that
/// compresses otherwise and was as quick has another key. Of two writers at least one sees the other's object here,
/// so two contents of one name are never both acknowledged.
async fn refuse_disputed(archive: &Archive, source: &Source, own: &ObjectKey) -> Result<()> {
    if matches!(source.name, ArchiveFileName::Partial(_)) {
        return Ok(());
    }
    for stored in archive.find_wal_copies(&source.name).await? {
        if stored.key != *own && !same_content(archive, source, &stored).await? {
            return Err(conflict(source, &stored.key));
        }
    }
    Ok(())
}

/// Makes sure that the archive is this cluster's before anything is written.
async fn claim(archive: &Archive, source: &Source) -> Result<()> {
    if let Some(cluster) = &source.cluster {
        archive.ensure_identity(cluster).await?;
    } else if archive.identity().await?.is_none() {
        return Err(OpError::new(Kind::Configuration, format!("cannot tell which cluster {} comes from", source.name))
            .detail("The archive is not bound to a cluster yet, and neither pg_control nor a segment can be read.")
            .hint("let PGDATA name the data directory, or archive a WAL segment first"));
    }
    archive.note_codec(archive.codec().codec).await
}

async fn compare_all(
    archive: &Archive,
    source: &Source,
    copies: &[StoredWal],
) -> Result<Vec<bool>> {
    let mut same = Vec::with_capacity(copies.len());
    for stored in copies {
        same.push(same_content(archive, source, stored).await?);
    }
    Ok(same)
}

/// Uploads under the plain name. Somebody else may be faster; then the bytes decide, as if they had been there.
async fn store(archive: &Archive, source: &Source, turn: &Turn) -> Result<Done> {
    let key = Archive::key(&layout::wal(&source.name, archive.codec().codec))?;
    match upload(archive, source, &key, turn).await? {
        Uploaded::Created { bytes_stored } => Ok(Done {
            outcome: PushOutcome::Stored,
            key,
            bytes_stored,
        }),
        Uploaded::Exists => {
            let stored = stat(archive, source, key).await?;
            let same = same_content(archive, source, &stored).await?;
            match plan::decide(&source.name, &[same]) {
                Decision::Same(_) => Ok(already(&stored)),
                Decision::KeepBeside => keep_beside(archive, source, turn).await,
                Decision::Conflict(_) | Decision::Upload => Err(conflict(source, &stored.key)),
            }
        }
    }
}

/// Stores a partial segment under its digest.
async fn keep_beside(archive: &Archive, source: &Source, turn: &Turn) -> Result<Done> {
    let local = source.clone();
    let digest = blocking(move || digest(&local)).await?;
    let key = Archive::key(&layout::wal_conflicting_partial(
        &source.name,
        &digest,
        archive.codec().codec,
    ))?;
    match upload(archive, source, &key, turn).await? {
        Uploaded::Created { bytes_stored } => {
            tracing::warn!(name = %source.name, %key, "another partial segment has this name; kept beside it");
            Ok(Done {
                outcome: PushOutcome::KeptBeside,
                key,
                bytes_stored,
            })
        }
        // The key holds a part of the digest only, so the bytes have the last word here, too.
        Uploaded::Exists => {
            let stored = stat(archive, source, key).await?;
            if same_content(archive, source, &stored).await? {
                Ok(already(&stored))
            } else {
                Err(conflict(source, &stored.key))
            }
        }
    }
}

/// The object that the store said exists.
async fn stat(archive: &Archive, source: &Source, key: ObjectKey) -> Result<StoredWal> {
    let meta = archive
        .store()
        .head(&key)
        .await
        .map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
    let Some(meta) = meta else {
        return Err(gone(&key));
    };
    let codec = archive.codec().codec;
    Ok(StoredWal {
        name: source.name,
        key,
        codec,
        size: meta.size,
        modified: meta.modified,
    })
}

/// Acknowledges an object that was found and compared. That it can be read does not make it durable: whoever wrote it
/// may have been killed before its fsync, or be a tool that never calls it. So the store is asked to confirm it, by a
/// put that has nothing to put.
async fn confirm(archive: &Archive, stored: &StoredWal) -> Result<Done> {
    let nothing = BodyError::new("there is nothing to store");
    let nothing = stream::iter([Err(nothing)]).boxed();
    match archive.store().put_if_absent(&stored.key, nothing).await {
        Ok(PutOutcome::Exists) => Ok(already(stored)),
        Ok(PutOutcome::Created(_)) => Err(OpError::internal(format!(
            "the store made {} of nothing",
            stored.key
        ))),
        Err(StoreError::BodyFailed { .. }) => Err(gone(&stored.key)),
        Err(error) => Err(OpError::from_store(
            error,
            format_args!("confirm {}", stored.key),
        )),
    }
}

fn already(stored: &StoredWal) -> Done {
    Done {
        outcome: PushOutcome::AlreadyStored,
        key: stored.key.clone(),
        bytes_stored: stored.size,
    }
}

fn gone(key: &ObjectKey) -> OpError {
    OpError::new(
        Kind::StorageUnavailable,
        format!("object {key} was there and is gone"),
    )
    .hint("find out who deletes objects of this archive")
}

fn conflict(source: &Source, key: &ObjectKey) -> OpError {
    let error = OpError::new(
        Kind::ArchiveConflict,
        format!(
            "{} is in the archive already, with other content",
            source.name
        ),
    )
    .detail(format!("The stored object {key} was left as it is."));
    match source.name {
        ArchiveFileName::TimelineHistory(timeline) => error.hint(format!(
            "two servers took timeline {timeline}; give the one that should not archive here an archive of its own"
        )),
        _ => error.hint("find out which other server archives here, and give one of the two an archive of its own"),
    }
}

/// Runs `work` on a blocking thread.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| OpError::internal("a blocking task panicked").source(e))?
}
