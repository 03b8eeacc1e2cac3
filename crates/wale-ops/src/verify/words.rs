//! What damage means, in sentences. Pure.

use chrono::{DateTime, Utc};
use wale_pg::{ArchiveFileName, WalSegmentName};

use super::meaning::{BackupMeaning, HoleMeaning, Next};

/// A segment, and when it was stored: nothing in it is younger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) segment: WalSegmentName,
    pub(super) stored: Option<DateTime<Utc>>,
}

impl Moment {
    fn words(self) -> String {
        match self.stored {
            Some(stored) => format!("{} (the end of {})", shown(stored), self.segment),
            None => format!("the end of {}", self.segment),
        }
    }
}

/// A time for a person, to the second.
fn shown(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S+00").to_string()
}

/// The moments that are lost from one on.
fn lost(from: &str, next: Option<&Next>) -> String {
    match next {
        Some(next) => format!(
            "moments from {from} until the end of backup {} ({}) cannot be recovered",
            next.name,
            shown(next.ended)
        ),
        None => format!("nothing after {from} can be recovered: take a base backup now"),
    }
}

/// What a hole in the WAL means; `last` is the last segment before it.
pub(super) fn of_hole(meaning: &HoleMeaning, last: Option<Moment>) -> Vec<String> {
    let mut told: Vec<String> = meaning
        .cripples
        .iter()
        .map(|name| format!("backup {name} needs it to become consistent: it cannot be restored"))
        .collect();
    match (&meaning.ends, last) {
        (Some(ends), Some(last)) => {
            let last = last.words();
            told.push(format!(
                "from backup {} one can recover to {last}",
                ends.from
            ));
            told.push(lost(&last, meaning.next.as_ref()));
        }
        (Some(ends), None) => {
            let from = format!("the end of backup {}", ends.from);
            told.push(lost(&from, meaning.next.as_ref()));
        }
        (None, _) if !meaning.cripples.is_empty() => {
            told.push(match &meaning.next {
                Some(next) => format!(
                    "the first moment after it that can be recovered is the end of backup {} ({})",
                    next.name,
                    shown(next.ended)
                ),
                None => "nothing after it can be recovered: take a base backup now".to_owned(),
            });
        }
        (None, _) if meaning.is_on_a_way => told.push(
            "no backup that can be restored leads to it: every recovery ends before it".to_owned(),
        ),
        (None, _) => told
            .push("no base backup needs it: no moment is lost that could be recovered".to_owned()),
    }
    told
}

/// What it means that a backup cannot be restored; `until` is where the recovery that takes its place ends, if it does.
pub(super) fn of_backup(meaning: &BackupMeaning, until: Option<Moment>) -> Vec<String> {
    let mut told = vec!["it cannot be restored".to_owned()];
    let ended = format!("its end ({})", shown(meaning.ended));
    match (&meaning.covered, until) {
        (Some((name, None)), _) => told.push(format!(
            "moments from {ended} on are recovered from backup {name} before it, which replays more WAL"
        )),
        (Some((name, Some(_))), Some(until)) => {
            let until = until.words();
            told.push(format!(
                "moments from {ended} to {until} are recovered from backup {name} before it"
            ));
            told.push(lost(&until, meaning.next.as_ref()));
        }
        (Some((name, Some(_))), None) => told.push(format!(
            "backup {name} before it leads over it, and not to the end of the WAL"
        )),
        (None, _) => told.push(lost(&ended, meaning.next.as_ref())),
    }
    told
}

/// What it means that a file of WAL is damaged or missing, without which recoveries go on, or from which they do not read.
pub(super) fn of_file(name: &ArchiveFileName) -> String {
    match name {
        ArchiveFileName::Segment(_) => {
            "another object of the archive holds the segment whole: a fetch takes that one"
                .to_owned()
        }
        ArchiveFileName::TimelineHistory(timeline) => format!(
            "a recovery that follows timeline {timeline}, or one that grew out of it, stops where it asks for it; a server of \
             that timeline has it in pg_wal"
        ),
        ArchiveFileName::Partial(_) => {
            "no recovery reads it: it holds what a server alone wrote on a timeline that was left"
                .to_owned()
        }
        ArchiveFileName::BackupHistory { .. } => {
            "no recovery reads it: it is PostgreSQL's note of a backup".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use wale_format::BackupName;

    use super::super::meaning::RecoveryEnd;
    use super::*;

    fn name(number: u32) -> BackupName {
        BackupName::parse(&format!("base_0000000100000000{number:08X}_00000040")).expect("a name")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn next() -> Next {
        Next {
            name: name(9),
            ended: at("2026-03-02T00:00:00Z"),
        }
    }

    fn moment() -> Moment {
        Moment {
            segment: WalSegmentName::parse("000000010000000000000006").expect("a name"),
            stored: Some(at("2026-03-01T12:00:00Z")),
        }
    }

    #[test]
    fn a_hole_is_told_with_the_moments_that_are_lost() {
        let ends = HoleMeaning {
            ends: Some(RecoveryEnd {
                from: name(5),
                last: None,
            }),
            next: Some(next()),
            is_on_a_way: true,
            ..HoleMeaning::default()
        };
        assert_eq!(
            of_hole(&ends, Some(moment())),
            [
                "from backup base_000000010000000000000005_00000040 one can recover to 2026-03-01 12:00:00+00 (the end of \
                 000000010000000000000006)",
                "moments from 2026-03-01 12:00:00+00 (the end of 000000010000000000000006) until the end of backup \
                 base_000000010000000000000009_00000040 (2026-03-02 00:00:00+00) cannot be recovered"
            ]
        );
        let last = HoleMeaning { next: None, ..ends };
        assert_eq!(
            of_hole(&last, Some(moment()))[1],
            "nothing after 2026-03-01 12:00:00+00 (the end of 000000010000000000000006) can be recovered: take a base backup now"
        );
        let cripples = HoleMeaning {
            cripples: vec![name(5)],
            ends: None,
            ..last
        };
        assert_eq!(
            of_hole(&cripples, None),
            [
                "backup base_000000010000000000000005_00000040 needs it to become consistent: it cannot be restored",
                "nothing after it can be recovered: take a base backup now"
            ]
        );
        let nobodys = of_hole(&HoleMeaning::default(), None);
        assert!(nobodys[0].contains("no moment is lost"), "{nobodys:?}");
        let behind = HoleMeaning {
            is_on_a_way: true,
            ..HoleMeaning::default()
        };
        assert!(of_hole(&behind, None)[0].contains("ends before it"));
    }

    #[test]
    fn a_damaged_backup_is_told_with_what_takes_its_place() {
        let covered = |until: Option<wale_pg::TimelineId>| BackupMeaning {
            ended: at("2026-03-01T00:00:00Z"),
            covered: Some((name(2), until.map(|line| (line, 6)))),
            next: Some(next()),
        };
        let told = of_backup(&covered(None), None);
        assert_eq!(told[0], "it cannot be restored");
        assert_eq!(
            told[1],
            "moments from its end (2026-03-01 00:00:00+00) on are recovered from backup \
             base_000000010000000000000002_00000040 before it, which replays more WAL"
        );
        let told = of_backup(&covered(Some(wale_pg::TimelineId::FIRST)), Some(moment()));
        assert!(told[1].contains("to 2026-03-01 12:00:00+00"), "{told:?}");
        assert!(told[2].ends_with("cannot be recovered"), "{told:?}");
        let alone = BackupMeaning {
            covered: None,
            next: None,
            ..covered(None)
        };
        assert_eq!(
            of_backup(&alone, None)[1],
            "nothing after its end (2026-03-01 00:00:00+00) can be recovered: take a base backup now"
        );
    }
}
