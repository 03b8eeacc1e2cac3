//! The names PostgreSQL hands to `archive_command` and `restore_command`.
//!
//! This is the only thing a path from the network may become. The parser accepts four exact forms and nothing else: a
//! value of the type holds no slash, no dot component, no lower-case digit, and is at most 40 bytes long.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::invalid_name::InvalidName;
use crate::text_form::{parse_upper_hex8, serde_as_text};
use crate::timeline::TimelineId;
use crate::wal_segment::WalSegmentName;

/// A file that PostgreSQL archives.
///
/// The order of the type is the order of the texts, which is also the order of keys in a listing; see
/// [`ArchiveFileName::cmp_archiving`] for the order in which a server archives.
///
/// ```
/// use wale_pg::ArchiveFileName;
/// for name in [
///     "000000010000000000000002",
///     "000000010000000000000002.partial",
///     "000000010000000000000002.00000028.backup",
///     "00000002.history",
/// ] {
///     assert_eq!(ArchiveFileName::parse(name).unwrap().to_string(), name);
/// }
/// assert!(ArchiveFileName::parse("../postgresql.conf").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArchiveFileName {
    /// A complete WAL segment.
    Segment(WalSegmentName),
    /// The last, incomplete segment of a timeline that was left at a promotion. It has the full size; recovery never
    /// asks for it, and two promotions from one timeline may write different bytes under one name.
    Partial(WalSegmentName),
    /// The note a server archives at the end of a base backup.
    BackupHistory {
        /// The segment in which the backup began.
        segment: WalSegmentName,
        /// Where in that segment, in bytes.
        offset: u32,
    },
    /// The ancestry of a timeline.
    TimelineHistory(TimelineId),
}

impl ArchiveFileName {
    /// Reads a name from an untrusted source.
    ///
    /// # Errors
    /// When the text is anything but one of the four forms.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Self::parse_exact(text).ok_or_else(|| InvalidName::new(text))
    }

    fn parse_exact(text: &str) -> Option<Self> {
        let Some((stem, suffix)) = text.split_once('.') else {
            return WalSegmentName::parse_exact(text).map(Self::Segment);
        };
        match suffix {
            "partial" => WalSegmentName::parse_exact(stem).map(Self::Partial),
            "history" => parse_upper_hex8(stem)
                .and_then(TimelineId::new)
                .map(Self::TimelineHistory),
            _ => Some(Self::BackupHistory {
                segment: WalSegmentName::parse_exact(stem)?,
                offset: parse_upper_hex8(suffix.strip_suffix(".backup")?)?,
            }),
        }
    }

    /// Whether this is a complete WAL segment.
    pub const fn is_segment(&self) -> bool {
        matches!(self, Self::Segment(_))
    }

    /// The segment in the name; a timeline history file has none.
    pub const fn segment(&self) -> Option<WalSegmentName> {
        match *self {
            Self::Segment(segment)
            | Self::Partial(segment)
            | Self::BackupHistory { segment, .. } => Some(segment),
            Self::TimelineHistory(_) => None,
        }
    }

    /// The timeline in the name.
    pub const fn timeline(&self) -> TimelineId {
        match self {
            Self::TimelineHistory(timeline) => *timeline,
            Self::Segment(segment)
            | Self::Partial(segment)
            | Self::BackupHistory { segment, .. } => segment.timeline(),
        }
    }

    /// The order in which a server archives: timeline history files before all others, otherwise by name
    /// (`src/backend/postmaster/pgarch.c`, `ready_file_comparator`, 12 and later).
    pub fn cmp_archiving(&self, other: &Self) -> Ordering {
        let late = |name: &Self| !matches!(name, Self::TimelineHistory(_));
        late(self).cmp(&late(other)).then_with(|| self.cmp(other))
    }

    /// What decides the order of two names as texts: '.' sorts before every digit, and digits before 'p'.
    fn text_order(&self) -> (TimelineId, Option<WalSegmentName>, u8, u32) {
        let (suffix, offset) = match self {
            Self::Segment(_) | Self::TimelineHistory(_) => (0, 0),
            Self::BackupHistory { offset, .. } => (1, *offset),
            Self::Partial(_) => (2, 0),
        };
        (self.timeline(), self.segment(), suffix, offset)
    }
}

impl Ord for ArchiveFileName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text_order().cmp(&other.text_order())
    }
}

impl PartialOrd for ArchiveFileName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ArchiveFileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(formatter),
            Self::Partial(segment) => write!(formatter, "{segment}.partial"),
            Self::BackupHistory { segment, offset } => {
                write!(formatter, "{segment}.{offset:08X}.backup")
            }
            Self::TimelineHistory(timeline) => write!(formatter, "{:08X}.history", timeline.get()),
        }
    }
}

impl FromStr for ArchiveFileName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<WalSegmentName> for ArchiveFileName {
    fn from(segment: WalSegmentName) -> Self {
        Self::Segment(segment)
    }
}

serde_as_text!(ArchiveFileName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_forms() {
        let segment = WalSegmentName::parse("0000000A00000003000000FE").unwrap();
        for (text, name) in [
            (
                "0000000A00000003000000FE",
                ArchiveFileName::Segment(segment),
            ),
            (
                "0000000A00000003000000FE.partial",
                ArchiveFileName::Partial(segment),
            ),
            (
                "0000000A00000003000000FE.00000028.backup",
                ArchiveFileName::BackupHistory {
                    segment,
                    offset: 0x28,
                },
            ),
            (
                "0000000A.history",
                ArchiveFileName::TimelineHistory(TimelineId::new(10).unwrap()),
            ),
        ] {
            assert_eq!(ArchiveFileName::parse(text), Ok(name));
            assert_eq!(name.to_string(), text);
            assert_eq!(name.timeline().get(), 10);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "0".repeat(10_000);
        for wrong in [
            "",
            ".",
            "..",
            "/",
            "/000000010000000000000002",
            "./000000010000000000000002",
            "pg_wal/000000010000000000000002",
            "000000010000000000000002/",
            "000000010000000000000002\0",
            "000000010000000000000002\n",
            " 000000010000000000000002",
            "000000010000000000000002.",
            "000000010000000000000002.lzo",
            "000000010000000000000002.partial.zst",
            "000000010000000000000002.Partial",
            "000000010000000000000002.history",
            "000000010000000000000002.backup",
            "000000010000000000000002.0000028.backup",
            "000000010000000000000002.0000002a.backup",
            "000000010000000000000002.00000028.backup.backup",
            "000000010000000000000002.00000028.partial",
            "00000001000000000000000a",
            "000000000000000000000002",
            "00000000.history",
            "0000001.history",
            "0000000a.history",
            "00000001.history.tmp",
            "00000001.partial",
            "RECOVERYXLOG",
            "%30%30000001.history",
            "００００００01.history",
            &long,
        ] {
            assert!(ArchiveFileName::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(ArchiveFileName::parse(&long).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn histories_are_archived_first() {
        let mut names: Vec<ArchiveFileName> = [
            "000000010000000000000002",
            "00000002.history",
            "000000010000000000000001",
        ]
        .map(|name| name.parse().unwrap())
        .to_vec();
        names.sort_by(ArchiveFileName::cmp_archiving);
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "00000002.history",
                "000000010000000000000001",
                "000000010000000000000002"
            ]
        );
    }

    #[test]
    fn json_is_the_name() {
        let name = ArchiveFileName::parse("00000002.history").unwrap();
        assert_eq!(
            serde_json::to_string(&name).unwrap(),
            "\"00000002.history\""
        );
        assert_eq!(
            serde_json::from_str::<ArchiveFileName>("\"00000002.history\"").unwrap(),
            name
        );
        assert!(serde_json::from_str::<ArchiveFileName>("\"../x\"").is_err());
    }

    fn any_name() -> impl Strategy<Value = ArchiveFileName> {
        // Few timelines and numbers, so that equal prefixes are common.
        let segment = (1_u32..3, 0_u32..3, 0_u32..3).prop_map(|(timeline, log_id, segment)| {
            WalSegmentName::parse(&format!("{timeline:08X}{log_id:08X}{segment:08X}")).unwrap()
        });
        prop_oneof![
            segment.clone().prop_map(ArchiveFileName::Segment),
            segment.clone().prop_map(ArchiveFileName::Partial),
            (segment, any::<u32>())
                .prop_map(|(segment, offset)| ArchiveFileName::BackupHistory { segment, offset }),
            (1..=u32::MAX).prop_map(|number| ArchiveFileName::TimelineHistory(
                TimelineId::new(number).unwrap()
            )),
        ]
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(name in any_name()) {
            prop_assert_eq!(ArchiveFileName::parse(&name.to_string()), Ok(name));
        }

        #[test]
        fn names_order_as_texts(a in any_name(), b in any_name()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn what_parses_prints_as_it_was(text in "[0-9A-Fa-f]{8}(\\.history|[0-9A-F]{16}(\\.[a-z0-9A-F.]{0,16})?)") {
            if let Ok(name) = ArchiveFileName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,50}") {
            let _ = ArchiveFileName::parse(&text);
        }
    }
}
