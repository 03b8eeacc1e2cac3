//! Several pushes at once: one for each name, and some ahead. Rows of the fault battery are named in the tests' names.

use std::fs;

use wale_archive::Archive;
use wale_format::{Codec, layout};
use wale_storage::{Fault, FaultPlan, Occurrence, Store, Verb};

use super::PushOutcome::{AlreadyStored, Stored};
use super::*;
use crate::error::Kind;
use crate::testing::{Bench, content, file_name, once, segment};
use crate::wal_fetch::fetch;

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const FOURTH: &str = "000000010000000000000004";

fn pusher(bench: &Bench, look_ahead: usize) -> Pusher {
    let options = PusherOptions {
        look_ahead,
        retry: once().retry,
        ..PusherOptions::default()
    };
    Pusher::new(bench.archive.clone(), bench.wal.clone(), options)
}

#[tokio::test]
async fn row_37_a_hundred_pushes_of_one_name_are_one_upload() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let pusher = pusher(&bench, 0);
    let all = (0..100).map(|_| pusher.push(&name));
    for result in futures_util::future::join_all(all).await {
        assert_eq!(result.expect("stored").name, name);
    }
    assert_eq!(bench.faulty.calls(Verb::PutIfAbsent), 2);
    assert_eq!(pusher.stats().uploads, 1);
    assert_eq!(pusher.stats().requests_ok, 100);
    assert_eq!(pusher.stats().in_flight, 0);
}

#[tokio::test]
async fn row_37_without_a_pusher_in_common_it_is_one_object() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let all = (0..20).map(|_| async { run(&bench.archive, &bench.wal, &name, &once()).await });
    let outcomes: Vec<_> = futures_util::future::join_all(all).await;
    let stored = outcomes
        .iter()
        .filter(|o| o.as_ref().expect("done").outcome == PushOutcome::Stored)
        .count();
    assert_eq!((stored, bench.wal_keys().len()), (1, 1));
}

#[tokio::test]
async fn the_next_ready_files_are_pushed_ahead_and_remembered() {
    let bench = Bench::new();
    let [first, second, third, fourth] =
        [FIRST, SECOND, THIRD, FOURTH].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 2);
    pusher.push(&first).await.expect("stored");
    wait_until(|| pusher.stats().uploads == 3).await;
    assert_eq!(bench.wal_keys().len(), 3, "the window is two");
    bench.done(&first);
    let before = pusher.stats().look_ahead_hits;
    let heads = bench.faulty.calls(Verb::Head);
    pusher.push(&second).await.expect("remembered");
    pusher.push(&third).await.expect("remembered");
    assert_eq!(pusher.stats().look_ahead_hits, before + 2);
    assert_eq!(pusher.stats().already_stored, 0, "nothing was compared");
    assert!(bench.faulty.calls(Verb::Head) >= heads + 2);
    // What is remembered never spares the look.
    bench.faulty.switch().set_down(true);
    let error = pusher.push(&second).await.expect_err("the store is silent");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    bench.faulty.switch().set_down(false);
    pusher.push(&fourth).await.expect("stored");
    pusher.drain().await;
    // Nobody but PostgreSQL touches the marks.
    assert_eq!(bench.wal.ready().expect("read"), [second, third, fourth]);
}

#[tokio::test]
async fn fault_67_an_object_that_was_lost_is_stored_again() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let pusher = pusher(&bench, 0);
    let key = Archive::key(&format!("wal_005/{FIRST}.zst")).expect("a key");
    for cut in [false, true] {
        pusher.push(&name).await.expect("stored");
        let stored = bench.memory.content(&key).expect("there");
        let calls = bench.faulty.calls(Verb::Any);
        pusher.push(&name).await.expect("remembered");
        // Whose the archive is was read a moment ago.
        assert_eq!(bench.faulty.calls(Verb::Any), calls + 1, "one look");
        if cut {
            bench.memory.insert(&key, stored.slice(..1000));
            let error = pusher.push(&name).await.expect_err("damaged");
            assert_eq!(error.kind, Kind::CorruptData);
        } else {
            bench.memory.delete(&key).await.expect("deleted");
            let report = pusher.push(&name).await.expect("stored again");
            assert_eq!(report.outcome, Stored);
            let fetched = fetch(&bench.archive, &name).await.expect("fetched");
            assert_eq!(content(fetched).await.expect("whole"), segment(FIRST, 1));
        }
    }
}

#[tokio::test]
async fn fault_68_nothing_is_pushed_into_an_archive_that_was_emptied_meanwhile() {
    let bench = Bench::new();
    let [first, second] = [FIRST, SECOND].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 0);
    pusher.push(&first).await.expect("stored");
    let kept = Archive::key(layout::IDENTITY).expect("a key");
    let identity = bench.memory.content(&kept).expect("there");
    for key in bench.memory.keys() {
        bench.memory.delete(&key).await.expect("deleted");
    }
    for name in [&first, &second] {
        let error = pusher.push(name).await.expect_err("gone");
        assert_eq!(error.kind.http_status(), 503, "{error}");
        assert!(error.message.contains("was there and is gone"), "{error}");
    }
    assert!(bench.memory.keys().is_empty(), "nothing was written");
    bench.memory.insert(&kept, identity);
    for name in [&first, &second] {
        let report = pusher.push(name).await.expect("stored");
        assert_eq!(report.outcome, Stored);
    }
}

#[tokio::test]
async fn fault_96_an_object_that_cannot_be_read_counts_as_not_archived() {
    let plain = segment(FIRST, 1);
    let encrypted = [&[0x85, 0x02, 0x0C, 0x03][..], &plain[4..]].concat();
    // Another tool's extension or another's key; under our own extension the next codec is taken.
    for (theirs, content, ours) in [
        (".br", &plain, "zst"),
        (".lzma", &plain, "zst"),
        (".lz4", &encrypted, "zst"),
        (".zst", &encrypted, "lz4"),
        ("", &encrypted, "zst"),
    ] {
        let bench = Bench::new();
        bench.claim().await;
        let name = bench.ready_segment(FIRST);
        let key = Archive::key(&format!("wal_005/{FIRST}{theirs}")).expect("a key");
        bench.memory.insert(&key, content.clone());
        let pusher = pusher(&bench, 0);
        let report = pusher.push(&name).await.expect(theirs);
        assert_eq!(report.outcome, Stored, "{theirs}");
        assert_eq!(report.key, format!("wal_005/{FIRST}.{ours}"));
        assert_eq!(report.beside.as_deref(), Some(key.as_str()));
        assert_eq!(pusher.stats().beside_unreadable, 1);
        assert_eq!(
            pusher.stats().last_unreadable.as_deref(),
            Some(key.as_str())
        );
        assert_eq!(bench.memory.content(&key).as_deref(), Some(&content[..]));
        let again = run(&bench.archive, &bench.wal, &name, &once()).await;
        assert_eq!(again.expect("there").outcome, AlreadyStored);
        let fetched = fetch(&bench.archive, &name).await.expect("readable");
        assert_eq!(
            crate::testing::content(fetched).await.expect("whole"),
            plain
        );
    }
}

#[tokio::test]
async fn a_file_that_changed_since_is_not_answered_from_memory() {
    let bench = Bench::new();
    let name = bench.ready_segment(FIRST);
    let pusher = pusher(&bench, 0);
    pusher.push(&name).await.expect("stored");
    fs::remove_file(bench.folder().join(FIRST)).expect("removed");
    bench.write(FIRST, &segment(FIRST, 2));
    let error = pusher.push(&name).await.expect_err("another file");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert_eq!(pusher.stats().failures, [(Kind::ArchiveConflict, 1)].into());
    assert!(
        pusher
            .stats()
            .last_failure_text
            .expect("a text")
            .contains(FIRST)
    );
}

#[tokio::test]
async fn row_5_a_failed_push_ahead_fails_nobody_and_is_done_again_when_asked_for() {
    let plan = FaultPlan::new().fail_keys(
        &format!("wal_005/{SECOND}"),
        Verb::PutIfAbsent,
        Occurrence::Nth(1),
        Fault::Unavailable,
    );
    let bench = Bench::with_plan(plan);
    let [first, second] = [FIRST, SECOND].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 1);
    pusher.push(&first).await.expect("stored");
    wait_until(|| pusher.stats().look_ahead_failures == 1).await;
    assert_eq!(bench.wal_keys().len(), 1);
    pusher.push(&second).await.expect("stored now");
    assert_eq!(bench.wal_keys().len(), 2);
    assert!(pusher.stats().failures.is_empty());
}

#[tokio::test]
async fn row_40_a_server_that_is_refused_has_pushed_nothing_ahead() {
    for (window, is_tried_ahead) in (1..4).flat_map(|window| [(window, true), (window, false)]) {
        let bench = Bench::new();
        bench.claim().await;
        // The other server of the same cluster went on with another history, and was faster with this one.
        bench.store_wal(SECOND, Codec::Zstd, &segment(SECOND, 7));
        let [first, second, ..] =
            [FIRST, SECOND, THIRD, FOURTH].map(|name| bench.ready_segment(name));
        let pusher = pusher(&bench, window);
        pusher.push(&first).await.expect("not taken");
        if is_tried_ahead {
            wait_until(|| pusher.stats().look_ahead_failures > 0).await;
        }
        bench.done(&first);
        let error = pusher.push(&second).await.expect_err("taken");
        assert_eq!(error.kind, Kind::ArchiveConflict);
        pusher.drain().await;
        let stored = [FIRST, SECOND].map(|name| format!("wal_005/{name}.zst"));
        assert_eq!(bench.wal_keys(), stored, "window {window}");
    }
}

#[tokio::test]
async fn what_is_pushed_ahead_appears_after_what_was_asked_for() {
    let slow = Fault::Delay(std::time::Duration::from_millis(200));
    let bench = Bench::with_plan(FaultPlan::new().fail_keys(
        &format!("wal_005/{FIRST}"),
        Verb::PutIfAbsent,
        Occurrence::Nth(1),
        slow,
    ));
    let [first, ..] = [FIRST, SECOND, THIRD].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 2);
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let watched = async {
        wait_until(|| {
            let keys = bench.wal_keys();
            let enough = keys.len() == 3;
            seen.borrow_mut().insert(keys);
            enough
        })
        .await;
    };
    let (report, ()) = tokio::join!(pusher.push(&first), watched);
    report.expect("stored");
    let all = [FIRST, SECOND, THIRD].map(|name| format!("wal_005/{name}.zst"));
    for keys in seen.borrow().iter() {
        assert_eq!(keys[..], all[..keys.len()], "in order at every moment");
    }
}

#[tokio::test]
async fn nothing_is_pushed_ahead_of_a_file_that_failed() {
    let plan = FaultPlan::new().fail_keys(
        &format!("wal_005/{SECOND}"),
        Verb::PutIfAbsent,
        Occurrence::Always,
        Fault::Unavailable,
    );
    let bench = Bench::with_plan(plan);
    let [first, ..] = [FIRST, SECOND, THIRD, FOURTH].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 2);
    for _ in 0..5 {
        let failures = pusher.stats().look_ahead_failures;
        pusher.push(&first).await.expect("stored or remembered");
        wait_until(|| pusher.stats().look_ahead_failures > failures).await;
    }
    pusher.drain().await;
    assert_eq!(bench.wal_keys(), [format!("wal_005/{FIRST}.zst")]);
}

#[tokio::test]
async fn a_request_that_joins_a_failing_push_ahead_tries_itself() {
    let hang = Fault::Delay(std::time::Duration::from_millis(50));
    let key = format!("wal_005/{SECOND}");
    let plan = FaultPlan::new()
        .fail_keys(&key, Verb::PutIfAbsent, Occurrence::Nth(1), hang)
        .fail_keys(
            &key,
            Verb::PutIfAbsent,
            Occurrence::Nth(1),
            Fault::Unavailable,
        );
    let bench = Bench::with_plan(plan);
    let [first, second] = [FIRST, SECOND].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 1);
    let (one, two) = tokio::join!(pusher.push(&first), async {
        wait_until(|| pusher.stats().in_flight == 2 || pusher.stats().look_ahead_failures > 0)
            .await;
        pusher.push(&second).await
    });
    one.expect("stored");
    two.expect("stored");
}

#[tokio::test]
async fn row_9_draining_finishes_what_runs_and_refuses_what_comes() {
    let bench = Bench::new();
    let [first, second] = [FIRST, SECOND].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 1);
    let (report, ()) = tokio::join!(pusher.push(&first), async {
        wait_until(|| pusher.stats().in_flight > 0).await;
        pusher.drain().await;
    });
    report.expect("finished");
    assert_eq!(pusher.stats().in_flight, 0);
    let error = pusher.push(&second).await;
    assert!(
        error.is_ok_and(|r| r.outcome == PushOutcome::Stored)
            || pusher.stats().failures[&Kind::Draining] == 1
    );
}

#[tokio::test]
async fn requests_do_not_wait_behind_what_is_pushed_ahead() {
    let plan = FaultPlan::new().fail_keys(
        &format!("wal_005/{SECOND}"),
        Verb::PutIfAbsent,
        Occurrence::Always,
        Fault::Hang,
    );
    let bench = Bench::with_plan(plan);
    let [first, _, third] = [FIRST, SECOND, THIRD].map(|name| bench.ready_segment(name));
    let pusher = pusher(&bench, 1);
    pusher.push(&first).await.expect("stored");
    wait_until(|| pusher.stats().in_flight == 1).await;
    pusher
        .push(&third)
        .await
        .expect("stored beside the one that hangs");
}

#[tokio::test]
async fn row_60_pushes_that_wait_are_bounded() {
    let bench = Bench::new();
    let pusher = pusher(&bench, 0);
    let names: Vec<_> = (1..=super::pusher::IN_FLIGHT_MAX + 1)
        .map(|number| file_name(&format!("00000001{number:08X}00000001")))
        .collect();
    let mut requests: Vec<_> = names
        .iter()
        .map(|name| Box::pin(pusher.push(name)))
        .collect();
    let mut last = requests.pop().expect("one");
    for request in &mut requests {
        assert!(futures_util::poll!(request).is_pending());
    }
    let error = last.as_mut().await.expect_err("too many");
    assert_eq!(error.kind, Kind::Busy);
    // They end (no such file), and there is room again.
    futures_util::future::join_all(requests).await;
    let name = bench.ready_segment(FIRST);
    pusher.push(&name).await.expect("stored");
}

/// Waits for a condition that other tasks bring about.
async fn wait_until(condition: impl Fn() -> bool) {
    let patience = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    patience.await.expect("the condition comes true");
}
