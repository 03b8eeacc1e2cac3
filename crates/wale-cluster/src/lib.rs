//! A living PostgreSQL cluster, as a tool on the same machine sees it.
//!
//! | Module | Holds |
//! |---|---|
//! | [`control`] | the SQL connection: facts, settings, extensions, [`RunningBackup`] |
//! | [`data_directory`] | PGDATA: what is in it, what a base backup takes from it, is a server running |
//! | [`wal_directory`] | `pg_wal`: WAL files to archive, their archive status, WAL files put in place |
//! | [`hand_over`] | a WAL file that goes from the sidecar to the server's client by its name alone |
//! | [`recovery`] | recovery settings of every major version, `restore_command`, configuration files |
//! | [`restore_tree`] | writing a data directory: nothing escapes, owner and modes are right |
//! | [`restore_marker`] | the note a restore leaves in PGDATA about itself |
//! | [`lock_file`] | the file by which a database container says that it waits for the sidecar |
//! | [`trial`] | a server that is started on a restored copy, and the programs that look at it |
//! | [`durable`] | the only place with writes to the file system: temp file, flush, rename, flush |
//!
//! This room refuses to know what an archive is: no object, key, codec or backup name appears here.
//! It reads no environment variable and no clock other than a file's time stamps; what it needs is
//! given to it as typed options.
//!
//! The file part is synchronous and may block; async callers run it on a blocking thread. The SQL part
//! is asynchronous, and every task it starts is owned by the value that needs it.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod byte_path;
pub mod control;
pub mod data_directory;
pub mod durable;
mod error;
mod folder_names;
pub mod hand_over;
pub mod lock_file;
mod owner;
pub mod recovery;
mod regular_file;
pub mod restore_marker;
pub mod restore_tree;
pub mod trial;
pub mod wal_directory;
mod wal_queue;
mod write_out;

pub use byte_path::{path_of_text, text_of_path};
pub use control::{
    ArchiverDeed, ArchiverStats, Checkpoint, ConnectOptions, ConnectionWatch, Control,
    ControlStamp, CopyFacts, DatabaseRelations, ExtensionInventory, IndexFaults, RunningBackup,
    Secret, ServerFacts, SslMode, StoppedBackup, TimescaleFacts, TimescaleLook,
};
pub use data_directory::{
    DataDirectory, DirectoryContent, Entry, EntryKind, Listing, PostmasterFile, PostmasterState,
    RecoveryRole, Tablespace, WalkOptions, WalkWarning,
};
pub use error::{ClusterError, FileKind, Situation};
pub use lock_file::LockFile;
pub use owner::Owner;
pub use regular_file::{read_bounded, read_bounded_text};
pub use restore_marker::{RestoreMarker, RestoreRequest, RestoreState};
pub use restore_tree::{Fate, RestoreTree, TreeEntry, TreeKind};
pub use wal_directory::{ArchiveStatus, FileStamp, WalDirectory, WalFile};
pub use wal_queue::{Flow, WalQueue};
pub use write_out::WriteOut;
