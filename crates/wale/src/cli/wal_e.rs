//! The command line of WAL-E 1.1: global options before the verb, its options after it.
//!
//! Follows the spelling of WAL-E's argparse parser: `-p 0`, `-p0`, `-p=0`, unambiguous prefixes of
//! long options, usage errors with status 2, no verb with status 127.

use clap::{Parser, Subcommand};

use super::deletion::Delete;
use super::verbs::{BackupFetch, BackupList, BackupPush, WalFetch, WalPush};
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
struct Arguments {
    /// S3 access key; has no effect in this version
    #[arg(
        short = 'k',
        long,
        value_name = "ID",
        conflicts_with = "aws_instance_profile"
    )]
    aws_access_key_id: Option<String>,
    /// Use the role of the instance; has no effect in this version
    #[arg(long)]
    aws_instance_profile: bool,
    /// Accepted, unused, as in WAL-E
    #[arg(long, value_name = "ID")]
    gs_access_key_id: Option<String>,
    /// Azure account; has no effect in this version
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
}

/// Parses the arguments, the program's name first.
pub(super) fn parse(arguments: Vec<std::ffi::OsString>) -> Result<Invocation, Early> {
    let parsed = Arguments::try_parse_from(arguments).map_err(|error| Early::of_wal_e(&error))?;
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
    };
    Ok(Invocation {
        face: Face::WalE,
        verb,
        flags,
    })
}

fn flags(parsed: &Arguments) -> Flags {
    let given = [
        ("WALE_FILE_PREFIX", &parsed.file_prefix),
        ("WALE_S3_PREFIX", &parsed.s3_prefix),
        ("WALE_GS_PREFIX", &parsed.gs_prefix),
        ("WALE_WABS_PREFIX", &parsed.wabs_prefix),
        ("WALE_GPG_KEY_ID", &parsed.gpg_key_id),
    ];
    let mut flags: Flags = given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect();
    if parsed.terse {
        flags.insert("WALE_LOG".into(), "warn".into());
    }
    flags
}
