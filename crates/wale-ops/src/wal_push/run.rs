//! One push, from the file to the store's confirmation.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wale_archive::{Age, Archive, StoredWal};
use wale_cluster::{FileStamp, WalDirectory};
use wale_format::{ArchiveIdentity, Codec, layout};
use wale_pg::{ArchiveFileName, MajorVersion};
use wale_pipeline::blocking;
use wale_storage::{Looking, ObjectKey};

use super::abandoned::{self, Left, Settled};
use super::compare::{digest, same_content};
use super::done::{Done, confirm, gone};
use super::plan::{self, PushDecision};
use super::report::{PushOutcome, PushReport};
use super::running_push::PushOrder;
use super::source::Source;
use super::upload::{Looked, Uploaded, upload};
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// Whether this process has said that the server is newer than it. Once is enough: it is true of every segment.
static TOLD_OF_NEWER: AtomicBool = AtomicBool::new(false);

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
    run_stamped(archive, directory, name, options, &PushOrder::now())
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
    .await??;
    run(archive, &directory, &name, options).await
}

/// As [`run`], but nothing new appears in the archive before `turn` has come; also returns which content of the file
/// was pushed.
pub(super) async fn run_stamped(
    archive: &Archive,
    directory: &WalDirectory,
    name: &ArchiveFileName,
    options: &PushOptions,
    turn: &PushOrder,
) -> Result<(PushReport, FileStamp)> {
    let started = Instant::now();
    let (folder, file, data) = (directory.clone(), *name, options.data_directory.clone());
    let source = blocking(move || Source::open(&folder, &file, data.as_deref())).await??;
    if let Some(major) = source.newer
        && !TOLD_OF_NEWER.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            major,
            newest_known = MajorVersion::NEWEST.get(),
            hint = "use a version of wale that knows this server, for base backups, too",
            "the server is newer than this wale: its WAL is archived, checked by size, system identifier, segment size \
             and page address, but not by its page magic, which is not known here"
        );
    }
    let done = options
        .retry
        .run(|| async {
            let result = attempt(archive, &source, turn).await;
            if result.is_err() {
                // It may have stored something all the same.
                archive.forget_looks();
            }
            result
        })
        .await?;
    let report = PushReport {
        name: *name,
        outcome: done.outcome,
        key: done.key.to_string(),
        bytes_plain: source.size,
        bytes_stored: done.bytes_stored,
        beside: done.beside.map(|key| key.to_string()),
        duration: started.elapsed(),
    };
    if let Some(beside) = &report.beside {
        tracing::warn!(
            %name, key = report.key, sealed = beside,
            "{beside} holds {name} and cannot be read as wale is set up here, so it counts as not archived; \
             the file was stored beside it"
        );
    }
    tracing::debug!(%name, outcome = report.outcome.name(), key = %report.key, "pushed");
    Ok((report, source.stamp))
}

/// One attempt. It begins with a check of the store, because an attempt before it may have stored the object and lost
/// the reply.
async fn attempt(archive: &Archive, source: &Source, turn: &PushOrder) -> Result<Done> {
    if let Some(damaged) = &source.unwritten {
        return attempt_unwritten(archive, source, damaged).await;
    }
    let copies = look_and_claim(archive, source).await?;
    let Copies {
        readable,
        unreadable,
    } = compare_all(archive, source, copies).await?;
    let same: Vec<bool> = readable.iter().map(|copy| copy.same).collect();
    let mut done = match plan::decide(&source.stored_as, &same) {
        PushDecision::Same(position) => confirm(archive, &readable[position].stored).await?,
        PushDecision::Conflict(position) => {
            let stored: Vec<StoredWal> = readable.into_iter().map(|copy| copy.stored).collect();
            return match abandoned::settle(archive, source, &stored).await? {
                Settled::Conflict => Err(conflict(source, &stored[position].key)),
                Settled::Acknowledged(done) => Ok(done),
                Settled::Keep(left) => keep_as_partial(archive, source, turn, &left).await,
            };
        }
        PushDecision::KeepBeside => return keep_beside(archive, source, turn).await,
        PushDecision::Upload => store(archive, source, turn, &unreadable).await?,
    };
    refuse_disputed(archive, source, &done).await?;
    if done.outcome == PushOutcome::Stored {
        done.beside = unreadable.first().map(|stored| stored.key.clone());
    }
    Ok(done)
}

/// Keeps what the server alone has of a timeline that it has left, as a partial segment.
async fn keep_as_partial(
    archive: &Archive,
    source: &Source,
    turn: &PushOrder,
    left: &Left,
) -> Result<Done> {
    // A partial segment is never in conflict, so this does not come here again.
    let mut done = Box::pin(attempt(archive, &left.partial, turn)).await?;
    if done.outcome == PushOutcome::Stored {
        done.outcome = PushOutcome::KeptBeside;
    }
    left.tell_kept(source, &done);
    Ok(done)
}

/// An attempt of a file that was never written as the segment of its name. It claims no archive and stores nothing.
async fn attempt_unwritten(archive: &Archive, source: &Source, damaged: &OpError) -> Result<Done> {
    if archive.identity().await?.is_some() {
        claim(archive, source, Age::Now).await?;
        let mut copies = Vec::new();
        for stored in archive.find_wal_copies(&source.stored_as).await? {
            // What no restore of ours reads counts as not archived.
            if archive.opens(&stored).await? {
                copies.push(stored);
            }
        }
        if let Some(done) = abandoned::excuse(archive, source, &copies).await? {
            return Ok(done);
        }
    }
    Err(damaged.duplicate())
}

/// What there is of the name, in the archive that is this cluster's. One listing shows both where it can begin at the
/// name; elsewhere both are asked for at the same time.
async fn look_and_claim(archive: &Archive, source: &Source) -> Result<Vec<StoredWal>> {
    let look = archive.find_wal_copies_lately(&source.stored_as);
    if archive.looks_from_any_key() {
        let copies = look.await?;
        claim(archive, source, Age::Lately).await?;
        return Ok(copies);
    }
    let (_, copies) = tokio::try_join!(claim(archive, source, Age::Lately), look)?;
    Ok(copies)
}

/// Looks once more, now that the object exists: whether the archive is still there and this cluster's, and whether somebody
/// stored other bytes under another codec. Creating is atomic for one key only: a clone that compresses otherwise and was
/// as quick has another key. Of two writers at least one sees the other's object here, so two contents of one name are
/// never both acknowledged. Where reading shows what was written before, the identity tells whether there can be
/// such a writer at all.
async fn refuse_disputed(archive: &Archive, source: &Source, done: &Done) -> Result<()> {
    if matches!(source.stored_as, ArchiveFileName::Partial(_)) {
        return Ok(());
    }
    if archive.store().looking() != Looking::ByName
        && let Some(identity) = claim(archive, source, Age::Now).await?
        && !archive.has_other_codecs(&identity, done.codec).await?
    {
        return Ok(());
    }
    let mut others = archive.list_wal_copies(&source.stored_as).await?;
    others.retain(|stored| stored.key != done.key);
    let others = compare_all(archive, source, others).await?.readable;
    match others.iter().find(|copy| !copy.same) {
        Some(other) => Err(conflict(source, &other.stored.key)),
        None => Ok(()),
    }
}

/// Makes sure that the archive is this cluster's before anything is written.
async fn claim(archive: &Archive, source: &Source, age: Age) -> Result<Option<ArchiveIdentity>> {
    if let Some(cluster) = &source.cluster {
        let identity = archive.ensure(cluster, &source.begin(), age).await?;
        return Ok(Some(identity));
    }
    if archive.identity().await?.is_none() {
        return Err(OpError::new(Kind::Configuration, format!("cannot tell which cluster {} comes from", source.name))
            .detail("The archive is not bound to a cluster yet, and neither pg_control nor a segment can be read.")
            .hint("let PGDATA name the data directory, or archive a WAL segment first"));
    }
    archive.ensure_there(age).await
}

/// The objects under a name.
struct Copies {
    /// Those that this version can read.
    readable: Vec<Copy>,
    /// Those of another tool that it cannot, because a key is missing. They count for nothing: no restore of ours reads
    /// them. One that may be our own is none of them: where it cannot be compared, the push is refused.
    unreadable: Vec<StoredWal>,
}

struct Copy {
    stored: StoredWal,
    /// Whether it holds the file's bytes.
    same: bool,
}

async fn compare_all(archive: &Archive, source: &Source, copies: Vec<StoredWal>) -> Result<Copies> {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for stored in copies {
        match same_content(archive, source, &stored).await {
            Ok(same) => readable.push(Copy { stored, same }),
            // Perhaps our own: it counts, though nobody here can say what it holds.
            Err(error) if archive.may_be_ours_locked(&error) => return Err(error),
            Err(error) if error.kind == Kind::Configuration => unreadable.push(stored),
            Err(error) => return Err(error),
        }
    }
    Ok(Copies {
        readable,
        unreadable,
    })
}

/// Uploads under the plain name, with the first codec whose key is not taken by an `unreadable` object. Somebody else
/// may be faster; then the bytes decide, as if they had been there.
async fn store(
    archive: &Archive,
    source: &Source,
    turn: &PushOrder,
    unreadable: &[StoredWal],
) -> Result<Done> {
    let is_taken = |codec: &Codec| unreadable.iter().any(|stored| stored.codec == *codec);
    let mut codecs = [archive.codec()].into_iter().chain(Codec::ALL_WRITABLE);
    let Some(codec) = codecs.find(|codec| !is_taken(codec)) else {
        return Err(conflict(source, &unreadable[0].key));
    };
    archive.note_codec(codec).await?;
    let key = Archive::key(&layout::wal(&source.stored_as, codec))?;
    match upload(archive, source, &key, codec, Looked::SawNothing, turn).await? {
        Uploaded::Created { bytes_stored } => Ok(Done {
            outcome: PushOutcome::Stored,
            key,
            codec,
            bytes_stored,
            beside: None,
        }),
        Uploaded::Exists => {
            let stored = stat(archive, source, key, codec).await?;
            let same = same_content(archive, source, &stored).await?;
            match plan::decide(&source.stored_as, &[same]) {
                PushDecision::Same(_) => Ok(Done::already(&stored)),
                PushDecision::KeepBeside => keep_beside(archive, source, turn).await,
                PushDecision::Conflict(_) | PushDecision::Upload => {
                    Err(conflict(source, &stored.key))
                }
            }
        }
    }
}

/// Stores a partial segment under its digest.
async fn keep_beside(archive: &Archive, source: &Source, turn: &PushOrder) -> Result<Done> {
    archive.note_codec(archive.codec()).await?;
    let local = source.clone();
    let digest = blocking(move || digest(&local)).await??;
    let key = Archive::key(&layout::wal_conflicting_partial(
        &source.stored_as,
        &digest,
        archive.codec(),
    ))?;
    match upload(archive, source, &key, archive.codec(), Looked::No, turn).await? {
        Uploaded::Created { bytes_stored } => {
            tracing::warn!(name = %source.stored_as, %key, "another partial segment has this name; kept beside it");
            Ok(Done {
                outcome: PushOutcome::KeptBeside,
                key,
                codec: archive.codec(),
                bytes_stored,
                beside: None,
            })
        }
        // The key holds a part of the digest only, so the bytes have the last word here, too.
        Uploaded::Exists => {
            let stored = stat(archive, source, key, archive.codec()).await?;
            if same_content(archive, source, &stored).await? {
                Ok(Done::already(&stored))
            } else {
                Err(conflict(source, &stored.key))
            }
        }
    }
}

/// The object that the store said exists.
async fn stat(
    archive: &Archive,
    source: &Source,
    key: ObjectKey,
    codec: Codec,
) -> Result<StoredWal> {
    let meta = archive
        .store()
        .head(&key)
        .await
        .map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
    let Some(meta) = meta else {
        return Err(gone(&key));
    };
    Ok(StoredWal {
        name: source.stored_as,
        key,
        codec,
        size: meta.size,
        modified: meta.modified,
    })
}

fn conflict(source: &Source, key: &ObjectKey) -> OpError {
    let error = OpError::new(
        Kind::ArchiveConflict,
        format!(
            "{} is in the archive already, with other content",
            source.stored_as
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
