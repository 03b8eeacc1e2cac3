//! Whether a base backup is whole, as far as a check shows that reads none of its partitions: its record, every
//! partition with its size, and the WAL from its start to its stop. It is checked before something else is deleted for
//! it, and before `LATEST` means it.

use wale_format::layout;
use wale_format::{BackupName, Sentinel};
use wale_pipeline::blocking;

use crate::chain;
use crate::error::{Kind, OpError, Result};
use crate::lineage::Lineage;
use crate::member_list::Keep;
use crate::parts::StoredPart;
use crate::walk::{Lack, carried};
use crate::{Archive, BackupEntry, Catalog, SentinelRecord};

/// Why a backup cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Something of it is missing or damaged.
    Damaged(String),
    /// It may be whole, but this version cannot restore it.
    Unreadable(String),
}

impl Flaw {
    /// In words that follow its name.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Damaged(words) | Self::Unreadable(words) => words,
        }
    }

    /// What an error says about the backup; those of the store say nothing.
    fn of(error: OpError) -> Result<Self> {
        let words = || match &error.detail {
            Some(detail) => format!("{} ({})", error.chain(), detail.trim_end_matches('.')),
            None => error.chain(),
        };
        match error.kind {
            Kind::CorruptData => Ok(Self::Damaged(words())),
            Kind::Configuration => Ok(Self::Unreadable(words())),
            _ => Err(error),
        }
    }
}

/// How much is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckDepth {
    /// Only the record.
    Record,
    /// The partitions, too. Its WAL may be elsewhere.
    Parts,
    /// The partitions and the WAL from its start to its stop.
    #[default]
    Whole,
}

impl Archive {
    /// What is wrong with a backup; `None` when nothing is. Of a delta, the backups that it builds on are looked at, too.
    ///
    /// Costs a listing of its partitions, a listing of its WAL, and a few small requests; of a delta, the timelines and a
    /// listing for each backup that it builds on.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn look_at(
        &self,
        catalog: &Catalog,
        entry: &BackupEntry,
        look: CheckDepth,
    ) -> Result<Option<Flaw>> {
        let lineage = if entry.is_delta() {
            self.lineage_of(&catalog.backups).await?.0
        } else {
            Lineage::default()
        };
        self.look_among(catalog, &lineage, entry, look).await
    }

    /// As [`Archive::look_at`], where the lineage of the catalog's backups is known.
    pub(crate) async fn look_among(
        &self,
        catalog: &Catalog,
        lineage: &Lineage,
        entry: &BackupEntry,
        look: CheckDepth,
    ) -> Result<Option<Flaw>> {
        let sentinel = match &entry.sentinel {
            SentinelRecord::Readable(sentinel) => sentinel,
            SentinelRecord::Damaged(reason) => {
                return Ok(Some(Flaw::Damaged(format!(
                    "its record is damaged: {reason}"
                ))));
            }
        };
        let parents = match chain::parents(catalog, entry, lineage) {
            Ok(parents) => parents,
            Err(error) => return Flaw::of(error).map(Some),
        };
        if look == CheckDepth::Record {
            return Ok(None);
        }
        let looked = async {
            // All that is needed of those before is their files.
            for parent in parents.iter().copied().chain([entry]) {
                self.check_files(parent, entry.is_delta()).await?;
            }
            match look {
                CheckDepth::Whole => self.check_own_wal(&entry.name, sentinel).await,
                CheckDepth::Parts | CheckDepth::Record => Ok(()),
            }
        };
        match looked.await {
            Ok(()) => Ok(None),
            Err(error) => Flaw::of(error).map(Some),
        }
    }

    /// The backups that `entry` builds on, its parent first and a full backup last; none for a full backup.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when one of them is not there, or they do not fit together; the store's.
    pub async fn parents(
        &self,
        catalog: &Catalog,
        entry: &BackupEntry,
    ) -> Result<Vec<BackupEntry>> {
        if !entry.is_delta() {
            return Ok(Vec::new());
        }
        let (lineage, _) = self.lineage_of(&catalog.backups).await?;
        let parents = chain::parents(catalog, entry, &lineage)?;
        Ok(parents.into_iter().cloned().collect())
    }

    /// Whether what holds the files of a backup is there, as far as its record and its list say.
    async fn check_files(&self, entry: &BackupEntry, is_in_chain: bool) -> Result<()> {
        let name = &entry.name;
        let Some(sentinel) = entry.readable() else {
            return Err(OpError::internal(
                "a backup of a chain has a readable record",
            ));
        };
        let list = self.member_list(name, sentinel, Keep::Partitions).await?;
        if is_in_chain && list.is_none() {
            return Err(chain::lacks_list(name));
        }
        let parts = self.checked_parts(name, sentinel, list.as_ref()).await?;
        if sentinel.wale.is_none() {
            return self.check_clear(name, &parts).await;
        }
        let key = Self::key(&layout::manifest(name))?;
        let head = self.store().head(&key).await;
        let head = head.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        match head {
            Some(_) => Ok(()),
            None => Err(OpError::new(
                Kind::CorruptData,
                format!("the manifest of backup {name} is not in the archive"),
            )),
        }
    }

    /// Whether a backup of another tool is not encrypted: its smallest partition shows it, no name does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when it is encrypted; damage of that partition; the store's failures.
    pub async fn check_clear(&self, name: &BackupName, parts: &[StoredPart]) -> Result<()> {
        let Some(smallest) = parts.iter().min_by_key(|part| part.size) else {
            return Ok(());
        };
        let key = Self::key(&smallest.key)?;
        let object = self.open_stored(&key, smallest.codec).await?;
        if !blocking(move || object.may_be_encrypted()).await?? {
            return Ok(());
        }
        Err(OpError::new(
            Kind::Configuration,
            format!(
                "backup {name} cannot be read: object {key} does not begin as {} does, so it is encrypted",
                smallest.codec
            ),
        )
        .hint("restore it with the tool that made it and its key, or restore another backup"))
    }

    /// Whether the WAL from the backup's start to its stop is there, under a codec that this version reads.
    async fn check_own_wal(&self, name: &BackupName, sentinel: &Sentinel) -> Result<()> {
        let Some(leg) = self.own_wal(name, sentinel).await? else {
            return Ok(());
        };
        let size = self.segment_size_of(name, sentinel).await?;
        match carried(self, &[leg], size).await?.lack {
            None => Ok(()),
            Some((gap, Lack::Missing(_))) => Err(OpError::new(
                Kind::CorruptData,
                format!(
                    "backup {name} never becomes consistent: WAL segment {} is not in the archive",
                    gap.from
                ),
            )),
            Some((gap, Lack::Unreadable(key))) => Err(OpError::new(
                Kind::Configuration,
                format!(
                    "backup {name} needs WAL segment {}, which is there only in a form that this version cannot read ({key})",
                    gap.from
                ),
            )),
        }
    }
}
