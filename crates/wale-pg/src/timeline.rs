//! The number of a timeline.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text_form::{excerpt, parse_plain_decimal};

/// The number of a timeline, 1 for a cluster that was never recovered. Timeline 0 does not exist.
///
/// Printed in decimal, as `recovery_target_timeline` takes it; in file names it is [`TimelineId::to_hex`]. In JSON it
/// is a number.
///
/// ```
/// use wale_pg::TimelineId;
/// let timeline = TimelineId::new(26).unwrap();
/// assert_eq!(timeline.to_string(), "26");
/// assert_eq!(timeline.to_hex(), "0000001A");
/// assert_eq!(TimelineId::new(0), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline of a cluster fresh from initdb.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// A timeline; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Eight upper-case hexadecimal digits, as in the names of WAL files.
    pub fn to_hex(self) -> String {
        format!("{:08X}", self.get())
    }

    /// The timeline with the next number; `None` after the last.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TimelineId({self})")
    }
}

impl FromStr for TimelineId {
    type Err = InvalidTimeline;

    fn from_str(text: &str) -> Result<Self, InvalidTimeline> {
        parse_plain_decimal(text)
            .and_then(Self::new)
            .ok_or_else(|| InvalidTimeline {
                given: excerpt(text),
            })
    }
}

/// A text is not the decimal number of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a timeline")]
pub struct InvalidTimeline {
    /// The text, shortened.
    pub given: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_and_words_are_no_timelines() {
        for wrong in ["", "0", "01", "-1", "+1", "latest", "4294967296", "0x1"] {
            assert!(wrong.parse::<TimelineId>().is_err(), "{wrong:?}");
        }
        assert!(serde_json::from_str::<TimelineId>("0").is_err());
        assert_eq!(serde_json::from_str::<TimelineId>("7").unwrap().get(), 7);
        assert_eq!(TimelineId::new(u32::MAX).unwrap().next(), None);
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(number in 1..=u32::MAX) {
            let timeline = TimelineId::new(number).unwrap();
            prop_assert_eq!(timeline.to_string().parse(), Ok(timeline));
        }
    }
}
