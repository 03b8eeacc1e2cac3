//! `verify`: is the archive what it should be, and what does it mean where it is not.
//!
//! ```text
//! stock: catalog, listing of WAL, what was proven before → which backups are whole by their names and sizes
//!   → plan (pure): what is due, and which share of it → read: backups into nowhere, WAL to its last byte → remembered
//!   → holes in the WAL → meaning (pure): which backup still leads where, which moments are lost → VerifyReport
//! ```
//!
//! Whether a backup is whole is asked as retention and copy ask it ([`wale_archive::Looks`]); what is read is read by the code
//! of a restore (`backup_content`) and of a fetch (`wal_content`). Nothing is ever deleted or repaired here. What was read is
//! remembered in the archive ([`wale_archive::proof`]); where that cannot be written, it is read again the next time.

mod backups;
mod last;
mod lines;
mod meaning;
mod options;
mod plan;
mod report;
mod run;
mod stock;
#[cfg(test)]
mod tests;
mod wal;
mod words;

pub use last::{LastVerified, last};
pub use options::{RATE_LEAST, Share, VerifyDepth, VerifyOptions};
pub use report::{BackupState, DamageKind, Finding, VerifiedBackup, VerifyReport, WalSum};
pub use run::run;
