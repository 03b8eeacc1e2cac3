//! What an archive that follows another one wants of it, under a policy of its own.
//!
//! Both are looked at together, and the policy decides over all of their backups. So what is copied is what the archive's own
//! retention keeps when it has it, and the two never work against each other. A backup that does not record its time is dated
//! by its sentinel, and the copy's is a new one: such a backup is wanted only if the policy keeps it at its old date and at that of
//! the copy, and no later one of its kind was copied before it, than which it would seem newer. Otherwise it would be copied and
//! deleted by turns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wale_archive::Archive;
use wale_format::BackupName;

use super::facts::BackupFacts;
use super::inventory::Inventory;
use super::plan::{BackupVerdict, Request, decide};
use super::policy::Policy;
use super::wal::{Verdict, WalJudge, WalNeed};
use crate::error::Result;

/// What is wanted: no backup and all WAL, where nothing else is said.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Backups that only the other archive has, and that the policy keeps.
    pub backups: Vec<BackupName>,
    /// Backups that the archive has.
    pub there: Vec<BackupName>,
    /// The judge of WAL; without one all of it is wanted.
    pub wal: Option<WalJudge>,
}

/// What `copy` wants of `source` under its policy. Without a rule that is everything.
///
/// # Errors
/// As [`run`](super::run()): a clock that is behind the archive decides nothing.
pub async fn wanted(
    source: &Archive,
    copy: &Archive,
    policy: &Policy,
    grace: Duration,
    request_interval: Duration,
) -> Result<Wanted> {
    if !policy.is_set() {
        let (all, there) = (source.catalog().await?, copy.catalog().await?);
        let names = |catalog: wale_archive::Catalog| -> BTreeSet<BackupName> {
            catalog
                .backups
                .into_iter()
                .map(|entry| entry.name)
                .collect()
        };
        let (all, there) = (names(all), names(there));
        return Ok(Wanted {
            backups: all.difference(&there).cloned().collect(),
            there: there.into_iter().collect(),
            wal: None,
        });
    }
    let now = source.clock().now();
    let stock = Inventory::take(source, now).await?;
    let own = Inventory::take(copy, now).await?;
    let grace = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    let writing = stock.being_written(grace);
    let there: BTreeSet<BackupName> = own.backups.iter().map(|one| one.name.clone()).collect();
    let in_source: BTreeSet<BackupName> =
        stock.backups.iter().map(|one| one.name.clone()).collect();
    let backups = union(own.backups.clone(), stock.backups);
    let request = Request::Policy(policy.clone());
    let is_new = |name: &BackupName| in_source.contains(name) && !there.contains(name);
    let by_old_dates = decide(&request, &backups, &[], &stock.time, request_interval)?;
    let undated = own.backups.iter().filter(|facts| !facts.recorded);
    let last_undated = undated.map(|facts| facts.name.clone()).max();
    let in_turn = |facts: &BackupFacts| facts.recorded || Some(&facts.name) > last_undated.as_ref();
    let new = by_old_dates.iter().filter(|verdict| {
        let facts = &verdict.backup;
        !verdict.goes() && is_new(&facts.name) && in_turn(facts)
    });
    let copies = new.map(|verdict| as_copied(&verdict.backup, now));
    let afterwards = in_order(own.backups.into_iter().chain(copies).collect());
    let verdicts = decide(&request, &afterwards, &[], &stock.time, request_interval)?;
    let kept = || verdicts.iter().filter(|verdict| !verdict.goes());
    let wanted = kept().map(|verdict| verdict.backup.name.clone());
    let wanted = wanted.filter(is_new).collect();
    let mut needs: Vec<WalNeed> = kept().flat_map(BackupVerdict::needs).collect();
    needs.extend(writing.iter().map(|one| WalNeed {
        start: one.name.segment(),
        last: None,
        size: None,
        committed: None,
        is_apart: false,
    }));
    Ok(Wanted {
        backups: wanted,
        there: there.into_iter().collect(),
        wal: Some(WalJudge::new(needs, stock.lineage.into_histories())),
    })
}

/// The backup with the dates that its copy will have.
fn as_copied(facts: &BackupFacts, now: DateTime<Utc>) -> BackupFacts {
    let mut copy = facts.clone();
    copy.committed = now;
    if !facts.recorded {
        copy.time = now;
        copy.began = now;
    }
    copy
}

/// The backups of both, oldest first. What the source says of one counts: it was there first.
fn union(copy: Vec<BackupFacts>, source: Vec<BackupFacts>) -> Vec<BackupFacts> {
    let all = copy.into_iter().chain(source);
    let by_name: BTreeMap<BackupName, BackupFacts> =
        all.map(|facts| (facts.name.clone(), facts)).collect();
    in_order(by_name.into_values().collect())
}

fn in_order(mut all: Vec<BackupFacts>) -> Vec<BackupFacts> {
    all.sort_by(|one, other| (one.time, &one.name).cmp(&(other.time, &other.name)));
    all
}

/// Whether a file of this verdict is copied. What no backup needs is not, however young it is.
#[must_use]
pub const fn is_wanted(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Needed | Verdict::History | Verdict::NoBackup
    )
}
