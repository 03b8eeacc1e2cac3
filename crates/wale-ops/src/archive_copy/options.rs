//! What a caller asks for.

use wale_archive::BackupSelector;

use crate::retry::RetryBudget;

/// Which backups are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All of them, and all WAL.
    #[default]
    All,
    /// These, their parents, and the WAL that their restores may read.
    These(Vec<BackupSelector>),
}

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
