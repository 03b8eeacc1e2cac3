//! The backup label: where recovery from a base backup begins.
//!
//! The text is PostgreSQL's (`build_backup_content` in `src/backend/access/transam/xlogbackup.c`, before 15 in
//! `xlog.c`). It is stored in the backup byte for byte as the server returned it; this decodes it, never prints it.

use crate::lsn::Lsn;
use crate::text_form::{excerpt, parse_plain_decimal};
use crate::timeline::TimelineId;
use crate::wal_segment::WalSegmentName;

/// What a backup label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where recovery begins: the redo position of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The segment of that position.
    pub start_segment: WalSegmentName,
    /// The position of the checkpoint record.
    pub checkpoint_lsn: Lsn,
    /// The kind of server.
    pub backup_from: BackupFrom,
    /// When the backup began, as the server prints it in its own `log_timezone`.
    pub start_time: String,
    /// The name given to the backup.
    pub label: String,
    /// The timeline, written from 11 on; always that of the segment.
    pub start_timeline: Option<TimelineId>,
}

/// The kind of server a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupFrom {
    /// A primary; up to 13 the text calls it master.
    Primary,
    /// A standby.
    Standby,
}

impl BackupLabel {
    /// Reads a label. Lines it does not know are passed over, as new versions add some.
    ///
    /// # Errors
    /// When a line is missing or damaged, or the label is one of an incremental backup.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        // The label itself is the user's text: only the first line of each kind is PostgreSQL's.
        let line = |key: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        let required = |key: &'static str| line(key).ok_or(BackupLabelError::Missing { line: key });
        let damaged = |key: &'static str, value: &str| BackupLabelError::Damaged {
            line: key,
            value: excerpt(value),
        };

        if line("INCREMENTAL FROM LSN").is_some() {
            return Err(BackupLabelError::Incremental);
        }
        let start = required(START)?;
        let (start_lsn, start_segment) = parse_start(start).ok_or_else(|| damaged(START, start))?;
        let checkpoint = required(CHECKPOINT)?;
        let from = required(FROM)?;
        let start_timeline = match line(TIMELINE) {
            Some(value) => {
                let timeline = parse_plain_decimal(value).and_then(TimelineId::new);
                let timeline = timeline.ok_or_else(|| damaged(TIMELINE, value))?;
                if timeline != start_segment.timeline() {
                    return Err(damaged(TIMELINE, value));
                }
                Some(timeline)
            }
            None => None,
        };
        Ok(Self {
            start_lsn,
            start_segment,
            checkpoint_lsn: Lsn::parse(checkpoint).map_err(|_| damaged(CHECKPOINT, checkpoint))?,
            backup_from: match from {
                "primary" | "master" => BackupFrom::Primary,
                "standby" => BackupFrom::Standby,
                other => return Err(damaged(FROM, other)),
            },
            start_time: required("START TIME")?.to_owned(),
            label: required("LABEL")?.to_owned(),
            start_timeline,
        })
    }

    /// The timeline the backup was taken on.
    pub const fn timeline(&self) -> TimelineId {
        self.start_segment.timeline()
    }
}

const START: &str = "START WAL LOCATION";
const CHECKPOINT: &str = "CHECKPOINT LOCATION";
const FROM: &str = "BACKUP FROM";
const TIMELINE: &str = "START TIMELINE";

/// `0/2000028 (file 000000010000000000000002)`
fn parse_start(value: &str) -> Option<(Lsn, WalSegmentName)> {
    let (lsn, file) = value.split_once(' ')?;
    let segment = file.strip_prefix("(file ")?.strip_suffix(')')?;
    Some((Lsn::parse(lsn).ok()?, WalSegmentName::parse_exact(segment)?))
}

/// Why a text is not a backup label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is not there.
    #[error("the backup label has no line {line:?}")]
    Missing {
        /// The beginning of the line.
        line: &'static str,
    },
    /// A line says what it cannot say.
    #[error("the backup label says {line:?} {value:?}")]
    Damaged {
        /// The beginning of the line.
        line: &'static str,
        /// The rest of it, shortened.
        value: String,
    },
    /// The label of an incremental backup: a server does not start on it before `pg_combinebackup`.
    #[error("the backup label is that of an incremental backup")]
    Incremental,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `pg_stop_backup` of 10.23 returned it.
    const FROM_10: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\n\
        BACKUP FROM: master\n\
        START TIME: 2026-11-23 15:53:11 UTC\n\
        LABEL: a label\n";

    /// As `pg_backup_stop` of 18.4 returned it.
    const FROM_18: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000080\n\
        BACKUP METHOD: streamed\n\
        BACKUP FROM: primary\n\
        START TIME: 2026-11-23 15:53:18 UTC\n\
        LABEL: a label\n\
        START TIMELINE: 1\n";

    #[test]
    fn labels_of_real_servers() {
        let from_10 = BackupLabel::parse(FROM_10).unwrap();
        let expected = BackupLabel {
            start_lsn: Lsn::new(0x200_0028),
            start_segment: WalSegmentName::parse("000000010000000000000002").unwrap(),
            checkpoint_lsn: Lsn::new(0x200_0060),
            backup_from: BackupFrom::Primary,
            start_time: "2026-11-23 15:53:11 UTC".to_owned(),
            label: "a label".to_owned(),
            start_timeline: None,
        };
        assert_eq!(from_10, expected);
        let expected = BackupLabel {
            checkpoint_lsn: Lsn::new(0x200_0080),
            start_time: "2026-11-23 15:53:18 UTC".to_owned(),
            start_timeline: Some(TimelineId::FIRST),
            ..expected
        };
        assert_eq!(BackupLabel::parse(FROM_18), Ok(expected));
    }

    #[test]
    fn variants() {
        let standby = BackupLabel::parse(&FROM_18.replace("primary", "standby")).unwrap();
        assert_eq!(standby.backup_from, BackupFrom::Standby);
        let empty = BackupLabel::parse(&FROM_18.replace("a label", "")).unwrap();
        assert_eq!(empty.label, "");
        let carriage_returns = BackupLabel::parse(&FROM_18.replace('\n', "\r\n")).unwrap();
        assert_eq!(carriage_returns.label, "a label");
        let spoofed = FROM_18.replace("a label", "x\nBACKUP FROM: standby\nSTART TIME: never");
        assert_eq!(
            BackupLabel::parse(&spoofed).unwrap().backup_from,
            BackupFrom::Primary
        );
    }

    #[test]
    fn every_line_is_needed() {
        for line in [
            "START WAL LOCATION",
            "CHECKPOINT LOCATION",
            "BACKUP FROM",
            "START TIME",
            "LABEL",
        ] {
            let without: String = FROM_18
                .split_inclusive('\n')
                .filter(|text| !text.starts_with(&format!("{line}:")))
                .collect();
            assert_eq!(
                BackupLabel::parse(&without),
                Err(BackupLabelError::Missing { line })
            );
        }
    }

    #[test]
    fn damaged_lines_are_refused() {
        for (from, to) in [
            ("0/2000028", "2000028"),
            ("(file 0", "(file "),
            ("000002)", "000002"),
            ("0/2000080", "0/"),
            ("primary", "mother"),
            ("START TIMELINE: 1", "START TIMELINE: 0"),
            ("START TIMELINE: 1", "START TIMELINE: 2"),
            ("START TIMELINE: 1", "START TIMELINE: one"),
        ] {
            let result = BackupLabel::parse(&FROM_18.replace(from, to));
            assert!(
                matches!(result, Err(BackupLabelError::Damaged { .. })),
                "{to:?}: {result:?}"
            );
        }
        let incremental =
            format!("{FROM_18}INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!(
            BackupLabel::parse(&incremental),
            Err(BackupLabelError::Incremental)
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, cut in 0..FROM_18.len()) {
            let _ = BackupLabel::parse(&text);
            let _ = BackupLabel::parse(&FROM_18[..cut]);
        }
    }
}
