//! The methods of encryption, by their names. What they do is in [`crypt`](crate::crypt).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex;

/// How objects are encrypted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// libsodium's secret stream, as WAL-G frames it.
    Libsodium,
    /// age.
    Age,
    /// OpenPGP, as WAL-E's gpg and WAL-G write it.
    OpenPgp,
}

impl Encryption {
    /// The word in `wale.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Libsodium => "libsodium",
            Self::Age => "age",
            Self::OpenPgp => "openpgp",
        }
    }

    /// A word for method and keys together, to be typed by a person: the method, and 8 digits that are others for other keys.
    #[must_use]
    pub fn word(self, fingerprints: &[String]) -> String {
        if self == Self::None {
            return self.name().to_owned();
        }
        let digest = hex(&Sha256::digest(fingerprints.join("\n")));
        format!("{self}-{}", &digest[..8])
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
