//! The shutdown's first part: PostgreSQL archives its last segment *while* it stops, and both containers are usually
//! stopped together, so the sidecar must outlive the server.
//!
//! Readiness goes off at once. Pushes are served while `postmaster.pid` names a server that may run, or pushes still
//! come, up to the grace. A pid file alone is not believed for long: a server that was killed leaves one behind, and
//! its process id means nothing in another container. When also nothing listens in the server's place, the sidecar
//! waits [`UNREACHABLE_QUIET`] only. Meanwhile a running backup is ended cleanly and none is begun. With no server and
//! no push for [`QUIET`] it ends at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::server::{self, Server};

/// No push for so long means that none comes any more. PostgreSQL's archiver pauses a second between its attempts.
const QUIET: Duration = Duration::from_millis(1200);

/// No push for so long, and nothing listens at `PGHOST`, means that the pid file was left by a crash. Longer than
/// [`QUIET`], because `PGHOST` may be wrong where nobody takes base backups.
const UNREACHABLE_QUIET: Duration = Duration::from_secs(8);

/// How often the server is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// What the next look decides.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    Leave,
}

/// What a check has found.
#[derive(Debug, Clone, Copy)]
struct DrainFindings {
    server: Server,
    listens: bool,
    working: usize,
    /// Time since a push was last under way.
    quiet: Duration,
    /// Time since the signal.
    draining: Duration,
}

fn judge(found: DrainFindings) -> Verdict {
    let enough = match found.server {
        Server::Gone => QUIET,
        Server::MayRun if !found.listens && found.draining >= UNREACHABLE_QUIET => {
            UNREACHABLE_QUIET
        }
        Server::MayRun => return Verdict::Stay,
    };
    if found.working == 0 && found.quiet >= enough {
        Verdict::Leave
    } else {
        Verdict::Stay
    }
}

/// Serves on until PostgreSQL has gone, at most `grace`; then waits for pushes in flight as far as the grace goes.
pub(crate) async fn drain(app: &App, grace: Duration, stop_work: &CancellationToken) {
    app.life.draining();
    // The schedule, the lock's poller and the first backup begin nothing more.
    stop_work.cancel();
    app.backups.stop();
    // Nothing is left to wait for: held WAL must be archived before the server can end.
    app.hold.open();
    let deadline = Instant::now() + grace;
    if tokio::time::timeout_at(deadline, serve_out(app))
        .await
        .is_err()
    {
        tracing::warn!(
            grace_seconds = grace.as_secs_f64(),
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
    // The wait for a server that does not listen counts from the signal on.
    let begun = Instant::now();
    let mut last_work = app.last_push().unwrap_or(app.started);
    loop {
        let now = Instant::now();
        let working = app.life.working();
        if working > 0 {
            last_work = now;
        }
        last_work = last_work.max(app.last_push().unwrap_or(last_work));
        let found = DrainFindings {
            listens: app.connect.is_listening().await,
            server: server::look(app.data_directory.clone()).await,
            working,
            quiet: now - last_work,
            draining: now - begun,
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
        let (yes, no, hour) = (true, false, Duration::from_hours(1));
        let cases = [
            (Server::Gone, no, 0, QUIET, Verdict::Leave),
            (Server::Gone, no, 0, hour, Verdict::Leave),
            (Server::Gone, no, 0, Duration::ZERO, Verdict::Stay),
            (Server::Gone, no, 1, QUIET, Verdict::Stay),
            (Server::MayRun, yes, 0, hour, Verdict::Stay),
            (Server::MayRun, yes, 3, Duration::ZERO, Verdict::Stay),
            (Server::MayRun, no, 0, QUIET, Verdict::Stay),
            (Server::MayRun, no, 0, UNREACHABLE_QUIET, Verdict::Leave),
            (Server::MayRun, no, 1, hour, Verdict::Stay),
        ];
        for (server, listens, working, quiet, verdict) in cases {
            let found = DrainFindings {
                server,
                listens,
                working,
                quiet,
                draining: quiet,
            };
            assert_eq!(judge(found), verdict, "{found:?}");
        }
    }
}
