//! `rehearse`: a restored copy is started cut off from the world, recovers, and is looked at. It is the second half of a rehearsal;
//! the first is a restore (`backup_fetch`), and the verb puts them together.
//!
//! ```text
//! ScratchFolder::take        the folder is empty, or a former rehearsal's: what that left goes
//! [a restore into it]
//! run                        start → recovered, by the server's own words → SQL, amcheck, fingerprint → stop → checksums
//! Findings → RehearsalRecord the archive keeps it in the backup's folder
//! ScratchFolder::give_back   everything goes
//! ```
//!
//! Whatever ends it, the server is stopped first. A damaged copy is a finding, not an error: errors are what kept it from looking.

mod checks;
mod options;
mod plan;
mod report;
mod run;
mod scratch;

pub use options::{Fingerprint, LeftOut, RehearseOptions, RestoredCopy};
pub use plan::{Dice, random_moment};
pub use report::Findings;
pub use run::run;
pub use scratch::ScratchFolder;
