//! Retention: which base backups and which WAL may go, why, and making them go.
//!
//! Deletion is decided first and shown: [`plan`] says of every backup whether it stays and for what reason, [`wal`]
//! says the same of every WAL object, given the backups that stay. Both are pure. [`run`] takes stock, asks them, and
//! deletes in an order in which every interruption leaves an archive that keeps its promises.
//!
//! Invariants:
//!
//! * No WAL that a remaining backup needs is deleted, along all timelines that lead out of it; a backup whose deletion
//!   the store refused remains, and so does its WAL.
//! * A backup stops being listed before the first of its other objects goes; a run that was killed is finished by the
//!   next one.
//! * The process that removes a backup's objects has the claim on its name (`wale_archive::claim`). So it never removes
//!   those of another attempt of the same name.
//! * The last backup that can be restored is never deleted, except by [`Request::Everything`].
//! * The rules count along the line to the newest timeline, and on each abandoned branch by itself.
//! * Backups are ordered by the time at which they ended, never by their names: after `pg_upgrade` positions and
//!   timelines begin anew.
//! * What is not understood (names, sentinels, histories) stays, and whatever it could need stays too.

mod branches;
mod facts;
mod inventory;
mod newcomers;
mod options;
pub mod plan;
pub mod policy;
mod reasons;
mod report;
mod run;
mod seize;
pub mod sweep;
#[cfg(test)]
mod tests;
mod time_of_day;
mod waiting;
pub mod wal;
mod wanted;

pub use branches::DEFAULT_REQUEST_INTERVAL;
pub use facts::{BackupFacts, BackupPlace, Branch};
pub use inventory::Inventory;
pub use options::{Act, Options, Tell};
pub use plan::{Bound, Request, Unfinished};
pub use policy::{Policy, WalRetention};
pub use reasons::reasons;
pub use report::{Line, Refused, Report, What};
pub use run::{old_versions, run};
pub use time_of_day::TimeOfDay;
pub use waiting::{waits_no_more, waits_since};
pub use wanted::{Wanted, is_wanted, wanted};
