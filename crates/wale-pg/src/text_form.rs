//! Serialisation of the types whose text form is their identity, and the hexadecimal their names are made of.
//!
//! A position or a name in JSON is the same string PostgreSQL prints, so that a person can search for it.

/// Serialises a type as what `Display` prints, and reads it back with `FromStr`.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Exactly eight upper-case hexadecimal digits, as in every WAL file name.
pub(crate) fn parse_upper_hex8(digits: &str) -> Option<u32> {
    let valid = digits.len() == 8
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    if valid {
        u32::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// A decimal number without sign, blank or superfluous zero, as PostgreSQL prints one.
pub(crate) fn parse_plain_decimal<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

/// A text from outside, cut so that it fits into one line of an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_exact() {
        assert_eq!(parse_upper_hex8("0000000F"), Some(15));
        assert_eq!(parse_upper_hex8("FFFFFFFF"), Some(u32::MAX));
        for wrong in [
            "",
            "F",
            "0000000f",
            "0000000G",
            "+000000F",
            "000000001",
            "0000000é",
        ] {
            assert_eq!(parse_upper_hex8(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn decimals_are_plain() {
        assert_eq!(parse_plain_decimal::<u32>("0"), Some(0));
        assert_eq!(parse_plain_decimal::<u32>("4294967295"), Some(u32::MAX));
        for wrong in ["", "+1", "-1", "01", " 1", "1 ", "4294967296", "1e3", "١"] {
            assert_eq!(parse_plain_decimal::<u32>(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_cuts_between_characters() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"é".repeat(500)).chars().count(), 81);
    }
}
