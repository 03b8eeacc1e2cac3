//! What a caller may choose about a base backup.

use std::path::PathBuf;
use std::time::Duration;

use wale_archive::Beginning;
use wale_archive::claim::host_name;
use wale_cluster::{Checkpoint, ConnectOptions, WalDirectory};
use wale_pipeline::default_workers;

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
            ignore: vec!["wale_init_lockfile".to_owned()],
            slot: None,
            host_name: host_name(),
            requested_over_http: false,
            new_archive: false,
            wale_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
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
