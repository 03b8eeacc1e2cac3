//! The part of a base backup that needs no server, for the tests of backup and restore.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use wale_cluster::Listing;
use wale_format::tar::Meta;
use wale_format::{BackupName, PartitionRecord, layout};
use wale_pipeline::{CancellationToken, Progress, run_workers};

use super::options::DamagedPagePolicy;
use super::partitions::{CopyJob, make_partition, small_partition};
use super::run::{parts_of, sources};
use super::throttle::Throttle;
use super::uploads::Uploads;
use crate::archive::Archive;
use crate::error::Result;
use wale_format::Crc32c;

/// Path, size and CRC of a file as stored.
pub(crate) type StoredFile = (String, u64, u32);

/// Stores what a listing has; returns the partitions and the files.
pub(crate) async fn copy_directory(
    archive: &Archive,
    name: BackupName,
    listing: Listing,
    runtime: Handle,
    now: Instant,
) -> Result<(Vec<PartitionRecord>, Vec<StoredFile>)> {
    let (directories, mut files) = sources(listing);
    files.retain(|file| file.relative != "global/pg_control");
    let parts = parts_of(&files, 2);
    let job = Arc::new(CopyJob {
        name,
        codec: *archive.codec(),
        directories,
        files,
        verify: None,
        policy: DamagedPagePolicy::Record,
        throttle: Throttle::new(None, now),
        progress: Progress::new(),
        uploads: Arc::new(Uploads::new(Arc::clone(archive.store()))),
        runtime,
    });
    let cancel = CancellationToken::new();
    let made = run_workers(parts, 2, &cancel, move |part, token| {
        make_partition(&job, &part, &token)
    })
    .await?;
    let mut records = Vec::new();
    let mut stored = Vec::new();
    for partition in made {
        records.push(PartitionRecord {
            number: partition.number,
            members: partition.contents.members,
            bytes_plain: partition.bytes_plain,
            bytes_stored: partition.bytes_stored,
        });
        stored.extend(
            partition
                .contents
                .files
                .into_iter()
                .map(|file| (file.path, file.size, file.crc32c)),
        );
    }
    Ok((records, stored))
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
    let (bytes, bytes_plain) = small_partition(*archive.codec(), &members)?;
    let uploads = Uploads::new(Arc::clone(archive.store()));
    let bytes_stored = uploads
        .put_bytes(
            &layout::partition(name, number, archive.codec().codec),
            bytes.into(),
        )
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
