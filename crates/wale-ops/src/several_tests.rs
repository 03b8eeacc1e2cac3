//! What an archive wants of the one that it follows, and its own retention, never work against each other.

use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_archive::{Archive, ArchiveOptions, Clock};
use wale_format::{Codec, Seal};
use wale_pipeline::{CancellationToken, MemoryBudget, Progress};

use crate::archive_copy::tests::{A, B, C, Side, at, wal};
use crate::archive_copy::{self, CopyOptions, Present, WalWish, Which, Wishes, follow};
use crate::retention::{self, Act, Options, Policy, Request, WalRetention};
use crate::retry::RetryBudget;
use crate::testing::encode;

const GRACE: Duration = Duration::from_hours(24);
const D: &str = "base_000000020000000000000008_00000040";

fn opened(side: &Side, now: DateTime<Utc>) -> Archive {
    side.memory.set_now(now);
    Archive::open(ArchiveOptions {
        store: std::sync::Arc::new(side.memory.clone()),
        seal: Seal::unencrypted(Codec::Zstd),
        clock: Clock::fixed(now),
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    })
}

fn policies() -> Vec<Policy> {
    let with = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    };
    vec![
        with(|_| {}),
        with(|policy| policy.backups = Some(1)),
        with(|policy| policy.backups = Some(2)),
        with(|policy| policy.days = Some(1)),
        with(|policy| {
            policy.daily = Some(2);
            policy.wal = WalRetention::Consistent;
        }),
    ]
}

/// One round of following and of the archive's own retention. Gives what was copied, and how many objects were deleted.
async fn round(source: &Archive, copy: &Archive, policy: &Policy) -> (u64, u64) {
    let wanted = retention::wanted(source, copy, policy, GRACE, Duration::ZERO)
        .await
        .expect("decided");
    let wish = match wanted.wal {
        None => WalWish::default(),
        Some(judge) => {
            WalWish::of(move |name, stored| retention::is_wanted(judge.judge(name, stored)))
        }
    };
    let options = CopyOptions {
        which: Which::Lacking(Wishes {
            backups: wanted.backups,
            there: wanted.there,
            wal: wish.clone(),
        }),
        present: Present::TrustedBySize,
        retry: RetryBudget::ONCE,
        ..CopyOptions::new(2)
    };
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let report = archive_copy::run(source, copy, &options, &progress, &cancel)
        .await
        .expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    let lag = follow::lag(source, copy, &wish).await.expect("listed");
    assert_eq!(lag.segments, 0);
    let options = Options {
        request: Request::Policy(policy.clone()),
        act: Act::Delete,
        grace: GRACE,
        request_interval: Duration::ZERO,
    };
    let kept = retention::run(copy, &options, &mut |_| {})
        .await
        .expect("retained");
    (report.copied.objects, kept.objects)
}

#[tokio::test]
async fn what_is_copied_is_what_the_archives_own_retention_keeps() {
    for policy in policies() {
        let (first, second) = (Side::source().await, Side::new());
        for hour in [2, 30, 55] {
            if hour == 30 {
                // Time goes on: a backup more, and WAL after it. The first keeps less than the second meanwhile.
                first.memory.set_now(at(hour - 1));
                first.back_up(D, hour - 1, None);
                for number in 9..=12 {
                    let file = format!("0000000200000000{number:08X}");
                    first.put(&wal(&file), encode(Codec::Zstd, file.as_bytes()));
                }
            }
            let (source, copy) = (opened(&first, at(hour)), opened(&second, at(hour)));
            let (_, deleted) = round(&source, &copy, &policy).await;
            let again = round(&source, &copy, &policy).await;
            assert_eq!(
                again,
                (0, 0),
                "{policy:?} at {hour}, after {deleted} were deleted"
            );
            let listed = second.assert_listed_is_whole().await;
            let expected: &[&str] = match (policy.backups, policy.days, hour) {
                (Some(1), _, 2) => &[C],
                (Some(2), _, 2) => &[B, C],
                (Some(2), ..) => &[C, D],
                (Some(1), ..) | (_, Some(_), 55) => &[D],
                _ => continue,
            };
            assert_eq!(listed, expected, "{policy:?} at {hour}");
        }
        if !policy.is_set() {
            assert_eq!(second.assert_listed_is_whole().await, [A, B, C, D]);
        }
    }
}

/// WAL-E records no time: a copy's is that of its sentinel, which is a new one.
#[tokio::test]
async fn backups_without_a_recorded_time_are_not_copied_and_deleted_by_turns() {
    let with = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    };
    for policy in [
        with(|policy| policy.daily = Some(3)),
        with(|policy| policy.days = Some(1)),
        with(|policy| {
            policy.daily = Some(2);
            policy.weekly = Some(2);
        }),
    ] {
        let (first, second) = (Side::source().await, Side::new());
        for (number, hours) in [30, 60, 90].into_iter().enumerate() {
            first.memory.set_now(at(hours));
            let segment = format!("0000000200000000{:08X}", number + 9);
            first.put(&wal(&segment), encode(Codec::Zstd, segment.as_bytes()));
            let backup = format!("basebackups_005/base_{segment}_00000040");
            let part = format!("{backup}/tar_partitions/part_00000000.tar.lzo");
            first.put(&part, encode(Codec::Lzo, b"a tar file"));
            first.put(
                &format!("{backup}_backup_stop_sentinel.json"),
                format!(
                    "{{\"wal_segment_backup_stop\": \"{segment}\", \"wal_segment_offset_backup_stop\": \"00000100\", \
                     \"expanded_size_bytes\": 1, \"spec\": {{\"base_prefix\": \"/d/\", \"tablespaces\": []}}}}"
                ),
            );
        }
        let mut copied = 0;
        for hour in 100..104 {
            let (source, copy) = (opened(&first, at(hour)), opened(&second, at(hour)));
            let (objects, deleted) = round(&source, &copy, &policy).await;
            assert_eq!(deleted, 0, "{policy:?} at {hour}");
            assert!(
                hour == 100 || objects == 0,
                "{policy:?} at {hour}: {objects}"
            );
            copied += objects;
        }
        assert!(copied > 0, "{policy:?}");
        let newest = "base_00000002000000000000000B_00000040".to_owned();
        let catalog = opened(&second, at(104)).catalog().await.expect("read");
        let names: Vec<_> = catalog
            .backups
            .iter()
            .map(|one| one.name.to_string())
            .collect();
        assert!(names.contains(&newest), "{policy:?}: {names:?}");
    }
}
