//! `verify`: whether the archive is what it should be.

use std::time::Duration;

use clap::Args;
use wale_ops::verify::{RATE_LEAST, Share};

use super::verbs::parse_rate;
use crate::config::{BadValue, duration};

/// `verify`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Verify {
    /// Read every object, too: decrypted, decompressed, every file held against its manifest, every segment against its header
    #[arg(long)]
    pub(crate) content: bool,
    /// Read only about so much of what is stored, as in 5%: what was read longest ago, or never, comes first
    #[arg(long, value_name = "SHARE", requires = "content")]
    pub(crate) sample: Option<Share>,
    /// Read nothing again that was found good within this time, as in 30d
    #[arg(long, value_name = "TIME", requires = "content", value_parser = parse_time)]
    pub(crate) older_than: Option<Duration>,
    /// The most stored bytes read per second, 1MiB or more; units as in 50MB
    #[arg(long, value_name = "BYTES_PER_SECOND", value_parser = parse_limit)]
    pub(crate) rate: Option<u64>,
    /// Partitions or segments read at a time; default: `WALE_RESTORE_WORKERS`
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) pool_size: Option<u16>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    duration(text).map_err(told)
}

fn parse_limit(text: &str) -> Result<u64, String> {
    match parse_rate(text)? {
        rate if rate < RATE_LEAST => {
            Err("less than 1MiB per second is no rate at which an object is read".to_owned())
        }
        rate => Ok(rate),
    }
}

fn told(bad: BadValue) -> String {
    match bad.hint {
        Some(hint) => format!("{}; {hint}", bad.problem),
        None => bad.problem,
    }
}
