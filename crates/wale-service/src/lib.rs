//! The sidecar: HTTP endpoint, schedule, lifecycle, lock file, metrics.
//!
//! It decides nothing about data: every route parses, asks for a [`Permit`], calls one operation of `wale-ops` and
//! reports what came of it. It refuses to know settings, flags and the environment (the binary hands over
//! [`ServiceOptions`]), objects, SQL and file formats.
//!
//! Invariants: a push is answered with 200 or an error, never with a promise for later; the endpoint listens before
//! the lock file goes; every task is owned by something that joins it.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod app;
mod archiver;
mod backup;
mod contact;
mod drain;
mod first_backup;
mod follower;
mod hold;
mod housekeeping;
mod http;
mod journal;
mod lifecycle;
mod lock;
mod metrics;
mod notices;
mod notify;
mod options;
mod ownership;
mod promotion;
mod quiet;
mod reach;
mod recall;
mod recoverable;
mod remedy;
mod replica;
mod replica_metrics;
mod rival;
mod rotation;
mod schedule;
mod scheduler;
mod seconds;
mod serve;
mod server;
mod store_trial;
#[cfg(test)]
mod tests;
mod unknown;
mod verifier;

pub use archiver::strange_wal_directory;
pub use http::{
    ABSENT, ANSWER_HEADER, ARCHIVED, HANDED, HANDED_HEADER, MAY_START, SENT, TAKE_HEADER, Tls,
};
pub use lifecycle::{Complaint, Lifecycle, Permit, Phase, Topic};
pub use notify::Notifier;
pub use options::{
    FurtherArchive, Housekeeping, HttpLimits, HttpToken, NoticeOptions, ServiceOptions, StartMode,
    TokenFor, Verification,
};
pub use remedy::{BESIDE_BUFFERS_MIB, advice};
pub use schedule::Schedule;
pub use serve::{Service, serve};
