//! What is said of an object that no key opens.

use std::fmt;
use std::io;

use crate::Encryption;

/// An object is encrypted, and no key here opens it. That is no damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Locked {
    /// With what; nothing where its bytes do not show it: libsodium, or something that is not known here.
    pub method: Option<Encryption>,
    /// Whether there are keys for that, which are others.
    pub has_key: bool,
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Some(method) => write!(f, "it is encrypted with {method}")?,
            None => f.write_str("it is encrypted, or something else was stored under its name")?,
        }
        f.write_str(match (self.has_key, self.method) {
            (true, _) => ", and none of the keys that are given opens it",
            (false, Some(_)) => ", and no key for that is given",
            (false, None) => "",
        })
    }
}

impl From<Locked> for io::Error {
    fn from(locked: Locked) -> Self {
        Self::new(io::ErrorKind::Unsupported, locked)
    }
}
