//! Whole verifications over a store in memory: of a backup that the code of `backup_push` made, and of WAL.

use std::num::NonZeroU64;
use std::time::Duration;

use wale_archive::Archive;
use wale_format::{BackupName, Codec, layout};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{Fault, FaultPlan, Occurrence, Store as _, Verb};

use super::*;
use crate::backup_content::testing as content;
use crate::error::{Kind, OpError};
use crate::testing::{Bench, encode, segment};

const DAY: Duration = Duration::from_hours(24);

fn options(depth: VerifyDepth) -> VerifyOptions {
    VerifyOptions {
        depth,
        share: None,
        older_than: None,
        rate: None,
        workers: 2,
    }
}

async fn verify(archive: &Archive, options: VerifyOptions) -> VerifyReport {
    verified(archive, options).await.expect("verified")
}

async fn verified(archive: &Archive, options: VerifyOptions) -> Result<VerifyReport, OpError> {
    run(
        archive,
        &options,
        &Progress::new(),
        &CancellationToken::new(),
    )
    .await
}

async fn names(archive: &Archive) -> VerifyReport {
    verify(archive, options(VerifyDepth::Names)).await
}

async fn content_of(archive: &Archive) -> VerifyReport {
    verify(archive, options(VerifyDepth::Content)).await
}

/// What was found: object and trouble.
fn told(report: &VerifyReport) -> Vec<(&str, &str)> {
    let findings = report.findings.iter();
    findings
        .map(|one| (one.object.as_str(), one.trouble.name()))
        .collect()
}

/// A backup with its WAL: a segment of 16 MiB, which is nearly all zeros.
async fn backup() -> content::Bench {
    let bench = content::Bench::new().await;
    let control = wale_pg::ControlFile::parse(content::CONTROL_FILE).expect("a control file");
    let mut wal = segment("000000010000000000000002", 1);
    wal[8..16].copy_from_slice(&0x200_0000_u64.to_le_bytes());
    wal[24..32].copy_from_slice(&control.system_identifier.as_u64().to_le_bytes());
    wal[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    wal.resize(16 << 20, 0);
    let name = crate::testing::file_name("000000010000000000000002");
    bench.insert(&layout::wal(&name, Codec::Zstd), encode(Codec::Zstd, &wal));
    bench
}

#[tokio::test]
async fn a_good_archive_is_read_once_and_not_again_before_its_time() {
    let bench = backup().await;
    let looked = names(&bench.archive).await;
    assert!(looked.failure().is_none(), "{looked:?}");
    assert_eq!(looked.backups[0].state, BackupState::There);
    assert_eq!(
        (looked.wal.segments, looked.wal.read, looked.wal.oldest),
        (1, 0, None)
    );
    let read = content_of(&bench.archive).await;
    assert!(read.failure().is_none(), "{read:?}");
    assert_eq!(
        (read.backups[0].state, read.wal.read),
        (BackupState::Proven, 1)
    );
    assert!(read.not_remembered.is_none());
    let stored: u64 = bench
        .partition_keys()
        .iter()
        .map(|key| bench.memory.content(key).expect("there").len() as u64)
        .sum();
    assert!(
        read.bytes_read > stored + looked.bytes_read,
        "{}",
        read.bytes_read
    );
    let lately = VerifyOptions {
        older_than: Some(DAY),
        ..options(VerifyDepth::Content)
    };
    let again = verify(&bench.archive, lately).await;
    assert!(again.failure().is_none(), "{again:?}");
    assert_eq!(
        (again.backups[0].state, again.wal.read),
        (BackupState::There, 0)
    );
    assert_eq!(again.backups[0].proven, Some(read.began));
    assert_eq!((again.wal.proven, again.wal.oldest), (1, Some(read.began)));
    assert!(
        again.bytes_read < read.bytes_read / 2,
        "{}",
        again.bytes_read
    );
    let known = last(&bench.archive).await.expect("read");
    assert_eq!(
        (known.backups, known.proven_backups, known.proven_segments),
        (1, 1, 1)
    );
    assert_eq!((known.at, known.damaged), (Some(again.began), 0));
    // What it leaves is no part of the backup, and a restore does not mind it.
    assert!(names(&bench.archive).await.failure().is_none());
    bench.restore(&bench.options()).await.expect("restored");
}

#[tokio::test]
async fn a_flipped_byte_in_a_partition_is_found_named_and_remembered() {
    let bench = backup().await;
    let key = bench.partition_keys().remove(0);
    let mut bytes = bench.memory.content(&key).expect("there").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bench.insert(key.as_str(), bytes);
    assert!(
        names(&bench.archive).await.failure().is_none(),
        "its size is right"
    );
    let report = content_of(&bench.archive).await;
    assert_eq!(told(&report), [(key.as_str(), "damaged")], "{report:?}");
    assert_eq!(report.backups[0].state, BackupState::Damaged);
    let meaning = &report.findings[0].meaning;
    assert!(meaning[0].contains(content::NAME), "{meaning:?}");
    assert_eq!(meaning[1], "it cannot be restored");
    assert!(meaning[2].contains("nothing after its end"), "{meaning:?}");
    let failure = report.failure().expect("damaged");
    assert_eq!(failure.kind, Kind::CorruptData);
    // A look at names knows it from the record, and says since when.
    let looked = names(&bench.archive).await;
    assert_eq!(told(&looked), [(key.as_str(), "damaged")]);
    assert_eq!(looked.findings[0].as_of, Some(report.began));
    let known = last(&bench.archive).await.expect("read");
    assert_eq!((known.proven_backups, known.damaged), (0, 1));
    // It is read again whatever was read lately: somebody may have brought it back.
    let lately = VerifyOptions {
        older_than: Some(DAY),
        ..options(VerifyDepth::Content)
    };
    let again = verify(&bench.archive, lately).await;
    assert_eq!(again.findings[0].as_of, None);
}

#[tokio::test]
async fn all_that_is_damaged_of_a_backup_is_named_and_what_it_means_once() {
    let bench = backup().await;
    let keys = bench.partition_keys();
    assert!(keys.len() > 1, "{keys:?}");
    for key in &keys {
        let mut bytes = bench.memory.content(key).expect("there").to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bench.insert(key.as_str(), bytes);
    }
    let all = |report: &VerifyReport| {
        let mut all: Vec<String> = told(report).iter().map(|one| one.0.to_owned()).collect();
        all.sort_unstable();
        all
    };
    let mut expected: Vec<String> = keys.iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    let report = content_of(&bench.archive).await;
    assert_eq!(all(&report), expected, "{report:?}");
    let cannot = |one: &&Finding| {
        one.meaning
            .iter()
            .any(|line| line == "it cannot be restored")
    };
    assert_eq!(report.findings.iter().filter(cannot).count(), 1);
    // They are all remembered.
    let looked = names(&bench.archive).await;
    assert_eq!(all(&looked), expected);
    let known = last(&bench.archive).await.expect("read");
    assert_eq!(known.damaged, keys.len() as u64);
    assert_eq!(known.examples.len(), keys.len());
}

#[tokio::test]
async fn a_partition_that_is_missing_or_cut_shows_in_names_and_sizes() {
    for cut in [false, true] {
        let bench = backup().await;
        let key = bench.partition_keys().remove(0);
        if cut {
            let bytes = bench.memory.content(&key).expect("there");
            bench.insert(key.as_str(), bytes[..bytes.len() - 1].to_vec());
        } else {
            bench.remove(&key);
        }
        for report in [
            names(&bench.archive).await,
            content_of(&bench.archive).await,
        ] {
            let trouble = if cut { "damaged" } else { "missing" };
            assert_eq!(told(&report), [(content::NAME, trouble)]);
            assert_eq!(report.backups[0].state, BackupState::Damaged);
        }
        let known = last(&bench.archive).await.expect("read");
        assert_eq!((known.proven_backups, known.damaged), (0, 1));
    }
}

#[tokio::test]
async fn an_archive_that_may_only_be_read_is_verified_and_remembers_nothing() {
    let bench = backup().await;
    let refused = FaultPlan::new().fail(Verb::Put, Occurrence::Always, Fault::PermissionDenied);
    bench.faulty.set_plan(refused);
    let report = content_of(&bench.archive).await;
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(report.backups[0].state, BackupState::Proven);
    let why = report.not_remembered.expect("refused");
    assert!(why.contains("wale_verified"), "{why}");
    bench.faulty.set_plan(FaultPlan::new());
    assert_eq!(last(&bench.archive).await.expect("read").at, None);
}

#[tokio::test]
async fn a_store_that_is_silent_and_a_place_without_an_archive_are_no_damage() {
    let bench = backup().await;
    let error = verified(&Bench::new().archive, options(VerifyDepth::Names)).await;
    assert_eq!(error.expect_err("empty").kind, Kind::NotFound);
    let silence = FaultPlan::new().fail(Verb::List, Occurrence::Always, Fault::Unavailable);
    bench.faulty.set_plan(silence);
    let error = verified(&bench.archive, options(VerifyDepth::Content)).await;
    assert_eq!(error.expect_err("silent").kind, Kind::StorageUnavailable);
    let cancel = CancellationToken::new();
    cancel.cancel();
    bench.faulty.set_plan(FaultPlan::new());
    let cancelled = run(
        &bench.archive,
        &options(VerifyDepth::Content),
        &Progress::new(),
        &cancel,
    )
    .await;
    assert_eq!(cancelled.expect_err("cancelled").kind, Kind::Cancelled);
}

fn name(number: u32) -> String {
    format!("00000001000000000000{number:04X}")
}

/// WAL of these numbers, and backups of WAL-E's without a single partition in these segments. So every report has one finding
/// for each backup, which says that; the tests here are about the rest.
async fn wal(numbers: &[u32], backups: &[u32]) -> Bench {
    let bench = Bench::new();
    bench.claim().await;
    for &number in backups {
        let segment = name(number);
        let backup = BackupName::parse(&format!("base_{segment}_00000040")).expect("a name");
        let sentinel = format!(
            r#"{{"wal_segment_backup_stop": "{segment}", "wal_segment_offset_backup_stop": "00000256",
                "FinishTime": "2026-03-{number:02}T00:00:00Z"}}"#
        );
        let key = Archive::key(&layout::sentinel(&backup)).expect("a key");
        bench.memory.insert(&key, sentinel.into_bytes());
        let mut tar = wale_format::tar::TarWriter::new(Vec::new());
        let meta = wale_format::tar::Meta::default();
        tar.file_header("global/pg_control", 0, &meta)
            .expect("a header");
        let part = Archive::key(&layout::partition(&backup, 0, Codec::Zstd)).expect("a key");
        let tar = tar.finish().expect("a tar");
        bench.memory.insert(&part, encode(Codec::Zstd, &tar));
    }
    for &number in numbers {
        let name = name(number);
        bench.store_wal(&name, Codec::Zstd, &segment(&name, 1));
    }
    bench
}

fn key(number: u32) -> String {
    format!("wal_005/{}.zst", name(number))
}

#[tokio::test]
async fn damaged_wal_is_found_whatever_is_wrong_with_it_and_told_with_what_is_lost() {
    let good = segment(&name(4), 1);
    let sealed = |content: &[u8]| encode(Codec::Zstd, content);
    let flipped = {
        let mut bytes = sealed(&good);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        bytes
    };
    let foreign = crate::testing::segment_of(7, &name(4), 1);
    let cases: [(&str, Vec<u8>); 6] = [
        ("a flipped byte", flipped),
        ("cut", sealed(&good)[..1000].to_vec()),
        ("another segment", sealed(&segment(&name(5), 1))),
        ("another cluster's", sealed(&foreign)),
        ("too short", sealed(&good[..good.len() - 8192])),
        ("empty", Vec::new()),
    ];
    for (what, bytes) in cases {
        let bench = wal(&[2, 3, 4, 5, 6, 7], &[2, 6]).await;
        let object = Archive::key(&key(4)).expect("a key");
        bench.memory.insert(&object, bytes);
        let report = verify(&bench.archive, options(VerifyDepth::Content)).await;
        let found = report.findings.iter().find(|one| one.object == key(4));
        let found = found.unwrap_or_else(|| panic!("{what}: {report:?}"));
        assert_eq!(found.trouble, DamageKind::Damaged, "{what}");
        assert_eq!((report.wal.read, report.wal.proven), (6, 5), "{what}");
        let known = last(&bench.archive).await.expect("read");
        assert!(
            known.examples.iter().any(|one| one.object == key(4)),
            "{what}"
        );
        // It is brought back.
        bench.store_wal(&name(4), Codec::Zstd, &good);
        let lately = VerifyOptions {
            older_than: Some(DAY),
            ..options(VerifyDepth::Content)
        };
        let report = verify(&bench.archive, lately).await;
        assert_eq!((report.wal.read, report.wal.proven), (1, 6), "{what}");
        assert!(
            report.findings.iter().all(|one| one.object != key(4)),
            "{what}"
        );
    }
}

#[tokio::test]
async fn missing_wal_is_told_by_names_alone_with_the_moments_that_are_lost() {
    let bench = wal(&[2, 3, 5, 6, 7], &[2, 6]).await;
    let report = names(&bench.archive).await;
    assert_eq!(told(&report), [(name(4).as_str(), "missing")], "{report:?}");
    let meaning = report.findings[0].meaning.join("\n");
    assert!(
        meaning.contains(&format!("base_{}_00000040 one can recover to", name(2))),
        "{meaning}"
    );
    assert!(
        meaning.contains(&format!("(the end of {})", name(3))),
        "{meaning}"
    );
    assert!(
        meaning.contains(&format!(
            "until the end of backup base_{}_00000040",
            name(6)
        )),
        "{meaning}"
    );
    // What comes before the first backup, and all between two that are kept for themselves, is no loss.
    let bench = wal(&[0, 2, 6, 7], &[2, 6]).await;
    let report = names(&bench.archive).await;
    assert_eq!(told(&report), [], "{report:?}");
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("as a retention leaves it")),
        "{:?}",
        report.notes
    );
}

#[tokio::test]
async fn copies_under_several_codecs_are_held_against_each_other() {
    let bench = wal(&[1, 2], &[]).await;
    let other = bench.store_wal(&name(1), Codec::Lz4, &segment(&name(1), 1));
    assert_eq!(told(&content_of(&bench.archive).await), []);
    // One is cut, and the other stands in for it.
    let mut bytes = bench.memory.content(&other).expect("there").to_vec();
    bytes.truncate(bytes.len() / 2);
    bench.memory.insert(&other, bytes);
    let report = content_of(&bench.archive).await;
    assert_eq!(told(&report), [(other.as_str(), "damaged")], "{report:?}");
    assert!(
        report.findings[0].meaning[0].contains("another object"),
        "{report:?}"
    );
    // Both are whole, and differ.
    bench.store_wal(&name(1), Codec::Lz4, &segment(&name(1), 2));
    let report = content_of(&bench.archive).await;
    assert_eq!(report.findings_count, 1, "{report:?}");
    assert!(
        report.findings[0].found.contains("holds other bytes than"),
        "{report:?}"
    );
}

#[tokio::test]
async fn histories_are_parsed_and_what_holds_no_wal_is_left_alone() {
    let bench = wal(&[1, 2], &[]).await;
    bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400100\tx\n");
    let delta = Archive::key(&format!("wal_005/{}_delta.lz4", name(1))).expect("a key");
    bench.memory.insert(&delta, b"a map".to_vec());
    let report = content_of(&bench.archive).await;
    assert_eq!((told(&report), report.wal.others_read), (vec![], 1));
    let key = bench.store_wal("00000002.history", Codec::Zstd, b"no history\n");
    let report = content_of(&bench.archive).await;
    assert_eq!(told(&report), [(key.as_str(), "damaged")], "{report:?}");
    assert!(report.findings[0].meaning[0].contains("stops where it asks for it"));
}

#[tokio::test]
async fn samples_cover_all_wal_in_turn_and_nothing_is_read_that_is_not_asked_for() {
    let numbers: Vec<u32> = (1..=10).collect();
    let bench = wal(&numbers, &[]).await;
    let sample = VerifyOptions {
        share: Some("20%".parse().expect("a share")),
        ..options(VerifyDepth::Content)
    };
    let mut runs = 0;
    while last(&bench.archive).await.expect("read").proven_segments < 10 {
        runs += 1;
        assert!(runs <= 5, "each of them reads two or three of ten");
        let report = verify(&bench.archive, sample).await;
        assert!((2..=3).contains(&report.wal.read), "{report:?}");
        assert!(report.wal.read_bytes < report.wal.bytes / 3, "{report:?}");
    }
    // What is deleted is not proven any more; then those come that were read first.
    let gone = Archive::key(&key(1)).expect("a key");
    bench.archive.store().delete(&gone).await.expect("deleted");
    let oldest = last(&bench.archive).await.expect("read").oldest_segment;
    verify(&bench.archive, sample).await;
    let known = last(&bench.archive).await.expect("read");
    assert!(known.oldest_segment > oldest && known.proven_segments == 9);
}

#[tokio::test]
async fn a_rate_is_kept() {
    let bench = wal(&[1, 2, 3], &[]).await;
    let bytes = content_of(&bench.archive).await.bytes_read;
    let slow = VerifyOptions {
        rate: NonZeroU64::new(bytes * 4),
        ..options(VerifyDepth::Content)
    };
    let report = verify(&bench.archive, slow).await;
    // A quarter of a second, less what the two of them read beside WAL.
    assert!(report.duration >= Duration::from_millis(200), "{report:?}");
    assert_eq!(told(&report), []);
}

#[tokio::test]
async fn reading_wal_holds_no_memory_between_two_files() {
    let bench = wal(&[1, 2, 3], &[]).await;
    content_of(&bench.archive).await;
    let budget = bench.archive.budget();
    assert_eq!(budget.in_use(), 0);
    // Nothing is due, so it waits for no memory that others hold.
    let _all = budget.acquire(budget.total()).await;
    let lately = VerifyOptions {
        older_than: Some(DAY),
        ..options(VerifyDepth::Content)
    };
    let done = tokio::time::timeout(Duration::from_mins(1), verify(&bench.archive, lately));
    let report = done.await.expect("it waits for the memory");
    assert_eq!((report.wal.read, report.wal.proven), (0, 3));
}

#[tokio::test]
async fn a_proof_of_a_backup_ends_where_a_partition_is_stored_anew() {
    let bench = backup().await;
    let lately = VerifyOptions {
        older_than: Some(DAY),
        ..options(VerifyDepth::Content)
    };
    verify(&bench.archive, lately).await;
    let again = verify(&bench.archive, lately).await;
    assert_eq!(again.backups[0].state, BackupState::There);
    let key = bench.partition_keys().remove(0);
    let bytes = bench.memory.content(&key).expect("there");
    bench.insert(key.as_str(), bytes.to_vec());
    assert_eq!(names(&bench.archive).await.backups[0].proven, None);
    let again = verify(&bench.archive, lately).await;
    assert_eq!(again.backups[0].state, BackupState::Proven);
}

#[tokio::test]
async fn remembered_damage_goes_with_its_object_where_no_backup_needs_it() {
    for (backups, is_told) in [(&[][..], false), (&[5][..], false), (&[2][..], true)] {
        let bench = wal(&[2, 3, 4, 5], backups).await;
        let object = Archive::key(&key(3)).expect("a key");
        let bytes = bench.memory.content(&object).expect("there");
        bench.memory.insert(&object, bytes[..1000].to_vec());
        content_of(&bench.archive).await;
        let told = async || {
            let known = last(&bench.archive).await.expect("read");
            known.examples.iter().any(|one| one.object == key(3))
        };
        assert!(told().await, "{backups:?}");
        bench
            .archive
            .store()
            .delete(&object)
            .await
            .expect("deleted");
        assert_eq!(told().await, is_told, "{backups:?}");
    }
}
