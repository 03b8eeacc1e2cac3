//! Whose archive it is: `wale.json`, made by create-if-absent, checked before anything is written.
//!
//! Two sidecars that start at the same moment on one empty prefix both try to create the object; the store lets
//! exactly one succeed, and the other reads the winner's and finds out whether it is its own cluster.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use tokio::time::Instant;
use wale_format::{ArchiveIdentity, Codec, Encryption, IdentityError, layout};
use wale_pg::ClusterIdentity;
use wale_storage::{Looking, PutOutcome, StoreError, body_from, read_known};

use crate::Archive;
use crate::adopt::Survey;
use crate::encryption::Verdict;
use crate::error::{Kind, OpError, Result};
use crate::foreign_cluster::foreign_cluster;
use crate::former::Beginning;
use crate::look::{Age, LOOK_HOLDS, Mark, SeenIdentity};
use crate::read::SMALL_OBJECT_MAX;

impl Archive {
    /// The identity, or `None` when the archive has none yet. Remembered after the first success.
    ///
    /// # Errors
    /// The store cannot answer, or `wale.json` is damaged.
    pub async fn identity(&self) -> Result<Option<ArchiveIdentity>> {
        let mut cached = self.inner.identity.lock().await;
        if cached.is_none() {
            *cached = self.read_identity().await?;
        }
        Ok(cached.clone())
    }

    /// The identity as the store has it now.
    ///
    /// # Errors
    /// As [`Archive::identity`].
    pub async fn read_identity(&self) -> Result<Option<ArchiveIdentity>> {
        let key = Self::key(layout::IDENTITY)?;
        let at = Instant::now();
        let (meta, bytes) = match read_known(self.store(), &key, SMALL_OBJECT_MAX).await {
            Ok(read) => read,
            Err(StoreError::NotFound { .. }) => {
                *self.seen() = None;
                return Ok(None);
            }
            Err(error) => return Err(OpError::from_store(error, format_args!("read {key}"))),
        };
        let identity = ArchiveIdentity::parse(&bytes).map_err(|error| match error {
            IdentityError::LaterFormat { .. } => OpError::new(
                Kind::Configuration,
                "the archive was made by a later version of wale",
            )
            .hint("use that version, or a later one")
            .source(error),
            _ => OpError::new(Kind::CorruptData, format!("object {key} is damaged"))
                .hint("repair or restore wale.json; never delete it from an archive in use")
                .source(error),
        })?;
        self.inner.was_seen.store(true, Ordering::Relaxed);
        *self.seen() = Some(SeenIdentity {
            identity: identity.clone(),
            mark: Mark::of(&meta),
            at: Some(at),
        });
        Ok(Some(identity))
    }

    /// The identity as it was less than [`LOOK_HOLDS`] ago: read then, or seen in a listing to be what was read. A store that
    /// does not list truly is asked each time.
    ///
    /// # Errors
    /// As [`Archive::identity`].
    async fn read_identity_lately(&self) -> Result<Option<ArchiveIdentity>> {
        if self.store().looking() != Looking::ByName {
            let seen = self.seen().clone();
            let is_recent =
                |seen: &SeenIdentity| seen.at.is_some_and(|at| at.elapsed() < LOOK_HOLDS);
            if let Some(seen) = seen.filter(is_recent) {
                return Ok(Some(seen.identity));
            }
        }
        self.read_identity().await
    }

    /// What tells the identity's object that was read last.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.seen().as_ref().map(|seen| seen.mark)
    }

    /// The identity that was read last.
    pub(crate) fn seen_identity(&self) -> Option<SeenIdentity> {
        self.seen().clone()
    }

    /// Whether the identity's object is the one that this tells; one request, by its name.
    ///
    /// # Errors
    /// The store's failures.
    pub(crate) async fn is_identity_marked(&self, mark: Mark) -> Result<bool> {
        let key = Self::key(layout::IDENTITY)?;
        let meta = self.store().head(&key).await;
        let meta = meta.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        Ok(meta.is_some_and(|meta| Mark::of(&meta) == mark))
    }

    /// The object that was read last was still there at that time.
    pub(crate) fn note_seen(&self, at: Instant) {
        if let Some(seen) = self.seen().as_mut() {
            seen.at = seen.at.max(Some(at));
        }
    }

    /// It is not known any more whether the object that was read last is there.
    pub(crate) fn forget_seen(&self) {
        if let Some(seen) = self.seen().as_mut() {
            seen.at = None;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<SeenIdentity>> {
        let seen = self.inner.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the archive belongs to `cluster`: compares, or claims an empty prefix, or adopts a prefix
    /// that WAL-E or WAL-G made. The identity is read anew each time: what was there a moment ago may have been emptied,
    /// or its volume taken away, and then nothing may be written.
    ///
    /// # Errors
    /// [`Kind::ArchiveMismatch`] when it belongs to another cluster; [`Kind::StorageUnavailable`] when there is none now and
    /// this process has seen one, or `begin` knows of one; the store's failures.
    pub async fn ensure_identity(
        &self,
        cluster: &ClusterIdentity,
        begin: &Beginning,
    ) -> Result<ArchiveIdentity> {
        self.ensure(cluster, begin, Age::Now).await
    }

    /// As [`Archive::ensure_identity`], of the archive as it was at most that long ago.
    ///
    /// # Errors
    /// As [`Archive::ensure_identity`].
    pub async fn ensure(
        &self,
        cluster: &ClusterIdentity,
        begin: &Beginning,
        age: Age,
    ) -> Result<ArchiveIdentity> {
        // Not under the lock: a hundred pushes at once would wait for one another's looks.
        let identity = match self.read_identity_of(age).await? {
            Some(identity) => identity,
            None => self.claim_once(cluster, begin).await?,
        };
        compare(&identity.cluster, cluster, &self.location())?;
        let identity = self.with_encryption(identity).await?;
        *self.inner.identity.lock().await = Some(identity.clone());
        Ok(identity)
    }

    /// The identity with what is configured in its record of encryption.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when something else is recorded; the store's failures.
    async fn with_encryption(&self, identity: ArchiveIdentity) -> Result<ArchiveIdentity> {
        if self.judge_encryption(&identity)? == Verdict::Same {
            return Ok(identity);
        }
        // Under the lock, and read anew: a hundred pushes at once make one record.
        let _cached = self.inner.identity.lock().await;
        let Some(mut identity) = self.read_identity().await? else {
            return Err(self.lost());
        };
        if self.update_encryption(&mut identity).await? {
            self.rewrite(&identity).await?;
        }
        Ok(identity)
    }

    async fn rewrite(&self, identity: &ArchiveIdentity) -> Result<()> {
        let key = Self::key(layout::IDENTITY)?;
        let body = body_from(identity.to_json().into());
        let put = self.store().put(&key, body).await;
        put.map_err(|e| OpError::from_store(e, format_args!("rewrite {key}")))?;
        Ok(())
    }

    /// Makes sure that the archive answers, and is still there where this process has seen it, and encrypted as it is
    /// configured. An archive without identity that was never seen passes.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] when this process has seen an identity and there is none now; [`Kind::Configuration`] when
    /// another encryption is recorded than is configured; the store's failures.
    pub async fn ensure_still_there(&self) -> Result<()> {
        self.ensure_there(Age::Now).await.map(drop)
    }

    /// As [`Archive::ensure_still_there`], of the archive as it was at most that long ago. Gives the identity.
    ///
    /// # Errors
    /// As [`Archive::ensure_still_there`].
    pub async fn ensure_there(&self, age: Age) -> Result<Option<ArchiveIdentity>> {
        match self.read_identity_of(age).await? {
            None if self.inner.was_seen.load(Ordering::Relaxed) => Err(self.lost()),
            None => Ok(None),
            Some(identity) => self.with_encryption(identity).await.map(Some),
        }
    }

    /// Makes sure that an archive whose identity this process has seen is there still. Writes nothing.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] where it is not; what [`Archive::identity`] gives.
    pub async fn ensure_not_lost(&self) -> Result<()> {
        match self.read_identity().await? {
            None if self.inner.was_seen.load(Ordering::Relaxed) => Err(self.lost()),
            _ => Ok(()),
        }
    }

    async fn read_identity_of(&self, age: Age) -> Result<Option<ArchiveIdentity>> {
        match age {
            Age::Now => self.read_identity().await,
            Age::Lately => self.read_identity_lately().await,
        }
    }

    /// Claims an archive without identity, under the lock: a hundred pushes at start make one claim.
    async fn claim_once(
        &self,
        cluster: &ClusterIdentity,
        begin: &Beginning,
    ) -> Result<ArchiveIdentity> {
        let mut cached = self.inner.identity.lock().await;
        let identity = match self.read_identity().await? {
            Some(identity) => identity,
            None if self.inner.was_seen.load(Ordering::Relaxed) => return Err(self.lost()),
            None => self.claim(cluster, begin).await?,
        };
        self.inner.was_seen.store(true, Ordering::Relaxed);
        *cached = Some(identity.clone());
        Ok(identity)
    }

    /// The error for an archive whose identity this process has seen, and which has none any more.
    fn lost(&self) -> OpError {
        let location = self.location();
        OpError::new(
            Kind::StorageUnavailable,
            format!("the archive {location} was there and is gone"),
        )
        .detail("It has no wale.json any more: it was emptied, or its volume was taken away. Nothing is written there.")
        .hint(
            "bring the archive back with its wale.json; to begin a new one there on purpose, run wale backup-push \
             --new-archive",
        )
    }

    /// The error for an empty place where this server's archive was, as `known` says.
    fn not_there(&self, known: &str) -> OpError {
        let location = self.location();
        OpError::new(
            Kind::StorageUnavailable,
            format!("the archive {location} was there and is gone: this server has archived there before"),
        )
        .detail(format!(
            "{known} The place is empty now. Nothing is written there: once its volume is mounted again it would be hidden, \
             and PostgreSQL has deleted its own copies by then."
        ))
        .hint(
            "mount the archive's volume, or bring the archive back with its wale.json; to begin a new one there on purpose, \
             run wale backup-push --new-archive",
        )
    }

    /// Whether this process began the archive, in an empty place.
    #[must_use]
    pub fn was_begun(&self) -> bool {
        self.inner.was_begun.load(Ordering::Relaxed)
    }

    /// Whether there is nothing of an archive at this place: no identity, no base backup, no WAL.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn holds_nothing(&self) -> Result<bool> {
        if self.read_identity().await?.is_some() {
            return Ok(false);
        }
        Ok(matches!(self.survey().await?, Survey::Empty))
    }

    /// What a push would be refused with, where the archive of this server was here and the place is empty now. Writes
    /// nothing; to be asked of an archive without identity.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn lost_before(&self, begin: &Beginning) -> Result<Option<OpError>> {
        let Some(known) = begin.known(&self.location()).await? else {
            return Ok(None);
        };
        Ok(match self.survey().await? {
            Survey::Empty => Some(self.not_there(&known)),
            Survey::InUse(_) => None,
        })
    }

    /// Compares the archive's identity, as the store has it now, with `cluster`; claims nothing. `false` while the archive
    /// has none.
    ///
    /// # Errors
    /// [`Kind::ArchiveMismatch`] when it belongs to another cluster; [`Kind::Configuration`] when its keys are others than those that are set; the store's failures.
    pub async fn belongs_to(&self, cluster: &ClusterIdentity) -> Result<bool> {
        let Some(identity) = self.read_identity().await? else {
            return Ok(false);
        };
        compare(&identity.cluster, cluster, &self.location())?;
        self.check_encryption(&identity).await?;
        Ok(true)
    }

    /// Creates the identity of an archive that has none. Returns the one that is there afterwards, which may be
    /// another sidecar's.
    async fn claim(&self, cluster: &ClusterIdentity, begin: &Beginning) -> Result<ArchiveIdentity> {
        let mut codecs = BTreeSet::from([self.codec()]);
        let mut was_empty = false;
        match self.survey().await? {
            // Once in the life of an archive. A second time means that the volume under the prefix is another one
            // than before, most likely an empty folder where it should be mounted.
            Survey::Empty => {
                if let Some(known) = begin.known(&self.location()).await? {
                    return Err(self.not_there(&known));
                }
                was_empty = true;
                tracing::warn!(
                    archive = %self.location(),
                    system_identifier = %cluster.system_identifier,
                    "a new archive is begun here; if there was one already, check that its volume is mounted"
                );
            }
            Survey::InUse(contents) => {
                self.check_adoption(&contents, cluster).await?;
                tracing::info!(archive = %self.location(), "adopts an archive that has no identity yet");
                codecs.extend(contents.codecs);
            }
        }
        let mut identity = ArchiveIdentity {
            format: ArchiveIdentity::FORMAT_CLEAR,
            cluster: *cluster,
            codecs,
            encryption: Encryption::None,
            encryptions: Vec::new(),
            created_at: self.clock().now(),
            created_by: self.inner.created_by.clone(),
            extra: serde_json::Map::new(),
        };
        self.update_encryption(&mut identity).await?;
        let key = Self::key(layout::IDENTITY)?;
        let outcome = self
            .store()
            .put_if_absent(&key, body_from(identity.to_json().into()))
            .await;
        match outcome {
            Ok(PutOutcome::Created(_)) => {
                self.inner.was_begun.store(was_empty, Ordering::Relaxed);
                Ok(identity)
            }
            // Somebody was faster (or our own earlier attempt lost its reply): the stored one counts.
            Ok(PutOutcome::Exists) => self.read_identity().await?.ok_or_else(|| {
                OpError::new(
                    Kind::StorageUnavailable,
                    format!("object {key} exists, but cannot be read"),
                )
            }),
            Err(error) => Err(OpError::from_store(error, format_args!("create {key}"))),
        }
    }

    /// Whether another wale may write objects under another codec than `codec`, by an identity that was read after an object
    /// was written under it. The configured one is recorded, where it is not.
    ///
    /// A wale records a codec before it writes under it ([`Archive::note_codec`]). Where only this one is recorded after a
    /// write, every writer that compresses otherwise records its codec later than that write was done. It looks for others
    /// after its own write, and so sees this one's. A record that lost one of two additions still has two codecs.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn has_other_codecs(&self, identity: &ArchiveIdentity, codec: Codec) -> Result<bool> {
        if identity.codecs.contains(&codec) {
            return Ok(identity.codecs.len() > 1);
        }
        // Another tool's is not recorded: there may be no right to replace the identity.
        if codec == self.codec() {
            *self.inner.identity.lock().await = None;
            self.note_codec(codec).await?;
        }
        Ok(true)
    }

    /// Records that objects compressed with `codec` are in the archive from now on.
    ///
    /// Two writers that add different codecs at the same moment may lose one of the two additions; the look-up
    /// asks for every codec anyway, so the record is a help and not a condition.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn note_codec(&self, codec: Codec) -> Result<()> {
        let mut cached = self.inner.identity.lock().await;
        if cached
            .as_ref()
            .is_some_and(|known| known.codecs.contains(&codec))
        {
            return Ok(());
        }
        let Some(mut identity) = self.read_identity().await? else {
            return Ok(());
        };
        if identity.codecs.insert(codec) {
            self.rewrite(&identity).await?;
        }
        *cached = Some(identity);
        Ok(())
    }
}

/// Refuses a cluster that is not the archive's own.
fn compare(archive: &ClusterIdentity, cluster: &ClusterIdentity, location: &str) -> Result<()> {
    if archive.system_identifier != cluster.system_identifier {
        return Err(foreign_cluster(
            archive.system_identifier,
            cluster.system_identifier,
            location,
        ));
    }
    if archive.wal_segment_size != cluster.wal_segment_size {
        return Err(OpError::new(
            Kind::ArchiveMismatch,
            format!("the WAL segment size is not the one of {location}"),
        )
        .detail(format!(
            "The archive has segments of {} bytes, the cluster of {} bytes.",
            archive.wal_segment_size.bytes(),
            cluster.wal_segment_size.bytes()
        ))
        .hint("use a new prefix after the segment size was changed"));
    }
    Ok(())
}
