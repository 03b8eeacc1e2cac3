//! WAL-G's delta backups: which backups one builds on, whether they fit together, and what each of them brings. Pure.
//!
//! A delta holds what changed since its parent: files as a whole, pages of files, and for the rest no more than names. The
//! last backup of a chain is a full one. WAL-G itself asks neither whether the parent lies on an abandoned timeline nor
//! whether all the lists are there, and then restores wrong data without a word.

use wale_format::{BackupName, Sentinel};

use crate::described::{ExpectedNames, ListedMember};
use crate::error::{Kind, OpError, Result};
use crate::lineage::{EndPosition, Lineage};
use crate::{BackupEntry, Catalog, SentinelRecord};

/// Backups that one builds on, at most: WAL-G's users take some ten deltas of a full backup.
const PARENTS_MAX: usize = 1000;

impl BackupEntry {
    /// Whether it is a delta backup of WAL-G's, by its name or its record.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.name.is_delta() || self.readable().is_some_and(Sentinel::is_delta)
    }
}

/// The backups that `entry` builds on, its parent first and a full backup last; none for a full backup.
///
/// # Errors
///
/// [`Kind::CorruptData`] when one of them is not there, or they do not fit together.
pub(crate) fn parents<'c>(
    catalog: &'c Catalog,
    entry: &'c BackupEntry,
    lineage: &Lineage,
) -> Result<Vec<&'c BackupEntry>> {
    let mut parents = Vec::new();
    let mut child = entry;
    let broken = |child: &BackupEntry, why: String, parents: &[&BackupEntry]| {
        refused(catalog, entry, child, &why, parents, lineage)
    };
    while child.is_delta() {
        if parents.len() == PARENTS_MAX {
            let why = format!("it builds on more than {PARENTS_MAX} others");
            return Err(broken(entry, why, &parents));
        }
        let parent = match parent_of(catalog, child) {
            Ok(parent) => parent,
            Err(why) => return Err(broken(child, why, &parents)),
        };
        if let Err(why) = check_link(child, parent, lineage) {
            return Err(broken(child, why, &parents));
        }
        parents.push(parent);
        child = parent;
    }
    Ok(parents)
}

/// The backup of which a delta holds the changes.
fn parent_of<'c>(catalog: &'c Catalog, child: &BackupEntry) -> Result<&'c BackupEntry, String> {
    let named = child
        .readable()
        .and_then(|record| record.delta_from.as_deref());
    let Some(named) = named else {
        return Err("its record does not say which backup it is based on".to_owned());
    };
    let found = BackupName::parse(named).ok();
    let found = found.and_then(|name| catalog.find(&name));
    found.ok_or_else(|| format!("the archive has no backup {named}, which it is based on"))
}

/// Whether a delta holds what changed since just this backup.
fn check_link(child: &BackupEntry, parent: &BackupEntry, lineage: &Lineage) -> Result<(), String> {
    let name = &parent.name;
    let (newer, older) = match (&child.sentinel, &parent.sentinel) {
        (SentinelRecord::Readable(newer), SentinelRecord::Readable(older)) => (newer, older),
        (_, SentinelRecord::Damaged(reason)) => {
            return Err(format!(
                "the record of {name}, which it is based on, cannot be used ({reason})"
            ));
        }
        (SentinelRecord::Damaged(reason), _) => return Err(reason.clone()),
    };
    let since = newer.parent_lsn();
    let (Some(start), Some(stop), Some(begins)) =
        (older.start_lsn(), older.stop_lsn(), newer.start_lsn())
    else {
        return Err(format!(
            "it is not recorded where {name}, which it is based on, and it itself begin and end"
        ));
    };
    if since != Some(start) {
        let since = since.map_or_else(|| "nowhere".to_owned(), |since| since.to_string());
        return Err(format!(
            "it holds what changed since {since}, and {name}, which it is based on, begins at {start}"
        ));
    }
    if begins < stop {
        return Err(format!(
            "it begins at {begins}, before {name}, which it is based on, ends at {stop}"
        ));
    }
    if let (Some(one), Some(other)) = (newer.system_identifier, older.system_identifier)
        && one != other
    {
        return Err(format!(
            "{name}, which it is based on, is another cluster's"
        ));
    }
    let end = EndPosition {
        timeline: name.segment().timeline(),
        at: Some(stop),
    };
    let own = child.name.segment().timeline();
    match lineage.leads(end, own) {
        Some(true) => Ok(()),
        // WAL-G does not ask. Pages that changed before the fork would come from the branch that was left, and those that
        // changed after it, but before the parent's position, would be missing.
        Some(false) => Err(format!(
            "{name}, which it is based on, is of another past: {}",
            lineage.why_not(end, own)
        )),
        None => Err(format!(
            "whether {name}, which it is based on, is of the same past is not known: {}",
            lineage.why_not(end, own)
        )),
    }
}

fn refused(
    catalog: &Catalog,
    entry: &BackupEntry,
    child: &BackupEntry,
    why: &str,
    parents: &[&BackupEntry],
    lineage: &Lineage,
) -> OpError {
    let name = &entry.name;
    let why = if child.name == *name {
        why.to_owned()
    } else {
        format!("of backup {}, on which it builds: {why}", child.name)
    };
    let error = OpError::new(
        Kind::CorruptData,
        format!("delta backup {name} cannot be restored: {why}"),
    )
    .detail("Its files would be a mixture of states that never were; no reader can repair it.");
    // A full backup from which the WAL leads to where this one is, the newest before it.
    let to = name.segment().timeline();
    let before = catalog.backups.iter().rev().filter(|one| {
        let stop = one.readable().and_then(Sentinel::stop_lsn);
        let end = EndPosition {
            timeline: one.name.segment().timeline(),
            at: stop,
        };
        !one.is_delta()
            && stop.is_some()
            && one.time <= entry.time
            && lineage.leads(end, to) == Some(true)
    });
    let own = parents.iter().copied().filter(|one| !one.is_delta());
    let Some(full) = before.chain(own).next() else {
        return error.hint("restore a full backup; the WAL leads on from there");
    };
    error.hint(format!(
        "restore {}, a full backup: the WAL leads from there to timeline {to}",
        full.name
    ))
}

/// The error for a backup of a chain that has no list of its files.
pub fn lacks_list(name: &BackupName) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!(
            "backup {name} was made without a list of its files, and without it nobody knows what a chain of delta backups \
             holds"
        ),
    )
    .hint("restore a full backup; the WAL leads on from there")
}

/// What each backup of a chain brings, of the lists of all, the newest first.
///
/// # Errors
/// What does not fit together: the position of the backup in `lists`, and why.
pub fn deliveries(
    lists: Vec<Vec<ListedMember>>,
) -> std::result::Result<Vec<ExpectedNames>, (usize, String)> {
    let oldest = lists.len().saturating_sub(1);
    let mut wanted: Option<Vec<ListedMember>> = None;
    let mut all = Vec::with_capacity(lists.len());
    for (position, list) in lists.into_iter().enumerate() {
        let listed = ExpectedNames::new(list);
        let here = match wanted.take() {
            // All that the newest lists is in the result, and nothing else.
            None => listed,
            Some(wanted) => {
                let missing = || {
                    (
                        position,
                        "its list lacks a file that a later one builds on".to_owned(),
                    )
                };
                let found = wanted.into_iter().map(|member| {
                    let delivery = listed.delivery_of_digest(member.name)?;
                    Some(ListedMember { delivery, ..member })
                });
                let found: Option<Vec<ListedMember>> = found.collect();
                ExpectedNames::new(found.ok_or_else(missing)?)
            }
        };
        let below = here.not_whole();
        if position == oldest && !below.is_empty() {
            let why = "it is a full backup, and its list names files as unchanged";
            return Err((position, why.to_owned()));
        }
        all.push(here);
        wanted = Some(below);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::described::Delivery::{self, Elsewhere, Increment, Whole};
    use crate::described::NameDigest;

    fn list(members: &[(&str, Delivery)]) -> Vec<ListedMember> {
        let member = |&(name, delivery): &(&str, Delivery)| ListedMember {
            name: NameDigest::of(name),
            delivery,
        };
        members.iter().map(member).collect()
    }

    #[test]
    fn each_file_comes_from_the_newest_backup_that_has_it_whole_and_pages_from_the_later_ones() {
        let newest = list(&[
            ("same", Elsewhere),
            ("pages", Increment),
            ("new", Whole),
            ("folder", Whole),
        ]);
        let middle = list(&[
            ("same", Elsewhere),
            ("pages", Elsewhere),
            ("gone", Whole),
            ("new", Whole),
        ]);
        let full = list(&[
            ("same", Whole),
            ("pages", Whole),
            ("gone", Whole),
            ("new", Whole),
        ]);
        let layers = deliveries(vec![newest, middle, full]).unwrap();
        let names = ["same", "pages", "new", "folder", "gone"];
        let of = |layer: &ExpectedNames| names.map(|name| layer.delivery_of(name));
        assert_eq!(
            of(&layers[0]),
            [
                Some(Elsewhere),
                Some(Increment),
                Some(Whole),
                Some(Whole),
                None
            ]
        );
        assert_eq!(
            of(&layers[1]),
            [Some(Elsewhere), Some(Elsewhere), None, None, None]
        );
        assert_eq!(of(&layers[2]), [Some(Whole), Some(Whole), None, None, None]);
        let missing: Vec<usize> = layers.iter().map(ExpectedNames::missing).collect();
        assert_eq!(missing, [3, 0, 2]);
    }

    #[test]
    fn a_file_that_became_another_in_between_is_taken_from_there() {
        let newest = list(&[("a", Increment)]);
        let middle = list(&[("a", Whole)]);
        let full = list(&[("a", Whole)]);
        let layers = deliveries(vec![newest, middle, full]).unwrap();
        assert_eq!(layers[1].delivery_of("a"), Some(Whole));
        assert_eq!((layers[2].delivery_of("a"), layers[2].count()), (None, 0));
    }

    #[test]
    fn a_chain_in_which_a_file_is_nowhere_whole_is_refused() {
        for (lists, position) in [
            (vec![list(&[("a", Elsewhere)]), list(&[("b", Whole)])], 1),
            (
                vec![list(&[("a", Increment)]), list(&[("a", Elsewhere)])],
                1,
            ),
            (vec![list(&[("a", Elsewhere)])], 0),
            (
                vec![list(&[("a", Increment)]), list(&[]), list(&[("a", Whole)])],
                1,
            ),
        ] {
            assert_eq!(deliveries(lists).unwrap_err().0, position);
        }
        assert_eq!(deliveries(vec![list(&[("a", Whole)])]).unwrap().len(), 1);
    }
}
