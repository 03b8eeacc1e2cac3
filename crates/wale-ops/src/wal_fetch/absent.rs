//! Proof that a file is not in the archive.
//!
//! A server ends its recovery on the strength of this proof, so nothing else must be taken for absence: not a
//! volume that is not mounted, not another folder under the same name, not a stale listing, not a hole in the
//! middle.

use wale_archive::listing::each_wal;
use wale_archive::{Archive, HistoryWitness, Remedy, WalEvidence, foreign_cluster};
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{
    ArchiveFileName, ControlFile, SystemIdentifier, TimelineId, WalSegmentName, WalSegmentSize,
};
use wale_storage::ObjectKey;

use super::plan;
use super::report::Absence;
use crate::error::{Kind, OpError, Result};

/// The server that asks, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asker {
    /// Its cluster.
    pub(super) cluster: Option<SystemIdentifier>,
    /// The timeline that it is on, from which it looks for later ones.
    pub(super) timeline: Option<TimelineId>,
    /// The segment that this process delivered last, to it or to another.
    pub(super) served: Option<WalSegmentName>,
}

impl Asker {
    /// The server of a data directory. It begins at the later one of the two timelines, as `StartupXLOG` does.
    pub(super) fn of(control: &ControlFile) -> Self {
        let reached = control.min_recovery_timeline.max(Some(control.timeline));
        Self {
            cluster: Some(control.system_identifier),
            timeline: reached,
            served: None,
        }
    }
}

/// Proves that `name` is not in the archive, by three questions:
///
/// 1. Is this the archive? Its identity (or, before there is one, a sentinel) is read now.
/// 2. Does an object of that name exist, under any codec?
/// 3. Does a listing of that name agree, whatever the extension? And, for a segment: is no later one of its timeline
///    there, does no base backup show that it was stored, and does no later timeline's way lead through it? For a
///    timeline's history: does nothing show that the timeline existed (a later history, WAL or a base backup)?
///
/// An archive that has no WAL at all, though it must have some, proves nothing.
///
/// # Errors
/// `ArchiveConflict`: it is there, so ask for it again. `CorruptData`: it is missing from the middle of the log.
/// `Configuration`: it is there, but cannot be read. `StorageUnavailable` and the like: unsure.
pub async fn prove_absent(archive: &Archive, name: &ArchiveFileName) -> Result<Absence> {
    prove_absent_for(archive, name, Asker::default()).await
}

/// As [`prove_absent`], for a known server: another cluster's archive proves nothing to it.
pub(super) async fn prove_absent_for(
    archive: &Archive,
    name: &ArchiveFileName,
    server: Asker,
) -> Result<Absence> {
    let segment_size = prove_readable(archive, server.cluster).await?;
    // By its names, since the listing comes next, and neither is believed alone.
    if let Some(stored) = archive.find_wal_by_name(name).await?.first() {
        return Err(present(name, stored.key.as_str()));
    }
    if let Some(key) = listed(archive, name).await? {
        return Err(unsure(name, &key));
    }
    refuse_emptied(archive, server).await?;
    match name {
        ArchiveFileName::Segment(segment) => {
            refuse_vanished(archive, *segment, segment_size, server).await?;
            refuse_gap(archive, *segment, segment_size).await?;
        }
        ArchiveFileName::TimelineHistory(timeline) => {
            refuse_lost_history(archive, *timeline, server).await?;
        }
        ArchiveFileName::Partial(_) | ArchiveFileName::BackupHistory { .. } => {}
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
        let own = identity.cluster;
        if let Some(cluster) = cluster.filter(|cluster| *cluster != own.system_identifier) {
            let location = archive.location();
            return Err(foreign_cluster(own.system_identifier, cluster, &location));
        }
        return Ok(Some(own.wal_segment_size));
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

/// The error for a file that is there.
pub(super) fn present(name: &ArchiveFileName, key: &str) -> OpError {
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
        .hint("ask again; if this persists, check the store"),
        _ => OpError::new(
            Kind::Configuration,
            format!("object {key} may hold {name}, but this version cannot read it"),
        )
        .hint("use the tool that wrote it, or find out what it is"),
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

/// Refuses absence in an archive that must have WAL and has none at all: its folder is a volume of its own that is not
/// mounted, or was moved, or emptied.
async fn refuse_emptied(archive: &Archive, server: Asker) -> Result<()> {
    if archive.has_wal().await? {
        return Ok(());
    }
    let detail = if let Some(served) = server.served {
        format!("Segment {served} was delivered from it before.")
    } else if let Some(backup) = archive.backup_needing_wal().await? {
        format!("Base backup {backup} is listed, and its WAL was stored before it was.")
    } else {
        return Ok(());
    };
    let location = archive.location();
    Err(OpError::new(
        Kind::StorageUnavailable,
        format!("there is no WAL at all in the archive at {location}, so nothing can be said about what it lacks"),
    )
    .detail(detail)
    .hint("bring the folder wal_005 back: mount its volume, or find out who moved or deleted it"))
}

/// Refuses absence for the segment after one that was delivered a moment ago and is gone. What takes WAL away does not
/// stop there.
async fn refuse_vanished(
    archive: &Archive,
    asked: WalSegmentName,
    size: Option<WalSegmentSize>,
    server: Asker,
) -> Result<()> {
    let (Some(before), Some(size)) = (server.served, size) else {
        return Ok(());
    };
    if !plan::follows(Some(before), asked, size) {
        return Ok(());
    }
    let name = ArchiveFileName::Segment(before);
    if archive.find_wal(&name).await?.is_some() {
        return Ok(());
    }
    Err(OpError::new(
        Kind::StorageUnavailable,
        format!("segment {before} was delivered a moment ago and is gone from the archive"),
    )
    .detail(format!(
        "So {asked} may be gone, too, and not the end of the WAL."
    ))
    .hint("find out who deletes or moves objects of this archive, and bring them back"))
}

/// Refuses absence for a segment that is missing from the middle of its timeline, or of a later one's way.
pub(super) async fn refuse_gap(
    archive: &Archive,
    asked: WalSegmentName,
    size: Option<WalSegmentSize>,
) -> Result<()> {
    let WalEvidence { witness, size } = archive.evidence_of(asked, size).await?;
    let Some(witness) = witness else {
        return Ok(());
    };
    let name = ArchiveFileName::Segment(asked);
    if let Some(stored) = archive.find_wal(&name).await? {
        // It was archived in this very moment, and the later one had been pushed ahead of it.
        return Err(present(&name, stored.key.as_str()));
    }
    let reach = size
        .and_then(|size| plan::previous(asked, size))
        .map_or_else(
            || format!("the segment before {asked}"),
            |previous| previous.to_string(),
        );
    Err(OpError::new(Kind::CorruptData, format!("segment {asked} is missing from the archive, but {witness}"))
        .detail("WAL is missing from the middle of the log; this is not its end.")
        .hint(format!(
            "put {asked} back if it exists anywhere; otherwise recovery can only reach the end of {reach}. To end \
             there, restore as a standby and promote it when it waits for WAL; or restore a base backup that begins \
             after {asked}"
        ))
        .remedy(Remedy::RestoreAsStandby))
}

/// Whether a server that hears that this segment is absent may find another one in its place: an earlier timeline on
/// its way has a segment there, or may have one. The server would replay that one, beyond the point where its own
/// timeline left.
///
/// # Errors
/// The store's.
pub async fn has_namesake(archive: &Archive, segment: WalSegmentName) -> Result<bool> {
    archive.has_namesake(segment).await
}

/// Refuses absence for the history of a timeline that existed.
///
/// A server looks for later timelines upwards and stops at the first that is absent. If it took a lost one for
/// absent, it would end its recovery where its own timeline ends, and begin a second timeline of that number.
pub(super) async fn refuse_lost_history(
    archive: &Archive,
    asked: TimelineId,
    server: Asker,
) -> Result<()> {
    // A server looks for timelines later than its own. Without the history of its own it goes on all the same.
    if server.timeline.is_some_and(|reached| asked <= reached) {
        return Ok(());
    }
    let name = ArchiveFileName::TimelineHistory(asked);
    let (evidence, instead) = match archive.evidence_of_history(asked).await? {
        Some(HistoryWitness::Later(later)) => {
            let later = ArchiveFileName::TimelineHistory(later);
            let instead = format!(
                "put one there that has the lines of {later} which begin with a timeline before {asked}"
            );
            (later.to_string(), instead)
        }
        Some(HistoryWitness::Trace(trace)) => {
            let instead = format!(
                "write one: timeline {asked} begins where pg_waldump shows END_OF_RECOVERY, or a checkpoint with another \
                 \"prev tli\", in its first segment"
            );
            (trace.to_string(), instead)
        }
        None => return Ok(()),
    };
    // Archiving may have begun on this very timeline, when its history was already gone. No server can come from an
    // earlier one then.
    if server.timeline.is_none() && !archive.has_earlier_timeline(asked).await? {
        return Ok(());
    }
    if let Some(stored) = archive.find_wal(&name).await? {
        return Err(present(&name, stored.key.as_str()));
    }
    Err(OpError::new(Kind::CorruptData, format!("{name} is missing from the archive, but {evidence} is there"))
        .detail(format!(
            "Timelines are numbered one after the other, so timeline {asked} existed. A server that took it for absent \
             would promote without its WAL and that of later ones, and begin a second timeline {asked}."
        ))
        .hint(format!(
            "put {name} back: a server of that timeline has it in pg_wal; if it exists nowhere, {instead}"
        )))
}

#[cfg(test)]
mod tests {
    use wale_format::Codec;

    use super::*;
    use crate::testing::{Bench, file_name, segment};

    const ONE: &str = "000000010000000000000001";
    const TWO: &str = "000000020000000000000003";
    const SECOND: &str = "1\t0/300000\tx\n";
    const THIRD: &str = "1\t0/300000\tx\n2\t0/500000\ty\n";

    async fn bench(files: &[(&str, &[u8])]) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        for (name, bytes) in files {
            bench.store_wal(name, Codec::Zstd, bytes);
        }
        bench
    }

    fn on(timeline: u32) -> Asker {
        Asker {
            timeline: TimelineId::new(timeline),
            ..Asker::default()
        }
    }

    async fn verdict(bench: &Bench, name: &str, server: Asker) -> Option<OpError> {
        prove_absent_for(&bench.archive, &file_name(name), server)
            .await
            .err()
    }

    #[tokio::test]
    async fn fault_72_a_namesake_on_an_earlier_timeline_of_the_way_is_seen() {
        let files: [(&str, &[u8]); 3] = [
            ("000000010000000000000003", b"x"),
            ("00000003.history", b"1\t0/300000\tx\n"),
            ("00000004.history", b"cut"),
        ];
        let bench = bench(&files).await;
        for (name, expected) in [
            ("000000010000000000000003", false),
            ("000000030000000000000003", true),
            ("000000030000000000000004", false),
            // Without a history, or with a damaged one, it is not known.
            ("000000020000000000000004", true),
            ("000000040000000000000004", true),
        ] {
            let segment = crate::testing::segment_name(name);
            let found = has_namesake(&bench.archive, segment).await.expect("asked");
            assert_eq!(found, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn row_46_a_history_that_was_lost_is_not_absent() {
        let first = segment(ONE, 1);
        // Timeline 3 grew out of timeline 2, or beside it out of timeline 1.
        for third in [THIRD, SECOND] {
            let bench = bench(&[(ONE, &first), ("00000003.history", third.as_bytes())]).await;
            for server in [Asker::default(), on(1)] {
                let error = verdict(&bench, "00000002.history", server).await;
                let error = error.expect("it was lost");
                assert_eq!(error.kind, Kind::CorruptData);
                assert!(error.message.contains("00000003.history"), "{error}");
                assert!(error.hint.is_some());
                // After the last one there is none.
                assert!(verdict(&bench, "00000004.history", server).await.is_none());
            }
            bench.store_wal("00000002.history", Codec::Zstd, SECOND.as_bytes());
            let error = verdict(&bench, "00000002.history", on(1)).await;
            assert_eq!(error.expect("it is there").kind, Kind::ArchiveConflict);
        }
    }

    #[tokio::test]
    async fn a_history_that_no_server_needs_to_go_on_may_be_absent() {
        // Archiving began on timeline 2, whose history nobody archived.
        let second = segment(TWO, 1);
        let files: [(&str, &[u8]); 2] = [(TWO, &second), ("00000003.history", THIRD.as_bytes())];
        let began = bench(&files).await;
        let first = segment(ONE, 1);
        let older = bench(&[files[0], files[1], (ONE, &first)]).await;
        let cases = [
            (&began, Asker::default(), true),
            (&began, on(2), true),
            (&older, Asker::default(), false),
            // A server of timeline 2 or 3 asks for it to copy it, and is not led anywhere by it.
            (&older, on(2), true),
            (&older, on(3), true),
        ];
        for (number, (bench, server, proven)) in cases.into_iter().enumerate() {
            let error = verdict(bench, "00000002.history", server).await;
            assert_eq!(error.is_none(), proven, "case {number}: {error:?}");
        }
    }

    #[tokio::test]
    async fn row_46_a_lost_history_hides_no_later_timeline_from_a_segment() {
        // Timeline 2 leaves timeline 1 in segment 3, and timeline 3 leaves that in segment 5.
        let (first, second) = (segment(ONE, 1), segment(TWO, 1));
        let files: [(&str, &[u8]); 3] = [
            (ONE, &first),
            (TWO, &second),
            ("00000003.history", THIRD.as_bytes()),
        ];
        let bench = bench(&files).await;
        for lost in ["000000010000000000000002", "000000020000000000000004"] {
            let error = verdict(&bench, lost, on(1)).await.expect(lost);
            assert_eq!(error.kind, Kind::CorruptData);
            assert!(error.message.contains("timeline 3"), "{error}");
        }
        // Timeline 1 ends in segment 3, but that is nothing to end at while the history of timeline 2 is lost.
        for (end, proven) in [
            ("000000010000000000000003", false),
            ("000000020000000000000005", true),
        ] {
            let error = verdict(&bench, end, on(1)).await;
            assert_eq!(error.is_none(), proven, "{end}");
        }
    }
}
