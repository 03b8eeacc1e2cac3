//! `restore`: a cluster out of the archive, to the end of it or to a moment before.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use wale_cluster::recovery::SHARED_BUFFERS_MIN;

use super::verbs::parse_mapping;
use crate::config::{BadValue, TargetAction, point, position, size, time, timeline, transaction};

/// More than any server takes for a copy that is looked at.
const BUFFERS_MAX: u64 = 1 << 40;

/// `restore`
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that is given or not"
)]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("target").multiple(false))]
pub(crate) struct RestoreArguments {
    /// The data directory to make: missing or empty (but for `--delta`); default: PGDATA
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// End before the first commit after this time, as in '2026-11-23 14:00:00+00'
    #[arg(long, value_name = "TIME", group = "target", value_parser = parse_time)]
    pub(crate) to_time: Option<String>,
    /// End at this WAL position, as in 0/3000148
    #[arg(long, value_name = "POSITION", group = "target", value_parser = parse_position)]
    pub(crate) to_lsn: Option<String>,
    /// End at this restore point
    #[arg(long, value_name = "NAME", group = "target", value_parser = parse_point)]
    pub(crate) to_name: Option<String>,
    /// End with this transaction
    #[arg(long, value_name = "NUMBER", group = "target", value_parser = parse_transaction)]
    pub(crate) to_xid: Option<String>,
    /// End as soon as the data is consistent: at the end of the base backup
    #[arg(long, group = "target")]
    pub(crate) immediate: bool,
    /// End at the end of the archive, which is the default
    #[arg(long, group = "target")]
    pub(crate) latest: bool,
    /// End before the target, not after it
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// What the server does at the target: pause, promote or shutdown; default: pause, read-only, to be looked at
    #[arg(long, value_name = "ACTION", value_parser = parse_action)]
    pub(crate) action: Option<TargetAction>,
    /// The timeline to follow: latest, current or a number; default: latest
    #[arg(long, value_name = "TIMELINE", value_parser = parse_timeline)]
    pub(crate) timeline: Option<String>,
    /// The base backup, a name that backup-list prints; default: the newest that ends before the target
    #[arg(long, value_name = "BACKUP_NAME")]
    pub(crate) backup: Option<String>,
    /// Restore a tablespace elsewhere; OLD is its directory or its OID
    #[arg(short = 'T', long, value_name = "OLD=NEW", value_parser = parse_mapping)]
    pub(crate) tablespace_mapping: Vec<(String, PathBuf)>,
    /// Make `pg_wal` a link to this directory, missing or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) wal_dir: Option<PathBuf>,
    /// Restore a standby, which goes on asking for WAL until it is promoted
    #[arg(long)]
    pub(crate) as_standby: bool,
    /// Restore a copy to be looked at beside production: no archiving, no jobs, its own port, this machine only
    #[arg(long)]
    pub(crate) rehearsal: bool,
    /// The copy's port; default: the first from 5433 on that is free
    #[arg(long, value_name = "PORT", requires = "rehearsal", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The copy's `shared_buffers`; default: 128MB
    #[arg(long, value_name = "SIZE", requires = "rehearsal", value_parser = parse_buffers)]
    pub(crate) shared_buffers: Option<u64>,
    /// Restore into the directory of this cluster, stopped: keep every file that is the backup's to the byte, and replace and remove
    /// the others
    #[arg(long)]
    pub(crate) delta: bool,
    /// Restore also where `pg_wal` holds WAL that the archive does not have: it is lost then
    #[arg(long, requires = "delta")]
    pub(crate) discard_wal: bool,
    /// Where the restored server gets its WAL: from a sidecar over HTTP, or by wale from the archive; default: sidecar
    /// where `WALE_SIDECAR_HOSTNAME` or `WALE_RESTORE_CLIENT` is set
    #[arg(long, value_name = "sidecar|archive", hide_possible_values = true)]
    pub(crate) wal_from: Option<WalFrom>,
    /// Print the plan and touch nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print plan and result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a restored server gets its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WalFrom {
    /// From a sidecar, over HTTP.
    Sidecar,
    /// From the archive, by this program.
    Archive,
}

fn in_words<T>(parsed: Result<T, BadValue>) -> Result<T, String> {
    parsed.map_err(|bad| match bad.hint {
        Some(hint) => format!("{}; {hint}", bad.problem),
        None => bad.problem,
    })
}

pub(super) fn parse_time(text: &str) -> Result<String, String> {
    in_words(time(text))
}

pub(super) fn parse_position(text: &str) -> Result<String, String> {
    in_words(position(text))
}

pub(super) fn parse_point(text: &str) -> Result<String, String> {
    in_words(point(text))
}

pub(super) fn parse_transaction(text: &str) -> Result<String, String> {
    in_words(transaction(text))
}

pub(super) fn parse_timeline(text: &str) -> Result<String, String> {
    in_words(timeline(text))
}

/// A name without a control character.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("it is empty, or holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// `shared_buffers` of a copy.
pub(super) fn parse_buffers(text: &str) -> Result<u64, String> {
    let bytes = in_words(size(text))?;
    if (SHARED_BUFFERS_MIN..=BUFFERS_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("it is from 128kB to 1TB".to_owned())
    }
}

fn parse_action(text: &str) -> Result<TargetAction, String> {
    let found = TargetAction::ALL.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| "it is pause, promote or shutdown".to_owned())
}
