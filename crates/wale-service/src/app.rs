//! The parts of one sidecar, assembled once and shared by all its tasks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wale_ops::backup_push::Role;
use wale_ops::readers::Readers;
use wale_ops::wal_fetch::Fetcher;
use wale_ops::wal_push::Pusher;
use wale_ops::wal_volume::{self, WalVolume};
use wale_ops::{Archive, ConnectOptions, CredentialEnd, Progress, WalDirectory};

use crate::backup::{Backups, BackupsOptions, ClusterBackup, TakeBackup};
use crate::hold::Hold;
use crate::http::{Connections, Hosts, Tls, Turns};
use crate::journal::Journal;
use crate::lifecycle::{Lifecycle, NOT_YET, Topic};
use crate::metrics::{Metrics, Scrape};
use crate::options::{HttpLimits, HttpToken, ServiceOptions, StartMode, TokenFor};
use crate::quiet::Quiet;
use crate::replica::Replica;
use crate::schedule::Schedule;

/// Lists of backups made at the same time. Each reads every sentinel of the archive.
const LISTS_AT_ONCE: usize = 2;

/// What every task of the sidecar may use.
pub(crate) struct App {
    pub(crate) archive: Archive,
    /// All archives, to be read.
    pub(crate) readers: Readers,
    /// The archives that follow it.
    pub(crate) replicas: Vec<Arc<Replica>>,
    /// The most that one of them may lag behind.
    pub(crate) max_archive_lag: Option<Duration>,
    /// How long retention waits for one that lags behind.
    pub(crate) retain_wait: Duration,
    pub(crate) pusher: Pusher,
    pub(crate) fetcher: Fetcher,
    pub(crate) backups: Backups,
    pub(crate) life: Lifecycle,
    pub(crate) hold: Arc<Hold>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Connections,
    /// Bounds the lines of the log that requests cause.
    pub(crate) quiet: Arc<Quiet>,
    pub(crate) limits: HttpLimits,
    pub(crate) token: Option<HttpToken>,
    pub(crate) token_for: TokenFor,
    pub(crate) hosts: Hosts,
    pub(crate) tls: Option<Tls>,
    pub(crate) wal_directory: WalDirectory,
    pub(crate) data_directory: PathBuf,
    /// Where the server listens: asked while draining.
    pub(crate) connect: ConnectOptions,
    pub(crate) schedule: Option<Schedule>,
    /// Which servers serve the slots of the schedule.
    pub(crate) backup_role: Role,
    /// How long after the beginning of the newest base backup another one may be requested.
    pub(crate) backup_request_interval: Duration,
    /// The name of this host, for messages.
    pub(crate) host_name: String,
    pub(crate) mode: &'static str,
    pub(crate) version: &'static str,
    pub(crate) started: Instant,
    /// How far the restore is, while one runs.
    pub(crate) restore_progress: Progress,
    pub(crate) lists: Semaphore,
    /// Turns of the WAL files that are being sent.
    pub(crate) files: Turns,
    /// Turns of the proofs of absence that are being made.
    pub(crate) proofs: Turns,
    /// When a push was last asked for or ended.
    pub(crate) push_seen: watch::Sender<Option<Instant>>,
    /// Tasks that are joined at the end.
    pub(crate) tasks: TaskTracker,
}

fn fetcher(options: &ServiceOptions) -> Fetcher {
    let readers = &options.readers;
    Fetcher::of_several(readers.first().clone(), readers.others(), options.fetcher)
        .beside(options.data_directory.clone())
        .handing_over_in(options.wal_directory.clone())
}

/// A time of day for people, to the second, UTC.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

impl App {
    /// Assembles the parts. Reads and writes nothing.
    pub(crate) fn new(options: &ServiceOptions) -> Arc<Self> {
        let taker = ClusterBackup {
            archive: options.archive.clone(),
            options: options.backup.clone(),
        };
        Self::with_taker(options, Box::new(taker))
    }

    pub(crate) fn with_taker(options: &ServiceOptions, taker: Box<dyn TakeBackup>) -> Arc<Self> {
        let archive = options.archive.clone();
        let wal_directory = WalDirectory::at(&options.wal_directory);
        let life = Lifecycle::new();
        life.complain(Topic::Archive, NOT_YET.to_owned());
        let journal = Arc::new(Journal::default());
        let metrics = Arc::new(Metrics::new(options.version));
        let tasks = TaskTracker::new();
        let backups = Backups::new(BackupsOptions {
            taker,
            life: life.clone(),
            journal: Arc::clone(&journal),
            metrics: Arc::clone(&metrics),
            clock: archive.clock().clone(),
            tasks: tasks.clone(),
        });
        let hold = match options.mode {
            StartMode::BackupPush => Hold::until_the_first_backup(),
            StartMode::ContinuousBackup | StartMode::Restore(_) => Hold::open_from_the_start(),
        };
        Arc::new(Self {
            pusher: Pusher::new(
                archive.clone(),
                wal_directory.clone(),
                options.pusher.clone(),
            ),
            fetcher: fetcher(options),
            readers: options.readers.clone(),
            backups,
            life,
            hold: Arc::new(hold),
            journal,
            metrics,
            connections: Connections::new(
                options.limits.soft_connections,
                options.limits.hard_connections,
            ),
            quiet: Arc::new(Quiet::default()),
            limits: options.limits.clone(),
            token: options.token.clone(),
            token_for: options.token_for,
            hosts: Hosts::new(&options.hosts),
            tls: options.tls.clone(),
            files: Turns::new(options.limits.files_at_once, options.limits.files_waiting),
            proofs: Turns::new(options.limits.proofs_at_once, options.limits.proofs_waiting),
            wal_directory,
            data_directory: options.data_directory.clone(),
            connect: options.backup.connect.clone(),
            schedule: options.schedule.clone(),
            backup_role: options.backup_role,
            backup_request_interval: options.backup_request_interval,
            host_name: options.backup.host_name.clone(),
            mode: options.mode.name(),
            version: options.version,
            started: Instant::now(),
            restore_progress: Progress::new(),
            lists: Semaphore::new(LISTS_AT_ONCE),
            push_seen: watch::Sender::new(None),
            tasks,
            replicas: options.further.iter().map(Replica::new).collect(),
            max_archive_lag: options.max_archive_lag,
            retain_wait: options.retain_wait,
            archive,
        })
    }

    /// The time of day at which something began that has lasted so long.
    pub(crate) fn began(&self, lasting: Duration) -> String {
        let now = self.archive.clock().now();
        // A time before all time is no time of day: then it began now.
        let began = chrono::Duration::from_std(lasting).map_or(now, |lasting| now - lasting);
        moment(began)
    }

    /// When a push was last asked for or ended.
    pub(crate) fn last_push(&self) -> Option<Instant> {
        *self.push_seen.borrow()
    }

    /// Files that PostgreSQL has marked ready; none when the directory cannot be read.
    pub(crate) async fn ready_files(&self) -> Option<usize> {
        let directory = self.wal_directory.clone();
        let counting =
            tokio::task::spawn_blocking(move || directory.ready().map(|files| files.len()));
        // A restore that has not made the directory yet is the usual reason; /status says the phase.
        counting.await.ok()?.ok()
    }

    /// The volume of the WAL directory, and what becomes of it; none while it is not there.
    pub(crate) async fn wal_volume(&self) -> Option<WalVolume> {
        let (directory, now) = (self.wal_directory.clone(), self.archive.clock().now());
        let held = self.journal.entries().holdings;
        let day = held.and_then(|held| held.growth.wal_bytes_per_hour);
        let looking = tokio::task::spawn_blocking(move || wal_volume::look(&directory, day, now));
        looking.await.ok()?.ok()
    }

    /// When the right to ask each archive ends, as far as that is known, with the archive's number.
    pub(crate) async fn credential_ends(&self) -> Vec<(u8, CredentialEnd)> {
        let further = self.replicas.iter();
        let further = further.map(|replica| (replica.number, &replica.archive));
        let mut ends = Vec::new();
        for (number, archive) in std::iter::once((1, &self.archive)).chain(further) {
            let found = archive.store().credential_ends().await;
            ends.extend(found.into_iter().map(|end| (number, end)));
        }
        ends
    }

    /// What the metrics read at the moment of a scrape.
    pub(crate) async fn scrape(&self) -> Scrape {
        let now = self.archive.clock().now();
        for replica in &self.replicas {
            self.metrics.archives.set(&replica.scrape(now));
        }
        Scrape {
            phase: self.life.phase(),
            connections: self.connections.len(),
            pusher: self.pusher.stats(),
            ready_files: self.ready_files().await,
            backup_running: self.backups.running().is_some(),
            wal_volume: self.wal_volume().await,
            credential_ends: self.credential_ends().await,
            certificate_expires: self.tls.as_ref().and_then(Tls::expires),
        }
    }
}
