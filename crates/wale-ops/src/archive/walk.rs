//! Looking along the WAL of an archive: what the listing has of a stretch, and whether a gap is one.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use wale_format::layout;
use wale_pg::{ArchiveFileName, WalSegmentError, WalSegmentName, WalSegmentSize};
use wale_storage::{ObjectMeta, StoreError};

use super::Archive;
use super::reach::{Gap, Leg, Walk};
use crate::error::{Kind, OpError, Result};

/// Shows the files that WAL objects claim to hold, under whatever extension, where their names begin with `prefix`; in
/// order, until `enough`.
pub(crate) async fn each_wal(
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

/// What the listing has of a leg.
pub(crate) async fn walk(archive: &Archive, leg: Leg, size: WalSegmentSize) -> Result<Walk> {
    let mut walk = Walk::new(leg, size);
    let prefix = prefix(leg, size).map_err(behind_the_log)?;
    each_wal(archive, &prefix, |listed, _| match listed {
        ArchiveFileName::Segment(segment) => walk.see(segment),
        _ => false,
    })
    .await?;
    Ok(walk)
}

/// Whether the store has nothing under the name with which a gap begins.
pub(crate) async fn is_missing(archive: &Archive, gap: Gap) -> Result<bool> {
    let named = ArchiveFileName::Segment(gap.from);
    Ok(archive.find_wal(&named).await?.is_none())
}

/// What all names of a leg begin with: an archive of years is not listed for the few segments of a backup.
pub(crate) fn prefix(
    leg: Leg,
    size: WalSegmentSize,
) -> std::result::Result<String, WalSegmentError> {
    let Some(end) = leg.end else {
        return Ok(leg.timeline.to_hex());
    };
    let name = |number| WalSegmentName::from_number(leg.timeline, number, size);
    let (mut first, last) = (name(leg.first)?.to_string(), name(end - 1)?.to_string());
    let common = first
        .bytes()
        .zip(last.bytes())
        .take_while(|(one, other)| one == other);
    let length = common.count();
    first.truncate(length);
    Ok(first)
}

/// The error for a position that no segment has.
pub(crate) fn behind_the_log(error: WalSegmentError) -> OpError {
    OpError::new(
        Kind::CorruptData,
        "the archive names a WAL position that does not exist",
    )
    .source(error)
}

#[cfg(test)]
mod tests {
    use wale_pg::TimelineId;

    use super::*;

    #[test]
    fn a_leg_is_listed_by_what_its_names_have_in_common() {
        let size = WalSegmentSize::DEFAULT;
        let cases = [
            (2, Some(3), "000000010000000000000002"),
            (2, Some(0x10), "00000001000000000000000"),
            (2, Some(0x11), "0000000100000000000000"),
            (0xFE, Some(0x101), "000000010000000"),
            (2, None, "00000001"),
        ];
        for (first, end, expected) in cases {
            let timeline = TimelineId::FIRST;
            let leg = Leg {
                timeline,
                first,
                end,
            };
            assert_eq!(prefix(leg, size).unwrap(), expected, "{leg:?}");
        }
    }
}
