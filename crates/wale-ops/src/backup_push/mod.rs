//! `backup-push`: one base backup of a running cluster into the archive.
//!
//! The sentinel is the commit point: it is the last object written, and a backup without one does not exist.
//! Whatever goes wrong before that ends the backup on the server (the connection is dropped), removes the objects
//! written so far as far as the store allows, and leaves no sentinel.
//!
//! ```text
//! preflight → RunningBackup::start → walk → PartitionPlan (pure)
//!   → partitions in parallel: read → check pages → crc → tar → compress → put; pg_control is read last
//!   → stop → last partition: pg_control as read, backup_label, tablespace_map → manifest
//!   → wait until every segment start..stop is stored → metadata → sentinel → report
//! ```
//!
//! Of a stopped server (`offline`) the control file says what a running one would: there is no label, and the WAL that
//! holds its last checkpoint goes with the files.
//!
//! This module refuses to know where the archive is, how a server is asked to start a backup, and when backups are
//! due.

mod commit;
mod configuration;
mod copied;
mod files;
mod forks;
mod offline;
mod options;
mod pages;
mod partitions;
mod place;
pub mod plan;
mod preflight;
mod report;
mod run;
mod slot;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod uploads;
mod wal_wait;

pub use offline::run_offline;
pub use options::{DEFAULT_WAL_WAIT_LIMIT, DamagedPagePolicy, Options};
pub use report::{BackupReport, DamagedPage, Started};
pub use run::run;
pub use slot::{Role, Slot};
pub use wale_cluster::Checkpoint;
