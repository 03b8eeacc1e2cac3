//! The major version of a server, and what differs between them as far as an archive sees it.
//!
//! Questions about a difference are asked by its name (`has_recovery_signal`), not by comparing numbers elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text_form::{excerpt, parse_plain_decimal};

/// A supported major version of PostgreSQL, 10 to 19. In JSON it is a number.
///
/// ```
/// use wale_pg::MajorVersion;
/// let major = MajorVersion::parse("15\n").unwrap();
/// assert_eq!(major.get(), 15);
/// assert!(major.has_recovery_signal());
/// assert_eq!(MajorVersion::from_server_version_num(150_018).unwrap(), major);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MajorVersion(u32);

impl MajorVersion {
    /// The oldest supported: the first with `pg_wal` in place of `pg_xlog`.
    pub const OLDEST: Self = Self(10);
    /// The newest supported.
    pub const NEWEST: Self = Self(19);

    /// From the major number itself.
    ///
    /// # Errors
    /// When the version is not supported.
    pub const fn new(major: u32) -> Result<Self, InvalidVersion> {
        if Self::OLDEST.0 <= major && major <= Self::NEWEST.0 {
            Ok(Self(major))
        } else {
            Err(InvalidVersion::Unsupported { major })
        }
    }

    /// From the setting `server_version_num`, for example 150018 (15.18).
    ///
    /// # Errors
    /// When the version is not supported.
    pub const fn from_server_version_num(number: u32) -> Result<Self, InvalidVersion> {
        Self::new(number / 10_000)
    }

    /// From the content of a file `PG_VERSION`, with or without its newline.
    ///
    /// # Errors
    /// When it is not a number (9.6 and older wrote two), or the version is not supported.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let number = text.strip_suffix('\n').unwrap_or(text);
        let number = number.strip_suffix('\r').unwrap_or(number);
        match parse_plain_decimal(number) {
            Some(major) => Self::new(major),
            None => Err(InvalidVersion::NotANumber {
                given: excerpt(text),
            }),
        }
    }

    /// The number in a file `PG_VERSION` whose version is newer than any that is supported.
    pub fn newer_than_known(text: &str) -> Option<u32> {
        match Self::parse(text) {
            Err(InvalidVersion::Unsupported { major }) if major > Self::NEWEST.0 => Some(major),
            _ => None,
        }
    }

    /// Every supported version, oldest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + Clone {
        (Self::OLDEST.0..=Self::NEWEST.0).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// 11: initdb chooses the WAL segment size, and PGDATA may be readable by its group (mode 0750).
    pub const fn has_group_access(self) -> bool {
        self.0 >= 11
    }

    /// 12: recovery is asked for by `recovery.signal` or `standby.signal`; before, by `recovery.conf`.
    pub const fn has_recovery_signal(self) -> bool {
        self.0 >= 12
    }

    /// 15: the functions are `pg_backup_start` and `pg_backup_stop`; before, `pg_start_backup` and `pg_stop_backup`.
    pub const fn has_pg_backup_start(self) -> bool {
        self.0 >= 15
    }

    /// 17: the server can write WAL summaries, into `pg_wal/summaries`, a folder that must exist.
    pub(crate) const fn has_wal_summaries(self) -> bool {
        self.0 >= 17
    }
}

impl fmt::Display for MajorVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for MajorVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MajorVersion({self})")
    }
}

impl TryFrom<u32> for MajorVersion {
    type Error = InvalidVersion;

    fn try_from(major: u32) -> Result<Self, InvalidVersion> {
        Self::new(major)
    }
}

impl From<MajorVersion> for u32 {
    fn from(major: MajorVersion) -> u32 {
        major.0
    }
}

/// A version that is none, or none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// A `PG_VERSION` holds something else than a number.
    #[error("{given:?} is not a major version of PostgreSQL")]
    NotANumber {
        /// The text, shortened.
        given: String,
    },
    /// The version exists, or may exist one day, but is not supported.
    #[error("PostgreSQL {major} is not supported, only 10 to 19 are")]
    Unsupported {
        /// The major version.
        major: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_version_files() {
        for major in MajorVersion::all() {
            assert_eq!(MajorVersion::parse(&format!("{major}\n")), Ok(major));
            assert_eq!(MajorVersion::parse(&major.to_string()), Ok(major));
        }
        for (text, major) in [("9\n", 9), ("20\n", 20)] {
            assert_eq!(
                MajorVersion::parse(text),
                Err(InvalidVersion::Unsupported { major })
            );
        }
        for text in ["", "\n", "9.6\n", "15 \n", "15\n\n", "fifteen"] {
            assert!(
                matches!(
                    MajorVersion::parse(text),
                    Err(InvalidVersion::NotANumber { .. })
                ),
                "{text:?}"
            );
        }
    }

    #[test]
    fn fault_102_only_a_newer_version_is_newer() {
        for (text, expected) in [
            ("20\n", Some(20)),
            ("21", Some(21)),
            ("19\n", None),
            ("9.6\n", None),
            ("9", None),
            ("", None),
        ] {
            assert_eq!(MajorVersion::newer_than_known(text), expected, "{text:?}");
        }
    }

    #[test]
    fn server_version_numbers() {
        for (number, major) in [
            (100_023, Some(10)),
            (180_004, Some(18)),
            (90_624, None),
            (190_000, Some(19)),
            (200_000, None),
            (0, None),
        ] {
            assert_eq!(
                MajorVersion::from_server_version_num(number)
                    .ok()
                    .map(MajorVersion::get),
                major
            );
        }
    }

    #[test]
    fn json_is_a_supported_number() {
        assert_eq!(serde_json::to_string(&MajorVersion::NEWEST).unwrap(), "19");
        assert_eq!(
            serde_json::from_str::<MajorVersion>("10").unwrap(),
            MajorVersion::OLDEST
        );
        assert!(serde_json::from_str::<MajorVersion>("9").is_err());
    }
}
