//! Restore, fetch, the proof of absence, the alarm and deletion give one answer about one archive.
//!
//! Random lives of a cluster, with what was lost of the archive afterwards. For each backup and each timeline, the world
//! says what a server would read; then every operation is asked, and each must fit the world and the others:
//!
//! * Where restore warns of nothing, fetch finds every segment on the way, and the proof of absence holds at its end.
//! * Where restore names a segment, the world has written it, and its absence is never proven.
//! * Absence is never proven for a segment behind which the archive has more of a way.
//! * The alarm names the gap of the newest backup's way and the lost history that restore names, and none where restore
//!   names none.
//! * A deletion leaves every backup that stays all that it could reach before.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use wale_archive::BackupSelector;
use wale_format::BackupName;
use wale_pg::{ArchiveFileName, WalSegmentName};

use self::world::{Event, Loss, Made, World, event, loss};
use super::aim::{self, Aim};
use super::lost;
use super::options::WalSource;
use super::source::Source;
use super::way;
use crate::error::Kind;
use crate::recoverable;
use crate::retention::{self, Act, Bound, Policy, Request, WalRetention};
use crate::wal_fetch::{fetch, prove_absent};

/// What restore says of a backup and a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It refuses the timeline.
    Refused,
    /// The backup itself cannot become consistent; the sentence.
    Broken(String),
    /// It would go there; the timeline that is followed, and the sentence about WAL that is missing.
    Goes(u32, Option<String>),
}

impl Answer {
    fn sentence(&self) -> Option<&str> {
        match self {
            Self::Refused => None,
            Self::Broken(text) => Some(text),
            Self::Goes(_, text) => text.as_deref(),
        }
    }
}

/// Which timeline is named.
const LATEST: &str = "latest";

async fn restore(world: &World, backup: &BackupName, timeline: &str) -> Result<Answer, String> {
    let failed = |error: crate::OpError| error.chain();
    let selector = BackupSelector::Name(backup.clone());
    let catalog = world.archive.catalog().await.map_err(failed)?;
    let chosen = aim::choose(&world.archive, &catalog, &selector, &Aim::of("")).await;
    let (chosen, _) = chosen.map_err(failed)?;
    let loaded = Source::load(&world.archive, &chosen.entry).await;
    let source = loaded.map_err(failed)?;
    let lines = [("recovery_target_timeline".to_owned(), timeline.to_owned())];
    let judged = match way::judge(&world.archive, &source, &lines).await {
        Ok(Some(judged)) => judged,
        Ok(None) => return Err("nothing is known of a backup".to_owned()),
        Err(error) if error.kind == Kind::ArchiveMismatch => return Ok(Answer::Refused),
        Err(error) => return Err(failed(error)),
    };
    let from = WalSource::Archive;
    match way::look_for_wal(&world.archive, &source, &judged, from, None).await {
        Ok(mut looked) => Ok(Answer::Goes(
            judged.way.followed.get(),
            looked.warnings.pop(),
        )),
        Err(error) if error.kind == Kind::CorruptData => Ok(Answer::Broken(error.chain())),
        Err(error) => Err(failed(error)),
    }
}

async fn is_proven(world: &World, segment: WalSegmentName) -> Result<bool, String> {
    match prove_absent(&world.archive, &segment.into()).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind {
            // The last one of an archive without any WAL.
            Kind::CorruptData | Kind::ArchiveConflict | Kind::StorageUnavailable => Ok(false),
            _ => Err(error.chain()),
        },
    }
}

/// The histories of the timelines after the backup's are all there, up to the last one.
fn knows_all(world: &World, backup: &Made) -> bool {
    let has = |line: &world::Line| world.has(ArchiveFileName::TimelineHistory(line.id));
    world.lines[backup.line + 1..].iter().all(has)
}

/// What every operation must say of a backup and a timeline.
async fn check_way(world: &World, backup: &Made, line: usize) -> Result<(), String> {
    let (id, name) = (world.lines[line].id, &backup.name);
    let answer = restore(world, name, &id.to_string()).await?;
    let case = format!("{name} to timeline {id}: {answer:?}");
    let leads = backup.leads_to(&world.lines[line]);
    let is_known = line == backup.line || world.has(ArchiveFileName::TimelineHistory(id));
    if (answer == Answer::Refused) == (leads && is_known) {
        return Err(format!("{case}, but it leads there: {leads}"));
    }
    if answer == Answer::Refused {
        return Ok(());
    }
    let own = backup.own().find(|&segment| !world.has(segment));
    if let Some(lost) = own {
        return match answer {
            Answer::Broken(text) if text.contains(&lost.to_string()) => {
                refuses_absence(world, lost, &case).await
            }
            _ => Err(format!("{case}, but {lost} is missing before its end")),
        };
    }
    let way = world.way(backup, line);
    let end = way.iter().take_while(|segment| world.has(**segment));
    let (there, rest) = way.split_at(end.count());
    for &segment in there {
        let found = world.archive.has_readable(&segment.into()).await;
        if !found.is_ok_and(|found| found) {
            return Err(format!("{case}, but fetch does not find {segment}"));
        }
    }
    let next = world.lines[line].segment(backup.start + there.len() as u64);
    let goes_on = rest.iter().any(|segment| world.has(*segment));
    match answer.sentence() {
        Some(text) if !text.contains(&next.to_string()) => {
            Err(format!("{case}, but {next} is the first that is missing"))
        }
        // Where a history is lost, the timeline may have begun after the end of this one.
        Some(_) if !world.written.contains(&next) && knows_all(world, backup) => {
            Err(format!("{case}, but nobody ever wrote {next}"))
        }
        Some(_) => refuses_absence(world, next, &case).await,
        None if goes_on => Err(format!("{case}, but {next} is missing on the way")),
        None if is_proven(world, next).await? => Ok(()),
        None => Err(format!("{case}, but the absence of {next} is not proven")),
    }
}

async fn refuses_absence(world: &World, segment: WalSegmentName, case: &str) -> Result<(), String> {
    if is_proven(world, segment).await? {
        return Err(format!("{case}, but the absence of {segment} is proven"));
    }
    Ok(())
}

/// Nothing that is there is absent, and nothing behind which a way goes on.
async fn check_absence(world: &World, backup: &Made, line: usize) -> Result<(), String> {
    let id = world.lines[line].id;
    let is_known = line == backup.line || world.has(ArchiveFileName::TimelineHistory(id));
    if !is_known || !backup.leads_to(&world.lines[line]) {
        return Ok(());
    }
    let way = world.way(backup, line);
    let Some(last) = way.iter().rposition(|segment| world.has(*segment)) else {
        return Ok(());
    };
    let case = format!("{} to timeline {id}", backup.name);
    for &segment in &way[..=last] {
        refuses_absence(world, segment, &case).await?;
    }
    Ok(())
}

/// The alarm says what restore says of the same backup; it is about the newest that leads to the newest timeline.
async fn check_alarm(world: &World) -> Result<(), String> {
    let found = recoverable::run(&world.archive).await;
    let found = found.map_err(|error| error.chain())?;
    let Some(found) = found else {
        let any = world.backups.iter().any(|backup| world.is_listed(backup));
        return if any {
            Err("no alarm for any backup".to_owned())
        } else {
            Ok(())
        };
    };
    let answer = match restore(world, &found.backup, LATEST).await? {
        // Nothing that `latest` means grew out of it: its own timeline is all there is.
        Answer::Refused => restore(world, &found.backup, "current").await?,
        other => other,
    };
    let gap = found.gap.map(|gap| gap.from.to_string());
    let case = format!("{}: gap {gap:?}, {answer:?}", found.backup);
    match (answer.sentence(), gap) {
        (None, None) => {}
        (Some(text), Some(gap)) if text.contains(&gap) => {}
        _ => return Err(format!("{case}: alarm and restore differ")),
    }
    let told = lost::history(&world.archive, found.backup.segment().timeline()).await;
    let told = told.map_err(|error| error.chain())?;
    match (&told, &found.lost_history) {
        (None, None) => {}
        (Some(text), Some(lost)) if text.starts_with(&lost.name().to_string()) => {}
        (_, lost) => return Err(format!("{case}: {told:?}, but the alarm says {lost:?}")),
    }
    let newest = world.lines.len() - 1;
    let leads = |backup: &&Made| world.is_listed(backup) && backup.leads_to(&world.lines[newest]);
    let all_known = world.lines[1..]
        .iter()
        .all(|line| world.has(ArchiveFileName::TimelineHistory(line.id)));
    match world.backups.iter().rev().find(leads) {
        Some(newest) if all_known && newest.name != found.backup => {
            Err(format!("{case}: {} is the newest", newest.name))
        }
        _ => Ok(()),
    }
}

/// Where the history of the next timeline is lost, its WAL shows that what lies before it was written.
async fn check_next(world: &World) -> Result<(), String> {
    for line in &world.lines[1..] {
        let is_next = |segment: &WalSegmentName| segment.timeline().next() == Some(line.id);
        let way = || (1..line.next).map(|number| line.segment(number));
        let has_wal = way().any(|segment| segment.timeline() == line.id && world.has(segment));
        if !has_wal || world.has(ArchiveFileName::TimelineHistory(line.id)) {
            continue;
        }
        for lost in way().filter(is_next).filter(|&segment| !world.has(segment)) {
            refuses_absence(world, lost, &format!("the history of {} is lost", line.id)).await?;
        }
    }
    Ok(())
}

/// `latest` means the last timeline up to which every history is there.
async fn check_latest(world: &World, backup: &Made) -> Result<(), String> {
    let has = |line: &&world::Line| world.has(ArchiveFileName::TimelineHistory(line.id));
    let known = world.lines[backup.line + 1..]
        .iter()
        .take_while(has)
        .count();
    let line = &world.lines[backup.line + known];
    let answer = restore(world, &backup.name, LATEST).await?;
    let is_right = match &answer {
        Answer::Refused => !backup.leads_to(line),
        Answer::Goes(followed, _) => backup.leads_to(line) && *followed == line.id.get(),
        Answer::Broken(_) => backup.leads_to(line),
    };
    let why = || {
        format!(
            "{}: {answer:?}, but latest is timeline {}",
            backup.name, line.id
        )
    };
    if is_right { Ok(()) } else { Err(why()) }
}

/// The absence of a history that is lost is never proven where its timeline has WAL, and restore speaks of it. After the
/// last timeline there is none.
async fn check_histories(world: &World) -> Result<(), String> {
    let listed = || {
        world
            .backups
            .iter()
            .filter(|backup| world.is_listed(backup))
    };
    let wal = || world.written.iter().filter(|&&segment| world.has(segment));
    for line in &world.lines[1..] {
        let history = ArchiveFileName::TimelineHistory(line.id);
        // By its own WAL, or by a later timeline that met its history.
        let met = |later: &world::Line| {
            later.id > line.id
                && later.parents.iter().any(|&parent| parent < line.id)
                && world.has(ArchiveFileName::TimelineHistory(later.id))
        };
        let is_seen =
            wal().any(|segment| segment.timeline() == line.id) || world.lines.iter().any(met);
        // Otherwise archiving may have begun on it.
        let earlier = wal().any(|segment| segment.timeline() < line.id);
        if is_seen && earlier && prove_absent(&world.archive, &history).await.is_ok() {
            return Err(format!("the absence of {history} is proven"));
        }
        let before = |backup: &&Made| world.lines[backup.line].id < line.id;
        for backup in listed()
            .filter(before)
            .filter(|_| is_seen && !world.has(history))
        {
            let told = lost::history(&world.archive, world.lines[backup.line].id).await;
            if told.map_err(|error| error.chain())?.is_none() {
                return Err(format!("{}: nobody speaks of {history}", backup.name));
            }
        }
    }
    let last = world.lines.last().and_then(|line| line.id.next());
    let after = ArchiveFileName::TimelineHistory(last.ok_or("too many timelines")?);
    match prove_absent(&world.archive, &after).await {
        Err(error) if error.kind != Kind::StorageUnavailable || wal().next().is_some() => {
            Err(error.chain())
        }
        _ => Ok(()),
    }
}

async fn check(world: &World) -> Result<(), String> {
    for backup in world
        .backups
        .iter()
        .filter(|backup| world.is_listed(backup))
    {
        for line in 0..world.lines.len() {
            check_way(world, backup, line).await?;
            check_absence(world, backup, line).await?;
        }
        check_latest(world, backup).await?;
        let told = lost::history(&world.archive, world.lines[backup.line].id).await;
        let told = told.map_err(|error| error.chain())?;
        if knows_all(world, backup) && told.is_some() {
            return Err(format!("{}: {told:?}, but none is lost", backup.name));
        }
    }
    check_next(world).await?;
    check_histories(world).await?;
    check_alarm(world).await
}

/// What one backup could reach.
#[derive(Debug)]
struct Reach {
    backup: usize,
    line: Option<usize>,
    answer: Answer,
}

async fn reaches(world: &World) -> Result<Vec<Reach>, String> {
    let mut found = Vec::new();
    for (backup, made) in world.backups.iter().enumerate() {
        if !world.is_listed(made) {
            continue;
        }
        let named = (0..world.lines.len()).map(Some);
        for line in named.chain([None]) {
            let to = line.map_or(LATEST.to_owned(), |line| world.lines[line].id.to_string());
            found.push(Reach {
                backup,
                line,
                answer: restore(world, &made.name, &to).await?,
            });
        }
    }
    Ok(found)
}

/// What a sentence says is missing, without what shows it.
fn missing(sentence: &str) -> &str {
    sentence.split(" is missing").next().unwrap_or(sentence)
}

/// A backup that is still there reaches what it reached; `onward` where it stays for every moment since.
async fn check_reach(world: &World, before: &[Reach], onward: bool) -> Result<(), String> {
    for reach in before {
        let backup = &world.backups[reach.backup];
        if !world.is_listed(backup) {
            continue;
        }
        let to = reach
            .line
            .map_or(LATEST.to_owned(), |line| world.lines[line].id.to_string());
        let now = restore(world, &backup.name, &to).await?;
        let case = format!("{} to {to}: {:?}, now {now:?}", backup.name, reach.answer);
        let is_same = match (&reach.answer, &now) {
            (Answer::Goes(was, _), Answer::Goes(is, _)) if !onward => was == is,
            // What else showed that the end of the log was lost may have gone: there is nothing behind it.
            (Answer::Goes(was, Some(_)), Answer::Goes(is, None)) => was == is,
            // The witness may have gone, and another one takes its place; the segment stays the same.
            (Answer::Goes(was, Some(before)), Answer::Goes(is, Some(after))) => {
                was == is && missing(before) == missing(after)
            }
            (was, is) => was == is,
        };
        if !is_same {
            return Err(case);
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Wish {
    Target(usize),
    Retain(u32),
    BeforeBackup(usize),
    BeforeSegment(usize),
    Policy(Policy),
}

fn wish() -> impl Strategy<Value = Wish> {
    let count = || prop::option::of(1..3_u32);
    let policy =
        (count(), count(), count(), any::<bool>()).prop_map(|(backups, days, daily, all)| Policy {
            backups,
            days,
            daily,
            wal: if all {
                WalRetention::All
            } else {
                WalRetention::Consistent
            },
            ..Policy::default()
        });
    prop_oneof![
        (0..8_usize).prop_map(Wish::Target),
        (1..3_u32).prop_map(Wish::Retain),
        (0..8_usize).prop_map(Wish::BeforeBackup),
        (0..64_usize).prop_map(Wish::BeforeSegment),
        policy.prop_map(Wish::Policy),
    ]
}

fn request(wish: &Wish, world: &World) -> Option<Request> {
    let backup = |which: usize| {
        let index = which.checked_rem(world.backups.len())?;
        Some(world.backups[index].name.clone())
    };
    Some(match wish {
        Wish::Target(which) => Request::Target(backup(*which)?),
        Wish::Retain(count) => Request::Retain(*count),
        Wish::BeforeBackup(which) => Request::Before(Bound::Backup(backup(*which)?)),
        Wish::BeforeSegment(which) => {
            let index = which.checked_rem(world.written.len())?;
            let segment = world.written.iter().nth(index)?;
            Request::Before(Bound::Segment(*segment))
        }
        Wish::Policy(policy) => Request::Policy(policy.clone()),
    })
}

/// The segments that are there of every way out of a backup.
fn present(world: &World, backup: &Made) -> BTreeSet<WalSegmentName> {
    let lines = (0..world.lines.len()).filter(|&line| backup.leads_to(&world.lines[line]));
    let ways = lines.flat_map(|line| world.way(backup, line));
    ways.chain(backup.own())
        .filter(|&segment| world.has(segment))
        .collect()
}

async fn delete(world: &World, request: Request) -> Result<(), String> {
    let options = retention::Options {
        request,
        act: Act::Delete,
        grace: Duration::from_hours(24),
        request_interval: retention::DEFAULT_REQUEST_INTERVAL,
    };
    match retention::run(&world.archive, &options, &mut |_| {}).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::ArchiveConflict => Ok(()),
        Err(error) => Err(error.chain()),
    }
}

async fn live_and_check(events: &[Event], losses: &[Loss], wish: &Wish) -> Result<(), String> {
    let world = World::live(events, losses).await;
    check(&world)
        .await
        .map_err(|wrong| format!("before: {wrong}"))?;
    let Some(request) = request(wish, &world) else {
        return Ok(());
    };
    let onward = !matches!(wish, Wish::Policy(policy) if policy.wal == WalRetention::Consistent);
    let before = reaches(&world).await?;
    let needed: Vec<_> = world
        .backups
        .iter()
        .map(|made| present(&world, made))
        .collect();
    delete(&world, request).await?;
    for (made, needed) in world.backups.iter().zip(needed) {
        let mut gone = needed.into_iter().filter(|&segment| !world.has(segment));
        if onward
            && world.is_listed(made)
            && let Some(gone) = gone.next()
        {
            return Err(format!("{} lost {gone}", made.name));
        }
    }
    check_reach(&world, &before, onward).await?;
    if onward {
        check(&world)
            .await
            .map_err(|wrong| format!("after: {wrong}"))?;
    }
    // One whole fetch: the names alone were looked at.
    if let Some(segment) = world.written.iter().find(|&&segment| world.has(segment)) {
        let fetched = fetch(&world.archive, &(*segment).into()).await;
        fetched.map_err(|error| error.chain())?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn restore_fetch_absence_alarm_and_deletion_give_one_answer(
        events in prop::collection::vec(event(), 1..18),
        losses in prop::collection::vec(loss(), 0..3),
        wish in wish(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = runtime.expect("a runtime").block_on(live_and_check(&events, &losses, &wish));
        prop_assert_eq!(found, Ok(()));
    }
}
