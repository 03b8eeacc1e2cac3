//! Whether the server can be reached where base backups look for it: checked every minute, and reported by readiness.
//!
//! WAL comes out of a directory, so pushes go on while nobody can reach the server. Without this check a partition
//! shows only when the next base backup fails. Invariants: a server that was never seen is missed only where the
//! sidecar itself takes base backups, because `PGHOST` may name nothing elsewhere; one that restarts is not missed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::app::App;
use crate::lifecycle::{Lifecycle, Topic};
use crate::options::StartMode;

/// Between two checks. Each opens a connection, says nothing and closes it.
const EVERY: Duration = Duration::from_mins(1);

/// So many checks in a row must find nothing: between two and three minutes, which is longer than a restart closes the
/// port.
const MISSED: u32 = 3;

/// Looks once; whether something listens.
type LookForListener = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What a check has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Lost,
    Found,
}

/// How many checks in a row found nothing; none before the server was ever seen or is needed.
#[derive(Debug, Default)]
struct Contact {
    missed: Option<u32>,
}

impl Contact {
    fn note(&mut self, listens: bool) -> Option<Change> {
        let missed = self.missed;
        if listens {
            self.missed = Some(0);
            return (missed >= Some(MISSED)).then_some(Change::Found);
        }
        self.missed = missed.map(|missed| missed.saturating_add(1));
        (self.missed == Some(MISSED)).then_some(Change::Lost)
    }
}

/// Looks for ever. May be dropped at any await.
pub(crate) async fn watch(app: Arc<App>) {
    let place = format!("{} port {}", app.connect.host, app.connect.port);
    let connect = app.connect.clone();
    let look: LookForListener = Box::new(move || {
        let connect = connect.clone();
        async move { connect.is_listening().await }.boxed()
    });
    let is_needed = app.schedule.is_some() || app.mode == StartMode::BackupPush.name();
    let contact = Contact {
        missed: is_needed.then_some(0),
    };
    keep(&app.life, contact, &look, EVERY, &place).await;
}

async fn keep(
    life: &Lifecycle,
    mut contact: Contact,
    look: &LookForListener,
    every: Duration,
    place: &str,
) {
    loop {
        match contact.note(look().await) {
            Some(Change::Lost) => {
                tracing::warn!(
                    hint = "check the server and the network between; WAL that it hands over is still archived",
                    "the server cannot be reached at {place}: base backups will fail"
                );
                let reason =
                    format!("the server cannot be reached at {place}: base backups will fail");
                life.complain(Topic::Server, reason);
            }
            Some(Change::Found) => {
                tracing::info!("the server can be reached again at {place}");
                life.resolve(Topic::Server);
            }
            None => {}
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::lifecycle::Phase;

    #[test]
    fn row36_only_a_server_that_was_seen_is_missed_and_only_after_three_looks() {
        use Change::{Found, Lost};
        /// What each look finds, and what it changes.
        type Case = &'static [(bool, Option<Change>)];
        let cases: [Case; 4] = [
            &[(false, None), (false, None), (false, None), (false, None)],
            // A restart, and a second one.
            &[
                (true, None),
                (false, None),
                (false, None),
                (true, None),
                (false, None),
                (false, None),
                (true, None),
            ],
            // Told once, however long it lasts.
            &[
                (true, None),
                (false, None),
                (false, None),
                (false, Some(Lost)),
                (false, None),
                (true, Some(Found)),
                (true, None),
            ],
            &[
                (false, None),
                (true, None),
                (false, None),
                (false, None),
                (false, Some(Lost)),
                (true, Some(Found)),
            ],
        ];
        for (number, looks) in cases.into_iter().enumerate() {
            let mut contact = Contact::default();
            for (step, (listens, expected)) in looks.iter().enumerate() {
                let change = contact.note(*listens);
                assert_eq!(change, *expected, "case {number}, look {step}");
            }
        }
    }

    #[test]
    fn fault_70_a_server_that_base_backups_need_is_missed_although_it_was_never_seen() {
        let mut contact = Contact { missed: Some(0) };
        let changes = [false; 4].map(|listens| contact.note(listens));
        assert_eq!(changes, [None, None, Some(Change::Lost), None]);
    }

    #[tokio::test]
    async fn row36_readiness_names_a_server_that_is_out_of_reach_and_heals() {
        let life = Lifecycle::new();
        life.ready();
        let listens = watch::Sender::new(true);
        let seen = watch::Sender::new(false);
        let (asked, told) = (listens.subscribe(), seen.clone());
        let look: LookForListener = Box::new(move || {
            told.send_replace(true);
            std::future::ready(*asked.borrow()).boxed()
        });
        let partition = async {
            let mut receiver = seen.subscribe();
            receiver.wait_for(|seen| *seen).await.unwrap();
            listens.send_replace(false);
            life.wait(|phase| phase == Phase::Degraded).await;
            let reason = life.reasons()[&Topic::Server].clone();
            assert!(reason.contains("db port 5432"), "{reason}");
            listens.send_replace(true);
            life.wait(|phase| phase == Phase::Ready).await;
        };
        tokio::select! {
            () = keep(&life, Contact::default(), &look, Duration::ZERO, "db port 5432") => panic!("it ended"),
            () = partition => {}
        }
    }
}
