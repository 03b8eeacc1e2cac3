//! `wal-push`: one finished WAL file from the WAL directory into the archive.
//!
//! ```text
//! WalDirectory::open_file   regular file, handed over by PostgreSQL        → 404, 409
//! wal_file::check_segment   size, header, name, system identifier          → 500 damaged, 409 other cluster
//! look_and_claim            claim, adopt or compare                        → 409 other cluster
//! compare_all               there already: same bytes is success           → 409 other bytes, 500 not comparable
//! read → seal → bounded channel → put_unseen
//! refuse_disputed           the archive is still there, and nobody stored
//!                           other bytes under another codec                → 200 after the store confirmed
//! ```
//!
//! Invariants: nothing stored is ever overwritten; success is reported only after the store confirmed; the bytes
//! that were stored are those of one unchanged file; files in the WAL directory are only read, the archive status
//! included, which belongs to PostgreSQL alone; a file that is pushed ahead of its request appears after those before it.
//!
//! [`run`] is one push. [`Pusher`] is the long-lived form, which shares pushes of one name, looks ahead and
//! remembers.

mod abandoned;
mod compare;
mod done;
#[cfg(test)]
mod locked_tests;
mod memory;
mod plan;
mod pusher;
#[cfg(test)]
mod pusher_tests;
#[cfg(test)]
mod race_tests;
mod report;
mod run;
mod running_push;
mod source;
#[cfg(test)]
mod tests;
mod upload;

pub use pusher::{LOOK_AHEAD_MAX, Pusher, PusherOptions};
pub use report::{PushOutcome, PushReport, PusherStats};
pub use run::{PushOptions, run, run_path};
