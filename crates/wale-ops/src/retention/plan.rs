//! Which base backups stay, and why. Pure.
//!
//! Backups are ordered by the time at which they ended. Where that time is recorded, the record counts. WAL-E records
//! none: then the store's time stands in, which a copy of the archive changes. The two kinds of time are only compared
//! while they do not contradict each other (see [`by_time`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_archive::lineage::is_before;
use wale_format::BackupName;
use wale_pg::{Lsn, TimelineId, WalSegmentName, WalSegmentSize};

use super::branches::{self, CountsAs};
use super::facts::{BackupFacts, BackupPlace, Branch};
use super::policy::{Policy, Reason};
use super::time_of_day::{SUSPECT, TimeOfDay, check_clock};
use super::wal::WalNeed;
use crate::error::{Kind, OpError, Result};

/// A backup without a sentinel: being written, or left by a writer that died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub name: BackupName,
    /// When the newest of its objects was stored.
    pub touched: DateTime<Utc>,
}

/// What is to be deleted.
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
pub struct BackupVerdict {
    /// The backup.
    pub backup: BackupFacts,
    /// Why it stays; empty when it goes.
    pub stays: Vec<String>,
    /// Whether every moment since the backup is to stay recoverable.
    pub onward: bool,
}

impl BackupVerdict {
    /// Whether the backup goes.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }

    /// The WAL that it needs: once for each place where it may begin.
    #[must_use]
    pub fn needs(&self) -> Vec<WalNeed> {
        let need = |start| WalNeed {
            start,
            // Where it is not known which WAL makes it consistent, all of it may be needed for that.
            last: self.backup.last.filter(|_| !self.onward),
            size: self.backup.size,
            committed: Some(self.backup.committed),
            is_apart: self.backup.branch != Branch::Present,
        };
        if self.backup.place == BackupPlace::Named {
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

/// Decides about every backup; `backups` come oldest first, and so do the decisions. A backup that was requested over
/// HTTP within `request_interval` after the one before it does not count for a policy. For a typed number every backup
/// counts.
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
    request_interval: Duration,
) -> Result<Vec<BackupVerdict>> {
    let now = time.now;
    if matches!(request, Request::Policy(_) | Request::Retain(_)) {
        check_clock(backups, now)?;
    }
    let mut kept = match request {
        Request::Policy(policy) if !policy.is_set() => all(backups, "no rule is set"),
        Request::Policy(policy) if policy.days.is_some() && time.is_suspect() => {
            all(backups, SUSPECT)
        }
        Request::Policy(policy) => by_policy(policy, backups, now, request_interval),
        Request::Retain(0) => return Err(retain_nothing()),
        // A person typed this: every backup counts. The interval is against strangers at the port.
        Request::Retain(count) => by_policy(&Policy::newest(*count), backups, now, Duration::ZERO),
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
        BackupVerdict {
            backup: backup.clone(),
            onward: reasons.iter().any(|reason| reason.onward),
            stays: reasons.into_iter().map(|reason| reason.words).collect(),
        }
    };
    Ok(backups.iter().enumerate().map(decision).collect())
}

/// Reasons to keep, by position of the backup.
type KeptBackups = BTreeMap<usize, Vec<Reason>>;

fn unite(kept: &mut KeptBackups, more: KeptBackups) {
    for (index, reasons) in more {
        kept.entry(index).or_default().extend(reasons);
    }
}

fn all(backups: &[BackupFacts], words: &str) -> KeptBackups {
    let reasons = |index| (index, vec![Reason::onward(words)]);
    (0..backups.len()).map(reasons).collect()
}

/// The policy's choice, for each group by itself. A backup that cannot be used stays: it is not known what it is.
fn by_policy(
    policy: &Policy,
    backups: &[BackupFacts],
    now: DateTime<Utc>,
    request_interval: Duration,
) -> KeptBackups {
    let mut kept = KeptBackups::new();
    for (words, group) in branches::groups(backups) {
        for class in by_time(backups, &group) {
            let facts: Vec<&BackupFacts> = class.iter().map(|&index| &backups[index]).collect();
            for (place, mut reasons) in of_class(policy, &facts, now, request_interval) {
                for reason in &mut reasons {
                    reason.words.insert_str(0, &words);
                }
                kept.entry(class[place]).or_default().extend(reasons);
            }
        }
    }
    for (index, backup) in backups.iter().enumerate() {
        if let Some(damage) = &backup.damaged {
            let words = format!(
                "it cannot be used and is not counted ({damage}); `wale delete target` deletes it if it is of no use"
            );
            kept.entry(index).or_default().push(Reason::onward(words));
        }
    }
    kept
}

/// The policy's choice among backups that are counted together, by their positions; they come oldest first.
fn of_class(
    policy: &Policy,
    backups: &[&BackupFacts],
    now: DateTime<Utc>,
    request_interval: Duration,
) -> KeptBackups {
    let counted = branches::counted(backups, request_interval);
    let full: Vec<usize> = (0..backups.len())
        .filter(|&place| counted[place] == CountsAs::Fully)
        .collect();
    let facts: Vec<&BackupFacts> = full.iter().map(|&place| backups[place]).collect();
    let chosen = policy.keeps(&facts, now).into_iter();
    let mut kept: KeptBackups = chosen
        .map(|(place, reasons)| (full[place], reasons))
        .collect();
    let newest = [full.last().copied(), backups.len().checked_sub(1)];
    for place in newest.into_iter().flatten().collect::<BTreeSet<usize>>() {
        let words = Reason::onward("the newest backup");
        kept.entry(place).or_default().push(words);
    }
    for (place, how) in counted.iter().enumerate() {
        if let CountsAs::With(before) = how
            && kept.contains_key(before)
        {
            let words = format!(
                "requested over HTTP, and too soon after {} to be counted",
                backups[*before].name
            );
            kept.entry(place).or_default().push(Reason::onward(words));
        }
    }
    kept
}

/// These backups, oldest first, in classes whose times can be compared. Normally that is one class. A backup may
/// have no recorded time, and a sentinel younger than a recorded backup. In an archive that was copied it may be
/// older all the same. Then the rules hold for each kind by itself, and more is kept.
fn by_time(backups: &[BackupFacts], group: &[usize]) -> Vec<Vec<usize>> {
    let of_kind = |recorded| {
        let mut class: Vec<usize> = group
            .iter()
            .copied()
            .filter(|&index| backups[index].recorded == recorded)
            .collect();
        class.sort_by_key(|&index| (backups[index].time, &backups[index].name));
        class
    };
    let (mut unrecorded, recorded) = (of_kind(false), of_kind(true));
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
fn not_target(target: &BackupName, backups: &[BackupFacts]) -> KeptBackups {
    let mut kept = all(backups, "not the one that was named");
    kept.retain(|&index, _| backups[index].name != *target);
    kept
}

/// A user who names a backup learns why it stays.
fn check_target(target: &BackupName, backups: &[BackupFacts], kept: &KeptBackups) -> Result<()> {
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
fn not_before(bound: &Bound, backups: &[BackupFacts]) -> KeptBackups {
    let horizon = bound.segment();
    let named = match bound {
        Bound::Backup(name) => backups.iter().find(|backup| backup.name == *name),
        Bound::Segment(_) => None,
    };
    // A wrong position decides nothing. The time alone decides, where there is one to compare with.
    let is_unplaced = |backup: &BackupFacts| backup.place == BackupPlace::Unknown;
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
    let mut kept = KeptBackups::new();
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

/// Refuses to take the last backup that can be restored, and the last one of these that leads to the newest timeline.
fn spare_last(backups: &[BackupFacts], kept: &KeptBackups) -> Result<()> {
    // A backup that only its own tool restores is worth as much where there is nothing else.
    let sound = |index: &usize| backups[*index].damaged.is_none();
    let good = |index: &usize| backups[*index].is_good();
    let present = |index: &usize| good(index) && backups[*index].branch == Branch::Present;
    let loses = |is_one: &dyn Fn(&usize) -> bool| {
        (0..backups.len()).any(|index| is_one(&index)) && !kept.keys().any(is_one)
    };
    let error = |message: &str, detail: String, hint: &str| {
        Err(OpError::new(Kind::ArchiveConflict, message)
            .detail(detail)
            .hint(hint))
    };
    let all = backups.len();
    if loses(&sound) || loses(&good) {
        return error(
            "this would delete the last backup that can be restored",
            format!("Of {all} backups, only those would remain that cannot be restored."),
            "take a new base backup first, or name an earlier bound; `delete everything` empties the archive",
        );
    }
    if loses(&present) {
        return error(
            "this would delete the last backup that leads to the newest timeline",
            format!("Of {all} backups, only those on abandoned branches would remain."),
            "take a new base backup of the server on the newest timeline first, or name an earlier bound. If that \
             timeline is a copy's, docs/guide/point-in-time.md, \"Beside production\", describes how production \
             becomes the newest again",
        );
    }
    Ok(())
}

fn keep_marked(backups: &[BackupFacts], request: &Request, kept: &mut KeptBackups) {
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
fn keep_parents(backups: &[BackupFacts], kept: &mut KeptBackups) {
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
