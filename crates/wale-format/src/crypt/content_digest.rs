//! What an object says of its plain content to somebody who cannot open it.

use std::fmt;

/// A keyed digest of the plain content. Who lacks its key learns nothing from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; Self::BYTES]);

impl ContentDigest {
    /// The size of a digest.
    pub const BYTES: usize = 32;

    /// The digest with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({})", crate::hex(&self.0))
    }
}
