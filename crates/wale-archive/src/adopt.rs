//! Adopting a prefix that WAL-E or WAL-G made: it has WAL and base backups, but no identity.
//!
//! The identity is taken from the cluster, and compared with the newest WAL object that can be read, so that nobody
//! starts to write into a stranger's archive. Objects whose codec this version cannot read prove nothing; if there
//! is nothing else, adoption is refused rather than believed.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{ArchiveIdentity, Codec, Encryption};
use wale_pg::{ArchiveFileName, ClusterIdentity, SystemIdentifier};
use wale_pipeline::blocking;
use wale_storage::{ObjectKey, ObjectMeta};

use crate::error::{Kind, OpError, Result};
use crate::foreign_cluster::foreign_cluster;
use crate::read::damaged;
use crate::remedy::Remedy;
use crate::{Archive, StoredWal};

/// What a prefix without identity holds.
pub(crate) enum Survey {
    /// Nothing of ours or of WAL-E's or WAL-G's.
    Empty,
    /// An archive.
    InUse(Contents),
}

/// What was seen in an archive without identity.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The codecs of its WAL.
    pub(crate) codecs: BTreeSet<Codec>,
    /// The newest segment.
    newest: Option<StoredWal>,
    /// Whether there is a base backup.
    has_backup: bool,
    /// A WAL object under an extension that this version does not know.
    stranger: Option<ObjectKey>,
}

impl Archive {
    /// Looks through the whole prefix once. Only an archive without identity pays for this, and only until it has
    /// one.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        let mut contents = Contents::default();
        for prefix in [layout::WAL_PREFIX, layout::BACKUP_PREFIX] {
            let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
            let mut listing = self.store().list(prefix).await.map_err(failed)?;
            while let Some(meta) = listing.try_next().await.map_err(failed)? {
                contents.add(meta);
            }
        }
        let empty =
            contents.codecs.is_empty() && !contents.has_backup && contents.stranger.is_none();
        Ok(if empty {
            Survey::Empty
        } else {
            Survey::InUse(contents)
        })
    }

    /// Refuses `cluster` when the archive's newest segment is another cluster's. Where no segment can be read, the base
    /// backups say whose archive it is; an archive in which nothing does is refused.
    pub(crate) async fn check_adoption(
        &self,
        contents: &Contents,
        cluster: &ClusterIdentity,
    ) -> Result<()> {
        let Some(stored) = &contents.newest else {
            return match (self.check_backups(cluster).await?, &contents.stranger) {
                (Recorded::Nothing, Some(key)) => Err(unreadable(key)),
                _ => Ok(()),
            };
        };
        let header = match self.read_wal_header(stored).await {
            Err(error)
                if error.kind == Kind::Configuration
                    && self.check_backups(cluster).await? == Recorded::Own =>
            {
                return self.check_adopted_encryption(stored).await;
            }
            read => read,
        };
        let header = header.map_err(|error| {
            if !matches!(error.kind, Kind::CorruptData | Kind::Configuration) {
                return error;
            }
            OpError::new(
                error.kind,
                format!("could not tell whose archive {} is", self.location()),
            )
            .detail(format!(
                "Its newest WAL object {} cannot be read.",
                stored.key
            ))
            .hint("give the key that the archive was written with, or use a new prefix")
            .source(error)
        })?;
        if header.system_identifier != cluster.system_identifier {
            return Err(foreign_cluster(
                header.system_identifier,
                cluster.system_identifier,
                &self.location(),
            ));
        }
        if u64::from(header.segment_size) != cluster.wal_segment_size.bytes() {
            return Err(damaged(
                &stored.key,
                "its WAL segment size is not the cluster's",
            ));
        }
        self.check_adopted_encryption(stored).await
    }

    /// Refuses to go on in the clear, or with another key, where the other tool encrypts: its newest segment shows it.
    async fn check_adopted_encryption(&self, stored: &StoredWal) -> Result<()> {
        match self.adopted_encryption(stored).await? {
            Some(refused) => Err(refused.error),
            None => Ok(()),
        }
    }

    async fn adopted_encryption(&self, stored: &StoredWal) -> Result<Option<RefusedEncryption>> {
        let key = self.write_key();
        let object = self.open_stored(&stored.key, stored.codec).await?;
        let (found, locked) = match blocking(move || object.look()).await? {
            Ok(looked) => looked,
            // Damage is told by whoever reads it.
            Err(error) if error.kind == Kind::CorruptData => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_known = found != Encryption::None;
        let goes_on = if is_known {
            found == key.method()
        } else {
            locked.is_none()
        };
        if goes_on || self.inner.accepted.as_deref() == Some(&key.word()) {
            return Ok(None);
        }
        let what = if is_known {
            format!("with {found}")
        } else {
            "with something that no key here opens".to_owned()
        };
        let error = OpError::new(
            Kind::Configuration,
            format!("{} is encrypted, and what is set would not go on with that", self.location()),
        )
        .detail(format!("Its newest WAL object {} is encrypted {what}.", stored.key))
        .hint("set the keys that the archive was written with; to write it otherwise on purpose, say what the encryption becomes")
        .remedy(Remedy::EncryptionChange { word: key.word() });
        Ok(Some(RefusedEncryption {
            error,
            method: is_known.then_some(found),
        }))
    }

    /// Why nothing would be written for how the archive is encrypted, as wale is set up now; `None` where that is no reason.
    /// The record says it, and where there is none the newest segment. Writes nothing.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn refused_encryption(
        &self,
        identity: Option<&ArchiveIdentity>,
        newest: Option<&StoredWal>,
    ) -> Result<Option<RefusedEncryption>> {
        if let Some(identity) = identity {
            return match self.check_encryption(identity).await {
                Ok(()) => Ok(None),
                Err(error) if error.kind.retryable() => Err(error),
                Err(error) => Ok(Some(RefusedEncryption {
                    error,
                    method: identity.encryptions.last().map(|record| record.method),
                })),
            };
        }
        match newest {
            Some(newest) => self.adopted_encryption(newest).await,
            None => Ok(None),
        }
    }

    /// Without any WAL that can be read, the base backups say whose archive it is, if they record it: WAL-G's do, WAL-E's do not.
    async fn check_backups(&self, cluster: &ClusterIdentity) -> Result<Recorded> {
        let catalog = self.catalog().await?;
        let recorded = catalog
            .backups
            .iter()
            .rev()
            .find_map(|entry| entry.readable()?.system_identifier);
        match recorded.map(SystemIdentifier::new) {
            Some(found) if found != cluster.system_identifier => Err(foreign_cluster(
                found,
                cluster.system_identifier,
                &self.location(),
            )),
            Some(_) => Ok(Recorded::Own),
            None => Ok(Recorded::Nothing),
        }
    }
}

/// The encryption of an archive is not the one that is set.
#[derive(Debug)]
pub struct RefusedEncryption {
    /// What a push would say.
    pub error: OpError,
    /// How the archive is encrypted, where its objects show that.
    pub method: Option<Encryption>,
}

/// What the base backups of an archive say about its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// They are of this cluster.
    Own,
    /// None of them shows it.
    Nothing,
}

impl Contents {
    fn add(&mut self, meta: ObjectMeta) {
        match layout::parse(meta.key.as_str()) {
            ArchiveKey::Wal { name, codec, .. } => {
                self.codecs.insert(codec);
                if name.is_segment() {
                    self.add_segment(name, codec, meta);
                }
            }
            ArchiveKey::Sentinel(_) => self.has_backup = true,
            ArchiveKey::Unknown if layout::wal_claim(meta.key.as_str()).is_some() => {
                self.stranger = Some(meta.key);
            }
            _ => {}
        }
    }

    fn add_segment(&mut self, name: ArchiveFileName, codec: Codec, meta: ObjectMeta) {
        let stored = StoredWal {
            name,
            key: meta.key,
            codec,
            size: meta.size,
            modified: meta.modified,
        };
        keep_newer(&mut self.newest, &stored);
    }
}

/// Newer by the store's time; of equal times (a copied archive) the greater name.
fn keep_newer(kept: &mut Option<StoredWal>, candidate: &StoredWal) {
    let age =
        |stored: &StoredWal| -> (DateTime<Utc>, ArchiveFileName) { (stored.modified, stored.name) };
    if kept.as_ref().is_none_or(|kept| age(candidate) > age(kept)) {
        *kept = Some(candidate.clone());
    }
}

fn unreadable(key: &ObjectKey) -> OpError {
    OpError::new(
        Kind::Configuration,
        "the archive's WAL has an extension that this version does not know",
    )
    .detail(format!(
        "Whose archive it is cannot be checked; its newest WAL object is {key}."
    ))
    .hint("use a version of wale that reads it, or a new prefix")
}
