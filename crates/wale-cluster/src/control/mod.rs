//! The SQL connection to the server: facts, settings, extensions, and running base backups.
//!
//! libpq's options are honoured as libpq honours them (see [`ConnectOptions`]), but nothing is read from
//! the environment here. Every session is set up so that no time-out of the server's configuration can
//! end a base backup that takes hours, and so that no schema of a user can stand between us and
//! `pg_catalog`.
//!
//! Invariants: the task that drives a connection is owned by its [`Control`] and ends with it; a lost
//! connection is noticed without a statement being sent ([`Control::watch`]).

mod backup;
mod catalog;
mod connection;
mod examine;
mod options;
mod passfile;
mod relations;
mod tls;

pub use backup::{Checkpoint, RunningBackup, StoppedBackup};
pub use catalog::{ArchiverDeed, ArchiverStats, ControlStamp, ExtensionInventory, ServerFacts};
pub use connection::{ConnectionWatch, Control};
pub use examine::{CopyFacts, IndexFaults, TimescaleFacts, TimescaleLook};
pub use options::{ConnectOptions, Secret, SslMode};
pub use relations::DatabaseRelations;
pub use tls::{checking_client, unchecking_client};
