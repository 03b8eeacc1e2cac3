//! The command line of WAL-E 1.1: global options before the verb, its options after it.
//!
//! Follows the spelling of WAL-E's argparse parser: `-p 0`, `-p0`, `-p=0`, unambiguous prefixes of
//! long options, help wherever it is asked for, usage errors with status 2, no verb with status 127.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::deletion::Delete;
use super::invocation::meant_verb;
use super::verbs::{BackupFetch, BackupList, BackupPush, WalFetch, WalPrefetch, WalPush};
use super::{Early, Face, Invocation, Verb};
use crate::config::Flags;

#[derive(Debug, Parser)]
#[command(
    name = "wal-e",
    bin_name = "wal-e",
    about = "Continuous archiving for PostgreSQL, with the command line of WAL-E",
    infer_long_args = true,
    disable_help_subcommand = true,
    subcommand_required = false
)]
struct WalEArguments {
    /// The name of the pair of keys for S3
    #[arg(
        short = 'k',
        long,
        value_name = "ID",
        conflicts_with = "aws_instance_profile"
    )]
    aws_access_key_id: Option<String>,
    /// Take the keys for S3 from the role of the instance
    #[arg(long)]
    aws_instance_profile: bool,
    /// Accepted, unused, as in WAL-E
    #[arg(long, value_name = "ID")]
    gs_access_key_id: Option<String>,
    /// Azure account
    #[arg(short = 'a', long, value_name = "NAME")]
    wabs_account_name: Option<String>,
    /// Archive in S3
    #[arg(long, value_name = "URL")]
    s3_prefix: Option<String>,
    /// Archive in Azure Blob Storage
    #[arg(long, value_name = "URL")]
    wabs_prefix: Option<String>,
    /// Archive in Google Cloud Storage
    #[arg(long, value_name = "URL")]
    gs_prefix: Option<String>,
    /// Archive in a mounted directory
    #[arg(long, value_name = "URL")]
    file_prefix: Option<String>,
    /// Encrypt to this key
    #[arg(long, value_name = "KEY")]
    gpg_key_id: Option<String>,
    /// Only messages of severity WARNING and up
    #[arg(long)]
    terse: bool,
    #[command(subcommand)]
    verb: Option<WalEVerb>,
}

#[derive(Debug, Subcommand)]
enum WalEVerb {
    /// Print the version
    Version,
    /// Take a base backup
    BackupPush(BackupPush),
    /// Restore the files of a base backup
    BackupFetch(BackupFetch),
    /// List the base backups
    BackupList(BackupList),
    /// Delete base backups and WAL
    Delete(Delete),
    /// Archive a file
    WalPush(WalPush),
    /// Fetch an archived file
    WalFetch(WalFetch),
    /// Fetch a segment ahead of recovery; wal-fetch starts it
    WalPrefetch(WalPrefetch),
}

/// Parses the arguments, the program's name first.
pub(super) fn parse(arguments: &[OsString]) -> Result<Invocation, Early> {
    let early = |error: clap::Error| early(arguments, &error);
    let matches = WalEArguments::command()
        .try_get_matches_from(arguments)
        .map_err(early)?;
    let words = words(&matches).join(" ");
    let parsed = WalEArguments::from_arg_matches(&matches).map_err(early)?;
    let flags = flags(&parsed);
    let verb = match parsed.verb {
        None => Verb::Missing,
        Some(WalEVerb::Version) => Verb::Version,
        Some(WalEVerb::BackupPush(arguments)) => Verb::BackupPush(arguments),
        Some(WalEVerb::BackupFetch(arguments)) => Verb::BackupFetch(arguments),
        Some(WalEVerb::BackupList(arguments)) => Verb::BackupList(arguments),
        Some(WalEVerb::Delete(arguments)) => Verb::Delete(arguments),
        Some(WalEVerb::WalPush(arguments)) => Verb::WalPush(arguments),
        Some(WalEVerb::WalFetch(arguments)) => Verb::WalFetch(arguments),
        Some(WalEVerb::WalPrefetch(arguments)) => Verb::WalPrefetch(arguments),
    };
    Ok(Invocation {
        face: Face::WalE,
        verb,
        flags,
        words,
    })
}

/// The names of the verb and of the verb below it.
fn words(matches: &ArgMatches) -> Vec<&str> {
    match matches.subcommand() {
        None => Vec::new(),
        Some((name, below)) => std::iter::once(name).chain(words(below)).collect(),
    }
}

/// Help if it is asked for anywhere, as argparse answers; otherwise the usage of the verb and the mistake.
fn early(arguments: &[OsString], error: &clap::Error) -> Early {
    if !error.use_stderr() {
        return Early::help(error.render().to_string());
    }
    let mut command = meant(arguments);
    if asks_for_help(arguments) {
        return Early::help(command.render_help().to_string());
    }
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).trim_end();
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    let message = lines.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let meant = meant_verb(error).map_or_else(String::new, |meant| format!("; {meant}"));
    let text = format!("usage: {usage}\nwal-e: error: {message}{meant}\n");
    Early::mistake(Face::WalE, text)
}

/// `-h`, `--help` and its prefixes, before the end of the options.
fn asks_for_help(arguments: &[OsString]) -> bool {
    let options = arguments.iter().skip(1).take_while(|word| *word != "--");
    options
        .filter_map(|word| word.to_str())
        .any(|word| word == "-h" || word.len() > 2 && "--help".starts_with(word))
}

/// The verb that these arguments name as far as they can be understood.
fn meant(arguments: &[OsString]) -> clap::Command {
    let mut command = WalEArguments::command();
    command.build();
    for word in arguments.iter().skip(1) {
        if let Some(below) = command.find_subcommand(word) {
            command = below.clone();
        }
    }
    command
}

/// The same settings as options before a verb.
pub(super) fn options(flags: &Flags) -> Vec<String> {
    let option = |(name, value): (&String, &String)| match name.as_str() {
        "WALE_FILE_PREFIX" => Some(format!("--file-prefix={value}")),
        "WALE_S3_PREFIX" => Some(format!("--s3-prefix={value}")),
        "WALE_GS_PREFIX" => Some(format!("--gs-prefix={value}")),
        "WALE_WABS_PREFIX" => Some(format!("--wabs-prefix={value}")),
        "WALE_GPG_KEY_ID" => Some(format!("--gpg-key-id={value}")),
        "AWS_ACCESS_KEY_ID" => Some(format!("--aws-access-key-id={value}")),
        "WABS_ACCOUNT_NAME" => Some(format!("--wabs-account-name={value}")),
        "AWS_INSTANCE_PROFILE" => Some("--aws-instance-profile".to_owned()),
        "WALE_LOG" => Some("--terse".to_owned()),
        _ => None,
    };
    flags.iter().filter_map(option).collect()
}

fn flags(parsed: &WalEArguments) -> Flags {
    let given = [
        ("WALE_FILE_PREFIX", &parsed.file_prefix),
        ("WALE_S3_PREFIX", &parsed.s3_prefix),
        ("WALE_GS_PREFIX", &parsed.gs_prefix),
        ("WALE_WABS_PREFIX", &parsed.wabs_prefix),
        ("WALE_GPG_KEY_ID", &parsed.gpg_key_id),
        ("AWS_ACCESS_KEY_ID", &parsed.aws_access_key_id),
        ("WABS_ACCOUNT_NAME", &parsed.wabs_account_name),
    ];
    let mut flags: Flags = given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect();
    if parsed.aws_instance_profile {
        flags.insert("AWS_INSTANCE_PROFILE".into(), "true".into());
    }
    if parsed.terse {
        flags.insert("WALE_LOG".into(), "warn".into());
    }
    flags
}
