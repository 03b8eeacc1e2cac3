//! The partitions of a backup, made in parallel on blocking threads, each put while it is being made.
//!
//! ```text
//! blocking thread: read → check pages → crc → tar → codec → ChunkWriter ┐
//! runtime task:                            store.put_if_absent ← chunks ┘   owned and joined by that thread
//! ```
//!
//! A partition whose put fails because the store is out of reach is made again from the files as they are then: that
//! is as good a copy, because replay starts at the backup's start.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use wale_format::tar::{Meta, TarWriter};
use wale_format::{BackupName, CodecSettings, encoder, layout};
use wale_pipeline::{CHUNK_BYTES, CancellationToken, ChunkWriter, Progress};
use wale_storage::{Body, BodyError};

use super::files::{
    FileReader, FillError, PageVerification, PartitionContents, READ_BYTES, SourceFile,
};
use super::options::DamagedPagePolicy;
use super::progress_share::ProgressShare;
use super::throttle::Throttle;
use super::uploads::{Attempt, Uploads};
use crate::error::{Kind, OpError, Result};

/// Chunks between the codec and the store.
const CHANNEL_CHUNKS: usize = 4;

/// Memory of one worker: the read buffer, a codec at its default settings, the chunk being gathered, the chunks in
/// the channel and the one at the store: 1 + 2 + (1 + 4 + 1) = 9 MiB.
pub(super) const WORKER_BYTES: u64 =
    (READ_BYTES + (2 << 20) + (1 + CHANNEL_CHUNKS + 1) * CHUNK_BYTES) as u64;

/// Attempts for one partition, and the pause before the second; it doubles each time: 2, 4, 8, 16 s.
const ATTEMPTS_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest part of a pause after which cancellation is checked.
const NAP: Duration = Duration::from_millis(100);

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
    pub(super) codec: CodecSettings,
    pub(super) directories: Vec<SourceDirectory>,
    pub(super) files: Vec<SourceFile>,
    pub(super) verify: Option<PageVerification>,
    pub(super) policy: DamagedPagePolicy,
    pub(super) throttle: Throttle,
    pub(super) progress: Progress,
    pub(super) uploads: Arc<Uploads>,
    pub(super) runtime: Handle,
}

/// One partition to make.
#[derive(Debug, Clone)]
pub(super) struct PartitionJob {
    /// Its number.
    pub(super) number: u32,
    /// Indexes into the job's files; `None` is the partition of the directories.
    pub(super) files: Option<Vec<usize>>,
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
}

/// Makes and stores one partition. Runs on a blocking thread.
pub(super) fn make_partition(
    job: &CopyJob,
    part: &PartitionJob,
    cancel: &CancellationToken,
) -> Result<StoredPartition> {
    let mut reader = FileReader::new(
        job.verify.clone(),
        job.policy,
        &job.throttle,
        cancel,
        ProgressShare::new(&job.progress),
    );
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS_MAX {
        let kind = if attempt == 1 {
            Attempt::First
        } else {
            Attempt::Again
        };
        match attempt_partition(job, part, &mut reader, kind) {
            Err(error) if error.kind == Kind::StorageUnavailable && attempt < ATTEMPTS_MAX => {
                tracing::warn!(partition = part.number, attempt, error = %error.chain(), "partition is made again");
                sleep_unless_cancelled(pause, cancel)?;
                pause *= 2;
                reader.begin_again();
            }
            other => return other,
        }
    }
    unreachable!("the last attempt returns whatever it had")
}

fn sleep_unless_cancelled(pause: Duration, cancel: &CancellationToken) -> Result<()> {
    let mut left = pause;
    while !left.is_zero() {
        if cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        let nap = left.min(NAP);
        std::thread::sleep(nap);
        left -= nap;
    }
    Ok(())
}

fn attempt_partition(
    job: &CopyJob,
    part: &PartitionJob,
    reader: &mut FileReader<'_>,
    attempt: Attempt,
) -> Result<StoredPartition> {
    let key = layout::partition(&job.name, part.number, job.codec.codec);
    let (sender, receiver) = wale_pipeline::channel(CHANNEL_CHUNKS);
    // Fused: a store may look at the body once more after its end.
    let chunks = receiver.into_stream().fuse();
    let body: Body = chunks
        .map(|chunk| chunk.map_err(|error| BodyError::new(error.to_string())))
        .boxed();
    let uploads = Arc::clone(&job.uploads);
    let put = job
        .runtime
        .spawn(async move { uploads.put(&key, body, attempt).await });

    // A fill that fails drops the writer unfinished: the put then sees an aborted body, and nothing appears.
    let filled = fill(job, part, reader, ChunkWriter::new(sender, CHUNK_BYTES));
    let put = job.runtime.block_on(put).map_err(|error| {
        OpError::internal(format!("the upload of partition {} panicked", part.number)).source(error)
    })?;
    match (filled, put) {
        (Ok((contents, bytes_plain)), Ok(bytes_stored)) => Ok(StoredPartition {
            number: part.number,
            contents,
            bytes_plain,
            bytes_stored,
        }),
        (Err(FillError::Source(error)), _) | (_, Err(error)) => Err(error),
        (Err(FillError::Sink(error)), Ok(_)) => {
            Err(OpError::internal(format!("partition {} was cut short", part.number)).source(error))
        }
    }
}

fn fill(
    job: &CopyJob,
    part: &PartitionJob,
    reader: &mut FileReader<'_>,
    sink: ChunkWriter,
) -> std::result::Result<(PartitionContents, u64), FillError> {
    let mut tar = TarWriter::new(CountingWriter::new(open_encoder(job.codec, sink)?));
    let mut contents = PartitionContents::default();
    match &part.files {
        None => {
            for directory in &job.directories {
                tar.directory(&directory.relative, &directory.meta)?;
                contents.members += 1;
            }
        }
        Some(files) => {
            for &index in files {
                reader.copy(&job.files[index], &mut tar, &mut contents)?;
            }
        }
    }
    let counting = tar.finish()?;
    let bytes_plain = counting.count;
    counting.inner.finish()?.finish()?;
    Ok((contents, bytes_plain))
}

fn open_encoder<W: Write + Send + 'static>(
    settings: CodecSettings,
    sink: W,
) -> io::Result<wale_format::Encoder<W>> {
    encoder(settings, sink).map_err(io::Error::from)
}

/// Counts what passes.
struct CountingWriter<W> {
    inner: W,
    count: u64,
}

impl<W> CountingWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner, count: 0 }
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A small partition made in memory from files whose content is at hand: the last one.
pub(super) fn small_partition(
    codec: CodecSettings,
    files: &[(&str, &[u8], Meta)],
) -> Result<(Vec<u8>, u64)> {
    let make = || -> io::Result<(Vec<u8>, u64)> {
        let mut tar = TarWriter::new(CountingWriter::new(open_encoder(codec, Vec::new())?));
        for (path, content, meta) in files {
            tar.file_header(path, content.len() as u64, meta)?;
            tar.write_all(content)?;
            tar.pad()?;
        }
        let counting = tar.finish()?;
        let count = counting.count;
        Ok((counting.inner.finish()?, count))
    };
    make().map_err(|error| {
        OpError::internal("could not make the last partition in memory").source(error)
    })
}
