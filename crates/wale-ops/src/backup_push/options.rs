//! What a caller may choose about a base backup.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use wale_archive::Beginning;
use wale_archive::claim::host_name;
use wale_cluster::{Checkpoint, ConnectOptions, WalDirectory};
use wale_pipeline::{Line, default_workers};

use super::priority::Priority;
use super::slot::ScheduleSlot;

/// How long the segments of a backup may take to reach the archive after the server ended the backup.
///
/// On a primary the last segment is switched at the end of the backup, so it comes within seconds when archiving
/// works; on a standby the primary may need its `archive_timeout`.
pub const DEFAULT_WAL_WAIT_LIMIT: Duration = Duration::from_hours(1);

/// What a page whose checksum stays wrong does to the backup. It is never silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DamagedPagePolicy {
    /// The backup succeeds; the page is logged, counted in the report and recorded in the sentinel.
    #[default]
    Record,
    /// The backup fails with the first such page.
    Fail,
}

impl DamagedPagePolicy {
    /// Every policy, the default first.
    pub const ALL: [Self; 2] = [Self::Record, Self::Fail];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Fail => "fail",
        }
    }
}

/// A number of processors, to a thousandth.
///
/// ```
/// use wale_ops::backup_push::Processors;
/// let half: Processors = "0.5".parse().expect("a number of processors");
/// assert_eq!(half.thousandths(), 500);
/// assert_eq!(half.to_string(), "0.5");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors(NonZeroU32);

impl Processors {
    /// The least: a backup that never ends is none. A twentieth reads and compresses some 20 MB/s.
    const LEAST: u32 = 50;
    /// The most.
    const MOST: u32 = 1_024_000;

    /// In thousandths of a processor.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for Processors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 3 {
            return Err(format!("\"{text}\" is not a number of processors"));
        }
        let thousandths = format!("{whole}{part:0<3}").parse().ok();
        thousandths
            .filter(|number| (Self::LEAST..=Self::MOST).contains(number))
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or_else(|| format!("{text} is not between 0.05 and 1024 processors"))
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.thousandths() / 1000, self.thousandths() % 1000);
        let text = format!("{whole}.{part:03}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a limited line gives a worker to do, at least: 32 MiB/s is a tenth of what one reads, compresses and sends.
const BYTES_PER_SECOND_OF_A_WORKER: u64 = 32 << 20;

/// What a caller may choose about a base backup.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The cluster's data directory, as this process sees it.
    pub data_directory: PathBuf,
    /// The cluster's WAL directory, as this process sees it; only read, to say why a segment is not archived yet.
    pub wal_directory: PathBuf,
    /// How to reach the server of that data directory.
    pub connect: ConnectOptions,
    /// Partitions made at the same time.
    pub workers: usize,
    /// Whether the server hurries with the checkpoint that starts the backup.
    pub checkpoint: Checkpoint,
    /// First word of the backup's label as the server records it.
    pub label_prefix: String,
    /// How long to wait, after the end of the backup, for its segments to reach the archive.
    pub wal_wait_limit: Duration,
    /// What a damaged page does.
    pub damaged_pages: DamagedPagePolicy,
    /// Upper bound of bytes read from the data directory per second, all workers together.
    pub read_rate: Option<u64>,
    /// Upper bound of the processors that the workers take, all together.
    pub processors: Option<Processors>,
    /// What the system gives the workers where others want it too.
    pub priority: Priority,
    /// Files at the top of the data directory that belong to the sidecar, not to the cluster (the lock file).
    pub ignore: Vec<String>,
    /// The slot of a schedule that is to be served; none of a backup that somebody asked for.
    pub slot: Option<ScheduleSlot>,
    /// Host name that the sentinel shall carry.
    pub host_name: String,
    /// Whether the backup was requested over HTTP, recorded in the sentinel: retention does not count such a one when it
    /// began soon after another.
    pub requested_over_http: bool,
    /// Whether a new archive may be begun where the server's own was and is gone.
    pub new_archive: bool,
    /// Version of this program, recorded in the sentinel.
    pub wale_version: String,
}

impl BackupOptions {
    /// The documented defaults for the cluster in `data_directory`.
    #[must_use]
    pub fn new(data_directory: PathBuf, connect: ConnectOptions) -> Self {
        let wal_directory = data_directory.join("pg_wal");
        Self {
            data_directory,
            wal_directory,
            connect,
            workers: default_workers(),
            checkpoint: Checkpoint::Fast,
            label_prefix: "wale".to_owned(),
            wal_wait_limit: DEFAULT_WAL_WAIT_LIMIT,
            damaged_pages: DamagedPagePolicy::default(),
            read_rate: None,
            processors: None,
            priority: Priority::default(),
            ignore: vec!["wale_init_lockfile".to_owned()],
            slot: None,
            host_name: host_name(),
            requested_over_http: false,
            new_archive: false,
            wale_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// How many workers there are on this line to the store. One that is slow is filled by few: more would only hold the
    /// memory of uploads for longer, of which a push of WAL wants a part.
    pub(super) fn workers_on(&self, line: &Line) -> usize {
        let most = self.workers.max(1);
        let Some(limit) = line.bytes_per_second() else {
            return most;
        };
        let enough = limit.get().div_ceil(BYTES_PER_SECOND_OF_A_WORKER);
        usize::try_from(enough).unwrap_or(most).min(most)
    }

    /// Where an archive may be begun.
    pub(super) fn begin(&self) -> Beginning {
        if self.new_archive {
            return Beginning::Anew;
        }
        Beginning::UnlessKnown {
            wal: WalDirectory::at(&self.wal_directory),
            data: Some(self.data_directory.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn processors_are_read_as_they_are_printed() {
        for (text, thousandths) in [
            ("1", 1000),
            ("0.05", 50),
            ("2.5", 2500),
            ("1024", 1_024_000),
        ] {
            let processors: Processors = text.parse().expect(text);
            assert_eq!(processors.thousandths(), thousandths);
            assert_eq!(processors.to_string(), text);
        }
        for text in [
            "",
            "0",
            "0.049",
            "1025",
            "-1",
            "1.",
            ".5",
            "50%",
            "0.1234",
            "1e3",
            "9999999999",
        ] {
            assert!(text.parse::<Processors>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_slow_line_has_few_workers() {
        let mut options = BackupOptions::new("/data".into(), ConnectOptions::default());
        options.workers = 8;
        assert_eq!(options.workers_on(&Line::default()), 8);
        for (mib, workers) in [(1, 1), (32, 1), (33, 2), (128, 4), (10_000, 8)] {
            let limit = NonZeroU64::new(mib << 20).expect("not 0");
            assert_eq!(
                options.workers_on(&Line::limited(limit)),
                workers,
                "{mib} MiB/s"
            );
        }
    }
}
