//! A command line as it was understood, or why it was not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wale_ops::Kind;

use super::copy::Copy;
use super::deletion::{BackupMark, Delete, Retain};
use super::rehearse::RehearseArguments;
use super::restore::RestoreArguments;
use super::verbs::{
    BackupFetch, BackupFetchSome, BackupList, BackupPush, Check, Client, Config, Page, WalFetch,
    WalPrefetch, WalPush,
};
use super::verify::Verify;
use crate::config::Flags;

/// The name under which the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// `wale`: the exit statuses of the error table.
    Wale,
    /// `wal-e`: WAL-E's shape and statuses.
    WalE,
}

impl Face {
    /// The face for the first argument of the process.
    pub(super) fn of(program: Option<&OsString>) -> Self {
        match program.and_then(|name| Path::new(name).file_name()) {
            Some(name) if name == "wal-e" => Face::WalE,
            _ => Face::Wale,
        }
    }

    /// The exit status for an error of this kind, from the error table.
    pub(crate) fn exit_status(self, kind: Kind) -> u8 {
        match self {
            Face::Wale => kind.exit_status(),
            Face::WalE => kind.wal_e_status(),
        }
    }

    /// The exit status of a command line that makes no sense.
    pub(super) fn usage_status(self) -> u8 {
        match self {
            Face::Wale => Kind::Usage.exit_status(),
            // What is wrong on WAL-E's command line ends as its bugs do.
            Face::WalE => Kind::Internal.wal_e_status(),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    /// No verb: WAL-E's status 127.
    Missing,
    Serve,
    BackupPush(BackupPush),
    BackupFetch(BackupFetch),
    BackupFetchSome(BackupFetchSome),
    Restore(Box<RestoreArguments>),
    Rehearse(Box<RehearseArguments>),
    BackupList(BackupList),
    /// `adopt`
    Adopt {
        /// As JSON.
        json: bool,
    },
    Check(Check),
    /// `status`
    Status {
        /// As JSON.
        json: bool,
    },
    Verify(Verify),
    BackupMark(BackupMark),
    Delete(Delete),
    Retain(Retain),
    Copy(Copy),
    WalPush(WalPush),
    WalFetch(WalFetch),
    WalPrefetch(WalPrefetch),
    Client(Client),
    Config(Config),
    /// `install`
    Install {
        /// The folder.
        folder: PathBuf,
    },
    /// `completions`
    Completions(clap_complete::Shell),
    Version,
    Reference(Page),
}

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// The name it was called by.
    pub(crate) face: Face,
    /// What is to be done.
    pub(crate) verb: Verb,
    /// Settings given as flags.
    pub(crate) flags: Flags,
    /// The verb in the words in which it was said: `backup-push`, `delete retain`.
    pub(crate) words: String,
}

/// A command line that ends the program at once: help, or a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Early {
    /// What to print.
    pub(crate) text: String,
    /// On standard output, or on standard error.
    pub(crate) on_stdout: bool,
    /// The exit status.
    pub(crate) status: u8,
}

impl Early {
    pub(super) fn help(text: String) -> Self {
        Self {
            text,
            on_stdout: true,
            status: 0,
        }
    }

    pub(super) fn mistake(face: Face, text: String) -> Self {
        Self {
            text,
            on_stdout: false,
            status: face.usage_status(),
        }
    }

    pub(super) fn of_wale(error: &clap::Error) -> Self {
        let mut text = error.render().to_string();
        if let Some(meant) = meant_verb(error) {
            text.extend(["\nhint: ", meant, "\n"]);
        }
        if error.use_stderr() {
            Self::mistake(Face::Wale, text)
        } else {
            Self::help(text)
        }
    }
}

/// What a word that is no verb was meant to be, as a sentence.
pub(super) fn meant_verb(error: &clap::Error) -> Option<&'static str> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    Some(match word.as_str() {
        "restore" | "fetch" | "recover" | "recovery" | "pitr" => {
            "to restore, say wale restore; for the files alone, backup-fetch DIRECTORY LATEST"
        }
        "drill" | "rehearsal" | "test-restore" => {
            "to try a restore out and throw it away, say wale rehearse --scratch DIR"
        }
        "list" | "ls" | "backups" | "show" => "to list the backups, say backup-list",
        "backup" | "push" => "to take a base backup, say backup-push",
        "verify" | "fsck" | "scrub" | "validate" => {
            "to look whether the archive is good, say wale verify; to prove a restore, wale rehearse"
        }
        "check" | "health" | "diagnose" => "to see what is wrong, say wale check",
        "settings" | "env" => "to see the settings, say wale config show",
        "replicate" | "sync" | "mirror" => {
            "to copy the archive into another store, say wale copy --to FILE"
        }
        "status" | "info" | "summary" => "to see what can be restored, say wale status",
        "archive" => "to archive a file, say wal-push FILE",
        "prune" | "purge" | "expire" => {
            "to delete what the settings do not keep, say wale retain; by hand, delete"
        }
        _ => return None,
    })
}
