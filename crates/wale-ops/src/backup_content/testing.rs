//! A backup of a fake data directory, made by the partition code of `backup_push`, in a store that fails as it is told. Real
//! servers are the business of the integration tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::DateTime;
use futures_util::FutureExt as _;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Handle;
use wale_archive::Archive;
use wale_cluster::{DataDirectory, WalkOptions};
use wale_format::{
    BackupName, Codec, IndexItem, IndexReader, IndexedPartition, ManifestBuilder, ManifestFile,
    ManifestItem, ManifestReader, PartitionRecord, Seal, Sentinel, SentinelOrigin,
    TablespaceRecord, WINDOW_MAX_BYTES, WalRange, WaleSentinel, hex, layout,
};
use wale_pg::{ControlFile, MajorVersion, TimelineId};
use wale_storage::{FaultPlan, FaultyStore, MemoryStore, ObjectKey, Store};

use crate::backup_push::testing::{StoredListing, copy_directory, small};
use crate::testing;

pub(crate) const CONTROL_FILE: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");
pub(crate) const NAME: &str = "base_000000010000000000000002_00000040";
const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";

/// A backup in a memory store, and a folder to restore into.
pub(crate) struct Bench {
    pub(crate) memory: MemoryStore,
    pub(crate) faulty: Arc<FaultyStore>,
    pub(crate) archive: Archive,
    /// The index of its files, which is not in the archive until it is put there.
    index: Bytes,
    folder: TempDir,
}

fn major() -> MajorVersion {
    MajorVersion::parse("15").unwrap()
}

pub(crate) fn name() -> BackupName {
    BackupName::parse(NAME).unwrap()
}

/// Files of a cluster with one tablespace.
fn make_cluster(folder: &Path) -> PathBuf {
    let data = folder.join("source");
    let space = folder.join("space/PG_15_202209061/5");
    for directory in [
        "base/1",
        "base/5",
        "global",
        "pg_wal/archive_status",
        "pg_notify",
        "pg_tblspc",
    ] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    fs::create_dir_all(&space).unwrap();
    std::os::unix::fs::symlink(folder.join("space"), data.join("pg_tblspc/16384")).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::write(data.join("global/pg_control"), CONTROL_FILE).unwrap();
    fs::write(data.join("postgresql.conf"), "port = 5432\n").unwrap();
    fs::write(data.join("pg_hba.conf"), "").unwrap();
    fs::write(data.join("pg_ident.conf"), "").unwrap();
    fs::write(data.join("pg_wal/000000010000000000000002"), "WAL").unwrap();
    fs::write(data.join("base/5/16390"), vec![3u8; 3 << 20]).unwrap();
    // What compresses badly, so that a part of it can be told from the whole: more than one frame, and a table beside it.
    fs::create_dir_all(data.join("base/6")).unwrap();
    fs::write(data.join("base/6/16500"), noise(2_200_000, 1)).unwrap();
    fs::write(data.join("base/6/16501"), noise(300_000, 2)).unwrap();
    fs::write(data.join("base/6/16502"), noise(60_000, 3)).unwrap();
    for number in 1..40 {
        fs::write(
            data.join(format!("base/1/{number}")),
            vec![7u8; number * 500],
        )
        .unwrap();
    }
    fs::write(space.join("16400"), vec![9u8; 10_000]).unwrap();
    data
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let memory = MemoryStore::new();
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()));
        let archive = testing::archive(
            Arc::clone(&faulty) as Arc<dyn Store>,
            Codec::Zstd,
            256 << 20,
        );
        let mut bench = Self {
            memory,
            faulty,
            archive,
            index: Bytes::new(),
            folder: TempDir::new().unwrap(),
        };
        bench.index = bench.back_up().await;
        bench
    }

    /// Stores the index of the files, as a backup does.
    pub(crate) fn put_index(&self) {
        self.insert(&layout::frames(&name()), self.index.to_vec());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `backup_push` does between start and commit, without a server. Gives the index of the files.
    async fn back_up(&self) -> Bytes {
        let data = make_cluster(self.folder.path());
        let data = DataDirectory::at(data);
        let options = WalkOptions {
            major: major(),
            ignore: Vec::new(),
        };
        let StoredListing {
            mut partitions,
            mut files,
            index,
        } = copy_directory(
            &self.archive,
            name(),
            (&data, &options),
            Handle::current(),
            Instant::now(),
        )
        .await
        .unwrap();
        let map = format!("16384 {}\n", self.path("space").display());
        let last: [(&str, &[u8]); 3] = [
            (ControlFile::PATH, CONTROL_FILE),
            ("backup_label", LABEL.as_bytes()),
            ("tablespace_map", map.as_bytes()),
        ];
        let number = u32::try_from(partitions.len()).unwrap();
        let (record, more) = small(&self.archive, &name(), number, &last).await.unwrap();
        partitions.push(record);
        files.extend(more);
        self.commit(partitions, files);
        index
    }

    fn commit(&self, partitions: Vec<PartitionRecord>, files: Vec<(String, u64, u32)>) {
        let mut manifest = ManifestBuilder::new();
        let bytes = files.iter().map(|(_, size, _)| size).sum();
        let count = files.len() as u64;
        for (path, size, crc) in files {
            manifest.add_file(&path, size, DateTime::UNIX_EPOCH, crc);
        }
        let timeline = TimelineId::new(1).unwrap();
        let (start_lsn, stop_lsn) = ("0/2000028".parse().unwrap(), "0/2000100".parse().unwrap());
        let manifest = manifest.finish(timeline, start_lsn, stop_lsn);
        let control = ControlFile::parse(CONTROL_FILE).unwrap();
        let record = WaleSentinel {
            format_version: WaleSentinel::FORMAT,
            wale_version: "test".to_owned(),
            backup_label: LABEL.to_owned(),
            start_lsn,
            stop_lsn,
            start_timeline: timeline,
            stop_timeline: timeline,
            start_time: DateTime::UNIX_EPOCH,
            stop_time: DateTime::UNIX_EPOCH,
            system_identifier: control.system_identifier,
            major: major(),
            wal_segment_size: 16 << 20,
            data_checksums: false,
            codec: Codec::Zstd,
            partitions,
            tablespaces: vec![TablespaceRecord {
                oid: 16384,
                location: self.path("space").display().to_string(),
                inside: None,
            }],
            manifest_sha256: Some(hex(&Sha256::digest(&manifest))),
            settings: [("max_connections".to_owned(), "321".to_owned())].into(),
            extensions: [].into(),
            timescaledb: [].into(),
            damaged_pages: Vec::new(),
            files: count,
            bytes,
            from_standby: false,
            holds_its_wal: false,
            requested_over_http: false,
            pg_wal_link: None,
            configuration: None,
        };
        let origin = SentinelOrigin {
            server_version_num: 150_018,
            hostname: "h".to_owned(),
            data_directory: "/data".to_owned(),
            has_file_list: false,
        };
        let sentinel = Sentinel::new(record, &origin).unwrap();
        self.insert(&layout::manifest(&name()), manifest);
        self.insert(&layout::sentinel(&name()), sentinel.to_json());
    }

    pub(crate) fn insert(&self, key: &str, content: Vec<u8>) {
        self.memory.insert(&ObjectKey::new(key).unwrap(), content);
    }

    /// The keys of its partitions, in their order.
    pub(crate) fn partition_keys(&self) -> Vec<ObjectKey> {
        let prefix = layout::partitions_prefix(&name());
        self.memory
            .keys()
            .into_iter()
            .filter(|key| key.as_str().starts_with(&prefix))
            .collect()
    }

    /// What the index says of the partition that most files are in.
    pub(crate) fn indexed(&self) -> IndexedPartition {
        let mut index = Vec::new();
        let reader = Seal::unencrypted(Codec::Zstd).reader(Cursor::new(self.index.clone()));
        let mut plain = reader.unwrap().plain(WINDOW_MAX_BYTES).unwrap();
        plain.read_to_end(&mut index).unwrap();
        let mut index = IndexReader::new(&index[..]).unwrap();
        match index.next_item().unwrap() {
            Some(IndexItem::Partition(part)) => part,
            other => panic!("{other:?} is no partition"),
        }
    }

    /// Makes the backup another tool's: without a manifest, each partition in one frame.
    pub(crate) fn make_foreign(&self) {
        self.one_frame_each();
        self.change_sentinel(|sentinel| sentinel.wale = None);
    }

    /// Stores every partition in one frame; what is none of zstd, or cannot be read, stays as it is.
    pub(crate) fn one_frame_each(&self) {
        for key in self.partition_keys() {
            let stored = self.memory.content(&key).unwrap();
            let reader = Seal::unencrypted(Codec::Zstd).reader(Cursor::new(stored));
            let mut frames = reader.unwrap().partition(WINDOW_MAX_BYTES).unwrap();
            let mut plain = Vec::new();
            if key.as_str().ends_with(".zst") && frames.read_to_end(&mut plain).is_ok() {
                self.insert(key.as_str(), testing::encode(Codec::Zstd, &plain));
            }
        }
    }

    /// Takes an object away.
    pub(crate) fn remove(&self, key: &ObjectKey) {
        self.memory.delete(key).now_or_never().unwrap().unwrap();
    }

    /// Puts a partition into the archive, and into the record where wale made the backup: only its content may be wrong then.
    pub(crate) fn put_partition(&self, number: u32, codec: Codec, stored: Vec<u8>, members: u64) {
        let bytes_stored = stored.len() as u64;
        self.insert(&layout::partition(&name(), number, codec), stored);
        let record = PartitionRecord {
            number,
            members,
            bytes_plain: 0,
            bytes_stored,
        };
        self.change_sentinel(|sentinel| {
            if let Some(wale) = &mut sentinel.wale {
                wale.partitions.retain(|part| part.number != number);
                wale.partitions.push(record);
            }
        });
    }

    /// Changes the manifest of the backup, and the digest of it in the record.
    pub(crate) fn change_manifest(&self, change: impl FnOnce(&mut BTreeMap<String, ManifestFile>)) {
        let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
        let (mut files, ranges) = read_manifest(&self.memory.content(&key).unwrap());
        change(&mut files);
        let mut manifest = ManifestBuilder::new();
        for (path, file) in &files {
            manifest.add_file(path, file.size, file.mtime, file.crc32c.unwrap());
        }
        let text = manifest.finish_with_ranges(&ranges);
        let sha256 = hex(&Sha256::digest(&text));
        self.insert(key.as_str(), text);
        self.change_sentinel(|sentinel| {
            sentinel.wale.as_mut().unwrap().manifest_sha256 = Some(sha256);
        });
    }

    /// The record of the backup.
    fn sentinel(&self) -> Sentinel {
        let key = ObjectKey::new(&layout::sentinel(&name())).unwrap();
        Sentinel::parse(&self.memory.content(&key).unwrap()).unwrap()
    }

    /// Changes the record of the backup.
    pub(crate) fn change_sentinel(&self, change: impl FnOnce(&mut Sentinel)) {
        let mut sentinel = self.sentinel();
        change(&mut sentinel);
        self.insert(&layout::sentinel(&name()), sentinel.to_json());
    }
}

/// Files and ranges of WAL of a whole manifest.
pub(crate) fn read_manifest(text: &[u8]) -> (BTreeMap<String, ManifestFile>, Vec<WalRange>) {
    let mut reader = ManifestReader::new(text);
    let (mut files, mut ranges) = (BTreeMap::new(), Vec::new());
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            ManifestItem::File(file) => drop(files.insert(file.path.clone(), file)),
            ManifestItem::WalRange(range) => ranges.push(range),
            _ => {}
        }
    }
    (files, ranges)
}
