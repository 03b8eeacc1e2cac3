//! Reading stored objects: small ones whole, sealed ones through their seal on a blocking thread.
//!
//! Its whole worth is to distinguish three things that all look like an I/O error to a decoder: the store stopped
//! answering (try again), the stored bytes are damaged (never deliver them), and the reader gave up by itself.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Handle;
use wale_format::codec::Content;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{Codec, Encryption, Locked, Seal, SealReader, ShownEncryption};
use wale_pg::ArchiveFileName;
use wale_pipeline::{MemoryBudget, StreamReader, blocking};
use wale_storage::{ObjectKey, ObjectStream, StoreError};

use crate::Archive;
use crate::error::{Kind, OpError, Result};
use crate::remedy::Remedy;

/// Bytes of a stored object that wait between the store and a decoder, for each open object: 2 MiB, whatever the store's chunks
/// are. Those of HTTP have some KiB to 400 KiB, and a few of them would be decoded before the next can come.
const AHEAD_BYTES: usize = 2 << 20;

/// Small objects (identity, marks, notes) are refused above this. They have some hundred bytes; 64 KiB of JSON cost some
/// 3 MiB of memory where every value is kept.
pub(crate) const SMALL_OBJECT_MAX: u64 = 64 << 10;

/// The window of a zstd frame for WAL, which the callers' budgets do not count: what the highest level asks for, for a
/// segment of 16 MiB. A write of ours has 0.5 MiB, of WAL-G's 8.
const WAL_WINDOW_MAX: u64 = 16 << 20;

/// The window of a partition that each worker's budget counts. A larger one takes the rest from the budget.
const PARTITION_WINDOW: u64 = 8 << 20;

impl Archive {
    /// The whole of a small object, or `None` when the store says that it does not exist.
    ///
    /// # Errors
    /// The store's failures; more than 64 KiB count as one.
    pub async fn read_small(&self, key: &ObjectKey) -> Result<Option<Bytes>> {
        self.read_up_to(key, SMALL_OBJECT_MAX).await
    }

    /// The whole of an object of at most `bytes_max`, or `None` when the store says that it does not exist.
    ///
    /// # Errors
    /// The store's failures; more than `bytes_max` count as one.
    pub async fn read_up_to(&self, key: &ObjectKey, bytes_max: u64) -> Result<Option<Bytes>> {
        match wale_storage::read_all(self.store(), key, bytes_max).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(OpError::from_store(error, format_args!("read {key}"))),
        }
    }

    /// Lets `consume` read a stored object as it is on a blocking thread, once it knows its size. `None` when the store says
    /// that it does not exist.
    ///
    /// # Errors
    /// Those of [`Archive::decode`].
    pub(crate) async fn read_stream<T, F>(&self, key: &ObjectKey, consume: F) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: FnOnce(u64, StreamReader) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = match self.store().get(key).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(OpError::from_store(error, format_args!("read {key}"))),
        };
        let size = object.meta.size;
        let source = StreamReader::new(object.body, AHEAD_BYTES, &Handle::current());
        let named = key.clone();
        let work = move || consume(size, source).map_err(|error| explained(&named, error));
        on_thread(key, work).await.map(Some)
    }

    /// Lets `consume` read a stored object as it is, sealed, on a blocking thread.
    ///
    /// # Errors
    /// Those of [`Archive::decode`].
    pub(crate) async fn read_stored<T, F>(&self, key: &ObjectKey, consume: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(StreamReader) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = self.open_stored(key, Codec::None).await?;
        let work = move || consume(object.source).map_err(|e| explained(&object.key, e));
        on_thread(key, work).await
    }

    /// As [`Archive::read_stream`], of a text whose name shows no codec, and which is encrypted where the archive is. The size
    /// is the stored one, which the plain text does not exceed.
    ///
    /// # Errors
    /// Those of [`Archive::decode`].
    pub async fn read_sealed_text<T, F>(&self, key: &ObjectKey, consume: F) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: FnOnce(u64, &mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = match self.store().get(key).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(OpError::from_store(error, format_args!("read {key}"))),
        };
        let size = object.meta.size;
        let object = self.sealed(key, Codec::None, object.body);
        let work = move || object.read(|plain| consume(size, plain));
        on_thread(key, work).await.map(Some)
    }

    /// The plain content of a small object that was read already.
    ///
    /// # Errors
    /// Those of [`Archive::decode`], but for the store's.
    #[expect(
        clippy::disallowed_methods,
        reason = "the archive opens its objects here"
    )]
    pub(crate) fn open_small(
        &self,
        key: &ObjectKey,
        codec: Codec,
        sealed: &Bytes,
    ) -> Result<Vec<u8>> {
        let open = || -> io::Result<Vec<u8>> {
            let reader = self
                .seal_of(codec)
                .reader(io::Cursor::new(sealed.clone()))?;
            let mut plain = Vec::new();
            let mut content = recognised(reader, content_of(key))?.plain(WAL_WINDOW_MAX)?;
            content.read_to_end(&mut plain)?;
            Ok(plain)
        };
        open().map_err(|error| read_failed(key, error))
    }

    /// Opens `key` and lets `consume` read the plain bytes of WAL or of a history on a blocking thread.
    ///
    /// # Errors
    /// Errors of the store keep their kind. Everything else that goes wrong while reading is damage of the object. An
    /// [`OpError`] of `consume` itself is returned as it is.
    pub async fn decode<T, F>(&self, key: &ObjectKey, codec: Codec, consume: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = self.open_stored(key, codec).await?;
        on_thread(key, move || object.read(consume)).await
    }

    /// As [`Archive::decode`], of a partition, which may have been compressed with a large window, and in several frames. What exceeds
    /// the share of a worker is taken from the memory budget while it is read, of which the caller holds `held` bytes.
    ///
    /// # Errors
    /// Those of [`Archive::decode`]; [`Kind::Configuration`] when the budget has no room for its window.
    pub async fn decode_partition<T, F>(
        &self,
        key: &ObjectKey,
        (codec, frames): (Codec, Frames),
        held: u64,
        consume: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = self.open_stored(key, codec).await?;
        let (budget, runtime) = (self.budget().clone(), Handle::current());
        let work = move || object.read_partition(frames, (&budget, held), &runtime, consume);
        on_thread(key, work).await
    }

    /// Lets `consume` read the plain bytes of frames that follow each other in a partition of zstd in the clear: those that lie in
    /// `stored`, of which the caller knows where they begin and end.
    ///
    /// # Errors
    /// As [`Archive::decode_partition`].
    pub async fn decode_frames<T, F>(
        &self,
        key: &ObjectKey,
        stored: Range<u64>,
        held: u64,
        consume: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let object = self.store().get_range(key, stored).await;
        let object = object.map_err(|e| OpError::from_store(e, format_args!("read {key}")))?;
        let object = self.sealed(key, Codec::Zstd, object.body);
        let (budget, runtime) = (self.budget().clone(), Handle::current());
        let work =
            move || object.read_partition(Frames::Several, (&budget, held), &runtime, consume);
        on_thread(key, work).await
    }

    /// Opens `key`, to be read on a blocking thread.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn open_stored(&self, key: &ObjectKey, codec: Codec) -> Result<SealedObject> {
        let object = self
            .store()
            .get(key)
            .await
            .map_err(|e| OpError::from_store(e, format_args!("read {key}")))?;
        Ok(self.sealed(key, codec, object.body))
    }

    fn sealed(&self, key: &ObjectKey, codec: Codec, body: ObjectStream) -> SealedObject {
        SealedObject {
            key: key.clone(),
            seal: self.seal_of(codec),
            source: StreamReader::new(body, AHEAD_BYTES, &Handle::current()),
        }
    }
}

/// How many compressed frames a partition may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// One, whose end shows that nothing is missing: other tools' partitions may have no end marks.
    One,
    /// Several. The end marks of the tar show that nothing is missing, and the size in the record, too.
    Several,
}

/// A stored object whose bytes are on their way, still sealed. All of its methods block.
#[derive(Debug)]
pub struct SealedObject {
    key: ObjectKey,
    seal: Seal,
    source: StreamReader,
}

impl SealedObject {
    /// Lets `consume` read the plain bytes of WAL or of a history.
    ///
    /// # Errors
    /// Those of [`Archive::decode`].
    pub fn read<T>(
        self,
        consume: impl FnOnce(&mut dyn Read) -> Result<T, ConsumeError>,
    ) -> Result<T> {
        let key = self.key.clone();
        let work = || consume(&mut self.recognised()?.plain(WAL_WINDOW_MAX)?);
        work().map_err(|error| explained(&key, error))
    }

    /// Lets `consume` read the plain bytes of a partition; as [`Archive::decode_partition`].
    fn read_partition<T>(
        self,
        frames: Frames,
        (budget, held): (&MemoryBudget, u64),
        runtime: &Handle,
        consume: impl FnOnce(&mut dyn Read) -> Result<T, ConsumeError>,
    ) -> Result<T> {
        let key = self.key.clone();
        let work = || {
            let object = self.recognised()?;
            let window = object.window_bytes();
            let more = window.saturating_sub(PARTITION_WINDOW);
            if more > budget.total().saturating_sub(held) {
                return Err(window_too_large(&key, window, held).into());
            }
            let _memory = (more > 0).then(|| budget.blocking_acquire(more, runtime));
            let window = window.max(PARTITION_WINDOW);
            let mut plain = match frames {
                Frames::One => object.plain(window)?,
                Frames::Several => object.partition(window)?,
            };
            consume(&mut plain)
        };
        work().map_err(|error| explained(&key, error))
    }

    /// How it is encrypted, and why it cannot be read, if so; errors as [`Archive::decode`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the archive opens its objects here"
    )]
    pub(crate) fn look(self) -> Result<(Encryption, Option<Locked>)> {
        let read = self.seal.reader(self.source);
        let reader = read.map_err(|error| read_failed(&self.key, error))?;
        Ok((reader.encryption(), reader.locked(content_of(&self.key))))
    }

    /// How it is encrypted, and with which keys; nothing where it is in the clear. Errors as [`Archive::decode`].
    pub(crate) fn shown(self) -> Result<Option<ShownEncryption>> {
        let shown = self.seal.shown(self.source, content_of(&self.key));
        shown.map_err(|error| read_failed(&self.key, error))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the archive opens its objects here"
    )]
    fn recognised(self) -> io::Result<SealReader> {
        recognised(self.seal.reader(self.source)?, content_of(&self.key))
    }
}

/// Refuses what no key opens, and what may be a good object of another tool's, encrypted, in the place of plain bytes. In the
/// place of a compressed stream its decoder does.
fn recognised(reader: SealReader, content: Content) -> io::Result<SealReader> {
    let Some(locked) = reader.locked(content) else {
        return Ok(reader);
    };
    if locked.method.is_some() {
        return Err(locked.into());
    }
    if reader.codec() != Codec::None {
        return Ok(reader);
    }
    let what = match content {
        Content::Wal => "WAL",
        Content::Text => "text",
        Content::Tar => "a partition",
    };
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "it does not begin as {what} does: it is encrypted, or something else was stored under its name"
        ),
    ))
}

/// What the object of a key holds once its codec is taken off.
fn content_of(key: &ObjectKey) -> Content {
    match layout::parse(key.as_str()) {
        ArchiveKey::Wal { name, .. } => match name {
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_) => Content::Wal,
            ArchiveFileName::TimelineHistory(_) | ArchiveFileName::BackupHistory { .. } => {
                Content::Text
            }
        },
        ArchiveKey::Partition { .. } | ArchiveKey::ForeignPartition { .. } => Content::Tar,
        _ => Content::Text,
    }
}

/// Does the work of a reader on a blocking thread.
async fn on_thread<T: Send + 'static>(
    key: &ObjectKey,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    // What a library gives up on at some bytes is damage like any other, and may come from another archive.
    blocking(work).await.map_err(|e| {
        let message = format!("object {key} cannot be read: its reader gave up on its bytes");
        OpError::new(Kind::CorruptData, message)
            .hint("take the object from a copy of the archive; and report this: no bytes should do it")
            .source(e)
    })?
}

/// What a failure to read says about an object.
fn explained(key: &ObjectKey, error: ConsumeError) -> OpError {
    match error {
        ConsumeError::Refused(error) => error,
        ConsumeError::Read(error) => read_failed(key, error),
    }
}

fn window_too_large(key: &ObjectKey, window: u64, held: u64) -> OpError {
    let wanted = (window.saturating_sub(PARTITION_WINDOW).saturating_add(held)).div_ceil(1 << 20);
    OpError::new(
        Kind::Configuration,
        format!(
            "object {key} needs a window of {} MiB to be decompressed, for which the memory limit has no room",
            window.div_ceil(1 << 20)
        ),
    )
    .hint("raise the memory limit, or let fewer workers restore; zstd writes such objects with --long or --ultra")
    .remedy(Remedy::MemoryOrWorkers { mib: wanted })
}

/// An error of the store passes through a decoder as it is. Of the rest only what a decoder says of bytes is damage;
/// anything else (a forwarder that was stopped, no memory) says nothing about the object.
fn read_failed(key: &ObjectKey, error: io::Error) -> OpError {
    match error.downcast::<StoreError>() {
        Ok(outage) => OpError::from_store(outage, format_args!("read {key}")),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let result = OpError::new(
                Kind::Configuration,
                format!("object {key} cannot be read: {error}"),
            );
            match error.downcast::<Locked>() {
                Ok(locked) => locked_out(result, locked),
                Err(_) => locked_hint(result, None),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => OpError::new(
            Kind::Configuration,
            format!("object {key} cannot be read: {error}"),
        )
        .hint("this is not damage: compress the object anew with a window of 8 MiB at most (zstd -19 without --long)"),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            damaged(key, "it cannot be decoded").source(error)
        }
        Err(error) => {
            OpError::new(Kind::StorageUnavailable, format!("could not read {key}")).source(error)
        }
    }
}

/// The error about an object of which it is certain that no key here opens it.
fn locked_out(error: OpError, locked: Locked) -> OpError {
    locked_hint(error, locked.method).source(locked)
}

/// What to do about an object that is encrypted, or may be.
fn locked_hint(error: OpError, method: Option<Encryption>) -> OpError {
    let hint = match method {
        Some(_) => "give the key that it was encrypted for",
        None => "give the key that it was encrypted with, or use the tool that wrote the archive",
    };
    error.hint(hint).remedy(Remedy::ReadingKey { method })
}

impl OpError {
    /// Why an object could not be read, where it is encrypted and no key here opens it.
    #[must_use]
    pub fn locked(&self) -> Option<Locked> {
        self.source.as_ref()?.downcast_ref().copied()
    }
}

/// Why a consumer of decoded bytes stopped.
#[derive(Debug)]
pub enum ConsumeError {
    /// Reading failed: the store's fault or damage.
    Read(io::Error),
    /// The bytes came, but the consumer will not have them, or could not go on.
    Refused(OpError),
}

impl From<io::Error> for ConsumeError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<OpError> for ConsumeError {
    fn from(error: OpError) -> Self {
        Self::Refused(error)
    }
}

/// The error for stored bytes that are not what they should be.
pub fn damaged(key: &ObjectKey, why: impl std::fmt::Display) -> OpError {
    OpError::new(Kind::CorruptData, format!("object {key} is damaged: {why}"))
        .hint("restore the object from another copy of the archive, or take a new base backup")
}
