//! A backup that is read into nowhere: every damage that a restore finds is found, with the same words, and nothing is
//! written.

use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use wale_archive::BackupSelector;
use wale_format::tar::{Meta, TarWriter};
use wale_format::{Codec, IndexedFile, Seal, WINDOW_MAX_BYTES, frame_index, layout};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{
    FallbackStore, Fault, FaultPlan, FaultyStore, MemoryStore, ObjectKey, Occurrence, PacedStore,
    Store, Verb,
};

use super::testing::{Bench, CONTROL_FILE, name, read_manifest};
use super::{BackupReader, Damages, Nowhere, StoredBackup, WholeBackup};
use crate::backup_fetch::RestoreOptions;
use crate::error::{Kind, OpError};
use crate::testing::encode;

async fn read_into_nowhere(bench: &Bench) -> Result<WholeBackup, OpError> {
    read_by(bench, 1).await
}

async fn read_by(bench: &Bench, workers: usize) -> Result<WholeBackup, OpError> {
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let catalog = bench.archive.catalog().await?;
    let backup = StoredBackup::load(&bench.archive, catalog.find(&name()).unwrap()).await?;
    let reader = BackupReader {
        archive: &bench.archive,
        progress: &progress,
        cancel: &cancel,
        workers,
        described: backup.held_bytes(),
        damages: None,
    };
    reader.read(&backup, &Arc::new(Nowhere)).await
}

/// Requests for objects, or parts of them, while the backup is read by four.
async fn gets_of_four(bench: &Bench) -> u64 {
    let before = bench.faulty.calls(Verb::Get);
    read_by(bench, 4).await.unwrap();
    bench.faulty.calls(Verb::Get) - before
}

/// Reads it into nowhere, and restores it. Both must say the same.
async fn found_by_both(bench: &Bench, what: &str) -> OpError {
    let error = read_into_nowhere(bench).await.expect_err(what);
    let options = RestoreOptions {
        selector: BackupSelector::Name(name()),
        workers: 1,
        ..bench.options()
    };
    let of_restore = bench.restore(&options).await.expect_err(what);
    assert_eq!(error.kind, of_restore.kind, "{what}");
    assert_eq!(error.chain(), of_restore.chain(), "{what}");
    assert_eq!(error.hint, of_restore.hint, "{what}");
    error
}

/// Every path below a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The partition with `base/1/1` in it: its number, and what it holds.
fn first_partition(bench: &Bench) -> (u32, Vec<u8>) {
    let key = layout::partition(&name(), 0, Codec::Zstd);
    let stored = bench
        .memory
        .content(&ObjectKey::new(&key).unwrap())
        .unwrap();
    let mut plain = Vec::new();
    let reader = Seal::unencrypted(Codec::Zstd)
        .reader(Cursor::new(stored))
        .unwrap();
    let mut reader = reader.partition(WINDOW_MAX_BYTES).unwrap();
    reader.read_to_end(&mut plain).unwrap();
    (0, plain)
}

/// The partition of several frames: its number, its bytes, and where its frames begin.
fn frames(bench: &Bench) -> (u32, Vec<u8>, Vec<usize>) {
    let part = bench.indexed();
    let key = layout::partition(&name(), part.number, Codec::Zstd);
    let stored = bench.memory.content(&ObjectKey::new(&key).unwrap());
    let starts = part.frames.iter();
    let borders = starts.map(|frame| usize::try_from(frame.stored).unwrap());
    (part.number, stored.unwrap().to_vec(), borders.collect())
}

/// Adds a partition with an empty file.
fn add_file(bench: &Bench, path: &str) {
    let mut tar = TarWriter::new(Vec::new());
    tar.file_header(path, 0, &Meta::default()).unwrap();
    let stored = encode(Codec::Zstd, &tar.finish().unwrap());
    bench.put_partition(90, Codec::Zstd, stored, 1);
}

/// Makes it another tool's.
fn foreign(bench: &Bench) {
    bench.make_foreign();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_larger_than_a_workers_share_is_read_in_pieces() {
    let bench = Bench::new().await;
    let whole = gets_of_four(&bench).await;
    bench.put_index();
    // The index, and two pieces instead of one object. Its absence was a request before.
    assert_eq!(gets_of_four(&bench).await, whole + 1);
    let options = RestoreOptions {
        workers: 4,
        ..bench.options()
    };
    bench.restore(&options).await.unwrap();
    bench.assert_restored();
    for file in ["base/6/16500", "base/6/16501"] {
        let [source, target] = ["source", "target"].map(|folder| bench.path(folder).join(file));
        assert!(
            fs::read(source).unwrap() == fs::read(target).unwrap(),
            "{file}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_piece_is_told_as_of_the_whole() {
    let bench = Bench::new().await;
    let (number, mut stored, _) = frames(&bench);
    let key = layout::partition(&name(), number, Codec::Zstd);
    let at = stored.len() - 30_000;
    stored[at] ^= 1;
    bench.insert(&key, stored);
    let whole = read_by(&bench, 4).await.expect_err("damaged");
    bench.put_index();
    let divided = read_by(&bench, 4).await.expect_err("damaged");
    assert_eq!(divided.chain(), whole.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_lies_about_borders_costs_time_and_nothing_else() {
    let bench = Bench::new().await;
    let mut part = bench.indexed();
    let file = |path: &str, offset| IndexedFile {
        path: path.to_owned(),
        partition: part.number,
        offset,
        bytes: 512,
    };
    // In the midst of a file, where a frame begins.
    let lies = part.frames[2..].iter().map(|frame| file("x", frame.plain));
    let mut text = Vec::new();
    frame_index::write([part.clone()], lies.collect::<Vec<_>>(), &mut text).unwrap();
    bench.insert(&layout::frames(&name()), encode(Codec::Zstd, &text));
    read_by(&bench, 4).await.unwrap();
    // Frames that begin elsewhere.
    for frame in &mut part.frames[2..] {
        frame.stored += 1;
    }
    let mut text = Vec::new();
    frame_index::write([part.clone()], [file("x", part.frames[3].plain)], &mut text).unwrap();
    bench.insert(&layout::frames(&name()), encode(Codec::Zstd, &text));
    read_by(&bench, 4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_backup_is_read_into_nowhere_and_nothing_is_written() {
    let bench = Bench::new().await;
    for maker in ["wale", "another tool"] {
        let before = names(&bench.path(""));
        let whole = read_into_nowhere(&bench).await.unwrap();
        assert_eq!(names(&bench.path("")), before, "{maker}");
        assert_eq!(whole.control_bytes, CONTROL_FILE);
        assert!(whole.tablespace_map.is_some());
        let report = bench.restore(&bench.options()).await.unwrap();
        let counts = (report.files, report.bytes);
        assert_eq!((whole.files, whole.bytes), counts, "{maker}");
        fs::remove_dir_all(bench.path("target")).unwrap();
        fs::remove_dir_all(bench.path("elsewhere")).unwrap();
        foreign(&bench);
    }
}

/// What is wrong with a backup, how it comes to that, and words that say so.
type Damage = (&'static str, fn(&Bench), &'static str);

/// What can be wrong with a backup of wale's.
const DAMAGES: [Damage; 15] = [
    (
        "a missing part",
        |bench| bench.remove(&bench.partition_keys()[1]),
        "partition 1 of",
    ),
    (
        "a part that nobody recorded",
        |bench| bench.insert(&layout::partition(&name(), 90, Codec::Zstd), vec![0]),
        "is not one of its partitions",
    ),
    (
        "no manifest",
        |bench| bench.remove(&ObjectKey::new(&layout::manifest(&name())).unwrap()),
        "is not in the archive",
    ),
    (
        "a wrong digest of the manifest",
        |bench| {
            bench.change_sentinel(|sentinel| {
                sentinel.wale.as_mut().unwrap().manifest_sha256 = Some("0".repeat(64));
            });
        },
        "is not the one that the sentinel names",
    ),
    (
        "a wrong CRC of a file",
        |bench| {
            bench.change_manifest(|files| {
                files.get_mut("base/1/1").unwrap().crc32c = Some(7);
            });
        },
        "the manifest says 00000007",
    ),
    (
        "a wrong size of a file",
        |bench| bench.change_manifest(|files| files.get_mut("base/1/1").unwrap().size = 7),
        "it has 500 bytes, the manifest says 7",
    ),
    (
        "a missing member",
        |bench| {
            bench.change_manifest(|files| {
                let file = files["base/1/1"].clone();
                files.insert("base/1/99999".to_owned(), file);
            });
        },
        "the backup lacks \"base/1/99999\"",
    ),
    (
        "a member too many",
        |bench| add_file(bench, "base/1/99999"),
        "the manifest does not have it",
    ),
    (
        "a member twice",
        |bench| add_file(bench, "pg_hba.conf"),
        "it came already",
    ),
    (
        "a tar that is cut",
        |bench| {
            let (number, plain) = first_partition(bench);
            let stored = encode(Codec::Zstd, &plain[..512 * 3]);
            bench.put_partition(number, Codec::Zstd, stored, 100);
        },
        "cannot be decoded",
    ),
    (
        "a zstd frame that is cut",
        |bench| {
            let (number, plain) = first_partition(bench);
            let mut stored = encode(Codec::Zstd, &plain);
            stored.truncate(stored.len() - 9);
            bench.put_partition(number, Codec::Zstd, stored, 100);
        },
        "cannot be decoded",
    ),
    (
        "a partition that is cut between two frames",
        |bench| {
            let (number, stored, borders) = frames(bench);
            let cut = stored[..borders[2]].to_vec();
            bench.put_partition(number, Codec::Zstd, cut, 100);
        },
        "truncated",
    ),
    (
        "a partition behind which a frame stands",
        |bench| {
            let (number, stored, _) = frames(bench);
            let longer = [stored, encode(Codec::Zstd, b"more")].concat();
            bench.put_partition(number, Codec::Zstd, longer, 100);
        },
        "other bytes follow the end marks",
    ),
    (
        "a damaged frame",
        |bench| {
            let (number, mut stored, borders) = frames(bench);
            let at = stored.len() - 30_000;
            assert!(at > borders[3]);
            stored[at] ^= 1;
            bench.put_partition(number, Codec::Zstd, stored, 100);
        },
        "is not the file of the manifest",
    ),
    (
        "another cluster's files",
        |bench| bench.change_sentinel(|sentinel| sentinel.system_identifier = Some(1)),
        "holds another cluster's files",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restore_finds_wrong_with_a_backup_is_found_without_a_place_for_it() {
    for (what, damage, told) in DAMAGES {
        let bench = Bench::new().await;
        damage(&bench);
        let error = found_by_both(&bench, what).await;
        assert_eq!(error.kind, Kind::CorruptData, "{what}: {error:?}");
        assert!(error.chain().contains(told), "{what}: {}", error.chain());
    }
}

/// Of a few files that are wanted only the frames are read that hold them, unless the index is of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_there_are_not_read_again_and_the_index_is_not_trusted() {
    type Change = fn(&Bench, &ObjectKey);
    let cases: [(&str, Change, bool); 5] = [
        ("as it is", |_, _| (), true),
        ("none", |bench, key| bench.remove(key), false),
        (
            "noise",
            |bench, key| bench.insert(key.as_str(), vec![7; 900]),
            false,
        ),
        (
            "cut",
            |bench, key| {
                let mut index = bench.memory.content(key).unwrap().to_vec();
                index.truncate(index.len() / 2);
                bench.insert(key.as_str(), index);
            },
            false,
        ),
        (
            "another backup's",
            |bench, key| {
                let wrong = "{\"version\":1}\n{\"file\":\"base/6/16501\",\"partition\":1,\"offset\":0,\"bytes\":1024}\n";
                bench.insert(key.as_str(), encode(Codec::Zstd, wrong.as_bytes()));
            },
            false,
        ),
    ];
    for (what, change, saves) in cases {
        let bench = Bench::new().await;
        bench.put_index();
        change(&bench, &ObjectKey::new(&layout::frames(&name())).unwrap());
        let (came, read) = read_missing(&bench, "base/6/16501").await;
        // The file, the control file, the label and the map.
        assert_eq!(came.files, 4, "{what}");
        assert_eq!(read < 1_200_000, saves, "{what}: {read} bytes");
    }
}

/// Reads the backup where all files but one are there. Gives what came, and how many bytes of the archive were read.
async fn read_missing(bench: &Bench, missing: &str) -> (WholeBackup, u64) {
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let counted = Arc::new(PacedStore::new(Arc::clone(bench.archive.store()), None));
    let archive = bench
        .archive
        .over(counted.clone(), bench.archive.budget().clone());
    let catalog = archive.catalog().await.unwrap();
    let entry = catalog.find(&name()).unwrap();
    let mut backup = StoredBackup::load(&archive, entry).await.unwrap();
    let kept = backup.kept();
    let key = ObjectKey::new(&layout::manifest(&name())).unwrap();
    let (files, _) = read_manifest(&bench.memory.content(&key).unwrap());
    for path in files.keys().filter(|path| *path != missing) {
        if kept.expected(path).is_some() {
            kept.keep(path);
        }
    }
    backup.spare_partitions(&archive).await;
    let reader = BackupReader {
        archive: &archive,
        progress: &progress,
        cancel: &cancel,
        workers: 1,
        described: backup.held_bytes(),
        damages: None,
    };
    let came = reader.read(&backup, &Arc::new(Nowhere)).await.unwrap();
    (came, counted.bytes_read())
}

/// What can be wrong where no manifest says what must come.
const FOREIGN_DAMAGES: [Damage; 6] = [
    (
        "no label",
        |bench| {
            let last = bench.partition_keys().len() - 1;
            let mut tar = TarWriter::new(Vec::new());
            let (path, size) = (ControlFile::PATH, CONTROL_FILE.len() as u64);
            tar.file_header(path, size, &Meta::default()).unwrap();
            tar.write_all(CONTROL_FILE).unwrap();
            let stored = encode(Codec::Zstd, &tar.finish().unwrap());
            bench.put_partition(u32::try_from(last).unwrap(), Codec::Zstd, stored, 1);
        },
        "has no backup_label",
    ),
    (
        "no control file",
        |bench| {
            let last = bench.partition_keys().len() - 1;
            let stored = encode(Codec::Zstd, &[0; 1024]);
            bench.put_partition(u32::try_from(last).unwrap(), Codec::Zstd, stored, 0);
        },
        "has no global/pg_control",
    ),
    (
        "a member that its maker listed is missing",
        |bench| {
            bench.change_sentinel(|sentinel| sentinel.files_metadata_disabled = None);
            let list = r#"{"Files": {"/base/5/99999": {}, "/base/5/16390": {}}}"#;
            bench.insert(&layout::files_metadata(&name()), list.into());
        },
        "the backup lacks \"base/5/99999\"",
    ),
    (
        "a member twice",
        |bench| add_file(bench, "pg_hba.conf"),
        "it came already",
    ),
    (
        "a tablespace of another catalog version",
        |bench| add_file(bench, "pg_tblspc/16384/PG_15_1/x"),
        "is not of the cluster's catalog version",
    ),
    (
        "more than its maker counted",
        |bench| {
            let mut plain = vec![0; 512];
            let mut tar = TarWriter::new(&mut plain[..]);
            // Nothing is there of the body.
            tar.file_header("base/1/99999", 4 << 30, &Meta::default())
                .unwrap();
            bench.put_partition(90, Codec::Zstd, encode(Codec::Zstd, &plain), 1);
        },
        "hold more than the backup's sentinel says",
    ),
];

/// No manifest says what must come; the rest is checked all the more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restore_finds_wrong_with_a_foreign_backup_is_found_without_a_place_for_it() {
    for (what, damage, told) in FOREIGN_DAMAGES {
        let bench = Bench::new().await;
        foreign(&bench);
        damage(&bench);
        let error = found_by_both(&bench, what).await;
        assert_eq!(error.kind, Kind::CorruptData, "{what}: {error:?}");
        assert!(error.chain().contains(told), "{what}: {}", error.chain());
    }
}

/// Two archives that are read as one, each with damage in another partition: the backup is put together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_partition_is_taken_from_the_other_archive() {
    let mut bench = Bench::new().await;
    let second = MemoryStore::new();
    for key in bench.memory.keys() {
        second.insert(&key, bench.memory.content(&key).unwrap());
    }
    let parts = bench.partition_keys();
    assert!(parts.len() > 1, "{parts:?}");
    let damage = |store: &MemoryStore, key: &ObjectKey| {
        let mut stored = store.content(key).unwrap().to_vec();
        let middle = stored.len() / 2;
        stored[middle] ^= 0x55;
        store.insert(key, stored);
    };
    let whole_part = second.content(&parts[0]).unwrap();
    damage(&bench.memory, &parts[0]);
    damage(&second, &parts[1]);
    damage(
        &bench.memory,
        &ObjectKey::new(&layout::manifest(&name())).unwrap(),
    );
    let first = bench.archive.clone();
    let others = vec![Arc::new(second.clone()) as Arc<dyn Store>];
    let both = FallbackStore::new(Arc::clone(first.store()), others);
    bench.archive = first.over(Arc::new(both), first.budget().clone());
    let whole = read_into_nowhere(&bench).await.expect("put together");
    assert_eq!(whole.control_bytes, CONTROL_FILE);
    let report = bench.restore(&bench.options()).await.expect("put together");
    assert_eq!((whole.files, whole.bytes), (report.files, report.bytes));
    let large = fs::read(bench.path("target/base/5/16390")).unwrap();
    assert!(large == vec![3_u8; 3 << 20]);
    // In both of them.
    damage(&second, &parts[0]);
    let error = read_into_nowhere(&bench).await.expect_err("nobody has it");
    assert_eq!(error.kind, Kind::CorruptData);
    // Nothing says what each file of another tool's backup must be.
    second.insert(&parts[0], whole_part);
    read_into_nowhere(&bench).await.expect("put together");
    foreign(&bench);
    let error = read_into_nowhere(&bench).await.expect_err("damaged");
    assert_eq!(error.kind, Kind::CorruptData);
}

/// A partition that is damaged in one archive, and perhaps whole in another one that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_does_not_answer_may_have_it_whole() {
    let mut bench = Bench::new().await;
    let second = MemoryStore::new();
    for key in bench.memory.keys() {
        second.insert(&key, bench.memory.content(&key).unwrap());
    }
    let part = &bench.partition_keys()[0];
    let failing =
        |fault| FaultPlan::new().fail_keys(part.as_str(), Verb::Get, Occurrence::Always, fault);
    bench.faulty.set_plan(failing(Fault::CorruptByte(60)));
    let second = FaultyStore::new(Arc::new(second), failing(Fault::PermissionDenied));
    let first = bench.archive.clone();
    let others = vec![Arc::new(second) as Arc<dyn Store>];
    let both = FallbackStore::new(Arc::clone(first.store()), others);
    bench.archive = first.over(Arc::new(both), first.budget().clone());
    let error = read_into_nowhere(&bench).await.expect_err("refused");
    assert_eq!(error.kind, Kind::PermissionDenied, "{error:?}");
    let detail = error.detail.unwrap_or_default();
    assert!(detail.contains("another archive it is damaged"), "{detail}");
}

/// All damage is wanted, and something else ends the reading: what was found till then is not all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_reading_is_not_hidden_by_damage_before_it() {
    let bench = Bench::new().await;
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let catalog = bench.archive.catalog().await.unwrap();
    let backup = StoredBackup::load(&bench.archive, catalog.find(&name()).unwrap())
        .await
        .unwrap();
    let plan = FaultPlan::new()
        .fail_keys(
            &backup.parts[0].key,
            Verb::Get,
            Occurrence::Always,
            Fault::CorruptByte(60),
        )
        .fail_keys(
            &backup.parts[1].key,
            Verb::Get,
            Occurrence::Always,
            Fault::PermissionDenied,
        );
    bench.faulty.set_plan(plan);
    let damages = Damages::default();
    let reader = BackupReader {
        archive: &bench.archive,
        progress: &progress,
        cancel: &cancel,
        workers: 1,
        described: backup.held_bytes(),
        damages: Some(&damages),
    };
    let error = reader
        .read(&backup, &Arc::new(Nowhere))
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::PermissionDenied, "{error:?}");
    assert_eq!(damages.met().1, 1);
}
