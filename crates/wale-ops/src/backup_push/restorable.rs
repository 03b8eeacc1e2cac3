//! The fourth step of a backup: the WAL that a restore needs is there. Only such a backup can be committed.

use super::backup::Backup;
use super::backup_end::BackupEnd;
use super::stopped::{check_wal_is_among, still_stopped};
use super::stored::Stored;
use super::wal_wait::wait_for_segments;
use crate::error::Result;

/// A backup that lacks nothing but its sentinel. It is made here only.
pub(super) struct Restorable {
    stored: Stored,
}

impl Stored {
    /// Goes on when the WAL that a restore needs is there: of a running server when it has arrived in the archive, of a stopped
    /// one when it is among the files and the server was never started.
    ///
    /// # Errors
    ///
    /// [`Kind::PostgresUnavailable`](crate::Kind::PostgresUnavailable) when WAL does not arrive, or cannot any more;
    /// [`Kind::Busy`](crate::Kind::Busy) when the stopped server was started.
    pub(super) async fn with_wal(self, backup: &Backup<'_>) -> Result<Restorable> {
        let ended = &self.ended;
        match &ended.ending {
            BackupEnd::Running(end) => {
                backup.progress.set_phase("waiting for WAL");
                wait_for_segments(
                    backup.archive,
                    &ended.segments,
                    &backup.options.wal_directory,
                    backup.options.wal_wait_limit,
                    end.forks.as_ref(),
                    backup.cancel,
                )
                .await?;
            }
            BackupEnd::Stopped(checkpoint) => {
                check_wal_is_among(&ended.contents, checkpoint)?;
                still_stopped(&ended.ready, &ended.control_bytes).await?;
            }
        }
        Ok(Restorable { stored: self })
    }
}

impl Restorable {
    /// What is stored of it.
    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The backup, when it is committed.
    pub(super) fn into_stored(self) -> Stored {
        self.stored
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Notify;
    use wale_cluster::{ConnectOptions, DataDirectory};
    use wale_format::Codec;
    use wale_pg::{ControlFile, TimelineId};
    use wale_pipeline::{CancellationToken, Progress};

    use super::super::files::PartitionContents;
    use super::super::options::BackupOptions;
    use super::super::packed::{FileRecord, SourceFile};
    use super::super::partitions::StoredPartition;
    use super::super::testing;
    use super::super::uploads::Uploads;
    use super::*;
    use crate::error::Kind;
    use crate::testing::Bench;

    const SEGMENT: &str = "000000010000000000000002";

    /// Why the backup is not restorable.
    async fn refusal(bench: &Bench, stored: Stored) -> Option<Kind> {
        let mut options = BackupOptions::new(bench.folder().to_owned(), ConnectOptions::default());
        options.wal_directory = bench.folder().to_owned();
        options.wal_wait_limit = Duration::ZERO;
        let backup = Backup {
            archive: &bench.archive,
            options: &options,
            progress: &Progress::new(),
            cancel: &CancellationToken::new(),
            uploads: &Arc::new(Uploads::new(Arc::clone(bench.archive.store()))),
            claimed: &Notify::new(),
        };
        stored.with_wal(&backup).await.err().map(|error| error.kind)
    }

    #[tokio::test]
    async fn a_backup_of_a_running_server_needs_its_wal_in_the_archive() {
        let bench = Bench::new();
        bench.claim().await;
        let stored = || testing::stored(testing::running(TimelineId::FIRST));
        let refused = refusal(&bench, stored()).await;
        assert_eq!(refused, Some(Kind::PostgresUnavailable));
        bench.store_wal(SEGMENT, Codec::Zstd, b"not looked into");
        assert_eq!(refusal(&bench, stored()).await, None);
    }

    #[tokio::test]
    async fn a_backup_of_a_stopped_server_needs_its_wal_among_its_files_and_the_server_still_stopped()
     {
        let bench = Bench::new();
        let data = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(data.path().join("global")).expect("made");
        std::fs::write(data.path().join(ControlFile::PATH), testing::EIGHTEEN).expect("written");
        let path = format!("pg_wal/{SEGMENT}");
        let stored = |size: Option<u64>| {
            let mut stored = testing::stored(testing::stopped(vec![SourceFile {
                relative: path.clone(),
                size: 7,
            }]));
            stored.ended.ready.directory = DataDirectory::at(data.path());
            let file = size.map(|size| FileRecord {
                path: path.clone(),
                size,
                mtime: stored.ended.stopped_at,
                is_settled: true,
                crc32c: 0,
                offset: 0,
            });
            stored.ended.contents.add(StoredPartition {
                contents: PartitionContents {
                    files: file.into_iter().collect(),
                    ..PartitionContents::default()
                },
                number: 1,
                ..StoredPartition::default()
            });
            stored
        };
        assert_eq!(refusal(&bench, stored(None)).await, Some(Kind::Busy));
        assert_eq!(refusal(&bench, stored(Some(6))).await, Some(Kind::Busy));
        // Nothing is in the archive.
        assert_eq!(refusal(&bench, stored(Some(7))).await, None);
        std::fs::write(data.path().join("postmaster.pid"), "1\n").expect("written");
        assert_eq!(refusal(&bench, stored(Some(7))).await, Some(Kind::Busy));
        std::fs::remove_file(data.path().join("postmaster.pid")).expect("removed");
        let later = include_bytes!("../../../wale-pg/testdata/control_file/15");
        std::fs::write(data.path().join(ControlFile::PATH), later).expect("written");
        assert_eq!(refusal(&bench, stored(Some(7))).await, Some(Kind::Busy));
    }
}
