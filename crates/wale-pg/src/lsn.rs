//! A position in the write-ahead log.
//!
//! It is a count of bytes since the beginning of the log, not a file: which segment a position lies in depends on the
//! segment size, see [`crate::WalSegmentSize`].

use std::fmt;
use std::str::FromStr;

use crate::text_form::{excerpt, serde_as_text};

/// A log sequence number: a position in the write-ahead log, in bytes.
///
/// The text form is PostgreSQL's (`src/backend/utils/adt/pg_lsn.c`, 10 to 19): two hexadecimal halves.
///
/// ```
/// use wale_pg::Lsn;
/// let lsn: Lsn = "16/B374D848".parse().unwrap();
/// assert_eq!(lsn, Lsn::new(0x16_B374_D848));
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// A position, in bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The position, in bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The position so many bytes later; `None` beyond the end of 64 bits.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The position so many bytes earlier; `None` before the beginning.
    pub fn checked_sub(self, bytes: u64) -> Option<Self> {
        self.0.checked_sub(bytes).map(Self)
    }

    /// Reads the text form. Lower-case digits are accepted, as PostgreSQL accepts them.
    ///
    /// # Errors
    /// When the text is not one to eight hexadecimal digits, a slash, and again one to eight.
    pub fn parse(text: &str) -> Result<Self, InvalidLsn> {
        let half = |digits: &str| -> Option<u64> {
            let valid = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if valid {
                u64::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidLsn {
                given: excerpt(text),
            })
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lsn({self})")
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        Self::parse(text)
    }
}

serde_as_text!(Lsn);

/// A text is not a position in the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a WAL position")]
pub struct InvalidLsn {
    /// The text, shortened.
    pub given: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form() {
        for (text, bytes) in [
            ("0/0", 0),
            ("0/2000028", 0x200_0028),
            ("1/0", 1 << 32),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(Lsn::parse(text), Ok(Lsn::new(bytes)));
            assert_eq!(Lsn::new(bytes).to_string(), text);
        }
        assert_eq!(
            Lsn::parse("0/00ab"),
            Ok(Lsn::new(0xAB)),
            "lower case and leading zeros are read"
        );
        for wrong in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "0/123456789",
            "+0/1",
            "0/-1",
            " 0/0",
            "0/0\n",
            "g/0",
            "0/é",
        ] {
            assert!(Lsn::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Lsn::new(1).checked_add(2), Some(Lsn::new(3)));
        assert_eq!(Lsn::new(u64::MAX).checked_add(1), None);
        assert_eq!(Lsn::new(0).checked_sub(1), None);
    }

    #[test]
    fn json_is_the_text_form() {
        assert_eq!(
            serde_json::to_string(&Lsn::new(0x200_0028)).unwrap(),
            "\"0/2000028\""
        );
        assert_eq!(
            serde_json::from_str::<Lsn>("\"0/2000028\"").unwrap(),
            Lsn::new(0x200_0028)
        );
        assert!(serde_json::from_str::<Lsn>("33554472").is_err());
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(bytes: u64) {
            prop_assert_eq!(Lsn::parse(&Lsn::new(bytes).to_string()), Ok(Lsn::new(bytes)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Lsn::parse(&text);
        }
    }
}
