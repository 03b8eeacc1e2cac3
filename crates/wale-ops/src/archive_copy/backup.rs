//! One backup: its objects, then a look at the whole of it where it lies now, then its sentinel.
//!
//! A backup that the destination does not list yet is written under the claim on its name there, as any backup is: nobody
//! removes or writes it meanwhile. An interrupted copy gives the claim back, or leaves it to die.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use wale_archive::claim::{Claim, Purpose, Taken};
use wale_archive::lineage::Histories;
use wale_archive::{Archive, BackupEntry, Catalog, CheckDepth, Flaw, SentinelRecord};
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_pipeline::CancellationToken;
use wale_storage::{ObjectKey, ObjectMeta};

use super::options::CopyMode;
use super::pairs::Pairs;
use super::plan::takes_of_backup;
use super::report::{BackupFate, BackupLine, CopyReport, Sum, Trouble};
use super::scope::Chosen;
use super::transfer::{Brought, Route, sum_of};
use super::wal::Lacking;
use super::workers::Workers;
use crate::error::{Kind, OpError, Result};

/// Between two looks at somebody else's claim. Its holder refreshes it every 30 s.
const CLAIM_LOOK: Duration = Duration::from_secs(15);

/// How long a claim that nobody refreshes is waited for: the ten minutes after which it is dead, and some more.
const CLAIM_WAIT: Duration = Duration::from_mins(12);

/// What the copies of all backups share.
pub(super) struct Backups<'a> {
    pub(super) route: &'a Arc<Route>,
    /// Of the source: a delta is looked at with the backups that it builds on.
    pub(super) catalog: &'a Catalog,
    pub(super) histories: &'a Histories,
    pub(super) lacking: &'a Lacking,
    pub(super) act: CopyMode,
    pub(super) workers: usize,
    pub(super) cancel: &'a CancellationToken,
    /// Those that are listed at the destination by now.
    pub(super) listed: BTreeSet<BackupName>,
}

/// Objects of one backup, and what went wrong with them.
#[derive(Default)]
struct Objects {
    copied: Sum,
    there: Sum,
    vanished: Option<ObjectKey>,
    troubles: Vec<Trouble>,
    note: Option<String>,
}

impl Backups<'_> {
    /// Copies a backup and takes note of it.
    ///
    /// # Errors
    /// The stores' failures; [`Kind::Cancelled`].
    pub(super) async fn copy(&mut self, chosen: &Chosen, report: &mut CopyReport) -> Result<()> {
        let name = &chosen.entry.name;
        let (fate, note) = match self.unfit(chosen).await? {
            (Some(fate), _) => (fate, None),
            (None, note) if self.act == CopyMode::Show => {
                let objects = self.count(name).await?;
                report.copied.objects += objects.copied.objects;
                report.copied.bytes += objects.copied.bytes;
                report.there.objects += objects.there.objects;
                report.there.bytes += objects.there.bytes;
                (BackupFate::Planned, note)
            }
            (None, note) => {
                let mut objects = Objects::default();
                let fate = self.bring(&chosen.entry, &mut objects).await;
                report.copied.objects += objects.copied.objects;
                report.copied.bytes += objects.copied.bytes;
                report.there.objects += objects.there.objects;
                report.there.bytes += objects.there.bytes;
                for trouble in objects.troubles {
                    report.trouble(trouble);
                }
                (fate?, objects.note.or(note))
            }
        };
        if matches!(
            fate,
            BackupFate::Copied | BackupFate::WasThere | BackupFate::Planned
        ) {
            self.listed.insert(name.clone());
        }
        report.backups.push(BackupLine {
            name: name.clone(),
            fate,
            note,
        });
        Ok(())
    }

    /// Why a backup is not copied, as far as the source and the WAL of the copy show. Otherwise what deserves to be known.
    async fn unfit(&self, chosen: &Chosen) -> Result<(Option<BackupFate>, Option<String>)> {
        let (source, entry) = (&self.route.source, &chosen.entry);
        let name = &entry.name;
        if is_there(source, &layout::deletion(name)).await? {
            let why = "is being deleted at the source".to_owned();
            return Ok((Some(BackupFate::Gone(why)), None));
        }
        if let SentinelRecord::Damaged(reason) = &entry.sentinel {
            let why = format!("has a damaged record at the source: {reason}");
            return Ok((Some(left(Kind::CorruptData, why)), None));
        }
        let (damage, note) = match source
            .look_at(self.catalog, entry, CheckDepth::Whole)
            .await?
        {
            Some(Flaw::Damaged(words)) => {
                let why = format!("is damaged at the source: {words}");
                (Some((Kind::CorruptData, why)), None)
            }
            Some(Flaw::Unreadable(words)) => (
                None,
                Some(format!("is copied as it is, and was not checked: {words}")),
            ),
            None => (None, None),
        };
        let damage = damage.or_else(|| {
            let may_read = |file: &_| chosen.need.may_read(self.histories, file);
            let (file, kind) = self.lacking.find(may_read)?;
            Some((
                kind,
                format!("may need WAL file {file}, which could not be copied"),
            ))
        });
        if let Some((kind, why)) = damage {
            return Ok((Some(self.gone_or_left(name, kind, why).await?), None));
        }
        if let Some(parent) = &chosen.parent
            && !self.listed.iter().any(|name| name.as_str() == parent)
        {
            let why =
                format!("holds only the changes to backup {parent}, which is not in the copy");
            return Ok((Some(left(Kind::CorruptData, why)), None));
        }
        Ok((None, note))
    }

    /// What is wrong with a backup is no wonder when it was deleted meanwhile.
    async fn gone_or_left(&self, name: &BackupName, kind: Kind, why: String) -> Result<BackupFate> {
        let source = &self.route.source;
        let is_listed = is_there(source, &layout::sentinel(name)).await?;
        if is_listed && !is_there(source, &layout::deletion(name)).await? {
            return Ok(left(kind, why));
        }
        let why = "was deleted at the source while the copy ran".to_owned();
        Ok(BackupFate::Gone(why))
    }

    /// What there is to do for a backup.
    async fn count(&self, name: &BackupName) -> Result<Objects> {
        let mut objects = Objects::default();
        let mut pairs = self.pairs(name).await?;
        while let Some(group) = pairs.next().await? {
            for object in group.source.iter().filter(is_taken) {
                match group.there(object) {
                    Some(_) => objects.there.add(object.size),
                    None => objects.copied.add(object.size),
                }
            }
        }
        let sentinel = Archive::key(&layout::sentinel(name))?;
        if let Some(object) = head(&self.route.source, &sentinel).await? {
            match head(&self.route.copy, &sentinel).await? {
                Some(_) => objects.there.add(object.size),
                None => objects.copied.add(object.size),
            }
        }
        Ok(objects)
    }

    async fn pairs(&self, name: &BackupName) -> Result<Pairs> {
        Pairs::open(
            &self.route.source,
            &self.route.copy,
            &layout::backup_folder(name),
        )
        .await
    }

    async fn bring(&self, entry: &BackupEntry, objects: &mut Objects) -> Result<BackupFate> {
        let (name, copy) = (&entry.name, &self.route.copy);
        if is_there(copy, &layout::deletion(name)).await? {
            let why = "is being deleted at the destination; a deletion that was interrupted is ended by `retain` or \
                       `delete` there"
                .to_owned();
            return Ok(left(Kind::Busy, why));
        }
        if is_there(copy, &layout::sentinel(name)).await? {
            return self.bring_under(entry, None, objects).await;
        }
        let claim = match self.claim(name).await? {
            Ok(claim) => claim,
            Err(who) => {
                let why = format!("is being written or deleted at the destination by {who}");
                return Ok(left(Kind::Busy, why));
            }
        };
        let forever = CancellationToken::new();
        let fate = tokio::select! {
            fate = self.bring_under(entry, Some(&claim), objects) => fate,
            lost = claim.keep(&forever) => match lost {
                Err(error) => Err(error),
                Ok(()) => Err(OpError::cancelled()),
            },
        };
        claim.release().await;
        fate
    }

    /// The claim on the backup's name at the destination, or who has it. One that nobody refreshes, as a copy that was
    /// killed leaves it, is waited for.
    async fn claim(&self, name: &BackupName) -> Result<Result<Claim, String>> {
        let begun = Instant::now();
        let mut seen: Option<DateTime<Utc>> = None;
        loop {
            let key = layout::attempt(name);
            let holder = match Claim::take(&self.route.copy, &key, Purpose::Write).await? {
                Taken::Ours { claim, .. } => return Ok(Ok(claim)),
                Taken::Theirs(holder) => holder,
            };
            let is_alive = seen.is_some_and(|seen| seen != holder.refreshed);
            if is_alive || begun.elapsed() >= CLAIM_WAIT {
                return Ok(Err(holder.who));
            }
            if seen.replace(holder.refreshed).is_none() {
                tracing::info!(
                    backup = %name,
                    holder = holder.who,
                    refreshed = %holder.refreshed,
                    "the backup is claimed at the destination; a claim that is not refreshed is dead after ten minutes, which is waited for"
                );
            }
            self.unless_cancelled(tokio::time::sleep(CLAIM_LOOK))
                .await?;
        }
    }

    async fn bring_under(
        &self,
        entry: &BackupEntry,
        claim: Option<&Claim>,
        objects: &mut Objects,
    ) -> Result<BackupFate> {
        let name = &entry.name;
        let sentinel = Archive::key(&layout::sentinel(name))?;
        let first_look = sum_of(&self.route.source, &sentinel).await?;
        self.unless_cancelled(self.bring_objects(name, objects))
            .await??;
        if let Some(key) = &objects.vanished {
            let why = format!("lacks object {key}, which the source has lost");
            return self.gone_or_left(name, Kind::CorruptData, why).await;
        }
        if let Some(trouble) = objects.troubles.first() {
            let why = format!(
                "is not complete in the copy: object {} {}",
                trouble.key, trouble.why
            );
            return Ok(left(trouble.kind, why));
        }
        if let Some(key) = self.missing(name).await? {
            let why = format!("has lost object {key} at the destination while it was copied");
            return Ok(left(Kind::Busy, why));
        }
        if let Some(Flaw::Damaged(words)) = self
            .route
            .copy
            .look_at(self.catalog, entry, CheckDepth::Whole)
            .await?
        {
            let why = format!("is not whole in the copy: {words}");
            return self.gone_or_left(name, Kind::CorruptData, why).await;
        }
        // A backup that was deleted and taken again under its name is another one.
        let last_look = sum_of(&self.route.source, &sentinel).await?;
        let source_head = head(&self.route.source, &sentinel).await?;
        let is_same = first_look.is_some() && first_look == last_look;
        let (true, Some(object)) = (is_same, source_head) else {
            let why = "was deleted at the source while the copy ran".to_owned();
            return Ok(BackupFate::Gone(why));
        };
        let there = match claim {
            Some(claim) => {
                claim.check().await?;
                None
            }
            None => Some(object.size),
        };
        self.bring_sentinel(&object, there, objects).await
    }

    async fn bring_sentinel(
        &self,
        object: &ObjectMeta,
        there: Option<u64>,
        objects: &mut Objects,
    ) -> Result<BackupFate> {
        // Small, and what commits the backup: it is compared whatever else is trusted.
        let route = Route {
            present: super::options::Present::Compared,
            source: self.route.source.clone(),
            copy: self.route.copy.clone(),
            progress: self.route.progress.clone(),
            retry: self.route.retry,
            urgency: self.route.urgency,
        };
        Ok(match route.bring(object, there).await? {
            Brought::Copied => {
                objects.copied.add(object.size);
                BackupFate::Copied
            }
            Brought::There | Brought::Marked { .. } => {
                objects.there.add(object.size);
                BackupFate::WasThere
            }
            Brought::Vanished => {
                BackupFate::Gone("was deleted at the source while the copy ran".to_owned())
            }
            Brought::Trouble(kind, why) => left(kind, format!("has a record that {why}")),
        })
    }

    async fn bring_objects(&self, name: &BackupName, objects: &mut Objects) -> Result<()> {
        let mut pairs = self.pairs(name).await?;
        let mut workers = Workers::new(self.workers);
        while let Some(group) = pairs.next().await? {
            for object in group.source.iter().filter(is_taken) {
                let (route, object, there) =
                    (Arc::clone(self.route), object.clone(), group.there(object));
                let task = async move {
                    let brought = route.bring(&object, there).await?;
                    Ok((object, brought))
                };
                if let Some((object, brought)) = workers.begin(task).await? {
                    objects.note(&object, brought);
                }
            }
        }
        while let Some((object, brought)) = workers.end().await? {
            objects.note(&object, brought);
        }
        Ok(())
    }

    /// An object of the backup that the destination does not have as the source has it.
    async fn missing(&self, name: &BackupName) -> Result<Option<ObjectKey>> {
        let mut pairs = self.pairs(name).await?;
        while let Some(group) = pairs.next().await? {
            for object in group.source.iter().filter(is_taken) {
                let may_differ =
                    matches!(layout::parse(object.key.as_str()), ArchiveKey::Metadata(_));
                let there = group.there(object);
                if there != Some(object.size) && !(may_differ && there.is_some()) {
                    // A listing may be behind.
                    let now = head(&self.route.copy, &object.key).await?;
                    if now.is_none_or(|now| now.size != object.size) {
                        return Ok(Some(object.key.clone()));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let done = self.cancel.run_until_cancelled(work).await;
        done.ok_or_else(OpError::cancelled)
    }
}

impl Objects {
    fn note(&mut self, object: &ObjectMeta, brought: Brought) {
        match brought {
            Brought::Copied => self.copied.add(object.size),
            Brought::There => self.there.add(object.size),
            Brought::Marked { source_has_it } => {
                self.there.add(object.size);
                let (one, other) = if source_has_it {
                    ("source", "copy")
                } else {
                    ("copy", "source")
                };
                self.note = Some(format!(
                    "is marked to be kept in the {one} and not in the {other}; each keeps its own mark"
                ));
            }
            Brought::Vanished => self.vanished = Some(object.key.clone()),
            Brought::Trouble(kind, why) => self.troubles.push(Trouble {
                key: object.key.to_string(),
                kind,
                why,
            }),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "a filter passes references"
)]
fn is_taken(object: &&ObjectMeta) -> bool {
    takes_of_backup(object.key.as_str())
}

fn left(kind: Kind, why: String) -> BackupFate {
    BackupFate::Left { kind, why }
}

async fn is_there(archive: &Archive, key: &str) -> Result<bool> {
    Ok(head(archive, &Archive::key(key)?).await?.is_some())
}

async fn head(archive: &Archive, key: &ObjectKey) -> Result<Option<ObjectMeta>> {
    let head = archive.store().head(key).await;
    head.map_err(|error| {
        let place = archive.location();
        OpError::from_store(error, format_args!("look for {key} at {place}"))
    })
}
