//! PostgreSQL's vocabulary as types: positions, names, labels, the control file, the WAL page header, pages, time zones.
//!
//! What the room is for: every number and name that PostgreSQL writes down gets a type here, and a value of that type
//! is valid. What it refuses to know: files, sockets, threads, archives. All input is bytes or text that somebody else
//! has read, from a disk or from a stranger, and therefore all of it is checked and nothing is asserted.
//!
//! Invariants: parse and print are inverses; a name that parses is one PostgreSQL could have written; nothing here
//! panics whatever the input is. Layouts are those of little-endian servers of PostgreSQL 10 to 19.

#![allow(
    clippy::must_use_candidate,
    reason = "the crate is pure functions: saying so two hundred times hides the rest"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "nothing here panics; an expect states why it cannot fail"
)]
#![allow(
    clippy::doc_markdown,
    reason = "PostgreSQL and TimescaleDB are words, not code"
)]

mod text_form;

mod lsn;
mod major_version;
mod system_identifier;
mod timeline;

mod archive_file_name;
mod invalid_name;
mod wal_segment;

mod backup_label;
mod recovery_target;
mod tablespace_map;
mod timeline_history;

mod cluster_identity;
mod control_file;
mod enforced_settings;
mod shutdown_checkpoint;
mod wal_header;

pub mod byte_text;
pub mod exclusion;
pub mod page;
mod parameter_change;
pub mod relation;
mod zone;

pub use archive_file_name::ArchiveFileName;
pub use backup_label::{BackupFrom, BackupLabel, BackupLabelError};
pub use cluster_identity::{ClusterDifference, ClusterIdentity};
pub use control_file::{ClusterNonce, ClusterState, ControlFile, ControlFileError};
pub use enforced_settings::{EnforcedSettings, WalLevel};
pub use invalid_name::InvalidName;
pub use lsn::{InvalidLsn, Lsn};
pub use major_version::{InvalidVersion, MajorVersion};
pub use parameter_change::ParameterScan;
pub use recovery_target::{RecoveryTargetKind, RecoveryTargetTimeline, TARGET_SETTINGS};
pub use shutdown_checkpoint::{ShutdownCheckpointError, end_of_shutdown_checkpoint};
pub use system_identifier::{InvalidSystemIdentifier, SystemIdentifier};
pub use tablespace_map::{InvalidTablespaceMap, TablespaceMap};
pub use timeline::{InvalidTimeline, TimelineId};
pub use timeline_history::{InvalidTimelineHistory, ParentTimeline, Stretch, TimelineHistory};
pub use wal_header::{HeaderExpectation, WalHeaderError, WalPageHeader};
pub use wal_segment::{InvalidWalSegmentSize, WalSegmentError, WalSegmentName, WalSegmentSize};
pub use zone::{Zone, ZoneOffset};
