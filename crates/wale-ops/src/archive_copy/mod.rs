//! Copying an archive into another store: backups and their WAL, byte for byte as they are stored.
//!
//! Nothing is decompressed, decrypted or sealed anew. `plan` decides (pure): which objects belong to the copy, in which
//! order, and what becomes of each. `run` acts, and [`report`] is what the user gets.
//!
//! ```text
//!   whose           both places are asked whose they are; wale.json is there before anything else
//!   WAL             one walk along both listings: put what is absent, compare what is there
//!   each backup     claim on its name → its objects → what is there is checked as a whole → sentinel → claim given back
//! ```
//!
//! An archive may also follow another one for good ([`follow`]): then it is asked what it lacks, and gets that.
//!
//! Invariants:
//!
//! * What is listed in the copy can be restored: a sentinel is put last, after the backup's parts and all WAL of the copy,
//!   and only when the copy's own check finds the backup whole.
//! * An object counts as copied when the destination has given it back and its SHA-256 is that of the source's bytes.
//! * Nothing at the destination is overwritten or deleted. Exceptions: `wale.json` learns of codecs; our own claim and
//!   the object of a moment that shows whether both places are one.
//! * The source is only read. What it loses meanwhile is left out, and said.

mod backup;
pub mod follow;
mod options;
mod pairs;
mod plan;
pub mod report;
mod run;
mod scope;
mod transfer;
mod wal;
mod whose;
mod workers;

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use options::{CopyMode, CopyOptions, Present, WalWish, Which, Wishes};
pub use report::{BackupFate, BackupLine, CopyReport, Trouble};
pub use run::run;
