//! A further archive that follows the first one: its task, and what is known of it.
//!
//! ```text
//!  push answered 200 ─┐                     ┌─ what it lacks of the WAL, then of the backups it wants; its own retention
//!  backup complete ───┼→ one task for each ─┤     (at the start, every hour, after each backup, after a failure)
//!  time               ┘                     └─ then each WAL file as it is archived
//! ```
//!
//! Everything comes from the first archive, never from the WAL directory: PostgreSQL removes its copy as soon as the first
//! has it. It refuses to decide what is wanted and how it is copied: wale-ops does. A further archive that is slow or dead
//! fails nothing of the first's; only where a bound is set are pushes refused while it lags behind more than that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use wale_ops::archive_copy::follow::{self, Lag};
use wale_ops::archive_copy::{
    self, CopyOptions, CopyReport, Present, Trouble, WalWish, Which, Wishes,
};
use wale_ops::retention::{self, Wanted};
use wale_ops::retry::Pauses;
use wale_ops::{Archive, CancellationToken, Kind, OpError, Progress};
use wale_pg::ArchiveFileName;

use crate::app::App;
use crate::housekeeping;
use crate::journal::{FailureRecord, RetentionRecord, log_failure};
use crate::options::{FurtherArchive, Housekeeping};

/// Between two looks at everything. Each lists both archives a few times: what pushes and backups of this sidecar do not
/// tell of is found by it, as others' pushes are.
const EVERY: Duration = Duration::from_hours(1);

/// The same where a backup could not be copied: its name may be claimed by somebody who died, which ten minutes show.
const EVERY_WHILE_LEFT: Duration = Duration::from_mins(10);

/// How long after a backup history file, which PostgreSQL archives at the end of each backup, the backup is looked for: it is
/// listed a moment later, and a verb that took it tells nobody.
const AFTER_A_BACKUP: Duration = Duration::from_secs(10);

/// The pause after a failure, doubled up to the second one.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two measurements of the lag while WAL is being copied. Each is two listings.
const MEASURE_EVERY: Duration = Duration::from_mins(1);

/// WAL files that are remembered one by one as not copied yet; of more only the number is known, and the listings show
/// them. 10,000 × 100 bytes = 1 MB.
const PENDING_MAX: usize = 10_000;

/// Objects with other bytes that are named; all are counted. 100 × 1 KiB.
const CONFLICTS_MAX: usize = 100;

/// Objects that move at a time.
const WORKERS: usize = 2;

/// A further archive.
pub(crate) struct Replica {
    number: u8,
    archive: Archive,
    housekeeping: Housekeeping,
    known: Mutex<Known>,
    wake: Notify,
}

/// What is known of it.
#[derive(Default)]
struct Known {
    /// When the following began; none while nothing has been archived by this process yet that waits for it.
    began: Option<DateTime<Utc>>,
    /// WAL files that the first has acknowledged since, and that were not brought yet.
    pending: VecDeque<(ArchiveFileName, DateTime<Utc>)>,
    /// How many more there are.
    beyond: u64,
    /// When a backup ended whose end nobody told of.
    backup_ended: Option<Instant>,
    /// What the listings showed, and when, as long as that counts.
    measured: Option<(Lag, DateTime<Utc>)>,
    /// Whether the listings were ever compared.
    is_measured: bool,
    reachable: Option<bool>,
    failure: Option<FailureRecord>,
    failing_since: Option<DateTime<Utc>>,
    conflicts: Vec<String>,
    conflicts_count: u64,
    backups_wanted: u64,
    last_pass: Option<DateTime<Utc>>,
    last_copied: Option<(String, DateTime<Utc>)>,
    last_retention: Option<RetentionRecord>,
}

/// How far it lags behind, as told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LagTold {
    /// Whether the archives were compared; otherwise it may be more.
    pub(crate) known: bool,
    pub(crate) segments: u64,
    /// The age of the oldest WAL file that it lacks.
    pub(crate) age: Duration,
}

/// What a scrape reads.
#[derive(Debug)]
pub(crate) struct ReplicaScrape {
    pub(crate) number: u8,
    pub(crate) lag: LagTold,
    pub(crate) reachable: Option<bool>,
    pub(crate) conflicts: u64,
    pub(crate) last_pass: Option<DateTime<Utc>>,
}

impl Replica {
    pub(crate) fn new(further: &FurtherArchive) -> Arc<Self> {
        Arc::new(Self {
            number: further.number,
            archive: further.archive.clone(),
            housekeeping: further.housekeeping.clone(),
            known: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Takes note of a WAL file that the first archive has.
    pub(crate) fn archived(&self, name: &ArchiveFileName, at: DateTime<Utc>) {
        let mut known = self.known();
        if matches!(name, ArchiveFileName::BackupHistory { .. }) {
            known.backup_ended.get_or_insert_with(Instant::now);
        }
        if known.pending.iter().any(|(pending, _)| pending == name) {
            return;
        }
        if known.pending.len() < PENDING_MAX {
            known.pending.push_back((*name, at));
        } else {
            known.beyond += 1;
        }
        drop(known);
        self.wake.notify_one();
    }

    /// Why a push has to wait, where this archive lags behind more than it may.
    pub(crate) fn refusal(&self, bound: Duration, now: DateTime<Utc>) -> Option<OpError> {
        let (lag, began) = (self.lag(now), self.known().began?);
        // What was never compared may lack whatever was archived before this process began.
        let unknown = if lag.known {
            Duration::ZERO
        } else {
            since(began, now)
        };
        let age = lag.age.max(unknown);
        if age <= bound {
            return None;
        }
        let (number, place) = (self.number, self.archive.location());
        let message = format!(
            "archive {number} ({place}) lags {} s behind the first, and {} s are allowed",
            age.as_secs(),
            bound.as_secs()
        );
        let failure = self
            .known()
            .failure
            .as_ref()
            .map(|failure| failure.message.clone());
        let mut error = OpError::new(Kind::Busy, message).hint(
            "PostgreSQL keeps its WAL and repeats the request; bring that archive back, or unset WALE_MAX_ARCHIVE_LAG",
        );
        if let Some(failure) = failure {
            error = error.detail(format!("Its last failure: {failure}."));
        }
        Some(error)
    }

    /// How far it lags behind.
    pub(crate) fn lag(&self, now: DateTime<Utc>) -> LagTold {
        let known = self.known();
        let (measured, at) = known.measured.unwrap_or_default();
        let later = known.pending.iter().filter(|(_, pending)| *pending > at);
        let waiting = later.clone().filter(|(name, _)| name.is_segment()).count() as u64;
        let oldest = measured
            .oldest
            .into_iter()
            .chain(later.map(|(_, at)| *at))
            .min();
        LagTold {
            known: known.is_measured,
            segments: measured.segments + waiting + known.beyond,
            age: oldest.map_or(Duration::ZERO, |oldest| since(oldest, now)),
        }
    }

    /// What a scrape reads.
    pub(crate) fn scrape(&self, now: DateTime<Utc>) -> ReplicaScrape {
        let lag = self.lag(now);
        let known = self.known();
        ReplicaScrape {
            number: self.number,
            lag,
            reachable: known.reachable,
            conflicts: known.conflicts_count,
            last_pass: known.last_pass,
        }
    }

    /// What `/status` says of it.
    pub(crate) fn status(&self, now: DateTime<Utc>) -> Value {
        let lag = self.lag(now);
        let known = self.known();
        let state = match (&known.began, &known.failing_since, &known.last_pass) {
            (None, ..) => "waiting-for-the-first-push",
            (_, Some(_), _) => "failing",
            (_, None, None) => "copying",
            (_, None, Some(_)) => "following",
        };
        json!({
            "number": self.number,
            "location": self.archive.location(),
            "state": state,
            "reachable": known.reachable,
            "lag": {
                "known": lag.known,
                "segments": lag.segments,
                "seconds": lag.age.as_secs_f64(),
            },
            "backups_wanted": known.backups_wanted,
            "last_copied": known.last_copied.as_ref().map(|(name, at)| json!({"name": name, "at": at})),
            "last_full_pass": known.last_pass,
            "failing_since": known.failing_since,
            "last_failure": known.failure,
            "conflicts": known.conflicts,
            "conflicts_count": known.conflicts_count,
            "last_retention": known.last_retention,
        })
    }

    /// Notes a failure. The log hears of it once, and again when it is another one.
    fn failed(&self, error: &OpError, reachable: bool, now: DateTime<Utc>) {
        let mut known = self.known();
        known.reachable = Some(reachable);
        let record = FailureRecord::new(format!("copying to archive {}", self.number), error, now);
        let same = known.failing_since.is_some()
            && known
                .failure
                .as_ref()
                .is_some_and(|failure| failure.kind == record.kind);
        known.failing_since.get_or_insert(now);
        known.failure = Some(record);
        drop(known);
        if !same {
            let number = self.number;
            tracing::warn!(
                archive = number,
                location = self.archive.location(),
                detail = error.detail.as_deref(),
                hint = "archiving goes on in the first archive; /status shows how far this one lags behind, and it is tried \
                        again until it succeeds",
                "archive {number} cannot be brought up to date: {}",
                error.chain()
            );
        }
    }

    /// Notes that it answers, and takes what it is given.
    fn works(&self) {
        let mut known = self.known();
        known.reachable = Some(true);
        if known.failing_since.take().is_some() {
            drop(known);
            tracing::info!(
                archive = self.number,
                location = self.archive.location(),
                "the archive is followed again"
            );
        }
    }

    /// Notes objects that are there with other bytes. Nothing was overwritten.
    fn conflicts(&self, troubles: &[Trouble]) {
        let mut known = self.known();
        for trouble in troubles {
            let said = format!("{} {}", trouble.key, trouble.why);
            if known.conflicts.contains(&said) {
                continue;
            }
            tracing::error!(
                archive = self.number,
                location = self.archive.location(),
                key = trouble.key,
                hint = "find out who wrote there; nothing was overwritten, and the first archive has its own bytes",
                "an object {}",
                trouble.why
            );
            known.conflicts_count += 1;
            if known.conflicts.len() < CONFLICTS_MAX {
                known.conflicts.push(said);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Facts are replaced one by one: a panic elsewhere leaves them whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

/// When the following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    AtOnce,
    /// With the first push or base backup of this process: a restore may have come from archives that are somebody else's.
    WithTheFirstWrite,
}

/// Follows for ever. May be dropped at any await: what was begun is found again by the next process.
pub(crate) async fn follow(app: Arc<App>, replica: Arc<Replica>, begin: Begin) {
    let mut completions = app.backups.completions();
    if begin == Begin::WithTheFirstWrite {
        tokio::select! {
            () = replica.wake.notified() => {}
            _ = completions.changed() => {}
        }
    }
    replica.known().began = Some(app.archive.clock().now());
    let mut pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
    let mut is_first = true;
    loop {
        let followed = match pass(&app, &replica, is_first).await {
            Ok(next) => {
                is_first = false;
                pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
                tail(&app, &replica, &mut completions, next).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            let reachable = follow::answers(&replica.archive).await;
            replica.failed(&error, reachable, app.archive.clock().now());
            tokio::time::sleep(pauses.take()).await;
        }
    }
}

/// Brings each WAL file as it is archived, until the next pass is due.
async fn tail(
    app: &App,
    replica: &Replica,
    completions: &mut watch::Receiver<u64>,
    next: Duration,
) -> Result<(), OpError> {
    let due = Instant::now() + next;
    loop {
        if bring_pending(app, replica).await? == Queue::Overflowed {
            return Ok(());
        }
        let backup = replica.known().backup_ended;
        let due = backup.map_or(due, |ended| due.min(ended + AFTER_A_BACKUP));
        tokio::select! {
            () = replica.wake.notified() => {}
            _ = completions.changed() => return Ok(()),
            () = tokio::time::sleep_until(due) => return Ok(()),
        }
    }
}

/// What is known of the files that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// Each was known, and was brought.
    Brought,
    /// There were more than are remembered.
    Overflowed,
}

/// Brings the WAL files that wait, in the order in which they were archived.
async fn bring_pending(app: &App, replica: &Replica) -> Result<Queue, OpError> {
    loop {
        let next = replica.known().pending.front().copied();
        let Some((name, at)) = next else {
            break;
        };
        let troubles = follow::bring(&app.archive, &replica.archive, &name).await?;
        replica.works();
        replica.conflicts(&troubles);
        let now = app.archive.clock().now();
        let mut known = replica.known();
        // A pass may have taken it off meanwhile.
        known.pending.retain(|pending| *pending != (name, at));
        known.last_copied = Some((name.to_string(), now));
        drop(known);
        tracing::debug!(archive = replica.number, %name, "WAL file copied");
    }
    Ok(if replica.known().beyond > 0 {
        Queue::Overflowed
    } else {
        Queue::Brought
    })
}

/// Brings everything that the archive lacks and wants. Gives the time until the next pass.
async fn pass(app: &App, replica: &Replica, is_first: bool) -> Result<Duration, OpError> {
    let (source, copy) = (&app.archive, &replica.archive);
    let keeping = &replica.housekeeping;
    let begun = source.clock().now();
    replica.known().backup_ended = None;
    let wanted = retention::wanted(
        source,
        copy,
        &keeping.policy,
        keeping.grace,
        keeping.request_interval,
    )
    .await?;
    let (backups, there, wal) = wishes(wanted);
    replica.known().backups_wanted = backups.len() as u64;
    let wishes = |backups: &[_]| {
        Which::Lacking(Wishes {
            backups: backups.to_vec(),
            there: there.clone(),
            wal: wal.clone(),
        })
    };
    bring_wal(app, replica, &wal, wishes(&[])).await?;
    replica.works();
    covered(replica, begun);
    let mut next = EVERY;
    let mut has_new = false;
    if !backups.is_empty() {
        let report = bring_backups(app, replica, wishes(&backups)).await?;
        has_new = report.listed() > 0;
        let left = u64::try_from(backups.len() - report.listed()).unwrap_or(u64::MAX);
        replica.known().backups_wanted = left;
        if let Some(error) = report.failure().filter(|_| left > 0) {
            let now = source.clock().now();
            replica.failed(&error, true, now);
            next = EVERY_WHILE_LEFT;
        }
    }
    if has_new || is_first {
        keep_house(replica).await;
    }
    replica.known().last_pass = Some(source.clock().now());
    Ok(next)
}

fn wishes(
    wanted: Wanted,
) -> (
    Vec<wale_ops::BackupName>,
    Vec<wale_ops::BackupName>,
    WalWish,
) {
    let wal = match wanted.wal {
        None => WalWish::default(),
        Some(judge) => {
            WalWish::of(move |name, stored| retention::is_wanted(judge.judge(name, stored)))
        }
    };
    (wanted.backups, wanted.there, wal)
}

/// Copies all WAL that is wanted, and measures the lag meanwhile.
async fn bring_wal(
    app: &App,
    replica: &Replica,
    wish: &WalWish,
    which: Which,
) -> Result<(), OpError> {
    let copying = run(app, replica, which, CancellationToken::new());
    let measuring = async {
        loop {
            measure(app, replica, wish).await?;
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    };
    // Before the first object moves: the copy may take hours.
    measure(app, replica, wish).await?;
    tokio::select! {
        copied = copying => copied.map(drop),
        failed = measuring => failed,
    }
}

async fn measure(app: &App, replica: &Replica, wish: &WalWish) -> Result<(), OpError> {
    let at = app.archive.clock().now();
    let lag = follow::lag(&app.archive, &replica.archive, wish).await?;
    let mut known = replica.known();
    known.measured = Some((lag, at));
    known.is_measured = true;
    Ok(())
}

/// What was archived before then is there.
fn covered(replica: &Replica, begun: DateTime<Utc>) {
    let mut known = replica.known();
    known.pending.retain(|(_, at)| *at > begun);
    known.beyond = 0;
    known.measured = None;
}

/// Copies backups, and goes on bringing WAL files as they are archived.
async fn bring_backups(app: &App, replica: &Replica, which: Which) -> Result<CopyReport, OpError> {
    let cancel = CancellationToken::new();
    let mut copying = std::pin::pin!(run(app, replica, which, cancel.clone()));
    let following = async {
        loop {
            bring_pending(app, replica).await?;
            replica.wake.notified().await;
        }
    };
    let failed: Result<(), OpError> = tokio::select! {
        copied = &mut copying => return copied,
        failed = following => failed,
    };
    // Ended and not dropped: the claim on the backup's name is given back.
    cancel.cancel();
    let copied = copying.await;
    failed?;
    copied
}

async fn run(
    app: &App,
    replica: &Replica,
    which: Which,
    cancel: CancellationToken,
) -> Result<CopyReport, OpError> {
    let options = CopyOptions {
        which,
        // What was copied was compared then; to read everything again every hour would cost more than the copy.
        present: Present::TrustedBySize,
        retry: wale_ops::retry::RetryBudget::ONCE,
        ..CopyOptions::new(WORKERS)
    };
    let progress = Progress::new();
    let (source, copy) = (&app.archive, &replica.archive);
    let work = archive_copy::run(source, copy, &options, &progress, &cancel);
    let report = Box::pin(work).await?;
    replica.conflicts(&report.troubles);
    for line in &report.backups {
        if matches!(line.fate, archive_copy::BackupFate::Copied) {
            tracing::info!(archive = replica.number, backup = %line.name, "base backup copied");
        }
    }
    Ok(report)
}

/// The archive's own retention, and what crashes left in it.
async fn keep_house(replica: &Replica) {
    let (archive, options) = (&replica.archive, &replica.housekeeping);
    if options.policy.is_set() {
        match housekeeping::attempt(archive, options).await {
            Ok(report) => {
                let record = housekeeping::record_of(archive, &report);
                tracing::info!(
                    archive = replica.number,
                    kept_backups = record.kept_backups,
                    deleted_backups = record.deleted_backups.len(),
                    deleted_objects = record.deleted_objects,
                    deleted_bytes = record.deleted_bytes,
                    retained_objects = record.retained_objects,
                    "retention is done"
                );
                replica.known().last_retention = Some(record);
            }
            Err(error) => log_failure(&format!("retention of archive {}", replica.number), &error),
        }
    }
    housekeeping::clean(archive, options.grace).await;
}
