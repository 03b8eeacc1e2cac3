//! An archive follows another one, file by file, and is killed meanwhile.

use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

use super::follow::{Lag, answers, bring, lag};
use super::tests::{A, B, C, Side, at, name, wal};
use super::{CopyOptions, CopyReport, Present, WalWish, Which, Wishes, run};
use crate::error::{Kind, OpError};
use crate::retry::RetryBudget;
use crate::testing::{encode, file_name};
use wale_format::Codec;

async fn follow(source: &Side, copy: &Side, backups: &[&str]) -> Result<CopyReport, OpError> {
    let options = CopyOptions {
        which: Which::Lacking(Wishes {
            backups: backups.iter().map(|text| name(text)).collect(),
            ..Wishes::default()
        }),
        present: Present::TrustedBySize,
        retry: RetryBudget::ONCE,
        ..CopyOptions::new(2)
    };
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let (source, copy) = (source.reopened(), copy.reopened());
    run(&source, &copy, &options, &progress, &cancel).await
}

#[tokio::test]
async fn the_lag_is_what_is_lacking_and_each_file_is_brought_once() {
    let (source, to) = (Side::source().await, Side::new());
    let all = WalWish::default();
    let measure = async || {
        lag(&source.archive, &to.archive, &all)
            .await
            .expect("listed")
    };
    let expected = Lag {
        segments: 9,
        oldest: Some(at(0)),
    };
    assert_eq!(measure().await, expected);
    let some = WalWish::of(|file, stored| stored == at(0) && file.to_string().ends_with("08"));
    let few = lag(&source.archive, &to.archive, &some)
        .await
        .expect("listed");
    assert_eq!(few.segments, 1);
    let report = follow(&source, &to, &[A, C]).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(measure().await, Lag::default());
    assert_eq!(to.assert_listed_is_whole().await, [A, C]);

    source.memory.set_now(at(5));
    let next = "000000020000000000000009";
    source.put(&wal(next), encode(Codec::Zstd, b"nine"));
    assert_eq!(
        measure().await,
        Lag {
            segments: 1,
            oldest: Some(at(5))
        }
    );
    for _ in 0..2 {
        let troubles = bring(&source.archive, &to.archive, &file_name(next)).await;
        assert_eq!(troubles.expect("brought"), []);
    }
    assert_eq!(measure().await, Lag::default());
    assert_eq!(to.content()[&wal(next)], source.content()[&wal(next)]);
}

#[tokio::test]
async fn other_bytes_under_the_same_name_are_told_and_stay() {
    let (source, to) = (Side::source().await, Side::new());
    follow(&source, &to, &[]).await.expect("copied");
    let next = "000000020000000000000009";
    source.put(&wal(next), encode(Codec::Zstd, b"ours"));
    to.put(&wal(next), encode(Codec::Zstd, b"of somebody else"));
    let troubles = bring(&source.archive, &to.archive, &file_name(next)).await;
    let troubles = troubles.expect("compared");
    assert_eq!(troubles.len(), 1);
    assert_eq!(
        (troubles[0].key.as_str(), troubles[0].kind),
        (wal(next).as_str(), Kind::ArchiveConflict)
    );
    assert_eq!(
        to.content()[&wal(next)],
        encode(Codec::Zstd, b"of somebody else")
    );
    // The same content under another codec is as good.
    let later = "00000002000000000000000A";
    source.put(&wal(later), encode(Codec::Zstd, b"ten"));
    to.put(&format!("wal_005/{later}.lz4"), encode(Codec::Lz4, b"ten"));
    let troubles = bring(&source.archive, &to.archive, &file_name(later)).await;
    assert_eq!(troubles.expect("compared"), []);
    assert!(!to.content().contains_key(&wal(later)));
}

/// A class of storage that is not read at once: the others come, and what needs it is not listed.
#[tokio::test]
async fn one_object_that_the_first_will_not_give_stops_nothing_else() {
    let (source, to) = (Side::source().await, Side::new());
    let lost = "000000010000000000000003";
    let denied = |plan: FaultPlan, prefix: &str| {
        plan.fail_keys(
            prefix,
            Verb::Get,
            Occurrence::Always,
            Fault::PermissionDenied,
        )
    };
    let plan = denied(FaultPlan::new(), &wal(lost));
    let part = format!("basebackups_005/{A}/tar_partitions/");
    source.faulty.set_plan(denied(plan, &part));
    let report = follow(&source, &to, &[A, B]).await.expect("copied");
    assert_eq!(to.assert_listed_is_whole().await, [B]);
    assert!(!to.content().contains_key(&wal(lost)));
    let named: Vec<_> = report.troubles.iter().map(|one| one.key.as_str()).collect();
    assert!(named.contains(&wal(lost).as_str()), "{named:?}");
    let troubles = bring(&source.archive, &to.archive, &file_name(lost)).await;
    let troubles = troubles.expect("told");
    assert_eq!(troubles[0].kind, Kind::PermissionDenied);
    assert!(troubles[0].why.contains("cannot be read at the source"));
    // Where nothing can be read, it is an outage, and nothing is said of the object.
    source.faulty.set_plan(denied(FaultPlan::new(), ""));
    let error = bring(&source.reopened(), &to.reopened(), &file_name(lost)).await;
    assert_eq!(error.expect_err("refused").kind, Kind::PermissionDenied);
    source.faulty.set_plan(FaultPlan::new());
    let report = follow(&source, &to, &[A]).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(to.assert_listed_is_whole().await, [A, B]);
}

/// Killed at every call: what is listed is whole, and the next one goes on.
#[tokio::test(start_paused = true)]
async fn a_follower_that_is_killed_anywhere_leaves_nothing_listed_half() {
    let mut calls = 0;
    loop {
        calls += 1;
        let (source, to) = (Side::source().await, Side::new());
        let from = FaultPlan::new().fail(Verb::Any, Occurrence::From(calls), Fault::Unavailable);
        to.faulty.set_plan(from);
        let outcome = follow(&source, &to, &[A, B, C]).await;
        to.faulty.set_plan(FaultPlan::new());
        to.assert_listed_is_whole().await;
        if outcome.is_ok() {
            assert!(calls > 50, "{calls} calls");
            return;
        }
        // A claim that was left behind is dead by then.
        to.memory.set_now(at(1));
        let report = follow(&source, &to, &[A, B, C]).await.expect("copied");
        assert!(report.failure().is_none(), "{report:?}");
        assert_eq!(to.assert_listed_is_whole().await, [A, B, C]);
    }
}

#[tokio::test]
async fn a_store_that_is_down_does_not_answer() {
    let side = Side::source().await;
    assert!(answers(&side.archive).await);
    side.faulty.switch().set_down(true);
    assert!(!answers(&side.archive).await);
}
