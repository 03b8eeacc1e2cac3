//! The last step of a backup: the sentinel, which commits it, and a look whether it did.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use wale_archive::Archive;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{BackupMetadata, BackupName, Sentinel};
use wale_pg::{Lsn, WalSegmentName};
use wale_storage::{ObjectKey, PutOutcome, body_from};

use super::backup::Backup;
use super::ended::Ended;
use super::place;
use super::report::{BackupReport, Started};
use super::restorable::Restorable;
use super::stored::Stored;
use super::uploads::Uploads;
use crate::error::{Kind, OpError, Result};
use crate::retry::RetryBudget;

/// A backup that exists.
pub(super) struct Committed {
    ended: Ended,
}

impl Restorable {
    /// Makes the backup exist.
    ///
    /// # Errors
    ///
    /// The store's; [`Kind::StorageUnavailable`] and [`Kind::ArchiveConflict`] when others have removed or written objects of
    /// the backup; cancellation before the sentinel is written.
    pub(super) async fn commit(self, backup: &Backup<'_>) -> Result<Committed> {
        let Backup {
            archive, uploads, ..
        } = *backup;
        backup.progress.set_phase("committing");
        // Before the objects are checked: work that lost the claim finds another's objects, and that is not the reason.
        uploads.check_claim().await?;
        check_stored(archive, self.stored()).await?;
        let sentinel = self.stored().sentinel(archive.codec(), backup.options)?;
        let name = &self.stored().ended.started.name;
        store_metadata(uploads, name, &sentinel).await?;
        if backup.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        store_sentinel(archive, name, &sentinel, uploads).await?;
        backup.progress.set_phase("done");
        let ended = self.into_stored().ended;
        if ended.ending.running().is_some() {
            check_wal(archive, &ended.started.name, &ended.segments).await?;
        }
        Ok(Committed { ended })
    }
}

impl Committed {
    /// How it began.
    pub(super) fn started(&self) -> &Started {
        &self.ended.started
    }

    /// The position that a restore must reach before the data is consistent.
    pub(super) fn stop_lsn(&self) -> Lsn {
        self.ended.ending.stop_lsn()
    }

    /// The report of an operation that took `duration`, with sentences for the user beside those of the backup itself.
    pub(super) fn report(self, sentences: Vec<String>, duration: Duration) -> BackupReport {
        let stop_lsn = self.stop_lsn();
        let Ended {
            started,
            stopped_at,
            listing,
            contents,
            ..
        } = self.ended;
        let mut warnings = listing.warnings;
        if contents.damaged_count > 0 {
            warnings.push(format!(
                "{} pages have a wrong checksum; a restore brings them back as they are",
                contents.damaged_count
            ));
        }
        warnings.extend(sentences);
        BackupReport {
            start_lsn: started.start_lsn,
            stop_lsn,
            started_at: started.started_at,
            stopped_at,
            files: contents.files.count(),
            bytes: contents.files.bytes(),
            bytes_stored: contents
                .partitions
                .iter()
                .map(|partition| partition.bytes_stored)
                .sum(),
            partitions: contents.partitions.len() as u64,
            damaged_pages: contents.damaged_count,
            duration,
            warnings,
            name: started.name,
        }
    }
}

/// Checks that manifest and partitions are in the archive as they were stored, right before the commit: another writer that took
/// this backup for a leftover would have removed some.
async fn check_stored(archive: &Archive, stored: &Stored) -> Result<()> {
    let name = &stored.ended.started.name;
    let mut missing: BTreeMap<u32, u64> = stored
        .ended
        .contents
        .partitions
        .iter()
        .map(|partition| (partition.number, partition.bytes_stored))
        .collect();
    let objects = place::objects(archive, name).await?;
    let manifest = layout::manifest(name);
    if objects.get(&manifest).map(|meta| meta.size) != Some(stored.manifest.bytes) {
        return Err(gone("the manifest", name));
    }
    // The sentinel says of a list that it is there.
    if stored.has_file_list && !objects.contains_key(&layout::files_metadata(name)) {
        return Err(gone("WAL-G's list of files", name));
    }
    let partitions = layout::partitions_prefix(name);
    for (key, meta) in objects {
        match layout::parse(&key) {
            ArchiveKey::Partition { number, .. } if missing.get(&number) == Some(&meta.size) => {
                missing.remove(&number);
            }
            // A restore reads every object there.
            _ if key.starts_with(&partitions) => return Err(stranger(&key)),
            _ => {}
        }
    }
    match missing.keys().next() {
        None => Ok(()),
        Some(number) => Err(gone(&format!("partition {number}"), name)),
    }
}

fn stranger(key: &str) -> OpError {
    OpError::new(
        Kind::ArchiveConflict,
        format!("the archive has {key}, which this backup did not write"),
    )
    .detail("A restore would take it for a part of the backup.")
    .hint("take the backup again; if this persists, find out who writes into the archive")
}

fn gone(what: &str, backup: &BackupName) -> OpError {
    OpError::new(
        Kind::StorageUnavailable,
        format!("{what} of backup {backup} is not in the archive any more"),
    )
    .detail("It was stored, and is gone or changed before the backup could be committed.")
    .hint("find out who deletes objects of the archive, then take the backup again")
}

/// Stores WAL-G's `metadata.json`, which goes with the sentinel.
async fn store_metadata(uploads: &Uploads, name: &BackupName, sentinel: &Sentinel) -> Result<()> {
    if let Some(metadata) = BackupMetadata::from_sentinel(sentinel) {
        let key = layout::metadata(name);
        uploads.put_bytes(&key, metadata.to_json().into()).await?;
    }
    Ok(())
}

/// Commits the backup. From the first attempt on its objects are not taken back any more: the store may have kept the
/// sentinel although its reply was lost, and a listed backup must be whole.
async fn store_sentinel(
    archive: &Archive,
    name: &BackupName,
    sentinel: &Sentinel,
    uploads: &Uploads,
) -> Result<()> {
    uploads.keep_all();
    let key = Archive::key(&layout::sentinel(name))?;
    let bytes = Bytes::from(sentinel.to_json());
    let mut attempts = RetryBudget::OBJECT.begin();
    loop {
        uploads.check_claim().await?;
        let error = match archive
            .store()
            .put_if_absent(&key, body_from(bytes.clone()))
            .await
        {
            Ok(PutOutcome::Created(_)) => return check_commit(archive, &key, uploads).await,
            Ok(PutOutcome::Exists)
                if archive
                    .read_up_to(&key, bytes.len() as u64)
                    .await?
                    .is_some_and(|found| found == bytes) =>
            {
                return check_commit(archive, &key, uploads).await;
            }
            Ok(PutOutcome::Exists) => {
                return Err(OpError::new(
                    Kind::ArchiveConflict,
                    format!("the archive already has {key}"),
                ));
            }
            Err(error) => OpError::from_store(error, format_args!("store {key}")),
        };
        attempts.after(error)?.wait().await;
    }
}

/// Looks after the commit whether the WAL is still there. A deletion that had taken stock before this backup began does not
/// know what it needs, and deletes from the beginning of the log on, so the first segment goes first. A deletion that begins now
/// sees the sentinel.
async fn check_wal(
    archive: &Archive,
    name: &BackupName,
    segments: &[WalSegmentName],
) -> Result<()> {
    let Some(first) = segments.first() else {
        return Ok(());
    };
    if archive.find_wal(&(*first).into()).await?.is_some() {
        return Ok(());
    }
    let key = Archive::key(&layout::sentinel(name))?;
    archive
        .store()
        .delete(&key)
        .await
        .map_err(|error| OpError::from_store(error, format_args!("take {key} back")))?;
    Err(OpError::new(
        Kind::StorageUnavailable,
        format!("segment {first}, with which base backup {name} begins, was deleted from the archive meanwhile"),
    )
    .detail("The backup is not listed any more: it could not be restored.")
    .hint("take it again; a retention that ran at the same time, or another program, deletes WAL"))
}

/// Looks after the commit whether the claim was ours at that moment. It was, unless this process stood still for minutes
/// between the look before and the commit: then another attempt may have removed our objects, and what is listed now is
/// no backup.
async fn check_commit(archive: &Archive, key: &ObjectKey, uploads: &Uploads) -> Result<()> {
    let Some(claim) = uploads.claim() else {
        return Ok(());
    };
    let Err(lost) = claim.check_clock() else {
        return Ok(());
    };
    if claim.is_untouched().await? {
        return Ok(());
    }
    archive
        .store()
        .delete(key)
        .await
        .map_err(|error| OpError::from_store(error, format_args!("take {key} back")))?;
    Err(lost)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use wale_format::Codec;

    use super::super::testing::{self, EIGHTEEN};
    use super::*;
    use crate::testing::{Bench, segment_name};

    #[tokio::test]
    async fn a_backup_whose_wal_was_deleted_meanwhile_is_taken_back() {
        let bench = Bench::new();
        let first = segment_name("000000010000000000000002");
        let name = BackupName::new(&first, 40);
        let key = Archive::key(&layout::sentinel(&name)).expect("a key");
        bench.memory.insert(&key, "{}");
        bench.store_wal(&first.to_string(), Codec::Zstd, b"not looked into");
        let listed = || bench.memory.keys().contains(&key);
        // A backup of a stopped server needs none.
        check_wal(&bench.archive, &name, &[]).await.expect("whole");
        check_wal(&bench.archive, &name, &[first])
            .await
            .expect("whole");
        assert!(listed());
        let next = segment_name("000000010000000000000003");
        let error = check_wal(&bench.archive, &name, &[next]).await;
        assert_eq!(error.expect_err("gone").kind, Kind::StorageUnavailable);
        assert!(!listed());
    }

    /// A control file, where its checksum version is, and where the CRC of all before it.
    type Sample = (&'static [u8], usize, usize);

    const NINETEEN: Sample = (
        include_bytes!("../../../wale-pg/testdata/control_file/19-by-table"),
        268,
        308,
    );

    /// The file with checksums in this state: 0 off, 1 on, 2 being switched off, 3 being switched on.
    fn control((bytes, version_at, crc_at): Sample, state: u8) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[version_at] = state;
        let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
        let crc = crc_fast::checksum(algorithm, &bytes[..crc_at]).to_le_bytes();
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc[..4]);
        bytes
    }

    #[test]
    fn fault_102_pages_are_judged_only_where_checksums_are_on_at_the_start_and_at_the_end() {
        for kind in [(EIGHTEEN, 252, 292), NINETEEN] {
            for (end, counts) in [(1, true), (0, false), (2, false), (3, false)] {
                let copied = testing::copied(&control(kind, 1), &control(kind, end));
                let running = testing::running(copied.started.timeline);
                let ended = Ended::new(copied, running, DateTime::UNIX_EPOCH);
                let ended = ended.expect("ended");
                assert_eq!(ended.contents.damaged_count, u64::from(counts), "{end}");
                assert_eq!(ended.contents.damaged.len(), usize::from(counts), "{end}");
                assert_eq!(ended.has_checksums, counts, "{end}");
                let report = Committed { ended }.report(Vec::new(), Duration::ZERO);
                assert_eq!(report.damaged_pages, u64::from(counts), "{end}");
                // Either way the operator is told.
                let told = report.warnings.join(" ");
                let switched = told.contains("page checksums were switched");
                assert_eq!(switched, !counts, "{told}");
                assert_eq!(told.contains("a wrong checksum"), counts, "{told}");
            }
        }
    }
}
