//! Restores into the directory of a stopped cluster: what is the backup's stays, all else goes, and nothing is written outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use wale_cluster::{Owner, restore_marker};
use wale_format::{Codec, Crc32c, ManifestFile, layout};
use wale_pg::{ArchiveFileName, ControlFile};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::keep::{self, KeptPlaces};
use super::options::{Existing, UnarchivedWal};
use super::target::WalPlace;
use super::{KeptCluster, RestoreOptions, TablespaceSource};
use crate::backup_content::testing::{Bench, name};
use crate::backup_content::{DiskNeed, DiskNeeds, KeptFiles, StoredBackup};
use crate::error::{Kind, OpError};
use crate::testing::encode;

fn keeping(bench: &Bench) -> RestoreOptions {
    RestoreOptions {
        existing: Existing::Keep(UnarchivedWal::Refuse),
        ..bench.options()
    }
}

/// A list of files that says what lies in which partition.
fn put_list(bench: &Bench, sets: &[(&str, &str)]) {
    let sets: Vec<String> = sets
        .iter()
        .map(|(part, names)| format!("\"{part}\": [{names}]"))
        .collect();
    let list = format!(
        "{{\"Files\": {{}}, \"TarFileSets\": {{{}}}}}",
        sets.join(", ")
    );
    bench.insert(&layout::files_metadata(&name()), list.into_bytes());
    bench.change_sentinel(|sentinel| sentinel.files_metadata_disabled = None);
}

/// The names of the partitions, in their order.
fn part_names(bench: &Bench) -> Vec<String> {
    let keys = bench.partition_keys().into_iter();
    keys.map(|key| key.as_str().rsplit('/').next().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_the_backups_stays_and_all_else_goes() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let target = bench.path("target");
    let outside = bench.path("outside");
    fs::write(&outside, "precious").unwrap();
    // Changed, with its size and its time; longer; a link in the place of a file; a second name outside; extra files and folders.
    let changed = target.join("base/1/39");
    let modified = fs::metadata(&changed).unwrap().modified().unwrap();
    let mut content = fs::read(&changed).unwrap();
    content[100] ^= 1;
    fs::write(&changed, content).unwrap();
    fs::File::options()
        .write(true)
        .open(&changed)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    fs::write(target.join("base/1/38"), "shorter").unwrap();
    fs::remove_file(target.join("base/1/37")).unwrap();
    symlink(&outside, target.join("base/1/37")).unwrap();
    fs::hard_link(target.join("base/1/36"), bench.path("second")).unwrap();
    fs::create_dir_all(target.join("base/77/deep")).unwrap();
    fs::write(target.join("base/77/deep/x"), "x").unwrap();
    fs::write(target.join("standby.signal"), "").unwrap();
    fs::remove_dir_all(target.join("base/5")).unwrap();
    symlink(bench.path("source/base/5"), target.join("base/5")).unwrap();
    let space = bench.path("elsewhere");
    fs::write(space.join("PG_15_202209061/5/9"), "x").unwrap();
    fs::create_dir(space.join("PG_14_202107181")).unwrap();
    fs::write(space.join("PG_14_202107181/9"), "another version's").unwrap();

    assert_eq!(
        bench.restore(&bench.options()).await.unwrap_err().kind,
        Kind::NotEmpty
    );
    let inode = fs::metadata(target.join("base/1/1")).unwrap().ino();
    let report = bench.restore(&keeping(&bench)).await.unwrap();
    bench.assert_restored();
    assert_eq!(fs::metadata(target.join("base/1/1")).unwrap().ino(), inode);
    let kept = report.kept.unwrap();
    // 39 and some others in base/1, four of them not; the tablespace's.
    assert!(kept.kept_files > 35 && kept.removed_files >= 5, "{kept:?}");
    assert!(report.files >= 7 && report.files < 20, "{report:?}");
    for gone in ["base/77", "standby.signal"] {
        assert!(!target.join(gone).exists(), "{gone}");
    }
    let source = bench.path("source");
    for file in ["base/1/36", "base/1/37", "base/1/38"] {
        let metadata = fs::symlink_metadata(target.join(file)).unwrap();
        assert!(metadata.is_file() && metadata.nlink() == 1, "{file}");
        assert_eq!(
            fs::read(target.join(file)).unwrap(),
            fs::read(source.join(file)).unwrap()
        );
    }
    assert!(target.join("base/5").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(
        fs::read(source.join("base/5/16390")).unwrap(),
        vec![3u8; 3 << 20]
    );
    assert!(!space.join("PG_15_202209061/5/9").exists());
    assert!(space.join("PG_14_202107181/9").exists());
    assert_eq!(restore_marker::read(&target).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_interrupted_goes_on_and_nothing_starts_meanwhile() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    fs::write(bench.path("target/base/1/39"), "changed").unwrap();
    fs::write(bench.path("target/base/1/1000"), "extra").unwrap();
    for key in bench.partition_keys() {
        let plan = FaultPlan::new().fail_keys(
            key.as_str(),
            Verb::Get,
            Occurrence::Always,
            Fault::CorruptByte(60),
        );
        bench.faulty.set_plan(plan);
        let error = bench.restore(&keeping(&bench)).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{key}: {error:?}");
        bench.assert_half_done();
        let marker = restore_marker::read(&bench.path("target"))
            .unwrap()
            .unwrap();
        assert!(marker.is_delta && marker.format == restore_marker::FORMAT_OF_DELTA);
        // A usual restore would clear what is not its own.
        let refused = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotEmpty);
        assert!(bench.path("target/base/1/1").exists());
    }
    bench.faulty.set_plan(FaultPlan::new());
    let report = bench.restore(&keeping(&bench)).await.unwrap();
    bench.assert_restored();
    assert!(report.kept.unwrap().kept_files > 30);
    assert!(!bench.path("target/base/1/1000").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_tablespaces_and_clusters_that_are_not_safe_are_refused_before_any_write() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let target = bench.path("target");
    let wal = target.join("pg_wal/000000010000000000000009");
    fs::write(&wal, "WAL that nobody else has").unwrap();
    let error = bench.restore(&keeping(&bench)).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotEmpty, "{error:?}");
    assert_eq!(
        error.remedy.as_deref(),
        Some(&wale_archive::Remedy::DiscardWal)
    );
    assert!(wal.exists() && target.join(ControlFile::PATH).exists());
    // Where only a link says that a tablespace is this one's, it may be the original's of a copied directory.
    let unnamed = RestoreOptions {
        tablespace_mapping: Vec::new(),
        existing: Existing::Keep(UnarchivedWal::Discard),
        ..bench.options()
    };
    let error = bench.restore(&unnamed).await.unwrap_err();
    assert!(
        error.message.contains("a copy of a data directory"),
        "{error:?}"
    );
    assert!(wal.exists());
    let discarding = RestoreOptions {
        existing: Existing::Keep(UnarchivedWal::Discard),
        ..bench.options()
    };
    let report = bench.restore(&discarding).await.unwrap();
    assert!(!wal.exists());
    let told = report
        .warnings
        .iter()
        .any(|told| told.contains("000000010000000000000009"));
    assert!(told, "{report:?}");
    bench.assert_restored();
    // Another cluster's.
    bench.change_sentinel(|sentinel| {
        let other = sentinel.system_identifier.map(|id| id + 1);
        sentinel.system_identifier = other;
    });
    let error = bench.restore(&keeping(&bench)).await.unwrap_err();
    assert_eq!(error.kind, Kind::ArchiveMismatch, "{error:?}");
    assert!(target.join(ControlFile::PATH).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_which_nothing_is_needed_are_not_read_and_a_wrong_list_harms_nobody() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let names = part_names(&bench);
    assert!(names.len() > 2, "{names:?}");
    let sets: Vec<(&str, &str)> = names
        .iter()
        .map(|part| (part.as_str(), "\"/base/1/1\""))
        .collect();
    put_list(&bench, &sets);
    // All is there: only the directories' and the last one are read.
    let report = bench.restore(&keeping(&bench)).await.unwrap();
    bench.assert_restored();
    let spared = |kept: Option<KeptCluster>| kept.map(|kept| kept.spared_partitions);
    assert_eq!(spared(report.kept), Some(names.len() as u64 - 2));
    // What the list says of the partitions is wrong: they are read in the end.
    fs::remove_file(bench.path("target/base/1/7")).unwrap();
    let report = bench.restore(&keeping(&bench)).await.unwrap();
    bench.assert_restored();
    let source = fs::read(bench.path("source/base/1/7")).unwrap();
    assert_eq!(fs::read(bench.path("target/base/1/7")).unwrap(), source);
    assert_eq!(spared(report.kept), Some(names.len() as u64 - 2));
    // It is read as wanted where the list says so.
    fs::remove_file(bench.path("target/base/1/1")).unwrap();
    let report = bench.restore(&keeping(&bench)).await.unwrap();
    assert_eq!(spared(report.kept), Some(0));
    bench.assert_restored();
}

async fn kept_of(bench: &Bench) -> KeptFiles {
    let catalog = bench.archive.catalog().await.unwrap();
    let entry = catalog.find(&name()).unwrap();
    StoredBackup::load(&bench.archive, entry)
        .await
        .unwrap()
        .kept()
}

fn places_of(bench: &Bench, wal: Option<WalPlace>) -> KeptPlaces {
    KeptPlaces {
        data: bench.path("target"),
        tablespaces: Vec::new(),
        wal,
        lock_file_name: String::new(),
        major: None,
    }
}

/// What [`bench.restore`] would say before its first write.
async fn judged(bench: &Bench, options: &RestoreOptions) -> Result<(), OpError> {
    super::preview(&bench.archive, options).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tablespace_in_the_data_directory_is_kept_by_whatever_name_it_is_reached() {
    let bench = Bench::new().await;
    let space = bench.path("target/ts");
    bench.change_sentinel(|sentinel| {
        let wale = sentinel.wale.as_mut().unwrap();
        wale.tablespaces[0].location = space.display().to_string();
    });
    let options = |target: &str| RestoreOptions {
        target: bench.path(target),
        tablespace_mapping: vec![(TablespaceSource::Oid(16384), space.clone())],
        ..keeping(&bench)
    };
    bench.restore(&options("target")).await.unwrap();
    let file = space.join("PG_15_202209061/5/16400");
    let inode = fs::metadata(&file).unwrap().ino();
    symlink(bench.path(""), bench.path("alias")).unwrap();
    for target in ["alias/target", "target"] {
        bench.restore(&options(target)).await.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_go_while_the_directory_is_cleared_are_noticed() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let (places, kept, owner) = (
        places_of(&bench, None),
        kept_of(&bench).await,
        Owner::of_process(),
    );
    let compared = keep::compare(&places, &kept, owner, 1).unwrap();
    fs::remove_file(bench.path("target/base/1/3")).unwrap();
    keep::prevent_start(&places.data, owner).unwrap();
    let error = keep::clear(&places, &kept, compared.kept_files, owner).unwrap_err();
    assert_eq!(error.kind, Kind::Busy, "{error:?}");
    keep::clear(&places, &kept, compared.kept_files - 1, owner).unwrap();
    assert!(bench.path("target/base/1/4").exists());
    // The control file is left by no name.
    assert!(!bench.path("target/global").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_in_between_gets_its_control_file_back() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let (target, owner) = (bench.path("target"), Owner::of_process());
    let control = fs::metadata(target.join(ControlFile::PATH)).unwrap().ino();
    fs::write(target.join("postmaster.pid"), "1\n").unwrap();
    let error = keep::prevent_start(&target, owner).unwrap_err();
    assert_eq!(error.kind, Kind::Busy, "{error:?}");
    let found = fs::metadata(target.join(ControlFile::PATH)).unwrap();
    assert_eq!(found.ino(), control);
    fs::remove_file(target.join("postmaster.pid")).unwrap();
    keep::prevent_start(&target, owner).unwrap();
    assert!(!target.join(ControlFile::PATH).exists());
    keep::prevent_start(&target, owner).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_of_another_server_by_the_same_name_is_not_archived() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let wal = "000000010000000000000009";
    let parsed = ArchiveFileName::parse(wal).unwrap();
    let file = bench.path("target/pg_wal").join(wal);
    fs::write(&file, "WAL of this server").unwrap();
    let put = |content: &[u8]| {
        let key = layout::wal(&parsed, Codec::Zstd);
        bench.insert(&key, encode(Codec::Zstd, content));
    };
    let done = bench.path(&format!("target/pg_wal/archive_status/{wal}.done"));
    put(b"WAL of the original");
    for is_done in [false, true] {
        if is_done {
            fs::write(&done, "").unwrap();
        }
        let error = judged(&bench, &keeping(&bench)).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotEmpty, "{error:?}");
    }
    put(b"WAL of this server");
    judged(&bench, &keeping(&bench)).await.unwrap();
    // Not in the archive, but in the backup itself, to the byte.
    fs::remove_file(done).unwrap();
    put(b"WAL of the original");
    bench.change_manifest(|files| {
        let content = b"WAL of this server";
        let file = ManifestFile {
            path: format!("pg_wal/{wal}"),
            size: content.len() as u64,
            crc32c: Some(Crc32c::of(content)),
            ..files["PG_VERSION"].clone()
        };
        files.insert(file.path.clone(), file);
    });
    judged(&bench, &keeping(&bench)).await.unwrap();
    fs::write(&file, "WAL of that server").unwrap();
    let error = judged(&bench, &keeping(&bench)).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotEmpty, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_that_the_backup_lacks_stays() {
    let bench = Bench::new().await;
    let conf = ["pg_hba.conf", "pg_ident.conf"];
    bench.restore(&bench.options()).await.unwrap();
    let (places, owner) = (places_of(&bench, None), Owner::of_process());
    fs::write(bench.path("target/pg_hba.conf"), "local all all reject\n").unwrap();
    fs::remove_file(bench.path("target/pg_ident.conf")).unwrap();
    symlink("/etc/ident", bench.path("target/pg_ident.conf")).unwrap();
    bench.change_manifest(|files| files.retain(|path, _| !conf.contains(&path.as_str())));
    let kept = kept_of(&bench).await;
    let compared = keep::compare(&places, &kept, owner, 1).unwrap();
    assert_eq!(compared.configuration, conf);
    let preview = super::preview(&bench.archive, &keeping(&bench))
        .await
        .unwrap();
    let told = preview
        .notes
        .iter()
        .any(|note| note.contains("no pg_hba.conf, pg_ident.conf"));
    assert!(told, "{:?}", preview.notes);
    keep::clear(&places, &kept, compared.kept_files, owner).unwrap();
    let text = fs::read_to_string(bench.path("target/pg_hba.conf")).unwrap();
    assert_eq!(text, "local all all reject\n");
    assert!(bench.path("target/pg_ident.conf").is_symlink());
    assert!(bench.path("target/postgresql.conf").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_ended_while_it_cleared_goes_on_and_a_copy_of_it_does_not() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let target = bench.path("target");
    let key = &bench.partition_keys()[0];
    let plan = FaultPlan::new().fail_keys(
        key.as_str(),
        Verb::Get,
        Occurrence::Always,
        Fault::CorruptByte(60),
    );
    fs::write(target.join("base/1/39"), "changed").unwrap();
    bench.faulty.set_plan(plan);
    bench.restore(&keeping(&bench)).await.unwrap_err();
    bench.assert_half_done();
    bench.faulty.set_plan(FaultPlan::new());
    // Its own link alone, as after an attempt that was told of the place by the backup.
    let unnamed = RestoreOptions {
        tablespace_mapping: Vec::new(),
        ..keeping(&bench)
    };
    judged(&bench, &unnamed).await.unwrap();
    // A kill in the middle of the clearing: the links are gone, the tablespace is not cleared.
    fs::remove_file(target.join("pg_tblspc/16384")).unwrap();
    let marker = restore_marker::read(&target).unwrap().unwrap();
    let mut of_original = marker.clone();
    of_original.delta_directory = Some("/original".to_owned());
    restore_marker::write(&target, &of_original).unwrap();
    let error = judged(&bench, &keeping(&bench)).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotEmpty, "{error:?}");
    restore_marker::write(&target, &marker).unwrap();
    bench.restore(&keeping(&bench)).await.unwrap();
    bench.assert_restored();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_in_a_wal_folder_that_becomes_a_link() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let path = "pg_wal/00000001000000000000000A";
    let file = bench.path("target").join(path);
    fs::write(&file, "WAL").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    bench.change_manifest(|files| {
        let file = ManifestFile {
            path: path.to_owned(),
            size: 3,
            crc32c: Some(Crc32c::of(b"WAL")),
            ..files["PG_VERSION"].clone()
        };
        files.insert(file.path.clone(), file);
    });
    let owner = Owner::of_process();
    let link = WalPlace::Link(bench.path("wal"));
    for (wal, is_kept) in [(Some(link), false), (None, true)] {
        let kept = kept_of(&bench).await;
        keep::compare(&places_of(&bench, wal), &kept, owner, 1).unwrap();
        assert!(kept.is_kept("base/1/1"));
        assert_eq!(kept.is_kept(path), is_kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_becomes_free_on_the_volume_of_the_data_counts_as_free() {
    let bench = Bench::new().await;
    bench.restore(&bench.options()).await.unwrap();
    let wal = bench.path("wal");
    fs::create_dir(&wal).unwrap();
    let (kept, owner) = (kept_of(&bench).await, Owner::of_process());
    let places = places_of(&bench, Some(WalPlace::LinkThere(wal.clone())));
    let needed = DiskNeed {
        bytes: 100 << 20,
        files: 1000,
    };
    let left = || {
        let compared = keep::compare(&places, &kept, owner, 1).unwrap();
        let left = compared.left(DiskNeeds::from([(None, needed)]));
        left[&None].bytes
    };
    let before = left();
    fs::write(wal.join("000000010000000000000007"), vec![0; 70_000]).unwrap();
    fs::write(bench.path("second"), vec![0; 70_000]).unwrap();
    fs::hard_link(bench.path("second"), bench.path("target/base/1/500")).unwrap();
    assert_eq!(left(), before);
    fs::write(bench.path("target/base/1/501"), vec![0; 70_000]).unwrap();
    assert!(left() <= before - 70_000);
}
