//! What an operator wants kept, as rules over the times of base backups. Pure.
//!
//! Every rule only adds to what stays: the rules' results are united, and a policy without a rule deletes nothing. The
//! counting rules and the calendar never look at the clock: they count backups, and days that have a backup. Only the
//! recovery window needs to know what time it is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use wale_pg::Zone;

use super::facts::BackupFacts;

/// What is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// That many backups, the newest ones.
    pub backups: Option<u32>,
    /// Every moment of the last so many days is to stay recoverable.
    pub days: Option<u32>,
    /// The last backup of each of so many days that have one, the newest days.
    pub daily: Option<u32>,
    /// The last backup of each of so many weeks that have one. Weeks begin on Monday (ISO 8601).
    pub weekly: Option<u32>,
    /// The last backup of each of so many months that have one.
    pub monthly: Option<u32>,
    /// Where days, weeks and months begin at midnight.
    pub zone: Zone,
    /// How much WAL goes with backups that only the calendar or a mark keeps.
    pub wal: WalRetention,
}

/// How much WAL goes with backups that only the calendar or a mark keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalRetention {
    /// All of it since the backup's start: every moment since can be recovered.
    #[default]
    All,
    /// What makes the backup consistent: it can be restored as of its own end.
    Consistent,
}

impl WalRetention {
    /// Every choice, the default first.
    pub const ALL: [Self; 2] = [Self::All, Self::Consistent];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Consistent => "consistent",
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backups: None,
            days: None,
            daily: None,
            weekly: None,
            monthly: None,
            zone: Zone::UTC,
            wal: WalRetention::All,
        }
    }
}

/// One reason to keep a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// In words.
    pub(super) words: String,
    /// Whether every moment since the backup is to be recoverable because of it.
    pub(super) onward: bool,
}

impl Reason {
    pub(super) fn onward(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            onward: true,
        }
    }
}

impl Policy {
    /// Whether there is any rule: without one nothing is ever deleted.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let rules = [
            self.backups,
            self.days,
            self.daily,
            self.weekly,
            self.monthly,
        ];
        rules.iter().any(Option::is_some)
    }

    /// The same with one rule only: so many of the newest backups.
    #[must_use]
    pub fn newest(count: u32) -> Self {
        Self {
            backups: Some(count),
            ..Self::default()
        }
    }

    /// The moment at which the recovery window begins.
    pub(super) fn window_start(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let days = TimeDelta::days(i64::from(self.days?));
        // Further back than time reaches means: everything.
        Some(
            now.checked_sub_signed(days)
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        )
    }

    /// Which of these backups the rules keep, and why; by position in `backups`, which come oldest first.
    pub(super) fn keeps(
        &self,
        backups: &[&BackupFacts],
        now: DateTime<Utc>,
    ) -> BTreeMap<usize, Vec<Reason>> {
        let mut kept: BTreeMap<usize, Vec<Reason>> = BTreeMap::new();
        let mut keep = |index: usize, reason| kept.entry(index).or_default().push(reason);
        let count = self.backups.unwrap_or(0) as usize;
        for index in backups.len().saturating_sub(count)..backups.len() {
            keep(
                index,
                Reason::onward(format!("one of the newest {count} backups")),
            );
        }
        if let Some(start) = self.window_start(now) {
            let first = backups.partition_point(|backup| backup.time <= start);
            let days = self.days.unwrap_or(0);
            if let Some(base) = first.checked_sub(1) {
                let words = format!("recovery to the beginning of the last {days} days needs it");
                keep(base, Reason::onward(words));
            }
            for index in first..backups.len() {
                let words = format!("ended within the last {days} days");
                keep(index, Reason::onward(words));
            }
        }
        for (wanted, period) in [
            (self.daily, Period::Day),
            (self.weekly, Period::Week),
            (self.monthly, Period::Month),
        ] {
            for (index, words) in self.last_of_each(backups, wanted.unwrap_or(0), period) {
                let onward = self.wal == WalRetention::All;
                keep(index, Reason { words, onward });
            }
        }
        kept
    }

    /// The last backup of each of the newest `wanted` periods that have one.
    fn last_of_each(
        &self,
        backups: &[&BackupFacts],
        wanted: u32,
        period: Period,
    ) -> Vec<(usize, String)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (index, backup) in backups.iter().enumerate().rev() {
            let day = backup.time.with_timezone(&self.zone).date_naive();
            if seen.len() == wanted as usize {
                break;
            }
            if seen.insert(period.of(day)) {
                found.push((index, period.words(day)));
            }
        }
        found
    }
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug)]
enum Period {
    Day,
    Week,
    Month,
}

impl Period {
    /// What two days of one period have in common.
    fn of(self, day: NaiveDate) -> (i32, u32) {
        match self {
            Self::Day => (day.year(), day.ordinal()),
            Self::Week => (day.iso_week().year(), day.iso_week().week()),
            Self::Month => (day.year(), day.month()),
        }
    }

    fn words(self, day: NaiveDate) -> String {
        match self {
            Self::Day => format!("the last backup of {day}"),
            Self::Week => {
                let week = day.iso_week();
                format!("the last backup of week {} of {}", week.week(), week.year())
            }
            Self::Month => format!("the last backup of {}", day.format("%Y-%m")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, backup};
    use super::*;

    /// One backup at each of these times, RFC 3339.
    fn kept(policy: &Policy, now: &str, times: &[&str]) -> Vec<usize> {
        let facts: Vec<BackupFacts> = (1_u32..)
            .zip(times)
            .map(|(number, time)| BackupFacts {
                time: at(time),
                ..backup(1, number)
            })
            .collect();
        let facts: Vec<&BackupFacts> = facts.iter().collect();
        policy.keeps(&facts, at(now)).into_keys().collect()
    }

    const DAYS: [&str; 6] = [
        "2026-01-01T00:10:00Z",
        "2026-01-02T00:10:00Z",
        "2026-01-03T00:10:00Z",
        "2026-01-04T00:10:00Z",
        "2026-01-05T00:10:00Z",
        "2026-01-06T00:10:00Z",
    ];

    #[test]
    fn each_rule_alone_and_their_union() {
        let none = Policy::default();
        let cases = [
            (none.clone(), vec![]),
            (Policy::newest(2), vec![4, 5]),
            (Policy::newest(9), vec![0, 1, 2, 3, 4, 5]),
            // Three days before 6 January noon is 3 January noon: the backup before it is its base.
            (
                Policy {
                    days: Some(3),
                    ..none.clone()
                },
                vec![2, 3, 4, 5],
            ),
            (
                Policy {
                    days: Some(300),
                    ..none.clone()
                },
                vec![0, 1, 2, 3, 4, 5],
            ),
            (
                Policy {
                    days: Some(u32::MAX),
                    ..none.clone()
                },
                vec![0, 1, 2, 3, 4, 5],
            ),
            (
                Policy {
                    daily: Some(2),
                    ..none.clone()
                },
                vec![4, 5],
            ),
            // 4 January 2026 is a Sunday, 5 January a Monday.
            (
                Policy {
                    weekly: Some(2),
                    ..none.clone()
                },
                vec![3, 5],
            ),
            (
                Policy {
                    monthly: Some(3),
                    ..none.clone()
                },
                vec![5],
            ),
            (
                Policy {
                    backups: Some(1),
                    weekly: Some(2),
                    ..none
                },
                vec![3, 5],
            ),
        ];
        for (policy, expected) in cases {
            assert_eq!(
                kept(&policy, "2026-01-06T12:00:00Z", &DAYS),
                expected,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn a_day_is_a_day_of_the_schedule() {
        // Midnight in Berlin is 23:00 of the day before: two backups of one UTC day, of two days there.
        let times = ["2026-01-01T22:30:00Z", "2026-01-01T23:00:00Z"];
        let berlin = Policy {
            daily: Some(2),
            zone: Zone::named("Europe/Berlin").unwrap(),
            ..Policy::default()
        };
        let now = "2026-01-02T00:00:00Z";
        assert_eq!(kept(&berlin, now, &times), [0, 1]);
        let utc = Policy {
            zone: Zone::UTC,
            ..berlin
        };
        assert_eq!(kept(&utc, now, &times), [1]);
    }

    #[test]
    fn the_end_of_a_year_is_one_week() {
        // 29 December 2025 is the Monday of week 1 of 2026.
        let weekly = Policy {
            weekly: Some(2),
            ..Policy::default()
        };
        let times = [
            "2025-12-28T12:00:00Z",
            "2025-12-29T12:00:00Z",
            "2026-01-01T12:00:00Z",
        ];
        assert_eq!(kept(&weekly, "2026-01-02T00:00:00Z", &times), [0, 2]);
    }

    #[test]
    fn counts_and_calendar_do_not_ask_the_clock() {
        let policy = Policy {
            backups: Some(1),
            daily: Some(2),
            weekly: Some(1),
            monthly: Some(1),
            ..Policy::default()
        };
        let today = kept(&policy, "2026-01-06T12:00:00Z", &DAYS);
        assert_eq!(kept(&policy, "2036-01-06T12:00:00Z", &DAYS), today);
        assert_eq!(kept(&policy, "1990-01-06T12:00:00Z", &DAYS), today);
    }
}
