//! Rows of the fault battery are named in the tests' names.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use wale_cluster::WalDirectory;
use wale_format::Codec;
use wale_pg::{ClusterIdentity, WalSegmentSize};
use wale_storage::{Fault, FaultPlan, Occurrence, Store, Verb};

use super::PushOutcome::{AlreadyStored, KeptBeside, Stored};
use super::*;
use crate::error::Kind;
use crate::testing::{
    Bench, SEGMENT_BYTES, archive, cluster, content, encode, file_name, once, patient, segment,
    segment_of,
};
use crate::wal_fetch::fetch;

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const FOURTH: &str = "000000010000000000000004";

#[tokio::test]
async fn what_was_pushed_can_be_fetched_and_is_not_pushed_twice() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let report = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("stored");
    assert_eq!(report.outcome, PushOutcome::Stored);
    assert_eq!(report.key, format!("wal_005/{FIRST}.zst"));
    assert_eq!(report.bytes_plain, SEGMENT_BYTES as u64);
    assert!(report.bytes_stored < report.bytes_plain);
    let again = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("there");
    assert_eq!(
        (again.outcome, again.bytes_stored),
        (PushOutcome::AlreadyStored, report.bytes_stored)
    );
    let fetched = fetch(&bench.archive, &name).await.expect("fetched");
    assert_eq!(content(fetched).await.expect("whole"), segment(FIRST, 1));
}

/// The store takes a second and more for each segment, and nothing else takes time here.
#[tokio::test(start_paused = true)]
async fn a_slow_store_gets_fewer_bytes_and_the_same_segment_is_the_same_at_any_level() {
    let rate = NonZeroU64::new(100_000).expect("not 0");
    let slow = FaultPlan::new().fail(Verb::PutIfAbsent, Occurrence::Always, Fault::Rate(rate));
    let mut stored = Vec::new();
    for plan in [FaultPlan::new(), slow] {
        let bench = Bench::with_plan(plan);
        let adapting = bench.archive.clone().adapting();
        let mut sizes = Vec::new();
        for number in 1..=4 {
            let name = format!("00000001000000000000000{number}");
            let name = bench.ready(&name, &telling_segment(&name));
            let report = run(&adapting, &bench.wal, &name, &once()).await;
            sizes.push(report.expect("stored").bytes_stored);
            // Another process does not know the level.
            let again = run(&bench.archive, &bench.wal, &name, &once()).await;
            assert_eq!(again.expect("there").outcome, AlreadyStored);
        }
        stored.push(sizes);
    }
    let [quick, slow] = &stored[..] else {
        panic!("two stores: {stored:?}")
    };
    assert_eq!(quick[0], slow[0], "both begin at the first step");
    assert!(slow[1] < quick[1] && slow[2] < quick[2], "{stored:?}");
    assert!(slow[3] < quick[3] * 95 / 100, "{stored:?}");
}

/// A segment whose records look like each other, as those of one table do.
fn telling_segment(name: &str) -> Vec<u8> {
    let mut bytes = segment(name, 1);
    let mut state = 1_u32;
    for (index, record) in bytes[64..].chunks_exact_mut(64).enumerate() {
        let number = u32::try_from(index).expect("small");
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        record.fill(7);
        record[..4].copy_from_slice(&number.to_le_bytes());
        record[4..30].copy_from_slice(&WORDS[state as usize >> 29]);
        record[30..33].copy_from_slice(&state.to_le_bytes()[1..]);
        record[40..50].copy_from_slice(&WORDS[(state as usize >> 26) % 8][..10]);
    }
    bytes
}

const WORDS: [[u8; 26]; 8] = [
    *b"a measurement of a machine",
    *b"the measure of the machine",
    *b"machines and their measure",
    *b"of what a machine measures",
    *b"measured by the machine no",
    *b"measuring of more machines",
    *b"some machine that measures",
    *b"all of the machinery which",
];

#[tokio::test]
async fn row_11_what_is_there_already_is_acknowledged_only_when_the_store_confirms_it() {
    for codec in [Codec::Zstd, Codec::Lz4] {
        let bench = Bench::new();
        let name = bench.ready_segment(FIRST);
        bench.claim().await;
        // Written by somebody who was killed before his fsync, or by a tool that never calls it.
        let key = bench.store_wal(FIRST, codec, &segment(FIRST, 1));
        let before = bench.memory.content(&key);
        let down = FaultPlan::new().fail(Verb::Confirm, Occurrence::Always, Fault::Unavailable);
        bench.faulty.set_plan(down);
        let error = run(&bench.archive, &bench.wal, &name, &once())
            .await
            .expect_err("nobody says that it is durable");
        assert_eq!(error.kind, Kind::StorageUnavailable);
        bench.faulty.set_plan(FaultPlan::new());
        let report = run(&bench.archive, &bench.wal, &name, &once())
            .await
            .expect("there");
        assert_eq!(report.outcome, AlreadyStored);
        assert_eq!(bench.memory.content(&key), before);
        assert_eq!(bench.wal_keys().len(), 1);
    }
}

#[tokio::test]
async fn the_same_bytes_under_another_codec_are_enough() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Lz4, &segment(FIRST, 1));
    let report = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("there");
    assert_eq!(
        (report.outcome, report.key),
        (PushOutcome::AlreadyStored, format!("wal_005/{FIRST}.lz4"))
    );
    assert_eq!(bench.wal_keys().len(), 1);
}

#[tokio::test]
async fn a_new_codec_is_recorded() {
    let bench = Bench::new();
    bench.claim().await;
    let name = bench.ready_segment(FIRST);
    let plain = archive(Arc::new(bench.memory.clone()), Codec::None, 64 << 20);
    run(&plain, &bench.wal, &name, &once())
        .await
        .expect("stored");
    let identity = plain.read_identity().await.expect("read").expect("there");
    assert_eq!(identity.codecs, [Codec::None, Codec::Zstd].into());
}

#[tokio::test]
async fn row_38_other_bytes_under_a_taken_name_are_refused() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("stored");
    bench.ready(FIRST, &segment(FIRST, 2));
    let error = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect_err("taken");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert!(error.message.contains(FIRST) && error.hint.is_some());
    let fetched = fetch(&bench.archive, &name).await.expect("fetched");
    assert_eq!(content(fetched).await.expect("whole"), segment(FIRST, 1));
}

#[tokio::test]
async fn row_44_a_second_history_of_one_timeline_is_refused() {
    let bench = Bench::new();
    bench.ready_segment(FIRST);
    let name = bench.ready(
        "00000002.history",
        b"1\t0/3000000\tno recovery target specified\n",
    );
    run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("stored");
    bench.ready(
        "00000002.history",
        b"1\t0/4000000\tno recovery target specified\n",
    );
    let error = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect_err("taken");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert!(error.hint.expect("a hint").contains("timeline 2"));
}

#[tokio::test]
async fn row_45_partial_segments_are_kept_beside_each_other_and_beside_the_segment() {
    let bench = Bench::new();
    let full = bench.ready_segment(FIRST);
    let partial_name = format!("{FIRST}.partial");
    let partial = bench.ready(&partial_name, &segment(&partial_name, 1));
    let mut outcomes = Vec::new();
    for (name, seed) in [
        (&full, None),
        (&partial, None),
        (&partial, Some(2)),
        (&partial, Some(2)),
        (&partial, Some(1)),
    ] {
        if let Some(seed) = seed {
            bench.write(&partial_name, &segment(&partial_name, seed));
        }
        outcomes.push(
            run(&bench.archive, &bench.wal, name, &once())
                .await
                .expect("kept")
                .outcome,
        );
    }
    assert_eq!(
        outcomes,
        [Stored, Stored, KeptBeside, AlreadyStored, AlreadyStored]
    );
    assert_eq!(bench.wal_keys().len(), 3);
}

#[tokio::test]
async fn rows_41_and_42_another_cluster_is_refused() {
    let bench = Bench::new();
    bench.claim().await;
    let name = bench.ready(FIRST, &segment_of(42, FIRST, 1));
    let error = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect_err("a stranger");
    assert_eq!(error.kind, Kind::ArchiveMismatch);
    assert!(error.detail.expect("a detail").contains("42"));
    assert!(error.hint.expect("a hint").contains("pg_upgrade"));
    // Its history file is refused, too: the segment beside it shows whose it is.
    let history = bench.ready("00000002.history", b"1\t0/3000000\tno\n");
    let error = run(&bench.archive, &bench.wal, &history, &once())
        .await
        .expect_err("a stranger");
    assert_eq!(error.kind, Kind::ArchiveMismatch);
    assert!(bench.wal_keys().is_empty());
}

#[tokio::test]
async fn a_history_file_of_nobody_knows_whom_does_not_claim_an_archive() {
    let bench = Bench::new();
    let history = bench.ready("00000002.history", b"1\t0/3000000\tno\n");
    let error = run(&bench.archive, &bench.wal, &history, &once())
        .await
        .expect_err("unknown");
    assert_eq!(error.kind, Kind::Configuration);
    assert!(bench.memory.keys().is_empty());
}

#[tokio::test]
async fn row_19_a_file_that_is_not_its_segment_is_refused() {
    let good = segment(FIRST, 1);
    let mut magic = good.clone();
    magic[0] = 0;
    let mut short_header = good.clone();
    short_header[2] = 0;
    let cases: [(&str, &str, Vec<u8>); 10] = [
        ("empty", FIRST, Vec::new()),
        ("cut in the header", FIRST, good[..20].to_vec()),
        ("cut", FIRST, good[..SEGMENT_BYTES - 1].to_vec()),
        ("zeros", FIRST, vec![0; SEGMENT_BYTES]),
        ("unknown magic", FIRST, magic),
        ("no long header", FIRST, short_header),
        ("another segment", SECOND, good.clone()),
        (
            "a partial cut",
            "000000010000000000000001.partial",
            good[..4096].to_vec(),
        ),
        ("no history", "00000002.history", b"hello".to_vec()),
        (
            "no backup history",
            "000000010000000000000001.00000028.backup",
            b"\x7fELF".to_vec(),
        ),
    ];
    for (case, name, bytes) in cases {
        let bench = Bench::new();
        let name = bench.ready(name, &bytes);
        let error = run(&bench.archive, &bench.wal, &name, &once())
            .await
            .expect_err(case);
        assert_eq!(error.kind, Kind::CorruptData, "{case}: {error}");
        assert!(error.message.contains(&name.to_string()), "{case}: {error}");
        assert!(bench.memory.keys().is_empty(), "{case}");
    }
}

#[tokio::test]
async fn fault_102_wal_of_a_newer_server_is_archived_and_of_an_unknown_one_is_not() {
    let mut newer = segment(FIRST, 1);
    newer[..2].copy_from_slice(&0xD130_u16.to_le_bytes());
    for (version, archived) in [(Some("20\n"), true), (Some("19\n"), false), (None, false)] {
        let bench = Bench::new();
        let name = bench.ready(FIRST, &newer);
        let data = bench.folder().join("data");
        fs::create_dir(&data).expect("made");
        if let Some(version) = version {
            fs::write(data.join("PG_VERSION"), version).expect("written");
        }
        let options = PushOptions {
            data_directory: Some(data.clone()),
            ..once()
        };
        let pushed = run(&bench.archive, &bench.wal, &name, &options).await;
        if !archived {
            let error = pushed.expect_err("of nobody knows which server");
            assert_eq!(error.kind, Kind::CorruptData);
            assert!(error.detail.expect("why").contains("D130"), "{version:?}");
            continue;
        }
        assert_eq!(pushed.expect("archived").outcome, Stored);
        let fetched = fetch(&bench.archive, &name).await.expect("fetched");
        assert_eq!(content(fetched).await.expect("whole"), newer);
        // What can be checked is checked.
        let stranger = segment_of(42, SECOND, 1);
        let name = bench.ready(SECOND, &stranger);
        let error = run(&bench.archive, &bench.wal, &name, &options).await;
        assert_eq!(error.expect_err("a stranger").kind, Kind::ArchiveMismatch);
        let mut moved = newer.clone();
        moved[8] ^= 1;
        let name = bench.ready(FIRST, &moved);
        let error = run(&bench.archive, &bench.wal, &name, &options).await;
        assert_eq!(error.expect_err("another segment").kind, Kind::CorruptData);
    }
}

#[tokio::test]
async fn rows_18_and_59_only_a_regular_file_that_exists_is_pushed() {
    let bench = Bench::new();
    let error = run(&bench.archive, &bench.wal, &file_name(FIRST), &once())
        .await
        .expect_err("absent");
    assert_eq!(error.kind, Kind::NotFound);
    fs::create_dir(bench.folder().join(SECOND)).expect("made");
    bench.write("elsewhere", &segment(THIRD, 1));
    symlink(bench.folder().join("elsewhere"), bench.folder().join(THIRD)).expect("made");
    for name in [SECOND, THIRD] {
        let error = run(&bench.archive, &bench.wal, &file_name(name), &once())
            .await
            .expect_err("not regular");
        assert_eq!(error.kind, Kind::LocalIo, "{name}");
    }
    assert!(bench.memory.keys().is_empty());
}

#[tokio::test]
async fn a_segment_in_progress_is_not_archived() {
    let bench = Bench::new();
    bench.write(FIRST, &segment(FIRST, 1));
    let error = run(&bench.archive, &bench.wal, &file_name(FIRST), &once())
        .await
        .expect_err("in progress");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert!(
        error
            .message
            .contains("has not been handed over by PostgreSQL")
    );
    // A folder without archive_status is no server's own: pg_receivewal's, or a copy.
    fs::remove_dir(bench.folder().join("archive_status")).expect("removed");
    run(&bench.archive, &bench.wal, &file_name(FIRST), &once())
        .await
        .expect("stored");
}

#[tokio::test]
async fn row_18_a_file_that_changes_under_the_read_is_not_archived() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let source = source::Source::open(&bench.wal, &name, None).expect("good");
    source.check_unchanged().expect("not yet");
    fs::rename(bench.folder().join(FIRST), bench.folder().join(SECOND)).expect("recycled");
    let error = source.check_unchanged().expect_err("gone");
    assert_eq!(error.kind, Kind::LocalIo);
    bench.write(FIRST, &segment(FIRST, 2));
    source.check_unchanged().expect_err("another file");
}

#[tokio::test]
async fn the_verb_with_a_path_takes_its_folder() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let report = run_path(&bench.archive, &bench.folder().join(FIRST), &once())
        .await
        .expect("stored");
    assert_eq!(report.name, name);
    for wrong in ["postgresql.conf", "", "..", "00000001000000000000000G"] {
        let error = run_path(&bench.archive, &bench.folder().join(wrong), &once())
            .await
            .expect_err(wrong);
        assert_eq!(error.kind, Kind::InvalidName, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_4_and_25_a_lost_reply_is_made_good_without_a_second_upload() {
    let plan = FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::PutIfAbsent,
        Occurrence::Nth(1),
        Fault::LostReply,
    );
    let bench = Bench::with_plan(plan);
    let name = bench.ready_segment(FIRST);
    let report = run(&bench.archive, &bench.wal, &name, &patient())
        .await
        .expect("stored");
    assert_eq!(report.outcome, PushOutcome::AlreadyStored);
    // One for the identity and one for the segment, which is then found and confirmed.
    assert_eq!(bench.faulty.calls(Verb::PutIfAbsent), 2);
    assert_eq!(bench.faulty.calls(Verb::Confirm), 1);
}

#[tokio::test(start_paused = true)]
async fn row_22_an_outage_is_waited_out() {
    let bench = Bench::with_plan(FaultPlan::new().fail(
        Verb::Any,
        Occurrence::Between(1, 4),
        Fault::Unavailable,
    ));
    let name = bench.ready_segment(FIRST);
    let report = run(&bench.archive, &bench.wal, &name, &patient())
        .await
        .expect("stored");
    assert_eq!(report.outcome, PushOutcome::Stored);
}

#[tokio::test]
async fn every_single_fault_fails_or_succeeds_and_the_next_push_succeeds() {
    for fault in [
        Fault::Unavailable,
        Fault::Full,
        Fault::PermissionDenied,
        Fault::LostReply,
        Fault::CutBody(100),
    ] {
        for call in 1..40 {
            let plan = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(call), fault.clone());
            let bench = Bench::with_plan(plan);
            let name = bench.ready_segment(FIRST);
            let first = run(&bench.archive, &bench.wal, &name, &once()).await;
            if let Err(error) = &first {
                assert_ne!(
                    error.kind,
                    Kind::NotFound,
                    "call {call}, {fault:?}: {error}"
                );
                assert_ne!(
                    error.kind,
                    Kind::Internal,
                    "call {call}, {fault:?}: {error}"
                );
            }
            bench.faulty.set_plan(FaultPlan::new());
            run(&bench.archive, &bench.wal, &name, &once())
                .await
                .expect("the next one");
            let fetched = fetch(&bench.archive, &name).await.expect("there");
            assert_eq!(
                content(fetched).await.expect("whole"),
                segment(FIRST, 1),
                "call {call}, {fault:?}"
            );
            if first.is_ok() && call > 20 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn row_16_a_full_store_says_so_and_keeps_nothing() {
    let plan = FaultPlan::new().fail_keys(
        "wal_005/",
        Verb::PutIfAbsent,
        Occurrence::Always,
        Fault::Full,
    );
    let bench = Bench::with_plan(plan);
    let name = bench.ready_segment(FIRST);
    let error = run(&bench.archive, &bench.wal, &name, &patient())
        .await
        .expect_err("full");
    assert_eq!(
        (error.kind, error.kind.http_status()),
        (Kind::DiskFull, 507)
    );
    assert!(bench.wal_keys().is_empty());
    bench.faulty.set_plan(FaultPlan::new());
    run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect("space again");
}

#[tokio::test]
async fn what_is_stored_but_damaged_is_neither_acknowledged_nor_overwritten() {
    let bench = Bench::new();
    bench.claim().await;
    let name = bench.ready_segment(FIRST);
    let mut object = encode(Codec::Zstd, &segment(FIRST, 1));
    object.truncate(1000);
    let key = wale_storage::ObjectKey::new(&format!("wal_005/{FIRST}.zst")).expect("a key");
    bench.memory.insert(&key, object.clone());
    let error = run(&bench.archive, &bench.wal, &name, &once())
        .await
        .expect_err("damaged");
    assert_eq!(error.kind, Kind::CorruptData);
    assert!(error.message.contains(key.as_str()) && error.hint.is_some());
    assert_eq!(bench.memory.content(&key).expect("there"), object);
}

#[test]
fn the_word_of_pg_control_and_of_the_wal_must_agree() {
    let mine = cluster(1);
    let large = ClusterIdentity {
        wal_segment_size: WalSegmentSize::DEFAULT,
        ..mine
    };
    let cases = [
        (None, None, Ok(None)),
        (Some(mine), None, Ok(Some(mine))),
        (None, Some(mine), Ok(Some(mine))),
        (Some(mine), Some(mine), Ok(Some(mine))),
        (Some(cluster(2)), Some(mine), Err(Kind::ArchiveMismatch)),
        (Some(large), Some(mine), Err(Kind::ArchiveMismatch)),
    ];
    for (control, header, expected) in cases {
        let found = plan::cluster_of(&file_name(FIRST), &plan::Origin { control, header });
        assert_eq!(found.map_err(|e| e.kind), expected);
    }
}

#[test]
fn what_is_there_decides() {
    use super::plan::PushDecision::{Conflict, KeepBeside, Same, Upload};
    let cases: [(&[bool], _, _); 6] = [
        (&[], Upload, Upload),
        (&[true], Same(0), Same(0)),
        (&[true, true], Same(0), Same(0)),
        (&[false, true], Conflict(0), Same(1)),
        (&[false], Conflict(0), KeepBeside),
        (&[false, false], Conflict(0), KeepBeside),
    ];
    for (same, segment, partial) in cases {
        assert_eq!(plan::decide(&file_name(FIRST), same), segment);
        assert_eq!(
            plan::decide(&file_name(&format!("{FIRST}.partial")), same),
            partial
        );
    }
}

#[test]
fn the_window_counts_what_is_known_and_leaves_out_what_is_asked_for() {
    let ready = [THIRD, FIRST, SECOND, FOURTH].map(file_name);
    let ahead = |asked, window| plan::look_ahead(&ready, &file_name(asked), window);
    assert_eq!(ahead(THIRD, 2), [file_name(FIRST), file_name(SECOND)]);
    assert_eq!(ahead(SECOND, 2), [file_name(THIRD), file_name(FIRST)]);
    assert_eq!(ahead(FIRST, 0), []);
}

#[tokio::test]
async fn a_real_folder_serves_as_well() {
    let bench = Bench::new();
    let root = tempfile::tempdir().expect("a folder");
    let options = wale_storage::FileStoreOptions {
        root: root.path().join("archive"),
        create: true,
    };
    let store = wale_storage::FileStore::open(options).expect("a store");
    let archive = archive(Arc::new(store) as Arc<dyn Store>, Codec::Lz4, 64 << 20);
    let name = bench.ready_segment(FIRST);
    let wal = WalDirectory::open(bench.folder()).expect("a folder");
    run(&archive, &wal, &name, &once()).await.expect("stored");
    assert_eq!(
        run(&archive, &wal, &name, &once())
            .await
            .expect("there")
            .outcome,
        PushOutcome::AlreadyStored
    );
    assert!(
        root.path()
            .join(format!("archive/wal_005/{FIRST}.lz4"))
            .is_file()
    );
    let fetched = fetch(&archive, &name).await.expect("fetched");
    assert_eq!(content(fetched).await.expect("whole"), segment(FIRST, 1));
}
