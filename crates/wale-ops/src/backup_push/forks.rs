//! Timelines that appear while a base backup runs, and leave its own at or before a segment that it waits for: that
//! segment will never be complete under its old name.
//!
//! Only timelines that are new count: a branch that was there before the backup says nothing about it. Of a primary that
//! still is the primary of its timeline none counts, for its own archiver brings the segment; somebody else's clone that was
//! promoted meanwhile is no reason to give the backup up.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use wale_archive::Archive;
use wale_archive::lineage::{Histories, MISSING_MAX, cut_off};
use wale_cluster::{DataDirectory, WalDirectory};
use wale_pg::{ArchiveFileName, Lsn, TimelineHistory, TimelineId, WalSegmentName, WalSegmentSize};
use wale_pipeline::blocking;

use super::options::BackupOptions;
use crate::error::{Kind, OpError, Result};

/// Bytes of one history that are read. A line is some 60 bytes, so this is a thousand timelines.
const LOCAL_BYTES_MAX: u64 = 64 << 10;

/// What was known when the backup began.
#[derive(Debug)]
pub(super) struct Forks {
    timeline: TimelineId,
    size: WalSegmentSize,
    from_standby: bool,
    known: BTreeSet<TimelineId>,
    data_directory: PathBuf,
    wal_directory: PathBuf,
}

impl Forks {
    /// Notes which timelines there are after the backup's own. `None` when that is not known: then the wait has its
    /// limit only.
    pub(super) async fn note(
        archive: &Archive,
        options: &BackupOptions,
        timeline: TimelineId,
        size: WalSegmentSize,
        from_standby: bool,
    ) -> Option<Self> {
        let mut forks = Self {
            timeline,
            size,
            from_standby,
            known: BTreeSet::new(),
            data_directory: options.data_directory.clone(),
            wal_directory: options.wal_directory.clone(),
        };
        match forks.histories(archive).await {
            Ok(found) => {
                forks.known = found.timelines().collect();
                Some(forks)
            }
            Err(error) => {
                tracing::warn!(%timeline, error = %error.chain(), "could not list the timelines: a promotion during \
                                                                   the backup is noticed late");
                None
            }
        }
    }

    /// Gives the backup up when a new timeline leaves its own at or before `segment`.
    ///
    /// # Errors
    ///
    /// [`Kind::PostgresUnavailable`] with the reason, because a new backup can succeed. Where that is not known it is
    /// no error.
    pub(super) async fn check(&self, archive: &Archive, segment: WalSegmentName) -> Result<()> {
        let histories = match self.histories(archive).await {
            Ok(histories) => histories,
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the check for new timelines failed");
                return Ok(());
            }
        };
        let new = histories
            .readable()
            .filter(|history| !self.known.contains(&history.timeline));
        for history in new {
            let Some(fork) = cut_off(segment, history, self.size) else {
                continue;
            };
            if self.from_standby || self.has_moved_on().await {
                return Err(void(segment, history.timeline, fork));
            }
        }
        Ok(())
    }

    /// Whether the server that was a primary is no primary of that timeline any more.
    async fn has_moved_on(&self) -> bool {
        let path = self.data_directory.clone();
        let read = blocking(move || DataDirectory::open(&path)?.control_file()).await;
        matches!(read, Ok(Ok(control)) if control.timeline != self.timeline)
    }

    /// The timelines after the backup's own, by the archive and by the WAL directory.
    async fn histories(&self, archive: &Archive) -> Result<Histories> {
        let mut found = archive.later_histories(self.timeline).await?;
        let (path, own) = (self.wal_directory.clone(), self.timeline);
        for history in blocking(move || local_histories(&path, own)).await? {
            found.insert(history);
        }
        Ok(found)
    }
}

/// The histories that lie in the WAL directory: of a server that archives nothing itself, or has not yet. What cannot be
/// read is left to the archive. Blocks.
fn local_histories(path: &Path, own: TimelineId) -> Vec<TimelineHistory> {
    let mut found = Vec::new();
    let Ok(directory) = WalDirectory::open(path) else {
        return found;
    };
    let mut missing = 0;
    for timeline in std::iter::successors(own.next(), |timeline| timeline.next()) {
        match local_history(&directory, timeline) {
            Some(history) => {
                missing = 0;
                found.push(history);
            }
            None => missing += 1,
        }
        if missing == MISSING_MAX {
            break;
        }
    }
    found
}

fn local_history(directory: &WalDirectory, timeline: TimelineId) -> Option<TimelineHistory> {
    let file = directory.open_file(&ArchiveFileName::TimelineHistory(timeline));
    let mut text = Vec::new();
    let mut reader = file.ok()?.file.take(LOCAL_BYTES_MAX);
    reader.read_to_end(&mut text).ok()?;
    TimelineHistory::parse(timeline, &String::from_utf8_lossy(&text)).ok()
}

fn void(segment: WalSegmentName, timeline: TimelineId, fork: Lsn) -> OpError {
    OpError::new(
        Kind::PostgresUnavailable,
        format!("segment {segment} cannot come any more: timeline {timeline} was begun at {fork}, so the backup cannot \
                 be used"),
    )
    .detail(
        "A server was promoted while the backup ran or waited for WAL. What the segment would hold is in the \
         archive on the new timeline, at most, and a backup of the old one ends without it.",
    )
    .hint("take the backup again, on the new primary or on a standby that follows it")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wale_cluster::ConnectOptions;
    use wale_format::Codec;

    use super::*;
    use crate::testing::{Bench, segment_name};

    const SIZE: u64 = 1 << 20;

    fn size() -> WalSegmentSize {
        WalSegmentSize::new(SIZE).expect("a size")
    }

    fn one() -> TimelineId {
        TimelineId::new(1).expect("a timeline")
    }

    #[tokio::test]
    async fn fault_107_only_a_timeline_that_appears_meanwhile_ends_the_wait() {
        let segment = segment_name("000000010000000000000004");
        let bench = Bench::new();
        bench.claim().await;
        bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/100100\tx\n");
        let mut options = BackupOptions::new(bench.folder().to_owned(), ConnectOptions::default());
        options.wal_directory = bench.folder().to_owned();
        let note = async |from_standby| {
            let noted = Forks::note(&bench.archive, &options, one(), size(), from_standby);
            noted.await.expect("told")
        };
        let standby = note(true).await;
        let primary = note(false).await;
        let check = |forks: Forks| {
            let archive = bench.archive.clone();
            async move { forks.check(&archive, segment).await }
        };
        standby
            .check(&bench.archive, segment)
            .await
            .expect("an old branch");
        // Seen in the WAL directory before it is archived.
        fs::write(bench.folder().join("00000003.history"), "1\t0/400100\tx\n").expect("written");
        let error = check(standby).await.expect_err("void");
        assert_eq!(error.kind, Kind::PostgresUnavailable);
        assert!(
            error.message.contains("timeline 3") && error.message.contains("0/400100"),
            "{}",
            error.message
        );
        // A primary brings its segment itself, as far as its control file shows.
        check(primary).await.expect("somebody else's clone");
        let later = note(true).await;
        check(later).await.expect("known by now");
    }
}
