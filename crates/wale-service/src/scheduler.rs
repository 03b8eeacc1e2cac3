//! Runs the schedule: waits for slots, catches up once after a pause, tries a failed run again, skips overlaps.
//!
//! It refuses to know how a backup is taken and what a cron line means. Invariants: the time of day is only ever
//! asked of the clock handed in, and it is asked again at least every [`LOOK`], so a clock that jumps or a machine that
//! slept is noticed; every slot is either run, caught up by one later run, or counted as skipped.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_ops::{Clock, Kind};

use crate::backup::{Backups, Trigger};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::schedule::Schedule;

/// The longest sleep between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);

/// Pauses before the second, third and fourth attempt of one slot. The first is short because a server that restarts
/// is back within it; after the last one the next slot's turn comes.
const RETRY_PAUSES: [Duration; 3] = [
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
];

/// At most this many skipped slots are counted at once: a schedule of every minute, a day long.
const SKIPPED_MAX: u32 = 24 * 60;

/// The loop's parts.
pub(crate) struct Scheduler {
    pub(crate) schedule: Schedule,
    pub(crate) backups: Backups,
    pub(crate) clock: Clock,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the loop does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Run(DateTime<Utc>),
    Wait {
        until: DateTime<Utc>,
        sleep: Duration,
    },
}

/// Decides from the clock alone.
fn next_step(schedule: &Schedule, covered: DateTime<Utc>, now: DateTime<Utc>) -> Option<Step> {
    if let Some(slot) = schedule.missed_since(covered, now) {
        return Some(Step::Run(slot));
    }
    let until = schedule.next_after(covered.max(now))?;
    // Up to 30 s early is impossible, up to a millisecond late is not: the rest of a millisecond is rounded up.
    let sleep = (until - now).to_std().unwrap_or_default() + Duration::from_millis(1);
    Some(Step::Wait {
        until,
        sleep: sleep.min(LOOK),
    })
}

impl Scheduler {
    /// Runs for ever; `covered` is until when the schedule is already served. May be dropped at any await: a backup
    /// that was begun belongs to its own task.
    pub(crate) async fn run(self, mut covered: DateTime<Utc>) {
        let clock = &self.clock;
        loop {
            match next_step(&self.schedule, covered, clock.now()) {
                None => return,
                Some(Step::Wait { until, sleep }) => {
                    self.journal
                        .note(|entries| entries.next_scheduled_backup = Some(until));
                    tokio::time::sleep(sleep).await;
                }
                Some(Step::Run(slot)) => {
                    covered = clock.now();
                    self.run_slot(slot).await;
                    covered = self.skip_overlapped(covered, clock.now());
                }
            }
        }
    }

    async fn run_slot(&self, slot: DateTime<Utc>) {
        for pause in RETRY_PAUSES.into_iter().map(Some).chain([None]) {
            let ticket = match self.backups.begin(Trigger::Schedule, Box::new(|| {})) {
                Ok(ticket) => ticket,
                Err(error) if error.kind == Kind::Busy => {
                    tracing::warn!(%slot, "scheduled base backup is skipped: {}", error.message);
                    return self.count_skipped(1);
                }
                Err(_) => return,
            };
            let kind = ticket
                .ended()
                .await
                .as_ref()
                .as_ref()
                .err()
                .map(|error| error.kind);
            match (kind, pause) {
                (None | Some(Kind::Cancelled), _) => return,
                (Some(_), Some(pause)) => {
                    tracing::info!(%slot, pause_seconds = pause.as_secs_f64(), "the scheduled base backup is tried again after a pause");
                    tokio::time::sleep(pause).await;
                }
                (Some(_), None) => {
                    tracing::warn!(%slot, "the scheduled base backup is given up until the next slot");
                }
            }
        }
    }

    /// Counts the slots that passed while one was run. Returns until when the schedule is served.
    fn skip_overlapped(&self, covered: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut skipped: u32 = 0;
        let mut slot = covered;
        while let Some(next) = self.schedule.next_after(slot)
            && next <= now
            && skipped < SKIPPED_MAX
        {
            slot = next;
            skipped += 1;
        }
        if skipped > 0 {
            tracing::warn!(
                skipped,
                "slots of the schedule passed while a base backup ran"
            );
            self.count_skipped(skipped);
        }
        now.max(covered)
    }

    fn count_skipped(&self, skipped: u32) {
        for _ in 0..skipped {
            self.metrics.backup_not_done("skipped-overlap");
        }
        self.journal
            .note(|entries| entries.skipped_backups += u64::from(skipped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_step_follows_the_clock() {
        let schedule = Schedule::parse("0 0 * * *", chrono_tz::UTC).unwrap();
        let run = |slot| Some(Step::Run(at(slot)));
        let wait = |until, sleep| {
            Some(Step::Wait {
                until: at(until),
                sleep,
            })
        };
        let ms = Duration::from_millis;
        let cases = [
            (
                "2026-03-01T00:00:05Z",
                "2026-03-01T10:00:00Z",
                wait("2026-03-02T00:00:00Z", LOOK),
            ),
            (
                "2026-03-01T00:00:05Z",
                "2026-03-01T23:59:59Z",
                wait("2026-03-02T00:00:00Z", ms(1001)),
            ),
            (
                "2026-03-01T00:00:05Z",
                "2026-03-02T00:00:00Z",
                run("2026-03-02T00:00:00Z"),
            ),
            // Down for days: one run, then the next slot.
            (
                "2026-03-01T00:00:05Z",
                "2026-03-05T10:00:00Z",
                run("2026-03-05T00:00:00Z"),
            ),
            (
                "2026-03-05T10:00:00Z",
                "2026-03-05T10:00:01Z",
                wait("2026-03-06T00:00:00Z", LOOK),
            ),
            // The clock was set back a day: the slot that was served is not run again.
            (
                "2026-03-05T00:00:01Z",
                "2026-03-04T00:00:00Z",
                wait("2026-03-06T00:00:00Z", LOOK),
            ),
        ];
        for (covered, now, expected) in cases {
            assert_eq!(
                next_step(&schedule, at(covered), at(now)),
                expected,
                "{covered} {now}"
            );
        }
    }
}
