//! `wal-fetch`: one WAL file out of the archive, for a server in recovery.
//!
//! PostgreSQL takes an exit status of 1 to 125 of `restore_command` for "not in the archive" and may end recovery
//! there. So three answers are kept strictly apart: the verified bytes, a *proven* absence, and everything else,
//! which is an error and never an absence.
//!
//! Invariants: every byte of a file was decoded and checked before the first one goes out; a damaged object is an
//! error that names it and is never delivered; nothing half-written ever has its final name.
//!
//! [`fetch`], [`fetch_to_path`] and [`prove_absent`] are single requests. [`Fetcher`] is the long-lived form, which
//! waits out an outage and fetches ahead of a server that replays. To a client on its own volume it gives the file without
//! sending it ([`Fetcher::fetch_for_taker`]).

mod absent;
#[cfg(test)]
mod absent_tests;
mod ahead;
mod fetcher;
#[cfg(test)]
mod fetcher_tests;
pub mod folder;
mod hand_over;
#[cfg(test)]
mod hand_over_tests;
mod landing;
mod places;
#[cfg(test)]
mod places_tests;
pub mod plan;
mod proofs;
mod report;
mod room;
mod run;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod witness_tests;

pub use absent::{has_namesake, prove_absent};
pub use fetcher::{Fetcher, FetcherOptions, Patience};
pub use report::{Absence, Delivery, FetchReport, FetchedWal, FetcherStats};
pub use run::{fetch, fetch_to_path, files_at_once};
