//! Taking stock, reading, judging.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use wale_archive::proof::{BackupFound, BackupProof, Damage, Proven};
use wale_archive::{Archive, Flaw};
use wale_pg::{ArchiveFileName, WalSegmentName};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::PacedStore;

use super::backups::{BackupOutcome, BackupProver, is_gone};
use super::lines::merged;
use super::meaning::{BackupSpot, Hole, Position, World};
use super::options::{VerifyDepth, VerifyOptions};
use super::plan::{Candidate, Due, Quota, chosen};
use super::report::{
    BackupState, DamageKind, FINDINGS_MAX, Finding, VerifiedBackup, VerifyReport, WalSum,
};
use super::stock::Stock;
use super::wal::{WalFound, WalReader};
use super::words::{self, Moment};
use crate::error::{Kind, OpError, Result};

/// Verifies the archive.
///
/// Costs three listings, two and some small requests for each backup, and what is read. Memory: what a restore of a backup holds, with
/// its workers; of names and sizes 300 bytes for each backup and 16 for each stretch of WAL.
///
/// # Errors
///
/// [`Kind::NotFound`] where there is no archive; the store's, once it does not answer for long; [`Kind::Cancelled`]. What is
/// damaged is no error here: it is in the report ([`VerifyReport::failure`]).
pub async fn run(
    archive: &Archive,
    options: &VerifyOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<VerifyReport> {
    let clock = Instant::now();
    if archive.holds_nothing().await? {
        let message = format!("{} holds no archive", archive.location());
        return Err(OpError::new(Kind::NotFound, message)
            .hint("check the prefix, and that the archive's volume is mounted"));
    }
    progress.set_phase("listing");
    let began = archive.clock().now();
    let store = Arc::new(PacedStore::new(Arc::clone(archive.store()), options.rate));
    let archive = archive.over(store.clone(), archive.budget().clone());
    let stock = Stock::take(&archive).await?;
    let mut run = VerifyRun::new(&archive, options, (progress, cancel), stock, began);
    run.names();
    let mut wal = None;
    if options.depth == VerifyDepth::Content && run.can_read().await? {
        run.read_backups().await?;
        let mut reader = run.wal_reader();
        reader.run().await?;
        run.note_wal(&reader);
        wal = Some(reader);
    } else {
        run.note_earlier(&BTreeSet::new());
        run.note_known();
    }
    let missing = run.judge().await?;
    if let Some(mut wal) = wal {
        if !missing.is_empty() {
            wal.note_missing(missing).await;
        }
        let why = wal.found.not_remembered.take();
        run.report.not_remembered = run.report.not_remembered.take().or(why);
    }
    run.keep_damage().await;
    run.report.bytes_read = store.bytes_read();
    run.report.duration = clock.elapsed();
    Ok(run.report)
}

/// A backup that is damaged.
struct DamagedBackup {
    index: usize,
    damage: Damage,
    as_of: Option<DateTime<Utc>>,
}

/// A segment that no recovery gets.
struct DamagedSegment {
    segment: WalSegmentName,
    damage: Damage,
    as_of: Option<DateTime<Utc>>,
}

/// One verification.
struct VerifyRun<'a> {
    archive: &'a Archive,
    options: &'a VerifyOptions,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
    stock: Arc<Stock>,
    began: DateTime<Utc>,
    report: VerifyReport,
    backups: Vec<DamagedBackup>,
    segments: Vec<DamagedSegment>,
    /// What was remembered of damaged backups, and when.
    remembered: Vec<(usize, BackupFound, DateTime<Utc>)>,
    /// Damage that stops no recovery, or only one that asks for a history.
    others: Vec<(ArchiveFileName, Damage)>,
}

impl<'a> VerifyRun<'a> {
    fn new(
        archive: &'a Archive,
        options: &'a VerifyOptions,
        (progress, cancel): (&'a Progress, &'a CancellationToken),
        stock: Stock,
        began: DateTime<Utc>,
    ) -> Self {
        let backups = stock.catalog.backups.iter().enumerate();
        let backups = backups.map(|(index, entry)| VerifiedBackup {
            name: entry.name.clone(),
            stored_bytes: stock.bytes[index],
            state: BackupState::There,
            proven: proven(&stock, index),
        });
        let report = VerifyReport {
            archive: archive.location(),
            depth: options.depth,
            share: options.share,
            began,
            backups: backups.collect(),
            wal: WalSum {
                segments: stock.segments,
                bytes: stock.wal_bytes,
                proven: stock.wal.proven.count().min(stock.segments),
                oldest: stock.wal.proven.times().map(|(oldest, _)| oldest),
                ..WalSum::default()
            },
            findings: Vec::new(),
            findings_count: 0,
            notes: Vec::new(),
            bytes_read: 0,
            not_remembered: None,
            locked: None,
            unreadable: 0,
            unreadable_because: None,
            duration: std::time::Duration::ZERO,
        };
        Self {
            archive,
            options,
            progress,
            cancel,
            stock: Arc::new(stock),
            began,
            report,
            backups: Vec::new(),
            segments: Vec::new(),
            remembered: Vec::new(),
            others: Vec::new(),
        }
    }

    /// What names and sizes show, and what earlier readings found.
    fn names(&mut self) {
        let stock = Arc::clone(&self.stock);
        for (index, flaw) in stock.flaws.iter().enumerate() {
            let line = &mut self.report.backups[index];
            match flaw {
                Some(Flaw::Damaged(found)) => {
                    line.state = BackupState::Damaged;
                    let damage = Damage {
                        object: line.name.to_string(),
                        found: found.clone(),
                        missing: found.contains("is not in the archive"),
                    };
                    self.backups.push(DamagedBackup {
                        index,
                        damage,
                        as_of: None,
                    });
                }
                Some(Flaw::Unreadable(why)) => {
                    line.state = BackupState::Unreadable;
                    let name = &line.name;
                    let note = format!("backup {name} cannot be restored here: {why}");
                    self.report.notes.push(note);
                    if self.options.depth == VerifyDepth::Content {
                        self.report.unreadable += 1;
                        let error = OpError::new(Kind::Configuration, why.clone());
                        self.report.unreadable_because.get_or_insert(error);
                    }
                }
                None => {}
            }
        }
        for (stored, found) in &stock.implausible {
            let damage = Damage {
                object: stored.key.to_string(),
                found: found.clone(),
                missing: false,
            };
            self.note_file(stored.name, damage, None);
        }
        if stock.unknown > 0 {
            let count = stock.unknown;
            self.report.notes.push(format!(
                "{count} segments are there under an extension that this version does not know, and were not looked into"
            ));
        }
    }

    fn note_file(&mut self, name: ArchiveFileName, damage: Damage, as_of: Option<DateTime<Utc>>) {
        let is_known = |one: &DamagedSegment| one.damage.object == damage.object;
        if self.segments.iter().any(is_known)
            || self
                .others
                .iter()
                .any(|(_, one)| one.object == damage.object)
        {
            return;
        }
        match name {
            ArchiveFileName::Segment(segment) => self.segments.push(DamagedSegment {
                segment,
                damage,
                as_of,
            }),
            _ => self.others.push((name, damage)),
        }
    }

    /// Whether this host can read the archive. Where the newest segment is locked, all that would be read is taken for locked:
    /// asking each object would cost a request each.
    async fn can_read(&mut self) -> Result<bool> {
        let stock = Arc::clone(&self.stock);
        let Some(newest) = &stock.newest else {
            return Ok(true);
        };
        match self.archive.read_wal_header(newest).await {
            Err(error) if error.kind == Kind::Configuration && error.locked().is_some() => {
                self.report.depth = VerifyDepth::Names;
                self.report.notes.push(
                    "no content was read: no key here opens the newest segment; only names and sizes were looked at"
                        .to_owned(),
                );
                self.report.locked = Some(error);
                Ok(false)
            }
            Err(error)
                if matches!(
                    error.kind,
                    Kind::CorruptData | Kind::Configuration | Kind::NotFound
                ) =>
            {
                Ok(true)
            }
            other => other.map(|_| true),
        }
    }

    fn due(&self) -> Due {
        let holds = self.options.older_than;
        Due {
            now: self.began,
            holds: holds.map(|holds| TimeDelta::from_std(holds).unwrap_or(TimeDelta::MAX)),
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let all = &self.stock.catalog.backups;
        let each = all.iter().enumerate().map(|(index, entry)| {
            let parent = entry.readable().and_then(|one| one.delta_from.as_deref());
            Candidate {
                bytes: self.stock.bytes[index],
                read: self.stock.proofs[index].as_ref().map(BackupProof::read),
                proven: proven(&self.stock, index),
                is_readable: self.stock.flaws[index].is_none(),
                parent: parent
                    .and_then(|parent| all.iter().position(|one| one.name.as_str() == parent)),
            }
        });
        each.collect()
    }

    async fn read_backups(&mut self) -> Result<()> {
        self.progress.set_phase("reading backups");
        let mut candidates = self.candidates();
        let mut indices = chosen(&candidates, self.due(), self.options.share);
        let stock = Arc::clone(&self.stock);
        let plain = |index: &usize| {
            let record = stock.catalog.backups[*index].readable();
            record.and_then(wale_format::Sentinel::bytes).unwrap_or(0)
        };
        self.progress
            .set_total(indices.iter().map(plain).sum::<u64>() + stock.wal_bytes);
        let mut reader = BackupProver {
            archive: self.archive,
            stock: &stock,
            began: self.began,
            workers: self.options.workers,
            progress: self.progress,
            cancel: self.cancel,
            proven: (0..candidates.len())
                .filter(|&index| candidates[index].proven.is_some())
                .collect(),
            not_remembered: None,
            damaged: Vec::new(),
        };
        let damaged = self.backups.iter();
        let damaged: Vec<(usize, Damage)> =
            damaged.map(|one| (one.index, one.damage.clone())).collect();
        for (index, damage) in damaged {
            reader.note_damage(index, damage).await;
        }
        let mut read = BTreeSet::new();
        while let Some(&index) = indices.difference(&read).next() {
            let outcome = reader.read(index).await?;
            read.insert(index);
            // What cannot be read costs nothing of the share: others have their turn.
            if matches!(outcome, BackupOutcome::Unreadable(_)) {
                candidates[index].is_readable = false;
                indices.extend(chosen(&candidates, self.due(), self.options.share));
            }
            self.note_backup(index, outcome);
        }
        self.report.not_remembered = reader.not_remembered;
        self.remembered = reader.damaged;
        self.note_earlier(&read);
        Ok(())
    }

    /// Takes over what reading a backup came to.
    fn note_backup(&mut self, index: usize, outcome: BackupOutcome) {
        let line = &mut self.report.backups[index];
        if !matches!(outcome, BackupOutcome::Unreadable(_)) {
            line.proven = None;
        }
        line.state = match outcome {
            BackupOutcome::Good => {
                line.proven = Some(self.began);
                BackupState::Proven
            }
            BackupOutcome::Damaged(damaged, count) => {
                self.report.findings_count += count.saturating_sub(damaged.len() as u64);
                let damaged = damaged.into_iter().map(|damage| DamagedBackup {
                    index,
                    damage,
                    as_of: None,
                });
                self.backups.extend(damaged);
                BackupState::Damaged
            }
            BackupOutcome::Unreadable(error) => {
                self.report.unreadable += 1;
                self.report.unreadable_because.get_or_insert(error);
                BackupState::Unreadable
            }
            BackupOutcome::Gone => BackupState::Gone,
        };
    }

    /// Backups that an earlier reading found damaged, and that were not read now.
    fn note_earlier(&mut self, read: &BTreeSet<usize>) {
        let stock = Arc::clone(&self.stock);
        for (index, proof) in stock.proofs.iter().enumerate() {
            let Some(proof) = proof else { continue };
            if proof.damaged() == 0 || read.contains(&index) || stock.flaws[index].is_some() {
                continue;
            }
            self.report.backups[index].state = BackupState::Damaged;
            self.report.findings_count += proof.damaged() - proof.damages().count() as u64;
            let damaged = proof.damages().map(|damage| DamagedBackup {
                index,
                damage: damage.clone(),
                as_of: Some(proof.at),
            });
            self.backups.extend(damaged);
        }
    }

    /// WAL that an earlier reading found damaged.
    fn note_known(&mut self) {
        let stock = Arc::clone(&self.stock);
        for damage in &stock.wal.damaged {
            if let Some(name) = wale_format::layout::wal_claim(&damage.object)
                && stock.still_there.contains(&damage.object)
            {
                self.note_file(name, damage.clone(), stock.wal.at);
            }
        }
    }

    fn wal_reader(&self) -> WalReader<'a> {
        self.progress.set_phase("reading WAL");
        let stock = &self.stock;
        let mut proof = stock.wal.clone();
        // What was missing is looked for anew; what is not there any more is not damaged.
        proof
            .damaged
            .retain(|damage| !damage.missing && stock.still_there.contains(&damage.object));
        proof.damaged_count = proof.damaged.len() as u64;
        WalReader {
            archive: self.archive,
            owner: stock.owner,
            began: self.began,
            workers: self.options.workers,
            progress: self.progress,
            cancel: self.cancel,
            quota: Quota::new(&stock.ages, self.due(), self.options.share),
            known: stock.wal.clone(),
            seen: stock.wal.clone(),
            proof,
            there: Proven::nothing(stock.size),
            tried_there: Proven::nothing(stock.size),
            found: WalFound::default(),
        }
    }

    /// Takes over what reading the WAL found.
    fn note_wal(&mut self, reader: &WalReader<'_>) {
        let found = &reader.found;
        let sum = &mut self.report.wal;
        sum.read = found.read;
        sum.read_bytes = found.read_bytes;
        sum.others_read = found.others_read;
        sum.proven = reader
            .proof
            .proven
            .count()
            .min(sum.segments.max(found.read));
        sum.oldest = reader.proof.proven.times().map(|(oldest, _)| oldest);
        self.report.unreadable += found.unreadable;
        if let Some(because) = &found.unreadable_because {
            let because = because.duplicate();
            self.report.unreadable_because.get_or_insert(because);
        }
        if found.vanished > 0 {
            self.report.notes.push(format!(
                "{} files of WAL were deleted while it ran",
                found.vanished
            ));
        }
        for bad in &found.bad {
            self.note_file(bad.segment.into(), bad.damage.clone(), None);
        }
        for (name, damage) in &found.harmless {
            let is_known = |one: &DamagedSegment| one.damage.object == damage.object;
            if !self.segments.iter().any(is_known) {
                self.others.push((*name, damage.clone()));
            }
        }
        for damage in &reader.proof.damaged {
            if let Some(name) = wale_format::layout::wal_claim(&damage.object) {
                self.note_file(name, damage.clone(), reader.known.at);
            }
        }
        let told = found.bad.len() + found.harmless.len();
        self.report.findings_count += found.damaged_count.saturating_sub(told as u64);
    }

    /// Says what each damage means. Gives the segments that are missing.
    async fn judge(&mut self) -> Result<Vec<Damage>> {
        self.drop_deleted().await?;
        let damaged: BTreeSet<usize> = self.backups.iter().map(|one| one.index).collect();
        let stock = Arc::clone(&self.stock);
        let mut places = stock
            .places(self.archive, |index| damaged.contains(&index))
            .await?;
        let missing = self.missing(&mut places).await?;
        let mut holes = missing.clone();
        holes.extend(self.segments.iter().filter_map(|one| {
            let number = one.segment.number(stock.size).ok()?;
            Some(Hole {
                timeline: one.segment.timeline(),
                first: number,
                last: number,
            })
        }));
        let world = World {
            places: &places,
            holes: &holes,
        };
        self.tell_backups(&world).await?;
        self.tell_segments(&world).await?;
        self.tell_others();
        let told = self.tell_missing(&world, &missing).await?;
        self.tell_lost_history(&places).await?;
        Ok(told)
    }

    /// Looks whether the damage that was noted is there still. It fails nothing: it is found again.
    async fn keep_damage(&mut self) {
        for (index, found, noted_at) in std::mem::take(&mut self.remembered) {
            let entry = &self.stock.catalog.backups[index];
            let kept = self
                .archive
                .keep_damage(entry, (self.began, noted_at), found);
            if let Err(error) = kept.await {
                self.report.not_remembered.get_or_insert(error.chain());
            }
        }
    }

    /// What was deleted meanwhile is not damaged.
    async fn drop_deleted(&mut self) -> Result<()> {
        let mut left = Vec::new();
        for one in std::mem::take(&mut self.backups) {
            if is_gone(self.archive, &self.stock.catalog.backups[one.index]).await? {
                self.report.backups[one.index].state = BackupState::Gone;
            } else {
                left.push(one);
            }
        }
        self.backups = left;
        Ok(())
    }

    /// The segments that backups need and the archive does not have. Places of backups that were deleted meanwhile go.
    async fn missing(&self, places: &mut Vec<BackupSpot>) -> Result<Vec<Hole>> {
        let of = |places: &[BackupSpot]| {
            let legs = places
                .iter()
                .flat_map(|one| one.own.iter().chain(&one.legs));
            merged(legs.flat_map(|leg| self.stock.lines.missing(leg)).collect())
        };
        if of(places).is_empty() && self.segments.is_empty() {
            return Ok(Vec::new());
        }
        let mut there = Vec::new();
        for place in std::mem::take(places) {
            let entry = self.stock.catalog.find(&place.name);
            if let Some(entry) = entry
                && !is_gone(self.archive, entry).await?
            {
                there.push(place);
            }
        }
        *places = there;
        let mut missing = Vec::new();
        for mut hole in of(places) {
            // A listing may be behind: by its name each segment from the first on is asked for, until one is not there.
            while hole.first <= hole.last
                && let Some(name) = self.segment((hole.timeline, hole.first))
                && self.archive.find_wal(&name.into()).await?.is_some()
            {
                hole.first += 1;
            }
            if hole.first <= hole.last {
                missing.push(hole);
            }
        }
        Ok(missing)
    }

    fn segment(&self, (timeline, number): Position) -> Option<WalSegmentName> {
        WalSegmentName::from_number(timeline, number, self.stock.size).ok()
    }

    /// A segment with the time at which it was stored.
    async fn moment(&self, position: Option<Position>) -> Result<Option<Moment>> {
        let Some(segment) = position.and_then(|position| self.segment(position)) else {
            return Ok(None);
        };
        let stored = self.archive.find_wal(&segment.into()).await?;
        Ok(Some(Moment {
            segment,
            stored: stored.map(|stored| stored.modified),
        }))
    }

    fn tell(&mut self, finding: Finding) {
        self.report.findings_count += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    async fn tell_backups(&mut self, world: &World<'_>) -> Result<()> {
        let stock = Arc::clone(&self.stock);
        let mut told_of = BTreeSet::new();
        for one in std::mem::take(&mut self.backups) {
            let name = &stock.catalog.backups[one.index].name;
            let place = world.places.iter().find(|place| place.name == *name);
            let mut meaning = Vec::new();
            if one.damage.object != name.as_str() {
                meaning.push(format!("it is part of backup {name}"));
            }
            match place {
                // What that means for the backup was said at the first of its objects.
                _ if !told_of.insert(one.index) => {}
                Some(place) => {
                    let told = world.of_backup(place);
                    let until = told.covered.as_ref().and_then(|(_, until)| *until);
                    meaning.extend(words::of_backup(&told, self.moment(until).await?));
                }
                None => meaning.push("it cannot be restored".to_owned()),
            }
            self.tell(Finding {
                object: one.damage.object,
                trouble: trouble(one.damage.missing),
                found: one.damage.found,
                meaning,
                as_of: one.as_of,
            });
        }
        Ok(())
    }

    async fn tell_segments(&mut self, world: &World<'_>) -> Result<()> {
        for one in std::mem::take(&mut self.segments) {
            let number = one.segment.number(self.stock.size).unwrap_or_default();
            let hole = Hole {
                timeline: one.segment.timeline(),
                first: number,
                last: number,
            };
            let meaning = self.meaning(world, &hole).await?;
            self.tell(Finding {
                object: one.damage.object,
                trouble: DamageKind::Damaged,
                found: one.damage.found,
                meaning,
                as_of: one.as_of,
            });
        }
        Ok(())
    }

    async fn meaning(&self, world: &World<'_>, hole: &Hole) -> Result<Vec<String>> {
        let told = world.of_hole(hole);
        let last = told.ends.as_ref().and_then(|ends| ends.last);
        Ok(words::of_hole(&told, self.moment(last).await?))
    }

    fn tell_others(&mut self) {
        for (name, damage) in std::mem::take(&mut self.others) {
            self.tell(Finding {
                object: damage.object,
                trouble: DamageKind::Damaged,
                found: damage.found,
                meaning: vec![words::of_file(&name)],
                as_of: None,
            });
        }
    }

    async fn tell_missing(&mut self, world: &World<'_>, holes: &[Hole]) -> Result<Vec<Damage>> {
        let mut told = Vec::new();
        for hole in holes {
            let (Some(first), Some(last)) = (
                self.segment((hole.timeline, hole.first)),
                self.segment((hole.timeline, hole.last)),
            ) else {
                continue;
            };
            let object = if first == last {
                first.to_string()
            } else {
                format!("{first} to {last}")
            };
            if world.of_hole(hole).is_left_out {
                self.report.notes.push(format!(
                    "WAL {object} is not there, between a backup's own and the next backup, as a retention leaves it: no \
                     moment in between can be recovered"
                ));
                continue;
            }
            let count = hole.last - hole.first + 1;
            let found = match count {
                1 => "the segment is not in the archive".to_owned(),
                _ => format!("{count} segments are not in the archive"),
            };
            let meaning = self.meaning(world, hole).await?;
            told.push(Damage {
                object: object.clone(),
                found: found.clone(),
                missing: true,
            });
            self.tell(Finding {
                object,
                trouble: DamageKind::Missing,
                found,
                meaning,
                as_of: None,
            });
        }
        Ok(told)
    }

    /// A history that a recovery from the newest backup asks for, and that is not there.
    async fn tell_lost_history(&mut self, places: &[BackupSpot]) -> Result<()> {
        let Some(newest) = places.iter().max_by_key(|place| place.ended) else {
            return Ok(());
        };
        let timeline = newest.name.segment().timeline();
        let histories = match self.archive.later_histories(timeline).await {
            Ok(histories) => histories,
            // Told as damage, where content was read.
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {
                self.report.notes.push(error.chain());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let Some(lost) = self.archive.lost_history(timeline, &histories).await? else {
            return Ok(());
        };
        let name = lost.name();
        self.tell(Finding {
            object: name.to_string(),
            trouble: DamageKind::Missing,
            found: format!(
                "it is not in the archive; {} shows that it existed",
                lost.witness
            ),
            meaning: vec![words::of_file(&name)],
            as_of: None,
        });
        Ok(())
    }
}

const fn trouble(missing: bool) -> DamageKind {
    if missing {
        DamageKind::Missing
    } else {
        DamageKind::Damaged
    }
}

/// When the whole of a backup was found good.
fn proven(stock: &Stock, index: usize) -> Option<DateTime<Utc>> {
    stock.proofs[index].as_ref()?.proven()
}
