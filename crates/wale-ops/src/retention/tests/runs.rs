//! Runs against a store in memory: what is reported, what goes, and what a fault leaves.

use wale_format::layout;
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::super::options::Act;
use super::super::plan::{Bound, Request};
use super::super::policy::Policy;
use super::super::run::old_versions;
use super::world::World;
use crate::backup_fetch::BackupSelector;
use crate::backup_mark::{self, Mark};
use crate::error::Kind;
use crate::sweep;
use chrono::TimeDelta;

/// Three backups with some WAL between them; recorded times.
fn three() -> World {
    let mut world = World::new();
    for _ in 0..3 {
        world.wal(3);
        world.backup(1, true);
    }
    world.wal(2);
    world
}

fn segments(world: &World) -> Vec<u64> {
    (1..=world.branches[0].next)
        .filter(|&number| world.has(&World::wal_key(world.segment(0, number))))
        .collect()
}

#[tokio::test]
async fn a_dry_run_tells_what_a_run_does_and_touches_nothing() {
    let world = three();
    let before = world.snapshot();
    let (shown, lines) = world.run(Request::Retain(1), Act::Show).await.unwrap();
    assert_eq!(world.snapshot(), before);
    let told: Vec<&str> = lines.iter().map(|line| line.key.as_str()).collect();
    let every: Vec<&String> = before.keys().filter(|key| *key != "wale.json").collect();
    for key in &every {
        assert_eq!(
            told.iter().filter(|told| *told == key).count(),
            1,
            "{key} is told once"
        );
    }
    assert!(lines.iter().all(|line| !line.why.is_empty()));
    let report = world.delete(Request::Retain(1)).await.unwrap();
    assert_eq!(
        (
            shown.objects,
            shown.bytes,
            shown.wal_objects,
            &shown.deleted
        ),
        (
            report.objects,
            report.bytes,
            report.wal_objects,
            &report.deleted
        )
    );
    let going: Vec<&str> = lines
        .iter()
        .filter(|line| line.goes)
        .map(|line| line.key.as_str())
        .collect();
    for key in before.keys() {
        assert_eq!(world.has(key), !going.contains(&key.as_str()), "{key}");
    }
    assert_eq!(segments(&world), (14..=17).collect::<Vec<_>>());
    assert_eq!(report.deleted.len(), 2);
    // A second run has nothing left to do.
    assert!(world.delete(Request::Retain(1)).await.unwrap().is_idle());
}

#[tokio::test]
async fn defect_01_unknown_names_stay_and_partial_segments_go() {
    let mut world = three();
    world.promote(1);
    world.wal(2);
    world.backup(0, true);
    for key in [
        "wal_005/strange",
        "basebackups_005/strange/x",
        "wale_verified_wal.json",
        "elsewhere",
    ] {
        world.put(key, "x");
    }
    world.put("wal_005/000000010000000000000002.lzo.gpg", "x");
    let (_, lines) = world.run(Request::Retain(1), Act::Show).await.unwrap();
    world.pass(TimeDelta::hours(1));
    world.backup(0, true);
    world.delete(Request::Retain(1)).await.unwrap();
    for key in [
        "wal_005/strange",
        "basebackups_005/strange/x",
        "wale_verified_wal.json",
        "elsewhere",
    ] {
        assert!(world.has(key), "{key}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.key.as_str() == "wal_005/strange" && !line.goes)
    );
    let keys = world.keys();
    assert!(
        !keys.iter().any(|key| key.contains(".partial")),
        "the partial segment is needed by nobody: {keys:?}"
    );
    assert!(!world.has("wal_005/000000010000000000000002.lzo.gpg"));
    assert!(world.has("wal_005/00000002.history"));
    assert!(
        !keys.iter().any(|key| key.starts_with("wal_005/00000001")),
        "the parent timeline is needed by nobody: {keys:?}"
    );
}

/// Killed at every step, and run again: what is left keeps its promises, and the end is the same.
#[tokio::test]
async fn fault_07_killed_at_every_step_of_a_deletion_the_next_run_finishes_it() {
    let undisturbed = three();
    undisturbed.delete(Request::Retain(1)).await.unwrap();
    let expected = undisturbed.keys();
    for step in 1.. {
        let world = three();
        let kept = world.backups[2].keys.clone();
        world.faulty.set_plan(FaultPlan::new().fail(
            Verb::Any,
            Occurrence::From(step),
            Fault::Unavailable,
        ));
        let killed = world.delete(Request::Retain(1)).await;
        world.faulty.set_plan(FaultPlan::new());
        for backup in &world.backups {
            let listed = world.has(&layout::sentinel(&backup.name));
            let whole = backup.keys.iter().all(|key| world.has(key));
            assert!(!listed || whole, "step {step}: {} is listed", backup.name);
            let wal = (backup.start..world.branches[0].next)
                .all(|number| world.has(&World::wal_key(world.segment(0, number))));
            assert!(!listed || wal, "step {step}: WAL of {}", backup.name);
        }
        assert!(kept.iter().all(|key| world.has(key)), "step {step}");
        // Nobody waits for the grace: what is half deleted is known for that.
        world.delete(Request::Retain(1)).await.unwrap();
        assert_eq!(world.keys(), expected, "step {step}");
        if killed.is_ok() {
            assert!(step > 20, "only {step} steps");
            return;
        }
    }
}

#[tokio::test]
async fn fault_34_what_the_store_retains_is_told_and_the_rest_goes() {
    let world = three();
    let first = world.backups[0].name.clone();
    let sentinel = layout::sentinel(&first);
    let locked = "wal_005/000000010000000000000006";
    world.faulty.set_plan(
        FaultPlan::new()
            .fail_keys(
                &sentinel,
                Verb::Delete,
                Occurrence::Always,
                Fault::PermissionDenied,
            )
            .fail_keys(
                locked,
                Verb::Delete,
                Occurrence::Always,
                Fault::PermissionDenied,
            ),
    );
    let calls = world.faulty.calls(Verb::Delete);
    let report = world.delete(Request::Retain(1)).await.unwrap();
    let asked = world.faulty.calls(Verb::Delete) - calls;
    assert!(asked < 40, "{asked} requests for some twenty objects");
    // A backup that stays listed keeps all it needs; so the locked segment was not even asked for.
    assert_eq!(report.deleted, [world.backups[1].name.clone()]);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(
        (report.refused[0].key.as_str(), &*report.refused[0].code),
        (sentinel.as_str(), "AccessDenied")
    );
    assert!(world.backups[0].keys.iter().all(|key| world.has(key)));
    assert_eq!(segments(&world), (4..=17).collect::<Vec<_>>());

    world.faulty.set_plan(FaultPlan::new().fail_keys(
        locked,
        Verb::Delete,
        Occurrence::Always,
        Fault::PermissionDenied,
    ));
    let report = world.delete(Request::Retain(1)).await.unwrap();
    assert_eq!(report.refused[0].key.as_str(), locked);
    assert_eq!(segments(&world), [6, 14, 15, 16, 17]);
}

#[tokio::test]
async fn fault_34_not_even_everything_takes_the_wal_of_a_backup_that_the_store_retains() {
    let world = three();
    let sentinel = layout::sentinel(&world.backups[0].name);
    let locked = Fault::PermissionDenied;
    world.faulty.set_plan(FaultPlan::new().fail_keys(
        &sentinel,
        Verb::Delete,
        Occurrence::Always,
        locked,
    ));
    let report = world.delete(Request::Everything).await.unwrap();
    assert_eq!((report.deleted.len(), report.refused_count), (2, 1));
    assert!(world.backups[0].keys.iter().all(|key| world.has(key)));
    assert_eq!(segments(&world), (4..=17).collect::<Vec<_>>());
}

/// What holds only changes is never listed without what it is based on, wherever a deletion is killed or refused.
#[tokio::test]
async fn fault_07_a_delta_goes_before_what_it_is_based_on() {
    let chain = || {
        let mut world = World::new();
        world.backup(0, true);
        world.delta(0);
        world.delta(1);
        world.backup(0, true);
        world
    };
    let has_parents = |world: &World| {
        let listed = |index: usize| world.has(&layout::sentinel(&world.backups[index].name));
        (1..3).all(|index| !listed(index) || listed(index - 1))
    };
    for step in 1.. {
        let world = chain();
        world.faulty.set_plan(FaultPlan::new().fail(
            Verb::Any,
            Occurrence::From(step),
            Fault::Unavailable,
        ));
        let killed = world.delete(Request::Retain(1)).await;
        assert!(has_parents(&world), "step {step}");
        if killed.is_ok() {
            break;
        }
    }
    let world = chain();
    let locked = layout::sentinel(&world.backups[2].name);
    world.faulty.set_plan(FaultPlan::new().fail_keys(
        &locked,
        Verb::Delete,
        Occurrence::Always,
        Fault::PermissionDenied,
    ));
    let report = world.delete(Request::Retain(1)).await.unwrap();
    assert!(report.deleted.is_empty() && has_parents(&world));
}

#[tokio::test]
async fn fault_49_nothing_is_deleted_by_hand_while_a_backup_is_written() {
    let mut world = three();
    let abandoned = world.abandoned();
    world.pass(TimeDelta::hours(23));
    for request in [
        Request::Retain(1),
        Request::Everything,
        Request::Before(Bound::Backup(world.backups[1].name.clone())),
    ] {
        let before = world.snapshot();
        let error = world.delete(request.clone()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Busy, "{request:?}");
        assert!(error.hint.is_some());
        assert_eq!(world.snapshot(), before);
        let (report, _) = world.run(request, Act::Show).await.unwrap();
        assert_eq!(report.warnings.len(), 1);
    }
    // The policy spares it and goes on.
    world
        .delete(Request::Policy(Policy::newest(1)))
        .await
        .unwrap();
    assert!(world.has(&layout::extended_version(&abandoned)));
    world.pass(TimeDelta::hours(2));
    world.delete(Request::Retain(1)).await.unwrap();
    assert!(!world.has(&layout::extended_version(&abandoned)));
}

#[tokio::test]
async fn wal_of_a_backup_that_is_written_stays() {
    let mut world = three();
    let from = world.branches[0].next;
    world.abandoned();
    world.wal(3);
    world.promote(0);
    world.backup(0, true);
    world
        .delete(Request::Policy(Policy::newest(1)))
        .await
        .unwrap();
    assert_eq!(segments(&world), (from..from + 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn defect_11_what_died_without_a_sentinel_is_swept_and_what_lives_is_not() {
    let mut world = three();
    let dead = world.abandoned();
    world.pass(TimeDelta::hours(23));
    world.wal(1);
    let alive = world.abandoned();
    world.pass(TimeDelta::hours(2));
    let report = sweep::run(&world.archive, super::world::GRACE)
        .await
        .unwrap();
    assert_eq!((report.backups, report.objects), (1, 2));
    assert!(!world.has(&layout::extended_version(&dead)));
    assert!(world.has(&layout::extended_version(&alive)));
    for backup in &world.backups {
        assert!(backup.keys.iter().all(|key| world.has(key)));
    }
    assert!(!world.has(layout::CLOCK));
}

/// The sweep goes by the store's clock: a host whose clock runs ahead sees nothing old.
#[tokio::test]
async fn fault_48_a_host_whose_clock_runs_ahead_sweeps_and_deletes_nothing_early() {
    let mut world = three();
    let dead = world.abandoned();
    let stored = world.time;
    world.pass(TimeDelta::days(30));
    world.memory.set_now(stored + TimeDelta::hours(1));
    let report = sweep::run(&world.archive, super::world::GRACE)
        .await
        .unwrap();
    assert_eq!(report, sweep::SweepReport::default());
    assert!(world.has(&layout::extended_version(&dead)));
    let week = Policy {
        days: Some(7),
        ..Policy::default()
    };
    let report = world.delete(Request::Policy(week)).await.unwrap();
    assert_eq!((report.deleted.len(), report.kept.len()), (0, 3));
    assert_eq!(segments(&world), (4..=17).collect::<Vec<_>>());
}

#[tokio::test]
async fn everything_empties_both_folders_and_nothing_else() {
    let world = three();
    for key in [
        "wal_005/strange",
        "basebackups_005/strange/x",
        "wale_verified_wal.json",
        "elsewhere",
    ] {
        world.put(key, "x");
    }
    let (shown, _) = world.run(Request::Everything, Act::Show).await.unwrap();
    let report = world.delete(Request::Everything).await.unwrap();
    assert_eq!(world.keys(), ["elsewhere", "wale.json"]);
    assert_eq!(report.objects, shown.objects);
    assert!(world.delete(Request::Everything).await.unwrap().is_idle());
}

#[tokio::test]
async fn defect_24_old_versions_takes_what_is_older_than_005() {
    let world = three();
    let before = world.keys();
    let report = old_versions(&world.archive, Act::Delete, &mut |_| {})
        .await
        .unwrap();
    assert!(report.is_idle());
    for key in ["wal_004/x.lzo", "basebackups_003/base_1/y", "wal_006/z"] {
        world.put(key, "x");
    }
    let report = old_versions(&world.archive, Act::Show, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(report.objects, 2);
    old_versions(&world.archive, Act::Delete, &mut |_| {})
        .await
        .unwrap();
    let mut expected = before;
    expected.push("wal_006/z".to_owned());
    expected.sort();
    assert_eq!(world.keys(), expected);
}

#[tokio::test]
async fn defect_27_an_archive_without_backups_is_left_alone() {
    let mut world = World::new();
    world.wal(5);
    let before = world.snapshot();
    for request in [
        Request::Retain(1),
        Request::Policy(Policy::newest(1)),
        Request::Before(Bound::Segment(world.segment(0, 4))),
    ] {
        assert!(world.delete(request).await.unwrap().is_idle());
    }
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn without_a_policy_the_store_is_not_even_asked() {
    let world = three();
    let calls = world.faulty.calls(Verb::Any);
    let policy = Request::Policy(Policy::default());
    assert!(world.delete(policy).await.unwrap().is_idle());
    assert_eq!(world.faulty.calls(Verb::Any), calls);
}

#[tokio::test]
async fn a_mark_spares_a_backup_until_it_is_taken_away() {
    // One of WAL-E's, without metadata.json, and one of ours.
    for recorded in [false, true] {
        let mut world = World::new();
        let name = world.backup(0, recorded);
        world.backup(0, true);
        let selector = BackupSelector::Name(name.clone());
        let marked = backup_mark::run(&world.archive, &selector, Mark::Permanent).await;
        assert_eq!(marked.unwrap(), name);
        let report = world.delete(Request::Retain(1)).await.unwrap();
        assert!(world.has(&layout::sentinel(&name)), "{report:?}");
        backup_mark::run(&world.archive, &selector, Mark::Impermanent)
            .await
            .unwrap();
        let report = world.delete(Request::Retain(1)).await.unwrap();
        assert_eq!((report.deleted, report.kept.len()), (vec![name], 1));
        let error = backup_mark::run(&world.archive, &selector, Mark::Permanent)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }
    let world = three();
    let latest = backup_mark::run(&world.archive, &BackupSelector::Latest, Mark::Permanent).await;
    assert_eq!(latest.unwrap(), world.backups[2].name);
    let error = world.delete(Request::Everything).await.unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveConflict);
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_counts() {
    let world = three();
    let first = &world.backups[0].name;
    for text in ["{", r#"{"is_permanent":"yes"}"#] {
        world.put(&layout::metadata(first), text);
        let report = world.delete(Request::Retain(1)).await.unwrap();
        assert_eq!(report.kept[0].0, *first, "{text}");
    }
    world.put(&layout::metadata(first), "{}");
    world.delete(Request::Retain(1)).await.unwrap();
    assert!(!world.has(&layout::sentinel(first)));
}

/// The archive of WAL-E's in which a cluster was upgraded: its log began anew, on the timeline that it had begun on.
#[tokio::test]
async fn fault_42_after_an_upgrade_on_one_prefix_nothing_new_is_deleted() {
    let mut world = World::new();
    world.branches[0].next = 100;
    for _ in 0..3 {
        world.wal(2);
        world.backup(1, false);
    }
    world.wal(2);
    world.branches[0].next = 1;
    world.wal(3);
    let before = world.keys();
    // The new cluster has no backup yet: the one that will be taken may need any of its WAL.
    world.delete(Request::Retain(1)).await.unwrap();
    for number in 1..=3 {
        assert!(
            world.has(&World::wal_key(world.segment(0, number))),
            "{number}"
        );
    }
    assert!(world.keys().len() < before.len());
    let new: Vec<_> = (0..2)
        .map(|_| {
            world.wal(2);
            world.backup(1, false)
        })
        .collect();
    world.wal(2);
    let end = world.branches[0].next;
    for request in [
        Request::Before(Bound::Segment(world.segment(0, 110))),
        Request::Retain(2),
        Request::Policy(Policy::newest(2)),
    ] {
        world.delete(request.clone()).await.unwrap();
        for name in &new {
            assert!(world.has(&layout::sentinel(name)), "{request:?}: {name}");
        }
        let first = world.backups[3].start;
        for number in first..end {
            let key = World::wal_key(world.segment(0, number));
            assert!(world.has(&key), "{request:?}: {key}");
        }
    }
    let old = world.backups[..3].iter();
    assert_eq!(
        old.filter(|backup| world.has(&layout::sentinel(&backup.name)))
            .count(),
        0
    );
}

#[tokio::test]
async fn fault_29_a_stale_listing_deletes_nothing() {
    let world = three();
    let before = world.snapshot();
    let hidden = layout::sentinel(&world.backups[1].name);
    world.faulty.set_plan(FaultPlan::new().fail(
        Verb::List,
        Occurrence::Always,
        Fault::OmitFromList(hidden.clone()),
    ));
    let error = world.delete(Request::Retain(2)).await.unwrap_err();
    assert_eq!(error.kind, Kind::StorageUnavailable);
    assert!(error.message.contains(&hidden), "{}", error.message);
    assert_eq!(world.snapshot(), before);
}

/// A backup without a partition, or without its WAL, is not counted: what is whole stays for it.
#[tokio::test]
async fn fault_94_a_backup_that_lacks_something_is_no_reason_to_delete_a_whole_one() {
    for lost in ["partition", "segment"] {
        let world = three();
        let newest = &world.backups[2];
        let key = match lost {
            "partition" => layout::partition(&newest.name, 1, wale_format::Codec::None),
            _ => World::wal_key(world.segment(0, newest.stop)),
        };
        // The world's sentinels are WAL-G's, which counts its partitions in a list.
        let list = r#"{"TarFileSets": {"part_00000000.tar": [], "part_00000001.tar": []}}"#;
        world.put(&layout::files_metadata(&newest.name), list);
        let control = format!("{}pg_control.tar", layout::partitions_prefix(&newest.name));
        world.put(&control, "tar");
        world.remove(&key);
        for act in [Act::Show, Act::Delete] {
            let (report, _) = world.run(Request::Retain(1), act).await.unwrap();
            assert_eq!(report.deleted, [world.backups[0].name.clone()], "{lost}");
            assert!(
                report
                    .warnings
                    .iter()
                    .any(|warning| warning.contains(newest.name.as_str())),
                "{lost}: {:?}",
                report.warnings
            );
        }
        // Nor may it be all that is left, by whatever way.
        let named = world.backups[1].name.clone();
        for request in [
            Request::Target(named),
            Request::Before(Bound::Backup(newest.name.clone())),
        ] {
            let error = world.delete(request).await.unwrap_err();
            assert_eq!(error.kind, Kind::ArchiveConflict, "{lost}");
        }
        let selector = BackupSelector::Latest;
        let catalog = world.archive.catalog().await.unwrap();
        let chosen = world.archive.choose(&catalog, &selector).await.unwrap();
        assert_eq!(chosen.entry.name, world.backups[1].name, "{lost}");
        assert!(
            chosen.passed_over[0].contains(newest.name.as_str()),
            "{:?}",
            chosen.passed_over
        );
    }
}

/// What only another tool restores is counted by itself.
#[tokio::test]
async fn fault_116_retention_never_deletes_for_what_this_version_cannot_read() {
    for how in ["key", "name"] {
        let mut world = three();
        let name = world.backup(0, true);
        let part = layout::partition(&name, 0, wale_format::Codec::None);
        match how {
            "key" => {
                let noise: Vec<u8> = (1..=600_u32)
                    .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect();
                world.put(&part, noise);
                world.remove(&layout::partition(&name, 1, wale_format::Codec::None));
            }
            _ => world.put(
                &format!("{}copy_0.tar.7z", layout::partitions_prefix(&name)),
                "tar",
            ),
        }
        let report = world.delete(Request::Retain(1)).await.unwrap();
        let kept: Vec<_> = report.kept.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(kept, [world.backups[2].name.clone(), name.clone()], "{how}");
        assert!(
            report.notes[0].contains(name.as_str()),
            "{:?}",
            report.notes
        );
        let error = world
            .delete(Request::Before(Bound::Backup(name)))
            .await
            .unwrap_err();
        assert!(
            error.message.contains("last backup"),
            "{how}: {}",
            error.message
        );
    }
}

#[tokio::test]
async fn everything_counts_its_wal() {
    let world = three();
    let wal = world
        .keys()
        .iter()
        .filter(|key| key.starts_with("wal_005/"))
        .count();
    let (shown, _) = world.run(Request::Everything, Act::Show).await.unwrap();
    assert_eq!(shown.wal_objects, wal as u64);
    let report = world.delete(Request::Everything).await.unwrap();
    assert_eq!(report.wal_objects, wal as u64);
}
