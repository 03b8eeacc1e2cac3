//! `rehearse`: a restore that is tried out and thrown away.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::restore::{
    parse_buffers, parse_name, parse_point, parse_position, parse_time, parse_timeline,
    parse_transaction,
};
use crate::config::duration;

/// Files of SQL that a record has room for.
const SQL_FILES_MAX: usize = 16;

/// `rehearse`
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that is given or not"
)]
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("moment").multiple(false))]
pub(crate) struct RehearseArguments {
    /// The folder to work in: missing, empty or a former rehearsal's; everything in it is removed at the end
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: PathBuf,
    /// The folder of the server's programs (postgres, psql, `pg_amcheck`); default: where a server of the backup's version
    /// usually has them
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The base backup: a name that backup-list prints, LATEST or RANDOM; default: the newest that ends before the target
    #[arg(long, value_name = "BACKUP_NAME")]
    pub(crate) backup: Option<String>,
    /// Recover to the end of the archive, which is the default
    #[arg(long, group = "moment")]
    pub(crate) latest: bool,
    /// Recover to a random moment between the end of the backup and the newest commit
    #[arg(long, group = "moment")]
    pub(crate) random: bool,
    /// End before the first commit after this time, as in '2026-11-23 14:00:00+00'
    #[arg(long, value_name = "TIME", group = "moment", value_parser = parse_time)]
    pub(crate) to_time: Option<String>,
    /// End at this WAL position, as in 0/3000148
    #[arg(long, value_name = "POSITION", group = "moment", value_parser = parse_position)]
    pub(crate) to_lsn: Option<String>,
    /// End at this restore point
    #[arg(long, value_name = "NAME", group = "moment", value_parser = parse_point)]
    pub(crate) to_name: Option<String>,
    /// End with this transaction
    #[arg(long, value_name = "NUMBER", group = "moment", value_parser = parse_transaction)]
    pub(crate) to_xid: Option<String>,
    /// End as soon as the data is consistent: at the end of the base backup
    #[arg(long, group = "moment")]
    pub(crate) immediate: bool,
    /// End before the target, not after it
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// The timeline to follow: latest, current or a number; default: latest
    #[arg(long, value_name = "TIMELINE", value_parser = parse_timeline)]
    pub(crate) timeline: Option<String>,
    /// What random choices follow from: the same number chooses the same; default: another one each time, which is printed
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// SQL that must succeed on the copy, by psql; a row that begins with false fails it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) sql: Vec<PathBuf>,
    /// The database in which SQL and fingerprint run; default: PGDATABASE
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) database: Option<String>,
    /// A query that gives one value, which is told and recorded
    #[arg(long, value_name = "SQL")]
    pub(crate) fingerprint: Option<String>,
    /// The value that the fingerprint must have
    #[arg(long, value_name = "VALUE", requires = "fingerprint")]
    pub(crate) expect: Option<String>,
    /// Leave out a check that reads everything: amcheck or checksums
    #[arg(long, value_name = "amcheck|checksums", hide_possible_values = true)]
    pub(crate) without: Vec<Without>,
    /// The server's `shared_buffers`; default: 128MB
    #[arg(long, value_name = "SIZE", value_parser = parse_buffers)]
    pub(crate) shared_buffers: Option<u64>,
    /// How long recovery and checks may take together, as in 90min or 6h; default: 1d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Leave the copy in the scratch folder, stopped, to be looked at
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A check that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    /// Tables and indexes.
    Amcheck,
    /// The checksum of every page.
    Checksums,
}

impl RehearseArguments {
    /// Whether somebody named a place in the log, which need not be there.
    pub(crate) fn names_target(&self) -> bool {
        [
            &self.to_time,
            &self.to_lsn,
            &self.to_name,
            &self.to_xid,
            &self.timeline,
        ]
        .iter()
        .any(|named| named.is_some())
    }

    /// Whether the files of SQL are more than are told.
    pub(crate) fn has_too_many_files(&self) -> bool {
        self.sql.len() > SQL_FILES_MAX
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(limit) if limit.is_zero() => Err("nothing can be done in no time".to_owned()),
        Ok(limit) => Ok(limit),
        Err(bad) => Err(match bad.hint {
            Some(hint) => format!("{}; {hint}", bad.problem),
            None => bad.problem,
        }),
    }
}
