//! Restores into the directory of a stopped cluster: what is the backup's stays, all else goes, and nothing is written outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use wale_cluster::restore_marker;
use wale_format::layout;
use wale_pg::ControlFile;
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::options::{Existing, UnarchivedWal};
use super::{KeptCluster, RestoreOptions};
use crate::backup_content::testing::{Bench, name};
use crate::error::Kind;

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
