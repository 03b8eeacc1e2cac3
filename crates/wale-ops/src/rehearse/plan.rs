//! The decisions of a rehearsal, as pure functions: which moment, and what a recovery's end means.

use chrono::{DateTime, TimeDelta, Utc};
use wale_format::CheckOutcome;
use wale_pg::RecoveryTargetKind;

/// How much older the last commit that is replayed may be than the newest one of the plan. The server tells the time of the last
/// record, the plan knows the greatest time, and sessions that commit together write their records in any order.
const COMMITS_APART: TimeDelta = TimeDelta::minutes(1);

/// Numbers that follow from a seed: `SplitMix64`, whose next number needs nothing but a multiplication.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// With this seed the same numbers fall again.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let scaled = u128::from(mixed) * u128::from(end);
        // The upper half is below `end`.
        u64::try_from(scaled >> 64).unwrap_or(0)
    }
}

/// A moment after the end of the backup and before the newest commit in the archive: a recovery to it is stopped by a commit.
/// `None` where nothing was committed after the backup.
#[must_use]
pub fn random_moment(
    backup_ended: DateTime<Utc>,
    newest_commit: Option<DateTime<Utc>>,
    dice: &mut Dice,
) -> Option<DateTime<Utc>> {
    // A target is compared with the end of the backup: it lies after it.
    let first = backup_ended + TimeDelta::microseconds(1);
    let length = (newest_commit? - first).num_microseconds()?;
    let length = u64::try_from(length).ok().filter(|length| *length > 0)?;
    let offset = i64::try_from(dice.below(length)).ok()?;
    Some(first + TimeDelta::microseconds(offset))
}

/// What the end of a recovery means. `stopped` is what the server said when it came to a target, `planned` the newest commit that
/// the archive had, `newest` the one that the recovery came to.
pub(super) fn judge_recovery(
    target: &RecoveryTargetKind,
    stopped: Option<&str>,
    planned: Option<DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
) -> (CheckOutcome, String) {
    let to = newest.map_or_else(
        || "no commit after the backup".to_owned(),
        |newest| format!("the commit of {}", shown(newest)),
    );
    match (target, stopped) {
        (RecoveryTargetKind::Latest, _) => match planned {
            Some(planned) if newest.is_none_or(|newest| newest < planned - COMMITS_APART) => (
                CheckOutcome::Failed,
                format!(
                    "it ended with {to}, and the archive has a commit of {}",
                    shown(planned)
                ),
            ),
            _ => (
                CheckOutcome::Ok,
                format!("it came to the end of the archive, with {to}"),
            ),
        },
        (_, Some(stopped)) => (
            CheckOutcome::Ok,
            format!("it reached its target: {stopped}; it came to {to}"),
        ),
        (_, None) => (
            CheckOutcome::Failed,
            format!("it came to the end of the WAL and not to its target; it came to {to}"),
        ),
    }
}

fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    proptest! {
        #[test]
        fn a_random_moment_lies_between_the_backup_and_the_newest_commit(
            ended in 0i64..1_000_000_000_000,
            length in -5i64..10_000_000_000,
            seed: u64,
        ) {
            let moment = random_moment(at(ended), Some(at(ended + length)), &mut Dice::new(seed));
            prop_assert_eq!(moment.is_some(), length > 1);
            if let Some(moment) = moment {
                prop_assert!(at(ended) < moment && moment < at(ended + length));
                let again = random_moment(at(ended), Some(at(ended + length)), &mut Dice::new(seed));
                prop_assert_eq!(again, Some(moment));
            }
        }
    }

    #[test]
    fn without_a_commit_there_is_no_moment_and_the_dice_fall_everywhere() {
        assert_eq!(random_moment(at(0), None, &mut Dice::new(1)), None);
        let mut dice = Dice::new(7);
        let mut seen = [false; 6];
        for _ in 0..200 {
            seen[usize::try_from(dice.below(6)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    fn a_recovery_is_good_when_it_came_to_where_it_was_to_end() {
        let time = || RecoveryTargetKind::Time("x".to_owned());
        let latest = || RecoveryTargetKind::Latest;
        let minute = 60_000_000;
        let cases = [
            (latest(), None, Some(at(5)), Some(at(5)), true),
            // More was archived meanwhile.
            (latest(), None, Some(at(5)), Some(at(6)), true),
            // Commits of several sessions are not in the order of their times.
            (latest(), None, Some(at(minute)), Some(at(0)), true),
            (latest(), None, Some(at(minute + 1)), Some(at(0)), false),
            (latest(), None, Some(at(5)), None, false),
            (latest(), None, None, None, true),
            (time(), Some("before commit of 7"), None, None, true),
            (time(), None, None, Some(at(9)), false),
            (
                RecoveryTargetKind::Immediate,
                Some("after reaching consistency"),
                None,
                None,
                true,
            ),
        ];
        for (target, stopped, planned, newest, good) in cases {
            let (outcome, told) = judge_recovery(&target, stopped, planned, newest);
            assert_eq!(outcome == CheckOutcome::Ok, good, "{target:?} {told}");
        }
    }
}
