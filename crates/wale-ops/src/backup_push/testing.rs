//! The parts of a base backup that need no server, for the tests of backup and restore.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::DateTime;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wale_archive::Archive;
use wale_cluster::{DataDirectory, StoppedBackup, WalkOptions};
use wale_format::sentinel::{DamagedPage, TimescaleRecord};
use wale_format::tar::Meta;
use wale_format::{BackupName, Codec, PartitionRecord, layout};
use wale_pg::{ControlFile, Lsn, MajorVersion, TimelineId};
use wale_pipeline::{CancellationToken, Progress, run_workers};

use super::backup_end::{BackupEnd, RunningEnd};
use super::contents::BackupContents;
use super::copied::Copied;
use super::ended::Ended;
use super::files::{PartitionContents, SourcePlaces};
use super::frame_index::write_index;
use super::listing::{ListingFacts, list, parts_of};
use super::options::DamagedPagePolicy;
use super::packed::SourceFile;
use super::partitions::{CopyJob, StoredPartition, make_partition, member_names, small_partition};
use super::priority::Priority;
use super::ready::{Ready, RunningServer};
use super::report::Started;
use super::shutdown_checkpoint::ShutdownCheckpoint;
use super::stored::{Stored, StoredManifest};
use super::throttle::Throttle;
use super::uploads::Uploads;
use crate::error::Result;
use wale_format::Crc32c;

/// Path, size and CRC of a file as stored.
pub(crate) type StoredFile = (String, u64, u32);

/// What is stored of a listing.
#[derive(Default)]
pub(crate) struct StoredListing {
    pub(crate) partitions: Vec<PartitionRecord>,
    pub(crate) files: Vec<StoredFile>,
    /// The index of the files, which is not stored.
    pub(crate) index: Bytes,
}

/// Stores what a data directory has.
pub(crate) async fn copy_directory(
    archive: &Archive,
    name: BackupName,
    (data, options): (&DataDirectory, &WalkOptions),
    runtime: Handle,
    now: Instant,
) -> Result<StoredListing> {
    let listed = list(data, options).expect("listed");
    let parts = parts_of(&listed.files, 2);
    let job = Arc::new(CopyJob {
        name,
        archive: archive.clone(),
        directories: listed.directories,
        places: SourcePlaces {
            data: data.path().to_owned(),
            wal: data.path().join("pg_wal"),
        },
        verify: None,
        policy: DamagedPagePolicy::Record,
        throttle: Throttle::new(None, None, now),
        progress: Progress::new(),
        uploads: Arc::new(Uploads::new(Arc::clone(archive.store()))),
        runtime,
        lanes: Arc::new(Semaphore::new(2)),
    });
    let cancel = CancellationToken::new();
    let made = run_workers(
        parts,
        Priority::Normal.crew(4),
        &cancel,
        move |part, token| make_partition(&job, &part, &token),
    )
    .await?;
    let contents = BackupContents::of(made);
    let (framed, files) = (contents.framed, contents.files);
    let names = member_names(archive.codec());
    let mut index = Vec::new();
    write_index(&framed, &files, names, &mut index).expect("written");
    let index = archive.seal_small_as(Codec::Zstd, &index)?;
    Ok(StoredListing {
        partitions: contents.partitions,
        files: files
            .iter()
            .map(|(_, file)| (file.path, file.size, file.crc32c))
            .collect(),
        index,
    })
}

/// Stores a partition of small files.
pub(crate) async fn small(
    archive: &Archive,
    name: &BackupName,
    number: u32,
    files: &[(&str, &[u8])],
) -> Result<(PartitionRecord, Vec<StoredFile>)> {
    let meta = Meta {
        mode: 0o600,
        ..Meta::default()
    };
    let members: Vec<(&str, &[u8], Meta)> = files
        .iter()
        .map(|(path, content)| (*path, *content, meta))
        .collect();
    let (bytes, bytes_plain) = small_partition(archive, &members)?;
    let uploads = Uploads::new(Arc::clone(archive.store()));
    let bytes_stored = uploads
        .put_bytes(&layout::partition(name, number, archive.codec()), bytes)
        .await?;
    let stored = files
        .iter()
        .map(|(path, content)| {
            (
                (*path).to_owned(),
                content.len() as u64,
                Crc32c::of(content),
            )
        })
        .collect();
    Ok((
        PartitionRecord {
            number,
            members: files.len() as u64,
            bytes_plain,
            bytes_stored,
        },
        stored,
    ))
}

/// A control file of 18, of a running server with page checksums.
pub(super) const EIGHTEEN: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/18");

/// Where the backups made here begin and end.
pub(super) const LSN: Lsn = Lsn::new(0x0200_0028);

/// A backup whose files are copied, a wrong page among them. The control file was `before` at the start and is `after` at the
/// end.
pub(super) fn copied(before: &[u8], after: &[u8]) -> Copied {
    let control_file = ControlFile::parse(before).expect("a control file");
    let (timeline, size) = (control_file.timeline, control_file.wal_segment_size);
    let wrong = DamagedPage {
        path: "base/5/1259".into(),
        block: 3,
    };
    Copied {
        ready: Ready {
            directory: DataDirectory::at(Path::new("/nonexistent")),
            control_file,
            major: MajorVersion::parse("18").expect("a major"),
            version_num: 180_004,
            version: "PostgreSQL 18.4".to_owned(),
            settings: [].into(),
        },
        started: Started::at(timeline, LSN, size, DateTime::UNIX_EPOCH),
        partitions: vec![StoredPartition {
            contents: PartitionContents {
                damaged: vec![wrong],
                damaged_count: 1,
                ..PartitionContents::default()
            },
            ..StoredPartition::default()
        }],
        control_bytes: after.to_owned(),
        listing: ListingFacts::default(),
    }
}

/// The end of a backup of a standby on this timeline.
pub(super) fn running(timeline: TimelineId) -> BackupEnd {
    BackupEnd::Running(Box::new(RunningEnd {
        server: RunningServer {
            in_recovery: true,
            data_directory: Some("/var/lib/postgresql/18/docker".to_owned()),
            extensions: [("app".to_owned(), [].into())].into(),
            timescaledb: [("app".to_owned(), TimescaleRecord::default())].into(),
            configuration: None,
        },
        stopped: StoppedBackup {
            start_lsn: LSN,
            stop_lsn: LSN,
            timeline,
            stop_timeline: timeline,
            from_standby: true,
            label_text: "LABEL: wale\n".to_owned(),
            tablespace_map: String::new(),
        },
        forks: None,
    }))
}

/// The end of a backup of a stopped server, whose last checkpoint is in `files`.
pub(super) fn stopped(files: Vec<SourceFile>) -> BackupEnd {
    BackupEnd::Stopped(ShutdownCheckpoint { end: LSN, files })
}

/// A backup that has ended, and of which everything is stored but WAL and sentinel.
pub(super) fn stored(ending: BackupEnd) -> Stored {
    let copied = copied(EIGHTEEN, EIGHTEEN);
    Stored {
        ended: Ended::new(copied, ending, DateTime::UNIX_EPOCH).expect("ended"),
        manifest: StoredManifest {
            sha256: String::new(),
            bytes: 0,
        },
        configuration: None,
        has_file_list: false,
    }
}
