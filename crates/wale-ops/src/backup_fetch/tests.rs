//! Restores of a backup of a fake data directory, from a store that fails as it is told. Real servers are the business of
//! the integration tests.

use std::fs;

use wale_archive::Archive;
use wale_cluster::restore_marker;
use wale_format::tar::{Meta, TarWriter};
use wale_format::{BackupName, Codec, layout};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Verb};

use super::{BackupSelector, RestoreClusterOptions, RestoreOptions, TablespaceSource};
use crate::backup_content::testing::{Bench, CONTROL_FILE, name};
use crate::error::Kind;
use crate::testing;

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
    let unmapped = RestoreOptions {
        tablespace_mapping: Vec::new(),
        ..good.clone()
    };
    let mapping = |path: &str| vec![(TablespaceSource::Oid(16384), bench.path(path))];
    let missing = RestoreOptions {
        tablespace_mapping: mapping("source/PG_VERSION/place"),
        ..good.clone()
    };
    let other = BackupName::parse("base_000000010000000000000009_00000040").unwrap();
    let unknown = RestoreOptions {
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
    bench.remove(&key);
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
        bench.put_partition(90, Codec::Zstd, content, 1);
        let error = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{what}: {error:?}");
        bench.assert_half_done();
    }
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

fn task<T: Send>(_: T) {}

/// The service runs each of them as a task.
#[expect(dead_code, reason = "compiling it is the test")]
fn operations_can_be_tasks(
    archive: &Archive,
    options: &RestoreClusterOptions,
    push: &crate::backup_push::BackupOptions,
) {
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
