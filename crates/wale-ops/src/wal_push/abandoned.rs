//! WAL of a timeline that the server has left.
//!
//! PostgreSQL hands over segments of an old timeline that no recovery along the server's own timeline reads: the longer
//! copy of the last one, which a returned primary has; its own copies of those after the switch; and files that were
//! preallocated or recycled under such a name and never written. A refusal would hold up everything after them for ever,
//! since PostgreSQL archives one file after the other.
//!
//! The archive's copy under such a name counts up to the fork. Nothing is replaced after it, and nothing that the
//! server alone has is lost: that is kept as a partial segment. A server that is still on the old timeline finds no
//! fork here, whatever others have made of its log. The old rules hold there.

use wale_archive::lineage::{self, Fork};
use wale_archive::{Archive, StoredWal};
use wale_pg::{ArchiveFileName, TimelineHistory, TimelineId, WalSegmentName, WalSegmentSize};
use wale_pipeline::blocking;

use super::compare::{content_end, first_difference, not_comparable};
use super::done::{Done, confirm};
use super::plan::{self, Abandoned};
use super::source::Source;
use crate::error::Result;

/// Why a digest does not settle it.
const UP_TO_THE_FORK: &str = "Their contents differ. The server has left that timeline, so they may be equal as far as it counts, up to the \
                              fork; only the plain bytes show that.";

/// What became of a segment whose name is taken by other bytes.
pub(super) enum Settled {
    /// The fork explains nothing: it is a conflict.
    Conflict,
    /// The server's copy holds nothing that the stored one lacks.
    Acknowledged(Done),
    /// The server's copy holds more: it is to be kept as a partial segment.
    Keep(Left),
}

/// What the server has of a timeline that it has left.
pub(super) struct Left {
    /// The file, to be stored as a partial segment.
    pub(super) partial: Source,
    fork: Fork,
}

impl Left {
    /// Says in the log that it was kept.
    pub(super) fn tell_kept(&self, source: &Source, done: &Done) {
        tell(
            source,
            &self.fork,
            done,
            "the server's copy holds more and is kept as a partial segment",
        );
    }
}

/// Settles a segment whose name is taken by other bytes, where the server has left the timeline before the segment's end
/// and every stored copy has the file's bytes up to there.
pub(super) async fn settle(
    archive: &Archive,
    source: &Source,
    copies: &[StoredWal],
) -> Result<Settled> {
    let ArchiveFileName::Segment(segment) = source.stored_as else {
        return Ok(Settled::Conflict);
    };
    let Some(fork) = fork(archive, source, segment).await? else {
        return Ok(Settled::Conflict);
    };
    let mut difference = source.size;
    for stored in copies {
        let found = first_difference(archive, source, stored).await;
        let found = found.map_err(|error| {
            if archive.may_be_ours_locked(&error) {
                not_comparable(source, stored, &error, UP_TO_THE_FORK)
            } else {
                error
            }
        })?;
        difference = difference.min(found.unwrap_or(source.size));
    }
    let local = source.clone();
    let end = blocking(move || content_end(&local)).await??;
    Ok(match plan::abandoned(&fork, difference, end) {
        Abandoned::Conflict => Settled::Conflict,
        Abandoned::NothingMore => {
            let done = confirm(archive, &copies[0]).await?;
            tell(
                source,
                &fork,
                &done,
                "the server's copy holds nothing that the stored one lacks",
            );
            Settled::Acknowledged(done)
        }
        Abandoned::Keep => Settled::Keep(Left {
            partial: source.as_partial(segment),
            fork,
        }),
    })
}

/// Acknowledges a file that was never written as the segment of its name: where the name is archived, and the server has
/// left the timeline before the segment's end. `None`: it stays damaged.
pub(super) async fn excuse(
    archive: &Archive,
    source: &Source,
    copies: &[StoredWal],
) -> Result<Option<Done>> {
    let (ArchiveFileName::Segment(segment), Some(stored)) = (source.stored_as, copies.first())
    else {
        return Ok(None);
    };
    let Some(fork) = fork(archive, source, segment).await? else {
        return Ok(None);
    };
    let done = confirm(archive, stored).await?;
    tell(
        source,
        &fork,
        &done,
        "the server never wrote this file as that segment",
    );
    Ok(Some(done))
}

/// Where the server has left the timeline of `segment`, if that is before the segment's end.
async fn fork(archive: &Archive, source: &Source, segment: WalSegmentName) -> Result<Option<Fork>> {
    let Ok(size) = WalSegmentSize::new(source.size) else {
        return Ok(None);
    };
    let local = source.clone();
    let Some(server) = blocking(move || local.server_timeline()).await? else {
        return Ok(None);
    };
    if server <= segment.timeline() {
        return Ok(None);
    }
    let Some(server) = history(archive, source, server).await? else {
        return Ok(None);
    };
    let own = match server.switch_lsn(segment.timeline()) {
        Some(_) => server.until(segment.timeline()),
        None => history(archive, source, segment.timeline()).await?,
    };
    Ok(own.and_then(|own| lineage::fork(segment, size, &server, &own)))
}

/// The history of a timeline: the archive's, otherwise the WAL directory's, whose own turn to be archived may come
/// later.
async fn history(
    archive: &Archive,
    source: &Source,
    timeline: TimelineId,
) -> Result<Option<TimelineHistory>> {
    if timeline == TimelineId::FIRST {
        return Ok(Some(TimelineHistory::without_parents(timeline)));
    }
    if let Some(history) = archive.timeline_history(timeline).await? {
        return Ok(Some(history));
    }
    let local = source.clone();
    Ok(blocking(move || local.local_history(timeline)).await?)
}

fn tell(source: &Source, fork: &Fork, done: &Done, why: &str) {
    tracing::warn!(
        name = %source.name,
        key = %done.key,
        outcome = done.outcome.name(),
        server_timeline = fork.timeline.get(),
        fork = %fork.at,
        "{} is acknowledged although the file is not the stored one: {why}. Nothing was replaced. This is safe, because \
         the server left that timeline at {} for timeline {}, whose recovery reads nothing of it from there on, and up \
         to there the archive has it",
        source.name,
        fork.at,
        fork.timeline
    );
}

#[cfg(test)]
mod tests {
    use wale_cluster::WalDirectory;
    use wale_format::Codec;
    use wale_pg::ControlFile;

    use super::super::plan::server_timeline;
    use super::super::{PushOutcome, PushReport, run};
    use super::*;
    use crate::error::Kind;
    use crate::testing::{Bench, SEGMENT_BYTES, file_name, once, segment, segment_of};
    use crate::wal_fetch::fetch;

    const FIRST: &str = "000000010000000000000001";
    const SECOND: &str = "000000010000000000000002";
    /// In the middle of segment 1.
    const SWITCH: usize = SEGMENT_BYTES / 2;
    const HISTORY: &[u8] = b"1\t0/180000\tno recovery target specified\n";

    /// A server that left timeline 1 in the middle of segment 1, and an archive that has `stored` of that timeline.
    async fn bench(stored: &[(&str, &[u8])]) -> Bench {
        let bench = Bench::new();
        bench.claim().await;
        bench.write("00000002.history", HISTORY);
        bench.store_wal("00000002.history", Codec::Zstd, HISTORY);
        for (name, content) in stored {
            bench.store_wal(name, Codec::Zstd, content);
        }
        bench
    }

    async fn push(bench: &Bench, name: &str, content: &[u8]) -> Result<PushReport> {
        let name = bench.ready(name, content);
        run(&bench.archive, &bench.wal, &name, &once()).await
    }

    /// A segment with nothing after a position.
    fn ends_at(content: &[u8], at: usize) -> Vec<u8> {
        let mut content = content.to_vec();
        content[at..].fill(0);
        content
    }

    async fn content(bench: &Bench, name: &str) -> Vec<u8> {
        let fetched = fetch(&bench.archive, &file_name(name)).await.expect(name);
        crate::testing::content(fetched).await.expect(name)
    }

    #[tokio::test]
    async fn fault_106_a_longer_copy_of_the_old_timelines_last_segment_is_kept_as_a_partial_one() {
        let long = segment(FIRST, 1);
        let short = ends_at(&long, SWITCH);
        let bench = bench(&[(FIRST, &short)]).await;
        let report = push(&bench, FIRST, &long).await.expect("acknowledged");
        let partial = format!("{FIRST}.partial");
        assert_eq!(report.outcome, PushOutcome::KeptBeside);
        assert_eq!(report.key, format!("wal_005/{partial}.zst"));
        assert_eq!(content(&bench, FIRST).await, short, "nothing is replaced");
        assert_eq!(content(&bench, &partial).await, long, "nothing is lost");
        let again = push(&bench, FIRST, &long).await.expect("acknowledged");
        assert_eq!(again.outcome, PushOutcome::AlreadyStored);
        // A third server's: the name of the partial segment is taken, too.
        let mut other = long.clone();
        other[SWITCH + 100] ^= 1;
        let third = push(&bench, FIRST, &other).await.expect("acknowledged");
        assert_eq!(third.outcome, PushOutcome::KeptBeside);
        assert!(
            third.key.starts_with(&format!("wal_005/{partial}.")),
            "{}",
            third.key
        );
        assert_eq!(bench.wal_keys().len(), 4);
    }

    #[tokio::test]
    async fn fault_106_a_copy_that_holds_nothing_more_is_acknowledged_without_an_upload() {
        let long = segment(FIRST, 1);
        let whole = segment(SECOND, 1);
        let bench = bench(&[(FIRST, &long), (SECOND, &whole)]).await;
        let keys = bench.wal_keys();
        for end in [SWITCH, SWITCH + 5000] {
            let copy = ends_at(&long, end);
            let report = push(&bench, FIRST, &copy).await.expect("acknowledged");
            assert_eq!(report.outcome, PushOutcome::AlreadyStored);
        }
        // After the switch nothing of the old timeline is on the server's way.
        let report = push(&bench, SECOND, &ends_at(&whole, 9000)).await;
        assert_eq!(
            report.expect("acknowledged").outcome,
            PushOutcome::AlreadyStored
        );
        assert_eq!(bench.wal_keys(), keys);
        let other = segment(SECOND, 7);
        let report = push(&bench, SECOND, &other).await.expect("acknowledged");
        assert_eq!(report.outcome, PushOutcome::KeptBeside);
        assert_eq!(content(&bench, SECOND).await, whole);
        assert_eq!(content(&bench, &format!("{SECOND}.partial")).await, other);
    }

    #[tokio::test]
    async fn fault_106_a_difference_before_the_fork_stays_a_conflict() {
        let mine = segment(FIRST, 1);
        let mut theirs = ends_at(&mine, SWITCH);
        theirs[SWITCH - 1] ^= 1;
        let bench = bench(&[(FIRST, &theirs)]).await;
        let error = push(&bench, FIRST, &mine).await.expect_err("taken");
        assert_eq!(error.kind, Kind::ArchiveConflict);
        assert_eq!(bench.wal_keys().len(), 2);
    }

    #[tokio::test]
    async fn fault_106_a_server_on_the_old_timeline_is_refused_as_ever() {
        let (mine, theirs) = (segment(FIRST, 1), ends_at(&segment(FIRST, 1), SWITCH));
        let bench = bench(&[(FIRST, &theirs)]).await;
        // Another server of the cluster made timeline 2; this one has nothing of it.
        std::fs::remove_file(bench.folder().join("00000002.history")).expect("removed");
        let error = push(&bench, FIRST, &mine).await.expect_err("taken");
        assert_eq!(error.kind, Kind::ArchiveConflict);
        let error = push(&bench, FIRST, &vec![0; SEGMENT_BYTES]).await;
        assert_eq!(error.expect_err("zeros").kind, Kind::CorruptData);
        assert_eq!(bench.wal_keys().len(), 2);
    }

    #[tokio::test]
    async fn fault_106_a_file_that_was_never_written_is_acknowledged_where_its_name_is_archived() {
        let zeros = vec![0; SEGMENT_BYTES];
        let recycled = segment(FIRST, 3);
        let mut torn = zeros.clone();
        torn[SEGMENT_BYTES - 1] = 1;
        let stranger = segment_of(42, FIRST, 1);
        for (case, file, kind) in [
            ("preallocated", &zeros, None),
            ("recycled", &recycled, None),
            ("its first page is lost", &torn, Some(Kind::CorruptData)),
            ("another cluster's", &stranger, Some(Kind::ArchiveMismatch)),
        ] {
            // Without the name in the archive it stays damaged.
            let empty = bench(&[]).await;
            let error = push(&empty, SECOND, file).await.expect_err(case);
            assert_eq!(error.kind, kind.unwrap_or(Kind::CorruptData), "{case}");
            let whole = segment(SECOND, 1);
            let bench = bench(&[(SECOND, &whole)]).await;
            let keys = bench.wal_keys();
            let pushed = push(&bench, SECOND, file).await.map_err(|error| error.kind);
            let expected = kind.map_or(Ok(PushOutcome::AlreadyStored), Err);
            assert_eq!(pushed.map(|report| report.outcome), expected, "{case}");
            assert_eq!(bench.wal_keys(), keys, "{case}: nothing is stored");
            assert_eq!(content(&bench, SECOND).await, whole);
        }
        // A segment that ends where the server left the timeline, or before, is the server's own.
        let bench = bench(&[]).await;
        let early = "000000010000000000000000";
        bench.store_wal(early, Codec::Zstd, &segment(early, 1));
        let error = push(&bench, early, &zeros).await.expect_err("its own");
        assert_eq!(error.kind, Kind::CorruptData);
    }

    #[tokio::test]
    async fn fault_106_the_history_may_be_behind_the_file_in_the_archivers_queue() {
        // Before 12 the archiver takes the names in their order, so the history comes after timeline 1.
        let bench = Bench::new();
        bench.claim().await;
        bench.write("00000002.history", HISTORY);
        bench.store_wal(SECOND, Codec::Zstd, &segment(SECOND, 1));
        let report = push(&bench, SECOND, &vec![0; SEGMENT_BYTES]).await;
        assert_eq!(
            report.expect("acknowledged").outcome,
            PushOutcome::AlreadyStored
        );
    }

    #[test]
    fn a_primary_is_on_the_timeline_of_its_control_file_and_a_standby_on_the_newest_it_knows() {
        const RUNNING: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");
        const STANDBY: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15-standby");
        let control = |bytes| ControlFile::parse(bytes).expect("good");
        let (running, standby) = (control(RUNNING), control(STANDBY));
        let on = |number| TimelineId::new(number);
        for (control, newest, expected) in [
            (None, None, None),
            (None, on(2), on(2)),
            (Some(&running), None, on(1)),
            (Some(&running), on(2), on(1)),
            (Some(&standby), None, on(1)),
            (Some(&standby), on(2), on(2)),
        ] {
            assert_eq!(server_timeline(control, newest), expected, "{newest:?}");
        }
    }

    #[test]
    fn a_wal_directory_without_histories_tells_no_timeline() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = WalDirectory::at(folder.path());
        std::fs::write(folder.path().join(FIRST), segment(FIRST, 1)).expect("written");
        let source = Source::open(&directory, &file_name(FIRST), None).expect("good");
        assert_eq!(source.server_timeline(), None);
        std::fs::write(folder.path().join("00000003.history"), "nonsense").expect("written");
        assert_eq!(source.server_timeline(), TimelineId::new(3));
        assert_eq!(source.local_history(TimelineId::new(3).expect("3")), None);
    }
}
