//! Decisions about backups that are named, marked or misnamed, and about times that cannot be believed.

use chrono::TimeDelta;
use wale_format::BackupName;
use wale_pg::WalSegmentName;

use super::super::branches::DEFAULT_REQUEST_INTERVAL;
use super::super::facts::{BackupFacts, BackupPlace, Branch};
use super::super::plan::{BackupVerdict, Bound, Request, decide};
use super::super::policy::Policy;
use super::super::time_of_day::{SUSPECT, TimeOfDay};
use super::{at, backup, segment, timeline};
use crate::error::{Kind, Result};

fn hourly(count: u32) -> Vec<BackupFacts> {
    (1..=count).map(|number| backup(1, number)).collect()
}

fn decide_at(request: &Request, backups: &[BackupFacts]) -> Result<Vec<BackupVerdict>> {
    let now = TimeOfDay::new(at("2026-02-01T00:00:00Z"));
    decide(request, backups, &[], &now, DEFAULT_REQUEST_INTERVAL)
}

/// Positions, from 1, of the backups that go.
fn gone(decisions: &[BackupVerdict]) -> Vec<usize> {
    let places = (1..).zip(decisions);
    places
        .filter(|(_, decision)| decision.goes())
        .map(|(place, _)| place)
        .collect()
}

/// The last digits of the segments of those that go.
fn gone_names(decisions: &[BackupVerdict]) -> Vec<String> {
    let gone = decisions.iter().filter(|decision| decision.goes());
    gone.map(|decision| decision.backup.name.segment().to_string()[16..].to_owned())
        .collect()
}

fn before(text: &str) -> Request {
    Request::Before(Bound::Segment(segment(text)))
}

#[test]
fn a_backup_goes_by_name_unless_it_must_stay() {
    let mut backups = hourly(3);
    let target = |backups: &[BackupFacts], place: usize| {
        decide_at(&Request::Target(backups[place - 1].name.clone()), backups)
    };
    assert_eq!(gone(&target(&backups, 2).unwrap()), [2]);
    // The newest, too: a backup from the future keeps all rules from working.
    backups[2].time = at("2027-01-01T00:00:00Z");
    assert!(decide_at(&Request::Retain(2), &backups).is_err());
    assert_eq!(gone(&target(&backups, 3).unwrap()), [3]);
    // And one that cannot be read, which the rules keep.
    backups[1].damaged = Some("no JSON".to_owned());
    assert_eq!(gone(&target(&backups, 2).unwrap()), [2]);
    backups[2].parent = Some(backups[0].name.to_string());
    for (place, why) in [(1, "is based on it"), (3, "marked to be kept")] {
        backups[2].marked = place == 3;
        let error = target(&backups, place).unwrap_err();
        assert_eq!(error.kind, Kind::ArchiveConflict);
        assert!(error.message.contains(why), "{}", error.message);
    }
    // The last good one.
    backups.pop();
    let error = target(&backups, 1).unwrap_err();
    assert!(error.message.contains("last backup"), "{}", error.message);
}

#[test]
fn fault_49_a_marked_backup_may_be_the_last_one() {
    let mut backups = hourly(3);
    backups[0].marked = true;
    let beyond = before("000000010000000000000009");
    assert_eq!(gone(&decide_at(&beyond, &backups).unwrap()), [2, 3]);
    backups[0].damaged = Some("no JSON".to_owned());
    let error = decide_at(&beyond, &backups).unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveConflict);
}

#[test]
fn a_wrong_name_tells_neither_position_nor_timeline() {
    let mut backups = hourly(4);
    // Of a stopped server on timeline 10, which WAL-E writes in decimal; its position is far too high.
    backups[1].name = BackupName::parse("base_0000001000000000000000F0_000000F0").unwrap();
    backups[1].place = BackupPlace::Unknown;
    backups[1].last = None;
    let decisions = decide_at(&Request::Retain(3), &backups).unwrap();
    let mut starts: Vec<WalSegmentName> = Vec::new();
    for need in decisions[1].needs() {
        assert_eq!(
            (need.last, need.start.to_string()[8..].trim_matches('0')),
            (None, "")
        );
        starts.push(need.start);
    }
    let timelines: Vec<_> = starts.iter().map(|start| start.timeline()).collect();
    assert_eq!(timelines, [timeline(16), timeline(10)]);
    // What is before a bound goes by time.
    let named = |place: usize| Request::Before(Bound::Backup(backups[place - 1].name.clone()));
    assert_eq!(gone(&decide_at(&named(3), &backups).unwrap()), [1, 2]);
    assert_eq!(gone(&decide_at(&named(2), &backups).unwrap()), [1]);
    assert_eq!(gone(&decide_at(&named(1), &backups).unwrap()), [0_usize; 0]);
    let bare = before("000000010000000000000003");
    assert_eq!(gone(&decide_at(&bare, &backups).unwrap()), [1, 2]);
    // Without a later backup it is not known.
    backups.truncate(2);
    let beyond = before("0000000100000000000000FF");
    assert_eq!(gone(&decide_at(&beyond, &backups).unwrap()), [1]);
}

#[test]
fn fault_48_a_clock_that_was_set_back_deletes_nothing() {
    let backups = hourly(3);
    let newest = backups[2].time;
    let retain = Request::Retain(1);
    let within = TimeOfDay::new(newest - TimeDelta::minutes(59));
    assert_eq!(
        gone_names(&decide(&retain, &backups, &[], &within, DEFAULT_REQUEST_INTERVAL).unwrap())
            .len(),
        2
    );
    let before = TimeOfDay::new(newest - TimeDelta::days(1));
    let error = decide(&retain, &backups, &[], &before, DEFAULT_REQUEST_INTERVAL).unwrap_err();
    assert_eq!(error.kind, Kind::Busy);
    assert!(error.hint.is_some() && error.detail.is_some());
}

#[test]
fn fault_48_a_clock_that_jumps_forward_makes_nothing_old() {
    let backups = hourly(3);
    let policy = Request::Policy(Policy {
        days: Some(7),
        ..Policy::default()
    });
    // A month later a backup is taken: the cluster was off, or the clock is wrong.
    let jumped = backups[2].time + TimeDelta::days(30);
    let mut with_new = backups.clone();
    with_new.push(BackupFacts {
        time: jumped,
        committed: jumped,
        ..backup(1, 9)
    });
    let mut time = TimeOfDay::new(jumped);
    for backup in &with_new {
        time.saw(backup.committed);
    }
    let decisions = decide(&policy, &with_new, &[], &time, DEFAULT_REQUEST_INTERVAL).unwrap();
    assert!(gone_names(&decisions).is_empty());
    assert_eq!(decisions[0].stays[0], SUSPECT);
    // What counts or goes by the calendar does not look at the clock.
    assert_eq!(
        gone_names(
            &decide(
                &Request::Retain(1),
                &with_new,
                &[],
                &time,
                DEFAULT_REQUEST_INTERVAL
            )
            .unwrap()
        )
        .len(),
        3
    );
    // Two days on, nobody has set the clock back.
    let mut time = TimeOfDay::new(jumped + TimeDelta::days(2));
    for backup in &with_new {
        time.saw(backup.committed);
    }
    time.saw(jumped + TimeDelta::hours(30));
    let decisions = decide(&policy, &with_new, &[], &time, DEFAULT_REQUEST_INTERVAL).unwrap();
    assert_eq!(gone_names(&decisions), ["00000001", "00000002"]);
}

#[test]
fn a_copied_archive_does_not_make_old_backups_new() {
    // Two backups of WAL-E's, copied yesterday, beside three with a recorded time that are younger in truth.
    let mut backups = hourly(5);
    for old in &mut backups[..2] {
        old.recorded = false;
        old.time = at("2026-01-31T00:00:00Z");
        old.committed = old.time;
    }
    backups.sort_by_key(|backup| backup.time);
    assert_eq!(
        gone_names(&decide_at(&Request::Retain(1), &backups).unwrap()),
        ["00000003", "00000004", "00000001"],
        "the newest of each kind stays"
    );
    // Where they agree, one count holds for all.
    let mut backups = hourly(5);
    backups[0].recorded = false;
    backups[1].recorded = false;
    assert_eq!(
        gone_names(&decide_at(&Request::Retain(1), &backups).unwrap()).len(),
        4
    );
}

#[test]
fn fault_105_the_rules_hold_for_each_branch_by_itself() {
    // One backup leads to the present, the two newest end on the branch that was left.
    let mut backups = hourly(3);
    for left in &mut backups[1..] {
        left.branch = Branch::Left(timeline(1));
    }
    for request in [
        Request::Retain(2),
        Request::Retain(1),
        Request::Policy(Policy::newest(2)),
        Request::Policy(Policy {
            daily: Some(1),
            ..Policy::default()
        }),
    ] {
        let decisions = decide_at(&request, &backups).unwrap();
        assert!(!decisions[0].goes() && !decisions[2].goes(), "{request:?}");
        let words = decisions[2].stays.join("; ");
        assert!(words.contains("abandoned branch of timeline 1"), "{words}");
        assert!(!decisions[0].stays.join("; ").contains("branch"));
    }
    assert_eq!(
        gone(&decide_at(&Request::Retain(1), &backups).unwrap()),
        [2]
    );
    // Neither a bound nor a name takes the one that leads to the present.
    let named = backups[2].name.clone();
    let target = Request::Target(backups[0].name.clone());
    for request in [Request::Before(Bound::Backup(named)), target] {
        let error = decide_at(&request, &backups).unwrap_err();
        assert_eq!(error.kind, Kind::ArchiveConflict);
        assert!(
            error.message.contains("newest timeline"),
            "{}",
            error.message
        );
    }
    let target = Request::Target(backups[1].name.clone());
    assert_eq!(gone(&decide_at(&target, &backups).unwrap()), [2]);
    // WAL of the present is not young because of what was left behind.
    let decisions = decide_at(&Request::Retain(2), &backups).unwrap();
    let apart = |index: usize| decisions[index].needs()[0].is_apart;
    assert_eq!((apart(0), apart(1)), (false, true));
}

#[test]
fn fault_116_what_cannot_be_restored_is_no_reason_to_delete_what_can() {
    let mut backups = hourly(4);
    for foreign in &mut backups[2..] {
        foreign.unreadable = Some("brotli".to_owned());
    }
    let decisions = decide_at(&Request::Retain(1), &backups).unwrap();
    assert_eq!(gone(&decisions), [1, 3]);
    let before = Request::Before(Bound::Backup(backups[3].name.clone()));
    let error = decide_at(&before, &backups).unwrap_err();
    assert!(error.message.contains("last backup"), "{}", error.message);
}

#[test]
fn fault_94_what_lacks_something_is_not_counted_and_stays() {
    let mut backups = hourly(4);
    backups[3].damaged = Some("partition 1 is missing".to_owned());
    let decisions = decide_at(&Request::Retain(1), &backups).unwrap();
    assert_eq!(gone(&decisions), [1, 2]);
    assert!(
        decisions[3].stays[0].contains("partition 1"),
        "{:?}",
        decisions[3].stays
    );
}

#[test]
fn fault_87_a_loop_of_requests_pushes_nothing_out() {
    // Three nightly backups, then a request each minute.
    let mut backups: Vec<BackupFacts> = (1..=3).map(|night| backup(1, 24 * night)).collect();
    for minute in 1..=20 {
        let began = backups[2].time + TimeDelta::minutes(i64::from(minute));
        backups.push(BackupFacts {
            requested: true,
            began,
            time: began,
            committed: began,
            ..backup(1, 72 + minute)
        });
    }
    let rules = || Request::Policy(Policy::newest(3));
    assert!(gone(&decide_at(&rules(), &backups).unwrap()).is_empty());
    // What a person types is no stranger's request: it leaves so many, no matter who asked for them.
    let typed = decide_at(&Request::Retain(3), &backups).unwrap();
    assert_eq!(gone(&typed), (1..=20).collect::<Vec<_>>());
    // The next nights' push out what is older, and with a night go the requests that came soon after it.
    for night in 4..=6 {
        backups.push(backup(1, 24 * night));
    }
    let decisions = decide_at(&rules(), &backups).unwrap();
    assert_eq!(gone(&decisions), (1..=23).collect::<Vec<_>>());
}
