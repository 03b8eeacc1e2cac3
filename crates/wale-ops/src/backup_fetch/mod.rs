//! `backup-fetch` and the sidecar's RESTORE: a base backup out of the archive into an empty directory.
//!
//! Everything that can be refused is refused before the first write. From then on a marker says that a restore is
//! half done, and `global/pg_control` is missing: a server cannot start from the directory until it is whole.
//!
//! ```text
//! catalog + target facts → plan (pure, all refusals) → marker Running → PG_VERSION, directories, links
//!   → backup_manifest, read a second time
//!   → partitions in parallel: get → decompress → untar → file, crc checked against the manifest
//!   → every file of the manifest has arrived once → [configuration, recovery settings] → one flush
//!   → global/pg_control by rename → marker removed, or Done
//! ```
//!
//! This module refuses to know how recovery settings are written (wale-cluster) and when a restore is wanted.

mod addition;
pub mod aim;
mod cluster;
mod extract;
mod facts;
mod finish;
mod held;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod hostile_tests;
mod ledger;
mod libraries;
mod links;
mod lost;
mod manifest;
#[cfg(test)]
mod manifest_tests;
#[cfg(test)]
mod one_answer_tests;
mod options;
mod places;
pub mod plan;
mod raised;
mod report;
mod run;
mod source;
mod tablespaces;
mod target;
#[cfg(test)]
mod tests;
mod wal;
mod way;
mod whole;
mod wipe;

pub use crate::archive::BackupSelector;
pub use cluster::restore_cluster;
pub use libraries::MissingLibraries;
pub use options::{
    MissingTablespace, Options, RestoreAs, RestoreClusterOptions, TablespaceSource, WalSource,
};
pub use report::{Preview, RestoreClusterOutcome, RestoreReport};
pub use run::{preview, run};
pub use tablespaces::{NamedBy, PlannedTablespace, RecordedTablespace, place_tablespaces};
