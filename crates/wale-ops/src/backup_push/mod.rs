//! `backup-push`: one base backup of a cluster into the archive.
//!
//! The sentinel is the commit point: it is the last object written, and a backup without one does not exist.
//! Whatever goes wrong before that ends the backup on the server (the connection is dropped), removes the objects
//! written so far as far as the store allows, and leaves no sentinel.
//!
//! ```text
//! preflight → RunningBackup::start → walk → PartitionPlan (pure)
//!   → partitions in parallel: read → check pages → crc → tar → compress → put; pg_control is read last  → Copied
//!   → stop                                                                                               → Ended
//!   → last partition: pg_control as read, backup_label, tablespace_map → manifest                        → Stored
//!   → wait until every segment start..stop is stored                                                     → Restorable
//!   → metadata → sentinel                                                                                → Committed → report
//! ```
//!
//! Each step consumes the one before, so a sentinel cannot be written before its WAL is there. What only one kind of server
//! has (label, map, session, wait for WAL) exists only with that kind (`backup_end.rs`): of a stopped server (`offline`) the
//! control file says what a running one would, there is no label, and the WAL that holds its last checkpoint goes with the
//! files.
//!
//! This module refuses to know where the archive is, how a server is asked to start a backup, and when backups are
//! due.

mod attempt;
mod backup;
mod backup_end;
mod commit;
mod configuration;
mod contents;
mod copied;
mod ended;
mod file_list;
mod files;
mod forks;
mod frame_index;
mod listing;
mod offline;
mod options;
mod packed;
mod pages;
mod partitions;
mod place;
mod plan;
mod preflight;
mod priority;
mod progress_share;
mod ready;
mod record;
mod report;
mod restorable;
mod run;
mod shutdown_checkpoint;
mod slot;
mod stopped;
mod stored;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod uploads;
mod wal_wait;

pub use offline::run_offline;
pub use options::{BackupOptions, DEFAULT_WAL_WAIT_LIMIT, DamagedPagePolicy, Processors};
pub use priority::Priority;
pub use report::{BackupReport, Started};
pub use run::run;
pub use slot::{Role, ScheduleSlot};
pub use wale_cluster::Checkpoint;
