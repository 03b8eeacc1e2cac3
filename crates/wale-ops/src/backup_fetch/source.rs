//! The backups that feed one restore.

use wale_archive::member_list::NameQuestion;
use wale_archive::{Archive, BackupEntry, Catalog};
use wale_pg::{ControlFile, MajorVersion};

pub(super) use crate::backup_content::StoredBackup as Source;
use crate::backup_content::{DiskNeed, DiskNeeds};
use crate::error::{Kind, OpError, Result};

/// The backups that a restore reads. The one that is restored says everything but the content of files: name, label,
/// control file, tablespaces, timeline. What it leaves out, as WAL-G's deltas do, is in those before it.
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

    /// Reads what describes a backup, and those that it builds on.
    ///
    /// # Errors
    ///
    /// Those of [`Source::load`]; [`Kind::CorruptData`] when the backups of a chain do not fit together.
    pub(super) async fn load(
        archive: &Archive,
        catalog: &Catalog,
        entry: &BackupEntry,
    ) -> Result<Self> {
        Self::load_wanted(archive, catalog, entry, None).await
    }

    /// The same, where only some files are wanted: of a chain all are known all the same.
    ///
    /// # Errors
    ///
    /// As [`Sources::load`].
    pub(super) async fn load_wanted(
        archive: &Archive,
        catalog: &Catalog,
        entry: &BackupEntry,
        wanted: Option<NameQuestion>,
    ) -> Result<Self> {
        let parents = archive.parents(catalog, entry).await?;
        if parents.is_empty() {
            let alone = Source::load_wanted(archive, entry, wanted).await?;
            return Ok(Self::only(alone));
        }
        let mut before = Source::load_chain(archive, entry, &parents).await?;
        let restored = before.remove(0);
        before.reverse();
        Ok(Self { before, restored })
    }

    /// Puts partitions aside that nobody needs: their files are there already.
    pub(super) async fn spare_partitions(&mut self, archive: &Archive) {
        self.restored.spare_partitions(archive).await;
    }

    /// How many partitions were put aside.
    pub(super) fn spared(&self) -> u64 {
        self.restored.spared()
    }

    /// Their bytes, as stored.
    pub(super) fn spared_bytes(&self) -> u64 {
        self.restored.spared_bytes()
    }

    /// A sentence about the backups that the restored one builds on; none for a full backup.
    pub(super) fn chain_note(&self) -> Option<String> {
        let names: Vec<&str> = self.before.iter().map(|one| one.name.as_str()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "backup {} is a delta of WAL-G's: it is put together from {}, and itself",
                self.restored.name,
                names.join(", ")
            )
        })
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
        if let Some(bytes) = self.largest_state() {
            let mut need = DiskNeed::default();
            need.add(bytes);
            return DiskNeeds::from([(None, need)]);
        }
        let mut needs = DiskNeeds::new();
        for source in self.all() {
            for (space, need) in source.needs().iter() {
                needs.entry(*space).or_default().merge(*need);
            }
        }
        needs
    }

    /// Of a chain, the bytes of the largest state that the data directory has on the way, where every backup says so: what a
    /// delta holds takes the place of what was there.
    fn largest_state(&self) -> Option<u64> {
        if self.before.is_empty() {
            return None;
        }
        let of = |source: &Source| match &source.sentinel {
            delta if delta.is_delta() => delta.data_catalog_size,
            full => full.data_catalog_size.max(full.bytes()),
        };
        let sizes: Option<Vec<u64>> = self.all().map(of).collect();
        sizes?.into_iter().max()
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
