//! Proof that a file is not in the archive.
//!
//! A server in recovery ends it on the strength of this proof, so nothing may be mistaken for absence: not a volume
//! that is not mounted, not another folder under the same name, not a stale listing, not a hole in the middle.

use futures_util::TryStreamExt;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{
    ArchiveFileName, Lsn, SystemIdentifier, TimelineHistory, TimelineId, WalSegmentName,
    WalSegmentSize,
};
use wale_storage::{ObjectKey, ObjectMeta};

use super::plan::{self, Neighbours};
use super::report::Absence;
use crate::archive::{Archive, foreign_cluster};
use crate::error::{Kind, OpError, Result};

/// Proves that `name` is not in the archive, by three questions:
///
/// 1. Is this the archive? Its identity (or, before there is one, a sentinel) is read now.
/// 2. Does an object of that name exist, under any codec?
/// 3. Does a listing of that name agree, whatever the extension? And, for a segment: is none of its timeline behind
///    it, and does no later timeline's way lead through it?
///
/// # Errors
/// `ArchiveConflict`: it is there, so ask for it again. `CorruptData`: it is missing from the middle of the log.
/// `Configuration`: it is there, but cannot be read. `StorageUnavailable` and the like: unsure.
pub async fn prove_absent(archive: &Archive, name: &ArchiveFileName) -> Result<Absence> {
    prove_absent_for(archive, name, None).await
}

/// As [`prove_absent`], for a server whose cluster is known: another cluster's archive proves nothing to it.
pub(super) async fn prove_absent_for(
    archive: &Archive,
    name: &ArchiveFileName,
    cluster: Option<SystemIdentifier>,
) -> Result<Absence> {
    let segment_size = prove_readable(archive, cluster).await?;
    if let Some(stored) = archive.find_wal(name).await? {
        return Err(present(name, stored.key.as_str()));
    }
    if let Some(key) = listed(archive, name).await? {
        return Err(unsure(name, &key));
    }
    if let ArchiveFileName::Segment(segment) = name {
        refuse_gap(archive, *segment, segment_size).await?;
    }
    Ok(Absence::Proven)
}

/// Proves that the archive itself can be read. Returns its segment size, if it has an identity.
async fn prove_readable(
    archive: &Archive,
    cluster: Option<SystemIdentifier>,
) -> Result<Option<WalSegmentSize>> {
    // Not the remembered identity: the volume may have been there then, and be gone now.
    if let Some(identity) = archive.read_identity().await? {
        if let Some(cluster) = cluster.filter(|cluster| *cluster != identity.system_identifier) {
            let location = archive.location();
            return Err(foreign_cluster(
                identity.system_identifier,
                cluster,
                &location,
            ));
        }
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

fn unsure(name: &ArchiveFileName, key: &ObjectKey) -> OpError {
    match layout::parse(key.as_str()) {
        ArchiveKey::Wal { conflict: None, .. } => OpError::new(
            Kind::StorageUnavailable,
            format!("the store is not sure whether it has {name}"),
        )
        .detail(format!("{key} is listed, but was not found by its name."))
        .hint("ask again; if this persists, look at the store"),
        _ => OpError::new(
            Kind::Configuration,
            format!("object {key} may hold {name}, but this version cannot tell"),
        )
        .hint("use the tool that wrote it; if it is no WAL, move it out of the archive"),
    }
}

/// The object that a listing shows for `name`.
async fn listed(archive: &Archive, name: &ArchiveFileName) -> Result<Option<ObjectKey>> {
    let mut found = None;
    each_wal(archive, &name.to_string(), |listed, meta| {
        if listed == *name {
            found = Some(meta.key);
        }
        found.is_some()
    })
    .await?;
    Ok(found)
}

/// Refuses absence for a segment that is missing from the middle of its timeline, or of a later one's way.
async fn refuse_gap(
    archive: &Archive,
    asked: WalSegmentName,
    size: Option<WalSegmentSize>,
) -> Result<()> {
    let neighbours = neighbours(archive, asked).await?;
    let size = match size {
        Some(size) => Some(size),
        None => size_by(archive, neighbours.earlier).await?,
    };
    let later = match neighbours.later {
        Some(later) => {
            let begins = timeline_begins(archive, asked.timeline()).await?;
            plan::is_gap(asked, neighbours, begins, size).then(|| later.to_string())
        }
        None => None,
    };
    let evidence = match later {
        Some(later) => later,
        None => match descendant(archive, asked, size).await? {
            Some(timeline) => format!("timeline {timeline}, which leads through it,"),
            None => return Ok(()),
        },
    };
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
    Err(OpError::new(Kind::CorruptData, format!("segment {asked} is missing from the archive, but {evidence} is there"))
        .detail("WAL is missing from the middle of the log; this is not its end.")
        .hint(format!(
            "put {asked} back if it exists anywhere; else recovery can only reach the end of {reach}: set a recovery \
             target up to there, or restore a base backup that begins behind {asked}"
        )))
}

/// What there is of its timeline before and behind a segment. The whole timeline is listed up to the first one behind:
/// a hole may be of any length, and a server in recovery asks for a few proofs at its end only.
async fn neighbours(archive: &Archive, asked: WalSegmentName) -> Result<Neighbours> {
    let mut neighbours = Neighbours::default();
    each_wal(archive, &asked.timeline().to_hex(), |listed, _| {
        if let ArchiveFileName::Segment(segment) = listed {
            if segment < asked {
                neighbours.earlier = Some(segment);
            } else if segment > asked {
                neighbours.later = Some(segment);
            }
        }
        neighbours.later.is_some()
    })
    .await?;
    Ok(neighbours)
}

/// The segment size of an archive without identity, by a segment that it has.
async fn size_by(
    archive: &Archive,
    segment: Option<WalSegmentName>,
) -> Result<Option<WalSegmentSize>> {
    let Some(segment) = segment else {
        return Ok(None);
    };
    let Some(stored) = archive.find_wal(&ArchiveFileName::Segment(segment)).await? else {
        return Ok(None);
    };
    match archive.read_wal_header(&stored).await {
        Ok(header) => Ok(WalSegmentSize::new(header.segment_size.into()).ok()),
        Err(error) if tells_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the object was read and is of no use, as against a store that did not answer.
fn tells_nothing(error: &OpError) -> bool {
    matches!(error.kind, Kind::CorruptData | Kind::Configuration)
}

/// Where a timeline began, by its history file. Without one, or with a damaged one, it is not known.
async fn timeline_begins(archive: &Archive, timeline: TimelineId) -> Result<Option<Lsn>> {
    if timeline == TimelineId::FIRST {
        return Ok(None);
    }
    match history(archive, timeline).await {
        Ok(history) => {
            Ok(history.and_then(|history| history.parents.last().map(|parent| parent.switch_lsn)))
        }
        Err(error) if tells_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A later timeline whose way leads through a segment. They are asked for one after the other up to the first that
/// is not there, as PostgreSQL does when it looks for the latest.
async fn descendant(
    archive: &Archive,
    asked: WalSegmentName,
    size: Option<WalSegmentSize>,
) -> Result<Option<TimelineId>> {
    let Some(size) = size else {
        return Ok(None);
    };
    let mut timeline = asked.timeline();
    while let Some(next) = timeline.next() {
        timeline = next;
        let Some(history) = history(archive, timeline).await? else {
            break;
        };
        if plan::leads_through(&history, asked, size) {
            return Ok(Some(timeline));
        }
    }
    Ok(None)
}

/// The history of a timeline; `None` when the archive does not have it.
async fn history(archive: &Archive, timeline: TimelineId) -> Result<Option<TimelineHistory>> {
    let name = ArchiveFileName::TimelineHistory(timeline);
    let fetched = match super::fetch(archive, &name).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let key = fetched.key.clone();
    let pieces: Vec<_> = fetched.body.try_collect().await?;
    let text = String::from_utf8_lossy(&pieces.concat()).into_owned();
    TimelineHistory::parse(timeline, &text)
        .map(Some)
        .map_err(|e| OpError::new(Kind::CorruptData, format!("object {key} is damaged: {e}")))
}

/// Shows the files that WAL objects claim to hold, under whatever extension, where their names begin with `prefix`; in
/// order, until `enough`.
pub(crate) async fn each_wal(
    archive: &Archive,
    prefix: &str,
    mut enough: impl FnMut(ArchiveFileName, ObjectMeta) -> bool,
) -> Result<()> {
    let prefix = format!("{}{prefix}", layout::WAL_PREFIX);
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let mut listing = archive.store().list(&prefix).await.map_err(failed)?;
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        if let Some(name) = layout::wal_claim(meta.key.as_str())
            && enough(name, meta)
        {
            break;
        }
    }
    Ok(())
}
