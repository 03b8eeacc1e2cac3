//! The files that are there already: which of them a restore keeps, and which partitions nobody needs to read then.

use std::sync::Arc;

use wale_archive::Archive;
use wale_archive::member_list::Keep;
use wale_archive::parts::StoredPart;
use wale_pg::ControlFile;

use super::ledger::Ledger;
use super::manifest::{MANIFEST, TABLESPACE_MAP};
use super::ranges::{Ranges, ranges, runs_of};
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

    /// Puts the partitions aside of which no file is needed any more, and of the others finds the parts that are. The index of the files
    /// says where each lies; where there is none, WAL-G's list, which most backups of wale have, says what is in each partition;
    /// where neither can be read, all is read. Neither is trusted: what is missing in the end is looked for in all that was not read.
    pub(crate) async fn spare_partitions(&mut self, archive: &Archive) {
        if self.manifest.is_none() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let wanted = move |name: &str| ledger.is_missing(name);
        if let Some(ranges) = ranges(archive, &self.name, &self.parts, wanted).await {
            self.spare_by(ranges);
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

    /// Whether there is an index by which parts of partitions are read.
    pub(crate) fn is_read_in_part(&self) -> bool {
        self.has_index
    }

    /// Reads of the partitions only what the index says. Those that it does not know are read whole.
    fn spare_by(&mut self, mut ranges: Ranges) {
        let parts = std::mem::take(&mut self.parts);
        // The first has the directories, the last the control file.
        let last = parts.iter().filter_map(|part| part.number).max();
        ranges.retain(|number, _| *number != 0 && Some(*number) != last);
        let is_spare = |part: &StoredPart| {
            let runs = part.number.and_then(|number| ranges.get(&number));
            runs.is_some_and(Vec::is_empty)
        };
        (self.spare, self.parts) = parts.into_iter().partition(is_spare);
        self.has_index = true;
        self.ranges = ranges;
        self.ranges.retain(|_, runs| !runs.is_empty());
    }

    /// Stored bytes that are not read.
    pub(crate) fn spared_bytes(&self) -> u64 {
        let whole = self.spare.iter().map(|part| part.size);
        let in_part = self.parts.iter().filter_map(|part| {
            let runs = runs_of(&self.ranges, part)?.iter();
            let read: u64 = runs.map(|run| run.stored.end - run.stored.start).sum();
            Some(part.size.saturating_sub(read))
        });
        whole.chain(in_part).sum()
    }

    /// How many partitions were put aside.
    pub(crate) fn spared(&self) -> u64 {
        self.spare.len() as u64
    }
}
