//! Decisions by each request, one rule at a time.

use wale_format::BackupName;
use wale_pg::WalSegmentName;

use super::super::branches::DEFAULT_REQUEST_INTERVAL;
use super::super::facts::BackupFacts;
use super::super::plan::{BackupVerdict, Bound, Request, Unfinished, decide};
use super::super::policy::Policy;
use super::super::time_of_day::TimeOfDay;
use super::{at, backup};
use crate::error::{Kind, Result};

fn gone(decisions: &[BackupVerdict]) -> Vec<String> {
    let gone = decisions.iter().filter(|decision| decision.goes());
    gone.map(|decision| decision.backup.name.segment().to_string()[16..].to_owned())
        .collect()
}

/// Backups in segments 1, 2, 3 …, each an hour after the one before.
fn hourly(count: u32) -> Vec<BackupFacts> {
    (1..=count).map(|number| backup(1, number)).collect()
}

fn decide_at(request: &Request, backups: &[BackupFacts]) -> Result<Vec<BackupVerdict>> {
    decide(
        request,
        backups,
        &[],
        &TimeOfDay::new(at("2026-02-01T00:00:00Z")),
        DEFAULT_REQUEST_INTERVAL,
    )
}

fn before(text: &str) -> Request {
    Request::Before(Bound::Segment(WalSegmentName::parse(text).unwrap()))
}

#[test]
fn without_a_rule_nothing_goes() {
    let decisions = decide_at(&Request::Policy(Policy::default()), &hourly(3)).unwrap();
    assert_eq!(gone(&decisions), Vec::<String>::new());
}

#[test]
fn retain_keeps_the_newest_by_time() {
    let mut backups = hourly(4);
    assert_eq!(
        gone(&decide_at(&Request::Retain(2), &backups).unwrap()),
        ["00000001", "00000002"]
    );
    assert!(gone(&decide_at(&Request::Retain(9), &backups).unwrap()).is_empty());
    assert!(gone(&decide_at(&Request::Retain(1), &[]).unwrap()).is_empty());
    // The log began anew: the backup with the lowest number is the newest.
    backups[0].time = at("2026-01-31T00:00:00Z");
    backups.sort_by_key(|backup| backup.time);
    assert_eq!(
        gone(&decide_at(&Request::Retain(2), &backups).unwrap()),
        ["00000002", "00000003"]
    );
}

#[test]
fn a_policy_always_keeps_the_newest() {
    let policy = Policy {
        days: Some(1),
        ..Policy::default()
    };
    let decisions = decide_at(&Request::Policy(policy), &hourly(3)).unwrap();
    assert_eq!(gone(&decisions), ["00000001", "00000002"]);
}

#[test]
fn zero_is_refused() {
    let error = decide_at(&Request::Retain(0), &hourly(2)).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
}

#[test]
fn before_a_segment_or_a_backup() {
    let backups = hourly(3);
    for (bound, expected) in [
        ("000000010000000000000002", vec!["00000001"]),
        // The timeline is not part of a position.
        ("000000050000000000000002", vec!["00000001"]),
        ("000000010000000000000001", vec![]),
        ("000000010000000000000003", vec!["00000001", "00000002"]),
    ] {
        let decisions = decide_at(&before(bound), &backups).unwrap();
        assert_eq!(gone(&decisions), expected, "{bound}");
    }
    let named = Request::Before(Bound::Backup(backups[1].name.clone()));
    assert_eq!(gone(&decide_at(&named, &backups).unwrap()), ["00000001"]);
    // Two backups of one segment: the offset decides.
    let mut twins = hourly(2);
    twins[0].name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
    twins[1].name = BackupName::parse("base_000000010000000000000002_00000440").unwrap();
    let named = Request::Before(Bound::Backup(twins[1].name.clone()));
    assert_eq!(gone(&decide_at(&named, &twins).unwrap()), ["00000002"]);
    let named = Request::Before(Bound::Backup(twins[0].name.clone()));
    assert!(gone(&decide_at(&named, &twins).unwrap()).is_empty());
}

#[test]
fn fault_42_a_backup_of_an_upgraded_cluster_is_not_before_an_old_one() {
    // Three backups of the old cluster, then one of the new, whose log began anew.
    let mut backups: Vec<BackupFacts> = (5..8).map(|number| backup(1, number)).collect();
    backups.push(BackupFacts {
        time: at("2026-01-31T00:00:00Z"),
        ..backup(1, 1)
    });
    let named = Request::Before(Bound::Backup(backups[2].name.clone()));
    assert_eq!(
        gone(&decide_at(&named, &backups).unwrap()),
        ["00000005", "00000006"]
    );
    let bare = before("000000010000000000000007");
    assert_eq!(
        gone(&decide_at(&bare, &backups).unwrap()),
        ["00000005", "00000006"]
    );
    assert_eq!(
        gone(&decide_at(&Request::Retain(2), &backups).unwrap()),
        ["00000005", "00000006"]
    );
}

#[test]
fn fault_49_the_last_backup_that_can_be_restored_is_spared() {
    let mut backups = hourly(2);
    let beyond = before("000000010000000000000009");
    let error = decide_at(&beyond, &backups).unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert!(error.message.contains("last backup"), "{}", error.message);
    // A damaged one does not stand in for it.
    backups[1].damaged = Some("no JSON".to_owned());
    let error = decide_at(&before("000000010000000000000002"), &backups).unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert!(gone(&decide_at(&Request::Retain(1), &backups).unwrap()).is_empty());
    let all = decide_at(&Request::Everything, &backups).unwrap();
    assert_eq!(gone(&all), ["00000001", "00000002"]);
}

#[test]
fn marked_backups_stay_and_stop_everything() {
    let mut backups = hourly(3);
    backups[0].marked = true;
    assert_eq!(
        gone(&decide_at(&Request::Retain(1), &backups).unwrap()),
        ["00000002"]
    );
    let error = decide_at(&Request::Everything, &backups).unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveConflict);
    let consistent = Policy {
        wal: super::super::policy::WalRetention::Consistent,
        ..Policy::newest(1)
    };
    let decisions = decide_at(&Request::Policy(consistent), &backups).unwrap();
    assert_eq!(
        decisions[0].needs()[0].last,
        Some(WalSegmentName::parse("000000010000000000000001").unwrap())
    );
    assert_eq!(decisions[2].needs()[0].last, None);
}

#[test]
fn deltas_keep_what_they_are_based_on() {
    let mut backups = hourly(4);
    backups[3].parent = Some(backups[1].name.to_string());
    backups[1].parent = Some(backups[0].name.to_string());
    assert_eq!(
        gone(&decide_at(&Request::Retain(1), &backups).unwrap()),
        ["00000003"]
    );
    backups[0].name = BackupName::parse("base_000000010000000000000001_00000041").unwrap();
    assert!(
        gone(&decide_at(&Request::Retain(1), &backups).unwrap()).is_empty(),
        "a parent that is not there may be any"
    );
    let writing = Unfinished {
        name: BackupName::parse("base_000000010000000000000009_D_000000010000000000000004")
            .unwrap(),
        touched: at("2026-01-31T00:00:00Z"),
    };
    let now = TimeOfDay::new(at("2026-02-01T00:00:00Z"));
    let decisions = decide(
        &Request::Retain(1),
        &hourly(3),
        &[writing],
        &now,
        DEFAULT_REQUEST_INTERVAL,
    )
    .unwrap();
    assert!(gone(&decisions).is_empty());
}
