//! What a copy reports.

use std::time::Duration;

use wale_format::BackupName;

use crate::error::{Kind, OpError};

/// Objects that are named one by one when they could not be copied; the others are counted. 100 × 1 KiB.
const NAMED_MAX: usize = 100;

/// What became of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupFate {
    /// It is listed at the destination now.
    Copied,
    /// It was listed there before; what the copy lacked of it was put.
    WasThere,
    /// It would be copied, or gone through again.
    Planned,
    /// It was deleted at the source while the copy ran, or its deletion has begun.
    Gone(String),
    /// It is not listed in the copy, and why.
    Left {
        /// What kind of trouble it is.
        kind: Kind,
        /// Words that follow its name.
        why: String,
    },
}

/// One backup of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLine {
    /// Its name.
    pub name: BackupName,
    /// What became of it.
    pub fate: BackupFate,
    /// What deserves to be known although it was copied, in words that follow its name.
    pub note: Option<String>,
}

/// An object that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The object.
    pub key: String,
    /// The kind: [`Kind::ArchiveConflict`] or [`Kind::CorruptData`].
    pub kind: Kind,
    /// What is wrong, in words that follow the key.
    pub why: String,
}

/// Objects and their stored bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a copy did, or would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CopyReport {
    /// Where it was copied from.
    pub source: String,
    /// Where to.
    pub destination: String,
    /// The backups, in the order in which they were copied.
    pub backups: Vec<BackupLine>,
    /// What was put; in a dry run what would be.
    pub copied: Sum,
    /// What was there before.
    pub there: Sum,
    /// WAL files and histories among both.
    pub wal: Sum,
    /// WAL that the source lost while the copy ran.
    pub vanished: u64,
    /// Backups of the source without a sentinel: being written, or left over.
    pub unfinished: u64,
    /// Objects of the source under names that no part of an archive has.
    pub strange: u64,
    /// Objects that could not be copied, the first of them.
    pub troubles: Vec<Trouble>,
    /// How many there are.
    pub troubles_count: u64,
    /// Sentences for the user.
    pub notes: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

impl CopyReport {
    /// Takes note of an object that could not be copied.
    pub(super) fn trouble(&mut self, trouble: Trouble) {
        self.troubles_count += 1;
        if self.troubles.len() < NAMED_MAX {
            self.troubles.push(trouble);
        }
    }

    /// Backups that are listed at the destination.
    #[must_use]
    pub fn listed(&self) -> usize {
        let listed =
            |line: &&BackupLine| matches!(line.fate, BackupFate::Copied | BackupFate::WasThere);
        self.backups.iter().filter(listed).count()
    }

    /// Why the copy is not what was asked for; `None` where it is. What the source deleted meanwhile is no failure.
    #[must_use]
    pub fn failure(&self) -> Option<OpError> {
        let left = self.backups.iter().filter_map(|line| match &line.fate {
            BackupFate::Left { kind, why } => Some((*kind, line.name.to_string(), why)),
            _ => None,
        });
        let left: Vec<_> = left.collect();
        let objects = self.troubles_count;
        if left.is_empty() && objects == 0 {
            return None;
        }
        let troubles = self.troubles.iter();
        let troubles = troubles.map(|trouble| (trouble.kind, trouble.key.clone(), &trouble.why));
        let all: Vec<_> = troubles.chain(left.iter().cloned()).collect();
        // What damage there is comes before what somebody else stored, and that before what a repetition mends.
        let rank = |kind: Kind| match kind {
            Kind::CorruptData => 0,
            Kind::ArchiveConflict => 1,
            _ => 2,
        };
        let kind = all
            .iter()
            .map(|(kind, ..)| *kind)
            .min_by_key(|kind| rank(*kind))?;
        let lines = all.iter().take(NAMED_MAX);
        let lines: Vec<String> = lines
            .map(|(_, what, why)| format!("{what} {why}."))
            .collect();
        let message = format!(
            "the copy at {} is not complete: {} of {} backups and {objects} objects could not be copied",
            self.destination,
            left.len(),
            self.backups.len(),
        );
        let hint = match kind {
            Kind::CorruptData => {
                "the source or the copy is damaged where it is named; a backup that is damaged at the source is left out with \
                 --backup, or deleted there"
            }
            Kind::ArchiveConflict => {
                "nothing was overwritten: find out who wrote there, remove it, or copy to an empty place"
            }
            Kind::NotFound => "choose another backup: backup-list prints what the source has",
            _ => "run the copy again",
        };
        Some(
            OpError::new(kind, message)
                .detail(lines.join("\n"))
                .hint(hint),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fates: &[BackupFate]) -> CopyReport {
        let name = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
        let line = |fate: &BackupFate| BackupLine {
            name: name.clone(),
            fate: fate.clone(),
            note: None,
        };
        CopyReport {
            destination: "memory".to_owned(),
            backups: fates.iter().map(line).collect(),
            ..CopyReport::default()
        }
    }

    fn left(kind: Kind) -> BackupFate {
        let why = "is like that".to_owned();
        BackupFate::Left { kind, why }
    }

    #[test]
    fn the_worst_decides_the_status_and_what_is_gone_does_not_count() {
        let gone = BackupFate::Gone("x".to_owned());
        assert!(
            report(&[BackupFate::Copied, BackupFate::WasThere, gone])
                .failure()
                .is_none()
        );
        for (fates, kind) in [
            (&[left(Kind::Busy)][..], Kind::Busy),
            (
                &[left(Kind::Busy), left(Kind::ArchiveConflict)],
                Kind::ArchiveConflict,
            ),
            (
                &[left(Kind::ArchiveConflict), left(Kind::CorruptData)],
                Kind::CorruptData,
            ),
        ] {
            let error = report(fates).failure().unwrap();
            assert_eq!(error.kind, kind);
            assert!(
                error
                    .detail
                    .unwrap()
                    .contains("base_000000010000000000000002_00000040 is like that.")
            );
        }
    }

    #[test]
    fn objects_are_named_up_to_a_bound_and_counted_beyond() {
        let mut report = report(&[BackupFate::Copied]);
        for number in 0..NAMED_MAX + 5 {
            report.trouble(Trouble {
                key: format!("k{number}"),
                kind: Kind::ArchiveConflict,
                why: "differs".to_owned(),
            });
        }
        assert_eq!(report.troubles.len(), NAMED_MAX);
        let error = report.failure().unwrap();
        assert!(error.message.contains("105 objects"), "{}", error.message);
    }
}
