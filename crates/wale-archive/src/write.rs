//! Writing sealed objects. Only here and in `read` the archive's seal is opened.
//!
//! ```text
//! blocking thread: plain content → SealWriter → ChunkWriter ══▶ body → the store's put
//! ```
//!
//! A body ends well only when both writers were finished. Dropping one before that breaks the body, and a broken body
//! leaves nothing under the object's name: that is the store's promise.

use std::io::{self, Write as _};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use wale_format::{Codec, CodecError, CodecSettings, ContentDigest, Encryption, Seal, SealWriter};
use wale_pg::ArchiveFileName;
use wale_pipeline::{ChunkWriter, QUEUE_CHUNKS, Urgency};
use wale_storage::{Body, BodyError};

use crate::Archive;
use crate::error::{Kind, OpError, Result};
use crate::levels::Sealed;

impl Archive {
    /// The codec of new objects, which their names show.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.inner.seal.codec()
    }

    /// The seal of an object whose name shows `codec`.
    pub(crate) fn seal_of(&self, codec: Codec) -> Seal {
        let seal = self.inner.seal.with_codec(codec);
        match (&self.trial, &self.levels) {
            (Some(trial), _) => seal.at_level(trial.level()),
            // What is small is not worth the last step.
            (None, Some(_)) => seal.at_level(CodecSettings::ADAPTIVE[0].level),
            (None, None) => seal,
        }
    }

    /// The same archive for one object, at the level that is chosen for it; as it is where the level is set.
    #[must_use]
    pub fn for_one(&self, what: Sealed) -> Self {
        let trial = self.levels.as_ref().map(|levels| levels.begin(what));
        Self {
            trial,
            ..self.clone()
        }
    }

    /// Of an archive [for one object](Archive::for_one): the end of its body waits for something that is neither codec nor store.
    pub async fn held_by<T>(&self, other: impl Future<Output = T>) -> T {
        match &self.trial {
            Some(trial) => trial.held_by(other).await,
            None => other.await,
        }
    }

    /// Of an archive [for one object](Archive::for_one), of so many plain bytes: the store has just confirmed it.
    pub fn was_stored(&self, plain_bytes: u64) {
        if let Some(trial) = &self.trial {
            trial.was_stored(plain_bytes);
        }
    }

    /// What seals a partition under `codec`, and the body that comes of it for the store, in chunks of `chunk_bytes`, as fast as
    /// the line has room. The memory is [`Archive::partition_writer_bytes`].
    ///
    /// # Errors
    /// [`Kind::Configuration`] when the seal cannot be set up.
    #[expect(
        clippy::disallowed_methods,
        reason = "the archive seals its objects here"
    )]
    pub fn partition_body(
        &self,
        codec: Codec,
        chunk_bytes: usize,
    ) -> Result<(SealWriter<ChunkWriter>, Body)> {
        let (chunks, body) = self.chunked_body(chunk_bytes);
        let writer = self.seal_of(codec).partition_writer(chunks);
        let body = self.line().paced(body, Urgency::Waits).boxed();
        Ok((writer.map_err(cannot_seal)?, body))
    }

    /// As [`Archive::partition_body`], of what describes a backup, under `codec`: `none` where the object's name shows none. It is
    /// encrypted all the same.
    ///
    /// # Errors
    /// As [`Archive::partition_body`].
    pub fn described_body(
        &self,
        codec: Codec,
        chunk_bytes: usize,
    ) -> Result<(SealWriter<ChunkWriter>, Body)> {
        let (writer, body) = self.body_of(&self.seal_of(codec), chunk_bytes)?;
        let body = self.line().paced(body, Urgency::Waits);
        Ok((writer, body.boxed()))
    }

    /// As [`Archive::partition_body`], of the WAL file `name`, in one frame. Where this host could not read what it encrypts, the history of a
    /// timeline stays in the clear: retention and base backups go by the histories, and they say no more than positions
    /// and why a timeline ended. It passes the line at once. `content` is what the object says of the bytes that will be written, where it can
    /// ([`Archive::notes_content`]).
    ///
    /// # Errors
    /// As [`Archive::partition_body`].
    pub fn sealed_wal(
        &self,
        name: &ArchiveFileName,
        codec: Codec,
        chunk_bytes: usize,
        content: Option<ContentDigest>,
    ) -> Result<(SealWriter<ChunkWriter>, Body)> {
        let seal = self.seal_of(codec);
        let seal = match content {
            _ if self.stays_in_the_clear(name) => seal.in_the_clear(),
            Some(digest) => seal.with_content(digest),
            None => seal,
        };
        let (writer, body) = self.body_of(&seal, chunk_bytes)?;
        let body = self.line().paced(body, Urgency::PassesAtOnce);
        Ok((writer, body.boxed()))
    }

    /// Whether the WAL file `name` is not encrypted although the archive is.
    pub(crate) fn stays_in_the_clear(&self, name: &ArchiveFileName) -> bool {
        let is_history = matches!(name, ArchiveFileName::TimelineHistory(_));
        let key = self.write_key();
        // WAL-E and WAL-G decrypt whatever they read, so with OpenPGP a history is in the clear only where nobody here opens it.
        let opens = key.opens_itself()
            || key.method() == Encryption::OpenPgp
                && self.inner.seal.key_ring().has_key(key.method());
        is_history && !opens
    }

    /// The memory of one sealed partition with its writer, in bytes: the seal, the chunk that is being filled, those that wait
    /// and the one in the store's hands.
    pub fn partition_writer_bytes(&self, chunk_bytes: usize) -> u64 {
        let chunks = 1 + QUEUE_CHUNKS + 1;
        self.inner.seal.partition_writer_bytes() + (chunks * chunk_bytes) as u64
    }

    /// Seals a small object in memory, under `codec`: `none` where the object's name shows none. It is encrypted all the same.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when the seal cannot be set up.
    #[expect(
        clippy::disallowed_methods,
        reason = "the archive seals its objects here"
    )]
    pub fn seal_small_as(&self, codec: Codec, plain: &[u8]) -> Result<Bytes> {
        let writer = self.seal_of(codec).writer(Vec::new());
        sealed_in_memory(writer.map_err(cannot_seal)?, plain)
    }

    /// As [`Archive::seal_small_as`], of a partition under the codec of new objects.
    ///
    /// # Errors
    /// As [`Archive::seal_small_as`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the archive seals its objects here"
    )]
    pub fn seal_small_partition(&self, plain: &[u8]) -> Result<Bytes> {
        let writer = self.inner.seal.partition_writer(Vec::new());
        sealed_in_memory(writer.map_err(cannot_seal)?, plain)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the archive seals its objects here"
    )]
    fn body_of(&self, seal: &Seal, chunk_bytes: usize) -> Result<(SealWriter<ChunkWriter>, Body)> {
        let (chunks, body) = self.chunked_body(chunk_bytes);
        let writer = seal.writer(chunks).map_err(cannot_seal)?;
        Ok((writer, body))
    }

    /// A writer, and what is written to it as a body.
    fn chunked_body(&self, chunk_bytes: usize) -> (ChunkWriter, Body) {
        let (sender, receiver) = wale_pipeline::channel(QUEUE_CHUNKS);
        let chunks = ChunkWriter::new(sender, chunk_bytes);
        let codec = receiver.sender_times();
        let body = receiver.into_stream();
        let body = body.map_err(|error| BodyError::new(error.to_string()));
        let body = match &self.trial {
            Some(trial) => trial.watched(body.boxed(), codec),
            None => body.boxed(),
        };
        (chunks, body)
    }
}

fn sealed_in_memory(mut writer: SealWriter<Vec<u8>>, plain: &[u8]) -> Result<Bytes> {
    let sealed = writer.write_all(plain).and_then(|()| writer.finish());
    let sealed = sealed.map_err(|error: io::Error| {
        OpError::internal("could not seal an object in memory").source(error)
    })?;
    Ok(sealed.into())
}

fn cannot_seal(error: CodecError) -> OpError {
    OpError::new(
        Kind::Configuration,
        "the compression or the encryption cannot be used",
    )
    .source(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::levels::TELLING_BYTES;
    use crate::testing::Bench;

    fn level(archive: &Archive, what: Sealed) -> Option<i32> {
        archive.for_one(what).trial.map(|trial| trial.level())
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_that_is_set_is_not_changed_and_small_objects_say_nothing() {
        let archive = Bench::new().archive;
        assert_eq!(level(&archive, Sealed::Wal), None);
        let archive = archive.adapting();
        for (plain_bytes, expected) in [(TELLING_BYTES - 1, 0), (TELLING_BYTES, 1)] {
            let one = archive.for_one(Sealed::Wal);
            let (mut writer, body) = one.partition_body(Codec::Zstd, 100).expect("sealed");
            writer.write_all(b"x").expect("room");
            let chunks = writer.finish().expect("room");
            let sending = tokio::task::spawn_blocking(|| chunks.finish());
            body.try_collect::<Vec<_>>().await.expect("good");
            sending.await.expect("joined").expect("sent");
            tokio::time::sleep(Duration::from_millis(100)).await;
            one.was_stored(plain_bytes);
            let steps = CodecSettings::ADAPTIVE;
            assert_eq!(level(&archive, Sealed::Wal), Some(steps[expected].level));
        }
        // WAL says nothing about base backups.
        let first = CodecSettings::ADAPTIVE[0].level;
        assert_eq!(level(&archive, Sealed::Partition), Some(first));
    }
}
