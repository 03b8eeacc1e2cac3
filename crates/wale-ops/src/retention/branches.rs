//! What is counted with what. Pure.
//!
//! The rules hold along the line that leads to the newest timeline, and separately for each branch that was abandoned:
//! the newest backups by time may all lie on one, and a common count would delete the only backup that leads to the
//! present. They also hold separately for what this version cannot restore: that is no reason to delete what it can
//! restore.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use wale_pg::TimelineId;

use super::facts::{BackupFacts, Branch};

/// A backup that was requested over HTTP counts when it began this long after the one before it: 20 hours. A user's
/// own nightly request counts, also when summer time begins or ends that night; a loop of requests does not.
pub const DEFAULT_REQUEST_INTERVAL: Duration = Duration::from_hours(20);

/// The usable backups that are counted together, by their positions, with the words for what they have in common.
pub(super) fn groups(backups: &[BackupFacts]) -> Vec<(String, Vec<usize>)> {
    let mut groups: BTreeMap<(Branch, bool), Vec<usize>> = BTreeMap::new();
    for (index, backup) in backups.iter().enumerate() {
        if backup.damaged.is_none() {
            let key = (backup.branch, backup.unreadable.is_some());
            groups.entry(key).or_default().push(index);
        }
    }
    let words = |(branch, unreadable): (Branch, bool)| {
        let branch = branch.words().map(|words| format!("on {words}"));
        let unreadable = unreadable.then(|| "of those that this version cannot restore".to_owned());
        let both: Vec<String> = branch.into_iter().chain(unreadable).collect();
        if both.is_empty() {
            String::new()
        } else {
            format!("{}: ", both.join(", "))
        }
    };
    groups
        .into_iter()
        .map(|(key, indexes)| (words(key), indexes))
        .collect()
}

/// Sentences that say which backups lie apart from the line to the present.
pub(super) fn told(backups: &[BackupFacts], newest: Option<TimelineId>) -> Vec<String> {
    let mut apart: BTreeMap<Branch, Vec<&str>> = BTreeMap::new();
    for backup in backups {
        if backup.branch != Branch::Present {
            let names = apart.entry(backup.branch).or_default();
            names.push(backup.name.as_str());
        }
    }
    let newest = newest.map_or_else(String::new, |newest| format!("timeline {newest}, "));
    apart
        .into_iter()
        .filter_map(|(branch, names)| {
            let words = branch.words()?;
            let lie = if names.len() == 1 { "lies" } else { "lie" };
            Some(format!(
                "{} {lie} on {words}, apart from the line to {newest}where the cluster is now: the rules hold for them \
                 separately; `delete target` deletes one by name",
                names.join(", ")
            ))
        })
        .collect()
}

/// How a backup is counted among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountsAs {
    /// As one of them.
    Fully,
    /// Not at all: it stays as long as this one does, given by its position among them.
    With(usize),
}

/// How each of these backups counts; they come oldest first. A client that may ask for backups over HTTP must not be
/// able to push others out by asking often. So such a backup counts when it began long enough after the one before it
/// that counts.
pub(super) fn counted(backups: &[&BackupFacts], interval: Duration) -> Vec<CountsAs> {
    let interval = TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
    let mut before: Option<usize> = None;
    let mut counted = Vec::with_capacity(backups.len());
    for (index, backup) in backups.iter().enumerate() {
        let close = before.filter(|&before| backup.began - backups[before].began < interval);
        if let Some(before) = close.filter(|_| backup.requested) {
            counted.push(CountsAs::With(before));
        } else {
            before = Some(index);
            counted.push(CountsAs::Fully);
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::super::tests::backup;
    use super::*;

    #[test]
    fn fault_87_a_request_counts_a_day_after_the_one_before_it_that_counts() {
        // Hours at which they began, requested or not, and with which other one they count.
        let cases: [&[(i64, bool, CountsAs)]; 3] = [
            // A user's own nightly requests.
            &[
                (0, true, CountsAs::Fully),
                (24, true, CountsAs::Fully),
                (47, true, CountsAs::Fully),
            ],
            // A loop of requests after a nightly backup of the schedule; the next night's counts all the same.
            &[
                (0, false, CountsAs::Fully),
                (1, true, CountsAs::With(0)),
                (2, true, CountsAs::With(0)),
                (19, true, CountsAs::With(0)),
                (20, true, CountsAs::Fully),
                (24, false, CountsAs::Fully),
                (25, false, CountsAs::Fully),
                (26, true, CountsAs::With(6)),
            ],
            &[(0, true, CountsAs::Fully), (1, true, CountsAs::With(0))],
        ];
        for case in cases {
            let facts: Vec<BackupFacts> = (1..)
                .zip(case)
                .map(|(number, (hour, requested, _))| {
                    let facts = backup(1, number);
                    BackupFacts {
                        requested: *requested,
                        began: super::super::tests::at("2026-01-01T00:00:00Z")
                            + TimeDelta::hours(*hour),
                        ..facts
                    }
                })
                .collect();
            let facts: Vec<&BackupFacts> = facts.iter().collect();
            let expected: Vec<CountsAs> = case.iter().map(|(.., counted)| *counted).collect();
            assert_eq!(counted(&facts, DEFAULT_REQUEST_INTERVAL), expected);
            let always = counted(&facts, Duration::ZERO);
            assert!(always.iter().all(|one| *one == CountsAs::Fully));
        }
    }
}
