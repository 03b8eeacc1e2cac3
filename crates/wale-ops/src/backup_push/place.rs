//! The folder of one backup in the archive: what is in it, and clearing it when nobody owns it.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use wale_format::{BackupName, layout};
use wale_storage::ObjectMeta;

use super::plan::Occupancy;
use crate::archive::Archive;
use crate::error::{Kind, OpError, Result};

/// What the archive has under `name`.
pub(crate) async fn look(archive: &Archive, name: &BackupName) -> Result<Occupancy> {
    let sentinel = Archive::key(&layout::sentinel(name))?;
    let sentinel = archive
        .store()
        .head(&sentinel)
        .await
        .map_err(|error| OpError::from_store(error, format_args!("look for {sentinel}")))?;
    let newest_object = objects(archive, name)
        .await?
        .values()
        .map(|meta| meta.modified)
        .max();
    Ok(Occupancy {
        sentinel: sentinel.is_some(),
        newest_object,
    })
}

/// Every object in the folder of the backup, by its key. The sentinel is not in it: it lies beside.
pub(crate) async fn objects(
    archive: &Archive,
    name: &BackupName,
) -> Result<BTreeMap<String, ObjectMeta>> {
    let prefix = layout::backup_folder(name);
    let failed = |error| OpError::from_store(error, format_args!("list {prefix}"));
    let listing = archive.store().list(&prefix).await.map_err(failed)?;
    listing
        .map_err(failed)
        .map_ok(|meta| (meta.key.to_string(), meta))
        .try_collect()
        .await
}

/// Removes every object in the folder of a backup that has no sentinel.
pub(super) async fn clear(archive: &Archive, name: &BackupName) -> Result<()> {
    for meta in objects(archive, name).await?.into_values() {
        archive
            .store()
            .delete(&meta.key)
            .await
            .map_err(|error| OpError::from_store(error, format_args!("remove {}", meta.key)))?;
    }
    // Somebody may have finished it meanwhile: then the sentinel is there, and the backup is damaged by us. The quiet
    // time before makes this all but impossible; it must not pass in silence.
    if look(archive, name).await?.sentinel {
        return Err(OpError::new(
            Kind::ArchiveConflict,
            format!("backup {name} was completed by another writer meanwhile"),
        )
        .hint("delete this backup: its objects were taken for those of an attempt that died"));
    }
    Ok(())
}
