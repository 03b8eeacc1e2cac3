//! One base backup at a time, no matter who asks: the schedule, a client, or the start of `BACKUP_PUSH`.
//!
//! It refuses to know what a backup is. The advisory lock on the server, which wale-ops takes, covers other processes;
//! this covers the ones inside.
//!
//! Invariants: a backup belongs to a task of its own, so that a client who hangs up does not end it; the task is
//! tracked and joined at the end; whatever becomes of the task, the place for the next backup is free afterwards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wale_ops::backup_push::{self, BackupReport, ScheduleSlot};
use wale_ops::{Archive, Clock, Declined, Kind, OpError, Progress};

use crate::journal::{BackupRecord, FailureRecord, Journal, log_failure};
use crate::lifecycle::{Lifecycle, Topic};
use crate::metrics::Metrics;

/// A failed base backup is forgotten by readiness when none has failed for so long: `/status`, the log and the metrics keep
/// it, and one bad night does not take a node out of its service until the next.
const FAILURE_REMEMBERED: Duration = Duration::from_hours(1);

/// What asked for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    Schedule(ScheduleSlot),
    Request,
    FirstBackup,
}

impl Trigger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Schedule(_) => "schedule",
            Self::Request => "request",
            Self::FirstBackup => "first-backup",
        }
    }

    fn slot(self) -> Option<ScheduleSlot> {
        match self {
            Self::Schedule(slot) => Some(slot),
            Self::Request | Self::FirstBackup => None,
        }
    }
}

/// Called once, when the server has fixed the backup's start position.
pub(crate) type OnStarted = Box<dyn FnOnce() + Send>;

/// Something that can take a base backup. The service needs no more of it than this.
pub(crate) trait TakeBackup: Send + Sync {
    fn take(
        &self,
        trigger: Trigger,
        progress: Progress,
        cancel: CancellationToken,
        on_started: OnStarted,
    ) -> BoxFuture<'static, Result<BackupRecord, OpError>>;
}

/// The real thing.
pub(crate) struct ClusterBackup {
    pub(crate) archive: Archive,
    pub(crate) options: backup_push::BackupOptions,
}

impl TakeBackup for ClusterBackup {
    fn take(
        &self,
        trigger: Trigger,
        progress: Progress,
        cancel: CancellationToken,
        on_started: OnStarted,
    ) -> BoxFuture<'static, Result<BackupRecord, OpError>> {
        let archive = self.archive.clone();
        let options = backup_push::BackupOptions {
            slot: trigger.slot(),
            requested_over_http: trigger == Trigger::Request,
            ..self.options.clone()
        };
        Box::pin(async move {
            let report =
                backup_push::run(&archive, &options, &progress, &cancel, |_| on_started()).await?;
            Ok(record_of(report))
        })
    }
}

fn record_of(report: BackupReport) -> BackupRecord {
    BackupRecord {
        name: report.name.to_string(),
        started_at: report.started_at,
        stopped_at: report.stopped_at,
        duration: report.duration,
        files: report.files,
        bytes: report.bytes,
        stored_bytes: report.bytes_stored,
        damaged_pages: report.damaged_pages,
        warnings: report.warnings,
    }
}

/// How a backup ended; shared by all who wait for it.
pub(crate) type Ended = Arc<Result<BackupRecord, OpError>>;

/// The backup that runs now.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) trigger: Trigger,
    pub(crate) since: DateTime<Utc>,
    pub(crate) progress: Progress,
}

/// A claim to the end of one backup.
#[derive(Debug)]
pub(crate) struct Ticket(watch::Receiver<Option<Ended>>);

impl Ticket {
    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Ended {
        match self.0.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or_else(|| Arc::new(Err(died()))),
            Err(_) => Arc::new(Err(died())),
        }
    }
}

fn died() -> OpError {
    OpError::internal("the base backup's task ended without a result")
}

/// The place where the one backup runs.
#[derive(Clone)]
pub(crate) struct Backups {
    inner: Arc<BackupRunner>,
}

struct BackupRunner {
    taker: Box<dyn TakeBackup>,
    life: Lifecycle,
    journal: Arc<Journal>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: TaskTracker,
    cancel: CancellationToken,
    running: Mutex<Option<Running>>,
    /// How many backups this process has completed.
    completed: watch::Sender<u64>,
}

/// What the place needs.
pub(crate) struct BackupsOptions {
    pub(crate) taker: Box<dyn TakeBackup>,
    pub(crate) life: Lifecycle,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
}

impl Backups {
    pub(crate) fn new(options: BackupsOptions) -> Self {
        let BackupsOptions {
            taker,
            life,
            journal,
            metrics,
            clock,
            tasks,
        } = options;
        let cancel = CancellationToken::new();
        let running = Mutex::new(None);
        Self {
            inner: Arc::new(BackupRunner {
                taker,
                life,
                journal,
                metrics,
                clock,
                tasks,
                cancel,
                running,
                completed: watch::Sender::new(0),
            }),
        }
    }

    /// The backup that runs now.
    pub(crate) fn running(&self) -> Option<Running> {
        self.inner.place().clone()
    }

    /// Tells of every backup that is completed from now on.
    pub(crate) fn completions(&self) -> watch::Receiver<u64> {
        self.inner.completed.subscribe()
    }

    /// Begins a backup.
    ///
    /// # Errors
    ///
    /// `Busy` while another one runs or before the database may start, `Draining` after shutdown was asked for.
    pub(crate) fn begin(&self, trigger: Trigger, on_started: OnStarted) -> Result<Ticket, OpError> {
        let inner = &self.inner;
        let mut place = inner.place();
        if inner.cancel.is_cancelled() {
            return Err(OpError::new(
                Kind::Draining,
                "no base backup is begun while the sidecar shuts down",
            ));
        }
        if !inner.life.takes_backups() {
            let phase = inner.life.phase().name();
            return Err(OpError::new(
                Kind::Busy,
                format!("no base backup is begun while the sidecar is {phase}"),
            ));
        }
        if let Some(other) = place.as_ref() {
            return Err(OpError::new(Kind::Busy, "another base backup is running")
                .detail(format!(
                    "It was begun by {} at {}.",
                    other.trigger.name(),
                    other.since.to_rfc3339()
                ))
                .hint("wait for its end; /status shows how far it is"));
        }
        let running = Running {
            trigger,
            since: inner.clock.now(),
            progress: Progress::new(),
        };
        *place = Some(running.clone());
        drop(place);
        let (sender, receiver) = watch::channel(None);
        let task = Task {
            inner: Arc::clone(inner),
            ended: None,
            sender,
        };
        let cancel = inner.cancel.child_token();
        let work = inner
            .taker
            .take(trigger, running.progress, cancel, on_started);
        inner.tasks.spawn(async move {
            let ended = work.await;
            task.inner.record(trigger, &ended);
            task.end(ended);
        });
        Ok(Ticket(receiver))
    }

    /// Lets readiness forget a failure of long ago. The first backup of `BACKUP_PUSH` is waited for however long it takes.
    pub(crate) fn forget_failure(&self) {
        let life = &self.inner.life;
        if self.inner.journal.entries().last_backup_failure.is_some() {
            life.forget(Topic::Backup, FAILURE_REMEMBERED);
        }
    }

    /// Ends a running backup cleanly and begins no other. The task is joined with the others.
    pub(crate) fn stop(&self) {
        self.inner.cancel.cancel();
    }
}

/// What the task leaves behind, however it ends.
struct Task {
    inner: Arc<BackupRunner>,
    ended: Option<Ended>,
    sender: watch::Sender<Option<Ended>>,
}

impl Task {
    fn end(mut self, ended: Result<BackupRecord, OpError>) {
        self.ended = Some(Arc::new(ended));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // The place is free before anybody hears of the end: a client that tries again at once must not find it taken.
        *self.inner.place() = None;
        let ended = self.ended.take().unwrap_or_else(|| Arc::new(Err(died())));
        self.sender.send_replace(Some(ended));
    }
}

impl BackupRunner {
    fn place(&self) -> MutexGuard<'_, Option<Running>> {
        // Only whole values are assigned.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, trigger: Trigger, ended: &Result<BackupRecord, OpError>) {
        let now = self.clock.now();
        match ended {
            Ok(done) => {
                tracing::info!(
                    backup = done.name,
                    trigger = trigger.name(),
                    bytes = done.bytes,
                    stored_bytes = done.stored_bytes,
                    duration_seconds = done.duration.as_secs_f64(),
                    "base backup is complete"
                );
                for warning in &done.warnings {
                    tracing::warn!(backup = done.name, "{warning}");
                }
                self.metrics.backup_done(
                    done.bytes,
                    done.stored_bytes,
                    done.duration,
                    done.stopped_at,
                );
                self.journal
                    .note(|entries| entries.last_backup = Some(done.clone()));
                self.life.resolve(Topic::Backup);
                self.completed.send_modify(|count| *count += 1);
            }
            Err(error) if error.kind == Kind::Cancelled => {
                tracing::info!(trigger = trigger.name(), "base backup was cancelled");
                self.metrics.backup_not_done("cancelled");
            }
            Err(error) => {
                if let Some(declined) = error.declined {
                    return self.record_declined(trigger, declined, error);
                }
                log_failure(&format!("base backup ({})", trigger.name()), error);
                self.metrics.backup_not_done("failed");
                let record =
                    FailureRecord::new(format!("base backup ({})", trigger.name()), error, now);
                self.journal
                    .note(|entries| entries.last_backup_failure = Some(record));
                self.life.complain(Topic::Backup, error.chain());
            }
        }
    }

    /// Nothing failed here, so readiness does not change. Where the archive has the requested backup, all is well again.
    fn record_declined(&self, trigger: Trigger, declined: Declined, error: &OpError) {
        let (detail, reason) = (error.detail.as_deref(), declined.name());
        tracing::info!(
            trigger = trigger.name(),
            reason,
            detail,
            "no base backup is taken: {}",
            error.chain()
        );
        self.metrics.backup_not_done(reason);
        if matches!(declined, Declined::Exists | Declined::Served) {
            self.life.resolve(Topic::Backup);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A backup that does what a test says.

    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;

    /// One scripted attempt.
    pub(crate) enum Act {
        /// Begins and succeeds.
        Succeed,
        /// Fails before it begins.
        Fail(Kind),
        /// Is not taken, and nothing failed.
        Decline(Declined),
        /// Begins, then waits to be cancelled.
        Hang,
        /// The task dies.
        Panic,
    }

    #[derive(Clone)]
    pub(crate) struct Scripted {
        acts: Arc<Mutex<VecDeque<Act>>>,
        pub(crate) taken: watch::Sender<usize>,
    }

    impl Scripted {
        pub(crate) fn new(acts: impl IntoIterator<Item = Act>) -> Self {
            Self {
                acts: Arc::new(Mutex::new(acts.into_iter().collect())),
                taken: watch::Sender::new(0),
            }
        }
    }

    impl TakeBackup for Scripted {
        fn take(
            &self,
            _trigger: Trigger,
            _progress: Progress,
            cancel: CancellationToken,
            on_started: OnStarted,
        ) -> BoxFuture<'static, Result<BackupRecord, OpError>> {
            let act = self
                .acts
                .lock()
                .unwrap()
                .pop_front()
                .unwrap_or(Act::Succeed);
            let taken = self.taken.clone();
            Box::pin(async move {
                taken.send_modify(|count| *count += 1);
                match act {
                    Act::Succeed => on_started(),
                    Act::Fail(kind) => return Err(OpError::new(kind, "as the script says")),
                    Act::Decline(reason) => {
                        return Err(OpError::new(Kind::Busy, "as the script says").declined(reason));
                    }
                    Act::Hang => {
                        on_started();
                        cancel.cancelled().await;
                        return Err(OpError::new(Kind::Cancelled, "cancelled"));
                    }
                    Act::Panic => panic!("as the script says"),
                }
                Ok(done())
            })
        }
    }

    pub(crate) fn done() -> BackupRecord {
        BackupRecord {
            name: "base_000000010000000000000002_00000040".into(),
            started_at: DateTime::UNIX_EPOCH,
            stopped_at: DateTime::UNIX_EPOCH,
            duration: Duration::from_secs(1),
            files: 1,
            bytes: 2,
            stored_bytes: 1,
            damaged_pages: 0,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn backups(taker: Scripted) -> (Backups, Lifecycle, Arc<Journal>) {
        let life = Lifecycle::new();
        life.ready();
        let journal = Arc::new(Journal::default());
        let backups = Backups::new(BackupsOptions {
            taker: Box::new(taker),
            life: life.clone(),
            journal: Arc::clone(&journal),
            metrics: Arc::new(Metrics::new("test")),
            clock: Clock::System,
            tasks: TaskTracker::new(),
        });
        (backups, life, journal)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Act, Scripted, backups, done};
    use super::*;
    use crate::lifecycle::Phase;

    fn nothing() -> OnStarted {
        Box::new(|| {})
    }

    #[tokio::test]
    async fn one_at_a_time_and_the_place_is_free_afterwards() {
        let (backups, _, journal) = backups(Scripted::new([Act::Hang, Act::Succeed]));
        let first = backups.begin(Trigger::Request, nothing()).unwrap();
        assert_eq!(
            backups
                .begin(Trigger::FirstBackup, nothing())
                .unwrap_err()
                .kind,
            Kind::Busy
        );
        assert_eq!(backups.running().unwrap().trigger, Trigger::Request);
        backups.stop();
        assert_eq!(
            first.ended().await.as_ref().as_ref().unwrap_err().kind,
            Kind::Cancelled
        );
        assert!(backups.running().is_none());
        assert_eq!(
            backups.begin(Trigger::Request, nothing()).unwrap_err().kind,
            Kind::Draining
        );
        assert!(
            journal.entries().last_backup_failure.is_none(),
            "a cancelled backup did not fail"
        );
    }

    #[tokio::test]
    async fn failure_degrades_and_success_heals() {
        let (backups, life, journal) = backups(Scripted::new([
            Act::Fail(Kind::PostgresUnavailable),
            Act::Succeed,
        ]));
        let failed = backups
            .begin(Trigger::Request, nothing())
            .unwrap()
            .ended()
            .await;
        assert!(failed.is_err());
        assert_eq!(life.phase(), Phase::Degraded);
        let ended = backups
            .begin(Trigger::Request, nothing())
            .unwrap()
            .ended()
            .await;
        assert_eq!(ended.as_ref().as_ref().unwrap(), &done());
        assert_eq!(life.phase(), Phase::Ready);
        assert_eq!(journal.entries().last_backup, Some(done()));
        assert!(journal.entries().last_backup_failure.is_some());
    }

    #[tokio::test]
    async fn a_task_that_dies_frees_the_place_and_is_told() {
        let (backups, ..) = backups(Scripted::new([Act::Panic, Act::Succeed]));
        let ended = backups
            .begin(Trigger::Request, nothing())
            .unwrap()
            .ended()
            .await;
        assert_eq!(ended.as_ref().as_ref().unwrap_err().kind, Kind::Internal);
        assert!(
            backups
                .begin(Trigger::Request, nothing())
                .unwrap()
                .ended()
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn fault_108_what_is_no_failure_of_this_node_turns_nothing_off_and_a_failure_is_forgotten()
     {
        let reasons = [
            Declined::Elsewhere,
            Declined::ServerDown,
            Declined::Role,
            Declined::Recovering,
            Declined::Exists,
            Declined::Served,
        ];
        let failed = Act::Fail(Kind::LocalIo);
        let acts = reasons.map(Act::Decline).into_iter();
        let acts = acts.chain([
            failed,
            Act::Decline(Declined::Exists),
            Act::Fail(Kind::LocalIo),
        ]);
        let (backups, life, journal) = backups(Scripted::new(acts));
        let run = async || {
            let ticket = backups.begin(Trigger::Request, nothing()).unwrap();
            ticket
                .ended()
                .await
                .as_ref()
                .as_ref()
                .err()
                .map(|error| error.kind)
        };
        for reason in reasons {
            assert_eq!(run().await, Some(Kind::Busy));
            backups.forget_failure();
            assert_eq!(life.phase(), Phase::Ready, "{reason:?}");
            assert!(journal.entries().last_backup_failure.is_none());
        }
        assert_eq!(run().await, Some(Kind::LocalIo));
        assert_eq!(life.phase(), Phase::Degraded);
        run().await;
        assert_eq!(life.phase(), Phase::Ready, "the archive has the backup");
        run().await;
        backups.forget_failure();
        assert_eq!(life.phase(), Phase::Degraded);
        tokio::time::advance(FAILURE_REMEMBERED).await;
        backups.forget_failure();
        assert_eq!(life.phase(), Phase::Ready);
        assert!(
            journal.entries().last_backup_failure.is_some(),
            "/status keeps it"
        );
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_end_the_backup() {
        let taker = Scripted::new([Act::Hang]);
        let (backups, ..) = backups(taker);
        drop(backups.begin(Trigger::Request, nothing()).unwrap());
        tokio::task::yield_now().await;
        assert!(backups.running().is_some());
    }

    #[tokio::test]
    async fn none_before_the_database_may_start() {
        let (backups, life, _) = backups(Scripted::new([]));
        life.draining();
        assert_eq!(
            backups.begin(Trigger::Request, nothing()).unwrap_err().kind,
            Kind::Busy
        );
    }
}
