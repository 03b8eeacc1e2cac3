//! The state machine of the sidecar and the right to do work in it.
//!
//! ```text
//! Starting → (Restoring) → Ready ⇄ Degraded → Draining → Stopped
//! ```
//!
//! Only this module changes the phase. It refuses to know why somebody is unhappy: reasons are named texts that others
//! set and clear, and any reason at all turns `Ready` into `Degraded`. One reason is there from the beginning: the archive
//! has not answered yet.
//!
//! Invariants: phases only move to the right, except for `Ready ⇄ Degraded`; no permit is given in `Starting`,
//! `Restoring` or `Stopped`; a permit is counted until it is dropped, so the drain can wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Where the sidecar is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Listening, nothing is served but probes.
    Starting,
    /// A restore runs; the data directory cannot be started yet.
    Restoring,
    /// All is well.
    Ready,
    /// Work is served, but something failed and has not succeeded since.
    Degraded,
    /// Shutdown was asked for: pushes are still served, nothing new is begun.
    Draining,
    /// Nothing is served any more.
    Stopped,
}

impl Phase {
    /// All phases, in order of life; for metrics.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Restoring,
        Self::Ready,
        Self::Degraded,
        Self::Draining,
        Self::Stopped,
    ];

    /// Lower-case name, for `/status` and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Restoring => "restoring",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the database may be running: what `/startupz` answers.
    #[must_use]
    pub fn started(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded | Self::Draining)
    }
}

/// What is said of [`Topic::Archive`] before its first answer.
pub(crate) const NOT_YET: &str = "it has not answered yet";

/// What somebody is unhappy about. One text per topic; success of the same topic clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The archive has not answered yet, or does not answer any more.
    Archive,
    /// The archive answers, but nothing may be written into it.
    ArchiveWrite,
    /// The data directory holds no cluster, or cannot be read.
    DataDirectory,
    /// The server was reached before, or is needed for base backups, and cannot be reached.
    Server,
    /// PostgreSQL's archiver hands nothing over, or from a WAL directory that the sidecar does not see.
    Archiver,
    /// The latest push of a file that PostgreSQL wants archived failed.
    WalPush,
    /// The latest fetch could not be answered with certainty.
    WalFetch,
    /// The latest base backup failed, or the first one has not begun yet.
    Backup,
    /// The archive belongs to another cluster than the data directory, or this cluster's was here and is gone.
    Identity,
}

impl Topic {
    /// Lower-case name, as in `/status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::ArchiveWrite => "archive-write",
            Self::DataDirectory => "data-directory",
            Self::Server => "server",
            Self::Archiver => "archiver",
            Self::WalPush => "wal-push",
            Self::WalFetch => "wal-fetch",
            Self::Backup => "backup-push",
            Self::Identity => "identity",
        }
    }
}

#[derive(Debug, Clone)]
struct State {
    phase: Phase,
    reasons: BTreeMap<Topic, Reason>,
}

#[derive(Debug, Clone)]
struct Reason {
    text: String,
    /// When the topic was last well, or the process began.
    since: Instant,
    /// When somebody last said it.
    said: Instant,
}

/// A reason, as a probe reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What it is about.
    pub topic: Topic,
    /// Why.
    pub reason: String,
    /// For how long there has been a reason without a break, this one or another of the topic.
    pub lasting: Duration,
}

/// The state machine. A cheap handle; all handles are one machine.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    state: Arc<watch::Sender<State>>,
    working: Arc<AtomicUsize>,
}

/// The right to do a piece of archive work. The drain waits until it is dropped.
#[derive(Debug)]
pub struct Permit {
    working: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.working.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A machine in `Starting`.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            phase: Phase::Starting,
            reasons: BTreeMap::new(),
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
            working: Arc::default(),
        }
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    /// Everything somebody is unhappy about, by topic.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<Topic, String> {
        let state = self.state.borrow();
        let reasons = state.reasons.iter();
        reasons
            .map(|(topic, reason)| (*topic, reason.text.clone()))
            .collect()
    }

    /// The same with the time that it has lasted, in the order of the topics.
    #[must_use]
    pub(crate) fn complaints(&self) -> Vec<Complaint> {
        let state = self.state.borrow();
        let reasons = state.reasons.iter();
        reasons
            .map(|(topic, reason)| Complaint {
                topic: *topic,
                reason: reason.text.clone(),
                lasting: reason.since.elapsed(),
            })
            .collect()
    }

    /// Leave to do a piece of archive work.
    ///
    /// # Errors
    ///
    /// The phase that does not allow it.
    pub fn admit(&self) -> Result<Permit, Phase> {
        // Counted first: a drain that checks between the two would miss a permit given after its check.
        self.working.fetch_add(1, Ordering::AcqRel);
        let permit = Permit {
            working: Arc::clone(&self.working),
        };
        let phase = self.phase();
        if phase.started() {
            Ok(permit)
        } else {
            Err(phase)
        }
    }

    /// Pieces of archive work under way.
    #[must_use]
    pub fn working(&self) -> usize {
        self.working.load(Ordering::Acquire)
    }

    /// Whether a new base backup may be begun.
    #[must_use]
    pub(crate) fn takes_backups(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::Degraded)
    }

    /// Waits until the phase satisfies `wanted`.
    pub async fn wait(&self, wanted: impl Fn(Phase) -> bool) {
        let mut receiver = self.state.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|state| wanted(state.phase)).await;
    }

    /// A restore begins. Does nothing once a shutdown was asked for.
    pub fn restoring(&self) {
        self.advance(Phase::Restoring);
    }

    /// The database may start. Does nothing once a shutdown was asked for.
    pub fn ready(&self) {
        self.advance(Phase::Ready);
    }

    /// Shutdown was asked for.
    pub fn draining(&self) {
        self.advance(Phase::Draining);
    }

    /// Nothing is served any more.
    pub fn stopped(&self) {
        self.advance(Phase::Stopped);
    }

    /// Says what is wrong with `topic`; `Ready` becomes `Degraded`.
    pub fn complain(&self, topic: Topic, reason: String) {
        let said = Instant::now();
        self.change(|state| {
            let since = state.reasons.get(&topic).map(|before| before.since);
            let reason = Reason {
                text: reason,
                since: since.unwrap_or(said),
                said,
            };
            state.reasons.insert(topic, reason).is_none()
        });
    }

    /// Forgets what was last said about `topic` at least so long ago: nobody asks any more for what failed then.
    pub fn forget(&self, topic: Topic, age: Duration) {
        self.change(|state| {
            let is_old = |reason: &Reason| reason.said.elapsed() >= age;
            state.reasons.get(&topic).is_some_and(is_old) && state.reasons.remove(&topic).is_some()
        });
    }

    /// `topic` is well again; the last complaint that goes makes `Degraded` `Ready`.
    pub fn resolve(&self, topic: Topic) {
        self.change(|state| state.reasons.remove(&topic).is_some());
    }

    fn advance(&self, to: Phase) {
        self.change(|state| {
            // Degraded is Ready with reasons; anything later is never left towards the left.
            let forward =
                to > state.phase && !(to == Phase::Ready && state.phase == Phase::Degraded);
            if forward {
                state.phase = to;
            }
            forward
        });
    }

    fn change(&self, edit: impl FnOnce(&mut State) -> bool) {
        self.state.send_if_modified(|state| {
            let before = state.phase;
            let changed = edit(state);
            state.phase = match (state.phase, state.reasons.is_empty()) {
                (Phase::Ready, false) => Phase::Degraded,
                (Phase::Degraded, true) => Phase::Ready,
                (phase, _) => phase,
            };
            if state.phase != before {
                tracing::info!(
                    from = before.name(),
                    to = state.phase.name(),
                    "the sidecar changed its phase"
                );
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_move_to_the_right_only() {
        let life = Lifecycle::new();
        assert_eq!(life.phase(), Phase::Starting);
        life.restoring();
        assert_eq!(life.phase(), Phase::Restoring);
        life.ready();
        life.restoring();
        assert_eq!(life.phase(), Phase::Ready);
        life.draining();
        life.ready();
        assert_eq!(life.phase(), Phase::Draining);
        life.complain(Topic::Backup, "late".into());
        assert_eq!(life.phase(), Phase::Draining);
        life.stopped();
        life.draining();
        assert_eq!(life.phase(), Phase::Stopped);
    }

    #[test]
    fn any_reason_degrades_and_the_last_one_that_goes_heals() {
        let life = Lifecycle::new();
        life.complain(Topic::Backup, "a".into());
        assert_eq!(life.phase(), Phase::Starting);
        life.ready();
        assert_eq!(life.phase(), Phase::Degraded);
        life.complain(Topic::WalPush, "b".into());
        life.complain(Topic::WalPush, "c".into());
        life.resolve(Topic::Backup);
        assert_eq!(life.phase(), Phase::Degraded);
        assert_eq!(life.reasons()[&Topic::WalPush], "c");
        life.ready();
        assert_eq!(life.phase(), Phase::Degraded);
        life.resolve(Topic::WalPush);
        assert_eq!(life.phase(), Phase::Ready);
    }

    #[test]
    fn permits_are_counted_and_refused_outside_service() {
        let life = Lifecycle::new();
        assert_eq!(life.admit().unwrap_err(), Phase::Starting);
        life.restoring();
        assert_eq!(life.admit().unwrap_err(), Phase::Restoring);
        assert_eq!(life.working(), 0);
        life.ready();
        let first = life.admit().unwrap();
        life.draining();
        let second = life.admit().unwrap();
        assert_eq!(life.working(), 2);
        drop((first, second));
        assert_eq!(life.working(), 0);
        assert!(!life.takes_backups());
        life.stopped();
        assert!(life.admit().is_err());
    }

    #[tokio::test]
    async fn waiting_ends_when_the_phase_comes() {
        let life = Lifecycle::new();
        let other = life.clone();
        let waiter = async move { other.wait(Phase::started).await };
        let ((), ()) = tokio::join!(waiter, async { life.ready() });
        assert!(life.phase().started());
    }
}
