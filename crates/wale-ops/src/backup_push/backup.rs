//! What the steps of one attempt at a base backup work with.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wale_archive::Archive;
use wale_format::{BackupName, Codec, layout};
use wale_pipeline::{CHUNK_BYTES, CancellationToken, Progress, blocking};
use wale_storage::body_from;

use super::options::BackupOptions;
use super::place;
use super::uploads::{Attempt, Uploads};
use crate::error::{OpError, Result};
use crate::retry::{Attempts, RetryBudget};

/// Lines are gathered before they are sealed.
const LINES_BYTES: usize = 64 << 10;

/// One attempt and what it works with.
pub(super) struct Backup<'a> {
    pub(super) archive: &'a Archive,
    pub(super) options: &'a BackupOptions,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    pub(super) uploads: &'a Arc<Uploads>,
    /// Rings when there is a claim to be kept.
    pub(super) claimed: &'a Notify,
}

impl Backup<'_> {
    /// Waits for `work`, or for the cancellation; dropping the work closes the server's session.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(OpError::cancelled()),
            value = work => Ok(value),
        }
    }

    /// Stores what describes the backup, under `codec`, while `write` writes it: it is as long as the cluster has files, and never whole
    /// in memory. It is written anew when the put fails and another one may help. Gives what `write` gave, and how many bytes are stored.
    ///
    /// # Errors
    ///
    /// The store's, when it does not answer for the attempts of [`RetryBudget::OBJECT`]; cancellation, until it begins and between two
    /// attempts.
    pub(super) async fn store_written<T, W>(
        &self,
        key: &str,
        codec: Codec,
        write: W,
    ) -> Result<(T, u64)>
    where
        T: Send + 'static,
        W: Fn(&mut dyn Write) -> io::Result<T> + Send + Sync + 'static,
    {
        let bytes = self.archive.partition_writer_bytes(CHUNK_BYTES) + LINES_BYTES as u64;
        let _memory = self
            .unless_cancelled(self.archive.budget().acquire(bytes))
            .await?;
        let write = Arc::new(write);
        let (mut attempts, mut attempt) = (RetryBudget::OBJECT.begin(), Attempt::First);
        loop {
            let stored = self.put_written(key, codec, Arc::clone(&write), attempt);
            match stored.await {
                Ok(stored) => return Ok(stored),
                Err(error) => attempt = self.again(&mut attempts, key, error).await?,
            }
        }
    }

    async fn put_written<T, W>(
        &self,
        key: &str,
        codec: Codec,
        write: Arc<W>,
        attempt: Attempt,
    ) -> Result<(T, u64)>
    where
        T: Send + 'static,
        W: Fn(&mut dyn Write) -> io::Result<T> + Send + Sync + 'static,
    {
        let (writer, body) = self.archive.described_body(codec, CHUNK_BYTES)?;
        let writing = blocking(move || {
            let mut lines = BufWriter::with_capacity(LINES_BYTES, writer);
            let given = write(&mut lines)?;
            let sealed = lines.into_inner().map_err(io::IntoInnerError::into_error)?;
            sealed.finish()?.finish()?;
            Ok::<_, io::Error>(given)
        });
        // What is not finished is dropped, and the put sees an aborted body: nothing appears.
        let put = self.uploads.put(key, body, attempt);
        let (written, stored) = tokio::join!(writing, put);
        match (written?, stored?) {
            (Ok(given), stored) => Ok((given, stored)),
            (Err(error), _) => Err(OpError::internal(format!("{key} was cut short")).source(error)),
        }
    }

    /// Stores what is small enough to be in memory, again while that may help. Gives how many bytes are stored.
    ///
    /// # Errors
    ///
    /// As [`Backup::store_written`].
    pub(super) async fn store_bytes(&self, key: &str, bytes: Bytes) -> Result<u64> {
        let (mut attempts, mut attempt) = (RetryBudget::OBJECT.begin(), Attempt::First);
        loop {
            let stored = self.uploads.put(key, body_from(bytes.clone()), attempt);
            match stored.await {
                Ok(stored) => return Ok(stored),
                Err(error) => attempt = self.again(&mut attempts, key, error).await?,
            }
        }
    }

    /// Waits for the next attempt at an object, where there is one after this error.
    async fn again(&self, attempts: &mut Attempts, key: &str, error: OpError) -> Result<Attempt> {
        let again = attempts.after(error)?;
        tracing::warn!(
            key, attempt = again.failed, error = %again.error.chain(), "object is stored again"
        );
        again.wait_unless(self.cancel).await?;
        Ok(Attempt::Again)
    }

    /// Takes the backup's name, makes sure that nobody else's objects are under it, and puts the first one there: the
    /// server's version.
    pub(super) async fn occupy(&self, name: &BackupName, version: &str) -> Result<()> {
        let claim = place::occupy(self.archive, name).await?;
        self.uploads.claimed(claim);
        self.claimed.notify_one();
        let key = layout::extended_version(name);
        self.uploads
            .put_bytes(&key, version.to_owned().into())
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use wale_archive::Archive;
    use wale_cluster::ConnectOptions;
    use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

    use super::*;
    use crate::error::Kind;
    use crate::testing::Bench;

    /// Longer than what is gathered before it is sent.
    const TEXT_BYTES: usize = 3 << 20;

    fn name() -> BackupName {
        BackupName::parse("base_000000010000000000000002_00000040").expect("a name")
    }

    /// Stores a manifest and the last partition into a store that fails so: what came of both, and how often the manifest was written.
    async fn stored(bench: &Bench) -> (Result<((), u64)>, Result<u64>, u64) {
        let uploads = Arc::new(Uploads::new(Arc::clone(bench.archive.store())));
        let backup = Backup {
            archive: &bench.archive,
            options: &BackupOptions::new(bench.folder().to_owned(), ConnectOptions::default()),
            progress: &Progress::new(),
            cancel: &CancellationToken::new(),
            uploads: &uploads,
            claimed: &Notify::new(),
        };
        let claim = place::occupy(&bench.archive, &name()).await.expect("free");
        uploads.claimed(claim);
        let written = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&written);
        let write = move |sink: &mut dyn Write| {
            counted.fetch_add(1, Ordering::Relaxed);
            sink.write_all(&vec![b'x'; TEXT_BYTES])
        };
        let key = layout::manifest(&name());
        let manifest = backup.store_written(&key, Codec::None, write).await;
        let part = layout::partition(&name(), 7, Codec::Zstd);
        let part = backup.store_bytes(&part, Bytes::from_static(b"part")).await;
        (manifest, part, written.load(Ordering::Relaxed))
    }

    /// The same faults for both objects, one after the other.
    fn failing(faults: &[Fault]) -> FaultPlan {
        let keys = [
            layout::manifest(&name()),
            layout::partition(&name(), 7, Codec::Zstd),
        ];
        let mut plan = FaultPlan::new();
        for key in keys {
            for (nth, fault) in (1..).zip(faults) {
                let nth = Occurrence::Nth(nth);
                plan = plan.fail_keys(&key, Verb::PutIfAbsent, nth, fault.clone());
            }
        }
        plan
    }

    #[tokio::test(start_paused = true)]
    async fn fault_25_what_describes_a_backup_is_stored_anew_when_its_put_broke_after_the_first_byte()
     {
        // The connection breaks; then the object is there and the answer is lost.
        let bench = Bench::with_plan(failing(&[Fault::CutBody(1), Fault::LostReply]));
        let (manifest, part, written) = stored(&bench).await;
        assert_eq!(manifest.expect("stored"), ((), TEXT_BYTES as u64));
        assert_eq!(part.expect("stored"), 4);
        assert_eq!(written, 3);
        let content = |key: &str| {
            let key = Archive::key(key).expect("a key");
            bench.memory.content(&key).expect("there")
        };
        let manifest = content(&layout::manifest(&name()));
        assert_eq!(manifest, vec![b'x'; TEXT_BYTES]);
        let part = content(&layout::partition(&name(), 7, Codec::Zstd));
        assert_eq!(part, "part");
    }

    #[tokio::test(start_paused = true)]
    async fn what_describes_a_backup_is_not_stored_for_ever() {
        let key = layout::manifest(&name());
        let cut = Fault::CutBody(1);
        let plan = FaultPlan::new();
        let plan = plan.fail_keys(&key, Verb::PutIfAbsent, Occurrence::Always, cut);
        let bench = Bench::with_plan(plan);
        let (manifest, part, written) = stored(&bench).await;
        let error = manifest.expect_err("never stored");
        assert_eq!(error.kind, Kind::StorageUnavailable);
        assert_eq!(written, 5);
        let key = Archive::key(&key).expect("a key");
        assert_eq!(bench.memory.content(&key), None);
        assert_eq!(part.expect("stored"), 4);
    }
}
