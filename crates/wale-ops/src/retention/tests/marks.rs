//! Marks and writers beside a deletion: whatever happens between which of its steps, what was promised is kept.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::sleep;
use wale_format::{BackupName, layout};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::super::options::Act;
use super::super::plan::Request;
use super::super::policy::Policy;
use super::world::World;
use crate::backup_fetch::BackupSelector;
use crate::backup_mark::{self, Mark};
use crate::error::{Kind, Result};

const LONG: Duration = Duration::from_hours(1);

/// Three backups with some WAL between them.
fn three() -> World {
    let mut world = World::new();
    for _ in 0..3 {
        world.wal(3);
        world.backup(1, true);
    }
    world
}

/// The `step`-th request of the world's own archive takes long, so that something can happen before it.
fn pause_before(world: &World, step: u64) {
    let pause = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(step), Fault::Delay(LONG));
    world.faulty.set_plan(pause);
}

/// What must be so after a deletion and a mark of the first backup, however they met.
async fn check(world: &World, marked: &Result<wale_format::BackupName>, what: &str) {
    world.faulty.set_plan(FaultPlan::new());
    let first = &world.backups[0];
    let whole = first.keys.iter().all(|key| world.has(key));
    let listed = world.has(&layout::sentinel(&first.name));
    assert!(!listed || whole, "{what}: listed, and not whole");
    match marked {
        Ok(_) => assert!(listed, "{what}: marked, and gone"),
        Err(error) => assert!(
            matches!(error.kind, Kind::Busy | Kind::NotFound),
            "{what}: {}",
            error.chain()
        ),
    }
    // The next run goes on, and leaves no notes and no remains.
    let after = world.delete(Request::Policy(Policy::newest(1))).await;
    after.unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    assert_eq!(world.has(&layout::sentinel(&first.name)), listed, "{what}");
    let rest = |key: &String| key.starts_with(&layout::backup_folder(&first.name));
    assert_eq!(world.keys().iter().any(rest), listed, "{what}");
    assert!(
        !world
            .keys()
            .iter()
            .any(|key| key.ends_with("wale_deletion"))
    );
    if listed {
        for number in first.start..world.branches[0].next {
            let key = World::wal_key(world.segment(0, number));
            assert!(world.has(&key), "{what}: {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fault_07_a_mark_between_any_two_steps_of_a_deletion_keeps_the_backup_or_fails() {
    for request in [Request::Retain(1), Request::Everything] {
        let (mut kept, mut failed) = (0, 0);
        for step in 1.. {
            let world = three();
            let selector = BackupSelector::Name(world.backups[0].name.clone());
            let other = world.beside();
            pause_before(&world, step);
            let marking = async {
                sleep(LONG / 2).await;
                backup_mark::run(&other, &selector, Mark::Permanent).await
            };
            let begun = tokio::time::Instant::now();
            let (deleted, marked) = tokio::join!(
                async {
                    let deleted = world.delete(request.clone()).await;
                    (deleted, begun.elapsed())
                },
                marking
            );
            let what = format!("{request:?}, step {step}");
            kept += usize::from(marked.is_ok());
            failed += usize::from(marked.is_err());
            if request == Request::Everything && marked.is_ok() {
                assert_eq!(deleted.0.unwrap_err().kind, Kind::ArchiveConflict, "{what}");
                let all = world.backups.iter().flat_map(|backup| &backup.keys);
                assert!(all.into_iter().all(|key| world.has(key)), "{what}");
            }
            if request != Request::Everything {
                check(&world, &marked, &what).await;
            }
            if deleted.1 < LONG {
                break;
            }
        }
        assert!(kept > 5 && failed > 5, "{kept} kept, {failed} failed");
    }
}

#[tokio::test(start_paused = true)]
async fn fault_07_a_deletion_between_any_two_steps_of_a_mark_spares_the_backup_or_fails_the_mark() {
    let (mut kept, mut failed) = (0, 0);
    for step in 1.. {
        let world = three();
        let selector = BackupSelector::Name(world.backups[0].name.clone());
        let other = world.beside();
        pause_before(&world, step);
        let deleting = async {
            sleep(LONG / 2).await;
            World::run_on(&other, Request::Retain(1), Act::Delete).await
        };
        let begun = tokio::time::Instant::now();
        let ((marked, took), deleted) = tokio::join!(
            async {
                let marked = backup_mark::run(&world.archive, &selector, Mark::Permanent).await;
                (marked, begun.elapsed())
            },
            deleting
        );
        deleted.unwrap();
        kept += usize::from(marked.is_ok());
        failed += usize::from(marked.is_err());
        check(&world, &marked, &format!("step {step}")).await;
        if took < LONG {
            break;
        }
    }
    assert!(kept > 1 && failed > 1, "{kept} kept, {failed} failed");
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_taken_back_for_a_mark() {
    let world = three();
    let name = world.backups[0].name.clone();
    world.put(&layout::deletion(&name), "x");
    let selector = BackupSelector::Name(name.clone());
    let mark = || backup_mark::run(&world.archive, &selector, Mark::Permanent);
    assert_eq!(mark().await.unwrap_err().kind, Kind::Busy);
    let report = world.delete(Request::Retain(1)).await.unwrap();
    assert_eq!(report.deleted, [world.backups[1].name.clone()]);
    assert!(!world.has(&layout::deletion(&name)));
    assert_eq!(mark().await.unwrap(), name);
}

#[tokio::test(start_paused = true)]
async fn fault_34_a_sentinel_that_is_still_there_keeps_its_backup() {
    let world = three();
    let first = &world.backups[0];
    let sentinel = layout::sentinel(&first.name);
    let before = world.snapshot();
    // Before the look that follows the deletion the object comes back, as of a store that only says that it deletes.
    world.faulty.set_plan(FaultPlan::new().fail_keys(
        &sentinel,
        Verb::Head,
        Occurrence::Nth(2),
        Fault::Delay(LONG),
    ));
    let (report, ()) = tokio::join!(world.delete(Request::Retain(1)), async {
        sleep(LONG / 2).await;
        assert!(!world.has(&sentinel));
        world.put(&sentinel, before[&sentinel].clone());
    });
    let report = report.unwrap();
    assert_eq!(report.deleted, [world.backups[1].name.clone()]);
    assert_eq!(report.refused[0].key.as_str(), sentinel);
    assert!(first.keys.iter().all(|key| world.has(key)));
    for number in first.start..world.branches[0].next {
        assert!(world.has(&World::wal_key(world.segment(0, number))));
    }
}

/// A writer that was taken for dead goes on, or is done, right before what it left would be removed.
#[tokio::test(start_paused = true)]
async fn wal_of_a_writer_that_comes_back_meanwhile_stays() {
    for is_done in [false, true] {
        let mut world = three();
        let from = world.branches[0].next;
        let name = world.abandoned();
        world.wal(3);
        world.promote(0);
        world.backup(0, true);
        world.pass(TimeDelta::hours(25));
        let sentinel = layout::sentinel(&name);
        let key = if is_done {
            sentinel.clone()
        } else {
            layout::partition(&name, 1, wale_format::Codec::None)
        };
        world.faulty.set_plan(FaultPlan::new().fail_keys(
            &sentinel,
            Verb::Head,
            Occurrence::Nth(2),
            Fault::Delay(LONG),
        ));
        let policy = Request::Policy(Policy::newest(1));
        let (report, ()) = tokio::join!(world.delete(policy), async {
            sleep(LONG / 2).await;
            world.put(&key, "x");
        });
        assert_eq!(report.unwrap().deleted.len(), 3);
        assert!(world.has(&layout::extended_version(&name)));
        for number in from..from + 3 {
            let key = World::wal_key(world.segment(0, number));
            assert!(world.has(&key), "{is_done}: {key}");
        }
        assert!(!world.has(&World::wal_key(world.segment(0, from - 1))));
    }
}

/// A standby that lags begins a backup, or completes one, after stock was taken: what it needs lies before all that is kept.
#[tokio::test(start_paused = true)]
async fn wal_of_a_backup_that_begins_meanwhile_stays() {
    for is_done in [false, true] {
        let mut world = World::new();
        world.wal(3);
        let oldest = world.backup(1, true);
        for _ in 0..2 {
            world.wal(3);
            world.backup(1, true);
        }
        let wal = |world: &World| -> Vec<String> {
            let keys = world.keys().into_iter();
            keys.filter(|key| key.starts_with("wal_005/")).collect()
        };
        let before = wal(&world);
        let newcomer = BackupName::new(&oldest.segment(), 99);
        let key = if is_done {
            layout::sentinel(&newcomer)
        } else {
            layout::attempt(&newcomer)
        };
        world.faulty.set_plan(FaultPlan::new().fail_keys(
            &layout::deletion(&oldest),
            Verb::Put,
            Occurrence::Nth(1),
            Fault::Delay(LONG),
        ));
        let policy = Request::Policy(Policy::newest(1));
        let (report, ()) = tokio::join!(world.delete(policy), async {
            sleep(LONG / 2).await;
            world.put(&key, "x");
        });
        let report = report.unwrap();
        assert_eq!(report.deleted.len(), 2);
        let told = report.notes.iter();
        assert!(
            told.clone().any(|note| note.contains(newcomer.as_str())),
            "{report:?}"
        );
        assert_eq!(wal(&world), before, "{is_done}");
    }
}

/// WAL-E names its backup of a stopped server wrongly. Perhaps it was not even on that timeline.
#[tokio::test]
async fn wal_of_a_backup_whose_name_is_wrong_stays() {
    let mut world = World::new();
    world.wal(3);
    world.backup(1, false);
    world.wal(3);
    // It is of segment 9 in truth.
    let name = "basebackups_005/base_000000010000000000000015_00000015";
    world.put(&format!("{name}/extended_version.txt"), "PostgreSQL");
    let part = format!("{name}/tar_partitions/part_00000000.tar.lzo");
    world.put(&part, "tar");
    world.put(
        &format!("{name}_backup_stop_sentinel.json"),
        r#"{"wal_segment_backup_stop": "000000010000000000000015", "wal_segment_offset_backup_stop": "00000015"}"#,
    );
    world.pass(TimeDelta::hours(1));
    world.wal(3);
    world.backup(1, false);
    let report = world.delete(Request::Retain(2)).await.unwrap();
    assert_eq!(report.deleted, [world.backups[0].name.clone()]);
    for number in 1..world.branches[0].next {
        let key = World::wal_key(world.segment(0, number));
        assert!(world.has(&key), "{key}");
    }
    // With its successor alone the WAL goes as ever.
    world.delete(Request::Retain(1)).await.unwrap();
    assert!(!world.has(&World::wal_key(world.segment(0, 1))));
}
