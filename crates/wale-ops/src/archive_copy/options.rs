//! What a caller asks for.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wale_archive::BackupSelector;
use wale_format::BackupName;
use wale_pg::ArchiveFileName;

use crate::retry::RetryBudget;

/// Which backups are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All of them, and all WAL.
    #[default]
    All,
    /// These, their parents, and the WAL that their restores may read.
    These(Vec<BackupSelector>),
    /// What an archive lacks that follows the source.
    Lacking(Wishes),
}

/// What an archive that follows another one wants of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The backups that it wants and does not have.
    pub backups: Vec<BackupName>,
    /// Those that it has.
    pub there: Vec<BackupName>,
    /// Which WAL.
    pub wal: WalWish,
}

/// Which WAL files of an archive are wanted, by name and the time at which they were stored. The default is all of them.
#[derive(Clone, Default)]
pub struct WalWish(Option<Arc<JudgeWal>>);

type JudgeWal = dyn Fn(&ArchiveFileName, DateTime<Utc>) -> bool + Send + Sync;

impl WalWish {
    /// Those for which this holds.
    #[must_use]
    pub fn of(
        judge: impl Fn(&ArchiveFileName, DateTime<Utc>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(judge)))
    }

    /// Whether this file is wanted.
    #[must_use]
    pub fn takes(&self, name: &ArchiveFileName, stored: DateTime<Utc>) -> bool {
        self.0.as_ref().is_none_or(|judge| judge(name, stored))
    }
}

impl fmt::Debug for WalWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "WalWish(some)"
        } else {
            "WalWish(all)"
        })
    }
}

impl PartialEq for WalWish {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for WalWish {}

/// What is done with an object that is at the destination already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Present {
    /// It is read on both sides and compared.
    #[default]
    Compared,
    /// It counts as done where it has the size of the source's: what an earlier copy has put was compared then.
    TrustedBySize,
}

/// Whether anything is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Only say what would be done.
    Show,
    /// Copy.
    #[default]
    Copy,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Which backups.
    pub which: Which,
    /// What is done with what is there.
    pub present: Present,
    /// Whether anything is written.
    pub act: CopyMode,
    /// Objects that move at a time; one at least.
    pub workers: usize,
    /// How often an object is tried.
    pub retry: RetryBudget,
}

impl CopyOptions {
    /// Everything, compared, with so many objects at a time.
    #[must_use]
    pub const fn new(workers: usize) -> Self {
        Self {
            which: Which::All,
            present: Present::Compared,
            act: CopyMode::Copy,
            workers,
            retry: RetryBudget::OBJECT,
        }
    }
}
