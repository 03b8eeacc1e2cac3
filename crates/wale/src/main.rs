//! `wale`: flags and settings in, rooms assembled, exit status out. No logic of its own.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod assemble;
mod bounds;
mod cli;
mod client;
mod config;
mod goal;
mod history_beside;
mod logging;
mod progress;
mod report;
mod runtime;
mod stores;
mod verbs;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use indicatif::ProgressBar;
use wale_ops::Kind;

use cli::{Client, Early, Face, Invocation, Verb};
use config::declared::{self, LogFormat};
use config::{Loaded, Several};
use logging::{Destinations, Format, LogOptions};
use report::{Absence, Failure, Manner};
use verbs::recovery::{self, Role};

fn main() -> ExitCode {
    // One implementation of cryptography for every connection, chosen before there is any. A second
    // call would be a bug and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match cli::parse(arguments.clone()) {
        Ok(invocation) => {
            if matches!(invocation.verb, Verb::Serve) {
                config::allocator::settle();
            }
            ExitCode::from(run(&invocation))
        }
        Err(early) => ExitCode::from(end_early(&early, &arguments)),
    }
}

fn run(invocation: &Invocation) -> u8 {
    let several = match invocation.face {
        Face::Wale => Several::Refused,
        Face::WalE => Several::FirstOfWalE,
    };
    let flags = invocation.flags.clone();
    let loaded = match invocation.verb {
        Verb::Client(_) => Loaded::of_client(flags),
        _ => Loaded::of_process(flags, several),
    };
    let bar = ProgressBar::hidden();
    let settings = &loaded.settings;
    let format = match invocation.face {
        _ if settings.get(&declared::WALE_LOG_FORMAT) == LogFormat::Json => Format::Json,
        Face::Wale => Format::Line,
        Face::WalE => Format::WalE,
    };
    let destinations = Destinations::of(
        settings.get(&declared::WALE_LOG_DESTINATION).as_deref(),
        format,
    );
    let options = LogOptions {
        filter: settings.get(&declared::WALE_LOG),
        format,
        destinations,
        facility: settings.get(&declared::WALE_SYSLOG_FACILITY),
        socket: settings.get(&declared::WALE_SYSLOG_SOCKET),
    };
    logging::install(options, bar.clone());
    if invocation.face == Face::WalE && starts_aloud(&invocation.verb) {
        let detail = format!("The subcommand is \"{}\".", invocation.words);
        tracing::info!(target: "wal_e.main", detail, "starting WAL-E");
    }
    if warns(&invocation.verb) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
    }
    if matches!(
        invocation.verb,
        Verb::WalFetch(_) | Verb::Client(Client::Fetch { .. })
    ) {
        abort_on_panic();
    }
    match verbs::run(invocation, &loaded, &bar) {
        Ok(()) => 0,
        Err(failure) => {
            let manner = match format {
                _ if destinations.is_nowhere() => Manner::Lines,
                Format::Line => Manner::Lines,
                Format::Json => Manner::Event,
                Format::WalE => Manner::WalE,
            };
            report::tell(&failure, absence(&invocation.verb), manner);
            let Failure { error, status, .. } = failure;
            status.unwrap_or_else(|| invocation.face.exit_status(error.kind))
        }
    }
}

/// A panic ends a process with 101, which PostgreSQL takes for the end of the WAL. A signal stops its recovery instead.
fn abort_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::abort();
    }));
}

/// WAL-E says that it starts, except for the verbs that PostgreSQL runs for every segment.
fn starts_aloud(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::Missing | Verb::Version | Verb::WalPush(_) | Verb::WalFetch(_) | Verb::WalPrefetch(_)
    )
}

/// Whether a verb reports settings without effect: not those that PostgreSQL runs for every
/// segment, whose output fills the server's log.
fn warns(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Serve
            | Verb::BackupPush(_)
            | Verb::BackupFetch(_)
            | Verb::BackupFetchSome(_)
            | Verb::Restore(_)
            | Verb::BackupList(_)
            | Verb::Adopt { .. }
            | Verb::Check(_)
            | Verb::Status { .. }
            | Verb::BackupMark(_)
            | Verb::Delete(_)
            | Verb::Retain(_)
            | Verb::Copy(_)
            | Verb::Config(_)
    )
}

/// PostgreSQL asks `restore_command` for files until one is absent.
fn absence(verb: &Verb) -> Absence {
    match verb {
        Verb::Client(Client::Fetch { standby: true, .. }) => Absence::Awaited,
        Verb::WalFetch(fetch) if Role::of_destination(&fetch.destination) == Role::Standby => {
            Absence::Awaited
        }
        Verb::WalFetch(_) | Verb::WalPrefetch(_) | Verb::Client(Client::Fetch { .. }) => {
            Absence::Normal
        }
        _ => Absence::Wrong,
    }
}

/// Prints help, or a mistake on the command line, and gives the status.
fn end_early(early: &Early, arguments: &[OsString]) -> u8 {
    // Nobody is left to hear that an output is closed.
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
