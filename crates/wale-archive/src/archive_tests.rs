//! Rows of the fault battery are named in the tests' names.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use wale_format::{Codec, layout};
use wale_pg::ClusterIdentity;
use wale_storage::{Fault, FaultPlan, Looking, ObjectKey, Occurrence, Store, Verb};

use crate::error::Kind;
use crate::testing::{Bench, SYSTEM_IDENTIFIER, archive, cluster, file_name, segment, segment_of};
use crate::{Archive, BackupSelector, Beginning, SentinelRecord};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

fn insert(bench: &Bench, key: &str, content: impl Into<bytes::Bytes>) {
    bench
        .memory
        .insert(&ObjectKey::new(key).expect("a key"), content);
}

fn insert_sentinel(bench: &Bench, segment: &str, content: impl Into<bytes::Bytes>) {
    let key = format!("basebackups_005/base_{segment}_00000040_backup_stop_sentinel.json");
    insert(bench, &key, content);
}

#[tokio::test]
async fn an_empty_prefix_is_claimed_once_and_remembered() {
    let bench = Bench::new();
    assert!(bench.archive.identity().await.expect("read").is_none());
    let claimed = bench
        .archive
        .ensure_identity(&cluster(SYSTEM_IDENTIFIER), &Beginning::Anew)
        .await
        .expect("claimed");
    assert_eq!(
        claimed.cluster.system_identifier.as_u64(),
        SYSTEM_IDENTIFIER
    );
    assert_eq!(claimed.codecs, [Codec::Zstd].into());
    let claims = bench.faulty.calls(Verb::PutIfAbsent);
    for _ in 0..100 {
        bench
            .archive
            .ensure_identity(&cluster(SYSTEM_IDENTIFIER), &Beginning::Anew)
            .await
            .expect("known");
        bench.archive.note_codec(Codec::Zstd).await.expect("known");
    }
    assert_eq!(bench.faulty.calls(Verb::PutIfAbsent), claims);
    assert_eq!(bench.faulty.calls(Verb::Put), 0);
    assert_eq!(bench.archive.identity().await.expect("read"), Some(claimed));
}

#[tokio::test]
async fn fault_68_an_archive_that_was_emptied_is_not_begun_anew_by_the_same_process() {
    let bench = Bench::new();
    bench.claim().await;
    let mine = cluster(SYSTEM_IDENTIFIER);
    let kept = bench.archive.read_identity().await.expect("read");
    let key = Archive::key(layout::IDENTITY).expect("a key");
    let content = bench.memory.content(&key).expect("there");
    bench.memory.delete(&key).await.expect("deleted");
    let error = bench
        .archive
        .ensure_identity(&mine, &Beginning::Anew)
        .await
        .expect_err("gone");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    assert!(error.message.contains("was there and is gone"), "{error}");
    assert!(error.hint.is_some());
    bench.archive.ensure_still_there().await.expect_err("gone");
    assert!(bench.memory.keys().is_empty(), "nothing was written");
    // It comes back.
    bench.memory.insert(&key, content);
    bench.archive.ensure_still_there().await.expect("back");
    bench
        .archive
        .ensure_identity(&mine, &Beginning::Anew)
        .await
        .expect("back");
    assert_eq!(bench.archive.read_identity().await.expect("read"), kept);
    // Another process begins anew, and the first one goes on with that.
    bench.memory.delete(&key).await.expect("deleted");
    let other = archive(Arc::new(bench.memory.clone()), Codec::Zstd, 1 << 20);
    other.ensure_still_there().await.expect("never seen");
    other
        .ensure_identity(&mine, &Beginning::Anew)
        .await
        .expect("claimed");
    bench
        .archive
        .ensure_identity(&mine, &Beginning::Anew)
        .await
        .expect("there again");
}

#[tokio::test]
async fn row_39_of_two_clusters_at_the_same_moment_one_gets_the_prefix() {
    let bench = Bench::new();
    let store = || Arc::new(bench.memory.clone());
    let (one, two) = (
        archive(store(), Codec::Zstd, 1 << 20),
        archive(store(), Codec::Zstd, 1 << 20),
    );
    let (mine, yours) = (cluster(1), cluster(2));
    let (first, second) = tokio::join!(
        one.ensure_identity(&mine, &Beginning::Anew),
        two.ensure_identity(&yours, &Beginning::Anew)
    );
    let (lucky, refused) = match (first, second) {
        (Ok(lucky), Err(refused)) | (Err(refused), Ok(lucky)) => (lucky, refused),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused.kind, Kind::ArchiveMismatch);
    assert!(refused.hint.expect("a hint").contains("prefix of its own"));
    assert_eq!(one.read_identity().await.expect("read"), Some(lucky));
}

#[tokio::test]
async fn row_39_a_loser_of_the_race_reads_the_winner() {
    let bench = Bench::new();
    // The other one appears between the look and the claim.
    let other = archive(Arc::new(bench.memory.clone()), Codec::Zstd, 1 << 20);
    other
        .ensure_identity(&cluster(1), &Beginning::Anew)
        .await
        .expect("claimed");
    bench
        .faulty
        .set_plan(FaultPlan::new().fail(Verb::Get, Occurrence::Nth(1), Fault::Unavailable));
    let error = bench
        .archive
        .ensure_identity(&cluster(1), &Beginning::Anew)
        .await
        .expect_err("no answer");
    assert_eq!(
        error.kind,
        Kind::StorageUnavailable,
        "no answer is not an empty prefix"
    );
    bench
        .archive
        .ensure_identity(&cluster(1), &Beginning::Anew)
        .await
        .expect("ours");
    let error = bench
        .archive
        .ensure_identity(&cluster(2), &Beginning::Anew)
        .await
        .expect_err("not yours");
    assert_eq!(error.kind, Kind::ArchiveMismatch);
}

#[tokio::test]
async fn a_lost_reply_to_the_claim_is_made_good() {
    let bench = Bench::with_plan(FaultPlan::new().fail(
        Verb::PutIfAbsent,
        Occurrence::Nth(1),
        Fault::LostReply,
    ));
    let error = bench
        .archive
        .ensure_identity(&cluster(1), &Beginning::Anew)
        .await
        .expect_err("no reply");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    bench
        .archive
        .ensure_identity(&cluster(1), &Beginning::Anew)
        .await
        .expect("it was ours");
}

#[tokio::test]
async fn another_segment_size_is_refused() {
    let bench = Bench::new();
    bench.claim().await;
    let wal_segment_size = wale_pg::WalSegmentSize::DEFAULT;
    let other = ClusterIdentity {
        wal_segment_size,
        ..cluster(SYSTEM_IDENTIFIER)
    };
    let error = bench
        .archive
        .ensure_identity(&other, &Beginning::Anew)
        .await
        .expect_err("16 MiB");
    assert_eq!(error.kind, Kind::ArchiveMismatch);
}

/// What lies there, WAL in order with whose it is, the sentinel, and the codecs of the identity or why there is none.
type Adoption = (
    &'static str,
    &'static [(Codec, u64)],
    Option<&'static str>,
    Result<&'static [Codec], Kind>,
);

/// As little as WAL-E says of a backup.
const OF_WAL_E: &str = r#"{"wal_segment_backup_stop":"000000010000000000000001"}"#;
const OURS: u64 = SYSTEM_IDENTIFIER;

const ADOPTIONS: [Adoption; 10] = [
    (
        "our WAL",
        &[(Codec::Lz4, OURS)],
        None,
        Ok(&[Codec::Zstd, Codec::Lz4]),
    ),
    (
        "another's WAL",
        &[(Codec::Lz4, 1)],
        None,
        Err(Kind::ArchiveMismatch),
    ),
    (
        "WAL that cannot be read",
        &[(Codec::Lzma, OURS)],
        None,
        Err(Kind::Configuration),
    ),
    (
        "old WAL that cannot be read, new that can",
        &[(Codec::Lzma, OURS), (Codec::None, OURS)],
        None,
        Ok(&[Codec::None, Codec::Zstd, Codec::Lzma]),
    ),
    (
        "WAL-E's WAL",
        &[(Codec::Lzo, OURS)],
        Some(OF_WAL_E),
        Ok(&[Codec::Zstd, Codec::Lzo]),
    ),
    (
        "another's WAL of WAL-E",
        &[(Codec::Lzo, 1)],
        Some(OF_WAL_E),
        Err(Kind::ArchiveMismatch),
    ),
    ("WAL-E's backup", &[], Some(OF_WAL_E), Ok(&[Codec::Zstd])),
    (
        "WAL that cannot be read, beside a backup that says whose it is",
        &[(Codec::Brotli, OURS)],
        Some(r#"{"LSN":1,"SystemIdentifier":7447234573249283074}"#),
        // It may be encrypted, and would be gone on with in the clear.
        Err(Kind::Configuration),
    ),
    (
        "WAL that cannot be read, beside another's backup",
        &[(Codec::Brotli, OURS)],
        Some(r#"{"LSN":1,"SystemIdentifier":7}"#),
        Err(Kind::ArchiveMismatch),
    ),
    (
        "another's backup",
        &[],
        Some(r#"{"LSN":1,"SystemIdentifier":7}"#),
        Err(Kind::ArchiveMismatch),
    ),
];

#[tokio::test]
async fn an_archive_of_another_tool_is_adopted_by_its_own_cluster_only() {
    for (what, wal, sentinel, expected) in ADOPTIONS {
        let bench = Bench::new();
        for (position, (codec, system_identifier)) in wal.iter().enumerate() {
            let name = [FIRST, SECOND][position];
            bench.store_wal(name, *codec, &segment_of(*system_identifier, name, 1));
        }
        if let Some(sentinel) = sentinel {
            insert_sentinel(&bench, FIRST, sentinel);
        }
        let result = bench
            .archive
            .ensure_identity(&cluster(OURS), &Beginning::Anew)
            .await;
        let shown = result
            .map(|i| i.codecs.into_iter().collect::<Vec<_>>())
            .map_err(|e| e.kind);
        assert_eq!(shown, expected.map(<[Codec]>::to_vec), "{what}");
        let exists = bench.archive.read_identity().await.expect("read").is_some();
        assert_eq!(exists, expected.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn wal_under_an_unknown_extension_is_no_empty_prefix() {
    let bench = Bench::new();
    insert(&bench, "wal_005/000000010000000000000001.lzo.gpg", "?");
    let error = bench
        .archive
        .ensure_identity(&cluster(SYSTEM_IDENTIFIER), &Beginning::Anew)
        .await
        .expect_err("nobody knows whose it is");
    assert_eq!(error.kind, Kind::Configuration);
    assert!(error.detail.expect("facts").contains(".lzo.gpg"));
    assert_eq!(bench.archive.read_identity().await.expect("read"), None);
}

#[tokio::test]
async fn a_damaged_or_later_identity_is_not_overwritten() {
    for (content, kind) in [
        ("{", Kind::CorruptData),
        (r#"{"format":99}"#, Kind::Configuration),
    ] {
        let bench = Bench::new();
        insert(&bench, layout::IDENTITY, content);
        let error = bench
            .archive
            .ensure_identity(&cluster(1), &Beginning::Anew)
            .await
            .expect_err("unreadable");
        assert_eq!(error.kind, kind);
        let key = ObjectKey::new(layout::IDENTITY).expect("a key");
        assert_eq!(bench.memory.content(&key).expect("there"), content);
    }
}

#[tokio::test]
async fn wal_is_found_under_any_codec_and_an_error_is_no_absence() {
    let bench = Bench::new();
    let name = file_name(FIRST);
    assert_eq!(bench.archive.find_wal(&name).await.expect("asked"), None);
    for codec in [
        Codec::Lzma,
        Codec::None,
        Codec::Lzo,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        let key = bench.store_wal(FIRST, codec, &segment(FIRST, 1));
        let found = bench
            .archive
            .find_wal(&name)
            .await
            .expect("asked")
            .expect("found");
        assert_eq!((found.codec, found.key), (codec, key));
    }
    let copies = bench.archive.find_wal_copies(&name).await.expect("asked");
    assert_eq!(copies.len(), 5);
    let silence = FaultPlan::new().fail(Verb::List, Occurrence::Always, Fault::Unavailable);
    bench.faulty.set_plan(silence);
    let listed = bench.archive.find_wal_copies(&name).await;
    let error = listed.expect_err("the listing is the question");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    bench.memory.set_looking(Looking::ByName);
    let named = bench.archive.find_wal_copies(&name).await.expect("asked");
    assert_eq!(named, copies, "in the same order");
    let questions = Codec::ALL.len() as u64;
    for nth in 1..=questions {
        bench.faulty.set_plan(FaultPlan::new().fail(
            Verb::Head,
            Occurrence::Nth(nth),
            Fault::Unavailable,
        ));
        let error = bench
            .archive
            .find_wal(&file_name(SECOND))
            .await
            .expect_err("one question is open");
        assert_eq!(error.kind, Kind::StorageUnavailable);
    }
}

fn wal_g_sentinel(finish: &str) -> String {
    format!(r#"{{"LSN":1,"FinishLSN":2,"PgVersion":150000,"FinishTime":"{finish}"}}"#)
}

#[tokio::test]
async fn defect_08_the_latest_backup_is_the_one_that_ended_last_by_its_own_record() {
    let bench = Bench::new();
    let base = |segment: &str| format!("basebackups_005/base_{segment}_00000040");
    let at = |hour: i64| DateTime::<Utc>::UNIX_EPOCH + TimeDelta::hours(hour);
    // Names, times of the store and recorded times all tell another story.
    bench.memory.set_now(at(1));
    insert_sentinel(&bench, FIRST, wal_g_sentinel("1970-01-01T09:00:00Z"));
    bench.memory.set_now(at(5));
    insert_sentinel(&bench, SECOND, wal_g_sentinel("1970-01-01T02:00:00Z"));
    bench.memory.set_now(at(20));
    insert_sentinel(&bench, "000000020000000000000009", "not JSON");
    bench.memory.set_now(at(7));
    insert_sentinel(&bench, "000000010000000000000008", "{}");
    let seven = "000000010000000000000007";
    insert_sentinel(&bench, seven, r#"{"LSN":5}"#);
    insert(
        &bench,
        &format!("{}/metadata.json", base(seven)),
        r#"{"finish_time":"1970-01-01T03:00:00Z"}"#,
    );
    // Neither a backup without sentinel nor a stranger's object counts.
    insert(
        &bench,
        &format!(
            "{}/tar_partitions/part_00000000.tar.zst",
            base("00000001000000000000000A")
        ),
        "x",
    );
    insert(&bench, "basebackups_005/readme", "x");
    let catalog = bench.archive.catalog().await.expect("read");
    let order: Vec<String> = catalog
        .backups
        .iter()
        .map(|b| b.name.segment().to_string()[22..].to_owned())
        .collect();
    assert_eq!(order, ["02", "07", "08", "01", "09"]);
    let selector = BackupSelector::Latest;
    let latest = bench.archive.choose(&catalog, &selector).await;
    let latest = latest.expect("there");
    assert_eq!(
        (
            latest.entry.name.segment().to_string().as_str(),
            latest.entry.time
        ),
        (FIRST, at(9))
    );
    let told = latest.passed_over.join("; ");
    let newest = &catalog.backups.last().expect("there").name;
    assert!(told.contains(newest.as_str()), "{told}");
    let damaged = catalog.backups.last().expect("there");
    assert!(
        matches!(&damaged.sentinel, SentinelRecord::Damaged(reason) if reason.contains("damaged"))
    );
    assert!(catalog.find(&damaged.name).is_some());
    // Proper JSON that says nothing is no record of a backup.
    let empty = &catalog.backups[2].sentinel;
    assert!(
        matches!(empty, SentinelRecord::Damaged(reason) if reason.contains("no position")),
        "{empty:?}"
    );
    bench
        .faulty
        .set_plan(FaultPlan::new().fail(Verb::Get, Occurrence::Nth(2), Fault::Unavailable));
    let error = bench.archive.catalog().await.expect_err("no answer");
    assert_eq!(error.kind, Kind::StorageUnavailable);
}
