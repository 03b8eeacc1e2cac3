//! The verbs and their arguments, in the spellings that both faces of the program share.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use wale_ops::backup_fetch::PathPattern;

use crate::config::{mapping, size};

/// `backup-push`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackupPush {
    /// The data directory, absolute; default: PGDATA
    #[arg(value_name = "PG_CLUSTER_DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// Partitions written at a time
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pool_size: Option<u16>,
    /// The most bytes read per second, all workers together; units as in 50MB
    #[arg(long, value_name = "BYTES_PER_SECOND", value_parser = parse_rate)]
    pub(crate) cluster_read_rate_limit: Option<u64>,
    /// Back up a stopped server; its last WAL goes with the files
    #[arg(long)]
    pub(crate) while_offline: bool,
    /// Begin a new archive where this server's own was and is gone
    #[arg(long)]
    pub(crate) new_archive: bool,
}

/// `backup-fetch`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackupFetch {
    /// The data directory to make, absolute: missing or empty
    #[arg(value_name = "PG_CLUSTER_DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// A name that backup-list prints, or LATEST
    #[arg(value_name = "BACKUP_NAME")]
    pub(crate) name: String,
    /// Partitions read at a time
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pool_size: Option<u16>,
    /// Restore a tablespace elsewhere; OLD is its directory or its OID
    #[arg(short = 'T', long, value_name = "OLD=NEW", value_parser = parse_mapping)]
    pub(crate) tablespace_mapping: Vec<(String, PathBuf)>,
    /// Print the plan and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Make the directories of tablespaces that do not exist
    #[arg(long)]
    pub(crate) blind_restore: bool,
    /// WAL-E's restore specification, JSON that says where tablespaces go; or SOURCE, where they were
    #[arg(long, value_name = "FILE|SOURCE")]
    pub(crate) restore_spec: Option<String>,
}

/// `backup-fetch` as wale has it: WAL-E's has no `--only`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackupFetchSome {
    #[command(flatten)]
    pub(crate) fetch: BackupFetch,
    /// Fetch only files whose path matches, as base/16384/*, into a folder that becomes no cluster; repeatable
    #[arg(
        long,
        value_name = "PATTERN",
        conflicts_with_all = ["tablespace_mapping", "dry_run", "blind_restore", "restore_spec"]
    )]
    pub(crate) only: Vec<PathPattern>,
}

/// `backup-list`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackupList {
    /// A full name, or LATEST; default: all
    #[arg(value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// Fill the columns that come from inside the backup's record
    #[arg(long)]
    pub(crate) detail: bool,
    /// Print everything that is known, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `wal-push`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct WalPush {
    /// The segment's path (%p), relative to the working directory
    #[arg(value_name = "WAL_SEGMENT")]
    pub(crate) path: PathBuf,
    /// Segments archived in this call: this one, and others that PostgreSQL has ready; default: 1
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pool_size: Option<u16>,
}

/// `wal-prefetch`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct WalPrefetch {
    /// The server's WAL directory
    #[arg(value_name = "BASE_DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// The segment's name
    #[arg(value_name = "SEGMENT")]
    pub(crate) name: String,
    /// Further segments, in this order
    #[arg(long = "and", value_name = "SEGMENT", hide = true)]
    pub(crate) further: Vec<String>,
    /// Only segments for which wal-fetch made a place that is still there
    #[arg(long, hide = true)]
    pub(crate) placed: bool,
}

/// `wal-fetch`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct WalFetch {
    /// The file's name (%f)
    #[arg(value_name = "WAL_SEGMENT")]
    pub(crate) name: String,
    /// Where to put it (%p)
    #[arg(value_name = "WAL_DESTINATION")]
    pub(crate) destination: PathBuf,
    /// Segments fetched ahead while PostgreSQL replays, 0 for none; default: the setting
    #[arg(short = 'p', long, value_name = "N")]
    pub(crate) prefetch: Option<u16>,
}

/// `client`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Client {
    /// Ask the sidecar to archive a file: `archive_command = 'wale client push %f'`
    Push {
        /// The file's name (%f)
        name: String,
        #[command(flatten)]
        target: ClientTarget,
    },
    /// Fetch a file from the sidecar: `restore_command = 'wale client fetch %f "%p"'`
    Fetch {
        /// The file's name (%f)
        name: String,
        /// Where to put it (%p)
        path: PathBuf,
        /// End with 1 instead of 255 when the archive cannot answer: for standbys, which ask again
        #[arg(long)]
        standby: bool,
        #[command(flatten)]
        target: ClientTarget,
    },
    /// End with 0 when the sidecar on this machine says that `PostgreSQL` may start: a container's
    /// health check
    Ready {
        #[command(flatten)]
        target: ClientTarget,
    },
}

/// Where the sidecar is, and for how long to wait.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ClientTarget {
    /// The sidecar's address; default: `WALE_SIDECAR_HOSTNAME` and `WALE_LISTEN_PORT`
    #[arg(long, value_name = "http://HOST:PORT")]
    pub(crate) url: Option<String>,
    /// Seconds to wait for the sidecar's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u32,
}

/// `check`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Check {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// As one line, for Nagios and its kin
    #[arg(long, conflicts_with = "json")]
    pub(crate) nagios: bool,
    /// Also run `archive_command` as the server does, for the newest archived segment that it still has: nothing new is stored
    #[arg(long)]
    pub(crate) push: bool,
}

/// `config`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Config {
    /// Print every setting, its value and where the value came from
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// A page of the generated reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Page {
    /// The settings.
    Settings,
    /// The kinds of error and their statuses.
    Errors,
    /// The command line.
    Commands,
    /// The manual, one page for each verb.
    Manual,
}

pub(super) fn parse_mapping(text: &str) -> Result<(String, PathBuf), String> {
    mapping(text).map_err(|bad| match bad.hint {
        Some(hint) => format!("{}; {hint}", bad.problem),
        None => bad.problem,
    })
}

/// A number of bytes per second, with the units of every size.
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    match size(text) {
        Ok(0) => Err("nothing at all is no limit".to_owned()),
        Ok(rate) => Ok(rate),
        Err(bad) => Err(match bad.hint {
            Some(hint) => format!("{}; {hint}", bad.problem),
            None => bad.problem,
        }),
    }
}
