//! What time it is, and when not to believe it. Pure.
//!
//! Only the recovery window asks for the time; but a clock that was set back also makes the next backups look older
//! than those before, so nothing is deleted while it is behind the archive.

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::BackupFacts;
use crate::error::{Kind, OpError, Result};

/// How far the newest record may be ahead of the clock: clocks of two hosts differ by less, and a clock that was set
/// back by more must not decide what is old.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::hours(1);

/// If the archive was silent for longer than this, a clock may have been set forward. Even an idle cluster has a
/// base backup more often, or is switched off.
const SILENCE_MAX: TimeDelta = TimeDelta::days(3);

/// How long after a long silence the recovery window does not move: a wrong clock is noticed within a day, and with
/// it every backup would look old.
const SUSPECT_FOR: TimeDelta = TimeDelta::days(1);

pub(super) const SUSPECT: &str = "the archive was silent for days until a short while ago: the clock may be wrong, and nothing \
                       is old for a day";

/// What time it is, and whether to believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    /// The earlier of this host's and the store's.
    pub now: DateTime<Utc>,
    /// When the newest object was stored that is older than a day.
    before: Option<DateTime<Utc>>,
    /// When the oldest object was stored that is younger.
    since: Option<DateTime<Utc>>,
}

impl TimeOfDay {
    /// It is `now`, as far as anybody says.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            now,
            before: None,
            since: None,
        }
    }

    /// Takes note of when an object was stored.
    pub fn saw(&mut self, stored: DateTime<Utc>) {
        if stored <= self.now - SUSPECT_FOR {
            self.before = self.before.max(Some(stored));
        } else {
            self.since = Some(self.since.map_or(stored, |since| since.min(stored)));
        }
    }

    /// Whether the archive was silent for days until less than a day ago.
    pub(super) fn is_suspect(&self) -> bool {
        let since = self.since.unwrap_or(self.now);
        self.before
            .is_some_and(|before| since - before > SILENCE_MAX)
    }
}

/// A clock that was set back would make the next backups look older than those before.
pub(super) fn check_clock(backups: &[BackupFacts], now: DateTime<Utc>) -> Result<()> {
    let newest = backups
        .iter()
        .filter(|backup| backup.recorded)
        .max_by_key(|backup| backup.time);
    let Some(ahead) = newest.filter(|backup| backup.time > now + CLOCK_TOLERANCE) else {
        return Ok(());
    };
    Err(OpError::new(
        Kind::Busy,
        "the clock is behind the archive: nothing is deleted",
    )
    .detail(format!(
        "Backup {} says that it ended at {}, and it is {} now.",
        ahead.name,
        ahead.time.to_rfc3339(),
        now.to_rfc3339()
    ))
    .hint("set the clock right; if that backup was taken with a wrong clock, wait until its time has passed or delete it with `wale delete target`"))
}
