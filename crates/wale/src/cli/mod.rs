//! The command line: what was typed. Two faces, chosen by the name under which the program was
//! called, with one set of verbs for both.
//!
//! Knows no setting's meaning and starts nothing.

mod copy;
mod deletion;
mod help;
mod invocation;
mod rehearse;
mod restore;
mod verbs;
mod verify;
mod wal_e;
mod wale;

use std::ffi::OsString;

pub(crate) use copy::Copy;
pub(crate) use deletion::{BackupMark, Delete, DeleteWhat, Deletion, Retain};
pub(crate) use invocation::{Early, Face, Invocation, Verb};
pub(crate) use rehearse::{RehearseArguments, Without};
pub(crate) use restore::{RestoreArguments, WalFrom};
pub(crate) use verbs::{
    BackupFetch, BackupFetchSome, BackupList, BackupPush, Check, Client, ClientTarget, Config,
    Page, WalFetch, WalPrefetch, WalPush,
};
pub(crate) use verify::Verify;
pub(crate) use wale::command;

impl Invocation {
    /// The settings given as flags, as options of this face before a verb: a process that is started with them reads
    /// the same, whatever the environment and a configuration file say.
    pub(crate) fn options(&self) -> Vec<String> {
        match self.face {
            Face::Wale => wale::options(&self.flags),
            Face::WalE => wal_e::options(&self.flags),
        }
    }
}

/// Parses the arguments of the process.
///
/// # Errors
/// What to print and how to end, for help and for mistakes.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Invocation, Early> {
    match Face::of(arguments.first()) {
        Face::Wale => wale::parse(arguments),
        Face::WalE => wal_e::parse(&arguments),
    }
}

/// Does a command line that was not understood mean to fetch WAL? A mistyped `restore_command` must
/// not look like the end of the WAL.
pub(crate) fn looks_like_a_fetch(arguments: &[OsString]) -> bool {
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    has("wal-fetch") || (has("client") && has("fetch"))
}

#[cfg(test)]
mod tests;
