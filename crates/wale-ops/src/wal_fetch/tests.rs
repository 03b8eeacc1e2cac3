//! Rows of the fault battery are named in the tests' names.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use wale_archive::Beginning;
use wale_format::{Codec, layout};
use wale_pg::{ArchiveFileName, ControlFile, WalSegmentName, WalSegmentSize};
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Store, Verb};

use super::*;
use crate::error::Kind;
use crate::testing::{
    Bench, SEGMENT_BYTES, SYSTEM_IDENTIFIER, archive, cluster, content, encode, file_name, segment,
    segment_name, segment_of,
};

const FIRST: &str = "000000010000000000000001";
/// As little as WAL-E says of a backup.
const SENTINEL: &str = r#"{"wal_segment_backup_stop":"000000010000000000000001"}"#;
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const HISTORY: &str = "1\t0/300000\tno recovery target specified\n";

fn numbered(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

#[tokio::test]
async fn every_kind_of_file_is_fetched_whole_whatever_its_codec_and_the_memory() {
    let backup = "000000010000000000000001.00000028.backup";
    let files = [
        (FIRST, segment(FIRST, 1)),
        ("000000010000000000000002.partial", segment(SECOND, 1)),
        ("00000002.history", HISTORY.into()),
        (
            backup,
            b"START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n".to_vec(),
        ),
    ];
    // With 1 MiB of budget a segment does not fit into a quarter of it: two passes.
    for budget in [64 << 20, 1 << 20] {
        for codec in Codec::ALL_READABLE {
            for claimed in [true, false] {
                let bench = Bench::new();
                let archive = archive(Arc::new(bench.memory.clone()), codec, budget);
                if claimed {
                    bench.claim().await;
                }
                for (name, bytes) in &files {
                    bench.store_wal(name, codec, bytes);
                    let fetched = fetch(&archive, &file_name(name)).await.expect(name);
                    assert_eq!(fetched.size, bytes.len() as u64);
                    assert_eq!(
                        &content(fetched).await.expect("whole"),
                        bytes,
                        "{name} {codec} {budget}"
                    );
                }
                assert_eq!(archive.budget().in_use(), 0);
            }
        }
    }
}

#[tokio::test]
async fn rows_28_and_53_a_damaged_object_is_named_and_never_delivered() {
    let good = segment(FIRST, 1);
    let stored = encode(Codec::Zstd, &good);
    let mut flipped = stored.clone();
    flipped[stored.len() / 2] ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    let mut surplus = stored.clone();
    surplus.push(0);
    let cases = [
        ("bit flip", flipped),
        ("cut", stored[..stored.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("trailing byte", surplus),
        ("another segment", encode(Codec::Zstd, &segment(SECOND, 1))),
        (
            "another cluster",
            encode(Codec::Zstd, &segment_of(1, FIRST, 1)),
        ),
        ("too short", encode(Codec::Zstd, &good[..SEGMENT_BYTES - 1])),
        ("too long", encode(Codec::Zstd, &longer)),
        ("zeros", encode(Codec::Zstd, &vec![0; SEGMENT_BYTES])),
        ("a bomb", encode(Codec::Zstd, &vec![7; SEGMENT_BYTES * 64])),
        ("another codec", encode(Codec::Lz4, &good)),
    ];
    for (case, object) in cases {
        for budget in [64 << 20, 1 << 20] {
            let bench = Bench::new();
            bench.claim().await;
            let archive = archive(Arc::new(bench.memory.clone()), Codec::Zstd, budget);
            let key = ObjectKey::new(&format!("wal_005/{FIRST}.zst")).expect("a key");
            bench.memory.insert(&key, object.clone());
            let error = fetch(&archive, &file_name(FIRST)).await.expect_err(case);
            // What does not begin as its codec's frame may be encrypted by another tool.
            let kind = match case {
                "another codec" => Kind::Configuration,
                _ => Kind::CorruptData,
            };
            assert_eq!(error.kind, kind, "{case}: {}", error.chain());
            assert!(error.message.contains(key.as_str()), "{case}: {error}");
            let path = bench.folder().join("RECOVERYXLOG");
            fetch_to_path(&archive, &file_name(FIRST), &path, None)
                .await
                .expect_err(case);
            let left = fs::read_dir(bench.folder()).expect("read").count();
            assert_eq!(left, 1, "{case}: only archive_status");
            // A sound copy under another codec is as good.
            bench.store_wal(FIRST, Codec::Lz4, &good);
            let fetched = fetch(&archive, &file_name(FIRST)).await.expect(case);
            assert_eq!(content(fetched).await.expect("whole"), good, "{case}");
        }
    }
}

#[tokio::test]
async fn a_file_is_put_in_place_whole_and_in_place_of_another() {
    let bench = Bench::new();
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    let path = bench.folder().join("RECOVERYXLOG");
    fs::write(&path, "left over").expect("written");
    let report = fetch_to_path(&bench.archive, &file_name(FIRST), &path, None)
        .await
        .expect("placed");
    assert_eq!(report.bytes_plain, SEGMENT_BYTES as u64);
    assert_eq!(fs::read(&path).expect("read"), segment(FIRST, 1));
    let nowhere = bench.folder().join("missing/RECOVERYXLOG");
    let error = fetch_to_path(&bench.archive, &file_name(FIRST), &nowhere, None)
        .await
        .expect_err("no folder");
    assert_eq!(
        error.kind,
        Kind::LocalIo,
        "never NotFound, which would mean absence"
    );
}

#[tokio::test]
async fn a_codec_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Brotli, b"brotli");
    let error = fetch(&bench.archive, &file_name(FIRST))
        .await
        .expect_err("not yet");
    assert_eq!(error.kind, Kind::Configuration);
    assert!(error.message.contains("brotli"), "{error}");
}

#[tokio::test]
async fn rows_50_and_51_no_fault_of_the_store_looks_like_absence() {
    let faults = [
        Fault::Unavailable,
        Fault::PermissionDenied,
        Fault::CutBody(10),
        Fault::Truncate(10),
        Fault::CorruptByte(900),
    ];
    for budget in [64 << 20, 1 << 20] {
        for fault in &faults {
            for call in 1..30 {
                let bench = Bench::new();
                bench.claim().await;
                bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
                bench.faulty.set_plan(FaultPlan::new().fail(
                    Verb::Any,
                    Occurrence::Nth(call),
                    fault.clone(),
                ));
                let archive = archive(
                    Arc::clone(&bench.faulty) as Arc<dyn Store>,
                    Codec::Zstd,
                    budget,
                );
                match fetch(&archive, &file_name(FIRST)).await {
                    Ok(fetched) => match content(fetched).await {
                        Ok(bytes) => assert_eq!(bytes, segment(FIRST, 1), "call {call}, {fault:?}"),
                        Err(error) => assert_eq!(
                            error.kind,
                            Kind::StorageUnavailable,
                            "call {call}, {fault:?}"
                        ),
                    },
                    Err(error) => assert_ne!(error.kind, Kind::NotFound, "call {call}, {fault:?}"),
                }
                // And the proof: it is there, so nothing may prove that it is not.
                prove_absent(&archive, &file_name(FIRST))
                    .await
                    .expect_err("it is there");
            }
        }
    }
}

#[tokio::test]
async fn row_52_absence_is_proven_only_by_an_archive_that_answers() {
    let bench = Bench::new();
    let absent = file_name(SECOND);
    let error = prove_absent(&bench.archive, &absent)
        .await
        .expect_err("no archive at all");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    assert_eq!(
        prove_absent(&bench.archive, &absent).await.expect("proven"),
        Absence::Proven
    );
    let history = file_name("00000002.history");
    assert_eq!(
        prove_absent(&bench.archive, &history)
            .await
            .expect("proven"),
        Absence::Proven
    );
    let error = prove_absent(&bench.archive, &file_name(FIRST))
        .await
        .expect_err("it is there");
    assert_eq!(
        (error.kind, error.kind.http_status()),
        (Kind::ArchiveConflict, 409)
    );
    // Every single question must be answered.
    let before = bench.faulty.calls(Verb::Any);
    prove_absent(&bench.archive, &absent).await.expect("proven");
    let questions = bench.faulty.calls(Verb::Any) - before;
    for call in 1..=questions {
        bench.faulty.set_plan(FaultPlan::new().fail(
            Verb::Any,
            Occurrence::Nth(call),
            Fault::Unavailable,
        ));
        let error = prove_absent(&bench.archive, &absent)
            .await
            .expect_err("one question is open");
        assert_eq!(
            error.kind,
            Kind::StorageUnavailable,
            "call {call} of {questions}"
        );
    }
    bench.faulty.set_plan(FaultPlan::new());
    // An identity that was known before is not enough: the volume is gone now.
    bench
        .memory
        .delete(&ObjectKey::new(layout::IDENTITY).expect("a key"))
        .await
        .expect("deleted");
    let error = prove_absent(&bench.archive, &absent)
        .await
        .expect_err("no archive");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    // An archive of another tool, not adopted yet, proves itself by a sentinel.
    let sentinel = format!("basebackups_005/base_{FIRST}_00000040_backup_stop_sentinel.json");
    bench
        .memory
        .insert(&ObjectKey::new(&sentinel).expect("a key"), SENTINEL);
    prove_absent(&bench.archive, &absent).await.expect("proven");
}

#[tokio::test]
async fn row_29_a_listing_and_a_look_up_that_disagree_prove_nothing() {
    let bench = Bench::new();
    bench.claim().await;
    // As WAL-G 3.0.8 names an uncompressed file, or as a store whose heads are stale: listed, not found.
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    let blind = FaultPlan::new().fail(
        Verb::List,
        Occurrence::Always,
        Fault::OmitFromList("wal_005/".to_owned()),
    );
    bench.faulty.set_plan(blind);
    // A list that lacks it does not hide it.
    let error = prove_absent(&bench.archive, &file_name(FIRST))
        .await
        .expect_err("it is there");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    fetch(&bench.archive, &file_name(FIRST))
        .await
        .expect("decisions never rest on a list");
}

#[tokio::test]
async fn row_46_a_gap_is_not_the_end() {
    let bench = Bench::new();
    bench.claim().await;
    for name in [FIRST, THIRD] {
        bench.store_wal(name, Codec::Zstd, &segment(name, 1));
    }
    let error = prove_absent(&bench.archive, &file_name(SECOND))
        .await
        .expect_err("a gap");
    assert_eq!(error.kind, Kind::CorruptData);
    assert!(
        error.message.contains(SECOND) && error.message.contains(THIRD),
        "{error}"
    );
    assert!(error.hint.expect("a hint").contains(FIRST));
    // The end of WAL after it is one, and other timelines that began before it and partial segments are no evidence.
    prove_absent(&bench.archive, &file_name("000000010000000000000004"))
        .await
        .expect("the end");
    bench.store_wal(
        "000000020000000000000003",
        Codec::Zstd,
        &segment("000000020000000000000003", 1),
    );
    bench.store_wal("000000010000000000000009.partial", Codec::Zstd, b"");
    prove_absent(&bench.archive, &file_name("000000010000000000000004"))
        .await
        .expect("the end");
    // The next log counts, too.
    bench.store_wal(
        "000000010000000100000000",
        Codec::Zstd,
        &segment("000000010000000100000000", 1),
    );
    let error = prove_absent(&bench.archive, &file_name("000000010000000000000004"))
        .await
        .expect_err("a gap");
    assert!(error.message.contains("000000010000000100000000"));
}

#[tokio::test]
async fn what_lies_before_the_beginning_of_a_timeline_is_no_gap() {
    let bench = Bench::new();
    bench.claim().await;
    // Timeline 2 begins at 0/300000, in its segment 3.
    for name in ["000000020000000000000003", "000000020000000000000005"] {
        bench.store_wal(name, Codec::Zstd, &segment(name, 1));
    }
    let before = file_name("000000020000000000000002");
    let within = file_name("000000020000000000000004");
    prove_absent(&bench.archive, &before)
        .await
        .expect("nothing earlier was seen");
    prove_absent(&bench.archive, &within)
        .await
        .expect_err("an earlier one was seen");
    bench.store_wal("00000002.history", Codec::Zstd, HISTORY.as_bytes());
    prove_absent(&bench.archive, &before)
        .await
        .expect("before the beginning");
    prove_absent(&bench.archive, &within)
        .await
        .expect_err("a gap");
}

#[tokio::test]
async fn row_46_a_hole_before_the_switch_to_a_later_timeline_is_not_the_end() {
    for identified in [true, false] {
        let bench = Bench::new();
        if identified {
            bench.claim().await;
        } else {
            // An archive of another tool: what there is shows the segment size.
            let sentinel =
                format!("basebackups_005/base_{FIRST}_00000040_backup_stop_sentinel.json");
            let sentinel = ObjectKey::new(&sentinel).expect("a key");
            bench.memory.insert(&sentinel, SENTINEL);
        }
        // The primary died with segment 2 on its disk; the standby took timeline 2 in segment 3.
        bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
        prove_absent(&bench.archive, &file_name(SECOND))
            .await
            .expect("the end, as far as anybody knows");
        bench.store_wal("00000002.history", Codec::Zstd, HISTORY.as_bytes());
        let error = prove_absent(&bench.archive, &file_name(SECOND))
            .await
            .expect_err("timeline 2 leads through it");
        assert_eq!(error.kind, Kind::CorruptData);
        assert!(error.message.contains("timeline 2"), "{error}");
        // The old timeline after the switch, and the new one before and at its beginning, are nobody's way.
        for end in [
            THIRD,
            "000000010000000000000004",
            "000000020000000000000002",
            "000000020000000000000003",
        ] {
            prove_absent(&bench.archive, &file_name(end))
                .await
                .expect(end);
        }
    }
}

#[tokio::test]
async fn row_46_a_gap_is_seen_however_long_and_wherever_it_begins() {
    let bench = Bench::new();
    bench.claim().await;
    let far = "0000000100000009000000FF";
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    bench.store_wal(far, Codec::Zstd, b"");
    let error = prove_absent(&bench.archive, &file_name(SECOND)).await;
    assert_eq!(error.expect_err("a gap").kind, Kind::CorruptData);
    // A timeline whose beginning is not known, where archiving was switched on late: a hole at the start of a log.
    for name in ["0000000200000004000000FF", "000000020000000500000001"] {
        bench.store_wal(name, Codec::Zstd, b"");
    }
    let error = prove_absent(&bench.archive, &file_name("000000020000000500000000")).await;
    assert_eq!(error.expect_err("a gap").kind, Kind::CorruptData);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_absent() {
    let bench = Bench::new();
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    let strange = |name: &str| {
        let key = ObjectKey::new(&format!("wal_005/{name}")).expect("a key");
        bench.memory.insert(&key, "?");
    };
    for end in [".lzo.gpg", ".", ".partial.age"] {
        strange(&format!("{THIRD}{end}"));
    }
    let error = prove_absent(&bench.archive, &file_name(THIRD)).await;
    let error = error.expect_err("it is there");
    assert_eq!(error.kind, Kind::Configuration);
    assert!(error.message.contains(THIRD), "{error}");
    let error = prove_absent(&bench.archive, &file_name(SECOND)).await;
    assert_eq!(error.expect_err("a gap").kind, Kind::CorruptData);
    strange("00000002.history.new");
    strange(&format!("{FIRST}.partial.0123456789abcdef.zst"));
    for name in ["00000002.history", &format!("{FIRST}.partial")] {
        let error = prove_absent(&bench.archive, &file_name(name)).await;
        assert_eq!(error.expect_err(name).kind, Kind::Configuration);
    }
}

#[tokio::test]
async fn row_41_another_clusters_archive_delivers_and_proves_nothing() {
    let control: &[u8] = include_bytes!("../../../wale-pg/testdata/control_file/15");
    let own = ControlFile::parse(control).expect("parses");
    let own = own.system_identifier.as_u64();
    for (owner, is_own) in [(own, true), (SYSTEM_IDENTIFIER, false)] {
        let bench = Bench::new();
        let identity = cluster(owner);
        bench
            .archive
            .ensure_identity(&identity, &Beginning::Anew)
            .await
            .expect("claimed");
        bench.store_wal(FIRST, Codec::Zstd, &segment_of(owner, FIRST, 1));
        let data = bench.folder().join("data");
        fs::create_dir_all(data.join("global")).expect("made");
        let fetcher =
            Fetcher::new(bench.archive.clone(), FetcherOptions::default()).beside(data.clone());
        // Nothing to compare with: refused is what is known to be wrong.
        fetcher
            .prove_absent(&file_name(SECOND))
            .await
            .expect("proven");
        fs::write(data.join(ControlFile::PATH), control).expect("written");
        let delivered = fetcher.fetch(&file_name(FIRST)).await.map(drop);
        let proof = fetcher.prove_absent(&file_name(SECOND)).await.map(drop);
        for answer in [delivered, proof] {
            let wrong = answer.err().map(|error| error.kind);
            assert_eq!(wrong, (!is_own).then_some(Kind::ArchiveMismatch));
        }
    }
}

#[test]
fn only_a_server_that_goes_forward_is_fetched_ahead_for() {
    let size = WalSegmentSize::DEFAULT;
    let cases: [(Option<&str>, &str, &[&str]); 6] = [
        (None, FIRST, &[]),
        (Some(FIRST), SECOND, &[THIRD, "000000010000000000000004"]),
        (Some(FIRST), FIRST, &[]),
        (Some(SECOND), FIRST, &[]),
        (Some(FIRST), THIRD, &[]),
        (
            Some("0000000100000000000000FE"),
            "0000000100000000000000FF",
            &["000000010000000100000000", "000000010000000100000001"],
        ),
    ];
    for (served, asked, expected) in cases {
        let ahead = plan::ahead_of(served.map(segment_name), segment_name(asked), 2, size);
        assert_eq!(
            ahead.iter().map(ToString::to_string).collect::<Vec<_>>(),
            expected,
            "{asked}"
        );
    }
    assert_eq!(
        plan::previous(segment_name("000000010000000100000000"), size),
        Some(segment_name("0000000100000000000000FF"))
    );
    assert_eq!(
        plan::previous(segment_name("000000010000000000000000"), size),
        None
    );
}

/// A bench with segments 1 to `last`, and a fetcher.
async fn recovering(last: u32, options: FetcherOptions) -> (Bench, Fetcher) {
    let bench = Bench::new();
    bench.claim().await;
    for number in 1..=last {
        bench.store_wal(
            &numbered(number),
            Codec::Zstd,
            &segment(&numbered(number), 1),
        );
    }
    let fetcher = Fetcher::new(bench.archive.clone(), options);
    (bench, fetcher)
}

async fn expect(fetcher: &Fetcher, number: u32) {
    let name = numbered(number);
    let found = fetcher.fetch(&file_name(&name)).await.expect(&name);
    assert_eq!(
        content(found).await.expect("whole"),
        segment(&name, 1),
        "{name}"
    );
}

#[tokio::test]
async fn a_server_that_replays_finds_its_next_segments_at_hand() {
    let (bench, fetcher) = recovering(8, FetcherOptions::default()).await;
    for number in 1..=8 {
        expect(&fetcher, number).await;
    }
    let stats = fetcher.stats();
    assert_eq!(
        (stats.delivered, stats.prefetch_hits),
        (8, 6),
        "the first two are not foreseen"
    );
    let error = fetcher
        .fetch(&file_name(&numbered(9)))
        .await
        .expect_err("the end");
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(
        (fetcher.stats().absent, fetcher.stats().failures.len()),
        (1, 0)
    );
    // What comes later is not hidden by having been looked for too early.
    bench.store_wal(&numbered(9), Codec::Zstd, &segment(&numbered(9), 1));
    expect(&fetcher, 9).await;
    fetcher.drain().await;
    expect(&fetcher, 9).await;
}

#[tokio::test]
async fn row_54_a_walk_backwards_fetches_nothing_ahead() {
    let (_bench, fetcher) = recovering(8, FetcherOptions::default()).await;
    for number in (1..=8).rev() {
        expect(&fetcher, number).await;
    }
    let stats = fetcher.stats();
    assert_eq!(
        (stats.delivered, stats.prefetched, stats.prefetch_hits),
        (8, 0, 0)
    );
}

#[tokio::test]
async fn a_jump_drops_what_is_at_hand_and_absent_timelines_do_not() {
    let (_bench, fetcher) = recovering(9, FetcherOptions::default()).await;
    expect(&fetcher, 1).await;
    expect(&fetcher, 2).await;
    // Before 14 a server asks for each segment on the newest timeline first.
    fetcher
        .fetch(&file_name("000000020000000000000003"))
        .await
        .expect_err("absent");
    expect(&fetcher, 3).await;
    assert_eq!(fetcher.stats().prefetch_hits, 1);
    let ahead = fetcher.ahead().expect("on");
    assert_eq!(ahead.at_hand().len(), 4);
    expect(&fetcher, 9).await;
    assert_eq!(ahead.at_hand(), []);
}

#[tokio::test]
async fn what_is_fetched_ahead_stays_within_its_memory() {
    let options = FetcherOptions {
        prefetch_bytes: 2 << 20,
        ..FetcherOptions::default()
    };
    let (_bench, fetcher) = recovering(9, options).await;
    expect(&fetcher, 1).await;
    expect(&fetcher, 2).await;
    let at_hand =
        |fetcher: &Fetcher| -> Vec<WalSegmentName> { fetcher.ahead().expect("on").at_hand() };
    assert_eq!(at_hand(&fetcher).len(), 2);
    for number in 3..=9 {
        expect(&fetcher, number).await;
        assert!(at_hand(&fetcher).len() <= 2);
    }
    let options = FetcherOptions {
        prefetch_bytes: 1 << 19,
        ..FetcherOptions::default()
    };
    let (_bench, fetcher) = recovering(3, options).await;
    for number in 1..=3 {
        expect(&fetcher, number).await;
    }
    assert_eq!(
        fetcher.stats().prefetched,
        0,
        "a segment is larger than all of it"
    );
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_when_nobody_asks_any_more() {
    let (_bench, fetcher) = recovering(6, FetcherOptions::default()).await;
    expect(&fetcher, 1).await;
    expect(&fetcher, 2).await;
    let ahead = fetcher.ahead().expect("on");
    assert_eq!(ahead.at_hand().len(), 4);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(ahead.at_hand(), []);
    expect(&fetcher, 3).await;
}

#[tokio::test(start_paused = true)]
async fn row_51_an_outage_is_waited_out_and_then_called_by_its_name() {
    let (bench, fetcher) = recovering(3, FetcherOptions::default()).await;
    bench.faulty.set_plan(FaultPlan::new().fail(
        Verb::Any,
        Occurrence::Between(1, 3),
        Fault::Unavailable,
    ));
    expect(&fetcher, 1).await;
    bench.faulty.switch().set_down(true);
    let started = tokio::time::Instant::now();
    let error = fetcher.fetch(&file_name(SECOND)).await.expect_err("down");
    assert_eq!(
        (error.kind, error.kind.http_status()),
        (Kind::StorageUnavailable, 503)
    );
    let waited = started.elapsed();
    assert!(
        waited > Duration::from_secs(50) && waited <= Duration::from_mins(1),
        "{waited:?}"
    );
    let error = fetcher
        .prove_absent(&file_name(SECOND))
        .await
        .expect_err("down");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    bench.faulty.switch().set_down(false);
    expect(&fetcher, 2).await;
    assert_eq!(
        fetcher.stats().failures,
        [(Kind::StorageUnavailable, 2)].into()
    );
    // Absence needs no patience.
    let started = tokio::time::Instant::now();
    let end: ArchiveFileName = file_name("000000010000000000000004");
    assert_eq!(
        fetcher.fetch(&end).await.expect_err("absent").kind,
        Kind::NotFound
    );
    fetcher.prove_absent(&end).await.expect("proven");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// The first, the second, … call fails, until one fetch is not touched any more.
#[tokio::test]
async fn row_51_whichever_call_of_a_fetch_fails_it_is_no_absence_and_the_next_fetch_works() {
    let faults = [
        Fault::Unavailable,
        Fault::LostReply,
        Fault::PermissionDenied,
        Fault::CutBody(100),
    ];
    for fault in faults {
        let bench = Bench::new();
        bench.claim().await;
        let name = file_name(&numbered(1));
        bench.store_wal(&numbered(1), Codec::Zstd, &segment(&numbered(1), 1));
        for call in 1.. {
            let plan = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(call), fault.clone());
            let before = bench.faulty.calls(Verb::Any);
            bench.faulty.set_plan(plan);
            let result = match fetch(&bench.archive, &name).await {
                Ok(fetched) => content(fetched).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(bytes) => assert!(bytes == segment(&numbered(1), 1), "call {call}, {fault:?}"),
                Err(error) => assert!(
                    matches!(
                        error.kind,
                        Kind::StorageUnavailable | Kind::PermissionDenied
                    ),
                    "call {call}, {fault:?}: {error:?}"
                ),
            }
            let calls = bench.faulty.calls(Verb::Any) - before;
            bench.faulty.set_plan(FaultPlan::new());
            let fetched = fetch(&bench.archive, &name).await.expect("the next one");
            assert!(content(fetched).await.expect("whole") == segment(&numbered(1), 1));
            if calls < call {
                assert!(call > 1, "the fault struck nothing at all");
                break;
            }
        }
    }
}
