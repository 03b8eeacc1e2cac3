//! A sidecar's life from the open port to the last joined task.
//!
//! ```text
//! bind → listen → [restore] → ready ─┬─ lock file removed, and every later one
//!                                    ├─ whose archive it is, and whether WAL is missing, whether the server is there
//!                                    ├─ schedule
//!                                    └─ first backup (BACKUP_PUSH)
//! shutdown → draining → pushes served while PostgreSQL stops → pushes in flight → backup stopped → all joined
//! ```
//!
//! Invariants: the port is open before the lock goes (the original did it the other way round, and PostgreSQL took the
//! refused connections for the end of the WAL); a refused restore leaves the lock where it is; no task outlives
//! [`Service::run`].

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use wale_ops::backup_fetch::{self, RestoreClusterOptions, RestoreClusterOutcome};
use wale_ops::{Kind, LockFile, OpError};

use crate::app::App;
use crate::drain;
use crate::journal::RestoreRecord;
use crate::options::{ServiceOptions, StartMode, TokenFor};
use crate::scheduler::Scheduler;
use crate::{
    archiver, contact, first_backup, follower, housekeeping, http, lock, notices, ownership,
    promotion, quiet, reach, recall, recoverable, rival, rotation, store_trial, unknown, verifier,
};

/// Pauses between the attempts of a restore while the store does not answer: two minutes in all, then it is given up
/// and the process ends with the error's status.
const RESTORE_PAUSES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_mins(1),
];

/// The word for a restore that this process has done.
const RESTORED: &str = "restored";

/// How long the tail of a shutdown may take: sending the last replies, ending a backup on the server.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs a sidecar until `shutdown` completes and everything has ended in order.
///
/// # Errors
///
/// `Configuration` when it cannot listen; a refused or failed restore. A shutdown that was asked for is no error.
pub async fn serve(
    options: ServiceOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpError> {
    Service::bind(options)?.run(shutdown).await
}

/// A sidecar that listens and does not serve yet.
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    options: ServiceOptions,
    app: Arc<App>,
}

/// Connections that the kernel holds until we take them. Beyond that it ignores new ones, and a client tries again after
/// a second: too late for a push beside a crowd that comes at once. The usual 128 are too few for that.
const BACKLOG: u32 = 1024;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As every server does: a restart need not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Service {
    /// Opens the port. Called within a runtime.
    ///
    /// # Errors
    ///
    /// `Configuration` when the address cannot be used.
    pub fn bind(options: ServiceOptions) -> Result<Self, OpError> {
        let app = App::new(&options);
        Self::bind_app(options, app)
    }

    pub(crate) fn bind_app(options: ServiceOptions, app: Arc<App>) -> Result<Self, OpError> {
        let failed = |error: std::io::Error| {
            OpError::new(
                Kind::Configuration,
                format!("could not listen on {}", options.listen),
            )
            .hint("choose another port or address, or stop the program that uses it")
            .source(error)
        };
        let listener = listen(options.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            options,
            app,
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes and everything has ended in order.
    ///
    /// # Errors
    ///
    /// A refused or failed restore. A shutdown that was asked for is no error.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), OpError> {
        let Self {
            listener,
            address,
            options,
            app,
        } = self;
        tracing::info!(%address, tls = app.tls.is_some(), mode = app.mode, version = app.version, "the sidecar listens");
        tracing::info!(%address, "{}", open_to_whom(&app));
        let stop_http = CancellationToken::new();
        let stop_work = CancellationToken::new();
        let http = app
            .tasks
            .spawn(http::serve(listener, Arc::clone(&app), stop_http.clone()));
        if let Some(tls) = app.tls.clone() {
            let (clock, stop) = (app.archive.clock().clone(), stop_http.clone());
            app.tasks.spawn(async move {
                // It may be dropped at any await: it takes over at once what it takes over.
                let _ = stop
                    .run_until_cancelled(tls.keep_fresh(move || clock.now()))
                    .await;
            });
        }
        let mut shutdown = std::pin::pin!(shutdown);
        if matches!(options.mode, StartMode::Restore(_)) {
            options.notifier.restoring();
        }
        let begun = prepare(&app, &options.mode, shutdown.as_mut()).await;
        if let Ok(Begun::Serving) = begun {
            begin_work(&app, &options, &stop_work);
            options.notifier.ready();
            shutdown.await;
            options.notifier.stopping();
            drain::drain(&app, options.grace, &stop_work).await;
        }
        app.life.draining();
        stop_work.cancel();
        app.backups.stop();
        stop_http.cancel();
        // Connections that will not end are cut: their clients see no reply, which is the truth.
        let cut = http.abort_handle();
        if tokio::time::timeout(LAST_WORDS, http).await.is_err() {
            cut.abort();
        }
        app.tasks.close();
        if tokio::time::timeout(LAST_WORDS, app.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = app.tasks.len(),
                "some work did not end in time and ends with the process"
            );
        }
        app.life.stopped();
        begun.map(|_| ())
    }
}

/// What the endpoint lets whom do, in one line.
fn open_to_whom(app: &App) -> &'static str {
    match (&app.token, app.token_for) {
        (None, _) => {
            "no token is set: anyone who reaches the port can hand over WAL, read it and start base backups; \
             WALE_HTTP_TOKEN_FILE sets one, WALE_HTTP_TOKEN_FOR=reads leaves pushes open"
        }
        (Some(_), TokenFor::Reads) => {
            "pushes and probes are open to anyone who reaches the port; everything that reads data, starts work or \
             shows the cluster needs the token"
        }
        (Some(_), TokenFor::Everything) => {
            "probes are open to anyone who reaches the port; everything else needs the token"
        }
    }
}

/// What came of the time before the database may start.
enum Begun {
    Serving,
    /// Shutdown was asked for before.
    Interrupted,
}

/// The restore, where one is asked for; then the database may start.
async fn prepare(
    app: &App,
    mode: &StartMode,
    shutdown: impl Future<Output = ()>,
) -> Result<Begun, OpError> {
    // A restore may want the directory empty.
    app.fetcher.sweep().await;
    if let StartMode::Restore(options) = mode {
        app.life.restoring();
        let cancel = CancellationToken::new();
        let mut restoring = std::pin::pin!(restore(app, options, &cancel));
        let mut shutdown = std::pin::pin!(shutdown);
        let restored = tokio::select! {
            restored = restoring.as_mut() => restored,
            () = shutdown.as_mut() => {
                // Cancelled and awaited, not dropped: it ends between two files, with its marker in place.
                cancel.cancel();
                return match restoring.await {
                    Ok(()) => Ok(Begun::Interrupted),
                    Err(error) if error.kind == Kind::Cancelled => Ok(Begun::Interrupted),
                    Err(error) => Err(error),
                };
            }
        };
        restored?;
    }
    app.life.ready();
    Ok(Begun::Serving)
}

async fn restore(
    app: &App,
    options: &RestoreClusterOptions,
    cancel: &CancellationToken,
) -> Result<(), OpError> {
    for pause in RESTORE_PAUSES.into_iter().map(Some).chain([None]) {
        let restored = app.readers.read("the restore", |archive| async move {
            let progress = &app.restore_progress;
            backup_fetch::restore_cluster(&archive, options, progress, cancel).await
        });
        let restored = restored.await;
        match (restored, pause) {
            (Ok(outcome), _) => {
                note_restore(app, &outcome);
                return Ok(());
            }
            (Err(error), Some(pause)) if error.kind == Kind::StorageUnavailable => {
                tracing::warn!(
                    pause_seconds = pause.as_secs_f64(),
                    "the restore is tried again after a pause: {}",
                    error.chain()
                );
                if cancel
                    .run_until_cancelled(tokio::time::sleep(pause))
                    .await
                    .is_none()
                {
                    return Err(OpError::new(Kind::Cancelled, "the restore was cancelled"));
                }
            }
            (Err(error), _) => return Err(error),
        }
    }
    Err(OpError::internal("the restore ended without a result"))
}

fn note_restore(app: &App, outcome: &RestoreClusterOutcome) {
    let (word, backup, warnings) = match outcome {
        RestoreClusterOutcome::Restored(report) => {
            (RESTORED, report.backup.to_string(), report.warnings.clone())
        }
        RestoreClusterOutcome::AlreadyRestored { backup, .. } => {
            ("already-restored", backup.clone(), Vec::new())
        }
    };
    let notes = match outcome {
        RestoreClusterOutcome::Restored(report) => report.notes.clone(),
        RestoreClusterOutcome::AlreadyRestored { notes, .. } => notes.clone(),
    };
    tracing::info!(
        outcome = word,
        backup,
        "the data directory is whole: the database may start"
    );
    for note in &notes {
        tracing::info!(backup, "{note}");
    }
    for warning in &warnings {
        tracing::warn!(backup, "{warning}");
    }
    let record = RestoreRecord {
        outcome: word,
        backup,
        at: app.archive.clock().now(),
        notes,
        warnings,
    };
    app.journal.note(|entries| entries.restore = Some(record));
}

/// Begins everything that runs beside the endpoint; all of it ends with `stop`.
fn begin_work(app: &Arc<App>, options: &ServiceOptions, stop: &CancellationToken) {
    let begin = |work: futures_util::future::BoxFuture<'static, ()>| {
        let stop = stop.clone();
        app.tasks.spawn(async move {
            // Every one of these may be dropped at any await: backups belong to tasks of their own.
            let _ = stop.run_until_cancelled(work).await;
        });
    };
    begin(Box::pin(lock::keep_removed(LockFile::new(
        &options.lock_file,
    ))));
    begin(Box::pin(ownership::watch(Arc::clone(app))));
    begin(Box::pin(recoverable::watch(Arc::clone(app))));
    begin(Box::pin(rival::watch(Arc::clone(app))));
    begin(Box::pin(contact::watch(Arc::clone(app))));
    begin(Box::pin(promotion::watch(Arc::clone(app))));
    begin(Box::pin(rotation::watch(
        Arc::clone(app),
        options.token.clone(),
    )));
    begin(Box::pin(unknown::watch_server(Arc::clone(app))));
    begin(Box::pin(unknown::look_for_unreadable(Arc::clone(app))));
    begin(Box::pin(reach::watch(Arc::clone(app))));
    begin(Box::pin(recall::keep_looking(Arc::clone(app))));
    begin(Box::pin(archiver::watch(Arc::clone(app))));
    begin(Box::pin(quiet::keep_telling(Arc::clone(&app.quiet))));
    begin(Box::pin(notices::tell(
        Arc::clone(app),
        options.notices.clone(),
    )));
    begin(Box::pin(keep_schedule(Arc::clone(app))));
    if let Some(verification) = options.verification.clone() {
        begin(Box::pin(verifier::keep_verifying(
            Arc::clone(app),
            verification,
        )));
    }
    // A restore may have come from an archive that is somebody else's: there the first push tries the store.
    let archives = !matches!(options.mode, StartMode::Restore(_));
    if archives {
        begin(Box::pin(store_trial::run(Arc::clone(app))));
    }
    for further in &app.replicas {
        let when = if archives {
            follower::Begin::AtOnce
        } else {
            follower::Begin::WithTheFirstWrite
        };
        let follow = follower::follow(Arc::clone(app), Arc::clone(further), when);
        begin(Box::pin(follow));
    }
    begin(Box::pin(housekeeping::keep_house(
        Arc::clone(app),
        options.housekeeping.clone(),
        archives,
    )));
    if matches!(options.mode, StartMode::BackupPush) {
        begin(Box::pin(first_backup::run(Arc::clone(app))));
    }
}

async fn keep_schedule(app: Arc<App>) {
    let mut covered = recall::recall(&app.archive, &app.journal, &app.metrics).await;
    let restore = app.journal.entries().restore;
    if restore.is_some_and(|restore| restore.outcome == RESTORED) {
        // What was missed belongs to the cluster's life before: a copy that has yet to recover owes no backup.
        covered = app.archive.clock().now();
    }
    let Some(schedule) = app.schedule.clone() else {
        return;
    };
    let scheduler = Scheduler {
        schedule,
        role: app.backup_role,
        backups: app.backups.clone(),
        clock: app.archive.clock().clone(),
        journal: Arc::clone(&app.journal),
        metrics: Arc::clone(&app.metrics),
    };
    scheduler.run(covered).await;
}
