//! WAL that is gone, and what else in the archive shows that it was there (rows 46 and 52).

use wale_format::{BackupName, Codec, layout};
use wale_pg::TimelineId;
use wale_storage::{ObjectKey, Store};

use super::absent::{Asker, prove_absent_for};
use crate::error::{Kind, OpError};
use crate::testing::{Bench, file_name, segment_name};

fn on(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

/// An archive with an identity and these WAL files.
async fn bench(files: &[&str]) -> Bench {
    let bench = Bench::new();
    bench.claim().await;
    for name in files {
        let content: &[u8] = match *name {
            "00000002.history" => b"1\t0/300000\tx\n",
            _ => b"not looked into",
        };
        bench.store_wal(name, Codec::Zstd, content);
    }
    bench
}

/// Lists a base backup that begins in one segment and ends in another, as WAL-E records it.
fn backup(bench: &Bench, from: &str, to: &str) {
    let name = BackupName::parse(&format!("base_{from}_00000040")).expect("a name");
    let sentinel = format!(
        r#"{{"wal_segment_backup_stop": "{to}", "wal_segment_offset_backup_stop": "00000256"}}"#
    );
    let key = ObjectKey::new(&layout::sentinel(&name)).expect("a key");
    bench.memory.insert(&key, sentinel.into_bytes());
}

fn server(timeline: u32) -> Asker {
    Asker {
        timeline: TimelineId::new(timeline),
        ..Asker::default()
    }
}

async fn verdict(bench: &Bench, name: &str, server: Asker) -> Option<OpError> {
    let name = file_name(name);
    prove_absent_for(&bench.archive, &name, server).await.err()
}

async fn check(bench: &Bench, cases: &[(String, bool)], server: Asker) {
    for (name, proven) in cases {
        let error = verdict(bench, name, server).await;
        assert_eq!(error.is_none(), *proven, "{name}: {error:?}");
        if let Some(error) = error {
            assert_eq!(error.kind, Kind::CorruptData, "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn row_46_a_base_backup_behind_shows_that_the_log_went_on() {
    let first = [&*on(1, 2), &*on(1, 3)];
    // One that began after it, a slow one that ended after it and was overtaken, and the note of one.
    let began = bench(&first).await;
    backup(&began, &on(1, 2), &on(1, 2));
    check(&began, &[(on(1, 4), true)], Asker::default()).await;
    backup(&began, &on(1, 6), &on(1, 6));
    let cases = [(on(1, 4), false), (on(1, 6), false), (on(1, 7), true)];
    check(&began, &cases, Asker::default()).await;

    let slow = bench(&first).await;
    backup(&slow, &on(1, 2), &on(1, 9));
    backup(&slow, &on(1, 3), &on(1, 3));
    let cases = [(on(1, 4), false), (on(1, 9), false), (on(1, 10), true)];
    check(&slow, &cases, Asker::default()).await;

    let note = format!("{}.00000028.backup", on(1, 6));
    let noted = bench(&[first[0], first[1], &note]).await;
    let cases = [(on(1, 4), false), (on(1, 6), false), (on(1, 7), true)];
    check(&noted, &cases, Asker::default()).await;
}

#[tokio::test]
async fn row_46_what_is_no_evidence_ends_a_recovery() {
    // A backup that is being taken, or was given up, has no sentinel: its WAL may never have been archived.
    let bench = bench(&[&on(1, 2), &on(1, 3)]).await;
    let part = format!(
        "basebackups_005/base_{}_00000040/tar_partitions/part_00000000.tar.zst",
        on(1, 6)
    );
    let part = ObjectKey::new(&part).expect("a key");
    bench.memory.insert(&part, "part");
    // WAL-E names a backup of a stopped server by the wrong digits, and asks for none of its WAL.
    let name = BackupName::parse(&format!("base_{}_00000256", on(1, 8))).expect("a name");
    let sentinel = format!(
        r#"{{"wal_segment_backup_stop": "{}", "wal_segment_offset_backup_stop": "00000256"}}"#,
        on(1, 8)
    );
    let key = ObjectKey::new(&layout::sentinel(&name)).expect("a key");
    bench.memory.insert(&key, sentinel.into_bytes());
    // Another timeline's backup, after the fork.
    bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400000\tx\n");
    backup(&bench, &on(2, 6), &on(2, 6));
    check(&bench, &[(on(1, 4), true)], Asker::default()).await;
    // Before its timeline's beginning, where a server before 14 asks for every segment.
    check(&bench, &[(on(2, 3), true), (on(2, 4), false)], server(1)).await;
}

#[tokio::test]
async fn row_46_whatever_bears_a_timelines_number_shows_that_it_existed() {
    let traces = [
        on(2, 4),
        format!("{}.partial", on(2, 4)),
        format!("{}.00000028.backup", on(2, 4)),
        // The history of timeline 2 is gone, and all of timeline 2; timeline 3 grew out of it.
        on(3, 4),
        "00000003.history".to_owned(),
        "backup".to_owned(),
    ];
    for trace in traces {
        let bench = bench(&[&on(1, 2), &on(1, 3)]).await;
        let history = "00000002.history".to_owned();
        check(&bench, &[(history.clone(), true)], server(1)).await;
        match trace.as_str() {
            "backup" => backup(&bench, &on(2, 4), &on(2, 4)),
            // The server that wrote it had lost the history of timeline 2 before.
            "00000003.history" => {
                bench.store_wal(&trace, Codec::Zstd, b"2\t0/500000\tx\n");
            }
            _ => {
                bench.store_wal(&trace, Codec::Zstd, b"");
            }
        }
        let cases = [(history, false)];
        for asker in [server(1), Asker::default()] {
            check(&bench, &cases, asker).await;
        }
        // A server that is on it already needs it for nothing.
        check(&bench, &[(cases[0].0.clone(), true)], server(2)).await;
        let error = verdict(&bench, &cases[0].0, server(1))
            .await
            .expect("it was lost");
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("00000002.history"))
        );
    }
    // Archiving began on timeline 2, whose history nobody archived: no server comes from before it.
    let began = bench(&[&on(2, 4)]).await;
    backup(&began, &on(2, 4), &on(2, 4));
    check(
        &began,
        &[("00000002.history".to_owned(), true)],
        Asker::default(),
    )
    .await;
    // But one that is seen to be on timeline 1, or might come from its backup, does.
    check(&began, &[("00000002.history".to_owned(), false)], server(1)).await;
    backup(&began, &on(1, 3), &on(1, 3));
    check(
        &began,
        &[("00000002.history".to_owned(), false)],
        Asker::default(),
    )
    .await;
}

#[tokio::test]
async fn row_46_a_timeline_without_history_may_lead_through_a_segment() {
    let bench = bench(&[&on(1, 2), &on(1, 3), &on(2, 4)]).await;
    // It was begun in segment 4 or before; segment 5 lies on a branch that it had left.
    check(&bench, &[(on(1, 4), false), (on(1, 5), true)], server(1)).await;
    bench.store_wal("00000002.history", Codec::Zstd, b"1\t0/400000\tx\n");
    check(&bench, &[(on(1, 4), true)], server(1)).await;
}

#[tokio::test]
async fn row_52_an_archive_without_any_wal_proves_nothing_where_it_must_have_some() {
    let bench = bench(&[&on(1, 2), &on(1, 3)]).await;
    let names = [on(1, 4), "00000002.history".to_owned()];
    let served = Asker {
        served: Some(segment_name(&on(1, 3))),
        ..server(1)
    };
    for name in &names {
        assert!(verdict(&bench, name, served).await.is_none(), "{name}");
    }
    // Only what was delivered last is gone, so more may be.
    let remove = |name: String| {
        let key = ObjectKey::new(&layout::wal(&file_name(&name), Codec::Zstd)).expect("a key");
        let memory = bench.memory.clone();
        async move { memory.delete(&key).await.expect("deleted") }
    };
    remove(on(1, 3)).await;
    let error = verdict(&bench, &names[0], served).await.expect("gone");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    assert!(verdict(&bench, &names[0], server(1)).await.is_none());
    remove(on(1, 2)).await;
    for (name, asker, proven) in [
        (&names[0], served, false),
        (&names[1], served, false),
        // Nothing says that there was any: an archive that nobody has written to, or backups of stopped servers.
        (&names[0], server(1), true),
        (&names[1], server(1), true),
    ] {
        let error = verdict(&bench, name, asker).await;
        assert_eq!(error.is_none(), proven, "{name}: {error:?}");
    }
    backup(&bench, &on(1, 2), &on(1, 2));
    for name in &names {
        let error = verdict(&bench, name, server(1)).await.expect("emptied");
        assert_eq!(error.kind, Kind::StorageUnavailable, "{name}");
    }
}
