//! The partitions of a backup, made in parallel on blocking threads, each put while it is being made.
//!
//! ```text
//! blocking thread: read → check pages → crc → tar → seal → ChunkWriter ┐
//! runtime task:                            store.put_if_absent ← chunks ┘   owned and joined by that thread
//! ```
//!
//! A worker has a lane until its partition is made and the store has taken the last chunk of it. The end of the put, which is
//! nothing but round trips and the store's own work, goes on beside the next partition, which has the lane by then.
//!
//! A partition whose put fails because the store is out of reach is made again from the files as they are then: that
//! is as good a copy, because replay starts at the backup's start.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wale_archive::{Archive, Sealed};
use wale_format::tar::{MemberNames, Meta, TarWriter};
use wale_format::{BackupName, Codec, FrameStart, SealWriter, layout};
use wale_pipeline::{CHUNK_BYTES, CancellationToken, ChunkWriter, Progress};
use wale_storage::Body;

use super::files::{
    FileReader, FillError, PageVerification, PartitionContents, READ_BYTES, SourcePlaces,
};
use super::options::DamagedPagePolicy;
use super::packed::PackedSources;
use super::progress_share::ProgressShare;
use super::throttle::Throttle;
use super::uploads::{Attempt, Uploads};
use crate::error::{OpError, Result};
use crate::retry::RetryBudget;

/// Buffers from which on a lane has a second thread, in bytes: what `WALE_MEMORY=64MiB` leaves for them.
const SECOND_THREAD_FROM: u64 = 32 << 20;

/// Threads for each lane: one makes a partition while the store ends another. That one holds parts of an upload, which the store counts, and
/// some 5 MiB that nobody does; so where memory is short there is none.
pub(super) fn threads_per_lane(archive: &Archive) -> usize {
    if archive.budget().total() < SECOND_THREAD_FROM {
        1
    } else {
        2
    }
}

/// Memory of one lane in bytes: the read buffer and what seals and sends, at zstd's default level
/// 0.1 + (2 + 2 + 2) + (1 + 4 + 1) = 12.1 MiB.
pub(super) fn worker_bytes(archive: &Archive) -> u64 {
    READ_BYTES as u64 + archive.partition_writer_bytes(CHUNK_BYTES)
}

/// A directory of the cluster, as a tar member.
#[derive(Debug, Clone)]
pub(super) struct SourceDirectory {
    /// Path relative to the data directory; empty is the data directory itself.
    pub(super) relative: String,
    /// Mode, owner and time.
    pub(super) meta: Meta,
}

/// What the workers of one backup share.
pub(super) struct CopyJob {
    pub(super) name: BackupName,
    pub(super) archive: Archive,
    pub(super) directories: Vec<SourceDirectory>,
    pub(super) places: SourcePlaces,
    pub(super) verify: Option<PageVerification>,
    pub(super) policy: DamagedPagePolicy,
    pub(super) throttle: Throttle,
    pub(super) progress: Progress,
    pub(super) uploads: Arc<Uploads>,
    pub(super) runtime: Handle,
    /// So many partitions are made at a time.
    pub(super) lanes: Arc<Semaphore>,
}

/// The right to make a partition, shared by the thread that makes it and the body that the store takes: it ends with both.
type Lane = Arc<OwnedSemaphorePermit>;

/// One partition to make.
#[derive(Debug, Clone)]
pub(super) struct PartitionJob {
    /// Its number.
    pub(super) number: u32,
    /// Its files; `None` is the partition of the directories.
    pub(super) files: Option<PackedSources>,
}

/// A partition that is stored.
#[derive(Debug, Default)]
pub(super) struct StoredPartition {
    pub(super) number: u32,
    pub(super) contents: PartitionContents,
    /// Bytes of the tar.
    pub(super) bytes_plain: u64,
    /// Bytes of the object.
    pub(super) bytes_stored: u64,
    /// Where its frames begin, before encryption; empty where it has none that can be read one by one.
    pub(super) frames: Vec<FrameStart>,
}

/// What members are called: as WAL-G calls them, but under WAL-E's own codec, where the real WAL-E reads them.
pub(super) const fn member_names(codec: Codec) -> MemberNames {
    match codec {
        Codec::Lzo => MemberNames::Relative,
        _ => MemberNames::Rooted,
    }
}

/// Makes and stores one partition. Runs on a blocking thread.
pub(super) fn make_partition(
    job: &CopyJob,
    part: &PartitionJob,
    cancel: &CancellationToken,
) -> Result<StoredPartition> {
    let mut reader = FileReader::new(
        &job.places,
        job.verify.clone(),
        job.policy,
        &job.throttle,
        cancel,
        ProgressShare::new(&job.progress),
        job.archive.clock(),
    );
    let (mut attempts, mut attempt) = (RetryBudget::OBJECT.begin(), Attempt::First);
    loop {
        let lane = job.runtime.block_on(lane(job, cancel))?;
        let error = match attempt_partition(job, part, &mut reader, (attempt, lane)) {
            Ok(stored) => return Ok(stored),
            Err(error) => error,
        };
        let again = attempts.after(error)?;
        tracing::warn!(
            partition = part.number, attempt = again.failed, error = %again.error.chain(), "partition is made again"
        );
        job.runtime.block_on(again.wait_unless(cancel))?;
        attempt = Attempt::Again;
        reader.begin_again();
    }
}

/// Waits for a lane.
async fn lane(job: &CopyJob, cancel: &CancellationToken) -> Result<Lane> {
    let free = Arc::clone(&job.lanes).acquire_owned();
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(OpError::cancelled()),
        lane = free => Ok(Arc::new(lane.expect("the lanes are never closed"))),
    }
}

/// The same body, which holds the lane until all of it was taken.
fn on_lane(body: Body, lane: Lane) -> Body {
    let body = stream::unfold((body, lane), |(mut body, lane)| async {
        let chunk = body.next().await?;
        Some((chunk, (body, lane)))
    });
    body.fuse().boxed()
}

fn attempt_partition(
    job: &CopyJob,
    part: &PartitionJob,
    reader: &mut FileReader<'_>,
    (attempt, lane): (Attempt, Lane),
) -> Result<StoredPartition> {
    let codec = job.archive.codec();
    let key = layout::partition(&job.name, part.number, codec);
    let archive = job.archive.for_one(Sealed::Partition);
    let (writer, body) = archive.partition_body(codec, CHUNK_BYTES)?;
    let (uploads, body) = (Arc::clone(&job.uploads), on_lane(body, Arc::clone(&lane)));
    let put = job
        .runtime
        .spawn(async move { uploads.put(&key, body, attempt).await });

    // A fill that fails drops the writer unfinished: the put then sees an aborted body, and nothing appears.
    let filled = fill(job, part, reader, writer);
    reader.let_go();
    drop(lane);
    let put = job.runtime.block_on(put).map_err(|error| {
        OpError::internal(format!("the upload of partition {} panicked", part.number)).source(error)
    })?;
    match (filled, put) {
        (Ok(filled), Ok(bytes_stored)) => {
            archive.was_stored(filled.bytes_plain);
            Ok(StoredPartition {
                number: part.number,
                contents: filled.contents,
                bytes_plain: filled.bytes_plain,
                bytes_stored,
                frames: filled.frames,
            })
        }
        (Err(FillError::Source(error)), _) | (_, Err(error)) => Err(error),
        (Err(FillError::Sink(error)), Ok(_)) => {
            Err(OpError::internal(format!("partition {} was cut short", part.number)).source(error))
        }
    }
}

/// What a tar was made of.
struct Filled {
    contents: PartitionContents,
    bytes_plain: u64,
    frames: Vec<FrameStart>,
}

fn fill(
    job: &CopyJob,
    part: &PartitionJob,
    reader: &mut FileReader<'_>,
    sink: SealWriter<ChunkWriter>,
) -> std::result::Result<Filled, FillError> {
    let mut tar = TarWriter::with_names(sink, member_names(job.archive.codec()));
    let mut contents = PartitionContents::default();
    match &part.files {
        None => {
            for directory in &job.directories {
                tar.directory(&directory.relative, &directory.meta)?;
                contents.members += 1;
            }
        }
        Some(files) => {
            for file in files.iter() {
                reader.copy(&file, &mut tar, &mut contents)?;
            }
            contents.files = contents.files.fitted();
        }
    }
    let bytes_plain = tar.whole_bytes();
    let (chunks, frames) = tar.finish()?.finish_frames()?;
    chunks.finish()?;
    Ok(Filled {
        contents,
        bytes_plain,
        frames,
    })
}

/// A small partition made in memory from files whose content is at hand: the last one. Returns the sealed bytes, and how
/// many there were before.
pub(super) fn small_partition(
    archive: &Archive,
    files: &[(&str, &[u8], Meta)],
) -> Result<(Bytes, u64)> {
    let make = || -> io::Result<Vec<u8>> {
        let mut tar = TarWriter::with_names(Vec::new(), member_names(archive.codec()));
        for (path, content, meta) in files {
            tar.file_header(path, content.len() as u64, meta)?;
            tar.write_all(content)?;
            tar.pad()?;
        }
        tar.finish()
    };
    let tar = make().map_err(|error| {
        OpError::internal("could not make the last partition in memory").source(error)
    })?;
    Ok((archive.seal_small_partition(&tar)?, tar.len() as u64))
}

#[cfg(test)]
mod tests {
    use wale_storage::BodyError;

    use super::*;

    #[tokio::test]
    async fn a_lane_is_free_when_the_store_has_all_chunks_and_not_only_when_it_has_put_them() {
        for last in [Ok(Bytes::from_static(b"last")), Err(BodyError::new("no"))] {
            let lanes = Arc::new(Semaphore::new(1));
            let lane: Lane = Arc::new(Arc::clone(&lanes).try_acquire_owned().expect("free"));
            let is_good = last.is_ok();
            let chunks = [Ok(Bytes::from_static(b"first")), last];
            let mut body = on_lane(stream::iter(chunks).boxed(), Arc::clone(&lane));
            body.next().await.expect("a chunk").expect("good");
            // The partition is made, and a chunk of it waits still.
            drop(lane);
            assert_eq!(lanes.available_permits(), 0);
            let last = body.next().await.expect("a chunk");
            assert_eq!((last.is_ok(), lanes.available_permits()), (is_good, 0));
            assert!(body.next().await.is_none());
            assert_eq!(lanes.available_permits(), 1, "while the body is there");
            assert!(body.next().await.is_none());
        }
    }
}
