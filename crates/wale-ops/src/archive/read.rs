//! Reading stored objects: small ones whole, compressed ones through their codec on a blocking thread.
//!
//! Its whole worth is to tell three things apart that all look like an I/O error to a decoder: the store stopped
//! answering (try again), the stored bytes are damaged (never deliver them), and the reader gave up by itself.

use std::io::{self, BufRead as _, Read};

use bytes::Bytes;
use tokio::runtime::Handle;
use wale_format::Codec;
use wale_pipeline::StreamReader;
use wale_storage::{ObjectKey, StoreError};

use super::Archive;
use crate::error::{Kind, OpError, Result};

/// Chunks of a stored object that wait between the store and a decoder. A store's chunk is at most 1 MiB, so 2 of
/// them make 2 MiB for each open object.
const CHUNKS_AHEAD: usize = 2;

/// Small objects (identity, marks, notes) are refused above this. They have some hundred bytes; 64 KiB of JSON cost some
/// 3 MiB of memory where every value is kept.
const SMALL_OBJECT_MAX: u64 = 64 << 10;

/// The window of a zstd frame for WAL, which the callers' budgets do not count: what the highest level asks for, for a
/// segment of 16 MiB. A write of ours has 0.5 MiB, of WAL-G's 8.
pub(crate) const WAL_WINDOW_MAX: u64 = 16 << 20;

/// The window of a partition that each worker's budget counts. A larger one takes the rest from the budget.
const PARTITION_WINDOW: u64 = 8 << 20;

/// Bytes in which noise is told from text: that 24 random bytes all are printable happens once in 20 thousand million
/// times, (98 / 256)^24.
const NOISE_BYTES: usize = 24;

/// How the streams begin that have a beginning of their own.
const MAGICS: [(Codec, &[u8]); 3] = [
    (Codec::Zstd, &[0x28, 0xB5, 0x2F, 0xFD]),
    (Codec::Lz4, &[0x04, 0x22, 0x4D, 0x18]),
    (Codec::Lzo, &[0x89, 0x4C, 0x5A, 0x4F]),
];

/// Where a tar has its mark.
const TAR_MARK: (usize, &[u8]) = (257, b"ustar");

impl Archive {
    /// The whole of a small object, or `None` when the store says that it does not exist.
    pub(crate) async fn read_small(&self, key: &ObjectKey) -> Result<Option<Bytes>> {
        self.read_up_to(key, SMALL_OBJECT_MAX).await
    }

    /// The whole of an object of at most `bytes_max`, or `None` when the store says that it does not exist.
    pub(crate) async fn read_up_to(
        &self,
        key: &ObjectKey,
        bytes_max: u64,
    ) -> Result<Option<Bytes>> {
        match wale_storage::read_all(self.store(), key, bytes_max).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(OpError::from_store(error, format_args!("read {key}"))),
        }
    }

    /// Opens `key`, decodes it and lets `consume` read the plain bytes on a blocking thread.
    ///
    /// Errors of the store keep their kind; whatever else goes wrong while reading is damage of the object. An
    /// [`OpError`] of `consume` itself is returned as it is.
    pub(crate) async fn decode<T, F>(&self, key: &ObjectKey, codec: Codec, consume: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let source = self.open_stored(key, codec).await?;
        let mut source = source;
        let work = move || {
            refuse_encrypted(codec, source.fill_buf()?)?;
            let mut plain = wale_format::decoder_within(codec, source, WAL_WINDOW_MAX)?;
            consume(&mut plain)
        };
        join(key, work).await
    }

    /// As [`Archive::decode`], of a partition, which may have been compressed with a large window. What exceeds the share
    /// of a worker is taken from the memory budget while it is read, of which the caller holds `held` bytes.
    pub(crate) async fn decode_partition<T, F>(
        &self,
        key: &ObjectKey,
        codec: Codec,
        held: u64,
        consume: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, ConsumeError> + Send + 'static,
    {
        let mut source = self.open_stored(key, codec).await?;
        let (budget, runtime, named) = (self.budget().clone(), Handle::current(), key.clone());
        let work = move || {
            refuse_encrypted(codec, source.fill_buf()?)?;
            let window = wale_format::window_bytes(codec, source.fill_buf()?);
            let more = window.saturating_sub(PARTITION_WINDOW);
            if more > budget.total().saturating_sub(held) {
                return Err(window_too_large(&named, window, held).into());
            }
            let _memory = (more > 0).then(|| budget.blocking_acquire(more, &runtime));
            let window_max = window.max(PARTITION_WINDOW);
            let mut plain = wale_format::decoder_within(codec, source, window_max)?;
            consume(&mut plain)
        };
        join(key, work).await
    }

    /// The stored bytes of `key`, for a decoder on a blocking thread.
    pub(crate) async fn open_stored(&self, key: &ObjectKey, codec: Codec) -> Result<StreamReader> {
        refuse_unreadable(key, codec)?;
        let object = self
            .store()
            .get(key)
            .await
            .map_err(|e| OpError::from_store(e, format_args!("read {key}")))?;
        Ok(StreamReader::new(
            object.body,
            CHUNKS_AHEAD,
            &Handle::current(),
        ))
    }
}

/// Whether what stands in the place of a compressed stream, or of a tar where nothing is compressed, may be an encrypted
/// message, of OpenPGP or of libsodium, whose bytes look like noise. Other tools name the two alike. What begins like a
/// damaged stream, like text or like nothing is none.
pub(super) fn may_be_encrypted(codec: Codec, head: &[u8]) -> bool {
    if MAGICS.iter().any(|(_, magic)| head.starts_with(magic)) {
        return false;
    }
    let magic: &[u8] = match codec {
        // Of a tar: its first member's header has this mark.
        Codec::None => {
            let mark = head.get(TAR_MARK.0..);
            if mark.is_none_or(|rest| rest.starts_with(TAR_MARK.1)) {
                return false;
            }
            b""
        }
        _ => match MAGICS.iter().find(|(known, _)| *known == codec) {
            Some((_, magic)) => magic,
            None => return false,
        },
    };
    let Some(noise) = head.get(..NOISE_BYTES) else {
        return false;
    };
    let alike = magic.iter().zip(noise).filter(|(one, other)| one == other);
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let is_constant = noise.iter().all(|byte| *byte == noise[0]);
    alike.count() < 2 && !is_constant && !noise.iter().all(is_text)
}

fn no_stream(codec: Codec) -> io::Error {
    let message = format!(
        "it does not begin as {codec} does: it is encrypted, or something else was stored under its name"
    );
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// Refuses what is no stream of the codec, and may be a good object of another tool's all the same.
fn refuse_encrypted(codec: Codec, head: &[u8]) -> Result<(), ConsumeError> {
    if codec == Codec::None || !may_be_encrypted(codec, head) {
        return Ok(());
    }
    Err(ConsumeError::Read(no_stream(codec)))
}

/// Does the work of a reader on a blocking thread and explains its failure.
async fn join<T: Send + 'static>(
    key: &ObjectKey,
    work: impl FnOnce() -> Result<T, ConsumeError> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| OpError::internal(format!("the reader of {key} panicked")).source(e))?;
    match result {
        Ok(value) => Ok(value),
        Err(ConsumeError::Refused(error)) => Err(error),
        Err(ConsumeError::Read(error)) => Err(read_failed(key, error)),
    }
}

fn window_too_large(key: &ObjectKey, window: u64, held: u64) -> OpError {
    let wanted = (window.saturating_sub(PARTITION_WINDOW).saturating_add(held)).div_ceil(1 << 20);
    OpError::new(
        Kind::Configuration,
        format!(
            "object {key} needs a window of {} MiB to be decompressed, for which WALE_MEMORY has no room",
            window.div_ceil(1 << 20)
        ),
    )
    .hint(format!(
        "set WALE_MEMORY to {wanted}MiB or more, or WALE_RESTORE_WORKERS to less; zstd writes such objects with --long \
         or --ultra"
    ))
}

/// An error of the store passes through a decoder as it is. Of the rest only what a decoder says of bytes is damage;
/// anything else (a forwarder that was stopped, no memory) tells nothing about the object.
pub(crate) fn read_failed(key: &ObjectKey, error: io::Error) -> OpError {
    match error.downcast::<StoreError>() {
        Ok(outage) => OpError::from_store(outage, format_args!("read {key}")),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => OpError::new(
            Kind::Configuration,
            format!("object {key} cannot be read: {error}"),
        )
        .hint("use a version of wale that reads it, or the tool that wrote the archive"),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => OpError::new(
            Kind::Configuration,
            format!("object {key} cannot be read: {error}"),
        )
        .hint("it is no damage: compress the object anew with a window of 8 MiB at most (zstd -19 without --long)"),
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

/// Why a consumer of decoded bytes stopped.
#[derive(Debug)]
pub(crate) enum ConsumeError {
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
pub(crate) fn damaged(key: &ObjectKey, why: impl std::fmt::Display) -> OpError {
    OpError::new(Kind::CorruptData, format!("object {key} is damaged: {why}"))
        .hint("restore the object from another copy of the archive, or take a new base backup")
}

/// Refuses a codec that this version knows by name only.
pub(crate) fn refuse_unreadable(key: &ObjectKey, codec: Codec) -> Result<()> {
    if codec.can_read() {
        return Ok(());
    }
    Err(OpError::new(
        Kind::Configuration,
        format!(
            "object {key} is compressed with {}, which this version cannot read yet",
            codec.name()
        ),
    )
    .hint("use a version of wale that reads this codec, or the tool that wrote the archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_118_noise_may_be_encrypted_and_a_damaged_stream_is_not() {
        // From a segment of WAL-G's that libsodium encrypted.
        let sodium = [
            0x64, 0x99, 0xd6, 0x86, 0x07, 0xf1, 0x8a, 0x04, 0xb9, 0xb1, 0x55, 0x2b, 0x2f, 0x0b,
            0xd6, 0x14, 0xbc, 0x61, 0x64, 0xdd, 0xe3, 0x14, 0x66, 0xbc, 0xc1, 0x88,
        ];
        for codec in [Codec::Zstd, Codec::Lz4, Codec::Lzo] {
            assert!(may_be_encrypted(codec, &sodium), "{codec}");
            assert!(!may_be_encrypted(codec, &sodium[..20]), "{codec}");
            assert!(!may_be_encrypted(codec, &[0; 64]), "{codec}");
            assert!(!may_be_encrypted(codec, &[b'x'; 64]), "{codec}");
            assert!(
                !may_be_encrypted(codec, b"<html><body>What you wanted</body></html>"),
                "{codec}"
            );
        }
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD];
        frame.extend_from_slice(&sodium);
        assert!(!may_be_encrypted(Codec::Zstd, &frame));
        assert!(!may_be_encrypted(Codec::Lz4, &frame), "another codec's");
        frame[0] ^= 1;
        assert!(!may_be_encrypted(Codec::Zstd, &frame), "a flipped bit");
        let mut tar = [7u8; 512];
        tar[0] = 8;
        assert!(may_be_encrypted(Codec::None, &tar));
        tar[257..262].copy_from_slice(b"ustar");
        assert!(!may_be_encrypted(Codec::None, &tar));
        assert!(!may_be_encrypted(Codec::None, b"tar"));
    }
}
