//! Listing WAL: which files the objects of a stretch claim to hold.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use wale_format::layout;
use wale_pg::ArchiveFileName;
use wale_storage::{ObjectMeta, StoreError};

use crate::Archive;
use crate::error::{OpError, Result};

/// Shows the files that WAL objects claim to hold, under whatever extension, where their names begin with `prefix`; in
/// order, until `enough`.
///
/// # Errors
/// The store's failures.
pub async fn each_wal(
    archive: &Archive,
    prefix: &str,
    enough: impl FnMut(ArchiveFileName, ObjectMeta) -> bool,
) -> Result<()> {
    let prefix = format!("{}{prefix}", layout::WAL_PREFIX);
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let listing = archive.store().list(&prefix).await.map_err(failed)?;
    each_listed(&prefix, listing, enough).await
}

/// As [`each_wal`], from the name on that `after` begins.
pub(crate) async fn each_wal_after(
    archive: &Archive,
    prefix: &str,
    after: &str,
    enough: impl FnMut(ArchiveFileName, ObjectMeta) -> bool,
) -> Result<()> {
    let prefix = format!("{}{prefix}", layout::WAL_PREFIX);
    let after = format!("{}{after}", layout::WAL_PREFIX);
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let listing = archive.store().list_after(&prefix, &after).await;
    each_listed(&prefix, listing.map_err(failed)?, enough).await
}

async fn each_listed(
    prefix: &str,
    mut listing: BoxStream<'static, Result<ObjectMeta, StoreError>>,
    mut enough: impl FnMut(ArchiveFileName, ObjectMeta) -> bool,
) -> Result<()> {
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        if let Some(name) = layout::wal_claim(meta.key.as_str())
            && enough(name, meta)
        {
            break;
        }
    }
    Ok(())
}
