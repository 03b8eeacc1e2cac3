//! `wale`: flags and settings in, rooms assembled, exit status out. No logic of its own.

mod assemble;
mod cli;
mod client;
mod config;
mod logging;
mod progress;
mod report;
mod runtime;
mod verbs;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use indicatif::ProgressBar;
use wale_ops::Kind;

use cli::{Client, Early, Invocation, Verb};
use config::Loaded;
use report::{Absence, Failure};
use verbs::recovery::{self, Role};

fn main() -> ExitCode {
    // One implementation of cryptography for every connection, chosen before there is any. A second
    // call would be a bug and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match cli::parse(arguments.clone()) {
        Ok(invocation) => ExitCode::from(run(&invocation)),
        Err(early) => ExitCode::from(end_early(&early, &arguments)),
    }
}

fn run(invocation: &Invocation) -> u8 {
    let loaded = Loaded::of_process(invocation.flags.clone());
    let bar = ProgressBar::hidden();
    let json = loaded.settings.log_json;
    logging::install(loaded.settings.log_filter.clone(), json, bar.clone());
    if warns(&invocation.verb) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
    }
    match verbs::run(invocation, &loaded, &bar) {
        Ok(()) => 0,
        Err(Failure { error, status }) => {
            report::tell(&error, absence(&invocation.verb), json);
            status.unwrap_or_else(|| invocation.face.exit_status(error.kind))
        }
    }
}

/// Whether a verb tells about settings without effect: not those that PostgreSQL runs for every
/// segment, whose output fills the server's log.
fn warns(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Serve
            | Verb::BackupPush(_)
            | Verb::BackupFetch(_)
            | Verb::BackupList(_)
            | Verb::BackupMark(_)
            | Verb::Delete(_)
            | Verb::Retain(_)
            | Verb::Config(_)
    )
}

/// PostgreSQL asks `restore_command` for files until one is absent.
fn absence(verb: &Verb) -> Absence {
    match verb {
        Verb::WalFetch(_) | Verb::Client(Client::Fetch { .. }) => Absence::Normal,
        _ => Absence::Wrong,
    }
}

/// Prints help, or a mistake on the command line, and gives the status.
fn end_early(early: &Early, arguments: &[OsString]) -> u8 {
    // Nobody is left to be told that an output is closed.
    let _ = if early.on_stdout {
        std::io::stdout().write_all(early.text.as_bytes())
    } else {
        std::io::stderr().write_all(early.text.as_bytes())
    };
    if early.status != 0
        && cli::looks_like_a_fetch(arguments)
        && Role::of_directory(Path::new("")) == Role::ArchiveRecovery
    {
        // A mistyped restore_command must not look like the end of the WAL.
        return recovery::status(Kind::Usage, Role::ArchiveRecovery, true, cli::Face::Wale);
    }
    early.status
}
