//! `backup-list`: what base backups the archive has.
//!
//! A backup is listed when its sentinel exists, no matter who made it. Nothing is written.

mod report;
mod run;

pub use report::{BackupLook, BackupSummary, Tool};
pub use run::{latest, look, run};
