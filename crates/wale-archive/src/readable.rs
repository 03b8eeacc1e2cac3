//! Whether WAL that the archive has can be read by this version. No name shows a key, so its beginning is decoded.

use wale_format::Encryption;
use wale_pg::ArchiveFileName;

use crate::error::{Kind, Result};
use crate::{Archive, StoredWal};

impl Archive {
    /// Whether an object under `name` can be read by a restore of ours.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_readable(&self, name: &ArchiveFileName) -> Result<bool> {
        for stored in self.find_wal_copies(name).await? {
            if self.opens(&stored).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An object under `name`, where there are some and a restore of ours reads none of them.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn unreadable_under(&self, name: &ArchiveFileName) -> Result<Option<String>> {
        let mut unreadable = None;
        for stored in self.find_wal_copies(name).await? {
            if self.opens(&stored).await? {
                return Ok(None);
            }
            unreadable.get_or_insert(stored.key.to_string());
        }
        Ok(unreadable)
    }

    /// Whether the beginning of a stored segment can be decoded; as [`Archive::unopened`].
    ///
    /// # Errors
    /// The store's failures.
    pub async fn opens(&self, stored: &StoredWal) -> Result<bool> {
        Ok(self.unopened(stored).await?.is_none())
    }

    /// Why the beginning of a stored segment cannot be decoded. For this question a damaged one counts as one that can; and so
    /// does one that is encrypted as this host encrypts, where it has public keys only: whoever restores has the secret one.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn unopened(&self, stored: &StoredWal) -> Result<Option<Unopened>> {
        match self.read_wal_header(stored).await {
            Err(error) if error.kind == Kind::Configuration => {
                let method = error.locked().and_then(|locked| locked.method);
                let is_own = error.locked().is_some() && self.writes_without_reading(method);
                Ok((!is_own).then_some(Unopened { method }))
            }
            Err(error) if error.kind == Kind::CorruptData => Ok(None),
            other => other.map(|_| None),
        }
    }
}

/// A segment that no key here opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// How it is encrypted, where its bytes show that; a key of that method opens it.
    pub method: Option<Encryption>,
}
