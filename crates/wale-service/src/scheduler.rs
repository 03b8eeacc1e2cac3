//! Runs the schedule: waits for slots, catches up once after a pause, tries a failed run again, skips overlaps.
//!
//! It refuses to know how a backup is taken and what a cron line means. Invariants: only the clock handed in gives the
//! time of day, and it is asked again at least every [`LOOK`], so a clock that jumps or a machine that slept is
//! noticed; every slot is either run, caught up by one later run, or counted as skipped; a slot that comes while an
//! earlier one waits to be tried again takes its place.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use wale_ops::backup_push::{Role, ScheduleSlot};
use wale_ops::{Clock, Declined, Kind};

use crate::backup::{Backups, Trigger};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::schedule::Schedule;

/// The longest sleep between two checks of the clock.
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
    pub(crate) role: Role,
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
    // A slot is never early, but perhaps up to a millisecond late: the rest of a millisecond is rounded up.
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
                Some(Step::Run(slot)) => covered = self.run_slot(slot).await,
            }
        }
    }

    /// Serves a slot until it is done, given up, or the next one has come. Returns until when the schedule is served.
    async fn run_slot(&self, slot: DateTime<Utc>) -> DateTime<Utc> {
        let mut covered = self.clock.now();
        for attempt in 0.. {
            self.note_next();
            let trigger = Trigger::Schedule(ScheduleSlot {
                at: slot,
                role: self.role,
            });
            let ticket = match self.backups.begin(trigger, Box::new(|| {})) {
                Ok(ticket) => ticket,
                Err(error) if error.kind == Kind::Busy => {
                    tracing::warn!(%slot, "scheduled base backup is skipped: {}", error.message);
                    self.count_skipped(1);
                    return covered;
                }
                Err(_) => return covered,
            };
            let ended = ticket.ended().await;
            let error = ended.as_ref().as_ref().err();
            let declined = error.and_then(|error| error.declined);
            self.note_rest(error.filter(|_| rests(declined)).map(ToString::to_string));
            covered = self.skip_overlapped(covered, self.clock.now());
            let kind = error.map(|error| error.kind);
            let Some(pause) = pause_after(kind, declined, attempt) else {
                if kind.is_some() && declined.is_none() && kind != Some(Kind::Cancelled) {
                    tracing::warn!(%slot, "the scheduled base backup is given up until the next slot");
                }
                return covered;
            };
            let seconds = pause.as_secs();
            tracing::info!(%slot, pause_seconds = pause.as_secs_f64(), "the scheduled base backup is tried again after a pause={seconds}s");
            if !self.pause(pause, covered).await {
                tracing::info!(%slot, "the next slot of the schedule has come: it is served instead");
                return covered;
            }
        }
        covered
    }

    /// Waits; whether that was all, and no other slot has come meanwhile.
    async fn pause(&self, pause: Duration, covered: DateTime<Utc>) -> bool {
        let until = Instant::now() + pause;
        loop {
            let sleep = match next_step(&self.schedule, covered, self.clock.now()) {
                Some(Step::Run(_)) => return false,
                Some(Step::Wait { sleep, .. }) => sleep,
                None => LOOK,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            tokio::time::sleep(sleep.min(left)).await;
            self.note_next();
        }
    }

    fn note_next(&self) {
        let next = self.schedule.next_after(self.clock.now());
        self.journal
            .note(|entries| entries.next_scheduled_backup = next);
    }

    fn note_rest(&self, reason: Option<String>) {
        self.journal.note(|entries| entries.schedule_rests = reason);
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

/// Whether the schedule rests on this node for what the server is.
fn rests(declined: Option<Declined>) -> bool {
    matches!(declined, Some(Declined::Role | Declined::Recovering))
}

/// How long to wait before a slot is tried again after `attempt` tries before this one; none when it is done or given up.
fn pause_after(kind: Option<Kind>, declined: Option<Declined>, attempt: usize) -> Option<Duration> {
    let last = RETRY_PAUSES[RETRY_PAUSES.len() - 1];
    let pause = RETRY_PAUSES.get(attempt).copied();
    match (kind, declined) {
        (None | Some(Kind::Cancelled | Kind::Draining), _) => None,
        // It costs a check. The sidecar that takes the backup may die, and a server comes back.
        (_, Some(Declined::Elsewhere | Declined::ServerDown)) => Some(pause.unwrap_or(last)),
        (_, Some(_)) => None,
        (_, None) => pause,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use wale_ops::backup_push::Role;

    use super::*;
    use crate::backup::testing::{Act, Scripted, backups};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_step_follows_the_clock() {
        let schedule = Schedule::parse("0 0 * * *", wale_pg::Zone::UTC).unwrap();
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

    #[test]
    fn fault_108_what_a_slot_comes_to() {
        use Declined::{Elsewhere, Exists, Recovering, Role, Served, ServerDown};
        let (failed, busy) = (Some(Kind::LocalIo), Some(Kind::Busy));
        let secs = Duration::from_secs;
        let cases = [
            (None, None, 0, None),
            (Some(Kind::Cancelled), None, 0, None),
            (failed, None, 0, Some(secs(30))),
            (failed, None, 2, Some(secs(600))),
            (failed, None, 3, None),
            (busy, Some(Elsewhere), 0, Some(secs(30))),
            (busy, Some(Elsewhere), 30, Some(secs(600))),
            (busy, Some(ServerDown), 3, Some(secs(600))),
            (busy, Some(Exists), 0, None),
            (busy, Some(Served), 0, None),
            (busy, Some(Role), 0, None),
            (busy, Some(Recovering), 0, None),
        ];
        for (kind, declined, attempt, expected) in cases {
            let pause = pause_after(kind, declined, attempt);
            assert_eq!(pause, expected, "{kind:?} {declined:?} {attempt}");
        }
    }

    /// Lets the clock of the schedule and the time of sleeps go on together.
    async fn pass(clock: &Clock, seconds: u32) {
        for _ in 0..seconds {
            clock.advance(TimeDelta::seconds(1));
            tokio::time::advance(Duration::from_secs(1)).await;
            // The scheduler, the backup's task and the one that waits for it take their turns.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_108_a_slot_that_waits_to_be_tried_again_holds_up_no_other() {
        let fail = || Act::Fail(Kind::LocalIo);
        let rest = Act::Decline(Declined::Recovering);
        let script = Scripted::new([fail(), fail(), Act::Succeed, rest, Act::Succeed]);
        let taken = script.taken.clone();
        let (backups, _, journal) = backups(script);
        let clock = Clock::fixed(at("2026-03-01T00:00:30Z"));
        let scheduler = Scheduler {
            schedule: Schedule::parse("* * * * *", wale_pg::Zone::UTC).unwrap(),
            role: Role::Any,
            backups,
            clock: clock.clone(),
            journal: Arc::clone(&journal),
            metrics: Arc::new(Metrics::new("test")),
        };
        let covered = clock.now();
        let script = async {
            // The slot of 00:01 fails, and again 30 s later; the next attempt would come at 00:03:30.
            pass(&clock, 85).await;
            assert_eq!(*taken.borrow(), 2);
            pass(&clock, 10).await;
            assert_eq!(*taken.borrow(), 3, "the slot of 00:02 was served");
            let next = journal.entries().next_scheduled_backup;
            assert!(next > Some(clock.now()), "{next:?}");
            pass(&clock, 60).await;
            let rests = journal.entries().schedule_rests;
            assert_eq!(rests.as_deref(), Some("as the script says"));
            pass(&clock, 60).await;
            assert_eq!(*taken.borrow(), 5);
            assert_eq!(journal.entries().schedule_rests, None);
            assert_eq!(journal.entries().skipped_backups, 0);
        };
        tokio::select! {
            () = scheduler.run(covered) => panic!("it ended"),
            () = script => {}
        }
    }
}
