//! Waiting until every segment that the backup needs is itself in the archive.
//!
//! The server was told not to wait (`wait_for_archive = false`): the sidecar *is* the archive, and must go on serving
//! pushes meanwhile. A segment counts when it is in the archive and the server does not wait for it any more: only its
//! own archiver's success shows that the bytes are this server's. No connection to the server is needed any more. The
//! wait has a limit and says in the log which segment is missing and why, because a backup that waits silently looks
//! like one that hangs. It ends at once when a timeline is seen that forks at or before the missing segment ([`Forks`]).

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use wale_archive::Archive;
use wale_cluster::{ArchiveStatus, ClusterError, WalDirectory};
use wale_pg::{ArchiveFileName, WalSegmentName};
use wale_pipeline::{CancellationToken, blocking};

use super::forks::Forks;
use crate::error::{Kind, OpError, Result};
use crate::retry::Pauses;

/// First and longest pause between two checks. A check is one round of requests for one segment.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks at whether the server still waits, which ask the store for nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Time between two lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// Time between two looks for timelines, each of which asks for eight histories under each of seven codecs' names.
const FORKS_EVERY: Duration = Duration::from_secs(5);

/// Waits for `segments`, in their order, for at most `limit`. Returns how long it took.
pub(super) async fn wait_for_segments(
    archive: &Archive,
    segments: &[WalSegmentName],
    wal_directory: &Path,
    limit: Duration,
    forks: Option<&Forks>,
    cancel: &CancellationToken,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut next_line = begun + LOG_EVERY;
    let mut next_forks = begun;
    for &segment in segments {
        let name = ArchiveFileName::Segment(segment);
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let waiting = is_waiting(wal_directory, segment).await;
            // Under a codec or a key that we cannot read it is of no use to a restore: the push stores it beside.
            let trouble = match archive.has_readable(&name).await {
                // While our server still has it to deliver, the object in the archive may be another server's: of a
                // clone that went on by itself, whose WAL would not restore this backup.
                Ok(true) if !waiting => break,
                Ok(_) => None,
                // The store may come back within the limit.
                Err(error) if error.kind == Kind::StorageUnavailable => Some(error),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            if now.duration_since(begun) >= limit {
                return Err(gave_up(segment, wal_directory, limit, trouble).await);
            }
            if let Some(forks) = forks.filter(|_| now >= next_forks) {
                forks.check(archive, segment).await?;
                next_forks = Instant::now() + FORKS_EVERY;
            }
            if now >= next_line {
                let why = reason(wal_directory, segment).await;
                tracing::info!(
                    %segment,
                    waited_s = now.duration_since(begun).as_secs(),
                    "base backup waits for segment {segment} to reach the archive: {why}"
                );
                next_line = now + LOG_EVERY;
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(OpError::cancelled()),
                () = tokio::time::sleep(pauses.take()) => {}
                () = delivered(wal_directory, segment), if waiting => {}
            }
        }
    }
    Ok(begun.elapsed())
}

async fn gave_up(
    segment: WalSegmentName,
    wal_directory: &Path,
    limit: Duration,
    trouble: Option<OpError>,
) -> OpError {
    if let Some(error) = trouble {
        return error;
    }
    OpError::new(Kind::PostgresUnavailable, format!("segment {segment} did not reach the archive within {limit:?}"))
        .detail(format!("The base backup cannot be restored without it: {}.", reason(wal_directory, segment).await))
        .hint("check archive_mode, archive_command and the server's log; on a standby the segment comes when the \
               primary has filled or switched it")
}

/// Whether the server of this WAL directory still waits for the segment to be archived. Where that cannot be seen it may.
async fn is_waiting(wal_directory: &Path, segment: WalSegmentName) -> bool {
    !matches!(
        status(wal_directory, segment).await,
        Some(Ok(ArchiveStatus::Done
            | ArchiveStatus::None
            | ArchiveStatus::NoStatusDirectory))
    )
}

/// Ends when the server does not wait for the segment any more.
async fn delivered(wal_directory: &Path, segment: WalSegmentName) {
    while is_waiting(wal_directory, segment).await {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the server thinks of the segment; `None` when looking failed.
async fn status(
    wal_directory: &Path,
    segment: WalSegmentName,
) -> Option<std::result::Result<ArchiveStatus, ClusterError>> {
    let path = wal_directory.to_owned();
    let look = move || WalDirectory::open(&path)?.status(&ArchiveFileName::Segment(segment));
    blocking(look).await.ok()
}

/// Why a segment is not archived yet, as far as the WAL directory shows.
async fn reason(wal_directory: &Path, segment: WalSegmentName) -> String {
    match status(wal_directory, segment).await {
        Some(Ok(ArchiveStatus::Ready)) => {
            "the server has it ready, but its archive_command has not delivered it, or was refused"
                .to_owned()
        }
        Some(Ok(ArchiveStatus::Done)) => {
            "the server believes that it is archived; it went elsewhere".to_owned()
        }
        Some(Ok(_)) => "the server has not handed it to its archiver yet".to_owned(),
        Some(Err(error)) => format!("the WAL directory cannot be read ({error})"),
        None => "the WAL directory cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use wale_format::Codec;

    use super::*;
    use crate::testing::{Bench, segment, segment_name};

    #[tokio::test]
    async fn a_segment_counts_only_when_the_server_is_seen_not_to_wait_for_it() {
        const NAME: &str = "000000010000000000000001";
        let bench = Bench::new();
        bench.claim().await;
        // Another tool's, which no restore of ours reads.
        let key = Archive::key(&format!("wal_005/{NAME}.br")).expect("a key");
        bench.memory.insert(&key, b"brotli".to_vec());
        let none = CancellationToken::new();
        let (limit, segments) = (Duration::ZERO, [segment_name(NAME)]);
        let waited = wait_for_segments(
            &bench.archive,
            &segments,
            bench.folder(),
            limit,
            None,
            &none,
        )
        .await;
        let error = waited.expect_err("not for us");
        assert_eq!(error.kind, Kind::PostgresUnavailable);
        bench.store_wal(NAME, Codec::Zstd, &segment(NAME, 1));
        let folder = bench.folder().join("archive_status");
        let wait = || async {
            let cancel = CancellationToken::new();
            let (limit, segments) = (Duration::ZERO, [segment_name(NAME)]);
            wait_for_segments(
                &bench.archive,
                &segments,
                bench.folder(),
                limit,
                None,
                &cancel,
            )
            .await
        };
        wait().await.expect("neither ready nor done");
        fs::write(folder.join(format!("{NAME}.ready")), "").expect("written");
        let error = wait().await.expect_err("the server waits for it");
        assert_eq!(error.kind, Kind::PostgresUnavailable);
        fs::remove_dir_all(&folder).expect("removed");
        wait().await.expect("no status directory");
        // It cannot be opened, not even by root.
        symlink("archive_status", &folder).expect("a link to itself");
        let error = wait().await.expect_err("nobody can tell");
        assert_eq!(error.kind, Kind::PostgresUnavailable);
        assert!(error.detail.expect("why").contains("cannot be read"));
        fs::remove_file(&folder).expect("removed");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join(format!("{NAME}.done")), "").expect("written");
        wait().await.expect("done");
    }

    #[tokio::test]
    async fn the_end_of_the_servers_waiting_is_seen_without_the_store() {
        const NAME: &str = "000000010000000000000001";
        let bench = Bench::new();
        let ready = bench.folder().join(format!("archive_status/{NAME}.ready"));
        fs::write(&ready, "").expect("written");
        let mut ends = Box::pin(delivered(bench.folder(), segment_name(NAME)));
        let before = tokio::time::timeout(5 * LOOK_EVERY, &mut ends).await;
        before.expect_err("the server waits for it");
        fs::rename(&ready, ready.with_extension("done")).expect("renamed");
        ends.await;
    }
}
