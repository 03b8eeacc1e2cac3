//! Where a recovery shall end, and which backups end before that. Pure.
//!
//! A server that recovers from a backup which ended after its target stops at the first commit after the backup, or at its
//! end, and promotes: a later state than was asked for, without a word. So such a backup is refused. Only a time and a
//! position can be compared; where a name or a transaction lies stands in the WAL alone, and the user is told so.

use chrono::{DateTime, Utc};
use wale_cluster::recovery;
use wale_pg::{Lsn, RecoveryTargetKind};

use super::options::BackupSelector;
use crate::archive::{BackupEntry, Catalog};
use crate::error::{Kind, OpError, Result};

/// Where a recovery shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// As PostgreSQL says it.
    pub kind: RecoveryTargetKind,
}

/// Whether a backup ended before the aim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Before,
    After,
    NotKnown,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Time(DateTime<Utc>),
    Position(Lsn),
}

/// What was decided about the backup, for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Sentences that say what was decided.
    pub notes: Vec<String>,
    /// Sentences about what deserves a look.
    pub warnings: Vec<String>,
}

impl Aim {
    /// The aim of added recovery settings, which may be wrong in other places.
    #[must_use]
    pub fn of(recovery_addition: &str) -> Self {
        Self::of_lines(&recovery::read_addition(recovery_addition))
    }

    /// The aim of checked settings.
    #[must_use]
    pub fn of_lines(lines: &[(String, String)]) -> Self {
        Self {
            kind: target_of(lines),
        }
    }

    fn bound(&self) -> Option<Bound> {
        match &self.kind {
            RecoveryTargetKind::Time(text) => recovery::instant(text).map(Bound::Time),
            RecoveryTargetKind::Lsn(lsn) => Some(Bound::Position(*lsn)),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match &self.kind {
            RecoveryTargetKind::Time(text) => format!("the target time {text}"),
            RecoveryTargetKind::Lsn(lsn) => format!("the target position {lsn}"),
            RecoveryTargetKind::Xid(xid) => format!("transaction {xid}"),
            RecoveryTargetKind::Name(name) => format!("the restore point \"{name}\""),
            RecoveryTargetKind::Immediate | RecoveryTargetKind::Latest => "the target".to_owned(),
        }
    }

    /// The newest of `candidates`, newest first, that ends before the aim. Where none is known to, the newest of which it
    /// is not known; `None` where every one ends after the aim, or there is none.
    pub fn newest_before<'a>(
        &self,
        candidates: impl Iterator<Item = &'a BackupEntry>,
    ) -> Option<&'a BackupEntry> {
        let Some(bound) = self.bound() else {
            return candidates.into_iter().next();
        };
        let mut perhaps = None;
        for entry in candidates {
            match ends(entry, bound) {
                Ends::Before => return Some(entry),
                Ends::NotKnown => perhaps = perhaps.or(Some(entry)),
                Ends::After => {}
            }
        }
        perhaps
    }

    /// Judges the chosen backup; `candidates`, newest first, are those that might be named instead.
    ///
    /// # Errors
    ///
    /// [`Kind::Configuration`] when the backup ends after the aim.
    pub fn judge<'a>(
        &self,
        chosen: &BackupEntry,
        candidates: impl Iterator<Item = &'a BackupEntry>,
    ) -> Result<Notes> {
        let mut notes = Notes::default();
        let name = &chosen.name;
        let ended = chosen
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        match (self.bound(), &self.kind) {
            (Some(bound), _) => match ends(chosen, bound) {
                Ends::Before => {}
                Ends::After => return Err(self.refusal(chosen, bound, candidates)),
                Ends::NotKnown => notes.warnings.push(format!(
                    "when backup {name} ended is not recorded; the store has had its record since {ended}: if {} lies before \
                     its end, recovery ends after the target",
                    self.shown()
                )),
            },
            (None, RecoveryTargetKind::Immediate | RecoveryTargetKind::Latest) => {}
            (None, RecoveryTargetKind::Time(_)) => notes.notes.push(format!(
                "only the server can tell when {} is: if that lies before the end of backup {name} at {ended}, name an older \
                 backup; a time in the form 2026-01-31 17:00:00+00 is compared",
                self.shown()
            )),
            (None, _) => notes.notes.push(format!(
                "where {} lies is not known without reading the WAL: if it lies before the end of backup {name} at {ended}, \
                 recovery does not stop there; then name an older backup",
                self.shown()
            )),
        }
        Ok(notes)
    }

    fn refusal<'a>(
        &self,
        chosen: &BackupEntry,
        bound: Bound,
        candidates: impl Iterator<Item = &'a BackupEntry>,
    ) -> OpError {
        let mut before = candidates.filter(|entry| ends(entry, bound) == Ends::Before);
        let error = OpError::new(
            Kind::Configuration,
            format!("backup {} ends after {}", chosen.name, self.shown()),
        )
        .detail(format!(
            "It ended at {}; a recovery from it would go beyond the target.",
            end_of(chosen, bound)
        ));
        match before.next() {
            Some(entry) => error.hint(format!(
                "restore {}, the newest backup that ends before the target (at {}), or LATEST, which means that one here",
                entry.name,
                end_of(entry, bound)
            )),
            None => error.hint("no backup of the archive ends before the target: choose a later target"),
        }
    }
}

/// The refusal of LATEST where every backup ends after the aim.
fn none_before(aim: &Aim, oldest: &BackupEntry, bound: Bound) -> OpError {
    OpError::new(
        Kind::Configuration,
        format!("no backup of the archive ends before {}", aim.shown()),
    )
    .detail(format!(
        "The oldest, {}, ended at {}.",
        oldest.name,
        end_of(oldest, bound)
    ))
    .hint("choose a later target")
}

/// The backup that `LATEST` means with this aim, and what the user should know. `None`: there is no backup at all.
///
/// # Errors
///
/// [`Kind::Configuration`] when every backup ends after the aim.
pub fn latest<'a>(catalog: &'a Catalog, aim: &Aim) -> Result<Option<(&'a BackupEntry, Notes)>> {
    let Some(newest) = candidates(catalog).next() else {
        return Ok(None);
    };
    let Some(entry) = aim.newest_before(candidates(catalog)) else {
        let oldest = candidates(catalog).last().unwrap_or(newest);
        return match aim.bound() {
            Some(bound) => Err(none_before(aim, oldest, bound)),
            None => Ok(None),
        };
    };
    let mut notes = aim.judge(entry, candidates(catalog))?;
    if entry.name != newest.name {
        notes.notes.push(format!(
            "LATEST is backup {} here: it is the newest that ends before {}; the newest of all, {}, ends after it",
            entry.name,
            aim.shown(),
            newest.name
        ));
    }
    Ok(Some((entry, notes)))
}

/// Judges a backup that was named.
///
/// # Errors
///
/// As [`Aim::judge`].
pub fn named(catalog: &Catalog, entry: &BackupEntry, aim: &Aim) -> Result<Notes> {
    aim.judge(entry, candidates(catalog))
}

/// What may be restored, newest first.
fn candidates(catalog: &Catalog) -> impl Iterator<Item = &BackupEntry> {
    let restorable = |entry: &&BackupEntry| entry.readable().is_some() && !entry.name.is_delta();
    catalog.backups.iter().rev().filter(restorable)
}

/// The word for both: `LATEST` chooses, a name is judged.
///
/// # Errors
///
/// As [`latest`] and [`named`].
pub fn of_selector<'a>(
    catalog: &'a Catalog,
    selector: &BackupSelector,
    found: &'a BackupEntry,
    aim: &Aim,
) -> Result<(&'a BackupEntry, Notes)> {
    match selector {
        BackupSelector::Latest => Ok(latest(catalog, aim)?.unwrap_or((found, Notes::default()))),
        BackupSelector::Name(_) => Ok((found, named(catalog, found, aim)?)),
    }
}

fn ends(entry: &BackupEntry, bound: Bound) -> Ends {
    let judged = |before: bool| if before { Ends::Before } else { Ends::After };
    match bound {
        Bound::Time(time) if entry.recorded => judged(entry.time <= time),
        // The record was stored after the backup's end, so this is an upper bound and no more.
        Bound::Time(time) if entry.time <= time => Ends::Before,
        Bound::Time(_) => Ends::NotKnown,
        Bound::Position(position) => entry
            .readable()
            .and_then(wale_format::Sentinel::stop_lsn)
            .map_or(Ends::NotKnown, |end| judged(end <= position)),
    }
}

fn end_of(entry: &BackupEntry, bound: Bound) -> String {
    let position = entry
        .readable()
        .and_then(wale_format::Sentinel::stop_lsn)
        .filter(|_| matches!(bound, Bound::Position(_)));
    match position {
        Some(position) => position.to_string(),
        None => entry
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
    }
}

/// The value of a setting, if it has one that is not empty.
pub(super) fn setting<'a>(lines: &'a [(String, String)], name: &str) -> Option<&'a str> {
    lines
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn target_of(lines: &[(String, String)]) -> RecoveryTargetKind {
    if let Some(time) = setting(lines, "recovery_target_time") {
        return RecoveryTargetKind::Time(time.to_owned());
    }
    if let Some(lsn) = setting(lines, "recovery_target_lsn").and_then(|text| text.parse().ok()) {
        return RecoveryTargetKind::Lsn(lsn);
    }
    if let Some(xid) = setting(lines, "recovery_target_xid").and_then(|text| text.parse().ok()) {
        return RecoveryTargetKind::Xid(xid);
    }
    if let Some(name) = setting(lines, "recovery_target_name") {
        return RecoveryTargetKind::Name(name.to_owned());
    }
    match setting(lines, "recovery_target") {
        Some(_) => RecoveryTargetKind::Immediate,
        None => RecoveryTargetKind::Latest,
    }
}
