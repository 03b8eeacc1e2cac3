//! What wale does: it archives and fetches WAL, takes, restores and lists base backups.
//!
//! The operations stand side by side on the archive (`wale-archive`). They know nothing of HTTP, flags, the environment or
//! global state: their caller hands in typed options and gets back a report or an [`OpError`].
//!
//! In each operation folder `plan.rs` decides (pure), `run.rs` acts and `report.rs` is what the caller gets.
//!
//! The invariant every operation keeps: **success is a promise**. A push reports success only after the store
//! confirmed that the object is durable, because PostgreSQL deletes its own copy on the strength of it; a fetch
//! delivers only bytes that were verified before the first one went out; absence is claimed only when it is proven.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

pub mod archive_copy;
mod backup_content;
pub mod backup_fetch;
pub mod backup_list;
pub mod backup_mark;
pub mod backup_push;
mod cluster_shown;
pub mod ownership;
pub mod promotion;
pub mod readers;
pub mod recoverable;
pub mod rehearse;
pub mod retention;
pub mod retry;
pub mod rival;
pub mod role;
pub mod server_check;
pub mod unknown_server;
pub mod unreadable_wal;
pub mod verify;
mod wal_content;
pub mod wal_fetch;
mod wal_file;
pub mod wal_push;
pub mod wal_survey;
pub mod wal_volume;

#[cfg(test)]
mod several_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod wal_g_tests;

pub use retention::sweep;
// The error and the clock of the archive are this room's, too.
pub use wale_archive::error::{self, Declined, InRecovery, Kind, Level, OpError, Retry};
// The names that a program needs to run these operations for a long time; wale-service sees no room below.
pub use wale_archive::{
    Archive, ArchiveOptions, BackupEntry, BackupSelector, Beginning, Catalog, Clock, Disputed,
    RefusedEncryption, Rehearsals, Remedy, SentinelRecord, StoredWal, foreign_cluster,
};
pub use wale_cluster::hand_over::Nonce;
pub use wale_cluster::recovery::renew_authorization;
pub use wale_cluster::{
    ArchiveStatus, ConnectOptions, DataDirectory, LockFile, Owner, PostmasterState, Secret,
    WalDirectory, read_bounded, read_bounded_text,
};
pub use wale_format::layout::wal_claim;
pub use wale_format::{BackupName, Encryption, RehearsalRecord};
pub use wale_pipeline::{CancellationToken, Progress, ProgressSnapshot};
pub use wale_storage::{CredentialEnd, Renewal};
