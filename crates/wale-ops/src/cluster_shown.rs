//! Whose an archive is that has no `wale.json`: its contents show it.

use wale_archive::listing::each_wal;
use wale_archive::{Archive, StoredWal};
use wale_format::ArchiveIdentity;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::SystemIdentifier;
use wale_storage::ObjectMeta;

use crate::error::{Kind, Result};

/// Segments that are opened to learn whose an archive without identity is.
const OPENED_MAX: usize = 8;

/// Whose an archive is, as far as its contents show: by its base backups, otherwise by its WAL.
pub(crate) async fn cluster_of(
    archive: &Archive,
    identity: Option<&ArchiveIdentity>,
) -> Result<Option<SystemIdentifier>> {
    if let Some(identity) = identity {
        return Ok(Some(identity.cluster.system_identifier));
    }
    let catalog = archive.catalog().await?;
    let mut newest_first = catalog.backups.iter().rev();
    let recorded = newest_first.find_map(|entry| entry.readable()?.system_identifier);
    if let Some(recorded) = recorded {
        return Ok(Some(SystemIdentifier::new(recorded)));
    }
    for stored in some_segments(archive).await? {
        match archive.read_wal_header(&stored).await {
            Ok(header) => return Ok(Some(header.system_identifier)),
            Err(error) if matches!(error.kind, Kind::CorruptData | Kind::Configuration) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Some segments of an archive under known codecs.
async fn some_segments(archive: &Archive) -> Result<Vec<StoredWal>> {
    let mut found = Vec::new();
    each_wal(archive, "", |_, meta: ObjectMeta| {
        if let ArchiveKey::Wal {
            name,
            codec,
            conflict: None,
            ..
        } = layout::parse(meta.key.as_str())
            && name.is_segment()
        {
            found.push(StoredWal {
                name,
                key: meta.key,
                codec,
                size: meta.size,
                modified: meta.modified,
            });
        }
        found.len() == OPENED_MAX
    })
    .await?;
    Ok(found)
}
