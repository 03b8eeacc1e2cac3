//! Whether a base backup is whole, as far as a check shows that reads none of its partitions: its record, every
//! partition with its size, and the WAL from its start to its stop. It is checked before something else is deleted for
//! it, and before `LATEST` means it.

use wale_format::layout;
use wale_format::{BackupName, Sentinel};
use wale_pipeline::blocking;

use crate::error::{Kind, OpError, Result};
use crate::member_list::Keep;
use crate::parts::StoredPart;
use crate::remedy::Remedy;
use crate::walk::{Lack, carried};
use crate::{Archive, BackupEntry, SentinelRecord};

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
    /// What is wrong with a backup; `None` when nothing is.
    ///
    /// Costs a listing of its partitions, a listing of its WAL, and a few small requests.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn look_at(&self, entry: &BackupEntry, look: CheckDepth) -> Result<Option<Flaw>> {
        let sentinel = match &entry.sentinel {
            SentinelRecord::Readable(sentinel) => sentinel,
            SentinelRecord::Damaged(reason) => {
                return Ok(Some(Flaw::Damaged(format!(
                    "its record is damaged: {reason}"
                ))));
            }
        };
        if entry.name.is_delta() || sentinel.delta_from.is_some() {
            let words = "it is a delta backup of WAL-G, which this version cannot restore yet";
            return Ok(Some(Flaw::Unreadable(words.to_owned())));
        }
        if look == CheckDepth::Record {
            return Ok(None);
        }
        match self.check_whole(&entry.name, sentinel, look).await {
            Ok(()) => Ok(None),
            Err(error) => Flaw::of(error).map(Some),
        }
    }

    async fn check_whole(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
        look: CheckDepth,
    ) -> Result<()> {
        let list = self.member_list(name, sentinel, Keep::Partitions).await?;
        let parts = self.checked_parts(name, sentinel, list.as_ref()).await?;
        if sentinel.wale.is_some() {
            let key = Self::key(&layout::manifest(name))?;
            let head = self.store().head(&key).await;
            let head = head.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
            if head.is_none() {
                let message = format!("the manifest of backup {name} is not in the archive");
                return Err(OpError::new(Kind::CorruptData, message));
            }
        } else {
            self.check_clear(name, &parts).await?;
        }
        if look == CheckDepth::Parts {
            return Ok(());
        }
        self.check_own_wal(name, sentinel).await
    }

    /// Whether a backup of another tool can be read: its smallest partition shows how it is encrypted, no name does.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when it is encrypted and no key here opens it; damage of that partition; the store's failures.
    pub async fn check_clear(&self, name: &BackupName, parts: &[StoredPart]) -> Result<()> {
        let Some(smallest) = parts.iter().min_by_key(|part| part.size) else {
            return Ok(());
        };
        let key = Self::key(&smallest.key)?;
        let object = self.open_stored(&key, smallest.codec).await?;
        let Some(locked) = blocking(move || object.look()).await??.1 else {
            return Ok(());
        };
        let why = match locked.method {
            Some(_) => format!("object {key}: {locked}"),
            None => format!(
                "object {key} does not begin as {} does, so it is encrypted",
                smallest.codec
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
