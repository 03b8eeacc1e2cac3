//! `backup-fetch`, `restore` and the sidecar's RESTORE: a base backup out of the archive into an empty directory.
//!
//! Everything that can be refused is refused before the first write. From then on a marker says that a restore is
//! half done, and `global/pg_control` is missing: a server cannot start from the directory until it is whole.
//!
//! ```text
//! catalog + target facts → plan (pure, all refusals) → marker Running → PG_VERSION, directories, links
//!   → backup_manifest, read a second time
//!   → `backup_content` reads the backup into the target, and finds it whole
//!   → links, tablespace map → [configuration, recovery settings] → one flush
//!   → global/pg_control by rename → marker removed, or Done
//! ```
//!
//! Into a stopped cluster's directory (`wale restore --delta`): `present` says whose it is and `unarchived` whether its WAL is in the
//! archive; after the marker `keep` takes `global/pg_control` away, then all that is not the backup's to the byte; what is left is
//! not brought again, and partitions of which nothing is needed are not read.
//!
//! `prepare` is the plan of the files and what it looks at, `planned` that of a cluster with its recovery (`outlook`: the WAL),
//! `run` the line, `finish` its end with `configure`. This module refuses to know how a backup is
//! read (`backup_content`), how recovery settings are written (wale-cluster), and when a restore is wanted.

mod addition;
pub mod aim;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod configure;
mod facts;
mod finish;
#[cfg(test)]
mod foreign_tests;
mod held;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod hostile_tests;
mod keep;
#[cfg(test)]
mod keep_tests;
mod libraries;
mod links;
mod local_wal;
mod lost;
mod manifest;
#[cfg(test)]
mod manifest_tests;
mod marker;
#[cfg(test)]
mod one_answer_tests;
mod only;
#[cfg(test)]
mod only_tests;
mod open;
mod options;
mod outlook;
mod pattern;
mod places;
mod plan;
mod planned;
mod prepare;
mod present;
mod raised;
mod report;
mod run;
mod source;
mod tablespaces;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unarchived;
mod wal;
mod way;
mod wipe;

pub use cluster::restore_cluster;
pub use libraries::MissingLibraries;
pub use only::{SomeOptions, SomeReport, fetch_some};
pub use options::{
    Existing, MissingTablespace, RestoreAs, RestoreClusterOptions, RestoreOptions,
    TablespaceSource, UnarchivedWal, WalSource,
};
pub use outlook::{PlannedGap, PlannedWal, Reach};
pub use pattern::PathPattern;
pub use planned::{PlannedRestore, plan_restore};
pub use report::{
    Estimate, FollowedTimelines, KeptCluster, Measured, PlannedRecovery, PlannedVolume, Preview,
    RestoreClusterOutcome, RestorePlan, RestoreReport,
};
pub use run::{preview, run};
pub use tablespaces::{NamedBy, PlannedTablespace};
pub use wale_archive::BackupSelector;
