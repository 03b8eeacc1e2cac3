//! What the real WAL-G 3.0.9 wrote, read by us: `testdata/wal-g-3.0.9/README.md` says what it is.

use std::io::{Cursor, Read};

use sha2::{Digest, Sha256};
use wale_archive::{Archive, BackupSelector, CheckDepth, Flaw};
use wale_format::tar::{MemberKind, TarReader};
use wale_format::{BackupName, Codec, Seal, WINDOW_MAX_BYTES, hex};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{ObjectKey, Store as _};

use crate::backup_fetch::{self, RestoreOptions};
use crate::error::{Kind, OpError};
use crate::testing::{Bench, content, encode, file_name, once, segment};
use crate::wal_push::PushOutcome;
use crate::{unreadable_wal, wal_fetch, wal_push};

const ARCHIVE: &[u8] = include_bytes!("../testdata/wal-g-3.0.9/pg14-permanent-none.tar.zst");
const FIRST: &str = "base_00000001000000000000000E";
const SECOND: &str = "base_000000010000000000000010";

/// A segment in LZMA.
const LZMA: (&str, &[u8]) = (
    "000000010000000000000013",
    include_bytes!("../testdata/wal-g-3.0.9/lzma/000000010000000000000013.lzma"),
);

/// What was encrypted: the file, the codec of its name, its bytes.
const UNREADABLE: [(&str, Codec, &[u8]); 4] = [
    (
        "000000010000000000000004",
        Codec::Zstd,
        include_bytes!("../testdata/wal-g-3.0.9/sodium/000000010000000000000004.zst"),
    ),
    (
        "000000010000000000000002.00000028.backup",
        Codec::Zstd,
        include_bytes!(
            "../testdata/wal-g-3.0.9/sodium/000000010000000000000002.00000028.backup.zst"
        ),
    ),
    (
        "000000020000000000000006",
        Codec::Brotli,
        include_bytes!("../testdata/wal-g-3.0.9/pgp/000000020000000000000006.br"),
    ),
    (
        "00000002.history",
        Codec::Brotli,
        include_bytes!("../testdata/wal-g-3.0.9/pgp/00000002.history.br"),
    ),
];

const BACKUP_HISTORY: &[u8] = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-08-21 00:00:00 UTC\nLABEL: x\n\
START TIMELINE: 1\nSTOP TIME: 2026-08-21 00:00:01 UTC\nSTOP TIMELINE: 1\n";

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn name(text: &str) -> BackupName {
    BackupName::parse(text).expect("a name")
}

/// An archive with the two backups.
fn golden() -> Bench {
    let bench = Bench::new();
    let tar = Seal::unencrypted(Codec::Zstd).reader(Cursor::new(ARCHIVE));
    let tar = tar.and_then(|tar| tar.plain(WINDOW_MAX_BYTES));
    let mut tar = TarReader::new(tar.expect("a reader"));
    while let Some(member) = tar.next() {
        let member = member.expect("a member");
        if let MemberKind::File { .. } = member.kind {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).expect("whole");
            bench.memory.insert(&key(member.path.as_str()), bytes);
        }
    }
    bench
}

async fn restore(bench: &Bench, backup: &str) -> OpError {
    let options = RestoreOptions {
        selector: BackupSelector::Name(name(backup)),
        ..RestoreOptions::new(bench.folder().join("target"))
    };
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let restored = backup_fetch::run(&bench.archive, &options, &progress, &cancel).await;
    let error = restored.expect_err(backup);
    assert!(!options.target.exists(), "{}", error.chain());
    error
}

async fn flaw(archive: &Archive, backup: &str) -> Option<Flaw> {
    let catalog = archive.catalog().await.expect("read");
    let entry = catalog.find(&name(backup)).expect("there");
    archive
        .look_at(&catalog, entry, CheckDepth::Whole)
        .await
        .expect("looked at")
}

#[tokio::test]
async fn fault_117_a_strange_part_and_a_missing_one_of_wal_g_fail_the_restore_by_name() {
    let bench = golden();
    assert_eq!(flaw(&bench.archive, FIRST).await, None, "it is whole");
    // WAL-G names what it copied with two extensions where nothing is compressed.
    assert_eq!(flaw(&bench.archive, SECOND).await, None, "it is whole");
    // A name that nobody knows.
    let strange = key(&format!(
        "basebackups_005/{SECOND}/tar_partitions/copy_0.tar.tar.7z"
    ));
    bench.memory.insert(&strange, b"who knows".to_vec());
    let error = restore(&bench, SECOND).await;
    assert_eq!(error.kind, Kind::Configuration);
    assert!(error.message.contains("copy_0.tar.tar.7z"), "{error}");
    let Some(Flaw::Unreadable(words)) = flaw(&bench.archive, SECOND).await else {
        panic!("it cannot be read");
    };
    assert!(words.contains("copy_0.tar.tar.7z"), "{words}");
    // The newest one cannot be restored by us, so LATEST is the other.
    let catalog = bench.archive.catalog().await.expect("read");
    let latest = bench.archive.choose(&catalog, &BackupSelector::Latest);
    let latest = latest.await.expect("chosen");
    assert_eq!(latest.entry.name, name(FIRST));
    assert!(latest.passed_over[0].contains("copy_0.tar.tar.7z"));

    let lost = format!("basebackups_005/{FIRST}/tar_partitions/part_005.tar");
    bench.memory.delete(&key(&lost)).await.expect("deleted");
    let error = restore(&bench, FIRST).await;
    assert_eq!(error.kind, Kind::CorruptData);
    assert!(error.message.contains("part_005.tar"), "{error}");
    let Some(Flaw::Damaged(words)) = flaw(&bench.archive, FIRST).await else {
        panic!("it is damaged");
    };
    assert!(words.contains("part_005.tar"), "{words}");
}

#[tokio::test]
async fn fault_94_a_backup_of_wal_g_whose_wal_only_wal_g_reads_is_not_whole() {
    let bench = golden();
    let segment = key("wal_005/00000001000000000000000E");
    // Encrypted without compression: another key's bytes in the place of the plain ones.
    bench.memory.insert(&segment, UNREADABLE[0].2.to_vec());
    let Some(Flaw::Unreadable(words)) = flaw(&bench.archive, FIRST).await else {
        panic!("its WAL cannot be read");
    };
    assert!(words.contains(segment.as_str()), "{words}");
    bench.memory.delete(&segment).await.expect("deleted");
    let Some(Flaw::Damaged(words)) = flaw(&bench.archive, FIRST).await else {
        panic!("its WAL is missing");
    };
    assert!(words.contains("is not in the archive"), "{words}");
}

/// What libsodium makes of a segment of 1 MiB: 24 bytes, then 17 more for each 8 KiB and one more chunk.
fn whole_encrypted_segment() -> Vec<u8> {
    let length = 24 + (1 << 20) + 17 * ((1 << 20) / 8192 + 1);
    UNREADABLE[0]
        .2
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

fn says_nothing_false(error: &OpError, case: &str) {
    assert_eq!(error.kind, Kind::Configuration, "{case}: {}", error.chain());
    let told = [
        Some(error.chain()),
        error.detail.clone(),
        error.hint.clone(),
    ];
    for text in told.into_iter().flatten() {
        for word in ["damaged", "move ", "remove", "repair"] {
            assert!(!text.contains(word), "{case}: {text}");
        }
    }
}

#[tokio::test]
async fn fault_96_118_what_only_wal_g_reads_is_not_damaged_and_not_archived() {
    let whole = whole_encrypted_segment();
    let named = UNREADABLE.map(|(file, codec, bytes)| (file, codec, bytes.to_vec()));
    // The same with WALG_COMPRESSION_METHOD=none.
    let plain = UNREADABLE.iter();
    let plain = plain.map(|(file, _, bytes)| (*file, Codec::None, bytes.to_vec()));
    let whole = (UNREADABLE[0].0, Codec::None, whole);
    for (file, codec, bytes) in named.into_iter().chain(plain).chain([whole]) {
        let bench = Bench::new();
        bench.claim().await;
        let name = file_name(file);
        let case = format!("{file} under {codec}, {} bytes", bytes.len());
        let unreadable_key = key(&wale_format::layout::wal(&name, codec));
        bench.memory.insert(&unreadable_key, bytes.clone());
        let error = wal_fetch::fetch(&bench.archive, &name).await;
        says_nothing_false(&error.expect_err(&case), &case);
        if name.is_segment() {
            assert!(
                !bench.archive.has_readable(&name).await.expect("read"),
                "{case}"
            );
            let told = unreadable_wal::look(&bench.archive).await.expect("read");
            assert_eq!(told.expect(&case).example, unreadable_key.to_string());
        }
        // Archiving goes on beside it, under a codec whose key is free.
        let good = match file {
            "00000002.history" => b"1\t0/5000098\tno recovery target specified\n".to_vec(),
            _ if file.ends_with(".backup") => BACKUP_HISTORY.to_vec(),
            _ => segment(file, 1),
        };
        bench.ready(file, &good);
        let report = wal_push::run(&bench.archive, &bench.wal, &name, &once()).await;
        let report = report.unwrap_or_else(|error| panic!("{case}: {}", error.chain()));
        assert_eq!(report.outcome, PushOutcome::Stored, "{case}");
        assert_eq!(report.beside, Some(unreadable_key.to_string()), "{case}");
        assert_eq!(
            bench.memory.content(&unreadable_key),
            Some(bytes.into()),
            "{case}"
        );
        let fetched = wal_fetch::fetch(&bench.archive, &name).await.expect(&case);
        assert_eq!(content(fetched).await.expect("whole"), good, "{case}");
        if let wale_pg::ArchiveFileName::TimelineHistory(timeline) = name {
            let history = bench.archive.timeline_history(timeline).await;
            assert!(history.expect(&case).is_some(), "{case}");
        }
    }
}

#[tokio::test]
async fn fault_96_a_segment_of_wal_g_in_lzma_counts_as_archived_and_is_fetched() {
    let bench = Bench::new();
    let name = file_name(LZMA.0);
    let stored = key(&wale_format::layout::wal(&name, Codec::Lzma));
    bench.memory.insert(&stored, LZMA.1.to_vec());
    assert!(bench.archive.has_readable(&name).await.expect("read"));
    assert_eq!(
        unreadable_wal::look(&bench.archive).await.expect("read"),
        None
    );
    let fetched = wal_fetch::fetch(&bench.archive, &name).await.expect("read");
    let plain = content(fetched).await.expect("whole");
    // As the xz program decompresses it.
    let digest = "7fd588d5fb8889f40000f067dd9aaa6e4736e83b1095640ed6515cf013b0ab4c";
    assert_eq!(
        (plain.len(), hex(&Sha256::digest(&plain)).as_str()),
        (1 << 20, digest)
    );
}

/// WAL-G 3.0.8 named so what it did not compress, and every WAL-G looks for it.
#[tokio::test]
async fn fault_96_a_segment_whose_name_ends_in_a_dot_counts_as_archived_and_is_fetched() {
    let file = UNREADABLE[0].0;
    let (name, bytes) = (file_name(file), segment(file, 1));
    let bench = Bench::new();
    bench.claim().await;
    let stored = key(&format!("wal_005/{file}."));
    bench.memory.insert(&stored, bytes.clone());
    assert!(bench.archive.has_readable(&name).await.expect("read"));
    let told = unreadable_wal::look(&bench.archive).await;
    assert_eq!(told.expect("read"), None);
    for copies in [
        bench.archive.find_wal_by_name(&name).await,
        bench.archive.find_wal_copies(&name).await,
    ] {
        let found: Vec<String> = copies
            .expect("read")
            .into_iter()
            .map(|copy| copy.key.to_string())
            .collect();
        assert_eq!(found, [stored.to_string()]);
    }
    let fetched = wal_fetch::fetch(&bench.archive, &name).await.expect("read");
    assert_eq!(content(fetched).await.expect("whole"), bytes);
    // A push of the same bytes stores nothing beside it, and one of others is a conflict.
    bench.ready(file, &bytes);
    let report = wal_push::run(&bench.archive, &bench.wal, &name, &once()).await;
    let outcome = report.expect("pushed").outcome;
    assert_eq!(outcome, PushOutcome::AlreadyStored);
    bench.ready(file, &segment(file, 2));
    let refused = wal_push::run(&bench.archive, &bench.wal, &name, &once()).await;
    assert_eq!(
        refused.expect_err("other bytes").kind,
        Kind::ArchiveConflict
    );
    let copies = bench.archive.find_wal_by_name(&name).await.expect("read");
    assert_eq!(copies.len(), 1);
}

#[tokio::test]
async fn fault_118_plain_wal_that_is_damaged_is_still_called_so() {
    let file = UNREADABLE[0].0;
    let good = segment(file, 1);
    let mut flipped = good.clone();
    flipped[1] ^= 0x20;
    let short = good[..good.len() - 100].to_vec();
    let zeros = vec![0; good.len()];
    let long = [&good[..], &[1]].concat();
    for (case, bytes) in [
        ("a flipped bit in the magic", flipped),
        ("cut", short),
        ("zeros", zeros),
        ("longer", long),
        (
            "a page of text",
            b"<html><body>What you wanted</body></html>".to_vec(),
        ),
    ] {
        let bench = Bench::new();
        bench.claim().await;
        bench.memory.insert(
            &key(&format!("wal_005/{file}")),
            encode(Codec::None, &bytes),
        );
        let error = wal_fetch::fetch(&bench.archive, &file_name(file)).await;
        let error = error.expect_err(case);
        assert_eq!(error.kind, Kind::CorruptData, "{case}: {}", error.chain());
    }
}
