//! What proves that the archive does not have a file, and what does not. Rows of the fault battery are named in the tests'
//! names.

use std::fs;

use wale_archive::Beginning;
use wale_format::{Codec, layout};
use wale_pg::ControlFile;
use wale_storage::{Fault, FaultPlan, ObjectKey, Occurrence, Store, Verb};

use super::*;
use crate::error::Kind;
use crate::testing::{Bench, SYSTEM_IDENTIFIER, cluster, file_name, segment, segment_of};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const HISTORY: &str = "1\t0/300000\tno recovery target specified\n";
/// As little as WAL-E says of a backup.
const SENTINEL: &str = r#"{"wal_segment_backup_stop":"000000010000000000000001"}"#;

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
    for end in [".lzo.gpg", "..", ".partial.age"] {
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
