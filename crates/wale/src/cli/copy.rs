//! `copy`: an archive into another store.

use std::path::PathBuf;

use clap::Args;

/// `copy`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Copy {
    /// A file with the settings of the destination, lines NAME=value: its prefix, endpoint and credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Only this backup (a name that backup-list prints, or LATEST) and the WAL since its start; several times for several
    #[arg(long, value_name = "BACKUP_NAME")]
    pub(crate) backup: Vec<String>,
    /// Take what is at the destination with the same size for done, instead of reading and comparing it again
    #[arg(long)]
    pub(crate) trust_sizes: bool,
    /// Objects that move at a time; default: `WALE_BACKUP_WORKERS`
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pool_size: Option<u16>,
    /// Only report what would be copied
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
