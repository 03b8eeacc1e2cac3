//! The random bytes of a cluster.

use std::fmt;

/// `mock_authentication_nonce`: 32 random bytes that initdb makes, equal on every physical copy of a cluster and on no other.
/// Only who reads the data directory knows them: a server shows them to nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterNonce([u8; 32]);

impl ClusterNonce {
    /// `None` for zeros, which are not random: initdb never leaves them, a file that was put together may.
    pub fn new(bytes: [u8; 32]) -> Option<Self> {
        (bytes != [0; 32]).then_some(Self(bytes))
    }

    /// The bytes. They are a secret.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterNonce(…)")
    }
}
