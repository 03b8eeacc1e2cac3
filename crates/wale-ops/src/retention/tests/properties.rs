//! A plan never deletes what a kept backup needs: random clusters, random requests, random interruptions, judged by
//! an oracle that walks the timelines as a recovering server does and knows nothing of the plan.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::TimeDelta;
use proptest::prelude::*;
use wale_format::{Codec, layout};
use wale_pg::{ArchiveFileName, WalSegmentName};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::super::plan::{Bound, Request};
use super::super::policy::{Policy, WalRetention};
use super::world::{Made, SIZE, World};
use crate::error::Kind;

/// What happens in the life of a cluster.
#[derive(Clone, Debug)]
enum Event {
    Wal(u64),
    Backup { segments: u64, recorded: bool },
    Promote { back: u64 },
    Switch(usize),
    Days(i64),
    Abandoned,
    Mark(usize),
    Delta(usize),
    Damage { which: usize, is_json: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4_u64).prop_map(Event::Wal),
        4 => (0..3_u64, prop::bool::weighted(0.8))
            .prop_map(|(segments, recorded)| Event::Backup { segments, recorded }),
        2 => (0..3_u64).prop_map(|back| Event::Promote { back }),
        1 => (0..8_usize).prop_map(Event::Switch),
        1 => (1..3_i64).prop_map(Event::Days),
        1 => Just(Event::Abandoned),
        1 => (0..8_usize).prop_map(Event::Mark),
        1 => (0..8_usize).prop_map(Event::Delta),
        1 => (0..8_usize, any::<bool>()).prop_map(|(which, is_json)| Event::Damage { which, is_json }),
    ]
}

/// What is asked for; places in the world are chosen by number.
#[derive(Clone, Debug)]
enum Wish {
    Target(usize),
    Retain(u32),
    BeforeBackup(usize),
    BeforeSegment(u64),
    Policy(Policy),
}

fn policy() -> impl Strategy<Value = Policy> {
    let count = || prop::option::of(1..4_u32);
    (count(), count(), count(), count(), count(), any::<bool>()).prop_map(
        |(backups, days, daily, weekly, monthly, all)| Policy {
            backups,
            days,
            daily,
            weekly,
            monthly,
            wal: if all {
                WalRetention::All
            } else {
                WalRetention::Consistent
            },
            ..Policy::default()
        },
    )
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        (0..8_usize).prop_map(Wish::Target),
        (1..4_u32).prop_map(Wish::Retain),
        (0..8_usize).prop_map(Wish::BeforeBackup),
        (1..30_u64).prop_map(Wish::BeforeSegment),
        policy().prop_map(Wish::Policy),
    ]
}

/// What a copy of the archive does to the store's times: all objects are as old as each other, so that only names and
/// histories show what is needed.
fn copy(world: &World) {
    for (key, content) in world.snapshot() {
        world.put(&key, content);
    }
}

/// How the life of a cluster ends.
#[derive(Clone, Copy, Debug)]
struct End {
    copied: bool,
    /// A backup is being written, and another one was completed meanwhile.
    writing: bool,
}

fn live(events: &[Event], end: End) -> World {
    let mut world = World::new();
    for event in events {
        match *event {
            Event::Wal(count) => world.wal(count),
            Event::Backup { segments, recorded } => {
                world.backup(segments, recorded);
            }
            Event::Promote { back } => world.promote(back),
            Event::Switch(to) => world.current = to % world.branches.len(),
            Event::Days(days) => world.pass(TimeDelta::days(days)),
            Event::Abandoned => {
                world.abandoned();
            }
            Event::Mark(which) if !world.backups.is_empty() => {
                world.mark(which % world.backups.len());
            }
            Event::Delta(which) if !world.backups.is_empty() => {
                world.delta(which % world.backups.len());
            }
            Event::Damage { which, is_json } if !world.backups.is_empty() => {
                let text = if is_json { "{}" } else { "{" };
                world.damage(which % world.backups.len(), text);
            }
            Event::Mark(_) | Event::Delta(_) | Event::Damage { .. } => {}
        }
    }
    if end.copied {
        copy(&world);
    }
    // A person who asks by hand waits until nothing is being written.
    world.pass(TimeDelta::hours(25));
    if end.writing {
        world.abandoned();
        world.wal(2);
        world.backup(0, true);
    }
    world
}

fn request(wish: &Wish, world: &World) -> Request {
    match wish {
        Wish::Retain(count) => Request::Retain(*count),
        Wish::Policy(policy) => Request::Policy(policy.clone()),
        Wish::BeforeSegment(number) => {
            Request::Before(Bound::Segment(world.segment(world.current, *number)))
        }
        Wish::Target(which) => match world.backups.get(which % world.backups.len().max(1)) {
            Some(backup) => Request::Target(backup.name.clone()),
            None => Request::Retain(1),
        },
        Wish::BeforeBackup(which) => match world.backups.get(which % world.backups.len().max(1)) {
            Some(backup) => Request::Before(Bound::Backup(backup.name.clone())),
            None => Request::Retain(1),
        },
    }
}

/// The segments that a server reads when it recovers `backup` to the end of a timeline; `None` when the timeline does
/// not lead out of the backup.
fn way(world: &World, backup: &Made, to: usize) -> Option<Vec<WalSegmentName>> {
    let path = world.path(to);
    let own = path.iter().position(|&branch| branch == backup.branch)?;
    if let Some(&left_for) = path.get(own + 1) {
        let (_, fork) = world.branches[left_for].parent.expect("a child");
        if fork < backup.stop_lsn {
            return None;
        }
    }
    let owner = |number: u64| {
        let on_the_way = path[own..].iter().rev();
        on_the_way
            .copied()
            .find(|&branch| world.branches[branch].first <= number || branch == backup.branch)
            .expect("the backup's own at least")
    };
    let end = world.branches[to].next;
    Some(
        (backup.start..end)
            .map(|number| world.segment(owner(number), number))
            .collect(),
    )
}

/// Everything that must be so of one backup that is listed.
fn check_listed(
    world: &World,
    before: &BTreeMap<String, Bytes>,
    onward: bool,
    backup: &Made,
) -> Result<(), String> {
    let was_and_is = |key: &str| !before.contains_key(key) || world.has(key);
    if let Some(lost) = backup.keys.iter().find(|key| !world.has(key)) {
        return Err(format!("{} is listed and lost {lost}", backup.name));
    }
    for number in backup.start..=backup.stop {
        let key = World::wal_key(world.segment(backup.branch, number));
        if !was_and_is(&key) {
            return Err(format!("{} cannot become consistent: {key}", backup.name));
        }
    }
    for to in 0..world.branches.len() {
        let Some(way) = way(world, backup, to).filter(|_| onward) else {
            continue;
        };
        if let Some(lost) = way
            .into_iter()
            .map(World::wal_key)
            .find(|key| !was_and_is(key))
        {
            return Err(format!(
                "{} cannot be recovered to timeline {}: {lost}",
                backup.name, world.branches[to].id
            ));
        }
    }
    // The histories that the server asks for, upwards from the backup's timeline.
    for branch in world
        .branches
        .iter()
        .filter(|one| one.id >= world.branches[backup.branch].id)
    {
        let name = ArchiveFileName::TimelineHistory(branch.id);
        if !was_and_is(&layout::wal(&name, Codec::None)) {
            return Err(format!("{} lost {name}", backup.name));
        }
    }
    Ok(())
}

/// Everything that must be so of what is left of `before`.
fn check(world: &World, before: &BTreeMap<String, Bytes>, onward: bool) -> Result<(), String> {
    let was_and_is = |key: &str| !before.contains_key(key) || world.has(key);
    let listed: Vec<&Made> = world
        .backups
        .iter()
        .filter(|backup| world.has(&layout::sentinel(&backup.name)))
        .collect();
    for backup in &listed {
        check_listed(world, before, onward, backup)?;
    }
    for backup in world.backups.iter().filter(|backup| backup.marked) {
        if !world.has(&layout::sentinel(&backup.name)) {
            return Err(format!("{} is marked and gone", backup.name));
        }
    }
    let was_good =
        |backup: &&Made| !backup.damaged && before.contains_key(&layout::sentinel(&backup.name));
    if world.backups.iter().any(|backup| was_good(&backup))
        && !listed.iter().any(|backup| !backup.damaged)
    {
        return Err("no good backup is left".to_owned());
    }
    for backup in &listed {
        let parent = backup
            .parent
            .map(|index| layout::sentinel(&world.backups[index].name));
        if let Some(lost) = parent.filter(|parent| !was_and_is(parent)) {
            return Err(format!("{} lost {lost}, which it is based on", backup.name));
        }
    }
    for unfinished in &world.unfinished {
        for number in unfinished.start..world.branches[unfinished.branch].next {
            let key = World::wal_key(world.segment(unfinished.branch, number));
            if world.time - unfinished.time < TimeDelta::hours(24) && !was_and_is(&key) {
                return Err(format!("{key} is needed by a backup that is being written"));
            }
        }
    }
    if !world.has("wale.json") {
        return Err("the identity is gone".to_owned());
    }
    Ok(())
}

/// The newest good backup by time is there, whatever was asked for by count or rule.
fn newest_stays(world: &World) -> bool {
    let good = world.backups.iter().filter(|backup| !backup.damaged);
    let newest = good.max_by_key(|backup| backup.time);
    newest.is_none_or(|backup| world.has(&layout::sentinel(&backup.name)))
}

/// Whether a good backup is listed that a server recovers to the newest timeline.
fn leads_to_the_present(world: &World) -> bool {
    let good = world.backups.iter().filter(|backup| !backup.damaged);
    let mut listed = good.filter(|backup| world.has(&layout::sentinel(&backup.name)));
    listed.any(|backup| {
        // What a delta is based on leads wherever it does.
        backup.parent.is_none() && way(world, backup, world.branches.len() - 1).is_some()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_a_kept_backup_needs_is_never_deleted(
        events in prop::collection::vec(event(), 1..25),
        wish in wish(),
        killed_at in prop::option::of(1..60_u64),
        copied: bool,
        writing: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let world = live(&events, End { copied, writing });
        let before = world.snapshot();
        let had_one = leads_to_the_present(&world);
        let request = request(&wish, &world);
        let onward = !matches!(&request, Request::Policy(policy) if policy.wal == WalRetention::Consistent);
        if let Some(call) = killed_at {
            let plan = FaultPlan::new().fail(Verb::Any, Occurrence::From(call), Fault::Unavailable);
            world.faulty.set_plan(plan);
            // How it ends is of no matter; what it leaves is.
            let _ = runtime.block_on(world.delete(request.clone()));
            world.faulty.set_plan(FaultPlan::new());
            prop_assert_eq!(check(&world, &before, onward), Ok(()));
        }
        match runtime.block_on(world.delete(request.clone())) {
            Ok(_) => {}
            // A run that was killed may have been done except for the WAL.
            Err(error) if killed_at.is_some() && error.kind == Kind::NotFound => {}
            Err(error) if writing && error.kind == Kind::Busy => {}
            Err(error) => prop_assert_eq!(error.kind, Kind::ArchiveConflict, "{}", error.chain()),
        }
        prop_assert_eq!(check(&world, &before, onward), Ok(()));
        prop_assert!(!had_one || leads_to_the_present(&world), "no backup leads to the present");
        // What a finished run leaves is what the next one would leave, where times can be compared.
        let after = world.keys();
        let comparable = world.backups.iter().all(|backup| backup.recorded == world.backups[0].recorded);
        let by_time = comparable && !(copied && world.backups.iter().any(|backup| !backup.recorded));
        prop_assert!(!by_time || newest_stays(&world) || matches!(request, Request::Before(_) | Request::Target(_)));
        if runtime.block_on(world.delete(request)).is_ok() && comparable {
            prop_assert_eq!(world.keys(), after);
        }
        prop_assert!(world.keys().iter().all(|key| !key.ends_with("wale_deletion")));
    }
}

/// The oracle is not blind: it sees a segment that is missing on any timeline.
#[test]
fn the_oracle_sees_a_missing_segment() {
    let mut world = World::new();
    world.wal(2);
    world.backup(1, true);
    world.wal(3);
    world.promote(1);
    world.wal(3);
    let before = world.snapshot();
    assert_eq!(check(&world, &before, true), Ok(()));
    let last = world.branches[1].next - 1;
    assert!(last * SIZE.bytes() > world.backups[0].stop_lsn.as_u64());
    let key = World::wal_key(world.segment(1, last));
    runtime_delete(&world, &key);
    let seen = check(&world, &before, true).unwrap_err();
    assert!(seen.ends_with(&key), "{seen}");
}

fn runtime_delete(world: &World, key: &str) {
    use wale_storage::Store;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let key = wale_storage::ObjectKey::new(key).expect("a key");
    runtime
        .block_on(world.memory.delete(&key))
        .expect("deleted");
}
