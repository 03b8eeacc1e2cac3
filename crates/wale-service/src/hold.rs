//! `BACKUP_PUSH` only: WAL is held back until the first base backup has *begun*.
//!
//! The original promised "before starting to accept archive commands". Taken literally it deadlocks, because the end
//! of a backup waits for WAL to be archived. So the door opens when the server has fixed the backup's start position.
//!
//! It never stays shut: WAL that is not archived fills the database's disk, which is worse than WAL that precedes the
//! first backup (which is merely of no use). It opens
//!
//! - when the backup has begun;
//! - when an attempt failed although the server could be reached: a longer wait would not help;
//! - [`HOLD_LIMIT`] after the first push was held: that push proves that a server runs, whatever the attempts say;
//! - when the sidecar is asked to stop.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long one request waits before the answer is to come again. PostgreSQL asks three times and then pauses a minute.
pub(crate) const HOLD_ONE_REQUEST: Duration = Duration::from_secs(30);

/// How long WAL is held back at most, from the first push that was held.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_mins(5);

/// The door that pushes go through.
#[derive(Debug)]
pub(crate) struct Hold {
    open: watch::Sender<bool>,
    first_held: OnceLock<Instant>,
    one_request: Duration,
    limit: Duration,
}

impl Hold {
    /// A door that is open from the start.
    pub(crate) fn open_from_the_start() -> Self {
        Self::new(true, HOLD_ONE_REQUEST, HOLD_LIMIT)
    }

    /// A door that opens with the first backup.
    pub(crate) fn until_the_first_backup() -> Self {
        Self::new(false, HOLD_ONE_REQUEST, HOLD_LIMIT)
    }

    fn new(open: bool, one_request: Duration, limit: Duration) -> Self {
        Self {
            open: watch::Sender::new(open),
            first_held: OnceLock::new(),
            one_request,
            limit,
        }
    }

    /// Opens the door for good. Returns whether it was shut.
    pub(crate) fn open(&self) -> bool {
        !self.open.send_replace(true)
    }

    /// Whether pushes pass.
    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Waits for the door, no longer than one request may. Returns whether it is open now.
    pub(crate) async fn pass(&self) -> bool {
        if self.is_open() {
            return true;
        }
        let now = Instant::now();
        let limit = *self.first_held.get_or_init(|| now) + self.limit;
        let until = limit.min(now + self.one_request);
        let mut receiver = self.open.subscribe();
        // The sender lives in `self`: the only other end of this wait is the time-out.
        if tokio::time::timeout_at(until, receiver.wait_for(|open| *open))
            .await
            .is_ok()
        {
            return true;
        }
        if until == limit && self.open() {
            tracing::warn!(
                held_for = ?self.limit,
                "WAL is accepted although the first base backup has not begun: it would fill the server's disk"
            );
        }
        self.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_door_lets_through_and_a_shut_one_holds_one_request() {
        assert!(Hold::open_from_the_start().pass().await);
        let hold = Hold::new(false, Duration::ZERO, Duration::from_hours(1));
        assert!(!hold.pass().await);
        assert!(hold.open());
        assert!(!hold.open());
        assert!(hold.pass().await);
    }

    #[tokio::test]
    async fn a_held_request_passes_when_the_backup_begins() {
        let hold = Hold::until_the_first_backup();
        let (passed, _) = tokio::join!(hold.pass(), async { hold.open() });
        assert!(passed);
    }

    #[tokio::test]
    async fn wal_is_not_held_for_ever() {
        let hold = Hold::new(false, Duration::from_hours(1), Duration::ZERO);
        assert!(hold.pass().await);
        assert!(hold.is_open());
    }
}
