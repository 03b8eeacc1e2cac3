//! Base backups that began since stock was taken. The WAL that they need was judged without them. So while one is seen
//! no more WAL goes: the next run knows it.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use wale_archive::Archive;
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};

use super::inventory::listing;
use crate::error::Result;

/// The backups that this run knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By name, whether it is there: then its needs were heard.
    backups: BTreeMap<BackupName, bool>,
}

impl Known {
    /// Takes note of a backup that stays, or of one that is gone.
    pub(super) fn note(&mut self, name: &BackupName, stays: bool) {
        self.backups.insert(name.clone(), stays);
    }

    /// A backup that began, or was completed, since. Others may have begun anew under a name that was removed. Objects
    /// that the store did not let go there are no backup.
    pub(super) async fn newcomer(&self, archive: &Archive) -> Result<Option<BackupName>> {
        let mut objects = listing(archive, layout::BACKUP_PREFIX).await?;
        while let Some(meta) = objects.try_next().await? {
            let Some(name) = layout::backup_of(meta.key.as_str()) else {
                continue;
            };
            let is_new = match self.backups.get(&name) {
                None => true,
                Some(true) => false,
                Some(false) => matches!(
                    layout::parse(meta.key.as_str()),
                    ArchiveKey::Sentinel(_) | ArchiveKey::Attempt(_)
                ),
            };
            if is_new {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}
