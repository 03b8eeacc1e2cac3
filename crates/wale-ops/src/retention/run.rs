//! Taking stock, deciding, deleting.
//!
//! ```text
//! what time is it → inventory → decide (pure)
//!  → each backup that goes: note, then look at its mark again; if one was marked meanwhile, decide again
//!  → each backup that goes, deltas first: sentinel → everything else → note
//!  → what deletions and writers before left half done
//!  → WAL, judged against the backups that are still there, along each timeline from its beginning
//! ```
//!
//! A mark that is set meanwhile is not overlooked. Here the note comes first, and then the check of the mark.
//! There ([`crate::backup_mark`]) the mark comes first, and then the check for the note. So at least one side
//! sees the other.
//!
//! It may be dropped at any point: what is left is an archive without some backups, and the next run goes on. A store
//! that refuses one object is asked for the next, once; a store that does not answer ends the run.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_archive::claim::{Claim, store_now};
use wale_archive::{Archive, Catalog, CheckDepth, Flaw, Looks, Remedy};
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_storage::{ObjectKey, ObjectMeta, StoreError, body_from};

use super::branches;
use super::inventory::{Folder, Inventory, listing, mark_of};
use super::newcomers::Known;
use super::options::{Act, Options, Tell};
use super::plan::{BackupVerdict, Bound, Request, Unfinished, decide};
use super::report::{Line, Refused, Report, What};
use super::seize::{Seized, came_back, head, seize};
use super::wal::{WalJudge, WalNeed};
use crate::error::{Kind, OpError, Result};

/// Objects in one request, as many as S3 takes. Memory: 1,000 × at most 1 KiB of key = 1 MiB.
const BATCH: usize = 1000;

/// Backups that are checked at the same time, as many as sentinels are read: each check is a handful of requests.
const LOOKS_AT_ONCE: usize = 8;

/// Refused objects that are listed; all are counted. 1,000 × about 1 KiB = 1 MiB.
const REFUSED_MAX: usize = 1000;

/// Carries out the request.
///
/// # Errors
///
/// What [`decide`] refuses; [`Kind::NotFound`] when a backup is named that does not exist; [`Kind::Busy`] when a person asks while a backup is being written; the store's failures.
/// Objects that the store would not delete are no error: they are in the report.
pub async fn run(archive: &Archive, options: &Options, tell: Tell<'_>) -> Result<Report> {
    if matches!(&options.request, Request::Policy(policy) if !policy.is_set()) {
        return Ok(Report::default());
    }
    let now = believed_now(archive, options.act).await?;
    let mut inventory = Inventory::take(archive, now).await?;
    if let Request::Target(name) = &options.request {
        check_exists(name, &inventory)?;
        inventory.judge_without(name);
    }
    let grace = TimeDelta::from_std(options.grace).unwrap_or(TimeDelta::MAX);
    let writing = inventory.being_written(grace);
    let mut run = Run {
        archive,
        act: options.act,
        tell,
        report: Report::default(),
    };
    if let Some(busy) = writing.first()
        && !matches!(options.request, Request::Policy(_))
    {
        let error = is_being_written(busy, options.grace);
        if options.act == Act::Delete {
            return Err(error);
        }
        run.report.warnings.push(error.chain());
    }
    let decisions = run.settle(options, &mut inventory, &writing).await?;
    run.report.notes = branches::told(&inventory.backups, inventory.lineage.newest());
    let mut needs = run.backups(&decisions).await?;
    let mut known = Known::default();
    for decision in &decisions {
        let name = &decision.backup.name;
        known.note(name, !run.report.deleted.contains(name));
    }
    for folder in &inventory.unfinished {
        let need = run.unfinished(folder, grace, now).await?;
        known.note(&folder.name, need.is_some());
        needs.extend(need);
    }
    // What could not go, and what came back to life, can still need its WAL.
    if options.request == Request::Everything && (needs.is_empty() || options.act == Act::Show) {
        run.everything_else().await?;
        return Ok(run.report);
    }
    for meta in &inventory.strange {
        run.line(meta, false, UNKNOWN);
    }
    let bound = match &options.request {
        Request::Before(bound) => Some(bound),
        _ => None,
    };
    let judge =
        WalJudge::new(needs, inventory.lineage.into_histories()).before(bound.map(Bound::segment));
    run.wal(&judge, &known).await?;
    Ok(run.report)
}

/// The earlier of the host's time and the store's: a clock that runs ahead makes nothing old. A dry run writes
/// nothing, and goes by the host's.
async fn believed_now(archive: &Archive, act: Act) -> Result<DateTime<Utc>> {
    let host = archive.clock().now();
    Ok(match act {
        Act::Show => host,
        Act::Delete => host.min(store_now(archive).await?),
    })
}

/// A backup that is not listed any more still exists as long as its deletion is not finished.
fn check_exists(name: &BackupName, inventory: &Inventory) -> Result<()> {
    let mut listed = inventory.backups.iter().map(|backup| &backup.name);
    let mut left = inventory.unfinished.iter().map(|folder| &folder.name);
    if listed.any(|one| one == name) || left.any(|one| one == name) {
        return Ok(());
    }
    Err(
        OpError::new(Kind::NotFound, format!("no backup {name} in the archive"))
            .hint("backup-list prints the names of all backups"),
    )
}

fn is_being_written(backup: &Unfinished, grace: Duration) -> OpError {
    OpError::new(
        Kind::Busy,
        format!("a base backup is being written: {}", backup.name),
    )
    .detail(format!(
        "It has no sentinel, and its newest object was stored at {}.",
        backup.touched.to_rfc3339()
    ))
    .hint(format!(
        "wait for its end; what a writer that died left behind counts as one for ten minutes, what another tool left for {} h",
        grace.as_secs() / 3600
    ))
    .remedy(Remedy::SweepGrace)
}

/// Removes the objects of a backup that has no sentinel, if that is still so.
pub(super) async fn remove_left_over(
    archive: &Archive,
    folder: &Folder,
    grace: TimeDelta,
    now: DateTime<Utc>,
    tell: Tell<'_>,
) -> Result<Report> {
    let mut run = Run {
        archive,
        act: Act::Delete,
        tell,
        report: Report::default(),
    };
    run.unfinished(folder, grace, now).await?;
    Ok(run.report)
}

/// What is wrong with a backup as it is now.
async fn look_at(looks: &Looks<'_>, archive: &Archive, name: BackupName) -> Result<Option<Flaw>> {
    match archive.entry(&name).await? {
        Some(entry) => Ok(looks.at(&entry, CheckDepth::Whole).await?.flaw),
        None => Ok(Some(Flaw::Damaged(
            "its record was deleted just now".to_owned(),
        ))),
    }
}

struct Run<'a> {
    archive: &'a Archive,
    act: Act,
    tell: Tell<'a>,
    report: Report,
}

impl Run<'_> {
    /// Decides. Before anything goes, it puts the notes and checks again whether a backup was marked to be kept since
    /// the inventory. If so, everything is decided anew: what the marked backup is based on stays with it.
    async fn settle(
        &mut self,
        options: &Options,
        inventory: &mut Inventory,
        writing: &[Unfinished],
    ) -> Result<Vec<BackupVerdict>> {
        let (request, interval) = (&options.request, options.request_interval);
        let decisions = self.decide_on_whole(options, inventory, writing).await?;
        if self.act == Act::Show {
            return Ok(decisions);
        }
        let mut late = false;
        for (decision, facts) in decisions.iter().zip(&mut inventory.backups) {
            if decision.goes() {
                self.note_deletion(&facts.name).await?;
                facts.deletion = true;
                facts.marked = mark_of(self.archive, &facts.name).await?.unwrap_or(false);
                late |= facts.marked;
            }
        }
        if !late {
            return Ok(decisions);
        }
        let again = decide(
            request,
            &inventory.backups,
            writing,
            &inventory.time,
            interval,
        );
        if again.is_err() {
            for facts in inventory.backups.iter().filter(|facts| facts.deletion) {
                self.take_back(&facts.name).await?;
            }
        }
        again
    }

    /// Decides, and checks whether the backups that stay are whole before anything goes for them. A backup that is not
    /// whole is not counted, and everything is decided anew. Each round finds another flaw or is the last one.
    async fn decide_on_whole(
        &mut self,
        options: &Options,
        inventory: &mut Inventory,
        writing: &[Unfinished],
    ) -> Result<Vec<BackupVerdict>> {
        let mut seen = BTreeSet::new();
        loop {
            let decisions = decide(
                &options.request,
                &inventory.backups,
                writing,
                &inventory.time,
                options.request_interval,
            )?;
            if !decisions.iter().any(BackupVerdict::goes) {
                return Ok(decisions);
            }
            let fresh = |index: &usize| {
                let facts = &inventory.backups[*index];
                !decisions[*index].goes() && facts.is_good() && !seen.contains(index)
            };
            let unseen: Vec<usize> = (0..decisions.len()).filter(fresh).collect();
            // What deltas build on as it is now, too.
            let catalog = if unseen
                .iter()
                .any(|&index| inventory.backups[index].is_delta())
            {
                self.archive.catalog().await?
            } else {
                Catalog::default()
            };
            let looks = Looks::new(self.archive, &catalog);
            let names = unseen.iter().map(|&index| &inventory.backups[index].name);
            let looks: Vec<_> = names
                .map(|name| look_at(&looks, self.archive, name.clone()))
                .collect();
            let flaws: Vec<Option<Flaw>> = stream::iter(looks)
                .buffered(LOOKS_AT_ONCE)
                .try_collect()
                .await?;
            let mut is_new = false;
            for (index, flaw) in unseen.into_iter().zip(flaws) {
                seen.insert(index);
                let facts = &mut inventory.backups[index];
                match flaw {
                    None => continue,
                    Some(Flaw::Damaged(words)) => facts.damaged = Some(words),
                    Some(Flaw::Unreadable(words)) => facts.unreadable = Some(words),
                }
                is_new = true;
            }
            if !is_new {
                return Ok(decisions);
            }
        }
    }

    /// Deletes the backups that go. Returns what those need that are there afterwards: a backup whose sentinel the
    /// store would not delete is one that can be restored.
    async fn backups(&mut self, decisions: &[BackupVerdict]) -> Result<Vec<WalNeed>> {
        let going = || decisions.iter().filter(|decision| decision.goes());
        // A backup that holds only changes goes before the one that it is based on, the youngest first. Where one of
        // them cannot go, it is not known how many of the others it still needs.
        let deltas: Vec<_> = going().filter(|one| one.backup.is_delta()).collect();
        let mut gone = BTreeSet::new();
        for decision in deltas.iter().rev() {
            if self.backup(&decision.backup.name).await? {
                gone.insert(&decision.backup.name);
            } else {
                break;
            }
        }
        let mut needs = Vec::new();
        for decision in decisions {
            let name = &decision.backup.name;
            let may_go =
                decision.goes() && !decision.backup.is_delta() && gone.len() == deltas.len();
            if gone.contains(name) || (may_go && self.backup(name).await?) {
                self.report.deleted.push(name.clone());
                continue;
            }
            if decision.backup.deletion {
                self.take_back(name).await?;
            }
            let (why, last) = if decision.goes() {
                // It can still be restored, so all of its WAL stays.
                ("the store does not let it be deleted".to_owned(), false)
            } else {
                (decision.stays.join("; "), true)
            };
            needs.extend(decision.needs().into_iter().map(|need| WalNeed {
                last: need.last.filter(|_| last),
                ..need
            }));
            if let Some(damage) = &decision.backup.damaged {
                self.report
                    .warnings
                    .push(format!("backup {name} cannot be used: {damage}"));
            }
            if let Some(why) = &decision.backup.unreadable {
                self.report.notes.push(format!(
                    "backup {name} is counted with those that this version cannot restore: {why}"
                ));
            }
            if self.act == Act::Show {
                self.stays(name, &why).await?;
            }
            self.report.kept.push((name.clone(), why));
        }
        Ok(needs)
    }

    /// Deletes one backup, its sentinel first. Returns whether it is gone from the list.
    async fn backup(&mut self, name: &BackupName) -> Result<bool> {
        let why = "no rule keeps it";
        let key = Archive::key(&layout::sentinel(name))?;
        let size = head(self.archive, &key).await?.map_or(0, |meta| meta.size);
        let sentinel = ObjectMeta {
            key: key.clone(),
            size,
            modified: DateTime::UNIX_EPOCH,
        };
        let refused = self.report.refused_count;
        self.delete(vec![(sentinel, why.to_owned())]).await?;
        if self.report.refused_count > refused {
            return Ok(false);
        }
        if self.act == Act::Delete && head(self.archive, &key).await?.is_some() {
            // A reader that sees it would restore the backup, so the rest stays, too.
            self.report.objects -= 1;
            self.report.bytes -= size;
            self.note_refused(Refused::still_there(key));
            return Ok(false);
        }
        match seize(self.archive, name, self.act).await? {
            Seized::Theirs => {
                tracing::info!(backup = %name, "others work under this name: what is left of the backup goes with the next run");
            }
            Seized::Ours(claim) => self.folder(name, why, claim.as_ref()).await?,
        }
        Ok(true)
    }

    /// Notes that the deletion begins, so that what is left of it is not taken for a backup that is being written.
    /// A store that is full or read-only does without.
    async fn note_deletion(&mut self, name: &BackupName) -> Result<()> {
        if self.act == Act::Show {
            return Ok(());
        }
        let key = Archive::key(&layout::deletion(name))?;
        let note = body_from(Bytes::from_static(b"wale deletes this backup\n"));
        match self.archive.store().put(&key, note).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => {
                Err(OpError::from_store(error, format_args!("store {key}")))
            }
            Err(error) => {
                tracing::debug!(%key, %error, "the deletion begins without a note");
                Ok(())
            }
        }
    }

    /// Deletes everything in a backup's folder. The claim and the note that it is being deleted go last. If something
    /// could not go, both stay.
    async fn folder(&mut self, name: &BackupName, why: &str, claim: Option<&Claim>) -> Result<()> {
        let prefix = layout::backup_folder(name);
        let refused = self.report.refused_count;
        let mut note = None;
        let mut batch = Vec::new();
        let mut objects = listing(self.archive, &prefix).await?;
        while let Some(meta) = objects.try_next().await? {
            match layout::parse(meta.key.as_str()) {
                ArchiveKey::Deletion(_) => note = Some(meta),
                ArchiveKey::Attempt(_) if claim.is_some() => {}
                _ => batch.push((meta, why.to_owned())),
            }
            if batch.len() == BATCH {
                self.delete_claimed(std::mem::take(&mut batch), claim)
                    .await?;
            }
        }
        self.delete_claimed(batch, claim).await?;
        if self.report.refused_count > refused {
            return Ok(());
        }
        if let Some(claim) = claim
            && !claim.release().await
        {
            // The note shows the next run that it may go on.
            return Ok(());
        }
        match note {
            Some(note) => self.remove_note(note.key).await,
            None => Ok(()),
        }
    }

    /// Deletes objects as long as the claim on their names is ours.
    async fn delete_claimed(
        &mut self,
        batch: Vec<(ObjectMeta, String)>,
        claim: Option<&Claim>,
    ) -> Result<()> {
        if let Some(claim) = claim.filter(|_| !batch.is_empty()) {
            claim.check_or_refresh().await?;
        }
        self.delete(batch).await
    }

    /// Takes the note of a deletion away from a backup that stays.
    async fn take_back(&mut self, name: &BackupName) -> Result<()> {
        self.remove_note(Archive::key(&layout::deletion(name))?)
            .await
    }

    /// The note is ours and not worth reporting, unless it cannot be removed.
    async fn remove_note(&mut self, key: ObjectKey) -> Result<()> {
        if self.act == Act::Show {
            return Ok(());
        }
        match self.archive.store().delete(&key).await {
            Err(error) if error.is_transient() => {
                Err(OpError::from_store(error, format_args!("delete {key}")))
            }
            Err(error) => {
                self.refused(key, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn refused(&mut self, key: ObjectKey, error: &StoreError) {
        self.note_refused(Refused::new(key, error));
    }

    fn note_refused(&mut self, refused: Refused) {
        self.report.refused_count += 1;
        tracing::warn!(key = %refused.key, error = refused.message, "the store does not let an object be deleted: it is retained");
        if self.report.refused.len() < REFUSED_MAX {
            self.report.refused.push(refused);
        }
    }

    /// A backup without a sentinel goes when nobody writes it any more. This is checked again right before: a
    /// writer may have come back, or finished. Returns what it needs if it stays.
    async fn unfinished(
        &mut self,
        folder: &Folder,
        grace: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Option<WalNeed>> {
        let name = &folder.name;
        let alive = WalNeed {
            start: name.segment(),
            last: None,
            size: None,
            committed: None,
            is_apart: false,
        };
        if !folder.is_left_over(grace, now) {
            if self.act == Act::Show {
                self.stays(name, "it has no sentinel and may be being written")
                    .await?;
            }
            return Ok(Some(alive));
        }
        let Seized::Ours(claim) = seize(self.archive, name, self.act).await? else {
            return Ok(Some(alive));
        };
        if came_back(self.archive, folder).await? {
            if let Some(claim) = claim {
                claim.release().await;
            }
            return Ok(Some(alive));
        }
        let why = if folder.deletion {
            "its deletion was interrupted"
        } else {
            "it has no sentinel, and nothing was written to it for a long time"
        };
        if self.act == Act::Delete {
            tracing::info!(backup = %name, why, "removing what is left of a base backup");
        }
        self.folder(name, why, claim.as_ref()).await?;
        Ok(None)
    }

    /// Reports the objects of a backup that stays.
    async fn stays(&mut self, name: &BackupName, why: &str) -> Result<()> {
        let sentinel = Archive::key(&layout::sentinel(name))?;
        if let Some(meta) = head(self.archive, &sentinel).await? {
            self.line(&meta, false, why);
        }
        let prefix = layout::backup_folder(name);
        let mut objects = listing(self.archive, &prefix).await?;
        while let Some(meta) = objects.try_next().await? {
            self.line(&meta, false, why);
        }
        Ok(())
    }

    /// All WAL, and what belongs to no backup.
    async fn everything_else(&mut self) -> Result<()> {
        let strange = |meta: &ObjectMeta| layout::backup_of(meta.key.as_str()).is_none();
        self.prefix(layout::BACKUP_PREFIX, EVERYTHING, strange)
            .await?;
        self.prefix(layout::WAL_PREFIX, EVERYTHING, |_| true)
            .await?;
        // What a verification remembers of the WAL.
        let key = Archive::key(layout::VERIFIED_WAL)?;
        let noted = head(self.archive, &key).await?;
        let noted = noted.map(|meta| (meta, EVERYTHING.to_owned()));
        self.delete(noted.into_iter().collect()).await
    }

    /// Deletes the objects under a prefix that are meant.
    async fn prefix(
        &mut self,
        prefix: &str,
        why: &str,
        meant: impl Fn(&ObjectMeta) -> bool + Send,
    ) -> Result<()> {
        let mut batch = Vec::new();
        let mut objects = listing(self.archive, prefix).await?;
        while let Some(meta) = objects.try_next().await? {
            if meant(&meta) {
                batch.push((meta, why.to_owned()));
            }
            if batch.len() == BATCH {
                self.delete(std::mem::take(&mut batch)).await?;
            }
        }
        self.delete(batch).await
    }

    /// Deletes the WAL that may go, in the order of the listing: each timeline from its beginning. Each batch goes only
    /// where nobody has begun a base backup since. A backup looks for its first segment when it is complete, so one
    /// that is not seen here sees its segment gone.
    async fn wal(&mut self, judge: &WalJudge, known: &Known) -> Result<()> {
        let mut batch = Vec::new();
        let mut objects = listing(self.archive, layout::WAL_PREFIX).await?;
        while let Some(meta) = objects.try_next().await? {
            let claimed = layout::wal_claim(meta.key.as_str());
            let verdict = claimed.map(|name| judge.judge(&name, meta.modified));
            let (goes, why) = match verdict {
                Some(verdict) => (verdict.goes(), verdict.words()),
                None => (false, UNKNOWN),
            };
            if goes {
                batch.push((meta, why.to_owned()));
            } else if self.act == Act::Show || verdict.is_none() {
                self.line(&meta, false, why);
            }
            if batch.len() == BATCH && !self.delete_wal(std::mem::take(&mut batch), known).await? {
                return Ok(());
            }
        }
        self.delete_wal(batch, known).await.map(drop)
    }

    /// Deletes a batch of WAL; `false`: a base backup began meanwhile, and nothing was deleted.
    async fn delete_wal(
        &mut self,
        batch: Vec<(ObjectMeta, String)>,
        known: &Known,
    ) -> Result<bool> {
        if batch.is_empty() {
            return Ok(true);
        }
        if self.act == Act::Delete
            && let Some(name) = known.newcomer(self.archive).await?
        {
            self.report.notes.push(format!(
                "base backup {name} began meanwhile: the WAL that is still there stays until the next run"
            ));
            return Ok(false);
        }
        self.delete(batch).await?;
        Ok(true)
    }

    /// Deletes objects and reports each of them. What the store refuses is noted. A store that does not answer ends
    /// the run.
    async fn delete(&mut self, batch: Vec<(ObjectMeta, String)>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        for (meta, why) in &batch {
            self.line(meta, true, why);
        }
        let mut failed = Vec::new();
        if self.act == Act::Delete {
            let keys: Vec<ObjectKey> = batch.iter().map(|(meta, _)| meta.key.clone()).collect();
            failed = self.archive.store().delete_many(&keys).await;
        }
        for (meta, _) in &batch {
            if !failed.iter().any(|(key, _)| *key == meta.key) {
                self.report.objects += 1;
                self.report.bytes += meta.size;
                self.report.wal_objects += u64::from(is_wal(meta.key.as_str()));
            }
        }
        let mut outage = None;
        for (key, error) in failed {
            if error.is_transient() {
                outage = Some(OpError::from_store(error, format_args!("delete {key}")));
                continue;
            }
            self.refused(key, &error);
        }
        outage.map_or(Ok(()), Err)
    }

    fn line(&mut self, meta: &ObjectMeta, goes: bool, why: &str) {
        (self.tell)(&Line {
            key: meta.key.clone(),
            size: meta.size,
            what: What::of(meta.key.as_str()),
            goes,
            why: why.to_owned(),
        });
    }
}

/// Whether the object lies with the WAL, of whatever version of the layout.
fn is_wal(key: &str) -> bool {
    key.starts_with("wal_")
}

const EVERYTHING: &str = "everything goes";
const UNKNOWN: &str = "wale does not know this name";

/// The versions of the layout before WAL-E's last one, 005.
const OLD_VERSIONS: [&str; 5] = ["000", "001", "002", "003", "004"];

/// `delete old-versions`: everything in layouts that WAL-E used before version 005. Nothing of today is in them.
///
/// # Errors
///
/// The store's failures.
pub async fn old_versions(archive: &Archive, act: Act, tell: Tell<'_>) -> Result<Report> {
    let mut run = Run {
        archive,
        act,
        tell,
        report: Report::default(),
    };
    for version in OLD_VERSIONS {
        for prefix in [format!("basebackups_{version}/"), format!("wal_{version}/")] {
            let why = "of an older layout of WAL-E's";
            run.prefix(&prefix, why, |_| true).await?;
        }
    }
    Ok(run.report)
}
