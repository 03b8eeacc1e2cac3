//! What rehearsals found: one object in the folder of each backup that was rehearsed.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use wale_format::{ArchiveIdentity, BackupName, Encryption, RehearsalRecord, layout};
use wale_storage::body_from;

use crate::Archive;
use crate::error::{Kind, OpError, Result};

/// Records that are read, from the newest on, in search of a good one. Each is a request.
const READ_MAX: usize = 16;

/// The rehearsals of an archive, as far as they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsals {
    /// The last one, and the backup that it was made with.
    pub last: Option<(BackupName, RehearsalRecord)>,
    /// The last one in which nothing failed.
    pub last_good: Option<(BackupName, RehearsalRecord)>,
}

impl Archive {
    /// What the last rehearsal with a backup found; `None` where there was none, or its record cannot be read: a lost record
    /// says nothing about the backup.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn rehearsed(&self, name: &BackupName) -> Result<Option<RehearsalRecord>> {
        let key = Self::key(&layout::rehearsed(name))?;
        let bytes = match self.read_small(&key).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind.retryable() => return Err(error),
            Err(error) => {
                tracing::warn!(%key, "the record of a rehearsal cannot be read: {}", error.chain());
                None
            }
        };
        let read = bytes.map(|bytes| RehearsalRecord::parse(&bytes));
        Ok(read.and_then(|read| {
            read.inspect_err(
                |error| tracing::warn!(%key, "the record of a rehearsal is damaged: {error}"),
            )
            .ok()
        }))
    }

    /// The last rehearsals, given when the record of each backup was stored.
    ///
    /// # Errors
    /// The store's failures. Costs a small read for each record, 16 at most.
    pub async fn rehearsals(
        &self,
        mut stored: Vec<(BackupName, DateTime<Utc>)>,
    ) -> Result<Rehearsals> {
        stored.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut found = Rehearsals::default();
        for (name, _) in stored.into_iter().take(READ_MAX) {
            let Some(record) = self.rehearsed(&name).await? else {
                continue;
            };
            let is_good = record.ok;
            if is_good {
                found.last_good = Some((name.clone(), record.clone()));
            }
            found.last.get_or_insert((name, record));
            if is_good {
                break;
            }
        }
        Ok(found)
    }

    /// Whether the backup has its sentinel here.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn has_backup(&self, name: &BackupName) -> Result<bool> {
        let key = Self::key(&layout::sentinel(name))?;
        let found = self.store().head(&key).await;
        let found =
            found.map_err(|error| OpError::from_store(error, format_args!("look at {key}")));
        Ok(found?.is_some())
    }

    /// Stores what a rehearsal with the backup found, over what an earlier one did. In an encrypted archive without words of the
    /// server's.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the backup was deleted meanwhile, the store's failures.
    pub async fn note_rehearsal(&self, name: &BackupName, record: RehearsalRecord) -> Result<()> {
        let key = Self::key(&layout::rehearsed(name))?;
        // A host that only reads has no key to write with.
        let identity = self.read_identity().await?;
        let is_clear = |identity: &ArchiveIdentity| identity.encryption == Encryption::None;
        let is_clear = identity.as_ref().is_none_or(is_clear);
        let record = if is_clear && self.write_key().method() == Encryption::None {
            record
        } else {
            record.without_words()
        };
        let store = self.store();
        let failed = |error| OpError::from_store(error, format_args!("store {key}"));
        let body = body_from(Bytes::from(record.to_json()));
        store.put(&key, body).await.map_err(failed)?;
        // A deletion that ended in between has not seen it, and it would be all that is left of the backup.
        if self.has_backup(name).await? {
            return Ok(());
        }
        store.delete(&key).await.map_err(failed)?;
        Err(OpError::new(
            Kind::NotFound,
            format!("backup {name} was deleted while it was rehearsed"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn name(number: u8) -> BackupName {
        BackupName::parse(&format!("base_0000000100000000000000{number:02X}_00000040")).unwrap()
    }

    fn record(ok: bool) -> RehearsalRecord {
        RehearsalRecord {
            ok,
            ..RehearsalRecord::begun(DateTime::UNIX_EPOCH, "the end".to_owned())
        }
    }

    #[tokio::test]
    async fn the_last_rehearsal_and_the_last_good_one_are_found() {
        let bench = Bench::new();
        let archive = &bench.archive;
        for number in [1, 2, 3] {
            let key = Archive::key(&layout::sentinel(&name(number))).unwrap();
            bench.memory.insert(&key, b"{}".to_vec());
            archive
                .note_rehearsal(&name(number), record(number == 1))
                .await
                .unwrap();
        }
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let stored = vec![(name(1), at(1)), (name(3), at(3)), (name(2), at(2))];
        let found = archive.rehearsals(stored.clone()).await.unwrap();
        let named = |one: &Option<(BackupName, RehearsalRecord)>| {
            one.as_ref().map(|(name, record)| (name.clone(), record.ok))
        };
        assert_eq!(named(&found.last), Some((name(3), false)));
        assert_eq!(named(&found.last_good), Some((name(1), true)));
        // A damaged one says nothing.
        let key = Archive::key(&layout::rehearsed(&name(3))).unwrap();
        bench.memory.insert(&key, b"{".to_vec());
        let found = archive.rehearsals(stored).await.unwrap();
        assert_eq!(named(&found.last), Some((name(2), false)));
        assert_eq!(
            archive.rehearsals(Vec::new()).await.unwrap(),
            Rehearsals::default()
        );
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_backup_that_was_deleted_meanwhile() {
        let bench = Bench::new();
        let error = bench
            .archive
            .note_rehearsal(&name(1), record(true))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(bench.archive.rehearsed(&name(1)).await.unwrap(), None);
    }
}
