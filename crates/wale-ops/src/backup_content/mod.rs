//! What is in a base backup: its partitions are read, decoded and untarred, and every member is held against the
//! manifest, or against the list that another tool made.
//!
//! Where the bytes go is not decided here. A [`Sink`] takes them: the tree of a restore, or [`Nowhere`], which keeps
//! nothing. So a backup can be checked to its last byte without a place for it, and what a check finds is what a
//! restore would find: it is the same code.
//!
//! ```text
//! catalog entry → StoredBackup: record, list, partitions, manifest (names as digests, in the ledger)
//!   → partitions in parallel: get → decode → untar → limits → ledger → sink, CRC-32C → ledger
//!   → everything came → second names of files → control file, label, folders of tablespaces → WholeBackup
//! ```
//!
//! Files that are there already may be kept (`kept`): they count as come, and partitions of which nothing is needed are not read.
//!
//! The room stands beside `archive`, not in it: the archive knows where things lie and whose they are, and does not know
//! how a backup is made. And it stands below the operations, for a restore is not the only one that reads a backup.
//! It refuses to know directories of this machine, recovery, and why a backup is read.
//!
//! Invariants: nothing that the archive says is trusted with memory ([`wale_archive::described`]) or with more bytes than were
//! announced; a member is let in once; a [`WholeBackup`] exists only after every check.

mod check;
mod extract;
mod kept;
mod ledger;
mod manifest;
mod memory;
mod needs;
mod ranges;
mod read;
mod sink;
mod stored;
mod tablespaces;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use check::{SomeFiles, WholeBackup, lacks_label};
#[cfg(test)]
pub(crate) use extract::FOREIGN_DIRECTORIES_MAX;
pub(crate) use extract::ForeignLink;
pub(crate) use kept::KeptFiles;
pub(crate) use manifest::{MANIFEST, Manifest, TABLESPACE_MAP};
pub(crate) use memory::WORKER_BYTES;
pub(crate) use needs::{DiskNeed, DiskNeeds};
pub(crate) use read::{BackupReader, Damages};
pub(crate) use sink::{Nowhere, Sink};
pub(crate) use stored::StoredBackup;
pub(crate) use tablespaces::{RecordedTablespace, is_version_folder};
