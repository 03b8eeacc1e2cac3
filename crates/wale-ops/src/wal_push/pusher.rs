//! The long-lived pusher of one WAL directory: what a sidecar answers PostgreSQL's archiver with.
//!
//! ```text
//! push(n) ─┬─ being pushed ──▶ share its result
//!          └─ else one task: permit ┬─ remembered, file unchanged ▶ one look at the store ─▶ answer all who wait
//!                                   └─ else run ▶ remember ──────────────────────────────▶ answer all who wait
//!      and, beside it: the next ready files, through permits of their own
//! ```
//!
//! A request never waits behind work that nobody asked for: looking ahead has permits of its own and begins only
//! when one is free, so a push ahead that exists is running. It ends only after those before it did ([`PushOrder`]).
//! A remembered result spares the upload, never the check: an object may have been lost since, and PostgreSQL deletes its
//! copy on the strength of the answer. A failed push ahead is forgotten, and the request for that file tries anew. Every
//! task is owned by the pusher and joined by [`Pusher::drain`].
//!
//! It decides nothing about data (that is [`super::run`]) and writes nothing into the WAL directory.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use wale_archive::{Age, Archive};
use wale_cluster::{FileStamp, WalDirectory};
use wale_pg::ArchiveFileName;
use wale_pipeline::blocking;

use super::plan;
use super::report::{PushOutcome, PushReport, PusherStats};
use super::run::{PushOptions, run_stamped};
use super::running_push::{PushOrder, RunningPush};
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// Results remembered: 1,024 of some 200 bytes. PostgreSQL asks for a file within a few pushes of its look-ahead.
const REMEMBERED_MAX: usize = 1024;

/// Ready files kept from one reading of `archive_status`, so that a backlog of 10,000 files is not read and sorted
/// anew for each push.
const BACKLOG_MAX: usize = 1024;

/// Pushes that run or wait for their permit: 1,024 tasks of some KiB. More files than PostgreSQL asks for at a time, and
/// a bound for clients that ask for names at will and hang up.
pub(super) const IN_FLIGHT_MAX: usize = 1024;

/// The most files pushed ahead, whatever is asked for: 64 × 4 MiB, the most that one push needs, are 256 MiB.
pub const LOOK_AHEAD_MAX: usize = 64;

/// What a caller may choose about a [`Pusher`].
#[derive(Clone, Debug)]
pub struct PusherOptions {
    /// How many ready files are pushed ahead of the one that is asked for, at most [`LOOK_AHEAD_MAX`]; 0 switches it off.
    pub look_ahead: usize,
    /// How many requested files are pushed at the same time. The files pushed ahead come on top.
    pub concurrent: usize,
    /// The cluster's data directory, if it can be seen: its `pg_control` must agree with the WAL.
    pub data_directory: Option<PathBuf>,
    /// How long an outage of the store is waited out within one request.
    pub retry: RetryBudget,
}

impl Default for PusherOptions {
    /// Two files ahead, four requests at once (six pushes of less than 4 MiB each), no data directory.
    fn default() -> Self {
        let PushOptions {
            data_directory,
            retry,
        } = PushOptions::default();
        Self {
            look_ahead: 2,
            concurrent: 4,
            data_directory,
            retry,
        }
    }
}

/// Pushes the files of one WAL directory. Keep it for as long as the sidecar runs.
#[derive(Debug)]
pub struct Pusher {
    shared: Arc<Shared>,
    tasks: Mutex<Tasks>,
    look_ahead: usize,
}

#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<()>,
    draining: bool,
}

#[derive(Debug)]
struct Shared {
    archive: Archive,
    directory: WalDirectory,
    options: PushOptions,
    requested: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    /// Held while the ready files are read: a hundred thousand names are not to be in memory once per request.
    reading: Semaphore,
    state: Mutex<Pushes>,
}

#[derive(Debug, Default)]
struct Pushes {
    in_flight: HashMap<ArchiveFileName, RunningPush>,
    remembered: HashMap<ArchiveFileName, (FileStamp, PushReport)>,
    /// The remembered names, oldest first.
    order: VecDeque<ArchiveFileName>,
    /// Ready files in PostgreSQL's order, as last read, without those that were pushed and passed since. A file that
    /// was asked for stays until it is pushed: everything after it must wait for it.
    backlog: VecDeque<ArchiveFileName>,
    stats: PusherStats,
}

/// Why a push begins.
#[derive(Debug)]
enum PushReason {
    /// Somebody asks for the file.
    Requested,
    /// It is ready, and will be asked for.
    Ahead {
        permit: OwnedSemaphorePermit,
        turn: PushOrder,
    },
}

impl Pusher {
    /// A pusher of `directory` into `archive`.
    #[must_use]
    pub fn new(archive: Archive, directory: WalDirectory, options: PusherOptions) -> Self {
        let PusherOptions {
            look_ahead,
            concurrent,
            data_directory,
            retry,
        } = options;
        let look_ahead = look_ahead.min(LOOK_AHEAD_MAX);
        let shared = Shared {
            archive,
            directory,
            options: PushOptions {
                data_directory,
                retry,
            },
            requested: Arc::new(Semaphore::new(concurrent.max(1))),
            ahead: Arc::new(Semaphore::new(look_ahead)),
            reading: Semaphore::new(1),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            tasks: Mutex::default(),
            look_ahead,
        }
    }

    /// Pushes `name`, or shares the push of it that runs, or remembers it. Dropping the future does not stop the
    /// push: the next request for the file finds its result.
    ///
    /// # Errors
    /// As [`super::run`]; [`Kind::Draining`] once [`Pusher::drain`] was called.
    pub async fn push(&self, name: &ArchiveFileName) -> Result<PushReport> {
        let result = self.answer(name).await;
        let now = self.shared.archive.clock().now();
        let mut state = self.shared.lock();
        let counters = &mut state.stats;
        match &result {
            Ok(_) => counters.requests_ok += 1,
            Err(error) => {
                *counters.failures.entry(error.kind).or_default() += 1;
                counters.last_failure = Some(now);
                counters.last_failure_text = Some(error.chain());
            }
        }
        result
    }

    async fn answer(&self, name: &ArchiveFileName) -> Result<PushReport> {
        let running = self.join_or_begin(name)?;
        self.begin_look_ahead(*name);
        let result = running.ended().await;
        match result {
            // A push ahead of the request may have failed because it was early.
            Err(error) if running.ahead => {
                tracing::debug!(%name, error = %error.chain(), "the push ahead failed; the file is pushed again");
                self.join_or_begin(name)?.ended().await
            }
            Ok(report) if running.ahead => {
                self.shared.lock().stats.look_ahead_hits += 1;
                Ok(report)
            }
            other => other,
        }
    }

    /// Starts nothing new and waits until every push that runs has ended. Requests fail from now on.
    pub async fn drain(&self) {
        let mut set = {
            let mut tasks = self.tasks();
            tasks.draining = true;
            std::mem::take(&mut tasks.set)
        };
        while let Some(ended) = set.join_next().await {
            report_panic(ended);
        }
    }

    /// The counters so far.
    #[must_use]
    pub fn stats(&self) -> PusherStats {
        let state = self.shared.lock();
        PusherStats {
            in_flight: state.in_flight.len(),
            ..state.stats.clone()
        }
    }

    /// The push of `name` that runs, begun if there is none.
    fn join_or_begin(&self, name: &ArchiveFileName) -> Result<RunningPush> {
        let mut tasks = self.tasks();
        if tasks.draining {
            return Err(OpError::new(
                Kind::Draining,
                format!("{name} is not pushed, because wale is shutting down"),
            )
            .hint("PostgreSQL keeps the file and asks again"));
        }
        let mut state = self.shared.lock();
        if let Some(running) = state.in_flight.get(name) {
            return Ok(running.clone());
        }
        if state.in_flight.len() >= IN_FLIGHT_MAX {
            return Err(OpError::new(
                Kind::Busy,
                format!("{name} is not pushed now: {IN_FLIGHT_MAX} other files are"),
            )
            .hint("PostgreSQL keeps the file and asks again"));
        }
        Ok(self
            .shared
            .begin(&mut state, &mut tasks.set, *name, PushReason::Requested))
    }

    /// Begins pushes of the next ready files, in a task, since it reads a folder.
    fn begin_look_ahead(&self, requested: ArchiveFileName) {
        let mut tasks = self.tasks();
        while let Some(ended) = tasks.set.try_join_next() {
            report_panic(ended);
        }
        if self.look_ahead == 0 || tasks.draining {
            return;
        }
        let (shared, window) = (Arc::clone(&self.shared), self.look_ahead);
        tasks.set.spawn(async move {
            // The pushes are children of this task: it ends when they have ended, and drain waits for it.
            let mut children = JoinSet::new();
            shared.look_ahead(&requested, window, &mut children).await;
            while let Some(ended) = children.join_next().await {
                report_panic(ended);
            }
        });
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pushes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers and spawns the push of `name`.
    fn begin(
        self: &Arc<Self>,
        state: &mut Pushes,
        tasks: &mut JoinSet<()>,
        name: ArchiveFileName,
        reason: PushReason,
    ) -> RunningPush {
        let (sender, outcome) = watch::channel(None);
        let ahead = matches!(reason, PushReason::Ahead { .. });
        let running = RunningPush { outcome, ahead };
        state.in_flight.insert(name, running.clone());
        let end = EndOfPush {
            shared: Arc::clone(self),
            name,
        };
        tasks.spawn(async move {
            let shared = Arc::clone(&end.shared);
            let (_permit, turn) = match reason {
                PushReason::Ahead { permit, turn } => (Ok(permit), turn),
                PushReason::Requested => {
                    let permit = Arc::clone(&shared.requested).acquire_owned().await;
                    (permit, PushOrder::now())
                }
            };
            let result = match shared.recall(&name).await {
                Ok(Some(report)) => Ok(report),
                Ok(None) => {
                    let Shared {
                        archive,
                        directory,
                        options,
                        ..
                    } = &*shared;
                    let result = run_stamped(archive, directory, &name, options, &turn).await;
                    shared.note(result, ahead)
                }
                Err(error) => Err(error),
            };
            // Off the list before anybody is told: the next request must not join a push that has ended.
            drop(end);
            sender.send_replace(Some(Arc::new(result)));
        });
        running
    }

    /// Remembers and counts what a push brought.
    fn note(&self, result: Result<(PushReport, FileStamp)>, ahead: bool) -> Result<PushReport> {
        let now = self.archive.clock().now();
        let mut state = self.lock();
        let counters = &mut state.stats;
        let (report, stamp) = match result {
            Ok(done) => done,
            Err(error) => {
                counters.look_ahead_failures += u64::from(ahead);
                return Err(error);
            }
        };
        match report.outcome {
            PushOutcome::Stored => counters.uploads += 1,
            PushOutcome::AlreadyStored => counters.already_stored += 1,
            PushOutcome::KeptBeside => counters.kept_beside += 1,
        }
        if let Some(beside) = &report.beside {
            counters.beside_unreadable += 1;
            counters.last_unreadable = Some(beside.clone());
        }
        if report.outcome != PushOutcome::AlreadyStored {
            counters.bytes_plain += report.bytes_plain;
            counters.bytes_stored += report.bytes_stored;
        }
        counters.push_time += report.duration;
        counters.last_success = Some(now);
        counters.last_archived = Some(report.name);
        state.remember(stamp, report.clone());
        Ok(report)
    }

    /// The remembered result of `name`, if the file is still the one that was pushed and its object is still there.
    ///
    /// # Errors
    /// The store's, after the patience of a push.
    async fn recall(&self, name: &ArchiveFileName) -> Result<Option<PushReport>> {
        let Some((stamp, report)) = self.lock().remembered.get(name).cloned() else {
            return Ok(None);
        };
        let (directory, file) = (self.directory.clone(), *name);
        let opened = blocking(move || directory.open_file(&file)).await?;
        if !opened.is_ok_and(|opened| opened.stamp == stamp) {
            return Ok(None);
        }
        let look = || is_there(&self.archive, &report);
        if self.options.retry.run(look).await? {
            self.lock().stats.look_ahead_hits += 1;
            return Ok(Some(report));
        }
        tracing::warn!(
            %name, key = report.key,
            hint = "find out who deletes objects of this archive",
            "the object of an archived file is gone; the file is stored again"
        );
        self.lock().forget(name);
        Ok(None)
    }

    /// Begins pushes of the ready files that follow `requested`, as far as permits go.
    async fn look_ahead(
        self: &Arc<Self>,
        requested: &ArchiveFileName,
        window: usize,
        children: &mut JoinSet<()>,
    ) {
        let is_short = {
            let mut state = self.lock();
            let Pushes {
                backlog,
                remembered,
                ..
            } = &mut *state;
            backlog.retain(|name| {
                name.cmp_archiving(requested).is_ge() || !remembered.contains_key(name)
            });
            backlog.iter().filter(|name| *name != requested).count() < window
        };
        if is_short && let Ok(_reading) = self.reading.try_acquire() {
            let directory = self.directory.clone();
            let read = blocking(move || {
                directory.ready().map_err(|e| {
                    OpError::from_cluster(e, "list the files that are ready to be archived")
                })
            });
            match read.await.map_err(OpError::from).flatten() {
                Ok(ready) => {
                    self.lock().backlog = ready.into_iter().take(BACKLOG_MAX).collect();
                }
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "could not read the ready files: nothing is pushed ahead");
                }
            }
        }
        let mut state = self.lock();
        let mut turn = PushOrder::now();
        match state.in_flight.get(requested) {
            Some(running) => turn.after(*requested, running.clone()),
            None if state.remembered.contains_key(requested) => {}
            // It has failed already, and nothing may come before it.
            None => return,
        }
        let candidates = plan::look_ahead(state.backlog.make_contiguous(), requested, window);
        for name in candidates {
            if let Some(running) = state.in_flight.get(&name) {
                turn.after(name, running.clone());
            } else if !state.remembered.contains_key(&name) {
                let Ok(permit) = Arc::clone(&self.ahead).try_acquire_owned() else {
                    break;
                };
                let reason = PushReason::Ahead {
                    permit,
                    turn: turn.clone(),
                };
                let running = self.begin(&mut state, children, name, reason);
                turn.after(name, running);
            }
        }
    }
}

/// Whether the object of a push is still in the archive, with its size. One check: two small requests at the same time.
async fn is_there(archive: &Archive, report: &PushReport) -> Result<bool> {
    let key = Archive::key(&report.key)?;
    let head = async {
        let meta = archive.store().head(&key).await;
        meta.map_err(|e| OpError::from_store(e, format_args!("look for {key}")))
    };
    let (_, meta) = tokio::try_join!(archive.ensure_there(Age::Lately), head)?;
    Ok(meta.is_some_and(|meta| meta.size == report.bytes_stored))
}

impl Pushes {
    fn forget(&mut self, name: &ArchiveFileName) {
        self.remembered.remove(name);
        self.order.retain(|remembered| remembered != name);
    }

    fn remember(&mut self, stamp: FileStamp, report: PushReport) {
        let name = report.name;
        if self.remembered.insert(name, (stamp, report)).is_none() {
            self.order.push_back(name);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.remembered.remove(&oldest);
        }
    }
}

/// Takes a push off the list of those that run, however it ends.
#[derive(Debug)]
struct EndOfPush {
    shared: Arc<Shared>,
    name: ArchiveFileName,
}

impl Drop for EndOfPush {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.in_flight.remove(&self.name);
        // A file that failed is not tried ahead again until the ready files are read anew, and nothing that comes
        // after it may be pushed ahead without it.
        if !state.remembered.contains_key(&self.name)
            && let Some(at) = state.backlog.iter().position(|name| *name == self.name)
        {
            state.backlog.truncate(at);
        }
    }
}

fn report_panic(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a push panicked; report this as a bug of wale");
    }
}
