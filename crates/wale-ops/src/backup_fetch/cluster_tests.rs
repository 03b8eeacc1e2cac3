//! The sidecar's RESTORE: files, configuration and recovery settings, once.

use std::fs;

use wale_cluster::{RestoreState, restore_marker};
use wale_format::Codec;
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Verb};

use super::{RestoreAs, RestoreClusterOptions, RestoreClusterOutcome, RestoreOptions, WalSource};
use crate::backup_content::testing::Bench;
use crate::error::Kind;
use crate::testing;

fn cluster_options(bench: &Bench) -> RestoreClusterOptions {
    RestoreClusterOptions {
        fetch: RestoreOptions {
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
        archive_settings: None,
        rehearsal: None,
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
    bench.change_manifest(|files| files.get_mut("postgresql.conf").unwrap().size = 600 << 20);
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

/// Row 46: the WAL that the backup needs, and a hole after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_46_a_backup_without_its_wal_is_refused_before_the_first_write() {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("conf")).unwrap();
    let ends_at_once = RestoreClusterOptions {
        wal_source: WalSource::Archive,
        ..cluster_options(&bench)
    };
    let mut options = ends_at_once.clone();
    options.fetch.recovery_addition.clear();
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
    // Who ends before the hole does not hear of it.
    let hears = async |options: &RestoreClusterOptions| {
        let planned = super::plan_restore(&bench.archive, options, &Progress::new()).await;
        let plan = planned.unwrap().plan;
        let wal = plan.wal.unwrap();
        let warned = plan.files.warnings.join("\n").contains("are missing");
        (wal.gap.is_some(), warned)
    };
    assert_eq!(hears(&ends_at_once).await, (false, false));
    assert_eq!(hears(&options).await, (true, true));
    let RestoreClusterOutcome::Restored(report) = restore().await.unwrap() else {
        panic!("it was not restored before");
    };
    let warning = report.warnings.join("\n");
    let hole = "000000010000000000000004 to 000000010000000000000006";
    assert!(warning.contains(hole), "{warning}");
}
