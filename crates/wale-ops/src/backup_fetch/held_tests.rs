//! Two restores in one directory, and a restore that is begun anew: what each may take for its own.

use std::fs;

use wale_cluster::restore_marker;
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};

use super::RestoreOptions;
use super::finish::Finished;
use super::held::HeldDirectory;
use super::marker::{MarkerAtEnd, request};
use super::prepare::prepare;
use super::run::Restore;
use super::target::Target;
use crate::backup_content::testing::{Bench, NAME};
use crate::error::{Kind, OpError};

fn restore<'a>(
    bench: &'a Bench,
    options: &'a RestoreOptions,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
) -> Restore<'a> {
    Restore {
        archive: &bench.archive,
        options,
        progress,
        cancel,
        read_later: Vec::new(),
    }
}

/// faults.md 8: of two restores in one directory none takes the other's files for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_08_two_restores_in_one_directory_end_in_one_cluster_or_in_none() {
    let bench = Bench::new().await;
    let (options, progress, cancel) = (bench.options(), Progress::new(), CancellationToken::new());
    let target = bench.path("target");
    let restore = restore(&bench, &options, &progress, &cancel);
    let again = || request(&bench.archive, &options);
    // The steps of the end, in the middle of which a second one begins on another machine.
    let prepared = prepare(&bench.archive, &options, &progress).await.unwrap();
    let path = target.clone();
    let other = move |_: &Target, _: &ControlFile| {
        // On this machine it is refused, and says what is at work.
        let error = HeldDirectory::look(&path).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.detail.is_some_and(|detail| detail.contains(NAME)));
        let mut marker = restore_marker::read(&path).unwrap().unwrap();
        assert_eq!(marker.outside.len(), 1, "its tablespace");
        marker.attempt = "another".to_owned();
        restore_marker::write(&path, &marker).unwrap();
        Ok(Finished::default())
    };
    let work = restore.run(prepared, again(), "", Box::new(other), MarkerAtEnd::Removed);
    let error = work.await.unwrap_err();
    assert_eq!(error.kind, Kind::Busy, "{error:?}");
    bench.assert_half_done();
    // Held, it is refused before the first write, and by the dry run, too.
    let held = HeldDirectory::take(&target).unwrap();
    assert_eq!(bench.restore(&options).await.unwrap_err().kind, Kind::Busy);
    let preview = super::preview(&bench.archive, &options).await;
    assert_eq!(preview.unwrap_err().kind, Kind::Busy);
    drop(held);
    // One that began between the look and the first write is seen, too.
    let prepared = prepare(&bench.archive, &options, &progress).await.unwrap();
    let mut marker = restore_marker::read(&target).unwrap().unwrap();
    marker.attempt = "a third".to_owned();
    restore_marker::write(&target, &marker).unwrap();
    let nothing = |_: &Target, _: &ControlFile| Ok(Finished::default());
    let work = restore.run(
        prepared,
        again(),
        "",
        Box::new(nothing),
        MarkerAtEnd::Removed,
    );
    assert_eq!(work.await.unwrap_err().kind, Kind::Busy);
    // The dead ones' work is cleared, in the tablespace as well.
    bench.restore(&options).await.unwrap();
    bench.assert_restored();
}

/// faults.md 8: files behind a link that is older than the restore are nobody's half-done work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_08_a_restore_begun_anew_clears_no_directory_that_it_did_not_name() {
    let bench = Bench::new().await;
    let (target, older) = (bench.path("target"), bench.path("older"));
    fs::create_dir_all(target.join("pg_tblspc")).unwrap();
    fs::create_dir_all(older.join("PG_15_202209061/5")).unwrap();
    fs::write(older.join("PG_15_202209061/5/1"), "the only copy").unwrap();
    std::os::unix::fs::symlink(&older, target.join("pg_tblspc/16777")).unwrap();
    let wal = bench.path("wal");
    fs::create_dir(&wal).unwrap();
    std::os::unix::fs::symlink(&wal, target.join("pg_wal")).unwrap();
    let preview = super::preview(&bench.archive, &bench.options())
        .await
        .unwrap();
    let warned = preview
        .warnings
        .iter()
        .any(|w| w.contains("pg_tblspc/16777"));
    assert!(warned, "{:?}", preview.warnings);
    let options = bench.options();
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let restore = restore(&bench, &options, &progress, &cancel);
    let prepared = prepare(&bench.archive, &options, &progress).await.unwrap();
    let brought = wal.join("000000010000000000000002");
    let dies = move |_: &Target, _: &ControlFile| {
        fs::write(brought, "WAL of a backup of a stopped server").unwrap();
        Err(OpError::internal("killed"))
    };
    let asked = request(&bench.archive, &options);
    let work = restore.run(prepared, asked, "", Box::new(dies), MarkerAtEnd::Removed);
    work.await.unwrap_err();
    bench.assert_half_done();
    bench.restore(&bench.options()).await.unwrap();
    bench.assert_restored();
    assert!(!wal.join("000000010000000000000002").exists() && wal.join("archive_status").is_dir());
    let kept = fs::read_to_string(older.join("PG_15_202209061/5/1")).unwrap();
    assert_eq!(kept, "the only copy");
}
