//! The command line of `wale`: its verbs, and a flag for every declared setting that has one.

use clap::error::ErrorKind;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::copy::Copy;
use super::deletion::{BackupMark, Delete, Retain};
use super::rehearse::RehearseArguments;
use super::restore::RestoreArguments;
use super::verbs::{
    BackupFetchSome, BackupList, BackupPush, Check, Client, Config, Page, WalFetch, WalPrefetch,
    WalPush,
};
use super::verify::Verify;
use super::{Early, Face, Invocation, Verb, help};
use crate::config::{Facts, Flags, SETTINGS};

#[derive(Debug, Parser)]
#[command(
    name = "wale",
    bin_name = "wale",
    about = "Continuous archiving, base backups and restores for PostgreSQL",
    after_help = "Every setting is also an environment variable; `wale config show` has the values.",
    version,
    infer_long_args = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct WaleArguments {
    #[command(subcommand)]
    verb: WaleVerb,
}

#[derive(Debug, Subcommand)]
enum WaleVerb {
    /// Run the sidecar: archive, back up on schedule, restore
    Serve,
    /// Take a base backup
    BackupPush(BackupPush),
    /// Restore the cluster, to the end of the archive or to a moment before
    Restore(Box<RestoreArguments>),
    /// Restore into a scratch folder, start the copy cut off, look at it, and throw it away
    Rehearse(Box<RehearseArguments>),
    /// Restore the files of a base backup
    BackupFetch(BackupFetchSome),
    /// List the base backups
    BackupList(BackupList),
    /// Say what another tool's archive holds, and what changes in it
    Adopt {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look whether everything is well: settings, archive, server, WAL, base backups
    #[command(alias = "doctor")]
    Check(Check),
    /// Say what the archive holds, and from when to when it can be restored
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look whether every object is there and good, and say what damage means
    Verify(Verify),
    /// Mark a base backup to be kept
    BackupMark(BackupMark),
    /// Delete what the retention settings do not keep
    Retain(Retain),
    /// Delete base backups and WAL
    Delete(Delete),
    /// Copy base backups and WAL into another archive
    Copy(Copy),
    /// Archive a file
    WalPush(WalPush),
    /// Fetch an archived file
    WalFetch(WalFetch),
    /// Fetch a segment ahead of recovery; wal-fetch starts it
    WalPrefetch(WalPrefetch),
    /// Ask a running sidecar over HTTP
    #[command(subcommand)]
    Client(Client),
    /// Show the settings
    #[command(subcommand)]
    Config(Config),
    /// Put this program into a folder, for a database image without wget
    Install {
        /// The folder, which must be there
        folder: std::path::PathBuf,
    },
    /// Print what completes the verbs and options in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Print a page of the generated reference
    #[command(hide = true)]
    Reference {
        /// The page
        page: Page,
    },
}

/// The command with the settings' flags.
pub(crate) fn command() -> clap::Command {
    let with_flag = facts().filter_map(|setting| Some((setting, setting.flag?)));
    with_flag.fold(WaleArguments::command(), |command, (setting, flag)| {
        command.arg(
            Arg::new(setting.name)
                .long(flag)
                .global(true)
                .value_name("VALUE")
                .help(in_full(setting))
                .help_heading(setting.group.title())
                .hide_short_help(true),
        )
    })
}

fn facts() -> impl Iterator<Item = &'static Facts> {
    SETTINGS.iter().map(|setting| setting.facts())
}

/// The same settings as options before a verb.
pub(super) fn options(flags: &Flags) -> Vec<String> {
    let option = |setting: &Facts| {
        let value = flags.get(setting.name)?;
        Some(format!("--{}={value}", setting.flag?))
    };
    facts().filter_map(option).collect()
}

fn in_full(setting: &Facts) -> String {
    format!(
        "{} [variable: {}]",
        setting.doc.trim_end_matches('.'),
        setting.name
    )
}

/// What a server or a container runs, without the settings' flags.
#[derive(Debug, Parser)]
#[command(disable_help_subcommand = true)]
struct PlainArguments {
    #[command(subcommand)]
    verb: PlainVerb,
}

#[derive(Debug, Subcommand)]
enum PlainVerb {
    Serve,
    WalPush(WalPush),
    WalFetch(WalFetch),
    WalPrefetch(WalPrefetch),
    #[command(subcommand)]
    Client(Client),
}

/// What is run for each file, where it is plain. clap gives a copy of each setting's flag to each verb, which takes longer than
/// all else that a small client does, and which the sidecar would keep in memory. Whatever is not understood here is left to
/// the whole command line.
fn plain(arguments: &[std::ffi::OsString]) -> Option<Verb> {
    let arguments = PlainArguments::try_parse_from(arguments).ok()?;
    Some(match arguments.verb {
        PlainVerb::Serve => Verb::Serve,
        PlainVerb::WalPush(arguments) => Verb::WalPush(arguments),
        PlainVerb::WalFetch(arguments) => Verb::WalFetch(arguments),
        PlainVerb::WalPrefetch(arguments) => Verb::WalPrefetch(arguments),
        PlainVerb::Client(client) => Verb::Client(client),
    })
}

/// Parses the arguments, the program's name first.
pub(super) fn parse(arguments: Vec<std::ffi::OsString>) -> Result<Invocation, Early> {
    if let Some(verb) = plain(&arguments) {
        return Ok(invocation(verb, Flags::new()));
    }
    parse_whole(arguments)
}

/// The same by the whole command line, with the settings' flags.
fn parse_whole(arguments: Vec<std::ffi::OsString>) -> Result<Invocation, Early> {
    let early = |error: clap::Error| Early::of_wale(&error);
    let arguments = help::in_other_words(arguments);
    let matches = match command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            let shown = help::command(WaleArguments::command());
            // The same words ask for the same page.
            let error = shown
                .try_get_matches_from(&arguments)
                .err()
                .unwrap_or(error);
            return Err(early(error));
        }
        Err(error) => return Err(early(error)),
    };
    let flags: Flags = facts()
        .filter(|setting| setting.flag.is_some())
        .filter_map(|setting| {
            let value: &String = matches.get_one(setting.name)?;
            Some((setting.name.to_owned(), value.clone()))
        })
        .collect();
    let verb = match WaleArguments::from_arg_matches(&matches)
        .map_err(early)?
        .verb
    {
        WaleVerb::Serve => Verb::Serve,
        WaleVerb::BackupPush(arguments) => Verb::BackupPush(arguments),
        WaleVerb::Restore(arguments) => Verb::Restore(arguments),
        WaleVerb::Rehearse(arguments) => Verb::Rehearse(arguments),
        WaleVerb::BackupFetch(arguments) if arguments.only.is_empty() => {
            Verb::BackupFetch(arguments.fetch)
        }
        WaleVerb::BackupFetch(arguments) => Verb::BackupFetchSome(arguments),
        WaleVerb::BackupList(arguments) => Verb::BackupList(arguments),
        WaleVerb::Adopt { json } => Verb::Adopt { json },
        WaleVerb::Check(arguments) => Verb::Check(arguments),
        WaleVerb::Status { json } => Verb::Status { json },
        WaleVerb::Verify(arguments) => Verb::Verify(arguments),
        WaleVerb::BackupMark(arguments) => Verb::BackupMark(arguments),
        WaleVerb::Retain(arguments) => Verb::Retain(arguments),
        WaleVerb::Delete(arguments) => Verb::Delete(arguments),
        WaleVerb::Copy(arguments) => Verb::Copy(arguments),
        WaleVerb::WalPush(arguments) => Verb::WalPush(arguments),
        WaleVerb::WalFetch(arguments) => Verb::WalFetch(arguments),
        WaleVerb::WalPrefetch(arguments) => Verb::WalPrefetch(arguments),
        WaleVerb::Client(client) => Verb::Client(client),
        WaleVerb::Config(config) => Verb::Config(config),
        WaleVerb::Install { folder } => Verb::Install { folder },
        WaleVerb::Completions { shell } => Verb::Completions(shell),
        WaleVerb::Version => Verb::Version,
        WaleVerb::Reference { page } => Verb::Reference(page),
    };
    Ok(invocation(verb, flags))
}

fn invocation(verb: Verb, flags: Flags) -> Invocation {
    Invocation {
        face: Face::Wale,
        verb,
        flags,
        words: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_plain_command_line_is_what_the_whole_one_says() {
        for plain in [
            "wale client push 000000010000000000000001",
            "wale client push --url http://sidecar:5000 000000010000000000000001 --timeout 7",
            "wale client fetch 00000002.history pg_wal/RECOVERYHISTORY --standby",
            "wale client fetch 00000002.history pg_wal/RECOVERYHISTORY --url=https://sidecar",
            "/usr/bin/wale client ready --timeout=1",
            "wale client push -- --odd",
            "wale serve",
            "wale wal-push pg_wal/000000010000000000000001",
            "wale wal-push pg_wal/000000010000000000000001 -p 4",
            "wale wal-fetch 000000010000000000000001 pg_wal/RECOVERYXLOG -p 0",
            "wale wal-prefetch /pg_wal 000000010000000000000001",
        ] {
            let verb = super::plain(&words(plain)).expect(plain);
            let whole = parse_whole(words(plain)).expect(plain);
            assert_eq!(whole, invocation(verb, Flags::new()), "{plain}");
        }
        for whole in [
            "wale client push 000000010000000000000001 --memory 64MiB",
            "wale --memory 64MiB client push 000000010000000000000001",
            "wale client push 000000010000000000000001 --tim 7",
            "wale client push",
            "wale client push x y",
            "wale client",
            "wale client help",
            "wale client push --help",
            "wale client --version",
            "wale serve --memory 64MiB",
            "wale serve x",
            "wale wal-push",
            "wale wal-push --help",
            "wale wal-fech x y",
            "wale backup-push",
            "wale help client",
            "wale --help",
            "wale",
        ] {
            assert_eq!(plain(&words(whole)), None, "{whole}");
        }
    }
}
