//! The manifest of a backup that is damaged, or is changed while the restore goes on.

use chrono::DateTime;
use sha2::{Digest, Sha256};
use wale_format::{ManifestBuilder, Sentinel, hex, layout};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::ObjectKey;

use super::finish::Finish;
use super::marker::{MarkerAtEnd, request};
use super::prepare::prepare;
use super::run::Restore;
use crate::backup_content::testing::{Bench, name, read_manifest};
use crate::error::Kind;

/// Damage of the manifest before the restore is reported, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_damaged_fails_the_restore() {
    let bench = Bench::new().await;
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let good = bench.memory.content(&key).unwrap().to_vec();
    let (_, ranges) = read_manifest(&good);
    let mut other = ManifestBuilder::new();
    other.add_file("PG_VERSION", 3, DateTime::UNIX_EPOCH, 1);
    let longer = [&good[..good.len() - 1], b" \n"].concat();
    for (damage, told) in [
        (good[..good.len() - 1].to_vec(), "is damaged"),
        (longer, "is damaged"),
        (good[..200].to_vec(), "is damaged"),
        (Vec::new(), "is damaged"),
        (
            other.finish_with_ranges(&ranges),
            "is not the one that the sentinel names",
        ),
    ] {
        bench.insert(key.as_str(), damage);
        let error = bench.restore(&bench.options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{error:?}");
        assert!(error.message.contains(told), "{error:?}");
        assert!(!bench.path("target").exists());
    }
}

/// A sentinel that speaks of a manifest with a path twice, or of more files than there is memory for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_with_a_path_twice_or_too_many_files_is_refused() {
    let bench = Bench::new().await;
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let (files, ranges) = read_manifest(&bench.memory.content(&key).unwrap());
    let mut twice = ManifestBuilder::new();
    for (path, file) in files.iter().chain(&files) {
        twice.add_file(path, file.size, file.mtime, file.crc32c.unwrap());
    }
    let sentinel_key = ObjectKey::new(&layout::sentinel(&name())).unwrap();
    let mut changed = Sentinel::parse(&bench.memory.content(&sentinel_key).unwrap()).unwrap();
    let twice = twice.finish_with_ranges(&ranges);
    let record = changed.wale.as_mut().unwrap();
    record.manifest_sha256 = Some(hex(&Sha256::digest(&twice)));
    bench.insert(sentinel_key.as_str(), changed.to_json());
    bench.insert(key.as_str(), twice);
    let error = bench.restore(&bench.options()).await.unwrap_err();
    assert_eq!(error.kind, Kind::CorruptData, "{error:?}");
    assert!(error.message.contains("a path occurs twice"), "{error:?}");
    changed.wale.as_mut().unwrap().files = 1 << 40;
    bench.insert(sentinel_key.as_str(), changed.to_json());
    let error = bench.restore(&bench.options()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Configuration, "{error:?}");
    assert!(
        error.message.contains("the memory limit has room for"),
        "{error:?}"
    );
    assert!(!bench.path("target").exists());
}

/// What is changed between the two readings of the manifest fails the restore, and nothing can start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_changes_during_the_restore_fails_it() {
    let bench = Bench::new().await;
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let good = bench.memory.content(&key).unwrap().to_vec();
    for (then, cut) in [
        (good[..good.len() - 1].to_vec(), true),
        (good.clone(), false),
    ] {
        bench.insert(key.as_str(), good.clone());
        let options = bench.options();
        let prepared = prepare(&bench.archive, &options, &Progress::new())
            .await
            .unwrap();
        let mut then = then;
        if !cut {
            // As long as it was.
            then[100] ^= 1;
        }
        bench.insert(key.as_str(), then);
        let (progress, cancel) = (Progress::new(), CancellationToken::new());
        let restore = Restore {
            archive: &bench.archive,
            options: &options,
            progress: &progress,
            cancel: &cancel,
            read_later: Vec::new(),
        };
        let request = request(&bench.archive, &options);
        let finish: Finish = Box::new(|_, _| unreachable!("it is not whole"));
        let ending = MarkerAtEnd::Removed;
        let work = restore.run(prepared, request, "", finish, ending);
        let error = work.await.unwrap_err();
        assert_eq!(error.kind, Kind::CorruptData, "{error:?}");
        assert!(
            error.message.contains("changed during the restore"),
            "{error:?}"
        );
        bench.assert_half_done();
    }
    bench.insert(key.as_str(), good);
    bench.restore(&bench.options()).await.unwrap();
    bench.assert_restored();
}
