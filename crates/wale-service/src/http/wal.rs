//! The archive's routes: what PostgreSQL's archiver and its recovery ask for.
//!
//! Each handler parses a name, asks for a permit, calls one operation of `wale-ops` and reports what came of it. It
//! decides nothing about data. Invariant: 200 is answered after the operation succeeded, never instead of it.

use std::time::Duration;

use hyper::header::HeaderMap;
use tokio::time::Instant;
use wale_ops::wal_fetch::Delivery;
use wale_ops::wal_push::{PushOutcome, PushReport};
use wale_ops::{ArchiveStatus, Kind, Nonce, OpError};
use wale_pg::ArchiveFileName;

use super::answer::TAKE_HEADER;
use super::client::Client;
use super::name;
use super::reply::{Reply, Voice, busy};
use crate::app::App;
use crate::journal::{FailureRecord, PushRecord};
use crate::lifecycle::{Permit, Phase, Topic};
use crate::metrics::HANDED_OVER;

/// How long a file waits for its turn to be sent, and a proof for its turn to be made. The client hears it then, and
/// may ask again.
const FILE_TURN: Duration = Duration::from_secs(30);

/// How long a request waits for its push. The push goes on afterwards, and a client that asks again joins it. With the
/// 30 s that a request may be held before the first base backup, the longest answer takes 100 s: an `archive_command`
/// gives up after more, 120 s.
const PUSH_ANSWER: Duration = Duration::from_secs(100);

/// The raw part of an address that holds a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawName<'a> {
    pub(crate) rest: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl RawName<'_> {
    fn parse(self, app: &App) -> Result<ArchiveFileName, OpError> {
        name::parse(self.rest, self.query).inspect_err(|error| app.quiet.failure("name", error))
    }
}

/// Leave to work, or the reason to come again.
fn admit(app: &App, name: &ArchiveFileName) -> Result<Permit, OpError> {
    app.life.admit().map_err(|phase| match phase {
        Phase::Stopped => OpError::new(
            Kind::Draining,
            format!("{name} is not served: the sidecar has stopped"),
        ),
        phase => busy(
            format!("{name} is not served while the sidecar is {}", phase.name()),
            "repeat the request; /startupz says when the sidecar is ready",
        ),
    })
}

/// `/wal-push/<name>`.
pub(crate) async fn push(app: &App, raw: RawName<'_>, voice: Voice) -> Result<Reply, OpError> {
    let name = raw.parse(app)?;
    let _permit = admit(app, &name)?;
    let begun = Instant::now();
    app.push_seen.send_replace(Some(begun));
    let pushed = if let Some(refusal) = lagging(app) {
        Err(refusal)
    } else if app.hold.pass().await {
        let pushing = app.pusher.push(&name);
        match tokio::time::timeout_at(begun + PUSH_ANSWER, pushing).await {
            Ok(pushed) => pushed,
            Err(_) => return Err(still_pushing(app, &name)),
        }
    } else {
        Err(busy(
            format!("{name} is not archived before the first base backup has begun"),
            "let PostgreSQL repeat the request; /status shows what keeps the backup from beginning",
        ))
    };
    app.push_seen.send_replace(Some(Instant::now()));
    match pushed {
        Ok(report) => {
            note_push(app, &report, begun);
            Ok(told(voice, &report))
        }
        Err(error) => {
            note_push_failure(app, &name, &error).await;
            Err(error)
        }
    }
}

/// Why a push has to wait for an archive that lags behind more than it may.
fn lagging(app: &App) -> Option<OpError> {
    let (bound, now) = (app.max_archive_lag?, app.archive.clock().now());
    let mut replicas = app.replicas.iter();
    replicas.find_map(|replica| replica.refusal(bound, now))
}

/// A push that takes longer than anybody waits is no failure: the store or the way to it is slow.
fn still_pushing(app: &App, name: &ArchiveFileName) -> OpError {
    app.push_seen.send_replace(Some(Instant::now()));
    app.metrics.push_failed(Kind::Busy.name());
    let seconds = PUSH_ANSWER.as_secs();
    let error = busy(
        format!("{name} is still being stored after {seconds} s"),
        "let PostgreSQL repeat the request: it joins the push that goes on",
    );
    app.quiet.failure("wal-push", &error);
    error
}

fn told(voice: Voice, report: &PushReport) -> Reply {
    match voice {
        Voice::Text => Reply::line(format!("{} {}", report.name, report.outcome.name())),
        Voice::Json => Reply::json(
            hyper::StatusCode::OK,
            &serde_json::json!({
                "name": report.name.to_string(), "outcome": report.outcome.name(), "key": report.key,
                "bytes": report.bytes_plain, "stored_bytes": report.bytes_stored,
            }),
        ),
    }
}

fn note_push(app: &App, report: &PushReport, begun: Instant) {
    let at = app.archive.clock().now();
    let outcome = report.outcome.name();
    // What was stored is logged each time, for the archive bounds it. Anybody may ask for the rest again and again.
    if report.outcome == PushOutcome::Stored || app.quiet.allows("wal-push", outcome) {
        tracing::info!(
            name = %report.name, outcome, bytes = report.bytes_plain, stored_bytes = report.bytes_stored,
            duration_seconds = begun.elapsed().as_secs_f64(), "WAL file archived"
        );
    }
    for replica in &app.replicas {
        replica.archived(&report.name, at);
    }
    app.metrics.pushed(outcome, begun.elapsed(), at);
    let record = PushRecord {
        name: report.name.to_string(),
        outcome,
        at,
    };
    app.journal.note(|entries| entries.last_push = Some(record));
    app.life.resolve(Topic::WalPush);
    app.life.resolve(Topic::Archive);
    app.life.resolve(Topic::ArchiveWrite);
}

async fn note_push_failure(app: &App, name: &ArchiveFileName, error: &OpError) {
    app.quiet.failure("wal-push", error);
    app.metrics.push_failed(error.kind.name());
    let record = FailureRecord::new(format!("push of {name}"), error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_push_failure = Some(record));
    // A missing file is the client's mistake, and while the sidecar stops nobody can help any more.
    if matches!(
        error.kind,
        Kind::NotFound | Kind::Draining | Kind::Cancelled
    ) {
        return;
    }
    if is_wanted(app, name).await {
        app.life.complain(Topic::WalPush, error.chain());
    }
}

/// Whether PostgreSQL wants the file archived: only the server makes its marker, so no caller's mistake counts.
async fn is_wanted(app: &App, name: &ArchiveFileName) -> bool {
    let (directory, name) = (app.wal_directory.clone(), *name);
    let looking = tokio::task::spawn_blocking(move || directory.status(&name));
    matches!(looking.await, Ok(Ok(ArchiveStatus::Ready)))
}

/// The place in which a client waits for a file; what is no nonce is as good as none.
pub(crate) fn taker(headers: &HeaderMap) -> Option<Nonce> {
    let nonce = headers.get(TAKE_HEADER)?;
    Nonce::parse(nonce.to_str().ok()?)
}

/// `/wal/<name>`: the verified bytes, streamed; or the file, to a client that can take it.
pub(crate) async fn stream(
    app: &App,
    raw: RawName<'_>,
    client: &Client,
    taker: Option<Nonce>,
) -> Result<Reply, OpError> {
    let name = raw.parse(app)?;
    let permit = admit(app, &name)?;
    let turn = client.turn_of(&app.files, FILE_TURN).await.ok_or_else(|| {
        busy(
            format!(
                "{name} is not sent: as many files as can be are being sent to clients that read slowly"
            ),
            "repeat the request",
        )
    })?;
    let delivery = app
        .fetcher
        .fetch_for_taker(&name, taker.as_ref())
        .await
        .inspect_err(|error| note_fetch_failure(app, &name, error))?;
    match (delivery, taker) {
        (Delivery::HandedOver(size), Some(nonce)) => {
            note_fetch(app, HANDED_OVER, size);
            Ok(Reply::Handed { name, nonce, size })
        }
        (Delivery::HandedOver(_), None) => {
            let message = format!("{name} was handed over to nobody");
            Err(OpError::internal(message))
        }
        (Delivery::Sent(fetched), _) => {
            note_fetch(app, "found", fetched.size);
            Ok(Reply::File {
                size: fetched.size,
                body: fetched.body,
                held: (permit, turn),
            })
        }
    }
}

/// `/wal-fetch/<name>`: into the WAL directory, under a temporary name first.
pub(crate) async fn fetch(app: &App, raw: RawName<'_>) -> Result<Reply, OpError> {
    let name = raw.parse(app)?;
    let _permit = admit(app, &name)?;
    let fetched = app.fetcher.fetch_into(&name, &app.wal_directory).await;
    let report = fetched.inspect_err(|error| note_fetch_failure(app, &name, error))?;
    note_fetch(app, "found", report.bytes_plain);
    Ok(Reply::line(format!("{name} is in place")))
}

fn note_fetch(app: &App, outcome: &'static str, bytes: u64) {
    app.metrics.fetched(outcome, bytes);
    app.life.resolve(Topic::WalFetch);
}

fn note_fetch_failure(app: &App, name: &ArchiveFileName, error: &OpError) {
    app.metrics.fetched(error.kind.name(), 0);
    if error.kind == Kind::NotFound {
        // The end of the WAL, and timeline histories that do not exist: recovery asks for them all the time.
        tracing::debug!(%name, "not in the archive");
        app.life.resolve(Topic::WalFetch);
        return;
    }
    app.quiet.failure("wal-fetch", error);
    let record = FailureRecord::new(format!("fetch of {name}"), error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_fetch_failure = Some(record));
    if !is_callers_mistake(error.kind) {
        app.life.complain(Topic::WalFetch, error.chain());
    }
}

/// Failures of a fetch that say nothing about the sidecar, its archive or its disk.
fn is_callers_mistake(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Usage
            | Kind::InvalidName
            | Kind::ArchiveConflict
            | Kind::NotEmpty
            | Kind::Busy
            | Kind::Draining
            | Kind::Cancelled
    )
}

/// `/wal-absent/<name>`: 200 only when the store was asked and does not have it.
pub(crate) async fn absent(app: &App, raw: RawName<'_>, client: &Client) -> Result<Reply, OpError> {
    let name = raw.parse(app)?;
    let _permit = admit(app, &name)?;
    let Some(_turn) = client.turn_of(&app.proofs, FILE_TURN).await else {
        app.metrics.absence(Kind::Busy.name());
        return Err(busy(
            format!("the absence of {name} is not proved: as many proofs as can be are being made"),
            "repeat the request",
        ));
    };
    match app.fetcher.prove_absent(&name).await {
        Ok(_) => {
            app.metrics.absence("proven");
            Ok(Reply::line(format!("{name} is not in the archive")))
        }
        Err(error) => {
            app.metrics.absence(error.kind.name());
            app.quiet.failure("wal-absent", &error);
            Err(error)
        }
    }
}
