//! Texts of the settings of Swift to values: pure functions, as in the `value` of all settings.

use wale_storage::SwiftInterface;

use super::super::value::BadValue;

/// The tool whose spelling names in the container have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwiftNames {
    /// With a slash before them.
    WalE,
    /// Without.
    WalG,
}

impl SwiftNames {
    pub(crate) const ALL: [Self; 2] = [Self::WalE, Self::WalG];

    /// Its word in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WalE => "wal-e",
            Self::WalG => "wal-g",
        }
    }

    /// What names at this path begin with.
    pub(crate) fn prefix(self, path: &str) -> String {
        match self {
            Self::WalE => format!("/{path}"),
            Self::WalG => path.to_owned(),
        }
    }
}

/// The protocol of the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthVersion {
    /// Swift's own.
    One,
    /// Keystone's.
    Two,
    /// Keystone's, with domains.
    Three,
}

impl AuthVersion {
    /// As python-swiftclient writes them, and as they end a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, BadValue> {
        let number = text.trim_start_matches(['v', 'V']);
        match number.strip_suffix(".0").unwrap_or(number) {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            "3" => Ok(Self::Three),
            _ => Err(
                BadValue::new(format!("\"{text}\" is no version of the login"))
                    .hint("write 1, 2 or 3"),
            ),
        }
    }

    /// What the last component of a URL that is a version says.
    pub(super) fn of_url(url: &str) -> Option<Self> {
        let is_version = |part: &&str| {
            part.strip_prefix('v')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let path = url.split_once("://").map_or(url, |(_, rest)| rest);
        Self::parse(path.split('/').skip(1).filter(is_version).last()?).ok()
    }
}

/// The network from which the account is reached, in the words of both versions of Keystone.
pub(crate) fn interface(text: &str) -> Result<SwiftInterface, BadValue> {
    let lower = text.to_ascii_lowercase();
    match lower.strip_suffix("url").unwrap_or(&lower) {
        "public" => Ok(SwiftInterface::Public),
        "internal" => Ok(SwiftInterface::Internal),
        "admin" => Ok(SwiftInterface::Admin),
        _ => Err(BadValue::new(format!("\"{text}\" is no type of endpoint"))
            .hint("write publicURL, internalURL or adminURL")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_told_by_its_setting_or_by_the_url_and_else_wal_es() {
        use AuthVersion::{One, Three, Two};
        for (text, version) in [
            ("1", One),
            ("1.0", One),
            ("v1.0", One),
            ("2", Two),
            ("2.0", Two),
            ("v2.0", Two),
            ("3", Three),
            ("3.0", Three),
            ("V3", Three),
        ] {
            assert_eq!(AuthVersion::parse(text), Ok(version), "{text}");
        }
        assert!(AuthVersion::parse("4").is_err());
        for (url, version) in [
            ("https://h:5000/v3", Some(Three)),
            ("https://h:5000/v2.0/", Some(Two)),
            ("https://h/auth/v1.0", Some(One)),
            ("https://h/v1/identity/v3/auth/tokens", Some(Three)),
            ("https://h:5000", None),
            ("https://v3/", None),
            ("https://h/version", None),
        ] {
            assert_eq!(AuthVersion::of_url(url), version, "{url}");
        }
    }

    #[test]
    fn names_are_wal_es_unless_somebody_says_otherwise() {
        assert_eq!(SwiftNames::WalE.prefix("a/b/"), "/a/b/");
        assert_eq!(SwiftNames::WalE.prefix(""), "/");
        assert_eq!(SwiftNames::WalG.prefix("a/b/"), "a/b/");
    }
}
