//! Proof that a file is not in the archive.
//!
//! A server in recovery ends it on the strength of this proof, so nothing may be mistaken for absence: not a volume
//! that is not mounted, not another folder under the same name, not a stale listing, not a hole in the middle.

use futures_util::TryStreamExt;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, Lsn, TimelineHistory, TimelineId, WalSegmentName, WalSegmentSize};
use wale_storage::ObjectMeta;

use super::plan::{self, Neighbours};
use super::report::Absence;
use crate::archive::Archive;
use crate::error::{Kind, OpError, Result};

/// Proves that `name` is not in the archive, by three questions:
///
/// 1. Is this the archive? Its identity (or, before there is one, a sentinel) is read now.
/// 2. Does an object of that name exist, under any codec?
/// 3. Does a listing of that name agree? And, for a segment: is none of its timeline behind it?
///
/// # Errors
/// `ArchiveConflict`: it is there, so ask for it again. `CorruptData`: it is missing from the middle of its
/// timeline. `StorageUnavailable` and the like: unsure.
pub async fn prove_absent(archive: &Archive, name: &ArchiveFileName) -> Result<Absence> {
    let segment_size = prove_readable(archive).await?;
    if let Some(stored) = archive.find_wal(name).await? {
        return Err(present(name, stored.key.as_str()));
    }
    if let Some(key) = listed(archive, name).await? {
        return Err(OpError::new(
            Kind::StorageUnavailable,
            format!("the store is not sure whether it has {name}"),
        )
        .detail(format!("{key} is listed, but was not found by its name."))
        .hint("ask again; if this persists, look at the store"));
    }
    if let ArchiveFileName::Segment(segment) = name {
        refuse_gap(archive, *segment, segment_size).await?;
    }
    Ok(Absence::Proven)
}

/// Proves that the archive itself can be read. Returns its segment size, if it has an identity.
async fn prove_readable(archive: &Archive) -> Result<Option<WalSegmentSize>> {
    // Not the remembered identity: the volume may have been there then, and be gone now.
    if let Some(identity) = archive.read_identity().await? {
        return Ok(WalSegmentSize::new(identity.wal_segment_size).ok());
    }
    if archive.has_readable_sentinel().await? {
        return Ok(None);
    }
    Err(OpError::new(
        Kind::StorageUnavailable,
        format!("there is no archive at {}", archive.location()),
    )
    .detail(
        "It has neither an identity nor a base backup, so nothing can be said about what it lacks.",
    )
    .hint("check that the volume is mounted and that the prefix is the right one"))
}

fn present(name: &ArchiveFileName, key: &str) -> OpError {
    OpError::new(Kind::ArchiveConflict, format!("{name} is in the archive"))
        .detail(format!("Object {key} holds it."))
        .hint("fetch it again")
}

/// The object that a listing shows for `name`.
async fn listed(archive: &Archive, name: &ArchiveFileName) -> Result<Option<String>> {
    let mut found = None;
    each_wal(archive, &name.to_string(), |listed, meta| {
        if listed == *name {
            found = Some(meta.key.to_string());
        }
        found.is_some()
    })
    .await?;
    Ok(found)
}

/// Refuses absence for a segment that is missing from the middle of its timeline.
async fn refuse_gap(
    archive: &Archive,
    asked: WalSegmentName,
    size: Option<WalSegmentSize>,
) -> Result<()> {
    let neighbours = neighbours(archive, asked).await?;
    let Some(later) = neighbours.later else {
        return Ok(());
    };
    let begins = timeline_begins(archive, asked.timeline()).await?;
    if !plan::is_gap(asked, neighbours, begins, size) {
        return Ok(());
    }
    let name = ArchiveFileName::Segment(asked);
    if let Some(stored) = archive.find_wal(&name).await? {
        // Archived in this very moment, and the later one had been pushed ahead of it.
        return Err(present(&name, stored.key.as_str()));
    }
    let reach = size
        .and_then(|size| plan::previous(asked, size))
        .map_or_else(
            || format!("the segment before {asked}"),
            |previous| previous.to_string(),
        );
    Err(OpError::new(Kind::CorruptData, format!("segment {asked} is missing from the archive, but {later} is there"))
        .detail("WAL is missing from the middle of the timeline; this is not its end.")
        .hint(format!(
            "put {asked} back if it exists anywhere; else recovery can only reach the end of {reach}: set a recovery \
             target up to there, or restore a base backup that begins behind {asked}"
        )))
}

/// What there is before and behind a segment, within its log and the next: at least 4 GiB of WAL and at most 8,192
/// segments. A bound there must be, since a listing of a whole timeline may be a million names.
async fn neighbours(archive: &Archive, asked: WalSegmentName) -> Result<Neighbours> {
    let mut neighbours = Neighbours::default();
    for prefix in plan::log_prefixes(asked) {
        each_wal(archive, &prefix, |listed, _| {
            if let ArchiveFileName::Segment(segment) = listed {
                neighbours.earlier |= segment < asked;
                if segment > asked {
                    neighbours.later = Some(segment);
                }
            }
            neighbours.later.is_some()
        })
        .await?;
        if neighbours.later.is_some() {
            break;
        }
    }
    Ok(neighbours)
}

/// Where a timeline began, by its history file. Without one, or with a damaged one, it is not known.
async fn timeline_begins(archive: &Archive, timeline: TimelineId) -> Result<Option<Lsn>> {
    if timeline == TimelineId::FIRST {
        return Ok(None);
    }
    match super::fetch(archive, &ArchiveFileName::TimelineHistory(timeline)).await {
        Ok(fetched) => {
            let pieces: Vec<_> = fetched.body.try_collect().await?;
            let text = String::from_utf8_lossy(&pieces.concat()).into_owned();
            let history = TimelineHistory::parse(timeline, &text).ok();
            Ok(history.and_then(|history| history.parents.last().map(|parent| parent.switch_lsn)))
        }
        Err(error)
            if matches!(
                error.kind,
                Kind::NotFound | Kind::CorruptData | Kind::Configuration
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Shows every WAL object whose file name begins with `prefix`, in order, until `enough`.
async fn each_wal(
    archive: &Archive,
    prefix: &str,
    mut enough: impl FnMut(ArchiveFileName, ObjectMeta) -> bool,
) -> Result<()> {
    let prefix = format!("{}{prefix}", layout::WAL_PREFIX);
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let mut listing = archive.store().list(&prefix).await.map_err(failed)?;
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        if let ArchiveKey::Wal {
            name,
            conflict: None,
            ..
        } = layout::parse(meta.key.as_str())
            && enough(name, meta)
        {
            break;
        }
    }
    Ok(())
}
