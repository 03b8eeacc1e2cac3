//! Whose archive it is: `wale.json`, made by create-if-absent, checked before anything is written.
//!
//! Two sidecars that start at the same moment on one empty prefix both try to create the object; the store lets
//! exactly one succeed, and the other reads the winner's and finds out whether it is its own cluster.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use wale_format::{ArchiveIdentity, Codec, Encryption, IdentityError, layout};
use wale_pg::ClusterIdentity;
use wale_storage::{PutOutcome, body_from};

use crate::Archive;
use crate::adopt::Survey;
use crate::encryption::Verdict;
use crate::error::{Kind, OpError, Result};
use crate::foreign_cluster::foreign_cluster;
use crate::former::Beginning;

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
        let Some(bytes) = self.read_small(&key).await? else {
            return Ok(None);
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
        Ok(Some(identity))
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
        // Not under the lock: a hundred pushes at once would wait for one another's looks.
        let identity = match self.read_identity().await? {
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
        match self.read_identity().await? {
            None if self.inner.was_seen.load(Ordering::Relaxed) => Err(self.lost()),
            None => Ok(()),
            Some(identity) => self.with_encryption(identity).await.map(drop),
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
