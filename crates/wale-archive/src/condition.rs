//! Whether a base backup is whole, as far as a check shows that reads none of its partitions: its record, every
//! partition with its size, and the WAL from its start to its stop. It is checked before something else is deleted for
//! it, and before `LATEST` means it.

use tokio::sync::OnceCell;
use wale_format::layout;
use wale_format::{BackupName, Sentinel, ShownEncryption};
use wale_pipeline::blocking;

use crate::chain;
use crate::error::{Kind, OpError, Result};
use crate::lineage::Lineage;
use crate::member_list::Keep;
use crate::parts::StoredPart;
use crate::remedy::Remedy;
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

/// What a look at a backup showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What is wrong with it; `None` when nothing is.
    pub flaw: Option<Flaw>,
    /// How its partitions are encrypted, where the look had to open one.
    pub encryption: SeenEncryption,
}

/// What is known of the encryption of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeenEncryption {
    /// None of its partitions was opened.
    #[default]
    Unknown,
    /// They are in the clear.
    Clear,
    /// They are encrypted so.
    Encrypted(ShownEncryption),
}

impl From<Option<ShownEncryption>> for SeenEncryption {
    fn from(shown: Option<ShownEncryption>) -> Self {
        shown.map_or(Self::Clear, Self::Encrypted)
    }
}

/// Looks at backups of one catalog. The timelines around them are read once, and only where a delta asks for them.
#[derive(Debug)]
pub struct Looks<'a> {
    archive: &'a Archive,
    catalog: &'a Catalog,
    lineage: OnceCell<Lineage>,
}

impl<'a> Looks<'a> {
    /// Looks among the backups of that catalog.
    #[must_use]
    pub fn new(archive: &'a Archive, catalog: &'a Catalog) -> Self {
        Self {
            archive,
            catalog,
            lineage: OnceCell::new(),
        }
    }

    /// Looks at one of them. Of a delta, the backups that it builds on are looked at, too.
    ///
    /// Costs a listing of its partitions, a listing of its WAL, and a few small requests; of a delta, a listing for each backup
    /// that it builds on.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn at(&self, entry: &BackupEntry, depth: CheckDepth) -> Result<Looked> {
        let (archive, catalog) = (self.archive, self.catalog);
        if !entry.is_delta() {
            let none = Lineage::default();
            return archive.look_among(catalog, &none, entry, depth).await;
        }
        let read = || async { Ok::<_, OpError>(archive.lineage_of(&catalog.backups).await?.0) };
        let lineage = self.lineage.get_or_try_init(read).await?;
        archive.look_among(catalog, lineage, entry, depth).await
    }
}

impl Archive {
    /// What is wrong with a backup; `None` when nothing is. As [`Looks::at`], of one alone.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn look_at(
        &self,
        catalog: &Catalog,
        entry: &BackupEntry,
        depth: CheckDepth,
    ) -> Result<Option<Flaw>> {
        let looked = Looks::new(self, catalog).at(entry, depth).await?;
        Ok(looked.flaw)
    }

    /// As [`Looks::at`], where the lineage of the catalog's backups is known.
    pub(crate) async fn look_among(
        &self,
        catalog: &Catalog,
        lineage: &Lineage,
        entry: &BackupEntry,
        depth: CheckDepth,
    ) -> Result<Looked> {
        let mut encryption = SeenEncryption::Unknown;
        let looked = self.check(catalog, lineage, entry, depth, &mut encryption);
        let flaw = match looked.await {
            Ok(()) => None,
            Err(error) => Some(Flaw::of(error)?),
        };
        Ok(Looked { flaw, encryption })
    }

    /// Checks a backup, and notes how it is encrypted where that shows.
    async fn check(
        &self,
        catalog: &Catalog,
        lineage: &Lineage,
        entry: &BackupEntry,
        depth: CheckDepth,
        encryption: &mut SeenEncryption,
    ) -> Result<()> {
        let sentinel = match &entry.sentinel {
            SentinelRecord::Readable(sentinel) => sentinel,
            SentinelRecord::Damaged(reason) => {
                let message = format!("its record is damaged: {reason}");
                return Err(OpError::new(Kind::CorruptData, message));
            }
        };
        let parents = chain::parents(catalog, entry, lineage)?;
        if depth == CheckDepth::Record {
            return Ok(());
        }
        // All that is needed of those before is their files.
        for parent in parents.iter().copied().chain([entry]) {
            let parts = self.check_files(parent, entry.is_delta()).await?;
            if parent.readable().is_some_and(|one| one.wale.is_none()) {
                let shown = self.shown_encryption(&parts).await?;
                let refused = refuse_locked(&parent.name, &parts, shown.as_ref());
                if parent.name == entry.name {
                    *encryption = shown.into();
                }
                refused?;
            }
        }
        match depth {
            CheckDepth::Whole => self.check_own_wal(&entry.name, sentinel).await,
            CheckDepth::Parts | CheckDepth::Record => Ok(()),
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

    /// Whether what holds the files of a backup is there, as far as its record and its list say. Gives its partitions.
    async fn check_files(&self, entry: &BackupEntry, is_in_chain: bool) -> Result<Vec<StoredPart>> {
        let name = &entry.name;
        let Some(sentinel) = entry.readable() else {
            return Err(OpError::internal(
                "a backup of a chain has a readable record",
            ));
        };
        let list = if is_in_chain || sentinel.wale.is_none() {
            self.member_list(name, sentinel, Keep::Partitions).await?
        } else {
            None
        };
        if is_in_chain && list.is_none() {
            return Err(chain::lacks_list(name));
        }
        let parts = self.checked_parts(name, sentinel, list.as_ref()).await?;
        if sentinel.wale.is_none() {
            return Ok(parts);
        }
        let key = Self::key(&layout::manifest(name))?;
        let head = self.store().head(&key).await;
        let head = head.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        match head {
            Some(_) => Ok(parts),
            None => Err(OpError::new(
                Kind::CorruptData,
                format!("the manifest of backup {name} is not in the archive"),
            )),
        }
    }

    /// Whether a backup of another tool can be read: its smallest partition shows how it is encrypted, no name does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when it is encrypted and no key here opens it; damage of that partition; the store's failures.
    pub async fn check_clear(&self, name: &BackupName, parts: &[StoredPart]) -> Result<()> {
        let shown = self.shown_encryption(parts).await?;
        refuse_locked(name, parts, shown.as_ref())
    }

    /// How the partitions of a backup are encrypted, as the beginning of the smallest shows; nothing where they are in the clear.
    ///
    /// # Errors
    /// Damage of that partition; the store's failures.
    pub async fn shown_encryption(&self, parts: &[StoredPart]) -> Result<Option<ShownEncryption>> {
        let Some(smallest) = smallest(parts) else {
            return Ok(None);
        };
        let key = Self::key(&smallest.key)?;
        let object = self.open_stored(&key, smallest.codec).await?;
        blocking(move || object.shown()).await?
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

/// The partition that stands for all when it is asked how they are encrypted.
fn smallest(parts: &[StoredPart]) -> Option<&StoredPart> {
    parts.iter().min_by_key(|part| part.size)
}

/// Refuses a backup of which it was seen that no key here opens it.
fn refuse_locked(
    name: &BackupName,
    parts: &[StoredPart],
    shown: Option<&ShownEncryption>,
) -> Result<()> {
    let locked = shown.and_then(|shown| shown.locked);
    let (Some(locked), Some(part)) = (locked, smallest(parts)) else {
        return Ok(());
    };
    let key = &part.key;
    let why = match locked.method {
        Some(_) => format!("object {key}: {locked}"),
        None => format!(
            "object {key} does not begin as {} does, so it is encrypted",
            part.codec
        ),
    };
    let message = format!("backup {name} cannot be read: {why}");
    let hint = "give the key that it was encrypted with, or restore another backup";
    Err(OpError::new(Kind::Configuration, message)
        .hint(hint)
        .remedy(Remedy::ReadingKey {
            method: locked.method,
        }))
}
