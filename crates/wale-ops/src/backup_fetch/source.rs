//! The backups that feed one restore.

use wale_pg::{ControlFile, MajorVersion};

use crate::backup_content::DiskNeeds;
pub(super) use crate::backup_content::StoredBackup as Source;
use crate::error::{Kind, OpError, Result};

/// The backups that a restore reads. The one that is restored says everything but the content of files: name, label,
/// control file, tablespaces, timeline. What it leaves out, as the increments of PostgreSQL 17 and WAL-G's deltas do, is
/// in those before it; today there are none.
pub(super) struct Sources {
    /// Oldest first.
    before: Vec<Source>,
    restored: Source,
}

impl Sources {
    /// A backup that needs no other.
    pub(super) fn only(backup: Source) -> Self {
        Self {
            before: Vec::new(),
            restored: backup,
        }
    }

    /// The backup that is restored.
    pub(super) fn restored(&self) -> &Source {
        &self.restored
    }

    /// Those that it builds on, oldest first.
    pub(super) fn before(&self) -> &[Source] {
        &self.before
    }

    /// All, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Source> {
        self.before.iter().chain([&self.restored])
    }

    /// Bytes of the budget that their descriptions hold.
    pub(super) fn held_bytes(&self) -> u64 {
        self.all().map(Source::held_bytes).sum()
    }

    /// What goes to each tablespace, at most.
    pub(super) fn needs(&self) -> DiskNeeds {
        let mut needs = DiskNeeds::new();
        for source in self.all() {
            for (space, need) in source.needs().iter() {
                needs.entry(*space).or_default().merge(*need);
            }
        }
        needs
    }

    /// Bytes of all files, where every backup says so.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.all().map(|source| source.sentinel.bytes()).sum()
    }

    /// How many files there are, where every backup says so.
    pub(super) fn files(&self) -> Option<u64> {
        let of = |source: &Source| source.manifest.as_ref().map(|manifest| manifest.files);
        self.all().map(of).sum()
    }

    /// How many partitions there are, and their bytes as stored.
    pub(super) fn parts(&self) -> (u64, u64) {
        let parts = self.all().flat_map(|source| &source.parts);
        parts.fold((0, 0), |(count, bytes), part| {
            (count + 1, bytes + part.size)
        })
    }

    /// Whether every file is checked against a manifest.
    pub(super) fn have_manifests(&self) -> bool {
        self.all().all(|source| source.manifest.is_some())
    }
}

/// The server's major version: as recorded, otherwise as the control file says.
///
/// # Errors
///
/// [`Kind::CorruptData`] where it says none that is known.
pub(super) fn version_of(
    recorded: Option<MajorVersion>,
    control_file: &ControlFile,
) -> Result<MajorVersion> {
    recorded.or_else(|| control_file.major()).ok_or_else(|| {
        OpError::new(
            Kind::CorruptData,
            "the restored cluster has an unknown version",
        )
    })
}
