//! The name of a base backup: `base_<segment>_<offset>`.
//!
//! Refuses to know: what the backup holds, and where in time it stands. Names order as texts; the newest
//! backup is found by recorded times, never by name.
//!
//! Sources followed: WAL-E 1.1.1 (`base_<segment>_<8 characters>`), WAL-G 43fb039 (`base_<segment>`, with
//! `_D_<segment>` for a delta, optionally `_<8 characters>`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wale_pg::WalSegmentName;

/// The name of a base backup, of any tool that shares the layout.
///
/// ```
/// use wale_format::BackupName;
/// let name: BackupName = "base_000000010000000000000003_00000040".parse().unwrap();
/// assert_eq!(name.segment().to_string(), "000000010000000000000003");
/// assert_eq!(name.offset(), Some("00000040"));
/// assert_eq!(BackupName::new(&name.segment(), 0x28), name);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName {
    text: String,
    segment: WalSegmentName,
}

/// A text is not the name of a base backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the name of a base backup")]
pub struct InvalidBackupName {
    /// The text, shortened.
    pub given: String,
}

impl BackupName {
    /// The name of a backup that starts `offset` bytes into `segment`.
    ///
    /// The offset is decimal and padded to eight digits, as PostgreSQL's `lpad(offset::text, 8, '0')`
    /// does it for WAL-E. That also cuts: of a nine- or ten-digit offset, possible with segments of
    /// 128 MiB and more, the last digits are lost. So the offset only tells apart, it is not a position.
    #[must_use]
    pub fn new(segment: &WalSegmentName, offset: u64) -> Self {
        let mut digits = format!("{offset:08}");
        digits.truncate(8);
        Self {
            text: format!("base_{segment}_{digits}"),
            segment: *segment,
        }
    }

    /// Reads a name of WAL-E's, WAL-G's or ours.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidBackupName> {
        let segment = parse_segment(text).ok_or_else(|| InvalidBackupName {
            given: text.chars().take(80).collect(),
        })?;
        Ok(Self {
            text: text.to_owned(),
            segment,
        })
    }

    /// The segment in which the backup starts.
    #[must_use]
    pub const fn segment(&self) -> WalSegmentName {
        self.segment
    }

    /// The eight characters at the end that WAL-E calls the offset; opaque. WAL-G's names have none.
    #[must_use]
    pub fn offset(&self) -> Option<&str> {
        let (_, last) = self.text.rsplit_once('_')?;
        (last.len() == 8).then_some(last)
    }

    /// Whether the name is that of WAL-G's delta backups, which cannot be restored alone.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.text.contains("_D_")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The start segment of a well-formed name.
fn parse_segment(text: &str) -> Option<WalSegmentName> {
    let rest = text.strip_prefix("base_")?;
    let (segment, mut rest) = rest.split_at_checked(WalSegmentName::LENGTH)?;
    let segment = WalSegmentName::parse(segment).ok()?;
    if let Some(delta) = rest.strip_prefix("_D_") {
        let (parent, after) = delta.split_at_checked(WalSegmentName::LENGTH)?;
        WalSegmentName::parse(parent).ok()?;
        rest = after;
    }
    if let Some(offset) = rest.strip_prefix('_') {
        // WAL-E's reading pattern allows hexadecimal digits here, so readers must.
        let valid = offset.len() == 8
            && offset
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        return valid.then_some(segment);
    }
    rest.is_empty().then_some(segment)
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupName({})", self.text)
    }
}

impl FromStr for BackupName {
    type Err = InvalidBackupName;

    fn from_str(text: &str) -> Result<Self, InvalidBackupName> {
        Self::parse(text)
    }
}

impl Serialize for BackupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for BackupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENT: &str = "00000001000000000000000B";

    #[test]
    fn names_of_all_three_tools() {
        let cases = [
            (
                "base_00000001000000000000000B_00000040",
                Some("00000040"),
                false,
            ),
            (
                "base_00000001000000000000000B_0000ABCD",
                Some("0000ABCD"),
                false,
            ),
            ("base_00000001000000000000000B", None, false),
            (
                "base_00000001000000000000000B_D_000000010000000000000004",
                None,
                true,
            ),
            (
                "base_00000001000000000000000B_D_000000010000000000000004_00000040",
                Some("00000040"),
                true,
            ),
        ];
        for (text, offset, delta) in cases {
            let name = BackupName::parse(text).expect(text);
            assert_eq!(name.segment().to_string(), SEGMENT);
            assert_eq!((name.offset(), name.is_delta()), (offset, delta), "{text}");
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let cases = [
            "",
            "base_",
            "base_00000001000000000000000",
            "base_00000001000000000000000b",
            "base_00000000000000000000000B",
            "base_00000001000000000000000B_",
            "base_00000001000000000000000B_0000004",
            "base_00000001000000000000000B_000000400",
            "base_00000001000000000000000B_0000004g",
            "base_00000001000000000000000B_00000040\n",
            "base_00000001000000000000000B_D_",
            "base_00000001000000000000000B_D_00000001000000000000000é",
            "base_00000001000000000000000B/../x",
            " base_00000001000000000000000B",
        ];
        for text in cases {
            assert!(BackupName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn offsets_are_decimal_and_cut_like_lpad() {
        let segment = WalSegmentName::parse(SEGMENT).expect("a segment");
        let cases = [
            (0x28, "00000040"),
            (0, "00000000"),
            (1_073_741_823, "10737418"),
        ];
        for (offset, expected) in cases {
            assert_eq!(BackupName::new(&segment, offset).offset(), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(timeline in 1u32.., log: u32, seg: u32, offset: u64) {
            let segment = WalSegmentName::parse(&format!("{timeline:08X}{log:08X}{seg:08X}")).unwrap();
            let name = BackupName::new(&segment, offset);
            prop_assert_eq!(BackupName::parse(name.as_str()), Ok(name));
        }

        #[test]
        fn no_text_panics(text in "base_[0-9A-F_Dé]{0,60}") {
            if let Ok(name) = BackupName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
