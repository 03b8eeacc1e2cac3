//! The shutdown's first part: PostgreSQL archives its last segment *while* it stops, and both containers are usually
//! stopped together, so the sidecar must outlive the server.
//!
//! Readiness goes off at once. Pushes are served while `postmaster.pid` names a server that may run, or pushes still
//! come, up to the grace. Meanwhile a running backup is ended cleanly and none is begun. With no server and no push for
//! [`QUIET`] it ends at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::server::{self, Server};

/// No push for so long means that none comes any more. PostgreSQL's archiver pauses a second between its attempts.
const QUIET: Duration = Duration::from_millis(1200);

/// How often the server is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// What the next look decides.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    Leave,
}

/// What a look has found.
#[derive(Debug, Clone, Copy)]
struct Found {
    server: Server,
    working: usize,
    /// Time since a push was last under way.
    quiet: Duration,
}

fn judge(found: Found) -> Verdict {
    match found {
        Found {
            server: Server::Gone,
            working: 0,
            quiet,
        } if quiet >= QUIET => Verdict::Leave,
        _ => Verdict::Stay,
    }
}

/// Serves on until PostgreSQL has gone, at most `grace`; then waits for pushes in flight as far as the grace goes.
pub(crate) async fn drain(app: &App, grace: Duration, stop_work: &CancellationToken) {
    app.life.draining();
    // The schedule, the lock's poller and the first backup begin nothing more.
    stop_work.cancel();
    app.backups.stop();
    // Nothing is left to wait for: what is held must be archived before the server can end.
    app.hold.open();
    let deadline = Instant::now() + grace;
    if tokio::time::timeout_at(deadline, serve_out(app))
        .await
        .is_err()
    {
        tracing::warn!(
            ?grace,
            in_flight = app.life.working(),
            "the grace of the shutdown is over"
        );
    }
    app.fetcher.drain().await;
    // Pushes ahead of requests may still run: their objects are worth having. Past the deadline they are dropped, and
    // nothing was promised for them.
    if tokio::time::timeout_at(deadline, app.pusher.drain())
        .await
        .is_err()
    {
        tracing::warn!("pushes that were under way are dropped; PostgreSQL asks for them again");
    }
}

async fn serve_out(app: &App) {
    let mut last_work = app.last_push().unwrap_or(app.started);
    loop {
        let now = Instant::now();
        let working = app.life.working();
        if working > 0 {
            last_work = now;
        }
        last_work = last_work.max(app.last_push().unwrap_or(last_work));
        let found = Found {
            server: server::look(app.data_directory.clone()).await,
            working,
            quiet: now - last_work,
        };
        if judge(found) == Verdict::Leave {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_only_when_all_is_quiet() {
        let cases = [
            (Server::Gone, 0, QUIET, Verdict::Leave),
            (Server::Gone, 0, Duration::from_hours(1), Verdict::Leave),
            (Server::Gone, 0, Duration::ZERO, Verdict::Stay),
            (Server::Gone, 1, QUIET, Verdict::Stay),
            (Server::MayRun, 0, Duration::from_hours(1), Verdict::Stay),
            (Server::MayRun, 3, Duration::ZERO, Verdict::Stay),
        ];
        for (server, working, quiet, verdict) in cases {
            assert_eq!(
                judge(Found {
                    server,
                    working,
                    quiet
                }),
                verdict,
                "{server:?} {working} {quiet:?}"
            );
        }
    }
}
