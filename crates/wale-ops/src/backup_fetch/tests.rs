//! Backups made from a fake data directory by the partition code of `backup_push`, restored from a store that fails as
//! it is told. Real servers are the business of the integration tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::DateTime;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::runtime::Handle;
use wale_cluster::{DataDirectory, RestoreState, WalkOptions, restore_marker};
use wale_format::tar::{Meta, TarWriter};
use wale_format::{
    BackupName, Codec, ManifestBuilder, ManifestFile, ManifestItem, ManifestReader,
    PartitionRecord, Sentinel, SentinelOrigin, TablespaceRecord, WalRange, WaleSentinel, layout,
};
use wale_pg::{ControlFile, MajorVersion, TimelineId};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{
    Fault, FaultPlan, FaultyStore, MemoryStore, ObjectKey, Occurrence, Store, Verb,
};

use super::{
    BackupSelector, Options, RestoreAs, RestoreClusterOptions, RestoreClusterOutcome,
    TablespaceSource, WalSource,
};
use crate::archive::Archive;
use crate::backup_push::testing::{copy_directory, small};
use crate::error::{Kind, OpError};
use crate::testing;
use wale_format::{Crc32c, hex};

const CONTROL_FILE: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");
pub(super) const NAME: &str = "base_000000010000000000000002_00000040";
const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";

/// A backup in a memory store, and a folder to restore into.
pub(super) struct Bench {
    pub(super) memory: MemoryStore,
    pub(super) faulty: Arc<FaultyStore>,
    pub(super) archive: Archive,
    folder: TempDir,
}

fn major() -> MajorVersion {
    MajorVersion::parse("15").unwrap()
}

pub(super) fn name() -> BackupName {
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

impl Bench {
    pub(super) async fn new() -> Self {
        let memory = MemoryStore::new();
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()));
        let archive = testing::archive(
            Arc::clone(&faulty) as Arc<dyn Store>,
            Codec::Zstd,
            256 << 20,
        );
        let bench = Self {
            memory,
            faulty,
            archive,
            folder: TempDir::new().unwrap(),
        };
        bench.back_up().await;
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What `backup_push` does between start and commit, without a server.
    async fn back_up(&self) {
        let data = make_cluster(self.folder.path());
        let listing = DataDirectory::at(&data)
            .walk(&WalkOptions {
                major: major(),
                ignore: Vec::new(),
            })
            .unwrap();
        let (parts, mut files) = copy_directory(
            &self.archive,
            name(),
            listing,
            Handle::current(),
            Instant::now(),
        )
        .await
        .unwrap();
        let mut partitions: Vec<PartitionRecord> = parts;
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
        };
        let sentinel = Sentinel::new(record, &origin).unwrap();
        self.insert(&layout::manifest(&name()), manifest);
        self.insert(&layout::sentinel(&name()), sentinel.to_json());
    }

    pub(super) fn insert(&self, key: &str, content: Vec<u8>) {
        self.memory.insert(&ObjectKey::new(key).unwrap(), content);
    }

    fn partition_keys(&self) -> Vec<ObjectKey> {
        let prefix = layout::partitions_prefix(&name());
        self.memory
            .keys()
            .into_iter()
            .filter(|key| key.as_str().starts_with(&prefix))
            .collect()
    }

    pub(super) fn options(&self) -> Options {
        let elsewhere = self.path("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        Options {
            workers: 2,
            tablespace_mapping: vec![(TablespaceSource::Oid(16384), elsewhere)],
            ..Options::new(self.path("target"))
        }
    }

    pub(super) async fn restore(&self, options: &Options) -> Result<super::RestoreReport, OpError> {
        super::run(
            &self.archive,
            options,
            &Progress::new(),
            &CancellationToken::new(),
        )
        .await
    }

    pub(super) fn assert_restored(&self) {
        let (source, target) = (self.path("source"), self.path("target"));
        let same = [
            "PG_VERSION",
            "postgresql.conf",
            "global/pg_control",
            "base/5/16390",
            "base/1/1",
            "base/1/39",
        ];
        for file in same {
            assert_eq!(
                fs::read(source.join(file)).unwrap(),
                fs::read(target.join(file)).unwrap(),
                "{file}"
            );
        }
        assert_eq!(
            fs::read(self.path("elsewhere/PG_15_202209061/5/16400")).unwrap(),
            vec![9u8; 10_000]
        );
        assert_eq!(
            fs::read_link(target.join("pg_tblspc/16384")).unwrap(),
            self.path("elsewhere")
        );
        let map = fs::read_to_string(target.join("tablespace_map")).unwrap();
        assert_eq!(map, format!("16384 {}\n", self.path("elsewhere").display()));
        assert!(!target.join("pg_wal/000000010000000000000002").exists());
        assert!(target.join("pg_wal/archive_status").is_dir() && target.join("pg_notify").is_dir());
        let (files, _) = read_manifest(&fs::read(target.join("backup_manifest")).unwrap());
        let of_map = &files["tablespace_map"];
        assert_eq!(of_map.size, map.len() as u64);
        assert_eq!(of_map.crc32c, Some(Crc32c::of(map.as_bytes())));
    }

    /// No server could start here, and the directory says why.
    pub(super) fn assert_half_done(&self) {
        let target = self.path("target");
        assert!(!target.join(ControlFile::PATH).exists());
        assert_eq!(
            restore_marker::read(&target).unwrap().unwrap().state,
            RestoreState::Running
        );
    }
}

/// Files and ranges of WAL of a whole manifest.
pub(super) fn read_manifest(text: &[u8]) -> (BTreeMap<String, ManifestFile>, Vec<WalRange>) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_comes_back_byte_by_byte_with_its_tablespace_elsewhere() {
    let bench = Bench::new().await;
    let report = bench.restore(&bench.options()).await.unwrap();
    bench.assert_restored();
    // Run by root the test is warned of that, and the archive has no WAL.
    let warnings = report.warnings.iter();
    let others = warnings.filter(|warning| !warning.contains("the owner of"));
    let others: Vec<_> = others.collect();
    assert!(report.verified && others.len() == 1, "{report:?}");
    assert!(
        others[0].contains("needs WAL that the archive does not have"),
        "{others:?}"
    );
    assert_eq!(restore_marker::read(&bench.path("target")).unwrap(), None);
    // Again: it is not empty any more.
    assert_eq!(
        bench.restore(&bench.options()).await.unwrap_err().kind,
        Kind::NotEmpty
    );
}

/// faults.md 55 and 28: what is wrong beforehand is refused before any write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_known_beforehand_is_refused_before_any_write() {
    let bench = Bench::new().await;
    let good = bench.options();
    let unmapped = Options {
        tablespace_mapping: Vec::new(),
        ..good.clone()
    };
    let mapping = |path: &str| vec![(TablespaceSource::Oid(16384), bench.path(path))];
    let missing = Options {
        tablespace_mapping: mapping("source/PG_VERSION/place"),
        ..good.clone()
    };
    let other = BackupName::parse("base_000000010000000000000009_00000040").unwrap();
    let unknown = Options {
        selector: BackupSelector::Name(other),
        ..good.clone()
    };
    for (options, kind) in [
        (unmapped, Kind::NotEmpty),
        (missing, Kind::NotEmpty),
        (unknown, Kind::NotFound),
    ] {
        assert_eq!(bench.restore(&options).await.unwrap_err().kind, kind);
        assert!(!bench.path("target").exists());
    }
    for key in bench.partition_keys() {
        let content = bench.memory.content(&key).unwrap();
        bench.insert(key.as_str(), content[..content.len() - 1].to_vec());
        assert_eq!(
            bench.restore(&good).await.unwrap_err().kind,
            Kind::CorruptData,
            "{key}"
        );
        assert!(!bench.path("target").exists());
        bench.insert(key.as_str(), content.to_vec());
    }
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let content = bench.memory.content(&key).unwrap();
    bench.memory.delete(&key).await.unwrap();
    assert_eq!(
        bench.restore(&good).await.unwrap_err().kind,
        Kind::CorruptData
    );
    bench.insert(key.as_str(), content.to_vec());
    fs::create_dir(bench.path("target")).unwrap();
    fs::write(bench.path("target/precious"), "x").unwrap();
    assert_eq!(bench.restore(&good).await.unwrap_err().kind, Kind::NotEmpty);
    assert_eq!(fs::read_dir(bench.path("target")).unwrap().count(), 1);
}

/// faults.md 8 and 28: damage found on the way leaves nothing that starts, and the next run begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_and_outages_leave_a_half_done_restore_that_is_redone() {
    let bench = Bench::new().await;
    let options = bench.options();
    for key in bench.partition_keys() {
        let plan = FaultPlan::new().fail_keys(
            key.as_str(),
            Verb::Get,
            Occurrence::Always,
            Fault::CorruptByte(60),
        );
        bench.faulty.set_plan(plan);
        let error = bench.restore(&options).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{key}: {error:?}");
        bench.assert_half_done();
    }
    fs::write(bench.path("target/left_by_the_attempt_before"), "x").unwrap();
    bench.faulty.set_plan(FaultPlan::new());
    bench.restore(&options).await.unwrap();
    bench.assert_restored();
    assert!(!bench.path("target/left_by_the_attempt_before").exists());
}

/// Found by the campaign of kills: a restore that was killed while it wrote its marker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_8_temp_files_of_a_killed_restore_do_not_stay() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("target")).unwrap();
    let left = bench.path("target/.wale_restore.json.30865.0.wale-tmp");
    fs::write(&left, "{").unwrap();
    bench.restore(&bench.options()).await.unwrap();
    bench.assert_restored();
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_in_the_middle_of_a_partition_is_waited_out() {
    let bench = Bench::new().await;
    let prefix = layout::partitions_prefix(&name());
    let plan =
        FaultPlan::new().fail_keys(&prefix, Verb::Get, Occurrence::Nth(2), Fault::CutBody(100));
    bench.faulty.set_plan(plan);
    bench.restore(&bench.options()).await.unwrap();
    bench.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_restore_cannot_be_started() {
    let bench = Bench::new().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = super::run(&bench.archive, &bench.options(), &Progress::new(), &cancel)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Cancelled);
    bench.assert_half_done();
    // A server that was started nevertheless makes it somebody's: a redo would destroy it.
    fs::write(bench.path("target/global/pg_control"), CONTROL_FILE).unwrap();
    assert_eq!(
        bench.restore(&bench.options()).await.unwrap_err().kind,
        Kind::NotEmpty
    );
}

/// Row 64: a partition that somebody tampered with. More of it stands in `hostile_tests`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_members_are_refused() {
    type Make = fn(&mut TarWriter<Vec<u8>>, &Meta);
    let meta = Meta {
        mode: 0o600,
        ..Meta::default()
    };
    let cases: [(&str, Make); 5] = [
        ("a file that the manifest does not have", |tar, meta| {
            tar.file_header("base/1/99999", 0, meta).unwrap();
        }),
        ("a second copy", |tar, meta| {
            tar.file_header("postgresql.conf", 12, meta).unwrap();
            tar.pad().unwrap();
        }),
        ("another size", |tar, meta| {
            tar.file_header("base/1/1", 7, meta).unwrap();
            tar.pad().unwrap();
        }),
        ("a link out", |tar, meta| {
            tar.symlink("base/9", "/tmp", meta).unwrap();
        }),
        ("a link over the tablespaces", |tar, meta| {
            tar.symlink("pg_tblspc/16384", "/tmp", meta).unwrap();
        }),
    ];
    for (what, make) in cases {
        let bench = Bench::new().await;
        let mut tar = TarWriter::new(Vec::new());
        make(&mut tar, &meta);
        let content = testing::encode(Codec::Zstd, &tar.finish().unwrap());
        let key = layout::partition(&name(), 90, Codec::Zstd);
        let sentinel = ObjectKey::new(&layout::sentinel(&name())).unwrap();
        let mut changed = Sentinel::parse(&bench.memory.content(&sentinel).unwrap()).unwrap();
        let stored = content.len() as u64;
        let record = PartitionRecord {
            number: 90,
            members: 1,
            bytes_plain: 0,
            bytes_stored: stored,
        };
        changed.wale.as_mut().unwrap().partitions.push(record);
        bench.insert(&key, content);
        bench.insert(sentinel.as_str(), changed.to_json());
        let error = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{what}: {error:?}");
        bench.assert_half_done();
    }
}

/// A foreign backup says of no file that it must come. Without its label it would start, and be corrupt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_backup_without_its_label_is_refused() {
    let bench = Bench::new().await;
    let sentinel = ObjectKey::new(&layout::sentinel(&name())).unwrap();
    let mut foreign = Sentinel::parse(&bench.memory.content(&sentinel).unwrap()).unwrap();
    foreign.wale = None;
    bench.insert(sentinel.as_str(), foreign.to_json());
    bench.restore(&bench.options()).await.unwrap();
    fs::remove_dir_all(bench.path("target")).unwrap();
    fs::remove_dir_all(bench.path("elsewhere")).unwrap();

    let last = bench.partition_keys().pop().unwrap();
    let mut tar = TarWriter::new(Vec::new());
    let (path, size) = (ControlFile::PATH, CONTROL_FILE.len() as u64);
    tar.file_header(path, size, &Meta::default()).unwrap();
    std::io::Write::write_all(&mut tar, CONTROL_FILE).unwrap();
    let content = testing::encode(Codec::Zstd, &tar.finish().unwrap());
    bench.insert(last.as_str(), content);
    let error = bench.restore(&bench.options()).await.unwrap_err();
    assert!(error.message.contains("backup_label"), "{error:?}");
    assert_eq!(error.kind, Kind::CorruptData);
    bench.assert_half_done();
}

fn cluster_options(bench: &Bench) -> RestoreClusterOptions {
    RestoreClusterOptions {
        fetch: Options {
            recovery_addition: "recovery_target = 'immediate'".to_owned(),
            ..bench.options()
        },
        restore_command: "fetch %f %p".to_owned(),
        wal_source: WalSource::Elsewhere,
        authorization: None,
        client_note: None,
        restore_as: RestoreAs::Primary,
        configuration_directory: Some(bench.path("conf")),
        host_name: "h".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_of_a_cluster_happens_once_and_never_over_another() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("conf")).unwrap();
    fs::write(bench.path("conf/postgresql.conf"), "port = 1\n").unwrap();
    let options = cluster_options(&bench);
    let restore = async |options: &RestoreClusterOptions| {
        super::restore_cluster(
            &bench.archive,
            options,
            &Progress::new(),
            &CancellationToken::new(),
        )
        .await
    };
    let mut wrong = options.clone();
    wrong.fetch.recovery_addition = "recovery_target_tim = 'x'".to_owned();
    assert_eq!(restore(&wrong).await.unwrap_err().kind, Kind::Configuration);
    assert!(!bench.path("target").exists());

    assert!(matches!(
        restore(&options).await.unwrap(),
        RestoreClusterOutcome::Restored(_)
    ));
    let target = bench.path("target");
    assert_eq!(
        fs::read_to_string(target.join("postgresql.conf")).unwrap(),
        "port = 1\n"
    );
    assert!(target.join("recovery.signal").exists());
    let auto = fs::read_to_string(target.join("postgresql.auto.conf")).unwrap();
    assert!(
        auto.contains("fetch %f %p") && auto.contains("immediate") && auto.contains("321"),
        "{auto}"
    );
    assert_eq!(
        restore_marker::read(&target).unwrap().unwrap().state,
        RestoreState::Done
    );

    // The database lives on; the container restarts.
    fs::write(target.join("base/1/new"), "x").unwrap();
    bench
        .faulty
        .set_plan(FaultPlan::new().fail(Verb::Any, Occurrence::Always, Fault::Unavailable));
    assert!(matches!(
        restore(&options).await.unwrap(),
        RestoreClusterOutcome::AlreadyRestored { .. }
    ));
    let mut other = options.clone();
    other.fetch.recovery_addition = String::new();
    let error = restore(&other).await.unwrap_err();
    assert_eq!((error.kind, error.hint.is_some()), (Kind::NotEmpty, true));
    assert!(target.join("base/1/new").exists());
}

/// What the manifest shows is reported before anything is copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_91_a_configuration_beyond_all_bounds_is_refused_before_anything_is_copied() {
    let bench = Bench::new().await;
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let (files, ranges) = read_manifest(&bench.memory.content(&key).unwrap());
    let mut builder = wale_format::ManifestBuilder::new();
    for (path, file) in &files {
        let size = if path == "postgresql.conf" {
            600 << 20
        } else {
            file.size
        };
        builder.add_file(path, size, file.mtime, file.crc32c.unwrap());
    }
    let bytes = builder.finish_with_ranges(&ranges);
    let sum = hex(&Sha256::digest(&bytes));
    bench.insert(key.as_str(), bytes);
    let key = ObjectKey::new(&layout::sentinel(&name())).unwrap();
    let mut sentinel = Sentinel::parse(&bench.memory.content(&key).unwrap()).unwrap();
    sentinel.wale.as_mut().unwrap().manifest_sha256 = Some(sum);
    bench.insert(key.as_str(), sentinel.to_json());

    let restore = async |options: &RestoreClusterOptions| {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let work = super::restore_cluster(&bench.archive, options, &progress, &cancel);
        work.await.unwrap_err()
    };
    let mut options = cluster_options(&bench);
    options.configuration_directory = None;
    let error = restore(&options).await;
    assert_eq!(error.kind, Kind::Configuration, "{error:?}");
    assert!(error.message.contains("postgresql.conf"), "{error:?}");
    assert!(!bench.path("target").exists());
    // Another one takes its place: this reason is gone, and the file that comes is not the manifest's.
    fs::create_dir(bench.path("conf")).unwrap();
    fs::write(bench.path("conf/postgresql.conf"), "port = 1\n").unwrap();
    let error = restore(&cluster_options(&bench)).await;
    assert_eq!(error.kind, Kind::CorruptData, "{error:?}");
}

/// The first, the second, … call of a restore fails, until one restore is not touched any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_8_whichever_call_of_a_restore_fails_nothing_starts_and_the_next_restore_works() {
    for call in 1.. {
        let bench = Bench::new().await;
        let plan = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(call), Fault::PermissionDenied);
        let before = bench.faulty.calls(Verb::Any);
        bench.faulty.set_plan(plan);
        let result = bench.restore(&bench.options()).await;
        let calls = bench.faulty.calls(Verb::Any) - before;
        bench.faulty.set_plan(FaultPlan::new());
        if let Err(error) = result {
            let told = matches!(error.kind, Kind::PermissionDenied | Kind::CorruptData);
            assert!(told, "call {call}: {error:?}");
            assert!(
                !bench.path("target").join(ControlFile::PATH).exists(),
                "call {call}"
            );
            bench.restore(&bench.options()).await.unwrap();
        }
        bench.assert_restored();
        if calls < call {
            assert!(call > 1, "the fault struck nothing at all");
            break;
        }
    }
}

/// The service runs each of them as a task.
#[expect(dead_code, reason = "compiling it is the test")]
fn operations_can_be_tasks(
    archive: &Archive,
    options: &RestoreClusterOptions,
    push: &crate::backup_push::BackupOptions,
) {
    fn task<T: Send>(_: T) {}
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    task(super::run(archive, &options.fetch, &progress, &cancel));
    task(super::restore_cluster(archive, options, &progress, &cancel));
    task(crate::backup_push::run(
        archive,
        push,
        &progress,
        &cancel,
        |_| {},
    ));
    task(crate::backup_list::run(archive));
}

/// WAL-E archives a file's second name as a hard link, links to files as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_and_leftovers_of_a_foreign_backup() {
    let bench = Bench::new().await;
    let sentinel = ObjectKey::new(&layout::sentinel(&name())).unwrap();
    let mut foreign = Sentinel::parse(&bench.memory.content(&sentinel).unwrap()).unwrap();
    foreign.wale = None;
    bench.insert(sentinel.as_str(), foreign.to_json());
    let meta = Meta {
        mode: 0o600,
        ..Meta::default()
    };
    let partition = |make: &dyn Fn(&mut TarWriter<Vec<u8>>)| {
        let mut tar = TarWriter::new(Vec::new());
        make(&mut tar);
        testing::encode(Codec::Lzo, &as_hard_links(tar.finish().unwrap()))
    };
    let content = partition(&|tar| {
        tar.file_header("extra/one", 5, &meta).unwrap();
        std::io::Write::write_all(tar, b"bytes").unwrap();
        tar.symlink("extra/HARD", "extra/one", &meta).unwrap();
        tar.symlink("extra/inside", "one", &meta).unwrap();
        tar.symlink("extra/outside", "/etc/passwd", &meta).unwrap();
        tar.symlink("base/1/1", "2", &meta).unwrap();
        tar.symlink("pg_wal", "/srv/wal", &meta).unwrap();
        tar.file_header("backup_manifest", 1, &meta).unwrap();
        tar.pad().unwrap();
    });
    let key = layout::partition(&name(), 90, Codec::Lzo);
    bench.insert(&key, content);
    let report = bench.restore(&bench.options()).await.unwrap();
    let target = bench.path("target");
    let read = |name: &str| fs::read(target.join(name)).unwrap();
    assert_eq!(read("extra/HARD"), b"bytes");
    assert!(
        target
            .join("extra/HARD")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    assert_eq!(
        fs::read_link(target.join("extra/inside")).unwrap(),
        Path::new("one")
    );
    assert!(target.join("extra/outside").symlink_metadata().is_err());
    assert!(
        target
            .join("base/1/1")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    assert!(!target.join("backup_manifest").exists());
    assert!(!report.verified);
    let told = report.warnings.join("\n");
    for expected in [
        "\"extra/outside\" to \"/etc/passwd\" leads out",
        "\"base/1/1\" to \"2\" was not restored: something else has its name",
        "pg_wal was a link to \"/srv/wal\"",
        "has no manifest",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }

    for (from, to) in [
        ("extra/HARD", "extra/never"),
        ("extra/HARD", "extra/HARD"),
        ("extra/HARD", ControlFile::PATH),
    ] {
        fs::remove_dir_all(&target).unwrap();
        fs::remove_dir_all(bench.path("elsewhere")).unwrap();
        let content = partition(&|tar| tar.symlink(from, to, &meta).unwrap());
        bench.insert(&key, content);
        let error = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{to}: {error:?}");
        bench.assert_half_done();
    }
}

/// The file and its second names in partitions of their own, in every order and with a name of a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_link_may_lead_into_another_partition() {
    let meta = Meta {
        mode: 0o600,
        ..Meta::default()
    };
    let large = vec![7; 4 << 20];
    for order in [[90, 91], [91, 90]] {
        let bench = Bench::new().await;
        let sentinel = ObjectKey::new(&layout::sentinel(&name())).unwrap();
        let mut foreign = Sentinel::parse(&bench.memory.content(&sentinel).unwrap()).unwrap();
        foreign.wale = None;
        bench.insert(sentinel.as_str(), foreign.to_json());
        let mut file = TarWriter::new(Vec::new());
        file.file_header("extra/one", large.len() as u64, &meta)
            .unwrap();
        std::io::Write::write_all(&mut file, &large).unwrap();
        file.pad().unwrap();
        let mut links = TarWriter::new(Vec::new());
        links.symlink("extra/HARD", "extra/HARD2", &meta).unwrap();
        links.symlink("extra/HARD2", "extra/one", &meta).unwrap();
        let parts = [
            file.finish().unwrap(),
            as_hard_links(links.finish().unwrap()),
        ];
        for (number, part) in order.into_iter().zip(parts) {
            let key = layout::partition(&name(), number, Codec::Lzo);
            bench.insert(&key, testing::encode(Codec::Lzo, &part));
        }
        for workers in [1, 2] {
            let mut options = bench.options();
            options.workers = workers;
            bench.restore(&options).await.unwrap();
            for file in ["one", "HARD", "HARD2"] {
                let path = bench.path("target/extra").join(file);
                assert!(fs::read(path).unwrap() == large, "{order:?}: {file}");
            }
            fs::remove_dir_all(bench.path("target")).unwrap();
            fs::remove_dir_all(bench.path("elsewhere")).unwrap();
        }
    }
}

/// Makes hard links of the symbolic links whose name says so: our own writer writes none.
fn as_hard_links(mut archive: Vec<u8>) -> Vec<u8> {
    for header in archive.chunks_exact_mut(512) {
        if header.starts_with(b"extra/HARD") && header[156] == b'2' {
            header[156] = b'1';
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().copied().map(u32::from).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    archive
}

/// Row 46: the WAL that the backup needs, and a hole after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_46_a_backup_without_its_wal_is_refused_before_the_first_write() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("conf")).unwrap();
    let options = RestoreClusterOptions {
        wal_source: WalSource::Archive,
        ..cluster_options(&bench)
    };
    let restore = || async {
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        super::restore_cluster(&bench.archive, &options, &progress, &cancel).await
    };
    let store = |segment: &str| {
        let key = ObjectKey::new(&format!("wal_005/{segment}.zst")).unwrap();
        bench
            .memory
            .insert(&key, testing::encode(Codec::Zstd, b"x"));
    };
    store("000000010000000000000001");
    store("000000010000000000000003");
    let error = restore().await.unwrap_err();
    assert_eq!(error.kind, Kind::CorruptData);
    assert!(
        error.message.contains("000000010000000000000002"),
        "{error:?}"
    );
    assert!(!bench.options().target.exists(), "nothing was written");
    store("000000010000000000000002");
    store("000000010000000000000007");
    let RestoreClusterOutcome::Restored(report) = restore().await.unwrap() else {
        panic!("it was not restored before");
    };
    let warning = report.warnings.join("\n");
    let hole = "000000010000000000000004 to 000000010000000000000006";
    assert!(warning.contains(hole), "{warning}");
}

/// WAL-G lists what its backup holds. Without the list nobody would notice what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_117_what_wal_g_lists_and_no_part_holds_fails_the_restore_by_name() {
    let parts = |bench: &Bench| -> Vec<String> {
        let names = bench.partition_keys().into_iter();
        let name = |key: ObjectKey| key.as_str().rsplit('/').next().unwrap().to_owned();
        names.map(name).collect()
    };
    for (case, lacking) in [
        ("whole", None),
        ("member", Some("base/5/99999")),
        ("part", Some("part_00000001.tar.zst")),
        ("copy", Some("copy_0.tar.tar")),
        ("list", Some("files_metadata.json")),
    ] {
        let bench = Bench::new().await;
        let sentinel = ObjectKey::new(&layout::sentinel(&name())).unwrap();
        let mut foreign = Sentinel::parse(&bench.memory.content(&sentinel).unwrap()).unwrap();
        foreign.wale = None;
        foreign.files_metadata_disabled = None;
        bench.insert(sentinel.as_str(), foreign.to_json());
        let mut files = serde_json::json!({"/": {}, "/base/5": {}, "/base/5/16390": {"IsSkipped": false},
            "/base/5/16391": {"IsSkipped": true}});
        if case == "member" {
            files["/base/5/99999"] = serde_json::json!({});
        }
        let sets: serde_json::Map<String, serde_json::Value> = parts(&bench)
            .into_iter()
            .map(|part| (part, serde_json::json!(["backup_label", "/gone/meanwhile"])))
            .collect();
        let list = serde_json::json!({"Files": files, "TarFileSets": sets});
        if case != "list" {
            bench.insert(&layout::files_metadata(&name()), list.to_string().into());
        }
        // WAL-G has a partition of its own for it.
        let folder = layout::partitions_prefix(&name());
        let empty = vec![0u8; 1024];
        bench.insert(&format!("{folder}pg_control.tar"), empty.clone());
        if case == "part" {
            let gone = bench.partition_keys().remove(1);
            bench.memory.delete(&gone).await.unwrap();
        }
        if case == "copy" {
            bench.insert(&format!("{folder}copy_0.tar.tar"), empty);
        }
        let restored = bench.restore(&bench.options()).await;
        let Some(lacking) = lacking else {
            restored.unwrap();
            continue;
        };
        let error = restored.unwrap_err();
        let kind = if case == "copy" {
            Kind::Configuration
        } else {
            Kind::CorruptData
        };
        assert_eq!(error.kind, kind, "{case}: {}", error.chain());
        assert!(error.message.contains(lacking), "{case}: {}", error.message);
        let begun = bench.path("target").exists();
        assert_eq!(begun, case == "member", "{case}");
        assert!(!bench.path("target/global/pg_control").exists(), "{case}");
    }
}
