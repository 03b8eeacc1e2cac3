//! The files that are there already: which of them a restore keeps, and which partitions nobody needs to read then.

use std::sync::Arc;

use wale_archive::Archive;
use wale_archive::member_list::Keep;
use wale_archive::parts::StoredPart;
use wale_pg::ControlFile;

use super::ledger::Ledger;
use super::manifest::{MANIFEST, TABLESPACE_MAP};
use super::stored::StoredBackup;

/// Files that always come with the backup: without its label and its control file nothing else is of use, and the map is changed.
const ALWAYS_COME: [&str; 4] = [ControlFile::PATH, "backup_label", TABLESPACE_MAP, MANIFEST];

/// What of the files that are there already is kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptFiles(Arc<Ledger>);

impl KeptFiles {
    /// Size and CRC-32C that a file must have to be kept; `None` for one that is never kept.
    pub(crate) fn expected(&self, path: &str) -> Option<(u64, u32)> {
        if ALWAYS_COME.contains(&path) {
            return None;
        }
        self.0.expected(path)
    }

    /// Notes that the file is what the backup has, and stays.
    pub(crate) fn keep(&self, path: &str) {
        self.0.keep(path);
    }

    /// Whether it stays.
    pub(crate) fn is_kept(&self, path: &str) -> bool {
        self.0.is_kept(path)
    }
}

impl StoredBackup {
    /// What of the files that are there already is kept: nothing, until it is said.
    pub(crate) fn kept(&self) -> KeptFiles {
        KeptFiles(Arc::clone(&self.ledger))
    }

    /// Puts the partitions aside of which no file is needed any more. WAL-G's list of files, which most backups of wale have, says
    /// what is in each; where there is none, or it cannot be read, all are read. The list is not trusted: what is missing in the end
    /// is looked for in the partitions that were put aside.
    pub(crate) async fn spare_partitions(&mut self, archive: &Archive) {
        if self.manifest.is_none() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let wanted = Arc::new(move |name: &str| ledger.is_missing(name));
        let asked = archive.member_list(&self.name, &self.sentinel, Keep::Sets(wanted));
        let sets = match asked.await {
            Ok(Some(sets)) => sets,
            Ok(None) => return,
            Err(error) => {
                let backup = &self.name;
                tracing::info!(%backup, "all partitions are read, for the list of their files cannot be: {}", error.chain());
                return;
            }
        };
        let parts = std::mem::take(&mut self.parts);
        let last = parts.iter().filter_map(|part| part.number).max();
        // The first has the directories, the last the control file.
        let is_needed = |part: &StoredPart| {
            let name = part.file_name();
            matches!(part.number, None | Some(0))
                || part.number == last
                || !sets.partitions.contains(name)
                || sets.wanted.contains(name)
        };
        (self.parts, self.spare) = parts.into_iter().partition(is_needed);
    }

    /// Bytes of the partitions that were put aside, as stored.
    pub(crate) fn spared_bytes(&self) -> u64 {
        self.spare.iter().map(|part| part.size).sum()
    }

    /// How many partitions were put aside.
    pub(crate) fn spared(&self) -> u64 {
        self.spare.len() as u64
    }
}
