//! `BACKUP_PUSH`: a base backup as soon as the server accepts connections, tried until there is one.
//!
//! It refuses to know why an attempt failed beyond one question: could the server be reached? While it cannot, WAL
//! stays held (a server that is not up makes none); once it could, the door opens whatever became of the attempt.
//!
//! `postmaster.pid` only spares attempts that cannot succeed, such as before `initdb`: where it says nothing for
//! [`TRY_ANYWAY`], an attempt is made all the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wale_ops::retry::Pauses;
use wale_ops::{Declined, Kind};

use crate::app::App;
use crate::backup::{Backups, Trigger};
use crate::hold::Hold;
use crate::lifecycle::Topic;
use crate::server::{self, Server};

/// Pauses while the server is not up yet: it may come at any moment, and asking is cheap.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Pauses after an attempt that failed otherwise: a backup is not cheap.
const TRY_AGAIN: Duration = Duration::from_secs(10);
const TRY_AGAIN_MAX: Duration = Duration::from_mins(10);

/// How often this looks for the server, and after how long it tries without a sign of it.
const LOOK: Duration = Duration::from_millis(250);
const TRY_ANYWAY: Duration = Duration::from_secs(30);

/// Looks for the server once.
type LookForServer = Box<dyn Fn() -> BoxFuture<'static, Server> + Send + Sync>;

/// Tries until a backup is complete, or the sidecar stops. May be dropped at any await.
pub(crate) async fn run(app: Arc<App>) {
    let asking = Pauses::new(ASK_AGAIN, ASK_AGAIN_MAX);
    let trying = Pauses::new(TRY_AGAIN, TRY_AGAIN_MAX);
    app.life.complain(
        Topic::Backup,
        "the first base backup has not begun yet".to_owned(),
    );
    let data_directory = app.data_directory.clone();
    let look: LookForServer = Box::new(move || server::look(data_directory.clone()).boxed());
    attempts(&app.backups, &app.hold, &look, asking, trying).await;
}

async fn attempts(
    backups: &Backups,
    hold: &Arc<Hold>,
    look: &LookForServer,
    mut asking: Pauses,
    mut trying: Pauses,
) {
    loop {
        // Running out of time is no answer either: then the attempt itself shows it.
        let _ = tokio::time::timeout(TRY_ANYWAY, server_up(look)).await;
        let Err(kind) = attempt(backups, hold).await else {
            return;
        };
        let pause = match kind {
            Kind::Draining | Kind::Cancelled => return,
            Kind::PostgresUnavailable | Kind::Busy => asking.take(),
            _ if look().await == Server::Gone => asking.take(),
            _ => {
                if hold.open() {
                    tracing::warn!(
                        "WAL is accepted although the first base backup failed: it would fill the server's disk"
                    );
                }
                trying.take()
            }
        };
        tracing::info!(
            pause_seconds = pause.as_secs_f64(),
            kind = kind.name(),
            "the first base backup is tried again after a pause"
        );
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(backups: &Backups, hold: &Arc<Hold>) -> Result<(), Kind> {
    let door = Arc::clone(hold);
    let on_started = Box::new(move || {
        if door.open() {
            tracing::info!("the first base backup has begun: WAL is accepted");
        }
    });
    let ticket = backups
        .begin(Trigger::FirstBackup, on_started)
        .map_err(|error| error.kind)?;
    match ticket.ended().await.as_ref() {
        Ok(_) => Ok(()),
        // The archive has a backup of this very position: a standby's, or of a server that was stopped since.
        Err(error) if error.declined == Some(Declined::Exists) => {
            hold.open();
            Ok(())
        }
        Err(error) => Err(error.kind),
    }
}

async fn server_up(look: &LookForServer) {
    while look().await == Server::Gone {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::backup::testing::{Act, Scripted, backups};
    use crate::lifecycle::Phase;

    fn up() -> LookForServer {
        Box::new(|| std::future::ready(Server::MayRun).boxed())
    }

    const AT_ONCE: Pauses = Pauses::new(Duration::ZERO, Duration::ZERO);

    #[tokio::test]
    async fn it_is_tried_until_there_is_one() {
        let acts = [
            Act::Fail(Kind::PostgresUnavailable),
            Act::Fail(Kind::PostgresUnavailable),
            Act::Succeed,
        ];
        let taker = Scripted::new(acts);
        let (backups, life, _) = backups(taker.clone());
        let hold = Arc::new(Hold::until_the_first_backup());
        attempts(&backups, &hold, &up(), AT_ONCE, AT_ONCE).await;
        assert_eq!(*taker.taken.borrow(), 3);
        assert!(hold.is_open());
        assert_eq!(life.phase(), Phase::Ready);
    }

    #[tokio::test]
    async fn the_door_stays_shut_while_the_server_is_away() {
        let (backups, life, _) = backups(Scripted::new([Act::Fail(Kind::PostgresUnavailable)]));
        let hold = Arc::new(Hold::until_the_first_backup());
        let never = Pauses::new(Duration::from_hours(1), Duration::from_hours(1));
        let look = up();
        let tries = attempts(&backups, &hold, &look, never, never);
        tokio::pin!(tries);
        tokio::select! {
            () = &mut tries => panic!("it gave up"),
            () = life.wait(|phase| phase == Phase::Degraded) => {}
        }
        assert!(!hold.is_open());
    }

    #[tokio::test]
    async fn the_door_opens_with_the_first_attempt_that_reached_the_server() {
        let (backups, ..) = backups(Scripted::new([Act::Fail(Kind::StorageUnavailable)]));
        let hold = Arc::new(Hold::until_the_first_backup());
        let never = Pauses::new(Duration::from_hours(1), Duration::from_hours(1));
        let look = up();
        let tries = attempts(&backups, &hold, &look, never, never);
        tokio::pin!(tries);
        tokio::select! {
            () = &mut tries => panic!("it gave up"),
            passed = hold.pass() => assert!(passed),
        }
    }

    #[tokio::test]
    async fn nothing_is_tried_before_there_is_a_sign_of_the_server() {
        let taker = Scripted::new([]);
        let (backups, ..) = backups(taker.clone());
        let hold = Arc::new(Hold::until_the_first_backup());
        let looks = Arc::new(AtomicUsize::new(0));
        let (counted, watched) = (Arc::clone(&looks), taker.clone());
        let look: LookForServer = Box::new(move || {
            assert_eq!(*watched.taken.borrow(), 0);
            let sign = if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                Server::Gone
            } else {
                Server::MayRun
            };
            std::future::ready(sign).boxed()
        });
        attempts(&backups, &hold, &look, AT_ONCE, AT_ONCE).await;
        assert_eq!(
            (looks.load(Ordering::Relaxed), *taker.taken.borrow()),
            (3, 1)
        );
    }
}
