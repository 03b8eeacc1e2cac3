//! The number that distinguishes one cluster from every other.

use std::fmt;
use std::str::FromStr;

use crate::text_form::{excerpt, parse_plain_decimal, serde_as_text};

/// The system identifier that initdb gave a cluster: equal in every copy of it, different in every other cluster.
///
/// In JSON it is a *string* of decimal digits: it needs 64 bits, and many readers of JSON keep 53.
///
/// ```
/// use wale_pg::SystemIdentifier;
/// let identifier: SystemIdentifier = "7447234573249283074".parse().unwrap();
/// assert_eq!(identifier.to_string(), "7447234573249283074");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(u64);

impl SystemIdentifier {
    /// An identifier.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// From `pg_control_system()`, which returns it as a signed number: negative after the year 2038.
    pub const fn from_sql(number: i64) -> Self {
        Self(number.cast_unsigned())
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for SystemIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SystemIdentifier({self})")
    }
}

impl FromStr for SystemIdentifier {
    type Err = InvalidSystemIdentifier;

    fn from_str(text: &str) -> Result<Self, InvalidSystemIdentifier> {
        parse_plain_decimal(text)
            .map(Self)
            .ok_or_else(|| InvalidSystemIdentifier {
                given: excerpt(text),
            })
    }
}

serde_as_text!(SystemIdentifier);

/// A text is not a system identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a system identifier")]
pub struct InvalidSystemIdentifier {
    /// The text, shortened.
    pub given: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_form() {
        for wrong in ["", "-1", "+1", "01", "18446744073709551616", "0x12", "7e18"] {
            assert!(wrong.parse::<SystemIdentifier>().is_err(), "{wrong:?}");
        }
        assert_eq!(SystemIdentifier::from_sql(-1).as_u64(), u64::MAX);
    }

    #[test]
    fn json_is_a_string() {
        let identifier = SystemIdentifier::new(7_447_234_573_249_283_074);
        let json = serde_json::to_string(&identifier).unwrap();
        assert_eq!(json, "\"7447234573249283074\"");
        assert_eq!(
            serde_json::from_str::<SystemIdentifier>(&json).unwrap(),
            identifier
        );
        assert!(serde_json::from_str::<SystemIdentifier>("7447234573249283074").is_err());
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(number: u64) {
            prop_assert_eq!(SystemIdentifier::new(number).to_string().parse(), Ok(SystemIdentifier::new(number)));
        }
    }
}
