//! Some files of a backup: they come whole or not at all, and little else is read.

use std::fs;
use std::path::Path;

use wale_format::{Codec, layout};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::ObjectKey;

use super::{PathPattern, SomeOptions, SomeReport, fetch_some};
use crate::backup_content::testing::{Bench, name};
use crate::error::{Kind, OpError};

async fn fetch(bench: &Bench, patterns: &[&str]) -> Result<SomeReport, OpError> {
    let patterns = patterns
        .iter()
        .map(|text| text.parse::<PathPattern>().unwrap());
    let options = SomeOptions::new(bench.path("some"), patterns.collect());
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    fetch_some(&bench.archive, &options, &progress, &cancel).await
}

/// Paths of files below a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn assert_same(bench: &Bench, path: &str) {
    let (came, source) = (
        bench.path("some").join(path),
        bench.path("source").join(path),
    );
    assert!(
        fs::read(came).unwrap() == fs::read(source).unwrap(),
        "{path}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_table_little_more_is_read_than_the_table() {
    let bench = Bench::new().await;
    bench.put_index();
    let report = fetch(&bench, &["base/6/16501*"]).await.unwrap();
    assert_eq!(files(&bench.path("some")), ["base/6/16501"]);
    assert_same(&bench, "base/6/16501");
    let all: usize = bench
        .partition_keys()
        .iter()
        .map(|key| bench.memory.content(key).unwrap().len())
        .sum();
    assert!(
        all > 2_500_000 && report.bytes_read < 1_200_000,
        "{report:?}"
    );
    assert_eq!((report.files, report.bytes), (1, 300_000));
    assert!(report.verified && report.notes.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_and_of_other_tools_all_is_read_and_that_is_said() {
    for is_foreign in [false, true] {
        let bench = Bench::new().await;
        if is_foreign {
            bench.make_foreign();
        }
        let report = fetch(&bench, &["base/6/165*", "pg_tblspc/16384/**"])
            .await
            .unwrap();
        let expected = [
            "base/6/16500",
            "base/6/16501",
            "base/6/16502",
            "pg_tblspc/16384/PG_15_202209061/5/16400",
        ];
        assert_eq!(files(&bench.path("some")), expected);
        for path in expected {
            assert_same(&bench, path);
        }
        assert!(report.bytes_read > 2_500_000, "{report:?}");
        assert_eq!(report.verified, !is_foreign);
        let told = |note: &String| note.contains("all that the partitions hold is read");
        assert!(report.notes.iter().any(told), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_is_no_cluster() {
    let bench = Bench::new().await;
    bench.put_index();
    fetch(&bench, &["**"]).await.unwrap();
    let some = files(&bench.path("some"));
    let has = |path: &str| some.iter().any(|file| file == path);
    assert!(has("global/pg_control.of_backup") && has("backup_label") && has("tablespace_map"));
    assert!(!has("global/pg_control"), "{some:?}");
    for path in ["base/1/1", "base/5/16390", "base/6/16500", "PG_VERSION"] {
        assert_same(&bench, path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_nothing() {
    for is_foreign in [false, true] {
        let bench = Bench::new().await;
        if is_foreign {
            bench.make_foreign();
        }
        let error = fetch(&bench, &["base/1/1", "base/77/*"]).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert!(error.message.contains("base/77/*"), "{error}");
        let left = bench.path("some");
        assert!(!left.exists() || files(&left).is_empty());
    }
    let bench = Bench::new().await;
    fs::create_dir(bench.path("some")).unwrap();
    fs::write(bench.path("some/mine"), "precious").unwrap();
    let error = fetch(&bench, &["base/1/1"]).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotEmpty);
    assert_eq!(files(&bench.path("some")), ["mine"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_frame_is_found_where_it_is_read_and_does_no_harm_elsewhere() {
    let bench = Bench::new().await;
    bench.put_index();
    let part = bench.indexed();
    let key = ObjectKey::new(&layout::partition(&name(), part.number, Codec::Zstd)).unwrap();
    let mut stored = bench.memory.content(&key).unwrap().to_vec();
    // In the last frames: what does not compress lies there.
    let at = stored.len() - 30_000;
    stored[at] ^= 1;
    bench.insert(key.as_str(), stored);
    let error = fetch(&bench, &["base/6/16502"]).await.unwrap_err();
    assert_eq!(error.kind, Kind::CorruptData, "{error}");
    assert!(files(&bench.path("some")).is_empty());
    fetch(&bench, &["base/1/1"]).await.unwrap();
    assert_same(&bench, "base/1/1");
}
