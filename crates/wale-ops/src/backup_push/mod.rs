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
//! This module refuses to know where the archive is, how a server is asked to start a backup, and when backups are
//! due.

mod commit;
mod copy;
mod options;
mod pages;
mod partition;
pub mod plan;
mod preflight;
mod report;
mod run;
mod throttle;
mod uploads;
mod wal_wait;

pub(crate) use options::default_workers;
pub use options::{DEFAULT_WAL_WAIT_LIMIT, DamagedPagePolicy, Options};
pub use report::{BackupReport, DamagedPage, Started};
pub use run::run;
pub use wale_cluster::Checkpoint;
