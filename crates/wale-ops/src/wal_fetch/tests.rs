//! Rows of the fault battery are named in the tests' names.

use std::fs;
use std::sync::Arc;

use wale_format::Codec;
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Store, Verb};

use super::*;
use crate::error::Kind;
use crate::testing::{
    Bench, SEGMENT_BYTES, archive, content, encode, file_name, segment, segment_of,
};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const HISTORY: &str = "1\t0/300000\tno recovery target specified\n";

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
        for codec in Codec::ALL_WRITABLE {
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
async fn what_goes_into_a_file_is_read_once_and_needs_no_memory_for_all_of_it() {
    let bench = Bench::new();
    bench.claim().await;
    bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
    let name = file_name(FIRST);
    let path = bench.folder().join("RECOVERYXLOG");
    let _all = bench.archive.budget().try_acquire(u64::MAX);
    let reads = || bench.faulty.calls(Verb::Get);
    let send = async || {
        let before = reads();
        let sent = fetch(&bench.archive, &name).await.expect("there");
        content(sent).await.expect("whole");
        reads() - before
    };
    // The first one reads the identity, too.
    send().await;
    assert_eq!(send().await, 2, "what is sent is checked before");
    let before = reads();
    let placed = fetch_to_path(&bench.archive, &name, &path, None).await;
    placed.expect("placed");
    assert_eq!(reads() - before, 1);
    assert_eq!(fs::read(&path).expect("read"), segment(FIRST, 1));
    let fetcher = Fetcher::new(
        bench.archive.clone(),
        FetcherOptions {
            prefetch: 0,
            ..FetcherOptions::default()
        },
    );
    let before = reads();
    fs::remove_file(&path).expect("removed");
    fetcher
        .fetch_to_path(&name, &path, None)
        .await
        .expect("placed");
    assert_eq!(reads() - before, 1);
    assert_eq!(fs::read(&path).expect("read"), segment(FIRST, 1));
}

#[tokio::test]
async fn what_no_codec_of_ours_decodes_is_named_and_not_called_damaged() {
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
        let name = file_name(FIRST);
        bench.store_wal(FIRST, Codec::Zstd, &segment(FIRST, 1));
        for call in 1.. {
            let plan = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(call), fault.clone());
            let before = bench.faulty.calls(Verb::Any);
            bench.faulty.set_plan(plan);
            let result = match fetch(&bench.archive, &name).await {
                Ok(fetched) => content(fetched).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(bytes) => assert!(bytes == segment(FIRST, 1), "call {call}, {fault:?}"),
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
            assert!(content(fetched).await.expect("whole") == segment(FIRST, 1));
            if calls < call {
                assert!(call > 1, "the fault struck nothing at all");
                break;
            }
        }
    }
}
