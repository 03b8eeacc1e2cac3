//! The archive: one prefix in one store, bound to one cluster.
//!
//! It knows where things lie (by `wale_format::layout`), whose they are ([`Archive::ensure_identity`]), what is there
//! (look-up of WAL, [`Catalog`] of base backups), which WAL leads where ([`lineage`]), who may touch a name ([`claim`]), and
//! it alone seals and opens objects. It does not know how a segment or a backup is made: the operations stand above it.
//!
//! Invariants: an error of the store is never taken for absence; nothing that exists is overwritten, except the
//! identity when a codec or an encryption is added to it, and the note of what is disputed; an archive serves one system identifier only.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod adopt;
mod archive;
mod around;
mod catalog;
pub mod chain;
pub mod claim;
pub mod clock;
mod condition;
mod content;
pub mod control;
pub mod described;
mod disputed;
mod encryption;
pub mod error;
mod evidence;
mod foreign_cluster;
pub mod former;
mod histories;
mod identity;
mod latest;
mod level_choice;
mod levels;
pub mod lineage;
pub mod listing;
mod look;
mod lost_history;
pub mod member_list;
mod onward;
pub mod parts;
mod placed;
pub mod proof;
mod read;
mod readable;
mod rehearsed;
mod remedy;
mod tail;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wal;
pub mod walk;
mod witness;
mod write;

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod encryption_tests;

pub use adopt::RefusedEncryption;
pub use archive::{Archive, ArchiveOptions};
pub use catalog::{BackupEntry, Catalog, SentinelRecord};
pub use clock::Clock;
pub use condition::{CheckDepth, Flaw, Looked, Looks, SeenEncryption};
pub use content::ContentHash;
pub use disputed::Disputed;
pub use error::OpError;
pub use evidence::{HistoryWitness, WalEvidence, Witness};
pub use foreign_cluster::foreign_cluster;
pub use former::Beginning;
pub use histories::{HistoryBounds, Noted};
pub use latest::{BackupSelector, Chosen, Wanted};
pub use levels::Sealed;
pub use look::{Age, LOOK_HOLDS, Tail};
pub use lost_history::LostHistory;
pub use onward::Onward;
pub use placed::is_offline;
pub use read::{ConsumeError, Frames, SealedObject, damaged};
pub use readable::Unopened;
pub use rehearsed::Rehearsals;
pub use remedy::Remedy;
pub use wal::StoredWal;
pub use witness::Trace;
