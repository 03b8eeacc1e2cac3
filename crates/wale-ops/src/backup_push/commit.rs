//! The end of a base backup: last partition, manifest, metadata, and the sentinel that commits it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use wale_cluster::StoppedBackup;
use wale_format::layout::{self, ArchiveKey};
use wale_format::sentinel::{ConfigurationRecord, PartitionRecord, SentinelOrigin, WaleSentinel};
use wale_format::tar::Meta;
use wale_format::{BackupMetadata, BackupName, ManifestBuilder, Sentinel};
use wale_format::{Crc32c, hex};
use wale_pg::{ControlFile, WalSegmentName, byte_text};
use wale_storage::{ObjectKey, PutOutcome, body_from};

use super::copied::{Copied, ListingFacts};
use super::files::{Contents, FileRecord};
use super::options::Options;
use super::partitions::{StoredPartition, small_partition};
use super::place;
use super::preflight::Ready;
use super::report::{BackupReport, DamagedPage, Started};
use super::uploads::Uploads;
use crate::archive::Archive;
use crate::error::{Kind, OpError, Result};

/// Damaged pages that the sentinel and the report list; all are counted. 10,000 × about 60 bytes.
const LISTED_PAGES_MAX: usize = 10_000;
/// Attempts to store the sentinel. Each is one small request.
const SENTINEL_ATTEMPTS_MAX: u32 = 5;
const SENTINEL_PAUSE: Duration = Duration::from_secs(2);

/// Everything that is known of a backup whose files are stored.
pub(super) struct Evidence {
    ready: Ready,
    started: Started,
    stopped: StoppedBackup,
    stopped_at: DateTime<Utc>,
    control_bytes: Vec<u8>,
    listing: ListingFacts,
    partitions: Vec<PartitionRecord>,
    files: Vec<FileRecord>,
    vanished: u64,
    damaged: Vec<DamagedPage>,
    damaged_count: u64,
    manifest_sha256: Option<String>,
    manifest_bytes: u64,
    configuration: Option<ConfigurationRecord>,
}

impl Evidence {
    pub(super) fn new(
        ready: Ready,
        started: Started,
        stopped: StoppedBackup,
        stopped_at: DateTime<Utc>,
        copied: Copied,
    ) -> Result<Self> {
        let Copied {
            partitions,
            control_bytes,
            listing_facts,
        } = copied;
        let mut evidence = Self {
            ready,
            started,
            stopped,
            stopped_at,
            control_bytes,
            vanished: listing_facts.vanished,
            listing: listing_facts,
            partitions: Vec::new(),
            files: Vec::new(),
            damaged: Vec::new(),
            damaged_count: 0,
            manifest_sha256: None,
            manifest_bytes: 0,
            configuration: None,
        };
        for partition in partitions {
            evidence.add(partition);
        }
        let control = ControlFile::parse(&evidence.control_bytes).map_err(|error| {
            OpError::new(Kind::CorruptData, "global/pg_control is damaged").source(error)
        })?;
        if control.system_identifier != evidence.ready.facts.system_identifier {
            return Err(OpError::new(
                Kind::ArchiveMismatch,
                "the data directory was exchanged during the backup",
            ));
        }
        evidence.judge_checksums(&control);
        Ok(evidence)
    }

    /// Pages are judged only where checksums were on when the backup began and are on when it ends: from 19 on they can be
    /// switched while the server runs, and a page without the right one is no damage then.
    fn judge_checksums(&mut self, at_the_end: &ControlFile) {
        if !self.ready.control_file.has_data_checksums() || at_the_end.has_data_checksums() {
            return;
        }
        self.ready.control_file.data_checksum_version = at_the_end.data_checksum_version;
        self.damaged.clear();
        self.damaged_count = 0;
        self.listing.warnings.push(
            "page checksums were switched while the base backup ran: its pages were not judged"
                .to_owned(),
        );
    }

    fn add(&mut self, partition: StoredPartition) {
        let StoredPartition {
            number,
            contents,
            bytes_plain,
            bytes_stored,
        } = partition;
        let Contents {
            files,
            members,
            vanished,
            damaged,
            damaged_count,
        } = contents;
        self.partitions.push(PartitionRecord {
            number,
            members,
            bytes_plain,
            bytes_stored,
        });
        self.files.extend(files);
        self.vanished += vanished;
        self.damaged.extend(damaged);
        self.damaged.truncate(LISTED_PAGES_MAX);
        self.damaged_count += damaged_count;
    }

    /// Stores the partition that must come last: `global/pg_control` as it was read after all other files, and label
    /// and map byte for byte as the server gave them.
    pub(super) async fn store_last_partition(
        &mut self,
        archive: &Archive,
        uploads: &Uploads,
    ) -> Result<()> {
        let number = self
            .partitions
            .iter()
            .map(|partition| partition.number + 1)
            .max()
            .unwrap_or(0);
        let codec = *archive.codec();
        let mtime = u64::try_from(self.stopped_at.timestamp()).unwrap_or(0);
        let meta = Meta {
            mode: self.ready.file_mode(),
            mtime,
            ..self.ready.owner_meta()
        };
        let label = self.stopped.label_text.as_bytes();
        let map = byte_text::to_bytes(&self.stopped.tablespace_map);
        let mut members: Vec<(&str, &[u8], Meta)> =
            vec![(ControlFile::PATH, &self.control_bytes, meta)];
        // A stopped server has no label, and none without tablespaces a map.
        for (path, content) in [("backup_label", label), ("tablespace_map", &*map)] {
            if !content.is_empty() {
                members.push((path, content, meta));
            }
        }
        let records: Vec<FileRecord> = members
            .iter()
            .map(|(path, content, _)| FileRecord {
                path: (*path).to_owned(),
                size: content.len() as u64,
                mtime: self.stopped_at,
                crc32c: Crc32c::of(content),
            })
            .collect();
        let (bytes, bytes_plain) = small_partition(codec, &members)?;
        let key = layout::partition(&self.started.name, number, codec.codec);
        let bytes_stored = uploads.put_bytes(&key, bytes.into()).await?;
        self.partitions.push(PartitionRecord {
            number,
            members: records.len() as u64,
            bytes_plain,
            bytes_stored,
        });
        self.files.extend(records);
        Ok(())
    }

    /// Stores the manifest: exactly the files that were stored, with the CRC of the bytes stored.
    pub(super) async fn store_manifest(&mut self, uploads: &Uploads) -> Result<()> {
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        let mut manifest = ManifestBuilder::new();
        for file in &self.files {
            manifest.add_file(&file.path, file.size, file.mtime, file.crc32c);
        }
        let bytes = manifest.finish(
            self.started.timeline,
            self.started.start_lsn,
            self.stopped.stop_lsn,
        );
        self.manifest_sha256 = Some(hex(&Sha256::digest(&bytes)));
        self.manifest_bytes = uploads
            .put_bytes(&layout::manifest(&self.started.name), bytes.into())
            .await?;
        Ok(())
    }

    /// Stores the configuration that lies outside of the data directory, where there is one.
    pub(super) async fn store_configuration(&mut self, uploads: &Uploads) -> Result<()> {
        let Some(outside) = &self.ready.configuration else {
            return Ok(());
        };
        let bytes = outside.set.to_json();
        self.configuration = Some(ConfigurationRecord {
            origin: outside.origin.clone(),
            sha256: hex(&Sha256::digest(&bytes)),
        });
        uploads
            .put_bytes(&layout::configuration(&self.started.name), bytes.into())
            .await?;
        Ok(())
    }

    /// Stores WAL-G's `metadata.json` and returns the sentinel that goes with it.
    pub(super) async fn store_metadata(
        &self,
        archive: &Archive,
        options: &Options,
        uploads: &Uploads,
    ) -> Result<Sentinel> {
        let record = self.record(archive, options);
        let data_directory = self
            .ready
            .facts
            .data_directory
            .clone()
            .unwrap_or_else(|| options.data_directory.display().to_string());
        let origin = SentinelOrigin {
            server_version_num: self.ready.facts.version_num,
            hostname: options.host_name.clone(),
            data_directory,
        };
        let sentinel = Sentinel::new(record, &origin)
            .map_err(|error| OpError::internal("the sentinel contradicts itself").source(error))?;
        if let Some(metadata) = BackupMetadata::from_sentinel(&sentinel) {
            uploads
                .put_bytes(
                    &layout::metadata(&self.started.name),
                    metadata.to_json().into(),
                )
                .await?;
        }
        Ok(sentinel)
    }

    fn record(&self, archive: &Archive, options: &Options) -> WaleSentinel {
        let facts = &self.ready.facts;
        WaleSentinel {
            format_version: WaleSentinel::FORMAT,
            wale_version: options.wale_version.clone(),
            backup_label: self.stopped.label_text.clone(),
            start_lsn: self.started.start_lsn,
            stop_lsn: self.stopped.stop_lsn,
            start_timeline: self.started.timeline,
            stop_timeline: self.stopped.stop_timeline,
            start_time: self.started.started_at,
            stop_time: self.stopped_at,
            system_identifier: facts.system_identifier,
            major: facts.major,
            wal_segment_size: facts.wal_segment_size.bytes(),
            data_checksums: self.ready.control_file.has_data_checksums(),
            codec: archive.codec().codec,
            partitions: self.partitions.clone(),
            tablespaces: self.listing.tablespaces.clone(),
            manifest_sha256: self.manifest_sha256.clone(),
            settings: self.ready.settings.clone(),
            extensions: self.ready.extensions.clone(),
            damaged_pages: self.damaged.clone(),
            files: self.files.len() as u64,
            bytes: self.bytes(),
            from_standby: self.stopped.from_standby,
            holds_its_wal: self.stopped.label_text.is_empty(),
            requested_over_http: options.requested_over_http,
            pg_wal_link: self.listing.pg_wal_link.clone(),
            configuration: self.configuration.clone(),
        }
    }

    /// Whether a file is part of the backup, with so many bytes.
    pub(super) fn holds(&self, path: &str, size: u64) -> bool {
        self.files
            .iter()
            .any(|file| file.path == path && file.size == size)
    }

    /// `global/pg_control` as it was read after all other files.
    pub(super) fn control_bytes(&self) -> &[u8] {
        &self.control_bytes
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The report; its whole duration is the caller's to say.
    pub(super) fn report(
        self,
        segments: &[WalSegmentName],
        copy_duration: Duration,
        wal_wait: Duration,
    ) -> BackupReport {
        let mut warnings = self.listing.warnings.clone();
        if self.damaged_count > 0 {
            warnings.push(format!(
                "{} pages have a wrong checksum; a restore brings them back as they are",
                self.damaged_count
            ));
        }
        let first_segment = segments
            .first()
            .copied()
            .unwrap_or_else(|| self.started.name.segment());
        BackupReport {
            major: self.ready.facts.major,
            timeline: self.started.timeline,
            start_lsn: self.started.start_lsn,
            stop_lsn: self.stopped.stop_lsn,
            first_segment,
            last_segment: segments.last().copied().unwrap_or(first_segment),
            started_at: self.started.started_at,
            stopped_at: self.stopped_at,
            files: self.files.len() as u64,
            bytes: self.bytes(),
            bytes_stored: self
                .partitions
                .iter()
                .map(|partition| partition.bytes_stored)
                .sum(),
            partitions: self.partitions.len() as u64,
            vanished_files: self.vanished,
            damaged_pages: self.damaged_count,
            damaged: self.damaged,
            skipped_links: self.listing.skipped_links,
            copy_duration,
            wal_wait,
            duration: Duration::ZERO,
            warnings,
            name: self.started.name,
        }
    }
}

/// Checks that manifest and partitions are in the archive as they were stored, right before the commit: another writer that took
/// this backup for a leftover would have removed some.
pub(super) async fn check_stored(archive: &Archive, evidence: &Evidence) -> Result<()> {
    let mut missing: BTreeMap<u32, u64> = evidence
        .partitions
        .iter()
        .map(|partition| (partition.number, partition.bytes_stored))
        .collect();
    let objects = place::objects(archive, &evidence.started.name).await?;
    let manifest = layout::manifest(&evidence.started.name);
    if objects.get(&manifest).map(|meta| meta.size) != Some(evidence.manifest_bytes) {
        return Err(gone("the manifest", &evidence.started.name));
    }
    let partitions = layout::partitions_prefix(&evidence.started.name);
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
        Some(number) => Err(gone(&format!("partition {number}"), &evidence.started.name)),
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

/// Commits the backup. From the first attempt on its objects are not taken back any more: the store may have kept the
/// sentinel although its reply was lost, and a listed backup must be whole.
pub(super) async fn store_sentinel(
    archive: &Archive,
    evidence: &Evidence,
    sentinel: &Sentinel,
    uploads: &Uploads,
) -> Result<()> {
    uploads.keep_all();
    let key = Archive::key(&layout::sentinel(&evidence.started.name))?;
    let bytes = Bytes::from(sentinel.to_json());
    let mut pause = SENTINEL_PAUSE;
    for attempt in 1.. {
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
        if attempt >= SENTINEL_ATTEMPTS_MAX || !error.kind.retryable() {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    unreachable!("the loop ends by returning")
}

/// Looks after the commit whether the WAL is still there. A deletion that had taken stock before this backup began does not
/// know what it needs, and deletes from the beginning of the log on, so the first segment goes first. A deletion that begins now
/// sees the sentinel.
pub(super) async fn check_wal(
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
    use std::path::Path;

    use wale_cluster::{DataDirectory, ServerFacts};
    use wale_pg::{Lsn, MajorVersion};

    use super::*;

    /// A control file, where its checksum version is, and where the CRC of all before it.
    type Sample = (&'static [u8], usize, usize);

    const EIGHTEEN: Sample = (
        include_bytes!("../../../wale-pg/testdata/control_file/18"),
        252,
        292,
    );
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

    /// What is known at the end of a backup with a wrong page, for a server whose control file was `before` at the start and is
    /// `after` at the end.
    fn evidence(before: &[u8], after: Vec<u8>) -> Evidence {
        let control_file = ControlFile::parse(before).expect("a control file");
        let (timeline, lsn) = (control_file.timeline, Lsn::new(0x0200_0028));
        let major = MajorVersion::parse("18").expect("a major");
        let ready = Ready {
            control: None,
            directory: DataDirectory::at(Path::new("/nonexistent")),
            facts: ServerFacts {
                version_num: 180_004,
                major,
                system_identifier: control_file.system_identifier,
                wal_segment_size: control_file.wal_segment_size,
                in_recovery: false,
                data_directory: None,
            },
            control_file,
            settings: [].into(),
            extensions: [].into(),
            version: String::new(),
            configuration: None,
        };
        let started = Started {
            name: BackupName::parse("base_000000010000000000000002_00000040").expect("a name"),
            start_lsn: lsn,
            timeline,
            started_at: DateTime::UNIX_EPOCH,
        };
        let stopped = StoppedBackup {
            start_lsn: lsn,
            stop_lsn: lsn,
            timeline,
            stop_timeline: timeline,
            from_standby: false,
            label_text: String::new(),
            tablespace_map: String::new(),
        };
        let wrong = DamagedPage {
            path: "base/5/1259".into(),
            block: 3,
        };
        let contents = Contents {
            damaged: vec![wrong],
            damaged_count: 1,
            ..Contents::default()
        };
        let copied = Copied {
            partitions: vec![StoredPartition {
                number: 0,
                contents,
                bytes_plain: 0,
                bytes_stored: 0,
            }],
            control_bytes: after,
            listing_facts: ListingFacts::default(),
        };
        Evidence::new(ready, started, stopped, DateTime::UNIX_EPOCH, copied).expect("evidence")
    }

    #[test]
    fn fault_102_pages_are_judged_only_where_checksums_are_on_at_the_start_and_at_the_end() {
        for kind in [EIGHTEEN, NINETEEN] {
            for (end, counts) in [(1, true), (0, false), (2, false), (3, false)] {
                let found = evidence(&control(kind, 1), control(kind, end));
                assert_eq!(found.damaged_count, u64::from(counts), "{end}");
                assert_eq!(found.damaged.len(), usize::from(counts), "{end}");
                assert_eq!(
                    found.ready.control_file.has_data_checksums(),
                    counts,
                    "{end}"
                );
                let report = found.report(&[], Duration::ZERO, Duration::ZERO);
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

#[cfg(test)]
mod wal_tests {
    use wale_format::Codec;

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
}
