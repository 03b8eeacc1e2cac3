//! The right to remove what lies under a backup's name: nobody else works there, and nobody came back.

use futures_util::TryStreamExt;
use wale_archive::Archive;
use wale_archive::claim::{Claim, Purpose, Taken};
use wale_format::BackupName;
use wale_format::layout::{self, ArchiveKey};
use wale_storage::{ObjectKey, ObjectMeta};

use super::inventory::{Folder, listing};
use super::options::Act;
use crate::error::{Kind, OpError, Result};

/// What came of asking for the claim on a backup's name.
pub(super) enum Seized {
    /// Nobody else works there. There is no claim where nothing is deleted, or the store takes none.
    Ours(Option<Claim>),
    /// Somebody does.
    Theirs,
}

/// Takes the claim on the backup's name, so that what is removed is not another attempt's. A store that is full or
/// read-only does without: nobody else can begin there either.
pub(super) async fn seize(archive: &Archive, name: &BackupName, act: Act) -> Result<Seized> {
    if act == Act::Show {
        return Ok(Seized::Ours(None));
    }
    let key = layout::attempt(name);
    match Claim::take(archive, &key, Purpose::Remove).await {
        Ok(Taken::Ours { claim, .. }) => Ok(Seized::Ours(Some(claim))),
        Ok(Taken::Theirs(_)) => Ok(Seized::Theirs),
        Err(error) if matches!(error.kind, Kind::DiskFull | Kind::PermissionDenied) => {
            tracing::debug!(key, error = %error.chain(), "the deletion goes on without a claim");
            Ok(Seized::Ours(None))
        }
        Err(error) => Err(error),
    }
}

/// Whether a writer without a claim came back since the inventory, or the backup was finished.
pub(super) async fn came_back(archive: &Archive, folder: &Folder) -> Result<bool> {
    let sentinel = Archive::key(&layout::sentinel(&folder.name))?;
    let finished = head(archive, &sentinel).await?.is_some();
    let prefix = layout::backup_folder(&folder.name);
    let mut objects = listing(archive, &prefix).await?;
    while let Some(meta) = objects.try_next().await? {
        let is_claim = matches!(layout::parse(meta.key.as_str()), ArchiveKey::Attempt(_));
        if !folder.deletion && !is_claim && meta.modified > folder.touched {
            return Ok(true);
        }
    }
    Ok(finished)
}

/// What is known of an object.
pub(super) async fn head(archive: &Archive, key: &ObjectKey) -> Result<Option<ObjectMeta>> {
    let head = archive.store().head(key).await;
    head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))
}
