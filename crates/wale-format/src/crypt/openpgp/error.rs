//! What keys are called in messages, and the errors of this folder: nothing secret is in any of them.

use std::fmt;
use std::io;

/// The short name of a key, by which messages name their recipients: 16 hexadecimal digits.
///
/// ```
/// use wale_format::crypt::openpgp::KeyId;
/// assert_eq!(KeyId::from([0x28, 0xA1, 0xB6, 0x8D, 0x80, 0x4D, 0xF5, 0x90]).to_string(), "28A1B68D804DF590");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

impl KeyId {
    /// Stands for a recipient who is not named.
    pub const HIDDEN: Self = Self([0; 8]);
}

impl From<[u8; 8]> for KeyId {
    fn from(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl From<pgp::types::KeyId> for KeyId {
    fn from(key: pgp::types::KeyId) -> Self {
        Self(key.as_ref().try_into().expect("a key id has 8 bytes"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::HIDDEN {
            return f.write_str("hidden");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Keys as they stand in a sentence.
pub(super) fn listed<T: ToString>(keys: &[T]) -> String {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    keys.join(", ")
}

/// No key at hand opens a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoKey {
    /// The keys that it is encrypted to, as the message names them; none where only a passphrase opens it.
    pub wanted: Vec<KeyId>,
    /// Those of them that are at hand, but not opened by the passphrase.
    pub locked: Vec<KeyId>,
    /// Whether a passphrase would open it, as of `gpg -c`. None is ever tried.
    pub passphrase: bool,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.locked.is_empty() {
            let locked = listed(&self.locked);
            return write!(
                f,
                "it is encrypted to the OpenPGP key {locked}, whose passphrase is another one"
            );
        }
        match (self.wanted.as_slice(), self.passphrase) {
            ([], true) => f.write_str("it is encrypted with a passphrase, not to an OpenPGP key"),
            ([], false) => f.write_str("it is encrypted by OpenPGP to nobody"),
            (wanted, _) => write!(
                f,
                "it is encrypted to the OpenPGP key {}, and no such secret key is at hand",
                listed(wanted)
            ),
        }
    }
}

impl std::error::Error for NoKey {}

impl From<NoKey> for io::Error {
    fn from(error: NoKey) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, error)
    }
}

/// Why keys cannot be used. None of its texts holds anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The bytes hold no key of the kind that is needed.
    #[error("there is no {0} of OpenPGP in it")]
    None(&'static str),
    /// The bytes begin as keys do, and do not go on so.
    #[error("the OpenPGP keys in it cannot be read: {0}")]
    Damaged(String),
    /// No key has the name.
    #[error("no OpenPGP key is called \"{name}\"")]
    NotFound {
        /// The name as given.
        name: String,
    },
    /// A name of a kind that is not understood, as a keygrip's.
    #[error("\"{name}\" is a kind of name for an OpenPGP key that is not understood")]
    Name {
        /// The name as given.
        name: String,
    },
    /// Several keys that can be used have the name.
    #[error("several OpenPGP keys are called \"{name}\": {}", .fingerprints.join(", "))]
    Several {
        /// The name as given.
        name: String,
        /// The fingerprints of these keys.
        fingerprints: Vec<String>,
    },
    /// A key that nothing may be encrypted to.
    #[error("nothing can be encrypted to the OpenPGP key {fingerprint}: {why}")]
    Unusable {
        /// Its fingerprint.
        fingerprint: String,
        /// The reason, as "it has expired".
        why: &'static str,
    },
    /// No secret key could be opened without a passphrase.
    #[error("the secret OpenPGP key {} needs its passphrase", listed(.keys))]
    NoPassphrase {
        /// The keys that are locked.
        keys: Vec<KeyId>,
    },
    /// The passphrase opens no secret key.
    #[error("the passphrase is not that of the secret OpenPGP key {}", listed(.keys))]
    Passphrase {
        /// The keys that it does not open.
        keys: Vec<KeyId>,
    },
}

/// A message that ends too early.
pub(super) fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the OpenPGP message is cut off",
    )
}

/// A message that cannot have been written like this.
pub(super) fn damaged(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// A message that is right, but of a kind that is not read.
pub(super) fn unsupported(what: impl fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{what} is not read by this version"),
    )
}
