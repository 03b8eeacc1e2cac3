//! A server in recovery: what is fetched ahead of it, and how long an outage is waited out. Rows of the fault battery are
//! named in the tests' names.

use std::time::Duration;

use wale_format::Codec;
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::*;
use crate::error::Kind;
use crate::testing::{Bench, content, file_name, segment, segment_name};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";

fn numbered(number: u32) -> String {
    format!("0000000100000000{number:08X}")
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

/// Time is the test's own: a store far away answers each call after 50 ms.
#[tokio::test(start_paused = true)]
async fn as_many_are_fetched_ahead_as_a_distant_store_needs_and_fewer_again_when_it_is_near() {
    let (bench, fetcher) = recovering(120, FetcherOptions::default()).await;
    let depth = || fetcher.ahead().expect("it fetches ahead").depth_now();
    assert_eq!(depth(), 2);
    let far = Fault::Delay(Duration::from_millis(50));
    bench
        .faulty
        .set_plan(FaultPlan::new().fail(Verb::Any, Occurrence::Always, far));
    expect(&fetcher, 1).await;
    expect(&fetcher, 2).await;
    let begun = tokio::time::Instant::now();
    for number in 3..=60 {
        expect(&fetcher, number).await;
    }
    // Two calls each, two segments at once: 58 × 50 ms are 2.9 s. Four at once take half of it.
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(depth(), 4, "never more than the window");
    bench.faulty.set_plan(FaultPlan::new());
    for number in 61..=120 {
        // It replays meanwhile.
        tokio::time::sleep(Duration::from_millis(20)).await;
        expect(&fetcher, number).await;
    }
    assert_eq!(depth(), 2);
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
    assert_eq!(ahead.at_hand().len(), 2);
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
    assert_eq!(ahead.at_hand().len(), 2);
    expect(&fetcher, 3).await;
    assert_eq!(
        ahead.memory(),
        3 << 20,
        "two ahead, and the one that was delivered is kept for the next"
    );
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((ahead.at_hand(), ahead.memory()), (Vec::new(), 0));
    expect(&fetcher, 4).await;
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
