//! The task that brings a further archive up to date. What is known of it is in [`crate::replica`].
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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;
use wale_ops::archive_copy::follow;
use wale_ops::archive_copy::{
    self, BackupFate, CopyOptions, CopyReport, Present, WalWish, Which, Wishes,
};
use wale_ops::retention::{self, Wanted};
use wale_ops::retry::{Pauses, RetryBudget};
use wale_ops::{BackupName, CancellationToken, Kind, OpError, Progress, wal_claim};
use wale_pg::ArchiveFileName;

use crate::app::App;
use crate::housekeeping;
use crate::journal::{FailureRecord, log_failure};
use crate::replica::Replica;

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

/// How long a listing may lag behind what was stored: what was archived shortly before a pass is brought by its name as well.
const LISTED_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// Objects that move at a time.
const WORKERS: usize = 2;

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
    let now = app.archive.clock().now();
    replica.known().began = Some(now);
    replica.behind(now);
    let mut pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
    let mut is_first = true;
    loop {
        let followed = match pass(&app, &replica, is_first).await {
            Ok(next) => {
                is_first = false;
                tail(&app, &replica, &mut completions, next).await
            }
            Err(error) => Err(error),
        };
        match followed {
            Ok(()) => pauses = Pauses::new(PAUSE, LONGEST_PAUSE),
            Err(error) => {
                let reachable = follow::answers(&replica.archive).await;
                replica.failed(&error, reachable, app.archive.clock().now());
                tokio::time::sleep(pauses.take()).await;
            }
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
        note_conflicts(replica).await;
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
    let begun = source.clock().now();
    let beyond = {
        let mut known = replica.known();
        known.backup_ended = None;
        known.beyond
    };
    replica.remember(copy.disputed().await?.as_ref());
    let decided = decide(app, replica).await?;
    let mut is_level = decided.is_some();
    let wanted = decided.unwrap_or_default();
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
    covered(replica, begun, beyond);
    let mut next = EVERY;
    let mut has_new = false;
    if !backups.is_empty() {
        replica.behind(source.clock().now());
        let error = match bring_backups(app, replica, wishes(&backups)).await {
            Ok(report) => {
                has_new = report.listed() > 0;
                left_behind(replica, &report)
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            is_level = false;
            replica.known().is_stuck = true;
            let reachable = follow::answers(copy).await;
            replica.failed(&error, reachable, source.clock().now());
            next = EVERY_WHILE_LEFT;
        }
    }
    look_again(app, replica, &wal, begun).await?;
    note_conflicts(replica).await;
    if is_level {
        replica.level();
    }
    // A full archive takes nothing until its own retention has run.
    if has_new || is_first || !is_level {
        keep_house(replica).await;
    }
    replica.known().last_pass = Some(source.clock().now());
    Ok(next)
}

/// What the archive wants by its own rules; `None` while no rule decides because a backup is dated ahead. WAL must not wait for
/// that, so all of it is wanted then.
async fn decide(app: &App, replica: &Replica) -> Result<Option<Wanted>, OpError> {
    let keeping = &replica.housekeeping;
    let asked = retention::wanted(
        &app.archive,
        &replica.archive,
        &keeping.policy,
        keeping.grace,
        keeping.request_interval,
    );
    match asked.await {
        Err(error) if error.kind == Kind::Busy => {
            log_failure(&format!("the rules of archive {}", replica.number), &error);
            Ok(None)
        }
        wanted => wanted.map(Some),
    }
}

/// Tells which backups were not copied. Gives why, where the next pass may bring them.
fn left_behind(replica: &Replica, report: &CopyReport) -> Option<OpError> {
    let mut left = 0;
    for line in &report.backups {
        match &line.fate {
            BackupFate::Left { .. } => left += 1,
            BackupFate::Gone(why) => tracing::warn!(
                archive = replica.number,
                backup = %line.name,
                hint = "the first archive deletes before this one has got everything: keep more in the first",
                "the base backup was not copied: it {why}"
            ),
            _ => {}
        }
    }
    replica.known().backups_wanted = left;
    report.failure().filter(|_| left > 0)
}

/// Compares once more the WAL that was found to differ and that the pass has not seen: it trusts sizes.
async fn look_again(
    app: &App,
    replica: &Replica,
    wal: &WalWish,
    now: DateTime<Utc>,
) -> Result<(), OpError> {
    let names: BTreeSet<ArchiveFileName> = {
        let known = replica.known();
        let keys = known.conflicts.objects.keys();
        let unseen = keys.filter(|key| !known.seen.objects.contains_key(*key));
        unseen.filter_map(|key| wal_claim(key)).collect()
    };
    for name in &names {
        if wal.takes(name, now) {
            let troubles = follow::bring(&app.archive, &replica.archive, name).await?;
            replica.conflicts(&troubles);
        } else if replica.archive.find_wal(name).await?.is_some() {
            // Nobody compares what is not wanted. While it is there, it may not be taken.
            replica.still_disputed(name);
        }
    }
    replica.settle_conflicts();
    Ok(())
}

/// Writes down in the archive what differs there, so that nobody takes it in the first's place. It fails nothing: it is tried
/// again with the next pass.
async fn note_conflicts(replica: &Replica) {
    let note = {
        let known = replica.known();
        known.is_to_note.then(|| known.conflicts.clone())
    };
    let Some(note) = note else {
        return;
    };
    match replica.archive.note_disputed(&note).await {
        Ok(()) => {
            let mut known = replica.known();
            known.is_to_note = known.conflicts != note;
        }
        Err(error) => tracing::warn!(
            archive = replica.number,
            location = replica.archive.location(),
            hint = "what differs there may be taken in place of the first archive's while that is away",
            "it could not be noted which objects differ: {}",
            error.chain()
        ),
    }
}

fn wishes(wanted: Wanted) -> (Vec<BackupName>, Vec<BackupName>, WalWish) {
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
    // What cannot be copied is told by itself, and would hold pushes up for ever.
    let disputed: BTreeSet<ArchiveFileName> = {
        let known = replica.known();
        let keys = known.conflicts.objects.keys();
        keys.filter_map(|key| wal_claim(key)).collect()
    };
    let wish = wish.clone();
    let wish =
        WalWish::of(move |name, stored| wish.takes(name, stored) && !disputed.contains(name));
    let lag = follow::lag(&app.archive, &replica.archive, &wish).await?;
    if lag.segments > 0 {
        replica.behind(at);
    }
    let mut known = replica.known();
    known.measured = Some((lag, at));
    known.is_measured = true;
    Ok(())
}

/// What was archived before then is there, also those that were only counted by then.
fn covered(replica: &Replica, begun: DateTime<Utc>, beyond: u64) {
    let mut known = replica.known();
    known.pending.retain(|(_, at)| *at > begun - LISTED_WITHIN);
    known.beyond = known.beyond.saturating_sub(beyond);
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
        present: if replica.known().is_to_compare {
            Present::Compared
        } else {
            Present::TrustedBySize
        },
        retry: RetryBudget::ONCE,
        ..CopyOptions::new(WORKERS)
    };
    let progress = Progress::new();
    let (source, copy) = (&app.archive, &replica.archive);
    let work = archive_copy::run(source, copy, &options, &progress, &cancel);
    let report = Box::pin(work).await?;
    replica.conflicts(&report.troubles);
    if report.troubles_count > report.troubles.len() as u64 {
        replica.more_conflicts();
    }
    for line in &report.backups {
        if matches!(line.fate, BackupFate::Copied) {
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
                let record = housekeeping::tell(archive, Some(replica.number), &report);
                let mut known = replica.known();
                known.last_retention = Some(record);
                known.last_retention_failure = None;
            }
            Err(error) => {
                let what = format!("retention of archive {}", replica.number);
                log_failure(&what, &error);
                let record = FailureRecord::new(what, &error, archive.clock().now());
                replica.known().last_retention_failure = Some(record);
            }
        }
    }
    housekeeping::clean(archive, options.grace).await;
}
