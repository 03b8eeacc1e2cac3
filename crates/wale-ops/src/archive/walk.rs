//! Looking along the WAL of an archive: what the listing has of a stretch, and whether a gap is one.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use wale_format::layout::{self, ArchiveKey};
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

/// What the listing has of a leg, as far as a restore of ours reads it. What is encrypted has the name of what is not:
/// [`first_lack`] opens some.
pub(crate) async fn walk(archive: &Archive, leg: Leg, size: WalSegmentSize) -> Result<Walk> {
    let mut walk = Walk::new(leg, size);
    let prefix = prefix(leg, size).map_err(behind_the_log)?;
    // The objects of one segment are neighbours; one that can be read is enough.
    let mut current: Option<(WalSegmentName, bool)> = None;
    let mut is_enough = false;
    let mut settle = |seen: Option<(WalSegmentName, bool)>| match seen {
        Some((segment, true)) => walk.see(segment),
        Some((segment, false)) => walk.see_unreadable(segment),
        None => false,
    };
    each_wal(archive, &prefix, |listed, meta| {
        let ArchiveFileName::Segment(segment) = listed else {
            return false;
        };
        let can_read = can_read(meta.key.as_str());
        match &mut current {
            Some((one, readable)) if *one == segment => {
                *readable |= can_read;
                false
            }
            _ => {
                is_enough = settle(current.replace((segment, can_read)));
                is_enough
            }
        }
    })
    .await?;
    if !is_enough {
        settle(current);
    }
    Ok(walk)
}

fn can_read(key: &str) -> bool {
    matches!(layout::parse(key), ArchiveKey::Wal { codec, .. } if codec.can_read())
}

/// Why a recovery does not get past a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// The archive does not have it.
    Missing,
    /// It is there, but this version lacks its codec or its key: an object's key in the archive.
    Unreadable(String),
}

/// Why the first segment of a gap cannot be had; `None` where it can: a listing alone proves nothing.
pub(crate) async fn lack(archive: &Archive, gap: Gap) -> Result<Option<Lack>> {
    let copies = archive.find_wal_copies(&gap.from.into()).await?;
    let Some(first) = copies.first() else {
        return Ok(Some(Lack::Missing));
    };
    let unreadable = Lack::Unreadable(first.key.to_string());
    let can_read = copies.iter().any(|copy| copy.codec.can_read());
    Ok((!can_read).then_some(unreadable))
}

/// The first segments of a leg that no restore of ours can have. A key does not show in a listing, so what seems whole is
/// opened at its beginning and its end: a tool encrypts everything from one day to another.
pub(crate) async fn first_lack(
    archive: &Archive,
    leg: Leg,
    size: WalSegmentSize,
) -> Result<Option<(Gap, Lack)>> {
    let walk = walk(archive, leg, size).await?;
    if let Some(gap) = walk.gap().map_err(behind_the_log)? {
        return Ok(lack(archive, gap).await?.map(|lack| (gap, lack)));
    }
    let Some(reached) = walk.reached().map_err(behind_the_log)? else {
        return Ok(None);
    };
    let first = WalSegmentName::from_number(leg.timeline, leg.first, size);
    let first = first.map_err(behind_the_log)?;
    for segment in [first, reached] {
        if let Some(key) = archive.unreadable_under(&segment.into()).await? {
            let gap = Gap {
                from: segment,
                to: segment,
            };
            return Ok(Some((gap, Lack::Unreadable(key))));
        }
        if first == reached {
            break;
        }
    }
    Ok(None)
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
