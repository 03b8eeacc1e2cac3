//! Which base backups stay, and why. Pure.
//!
//! Backups are ordered by the time at which they ended. Where that is recorded, the record counts; WAL-E records none,
//! and then the store's time stands in, which a copy of the archive changes. The two kinds of time are only compared
//! while they do not contradict each other (see [`by_time`]).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use wale_format::BackupName;
use wale_pg::{Lsn, TimelineId, WalSegmentName, WalSegmentSize};

use super::policy::{Policy, Reason};
use super::time_of_day::{SUSPECT, TimeOfDay, check_clock};
use super::wal::{Need, is_before};
use crate::error::{Kind, OpError, Result};

/// What is known of a base backup that has a sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its name.
    pub name: BackupName,
    /// When it ended: as recorded, else when its sentinel was stored.
    pub time: DateTime<Utc>,
    /// Whether `time` is recorded in the backup.
    pub recorded: bool,
    /// When its sentinel was stored, by the store's clock.
    pub committed: DateTime<Utc>,
    /// Why it cannot be used: its sentinel cannot be read.
    pub damaged: Option<String>,
    /// Whether it is marked to stay.
    pub marked: bool,
    /// Whether a deletion of it was begun, and interrupted before anything went.
    pub deletion: bool,
    /// Where it begins.
    pub place: Place,
    /// The backup that this one only holds the changes to.
    pub parent: Option<String>,
    /// The last segment that makes it consistent, on the timeline of its start.
    pub last: Option<WalSegmentName>,
    /// The segment size of its cluster, where it is known.
    pub size: Option<WalSegmentSize>,
}

/// Where in the log a backup begins, and on which timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where its name says.
    Named,
    /// Nobody knows: WAL-E names its backup of a stopped server wrongly.
    Unknown,
}

impl BackupFacts {
    /// Whether it only holds the changes to another one.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.parent.is_some() || self.name.is_delta()
    }
}

/// A backup without a sentinel: being written, or left by a writer that died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub name: BackupName,
    /// When the newest of its objects was stored.
    pub touched: DateTime<Utc>,
}

/// What shall be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What the policy does not keep.
    Policy(Policy),
    /// All but so many of the newest backups, and the WAL that they do not need.
    Retain(u32),
    /// Backups and WAL before this bound.
    Before(Bound),
    /// This backup, and the WAL that no other one needs.
    Target(BackupName),
    /// Everything.
    Everything,
}

/// What [`Request::Before`] counts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A backup, which stays.
    Backup(BackupName),
    /// A segment, which stays.
    Segment(WalSegmentName),
}

impl Bound {
    /// The segment before which things go.
    #[must_use]
    pub fn segment(&self) -> WalSegmentName {
        match self {
            Self::Backup(name) => name.segment(),
            Self::Segment(segment) => *segment,
        }
    }
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub backup: BackupFacts,
    /// Why it stays; empty when it goes.
    pub stays: Vec<String>,
    /// Whether every moment since the backup shall stay recoverable.
    pub onward: bool,
}

impl Decision {
    /// Whether the backup goes.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }

    /// The WAL that it needs: once for each place where it may begin.
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        let need = |start| Need {
            start,
            // Where it is not known which WAL makes it consistent, all may be needed for that.
            last: self.backup.last.filter(|_| !self.onward),
            size: self.backup.size,
            committed: Some(self.backup.committed),
        };
        if self.backup.place == Place::Named {
            return vec![need(self.backup.name.segment())];
        }
        let named = self.backup.name.segment().timeline();
        [Some(named), in_decimal(named)]
            .into_iter()
            .flatten()
            .map(|timeline| {
                need(WalSegmentName::from_lsn(
                    timeline,
                    Lsn::new(0),
                    WalSegmentSize::DEFAULT,
                ))
            })
            .collect()
    }
}

/// The timeline whose decimal digits are those of a name, where they differ: WAL-E writes the timeline of a stopped
/// server in decimal.
fn in_decimal(named: TimelineId) -> Option<TimelineId> {
    let number = named.to_hex().parse().ok()?;
    TimelineId::new(number).filter(|&meant| meant != named)
}

/// Decides about every backup; `backups` come oldest first, and so do the decisions.
///
/// # Errors
///
/// [`Kind::Usage`] when nothing sensible is asked for, [`Kind::ArchiveConflict`] when it would take the last backup
/// that can be restored, or one by name that must stay, [`Kind::Busy`]
/// when the clock is behind the archive.
pub fn decide(
    request: &Request,
    backups: &[BackupFacts],
    unfinished: &[Unfinished],
    time: &TimeOfDay,
) -> Result<Vec<Decision>> {
    let now = time.now;
    if matches!(request, Request::Policy(_) | Request::Retain(_)) {
        check_clock(backups, now)?;
    }
    let mut kept = match request {
        Request::Policy(policy) if !policy.is_set() => all(backups, "no rule is set"),
        Request::Policy(policy) if policy.days.is_some() && time.is_suspect() => {
            all(backups, SUSPECT)
        }
        Request::Policy(policy) => by_policy(policy, backups, now),
        Request::Retain(0) => return Err(retain_nothing()),
        Request::Retain(count) => by_policy(&Policy::newest(*count), backups, now),
        Request::Before(bound) => not_before(bound, backups),
        Request::Target(name) => not_target(name, backups),
        Request::Everything => {
            check_marks(backups)?;
            BTreeMap::new()
        }
    };
    if !matches!(request, Request::Everything) {
        if let Some(delta) = unfinished.iter().find(|found| found.name.is_delta()) {
            let words = format!("{} is being written and may be based on it", delta.name);
            unite(&mut kept, all(backups, &words));
        }
        keep_marked(backups, request, &mut kept);
        keep_parents(backups, &mut kept);
        if let Request::Target(name) = request {
            check_target(name, backups, &kept)?;
        }
        spare_last(backups, &kept)?;
    }
    let decision = |(index, backup): (usize, &BackupFacts)| {
        let reasons = kept.remove(&index).unwrap_or_default();
        Decision {
            backup: backup.clone(),
            onward: reasons.iter().any(|reason| reason.onward),
            stays: reasons.into_iter().map(|reason| reason.words).collect(),
        }
    };
    Ok(backups.iter().enumerate().map(decision).collect())
}

/// Reasons to keep, by position of the backup.
type Kept = BTreeMap<usize, Vec<Reason>>;

fn unite(kept: &mut Kept, more: Kept) {
    for (index, reasons) in more {
        kept.entry(index).or_default().extend(reasons);
    }
}

fn all(backups: &[BackupFacts], words: &str) -> Kept {
    let reasons = |index| (index, vec![Reason::onward(words)]);
    (0..backups.len()).map(reasons).collect()
}

/// The policy's choice. A backup that cannot be read stays: it is not known what it is.
fn by_policy(policy: &Policy, backups: &[BackupFacts], now: DateTime<Utc>) -> Kept {
    let mut kept = Kept::new();
    for class in by_time(backups) {
        let facts: Vec<&BackupFacts> = class.iter().map(|&index| &backups[index]).collect();
        let chosen = policy.keeps(&facts, now).into_iter();
        unite(
            &mut kept,
            chosen
                .map(|(place, reasons)| (class[place], reasons))
                .collect(),
        );
        if let Some(&newest) = class.last() {
            let words = Reason::onward("the newest backup");
            kept.entry(newest).or_default().push(words);
        }
    }
    for (index, backup) in backups.iter().enumerate() {
        if backup.damaged.is_some() {
            let words =
                "its record cannot be read; `wale delete target` deletes it if it is of no use";
            kept.entry(index).or_default().push(Reason::onward(words));
        }
    }
    kept
}

/// The usable backups, oldest first, in classes whose times can be compared. Normally that is one class. A backup
/// without a recorded time whose sentinel is younger than a recorded backup may be older all the same, in an archive
/// that was copied; then the rules hold for each kind by itself, and more is kept.
fn by_time(backups: &[BackupFacts]) -> Vec<Vec<usize>> {
    let usable = |recorded| {
        let mut class: Vec<usize> = (0..backups.len())
            .filter(|&index| {
                backups[index].damaged.is_none() && backups[index].recorded == recorded
            })
            .collect();
        class.sort_by_key(|&index| (backups[index].time, &backups[index].name));
        class
    };
    let (mut unrecorded, recorded) = (usable(false), usable(true));
    match (unrecorded.last(), recorded.first()) {
        (Some(&last), Some(&first)) if backups[last].time >= backups[first].time => {
            vec![unrecorded, recorded]
        }
        _ => {
            unrecorded.extend(recorded);
            vec![unrecorded]
        }
    }
}

/// All but the one that was named.
fn not_target(target: &BackupName, backups: &[BackupFacts]) -> Kept {
    let mut kept = all(backups, "not the one that was named");
    kept.retain(|&index, _| backups[index].name != *target);
    kept
}

/// Whoever names a backup is told why it stays.
fn check_target(target: &BackupName, backups: &[BackupFacts], kept: &Kept) -> Result<()> {
    let mut reasons = kept
        .iter()
        .filter(|&(&index, _)| backups[index].name == *target)
        .flat_map(|(_, reasons)| reasons);
    let Some(reason) = reasons.next() else {
        return Ok(());
    };
    Err(OpError::new(
        Kind::ArchiveConflict,
        format!("backup {target} stays: {}", reason.words),
    )
    .hint("a mark is taken away with `wale backup-mark --impermanent`; what is based on a backup goes before it"))
}

/// What `delete before` spares: WAL-E's rule by number, and whatever is younger than the bound. The number alone is
/// not enough, because after `pg_upgrade` or `initdb` the log may begin anew.
fn not_before(bound: &Bound, backups: &[BackupFacts]) -> Kept {
    let horizon = bound.segment();
    let named = match bound {
        Bound::Backup(name) => backups.iter().find(|backup| backup.name == *name),
        Bound::Segment(_) => None,
    };
    // A wrong position decides nothing; the time alone does, where there is one to compare with.
    let is_unplaced = |backup: &BackupFacts| backup.place == Place::Unknown;
    let placeless = |backup: &BackupFacts| is_unplaced(backup) || named.is_some_and(is_unplaced);
    let offset = |name: &BackupName| name.offset().and_then(|text| text.parse::<u64>().ok());
    let by_number = |backup: &BackupFacts| {
        let start = backup.name.segment();
        let same = !is_before(start, horizon) && !is_before(horizon, start);
        match bound {
            // Within one segment the offset decides, where both have one.
            Bound::Backup(name) if same => {
                matches!((offset(&backup.name), offset(name)), (Some(one), Some(other)) if one < other)
            }
            _ => is_before(start, horizon),
        }
    };
    let time = named
        .or_else(|| {
            let placed = backups.iter().filter(|backup| !placeless(backup));
            let later = placed.filter(|backup| !by_number(backup));
            later.min_by_key(|backup| backup.time)
        })
        .map(|backup| backup.time);
    let mut kept = Kept::new();
    for (index, backup) in backups.iter().enumerate() {
        let before = if placeless(backup) {
            time.is_some_and(|time| backup.time < time)
        } else {
            by_number(backup)
        };
        if !before {
            kept.insert(index, vec![Reason::onward("not before the bound")]);
        } else if time.is_some_and(|time| backup.time > time) {
            let words = "younger than the bound, although its position is lower";
            kept.insert(index, vec![Reason::onward(words)]);
        }
    }
    kept
}

/// Refuses to take the last backup that can be restored.
fn spare_last(backups: &[BackupFacts], kept: &Kept) -> Result<()> {
    let good = |index: &usize| backups[*index].damaged.is_none();
    let any_good = (0..backups.len()).any(|index| good(&index));
    if !any_good || kept.keys().any(good) {
        return Ok(());
    }
    Err(OpError::new(
        Kind::ArchiveConflict,
        "this would delete the last backup that can be restored",
    )
    .detail(format!(
        "Of {} backups none would remain but those that cannot be read.",
        backups.len()
    ))
    .hint("take a new base backup first, or name an earlier bound; `delete everything` empties the archive"))
}

fn keep_marked(backups: &[BackupFacts], request: &Request, kept: &mut Kept) {
    let onward = match request {
        Request::Policy(policy) => policy.wal == super::WalRetention::All,
        _ => true,
    };
    for (index, backup) in backups.iter().enumerate() {
        if backup.marked {
            let words = "marked to be kept".to_owned();
            kept.entry(index)
                .or_default()
                .push(Reason { words, onward });
        }
    }
}

/// Keeps what kept delta backups of WAL-G's are based on, down to the full backup.
fn keep_parents(backups: &[BackupFacts], kept: &mut Kept) {
    let mut open: Vec<usize> = kept.keys().copied().collect();
    let mut seen: BTreeSet<usize> = open.iter().copied().collect();
    while let Some(index) = open.pop() {
        let child = &backups[index];
        // A delta whose record cannot be read, or names nothing that is there, may be based on any backup.
        let parents: Vec<usize> = match &child.parent {
            Some(parent) => match backups.iter().position(|one| one.name.as_str() == parent) {
                Some(found) => vec![found],
                None => (0..backups.len()).collect(),
            },
            None if child.name.is_delta() => (0..backups.len()).collect(),
            None => Vec::new(),
        };
        for parent in parents.into_iter().filter(|&parent| parent != index) {
            if seen.insert(parent) {
                let words = format!("{} is based on it", child.name);
                kept.entry(parent).or_default().push(Reason::onward(words));
                open.push(parent);
            }
        }
    }
}

fn check_marks(backups: &[BackupFacts]) -> Result<()> {
    let Some(marked) = backups.iter().find(|backup| backup.marked) else {
        return Ok(());
    };
    Err(OpError::new(
        Kind::ArchiveConflict,
        format!("backup {} is marked to be kept", marked.name),
    )
    .hint("take the mark away with `wale backup-mark --impermanent` first"))
}

fn retain_nothing() -> OpError {
    OpError::new(Kind::Usage, "retaining 0 backups would delete every one").hint(
        "give the number of backups to keep, 1 or more; `delete everything` empties the archive",
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, backup};
    use super::*;

    fn gone(decisions: &[Decision]) -> Vec<String> {
        let gone = decisions.iter().filter(|decision| decision.goes());
        gone.map(|decision| decision.backup.name.segment().to_string()[16..].to_owned())
            .collect()
    }

    /// Backups in segments 1, 2, 3 …, each an hour after the one before.
    fn hourly(count: u32) -> Vec<BackupFacts> {
        (1..=count).map(|number| backup(1, number)).collect()
    }

    fn decide_at(request: &Request, backups: &[BackupFacts]) -> Result<Vec<Decision>> {
        decide(
            request,
            backups,
            &[],
            &TimeOfDay::new(at("2026-02-01T00:00:00Z")),
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
            wal: super::super::WalRetention::Consistent,
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
        let decisions = decide(&Request::Retain(1), &hourly(3), &[writing], &now).unwrap();
        assert!(gone(&decisions).is_empty());
    }
}
