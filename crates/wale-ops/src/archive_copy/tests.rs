//! A source with two timelines and three backups is copied: at once, over failures of every call, and while it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use wale_archive::claim::{Claim, Purpose, Taken};
use wale_archive::{Archive, BackupSelector, Beginning, CheckDepth};
use wale_format::{
    BackupName, Codec, PartitionRecord, Sentinel, SentinelOrigin, WaleSentinel, layout,
};
use wale_pg::{Lsn, MajorVersion, SystemIdentifier, WalSegmentSize};
use wale_pipeline::{CancellationToken, Progress};
use wale_storage::{
    Fault, FaultPlan, FaultyStore, MemoryStore, ObjectKey, Occurrence, Store, Verb,
};

use super::{BackupFate, CopyMode, CopyOptions, CopyReport, Present, Which, run};
use crate::error::{Kind, OpError};
use crate::retry::RetryBudget;
use crate::testing::{SYSTEM_IDENTIFIER, archive, cluster, encode, segment_name};

pub(crate) const A: &str = "base_000000010000000000000002_00000040";
pub(crate) const B: &str = "base_000000010000000000000004_00000040";
pub(crate) const C: &str = "base_000000020000000000000006_00000040";
const WAL: [&str; 12] = [
    "000000010000000000000001",
    "000000010000000000000002",
    "000000010000000000000002.00000028.backup",
    "000000010000000000000003",
    "000000010000000000000004",
    "000000010000000000000005",
    "000000010000000000000006.partial",
    "00000002.history",
    "000000020000000000000005",
    "000000020000000000000006",
    "000000020000000000000007",
    "000000020000000000000008",
];
/// Not part of a copy.
const LEFT: [&str; 6] = [
    "wale_slot.json",
    "note.txt",
    "wal_005/note.txt",
    "basebackups_005/note",
    "basebackups_005/base_000000020000000000000007_00000040/wale_attempt.json",
    "basebackups_005/base_000000020000000000000007_00000040/tar_partitions/part_00000000.tar.zst",
];

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

pub(crate) fn name(text: &str) -> BackupName {
    BackupName::parse(text).expect("a name")
}

pub(crate) fn at(hours: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(10_000) + TimeDelta::hours(hours)
}

pub(crate) fn wal(file: &str) -> String {
    format!("wal_005/{file}.zst")
}

fn part(backup: &str, number: u32) -> String {
    layout::partition(&name(backup), number, Codec::Zstd)
}

/// One store with what it holds.
pub(crate) struct Side {
    pub(crate) memory: MemoryStore,
    pub(crate) faulty: Arc<FaultyStore>,
    pub(crate) archive: Archive,
}

impl Side {
    pub(crate) fn new() -> Self {
        let memory = MemoryStore::new();
        memory.set_now(at(0));
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()));
        let store = Arc::clone(&faulty) as Arc<dyn Store>;
        Self {
            archive: archive(store, Codec::Zstd, 64 << 20),
            memory,
            faulty,
        }
    }

    /// The same store, as a new process opens it.
    pub(crate) fn reopened(&self) -> Archive {
        let store = Arc::clone(&self.faulty) as Arc<dyn Store>;
        archive(store, Codec::Zstd, 64 << 20)
    }

    pub(crate) async fn source() -> Self {
        let side = Self::new();
        side.archive
            .ensure_identity(&cluster(SYSTEM_IDENTIFIER), &Beginning::Anew)
            .await
            .expect("claimed");
        for file in WAL {
            let text = match file {
                "00000002.history" => "1\t0/500100\tno recovery target specified\n".to_owned(),
                file => format!("what {file} holds"),
            };
            side.put(&wal(file), encode(Codec::Zstd, text.as_bytes()));
        }
        for (number, backup) in [A, B, C].into_iter().enumerate() {
            side.back_up(backup, i64::try_from(number).expect("small"), None);
        }
        for key in LEFT {
            side.put(key, "x");
        }
        side
    }

    pub(crate) fn put(&self, text: &str, content: impl Into<bytes::Bytes>) {
        self.memory.insert(&key(text), content);
    }

    fn remove(&self, text: &str) {
        let key = key(text);
        let delete = self.memory.delete(&key);
        futures_util::FutureExt::now_or_never(delete)
            .expect("at once")
            .expect("deleted");
    }

    /// A committed backup that begins and ends in its segment.
    pub(crate) fn back_up(&self, backup: &str, hour: i64, parent: Option<&str>) {
        let backup = name(backup);
        let segment = backup.segment();
        let size = WalSegmentSize::MIN;
        let start = segment.start_lsn(size).expect("of this size").as_u64();
        let stored = |number| encode(Codec::Zstd, format!("part {number} of {backup}").as_bytes());
        let partition = |number| PartitionRecord {
            number,
            members: 1,
            bytes_plain: 9,
            bytes_stored: stored(number).len() as u64,
        };
        let record = WaleSentinel {
            format_version: WaleSentinel::FORMAT,
            wale_version: "test".to_owned(),
            backup_label: String::new(),
            start_lsn: Lsn::new(start + 40),
            stop_lsn: Lsn::new(start + 4096),
            start_timeline: segment.timeline(),
            stop_timeline: segment.timeline(),
            start_time: at(hour),
            stop_time: at(hour),
            system_identifier: SystemIdentifier::new(SYSTEM_IDENTIFIER),
            major: MajorVersion::parse("15").expect("a major"),
            wal_segment_size: size.bytes(),
            data_checksums: false,
            codec: Codec::Zstd,
            partitions: vec![partition(0), partition(1)],
            tablespaces: Vec::new(),
            manifest_sha256: None,
            settings: BTreeMap::new(),
            extensions: BTreeMap::new(),
            timescaledb: BTreeMap::new(),
            damaged_pages: Vec::new(),
            files: 0,
            bytes: 0,
            from_standby: false,
            holds_its_wal: false,
            requested_over_http: false,
            pg_wal_link: None,
            configuration: None,
        };
        let origin = SentinelOrigin {
            server_version_num: 150_000,
            hostname: "h".to_owned(),
            data_directory: "/data".to_owned(),
            has_file_list: false,
        };
        let mut sentinel = Sentinel::new(record, &origin).expect("a sentinel");
        sentinel.delta_from = parent.map(str::to_owned);
        for number in [0, 1] {
            self.put(
                &layout::partition(&backup, number, Codec::Zstd),
                stored(number),
            );
        }
        self.put(&layout::manifest(&backup), "manifest");
        self.put(
            &layout::metadata(&backup),
            r#"{"is_permanent":false,"hostname":"h"}"#,
        );
        self.put(&layout::sentinel(&backup), sentinel.to_json());
    }

    pub(crate) fn content(&self) -> BTreeMap<String, bytes::Bytes> {
        let keys = self.memory.keys().into_iter();
        keys.map(|key| (key.to_string(), self.memory.content(&key).expect("there")))
            .collect()
    }

    /// What a copy of everything holds.
    fn expected(&self) -> BTreeMap<String, bytes::Bytes> {
        let mut content = self.content();
        content.retain(|key, _| !LEFT.contains(&key.as_str()));
        content
    }

    /// What is listed is whole.
    pub(crate) async fn assert_listed_is_whole(&self) -> Vec<String> {
        let archive = archive(Arc::new(self.memory.clone()), Codec::Zstd, 64 << 20);
        let catalog = archive.catalog().await.expect("read");
        for entry in &catalog.backups {
            let flaw = archive
                .look_at(&catalog, entry, CheckDepth::Whole)
                .await
                .expect("looked");
            assert_eq!(flaw, None, "{}", entry.name);
        }
        let names = catalog.backups.iter().map(|entry| entry.name.to_string());
        names.collect()
    }
}

fn options() -> CopyOptions {
    CopyOptions {
        retry: RetryBudget::ONCE,
        ..CopyOptions::new(3)
    }
}

async fn copy_as(source: &Side, copy: &Side, options: &CopyOptions) -> Result<CopyReport, OpError> {
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let report = run(
        &source.reopened(),
        &copy.reopened(),
        options,
        &progress,
        &cancel,
    )
    .await?;
    let now = progress.snapshot();
    if options.act == CopyMode::Copy && report.failure().is_none() && report.vanished == 0 {
        assert!(
            now.total_bytes.is_some_and(|total| now.done_bytes >= total),
            "{now:?}"
        );
    }
    Ok(report)
}

async fn copy(source: &Side, to: &Side) -> Result<CopyReport, OpError> {
    copy_as(source, to, &options()).await
}

fn fate<'a>(report: &'a CopyReport, backup: &str) -> &'a BackupFate {
    let of_name = |line: &&super::BackupLine| line.name.as_str() == backup;
    &report.backups.iter().find(of_name).expect("told").fate
}

fn is_left(report: &CopyReport, backup: &str) -> bool {
    matches!(fate(report, backup), BackupFate::Left { .. })
}

#[tokio::test]
async fn everything_is_copied_once_and_byte_for_byte() {
    let (source, to) = (Side::source().await, Side::new());
    let shown = CopyOptions {
        act: CopyMode::Show,
        ..options()
    };
    let plan = copy_as(&source, &to, &shown).await.expect("planned");
    assert!(to.content().is_empty());
    let written = |side: &Side| {
        let verbs = [Verb::Put, Verb::PutIfAbsent, Verb::Delete];
        verbs.map(|verb| side.faulty.calls(verb))
    };
    let before = written(&source);
    let report = copy(&source, &to).await.expect("copied");
    assert_eq!(written(&source), before, "the source is only read");
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(to.content(), source.expected());
    // All but wale.json, which is there first.
    assert_eq!(report.copied.objects, source.expected().len() as u64 - 1);
    assert_eq!(plan.copied, report.copied);
    assert_eq!((report.wal.objects, report.there.objects), (12, 0));
    assert_eq!((report.unfinished, report.strange), (1, 2));
    assert_eq!(to.assert_listed_is_whole().await, [A, B, C]);
    // Again: everything is read and compared, nothing is put but the object of a moment.
    let puts = to.faulty.calls(Verb::PutIfAbsent);
    let again = copy(&source, &to).await.expect("copied");
    assert!(again.failure().is_none());
    assert_eq!((again.copied.objects, again.there), (0, report.copied));
    assert_eq!(to.faulty.calls(Verb::PutIfAbsent), puts);
    assert_eq!(fate(&again, A), &BackupFate::WasThere);
    // And once more without reading what has its size.
    let gets = source.faulty.calls(Verb::Get);
    let trusting = CopyOptions {
        present: Present::TrustedBySize,
        ..options()
    };
    let trusted = copy_as(&source, &to, &trusting).await.expect("copied");
    assert_eq!(trusted.there, report.copied);
    let read = source.faulty.calls(Verb::Get) - gets;
    assert!(read < 30, "{read} objects were read");
    assert_eq!(to.content(), source.expected());
}

/// Killed at every call of either store: what is listed is whole, and the next run ends as if nothing had been.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_killed_anywhere_leaves_what_can_be_restored_and_is_taken_up() {
    for side_fails in ["source", "copy"] {
        let mut calls = 0;
        loop {
            calls += 1;
            let (source, to) = (Side::source().await, Side::new());
            let failing = if side_fails == "source" { &source } else { &to };
            let from =
                FaultPlan::new().fail(Verb::Any, Occurrence::From(calls), Fault::Unavailable);
            failing.faulty.set_plan(from);
            let outcome = copy(&source, &to).await;
            failing.faulty.set_plan(FaultPlan::new());
            to.assert_listed_is_whole().await;
            let Err(error) = outcome else {
                assert!(calls > 50, "{calls} calls");
                break;
            };
            assert_eq!(error.kind, Kind::StorageUnavailable, "{}", error.chain());
            // A claim that was left behind is dead by then.
            to.memory.set_now(at(1));
            let report = copy(&source, &to).await.expect("copied");
            assert!(
                report.failure().is_none(),
                "{side_fails} {calls}: {report:?}"
            );
            // Beside a sentinel a claim means nothing: that run was killed before it gave it back.
            let mut found = to.content();
            found.retain(|key, _| !key.ends_with("wale_attempt.json"));
            assert_eq!(found, source.expected(), "{side_fails} {calls}");
        }
    }
}

/// One lost answer, wherever it is lost, is survived within one run.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_survived() {
    for verb in [Verb::PutIfAbsent, Verb::Get] {
        for nth in 2..30 {
            let (source, to) = (Side::source().await, Side::new());
            let plan = FaultPlan::new().fail(verb, Occurrence::Nth(nth), Fault::LostReply);
            to.faulty.set_plan(plan);
            let store = wale_storage::RetryStore::new(
                Arc::clone(&to.faulty) as Arc<dyn Store>,
                wale_storage::RetryPolicy::default(),
            );
            let copy = archive(Arc::new(store), Codec::Zstd, 64 << 20);
            let options = CopyOptions::new(3);
            let (progress, cancel) = (Progress::new(), CancellationToken::new());
            let report = run(&source.archive, &copy, &options, &progress, &cancel).await;
            let report = report.unwrap_or_else(|error| panic!("{verb:?} {nth}: {}", error.chain()));
            assert!(report.failure().is_none(), "{verb:?} {nth}: {report:?}");
            assert_eq!(to.content(), source.expected(), "{verb:?} {nth}");
        }
    }
}

#[tokio::test]
async fn other_bytes_at_the_destination_are_found_and_left_alone() {
    for (found, bytes) in [(wal(WAL[4]), &b"other"[..]), (part(B, 1), b"x")] {
        let (source, to) = (Side::source().await, Side::new());
        let same_size = {
            let size = source.memory.content(&key(&found)).expect("there").len();
            vec![7; size]
        };
        for content in [bytes.to_vec(), same_size] {
            to.put(&found, content.clone());
            // The WAL shows no cluster, so the destination must be known to be a copy.
            to.put("wale.json", source.content()["wale.json"].clone());
            let report = copy(&source, &to).await.expect("told");
            let error = report.failure().expect("not complete");
            assert_eq!(error.kind, Kind::ArchiveConflict, "{error:?}");
            assert!(error.detail.expect("named").contains(&found));
            assert_eq!(to.content()[&found], content, "not overwritten");
            assert!(is_left(&report, B), "{report:?}");
            assert_eq!(fate(&report, C), &BackupFate::Copied, "it needs none of it");
            let listed = to.assert_listed_is_whole().await;
            assert!(!listed.contains(&B.to_owned()));
            to.remove(&layout::sentinel(&name(C)));
            if !found.starts_with("wal_005/") {
                to.remove(&layout::sentinel(&name(A)));
            }
        }
        to.remove(&found);
        let report = copy(&source, &to).await.expect("copied");
        assert!(report.failure().is_none(), "{report:?}");
        assert_eq!(to.content(), source.expected());
    }
}

#[tokio::test]
async fn what_the_destination_garbles_is_no_copy() {
    for (garbled, fault) in [
        (part(B, 0), Fault::CorruptByte(5)),
        (wal(WAL[4]), Fault::CorruptByte(9)),
        (part(B, 0), Fault::Truncate(3)),
        (layout::sentinel(&name(B)), Fault::CorruptByte(30)),
    ] {
        let (source, to) = (Side::source().await, Side::new());
        let plan =
            FaultPlan::new().fail_keys(&garbled, Verb::PutIfAbsent, Occurrence::Nth(1), fault);
        to.faulty.set_plan(plan);
        let report = copy(&source, &to).await.expect("told");
        let error = report.failure().expect("not complete");
        assert_eq!(error.kind, Kind::CorruptData, "{garbled}: {error:?}");
        assert!(is_left(&report, B));
        // It was garbled on its way in: the next run finds it again, until somebody deletes it.
        to.faulty.set_plan(FaultPlan::new());
        let report = copy(&source, &to).await.expect("told");
        assert_eq!(report.failure().expect("still").kind, Kind::ArchiveConflict);
        to.remove(&garbled);
        let report = copy(&source, &to).await.expect("copied");
        assert!(report.failure().is_none(), "{garbled}: {report:?}");
        assert_eq!(to.content(), source.expected());
    }
}

#[tokio::test]
async fn what_is_garbled_once_on_its_way_back_is_read_again() {
    let (source, to) = (Side::source().await, Side::new());
    let garbled = part(A, 0);
    let plan = FaultPlan::new().fail_keys(
        &garbled,
        Verb::Get,
        Occurrence::Nth(1),
        Fault::CorruptByte(5),
    );
    to.faulty.set_plan(plan);
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
}

#[tokio::test]
async fn what_the_source_cuts_short_never_appears() {
    let (source, to) = (Side::source().await, Side::new());
    let cut = part(A, 1);
    let plan = FaultPlan::new().fail_keys(&cut, Verb::Get, Occurrence::Always, Fault::Truncate(4));
    source.faulty.set_plan(plan);
    let report = copy(&source, &to).await.expect("told");
    assert_eq!(
        report.failure().expect("not complete").kind,
        Kind::CorruptData
    );
    assert!(!to.content().contains_key(&cut));
    assert!(is_left(&report, A));
}

#[tokio::test]
async fn a_damaged_backup_is_not_listed_in_the_copy_and_the_others_are() {
    for lost in [part(A, 1), layout::manifest(&name(A)), wal(WAL[1])] {
        let (source, to) = (Side::source().await, Side::new());
        source.remove(&lost);
        let report = copy(&source, &to).await.expect("told");
        let error = report.failure().expect("not complete");
        assert_eq!(error.kind, Kind::CorruptData, "{lost}");
        assert!(is_left(&report, A), "{report:?}");
        assert_eq!(to.assert_listed_is_whole().await, [B, C]);
        let chosen = [B, C].map(|backup| BackupSelector::Name(name(backup)));
        let options = CopyOptions {
            which: Which::These(chosen.into()),
            ..options()
        };
        let report = copy_as(&source, &to, &options).await.expect("copied");
        assert!(report.failure().is_none(), "{report:?}");
    }
}

/// Retention deletes a backup and its WAL at the source while the WAL is copied.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_at_the_source_meanwhile_is_left_out() {
    let (source, to) = (Side::source().await, Side::new());
    let slow = FaultPlan::new().fail_keys(
        &wal(WAL[0]),
        Verb::PutIfAbsent,
        Occurrence::Always,
        Fault::Delay(Duration::from_secs(100)),
    );
    to.faulty.set_plan(slow);
    let expire = async {
        tokio::time::sleep(Duration::from_secs(50)).await;
        source.remove(&layout::sentinel(&name(A)));
        for number in [0, 1] {
            source.remove(&part(A, number));
        }
        source.remove(&wal(WAL[1]));
        source.remove(&wal(WAL[3]));
    };
    let options = CopyOptions {
        workers: 1,
        ..options()
    };
    let (report, ()) = tokio::join!(copy_as(&source, &to, &options), expire);
    let report = report.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    assert!(
        matches!(fate(&report, A), BackupFate::Gone(_)),
        "{report:?}"
    );
    assert_eq!(to.assert_listed_is_whole().await, [B, C]);
    // A backup that is gone is no part of the next one.
    let report = copy(&source, &to).await.expect("copied");
    assert_eq!(report.backups.len(), 2);
}

/// Rights to delete at the destination are not needed: what would be taken away stays, and means nothing.
#[tokio::test]
async fn a_destination_that_lets_nothing_be_deleted_will_do() {
    let (source, to) = (Side::source().await, Side::new());
    let plan = FaultPlan::new().fail(Verb::Delete, Occurrence::Always, Fault::PermissionDenied);
    to.faulty.set_plan(plan);
    for _ in 0..2 {
        let report = copy(&source, &to).await.expect("copied");
        assert!(report.failure().is_none(), "{report:?}");
        assert_eq!(to.assert_listed_is_whole().await, [A, B, C]);
    }
    let mut found = to.content();
    found.retain(|key, _| !key.ends_with("wale_attempt.json") && key != layout::CLOCK);
    assert_eq!(found, source.expected());
}

/// Segments 3 and 4 are stored while the source is listed, which shows the second alone.
#[tokio::test]
async fn a_hole_that_only_a_listing_has_is_filled() {
    let (source, to) = (Side::source().await, Side::new());
    // The listings before it: the histories, and the sum of all.
    let hidden = Fault::OmitFromList(wal(WAL[3]));
    let plan = FaultPlan::new().fail_keys("wal_005/", Verb::List, Occurrence::Nth(3), hidden);
    source.faulty.set_plan(plan);
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    assert_eq!(to.content(), source.expected());
}

#[tokio::test]
async fn another_clusters_place_and_the_own_one_are_refused() {
    let (source, to) = (Side::source().await, Side::new());
    to.archive
        .ensure_identity(&cluster(SYSTEM_IDENTIFIER + 1), &Beginning::Anew)
        .await
        .expect("claimed");
    let before = to.content();
    for act in [CopyMode::Copy, CopyMode::Show] {
        let error = copy_as(&source, &to, &CopyOptions { act, ..options() }).await;
        assert_eq!(error.expect_err("refused").kind, Kind::ArchiveMismatch);
        assert_eq!(to.content(), before);
    }
    let before = source.content();
    let error = copy(&source, &source).await.expect_err("one place");
    assert_eq!(error.kind, Kind::Usage, "{}", error.chain());
    assert_eq!(source.content(), before);
    // Without any identity nothing shows whose they are: what is there must be the source's.
    let (source, to) = (Side::source().await, Side::new());
    for side in [&source, &to] {
        side.put("wal_005/000000010000000000000009.gpg", "secret");
    }
    source.remove("wale.json");
    for backup in [A, B, C] {
        source.remove(&layout::sentinel(&name(backup)));
    }
    copy(&source, &to).await.expect("copied");
    to.put("wal_005/00000001000000000000000A.gpg", "secret");
    let error = copy(&source, &to).await.expect_err("whose is it?");
    assert_eq!(error.kind, Kind::ArchiveMismatch, "{}", error.chain());
}

#[tokio::test]
async fn a_chosen_backup_comes_with_its_wal_and_nothing_else() {
    let (source, to) = (Side::source().await, Side::new());
    let which = Which::These(vec![BackupSelector::Latest]);
    let report = copy_as(&source, &to, &CopyOptions { which, ..options() }).await;
    assert!(report.expect("copied").failure().is_none());
    let has = |file: &str| to.content().contains_key(&wal(file));
    let copied: Vec<&str> = WAL.into_iter().filter(|file| has(file)).collect();
    assert_eq!(copied, [WAL[7], WAL[9], WAL[10], WAL[11]]);
    assert_eq!(to.assert_listed_is_whole().await, [C]);
    let which = Which::These(vec![BackupSelector::Name(name(&A.replace("02_", "09_")))]);
    let error = copy_as(&source, &to, &CopyOptions { which, ..options() }).await;
    assert_eq!(error.expect_err("unknown").kind, Kind::NotFound);
    // The others follow.
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none());
    assert_eq!(to.content(), source.expected());
}

#[tokio::test]
async fn a_delta_asks_for_its_parents_and_is_nothing_without_them() {
    const D: &str = "base_000000020000000000000007_D_000000020000000000000006";
    let (source, to) = (Side::source().await, Side::new());
    for key in LEFT.iter().filter(|key| key.contains("/base_")) {
        source.remove(key);
    }
    source.back_up(D, 9, Some(C));
    let which = Which::These(vec![BackupSelector::Name(name(D))]);
    let options = CopyOptions { which, ..options() };
    source.remove(&part(C, 0));
    let report = copy_as(&source, &to, &options).await.expect("told");
    let names: Vec<_> = report
        .backups
        .iter()
        .map(|line| line.name.as_str())
        .collect();
    assert_eq!(names, [C, D]);
    assert!(is_left(&report, C) && is_left(&report, D), "{report:?}");
    assert_eq!(report.listed(), 0);
    assert!(!to.content().contains_key(&layout::sentinel(&name(D))));
}

#[tokio::test]
async fn marks_may_differ_and_are_left_alone() {
    let (source, to) = (Side::source().await, Side::new());
    copy(&source, &to).await.expect("copied");
    let metadata = layout::metadata(&name(A));
    let marked = json!({"hostname": "h", "is_permanent": true}).to_string();
    source.put(&metadata, marked.clone());
    let before = to.content();
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    let note = report.backups[0].note.as_deref().expect("a note");
    assert!(note.contains("marked to be kept in the source"), "{note}");
    assert_eq!(to.content(), before);
    source.put(&metadata, marked.replace("\"h\"", "\"i\""));
    let report = copy(&source, &to).await.expect("told");
    assert_eq!(
        report.failure().expect("a conflict").kind,
        Kind::ArchiveConflict
    );
}

#[tokio::test]
async fn the_identity_of_a_copy_learns_what_the_source_has_learned() {
    let (source, to) = (Side::source().await, Side::new());
    copy(&source, &to).await.expect("copied");
    source.archive.identity().await.expect("read");
    source.archive.note_codec(Codec::Lz4).await.expect("noted");
    copy(&source, &to).await.expect("copied");
    assert_eq!(to.content()["wale.json"], source.content()["wale.json"]);
}

#[tokio::test]
async fn the_same_file_under_another_codec_is_compared_by_what_it_holds() {
    let (source, to) = (Side::source().await, Side::new());
    copy(&source, &to).await.expect("copied");
    let (own, other) = (wal(WAL[11]), format!("wal_005/{}.lz4", WAL[11]));
    to.remove(&own);
    let plain = format!("what {} holds", WAL[11]);
    to.put(&other, encode(Codec::Lz4, plain.as_bytes()));
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none(), "{report:?}");
    assert!(!to.content().contains_key(&own));
    to.put(&other, encode(Codec::Lz4, b"what it does not hold"));
    let report = copy(&source, &to).await.expect("told");
    assert_eq!(
        report.failure().expect("a conflict").kind,
        Kind::ArchiveConflict
    );
    assert!(!to.content().contains_key(&own));
}

/// A claim that is refreshed is somebody's who works; one that is not is waited for until it is dead.
#[tokio::test(start_paused = true)]
async fn claims_at_the_destination_are_respected_and_outlived() {
    let (source, to) = (Side::source().await, Side::new());
    let taken = Claim::take(&to.archive, &layout::attempt(&name(B)), Purpose::Write).await;
    let Ok(Taken::Ours { claim, .. }) = taken else {
        panic!("the name is free")
    };
    let alive = async {
        for minute in 1..30 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            to.memory.set_now(at(0) + TimeDelta::minutes(minute));
            claim.refresh().await.expect("ours");
        }
    };
    let report = tokio::select! {
        report = copy(&source, &to) => report.expect("told"),
        () = alive => panic!("it does not wait for the living"),
    };
    assert_eq!(report.failure().expect("busy").kind, Kind::Busy);
    assert_eq!(to.assert_listed_is_whole().await, [A, C]);
    let time_passes = async {
        for minute in 30..60 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            to.memory.set_now(at(0) + TimeDelta::minutes(minute));
        }
    };
    let (report, ()) = tokio::join!(copy(&source, &to), time_passes);
    assert!(report.expect("copied").failure().is_none());
    assert_eq!(to.content(), source.expected());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_copy_gives_its_claim_back() {
    let (source, to) = (Side::source().await, Side::new());
    let slow = Fault::Delay(Duration::from_secs(100));
    let plan = FaultPlan::new().fail_keys(&part(B, 0), Verb::PutIfAbsent, Occurrence::Always, slow);
    to.faulty.set_plan(plan);
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let stop = async {
        tokio::time::sleep(Duration::from_secs(50)).await;
        cancel.cancel();
    };
    let options = options();
    let copied = run(&source.archive, &to.archive, &options, &progress, &cancel);
    let (outcome, ()) = tokio::join!(copied, stop);
    assert_eq!(outcome.expect_err("cancelled").kind, Kind::Cancelled);
    assert!(!to.content().contains_key(&layout::attempt(&name(B))));
    assert_eq!(to.assert_listed_is_whole().await, [A]);
    to.faulty.set_plan(FaultPlan::new());
    let report = copy(&source, &to).await.expect("copied");
    assert!(report.failure().is_none());
    assert_eq!(to.content(), source.expected());
}

/// What retention takes for the age of a backup is what its record says, also in the copy: WAL that only an older backup
/// needs goes with it.
#[tokio::test]
async fn retention_works_on_a_copy() {
    use crate::retention;
    let (source, to) = (Side::source().await, Side::new());
    copy(&source, &to).await.expect("copied");
    let options = retention::Options {
        request: retention::Request::Retain(1),
        act: retention::Act::Delete,
        grace: Duration::from_hours(24),
        request_interval: retention::DEFAULT_REQUEST_INTERVAL,
    };
    to.memory.set_now(at(72));
    retention::run(&to.reopened(), &options, &mut |_| {})
        .await
        .expect("deleted");
    assert_eq!(to.assert_listed_is_whole().await, [C]);
    let content = to.content();
    assert!(!content.contains_key(&wal(WAL[1])), "{:?}", content.keys());
    assert!(content.contains_key(&wal(WAL[10])));
    let segment = segment_name(WAL[9]);
    assert_eq!(segment, name(C).segment());
}
