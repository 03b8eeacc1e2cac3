//! Whether WAL that the archive has can be read by this version. No name shows a key, so its beginning is decoded.

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

    /// Whether the beginning of a stored segment can be decoded. For this question a damaged one counts as one that
    /// can; and so does one that is encrypted as this host encrypts, where it has public keys only: whoever restores has the
    /// secret one.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn opens(&self, stored: &StoredWal) -> Result<bool> {
        match self.read_wal_header(stored).await {
            Err(error) if error.kind == Kind::Configuration => Ok(error
                .locked()
                .is_some_and(|locked| self.writes_without_reading(locked.method))),
            Err(error) if error.kind == Kind::CorruptData => Ok(true),
            other => other.map(|_| true),
        }
    }
}
