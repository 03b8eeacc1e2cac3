//! What an encrypted WAL object says of its plain content, so that a host which has public keys only can compare a file with it.
//!
//! ```text
//! key    = HMAC-SHA256(nonce of the cluster, "wale content v1" 0 name)
//! digest = HMAC-SHA256(key, plain bytes)
//! ```
//!
//! The nonce is in every data directory of the cluster and nowhere else in the clear: who has the archive alone cannot tell
//! by the digest what the content is, nor make a digest for other bytes. The name makes equal content of two names look different.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wale_format::{ContentDigest, Seal};
use wale_pg::{ArchiveFileName, ClusterNonce};

use crate::Archive;
use crate::error::{OpError, Result};
use crate::wal::StoredWal;

/// What the key is made for, before the name.
const LABEL: &[u8] = b"wale content v1\0";

/// Computes the digest of one file's content.
#[derive(Clone)]
pub struct ContentHash(Hmac<Sha256>);

impl ContentHash {
    /// Of nothing yet, of the file that the archive calls `name`.
    #[must_use]
    pub fn new(nonce: &ClusterNonce, name: &ArchiveFileName) -> Self {
        let mut key = Hmac::<Sha256>::new_from_slice(nonce.expose()).expect("any length will do");
        key.update(LABEL);
        key.update(name.to_string().as_bytes());
        let key = key.finalize().into_bytes();
        Self(Hmac::new_from_slice(&key).expect("any length will do"))
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> ContentDigest {
        ContentDigest::new(self.0.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentHash").finish_non_exhaustive()
    }
}

impl Archive {
    /// Whether a new object of that name says what its content is.
    #[must_use]
    pub fn notes_content(&self, name: &ArchiveFileName) -> bool {
        self.write_key().notes_content() && !self.stays_in_the_clear(name)
    }

    /// What a stored object says of its plain content, without a key; nothing where it says nothing. Only its beginning is
    /// fetched.
    ///
    /// # Errors
    /// The store's; [`Kind::CorruptData`](crate::error::Kind::CorruptData) when its encryption is damaged at its beginning.
    pub async fn content_digest(&self, stored: &StoredWal) -> Result<Option<ContentDigest>> {
        self.read_stored(&stored.key, |source| Ok(Seal::content_digest(source)?))
            .await
    }

    /// Whether `error` says of an object that no key here opens it, and the object may be one of ours all the same: this
    /// archive's hosts write with public keys, or have.
    #[must_use]
    pub fn may_be_ours_locked(&self, error: &OpError) -> bool {
        let method = error.locked().and_then(|locked| locked.method);
        method == Some(wale_format::Encryption::Age) || self.writes_without_reading(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(nonce: u8, name: &str, pieces: &[&[u8]]) -> ContentDigest {
        let nonce = ClusterNonce::new([nonce; 32]).expect("no zeros");
        let name = ArchiveFileName::parse(name).expect(name);
        let mut hash = ContentHash::new(&nonce, &name);
        for piece in pieces {
            hash.update(piece);
        }
        hash.finish()
    }

    #[test]
    fn cluster_name_and_content_make_the_digest() {
        const NAME: &str = "000000010000000000000001";
        let one = digest(1, NAME, &[b"con", b"tent"]);
        assert_eq!(one, digest(1, NAME, &[b"content"]));
        for other in [
            digest(2, NAME, &[b"content"]),
            digest(1, "000000010000000000000002", &[b"content"]),
            digest(1, "000000010000000000000001.partial", &[b"content"]),
            digest(1, NAME, &[b"content "]),
        ] {
            assert_ne!(one, other);
        }
        // Python: hmac.digest(hmac.digest(b"\1" * 32, b"wale content v1\0" + name, "sha256"), b"content", "sha256").
        assert_eq!(
            wale_format::hex(one.as_bytes()),
            "46ec9cfb5c73be1bb0087fb140a757134e6477c67dc1bde7e44d0342f4b0c563"
        );
    }
}
