//! WAL segments: their size, their numbers, their names.
//!
//! A name alone is not a position. Where a segment begins depends on the segment size, which is fixed per cluster and
//! is 16 MiB only by default; therefore every conversion takes a [`WalSegmentSize`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::invalid_name::InvalidName;
use crate::lsn::Lsn;
use crate::text_form::{parse_upper_hex8, serde_as_text};
use crate::timeline::TimelineId;

/// The size of a cluster's WAL segments: a power of two, 1 MiB to 1 GiB. In JSON it is the number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct WalSegmentSize(u64);

impl WalSegmentSize {
    /// What initdb chooses unless told otherwise, and what every file name of WAL-E assumes: 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);
    /// The smallest, 1 MiB.
    pub const MIN: Self = Self(1 << 20);
    /// The largest, 1 GiB.
    pub const MAX: Self = Self(1 << 30);

    /// A size in bytes.
    ///
    /// # Errors
    /// When it is not a power of two from 1 MiB to 1 GiB.
    pub const fn new(bytes: u64) -> Result<Self, InvalidWalSegmentSize> {
        if bytes.is_power_of_two() && Self::MIN.0 <= bytes && bytes <= Self::MAX.0 {
            Ok(Self(bytes))
        } else {
            Err(InvalidWalSegmentSize { bytes })
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the middle part of their name: 4 GiB / size, so 256 at 16 MiB.
    const fn segments_per_log_id(self) -> u64 {
        (1 << 32) / self.0
    }

    /// The number of the segment in which a position lies.
    pub const fn segment_number(self, lsn: Lsn) -> u64 {
        lsn.as_u64() / self.0
    }

    /// The distance of a position from the beginning of its segment, in bytes.
    pub const fn offset_in_segment(self, lsn: Lsn) -> u64 {
        lsn.as_u64() % self.0
    }
}

impl TryFrom<u64> for WalSegmentSize {
    type Error = InvalidWalSegmentSize;

    fn try_from(bytes: u64) -> Result<Self, InvalidWalSegmentSize> {
        Self::new(bytes)
    }
}

impl From<WalSegmentSize> for u64 {
    fn from(size: WalSegmentSize) -> u64 {
        size.0
    }
}

/// A number is not a WAL segment size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes is not a WAL segment size")]
pub struct InvalidWalSegmentSize {
    /// The number.
    pub bytes: u64,
}

/// The name of a WAL segment: timeline and number, 24 upper-case hexadecimal digits.
///
/// Names order as their texts do: by timeline, then by position.
///
/// ```
/// use wale_pg::{Lsn, TimelineId, WalSegmentName, WalSegmentSize};
/// let name = WalSegmentName::from_lsn(TimelineId::FIRST, "1/FF000028".parse().unwrap(), WalSegmentSize::DEFAULT);
/// assert_eq!(name.to_string(), "0000000100000001000000FF");
/// assert_eq!(name.next(WalSegmentSize::DEFAULT).unwrap().to_string(), "000000010000000200000000");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegmentName {
    timeline: TimelineId,
    log_id: u32,
    segment: u32,
}

impl WalSegmentName {
    /// The length of every name, in bytes.
    pub const LENGTH: usize = 24;

    /// Reads a name.
    ///
    /// # Errors
    /// When the text is not exactly 24 upper-case hexadecimal digits, or the timeline is 0.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Self::parse_exact(text).ok_or_else(|| InvalidName::new(text))
    }

    pub(crate) fn parse_exact(text: &str) -> Option<Self> {
        if text.len() != Self::LENGTH {
            return None;
        }
        Some(Self {
            timeline: TimelineId::new(parse_upper_hex8(text.get(..8)?)?)?,
            log_id: parse_upper_hex8(text.get(8..16)?)?,
            segment: parse_upper_hex8(text.get(16..)?)?,
        })
    }

    /// The segment with a number, counted from the beginning of the log.
    ///
    /// # Errors
    /// When the number is beyond the end of the log.
    pub fn from_number(
        timeline: TimelineId,
        number: u64,
        size: WalSegmentSize,
    ) -> Result<Self, WalSegmentError> {
        let per_log_id = size.segments_per_log_id();
        match (
            u32::try_from(number / per_log_id),
            u32::try_from(number % per_log_id),
        ) {
            (Ok(log_id), Ok(segment)) => Ok(Self {
                timeline,
                log_id,
                segment,
            }),
            _ => Err(WalSegmentError::EndOfLog { timeline }),
        }
    }

    /// The segment in which a position lies. At a boundary this is the segment that begins there.
    pub fn from_lsn(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> Self {
        Self::from_number(timeline, size.segment_number(lsn), size)
            .expect("a 64-bit position divided by a valid segment size is within the log")
    }

    /// The last segment that holds anything before `stop`, the end of a backup or of a recovery.
    ///
    /// A stop position on the first byte of a segment needs nothing of that segment.
    pub fn last_needed(timeline: TimelineId, stop: Lsn, size: WalSegmentSize) -> Self {
        Self::from_lsn(timeline, Lsn::new(stop.as_u64().saturating_sub(1)), size)
    }

    /// The timeline in the name.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment of the same number on another timeline.
    #[must_use]
    pub const fn with_timeline(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }

    /// The number of the segment, counted from the beginning of the log.
    ///
    /// # Errors
    /// When no segment of a cluster with this segment size has the name.
    pub fn number(self, size: WalSegmentSize) -> Result<u64, WalSegmentError> {
        if u64::from(self.segment) >= size.segments_per_log_id() {
            return Err(WalSegmentError::NotOfThisSize { name: self, size });
        }
        Ok(u64::from(self.log_id) * size.segments_per_log_id() + u64::from(self.segment))
    }

    /// The position of the segment's first byte.
    ///
    /// # Errors
    /// When no segment of a cluster with this segment size has the name.
    pub fn start_lsn(self, size: WalSegmentSize) -> Result<Lsn, WalSegmentError> {
        // At most (2^32 * segments per log id - 1) * size = 2^64 - size.
        Ok(Lsn::new(self.number(size)? * size.bytes()))
    }

    /// The segment after this one, on the same timeline.
    ///
    /// # Errors
    /// When no segment of a cluster with this segment size has the name, or it is the last.
    pub fn next(self, size: WalSegmentSize) -> Result<Self, WalSegmentError> {
        Self::from_number(self.timeline, self.number(size)? + 1, size)
    }
}

impl fmt::Display for WalSegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:08X}{:08X}{:08X}",
            self.timeline.get(),
            self.log_id,
            self.segment
        )
    }
}

impl fmt::Debug for WalSegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WalSegmentName({self})")
    }
}

impl FromStr for WalSegmentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

serde_as_text!(WalSegmentName);

/// A segment name and a segment size do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalSegmentError {
    /// The last part of the name counts further than the segments that make 4 GiB.
    #[error("no WAL segment of {} bytes is named {name}", size.bytes())]
    NotOfThisSize {
        /// The name.
        name: WalSegmentName,
        /// The cluster's segment size.
        size: WalSegmentSize,
    },
    /// There is no such segment, because positions have 64 bits.
    #[error("timeline {timeline} has no WAL segment beyond position FFFFFFFF/FFFFFFFF")]
    EndOfLog {
        /// The timeline.
        timeline: TimelineId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn size(mebibytes: u64) -> WalSegmentSize {
        WalSegmentSize::new(mebibytes << 20).unwrap()
    }

    #[test]
    fn sizes() {
        for (mebibytes, per_log_id) in [(1, 4096), (16, 256), (64, 64), (1024, 4)] {
            assert_eq!(size(mebibytes).segments_per_log_id(), per_log_id);
        }
        for wrong in [0, 1, (1 << 20) - 1, 3 << 20, 1 << 19, 1 << 31, u64::MAX] {
            assert_eq!(
                WalSegmentSize::new(wrong),
                Err(InvalidWalSegmentSize { bytes: wrong })
            );
        }
        assert!(serde_json::from_str::<WalSegmentSize>("3000000").is_err());
        assert_eq!(
            serde_json::to_string(&WalSegmentSize::DEFAULT).unwrap(),
            "16777216"
        );
    }

    #[test]
    fn names_follow_the_segment_size() {
        // (segment size in MiB, position, name), as pg_walfile_name() prints them.
        for (mebibytes, lsn, name) in [
            (16, "0/2000028", "000000010000000000000002"),
            (16, "0/FFFFFFFF", "0000000100000000000000FF"),
            (16, "1/0", "000000010000000100000000"),
            (1, "0/FFFFFFFF", "000000010000000000000FFF"),
            (64, "0/FFFFFFFF", "00000001000000000000003F"),
            (1024, "5/C0000000", "000000010000000500000003"),
        ] {
            let lsn: Lsn = lsn.parse().unwrap();
            let segment = WalSegmentName::from_lsn(TimelineId::FIRST, lsn, size(mebibytes));
            assert_eq!(segment.to_string(), name);
            let start = segment.start_lsn(size(mebibytes)).unwrap();
            assert_eq!(
                lsn.as_u64() - start.as_u64(),
                size(mebibytes).offset_in_segment(lsn)
            );
        }
    }

    #[test]
    fn a_name_may_belong_to_no_cluster_of_this_size() {
        let name = WalSegmentName::parse("000000010000000000000100").unwrap();
        assert!(matches!(
            name.number(size(16)),
            Err(WalSegmentError::NotOfThisSize { .. })
        ));
        assert!(name.start_lsn(size(16)).is_err() && name.next(size(16)).is_err());
        assert_eq!(name.number(size(1)), Ok(256));
    }

    #[test]
    fn the_log_has_an_end() {
        let last = WalSegmentName::parse("00000001FFFFFFFF000000FF").unwrap();
        assert_eq!(
            last.next(size(16)),
            Err(WalSegmentError::EndOfLog {
                timeline: TimelineId::FIRST
            })
        );
        assert_eq!(
            last.start_lsn(size(16)),
            Ok(Lsn::new(u64::MAX - (16 << 20) + 1))
        );
        assert!(WalSegmentName::from_number(TimelineId::FIRST, u64::MAX, size(16)).is_err());
    }

    #[test]
    fn a_stop_on_a_boundary_needs_the_segment_before() {
        for (stop, name) in [
            ("0/3000000", "000000020000000000000002"),
            ("0/3000001", "000000020000000000000003"),
            ("0/2FFFFFF", "000000020000000000000002"),
            ("1/0", "0000000200000000000000FF"),
            ("0/0", "000000020000000000000000"),
        ] {
            let needed = WalSegmentName::last_needed(timeline(2), stop.parse().unwrap(), size(16));
            assert_eq!(needed.to_string(), name, "stop {stop}");
        }
    }

    #[test]
    fn only_exact_names_parse() {
        for wrong in [
            "",
            "00000001000000000000000",
            "0000000100000000000000010",
            "00000001000000000000000a",
            "000000000000000000000001",
            "00000001000000000000000G",
            "+00000010000000000000001",
            "00000001-000000100000001",
            "000000010000000 00000001",
            "0000000100000000000001é",
        ] {
            assert!(WalSegmentName::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    prop_compose! {
        fn any_name()(number in 1..=u32::MAX, log_id: u32, segment: u32) -> WalSegmentName {
            WalSegmentName { timeline: timeline(number), log_id, segment }
        }
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(name in any_name()) {
            prop_assert_eq!(WalSegmentName::parse(&name.to_string()), Ok(name));
        }

        #[test]
        fn names_order_as_texts(a in any_name(), b in any_name()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn number_and_name_are_inverses(lsn: u64, shift in 20_u32..=30) {
            let size = WalSegmentSize::new(1 << shift).unwrap();
            let number = size.segment_number(Lsn::new(lsn));
            let name = WalSegmentName::from_number(TimelineId::FIRST, number, size).unwrap();
            prop_assert_eq!(name.number(size), Ok(number));
            if let Ok(next) = name.next(size) {
                prop_assert!(next > name);
                prop_assert_eq!(next.number(size), Ok(number + 1));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = WalSegmentName::parse(&text);
        }
    }
}
