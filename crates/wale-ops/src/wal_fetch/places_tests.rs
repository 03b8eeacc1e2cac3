//! Files come from another archive where the first cannot give them, and absence stays the first's to prove.

use std::sync::Arc;
use std::time::Duration;

use wale_archive::{Archive, Beginning, Disputed};
use wale_format::Codec;
use wale_pg::{ArchiveFileName, SystemIdentifier};
use wale_storage::{Fault, FaultPlan, FaultyStore, MemoryStore, Occurrence, Store, Verb};

use super::{Absence, Fetcher, FetcherOptions};
use crate::error::Kind;
use crate::testing::{self, SYSTEM_IDENTIFIER, archive, cluster, content, encode};

/// An archive in memory that can be taken down.
struct Side {
    memory: MemoryStore,
    faulty: Arc<FaultyStore>,
    archive: Archive,
}

impl Side {
    async fn new() -> Self {
        Self::of(SYSTEM_IDENTIFIER).await
    }

    async fn of(system_identifier: u64) -> Self {
        let memory = MemoryStore::new();
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new()));
        let archive = archive(Arc::clone(&faulty) as Arc<dyn Store>, Codec::Zstd, 64 << 20);
        let identity = cluster(system_identifier);
        archive
            .ensure_identity(&identity, &Beginning::Anew)
            .await
            .expect("claimed");
        Self {
            memory,
            faulty,
            archive,
        }
    }

    fn put(&self, number: u32, content: &[u8]) {
        let key = format!("wal_005/{}.zst", text(number));
        let key = Archive::key(&key).expect("a key");
        self.memory.insert(&key, content.to_vec());
    }
}

/// For how long the first is asked whose it is.
const ASK_SECONDS: u64 = 2;

fn text(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

fn segment(number: u32) -> Vec<u8> {
    testing::segment(&text(number), 1)
}

fn whole(number: u32) -> Vec<u8> {
    encode(Codec::Zstd, &segment(number))
}

fn name(number: u32) -> ArchiveFileName {
    text(number).parse().expect("a name")
}

fn fetcher(first: &Side, second: &Side) -> Fetcher {
    let options = FetcherOptions {
        deadline: Duration::from_millis(50),
        ..FetcherOptions::default()
    };
    Fetcher::of_several(
        first.archive.clone(),
        vec![(2, second.archive.clone())],
        options,
    )
}

#[tokio::test]
async fn what_is_known_to_differ_is_not_taken_in_place_of_the_first() {
    let (first, second) = (Side::new().await, Side::new().await);
    for number in 1..=2 {
        second.put(number, &whole(number));
    }
    let mut damaged = whole(2);
    damaged.truncate(damaged.len() / 2);
    first.put(2, &damaged);
    let mut note = Disputed::default();
    for number in 1..=2 {
        note.add(&format!("wal_005/{}.zst", text(number)), "has other bytes");
    }
    second.archive.note_disputed(&note).await.expect("noted");
    let both = fetcher(&first, &second);
    let file = both.fetch(&name(2)).await.expect("the first's is damaged");
    assert_eq!(content(file).await.expect("whole"), segment(2));
    first.faulty.switch().set_down(true);
    for _ in 0..2 {
        let error = both.fetch(&name(1)).await.expect_err("disputed");
        assert_eq!(error.kind, Kind::StorageUnavailable);
        let detail = error.detail.unwrap_or_default();
        assert!(detail.contains("has other bytes"), "{detail}");
    }
    let alone = Fetcher::new(second.archive.clone(), FetcherOptions::default());
    alone.fetch(&name(1)).await.expect("used alone");
}

#[tokio::test]
async fn what_the_first_cannot_give_comes_from_the_second() {
    let (first, second) = (Side::new().await, Side::new().await);
    for number in 1..=4 {
        second.put(number, &whole(number));
    }
    first.put(1, &whole(1));
    let mut damaged = whole(2);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    first.put(2, &damaged);
    let fetcher = fetcher(&first, &second);
    for number in 1..=3 {
        let file = fetcher
            .fetch(&name(number))
            .await
            .expect("one of both has it");
        assert_eq!(
            content(file).await.expect("whole"),
            segment(number),
            "{number}"
        );
    }
    first.faulty.switch().set_down(true);
    let file = fetcher.fetch(&name(4)).await.expect("the second has it");
    assert_eq!(content(file).await.expect("whole"), segment(4));
    assert_eq!(
        fetcher.fetch(&name(5)).await.expect_err("none").kind,
        Kind::StorageUnavailable
    );
    first.faulty.switch().set_down(false);
    assert_eq!(
        fetcher.fetch(&name(5)).await.expect_err("none").kind,
        Kind::NotFound
    );
    fetcher.drain().await;
}

#[tokio::test]
async fn absence_is_the_firsts_to_prove_and_another_one_may_contradict() {
    let (first, second) = (Side::new().await, Side::new().await);
    for side in [&first, &second] {
        side.put(1, &whole(1));
    }
    let fetcher = fetcher(&first, &second);
    let prove = async |number| {
        fetcher
            .prove_absent(&name(number))
            .await
            .map_err(|e| e.kind)
    };
    assert_eq!(prove(2).await, Ok(Absence::Proven));
    second.put(3, &whole(3));
    assert_eq!(
        prove(3).await,
        Err(Kind::ArchiveConflict),
        "the second has it"
    );
    second.put(5, &whole(5));
    assert_eq!(
        prove(4).await,
        Err(Kind::CorruptData),
        "a later one shows that it was written"
    );
    second.faulty.switch().set_down(true);
    assert_eq!(
        prove(4).await,
        Err(Kind::StorageUnavailable),
        "one that does not answer may have it"
    );
    first.faulty.switch().set_down(true);
    second.faulty.switch().set_down(false);
    assert_eq!(
        prove(6).await,
        Err(Kind::StorageUnavailable),
        "the first does not answer"
    );
}

/// The names are the same in every cluster's archive.
#[tokio::test]
async fn a_further_archive_of_another_cluster_gives_nothing() {
    let first = Side::new().await;
    let stranger = Side::of(SYSTEM_IDENTIFIER + 1).await;
    first.put(1, &whole(1));
    stranger.put(2, &whole(2));
    let fetcher = fetcher(&first, &stranger);
    let kind = async |number| fetcher.fetch(&name(number)).await.expect_err("none").kind;
    assert_eq!(kind(2).await, Kind::NotFound);
    let refused = fetcher.prove_absent(&name(3)).await.expect_err("a mistake");
    assert_eq!(refused.kind, Kind::ArchiveMismatch);
    first.faulty.switch().set_down(true);
    assert_eq!(kind(2).await, Kind::StorageUnavailable);
}

/// Neither the first, nor a data directory says which cluster asks: no archive is believed then.
#[tokio::test]
async fn nothing_comes_from_a_further_archive_while_nobody_knows_whose_it_is() {
    let own: SystemIdentifier = cluster(SYSTEM_IDENTIFIER).system_identifier;
    for (whose, known, is_given) in [
        (SYSTEM_IDENTIFIER, None, false),
        (SYSTEM_IDENTIFIER, Some(own), true),
        (SYSTEM_IDENTIFIER + 1, None, false),
        (SYSTEM_IDENTIFIER + 1, Some(own), false),
    ] {
        let (first, second) = (Side::new().await, Side::of(whose).await);
        second.put(1, &whole(1));
        first.faulty.switch().set_down(true);
        // As a process that has never seen the first.
        let fresh = archive(
            Arc::clone(&first.faulty) as Arc<dyn Store>,
            Codec::Zstd,
            64 << 20,
        );
        let options = FetcherOptions {
            deadline: Duration::from_millis(50),
            prefetch: 0,
            ..FetcherOptions::default()
        };
        let others = vec![(2, second.archive.clone())];
        let fetcher = Fetcher::of_several(fresh, others, options).of_cluster(known);
        for _ in 0..2 {
            match fetcher.fetch(&name(1)).await {
                Ok(file) => {
                    assert!(is_given);
                    assert_eq!(content(file).await.expect("whole"), segment(1));
                }
                Err(error) => {
                    assert!(!is_given, "{}", error.chain());
                    assert_eq!(error.kind, Kind::StorageUnavailable);
                    let detail = error.detail.unwrap_or_default();
                    let word = if known.is_some() {
                        "another cluster"
                    } else {
                        "whose it is"
                    };
                    assert!(detail.contains(word), "{detail}");
                }
            }
        }
        if known.is_some() {
            continue;
        }
        // The first says it, and is away again: it is known from then on.
        first.put(2, &whole(2));
        first.faulty.switch().set_down(false);
        let file = fetcher.fetch(&name(2)).await.expect("the first has it");
        content(file).await.expect("whole");
        first.faulty.switch().set_down(true);
        let given = fetcher.fetch(&name(1)).await;
        assert_eq!(given.is_ok(), whose == SYSTEM_IDENTIFIER);
    }
}

/// One that nobody has begun says nothing of whose its files are.
#[tokio::test]
async fn nothing_comes_from_a_further_archive_without_an_identity() {
    let (first, second) = (Side::new().await, Side::new().await);
    let key = Archive::key(wale_format::layout::IDENTITY).expect("a key");
    second.put(1, &whole(1));
    second.memory.remove(&key);
    let others = archive(
        Arc::clone(&second.faulty) as Arc<dyn Store>,
        Codec::Zstd,
        64 << 20,
    );
    let fetcher = Fetcher::of_several(
        first.archive.clone(),
        vec![(2, others)],
        FetcherOptions::default(),
    );
    let error = fetcher.fetch(&name(1)).await.expect_err("nobody's");
    assert_eq!(error.kind, Kind::NotFound);
    let detail = error.detail.unwrap_or_default();
    assert!(detail.contains("wale.json"), "{detail}");
    // It is there, and to fetch it again would not help.
    let error = fetcher.prove_absent(&name(1)).await.expect_err("there");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    let (detail, hint) = (error.detail.unwrap_or_default(), error.hint);
    assert!(detail.contains("wale.json"), "{detail}");
    assert!(hint.expect("a hint").contains("use it alone"));
}

/// A volume that was taken away leaves an empty folder behind.
#[tokio::test]
async fn a_further_archive_that_is_gone_does_not_agree_to_absence() {
    let (first, second) = (Side::new().await, Side::new().await);
    for side in [&first, &second] {
        side.put(1, &whole(1));
    }
    let fetcher = fetcher(&first, &second);
    let proven = fetcher
        .prove_absent(&name(2))
        .await
        .expect("neither has it");
    assert_eq!(proven, Absence::Proven);
    for key in [
        wale_format::layout::IDENTITY.to_owned(),
        format!("wal_005/{}.zst", text(1)),
    ] {
        second.memory.remove(&Archive::key(&key).expect("a key"));
    }
    let error = fetcher
        .prove_absent(&name(3))
        .await
        .expect_err("it is gone");
    assert_eq!(error.kind, Kind::StorageUnavailable);
    let hint = error.hint.unwrap_or_default();
    assert!(
        hint.contains("archive 2 may have been used alone"),
        "{hint}"
    );
    // One that is new, and was never filled, holds nobody up.
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let empty = archive(memory, Codec::Zstd, 64 << 20);
    let others = vec![(2, empty)];
    let fetcher = Fetcher::of_several(first.archive.clone(), others, FetcherOptions::default());
    let proven = fetcher.prove_absent(&name(3)).await.expect("proven");
    assert_eq!(proven, Absence::Proven);
}

/// Each delivered file would wait for an answer that does not come.
#[tokio::test(start_paused = true)]
async fn a_first_archive_that_does_not_say_whose_it_is_is_not_asked_with_each_file() {
    let memory = MemoryStore::new();
    let slow = FaultPlan::new().fail_keys(
        wale_format::layout::IDENTITY,
        Verb::Get,
        Occurrence::Always,
        Fault::Delay(Duration::from_secs(3)),
    );
    let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::new(memory.clone()), slow));
    let second = Side::new().await;
    for number in 1..=3 {
        let key = Archive::key(&format!("wal_005/{}.zst", text(number))).expect("a key");
        memory.insert(&key, whole(number));
    }
    let first = archive(faulty, Codec::Zstd, 64 << 20);
    let options = FetcherOptions {
        prefetch: 0,
        ..FetcherOptions::default()
    };
    let fetcher = Fetcher::of_several(first, vec![(2, second.archive.clone())], options);
    let begun = tokio::time::Instant::now();
    for number in 1..=3 {
        let file = fetcher
            .fetch(&name(number))
            .await
            .expect("the first has it");
        content(file).await.expect("whole");
    }
    // Each is read as the archive's wale.json says, and only the first file waits for its owner beside.
    assert_eq!(begun.elapsed().as_secs(), 3 * 3 + ASK_SECONDS);
}

#[tokio::test]
async fn two_contents_under_one_name_stay_an_error() {
    let (first, second) = (Side::new().await, Side::new().await);
    first.put(1, &whole(1));
    let mut other_content = segment(1);
    *other_content.last_mut().expect("bytes") ^= 1;
    let key = Archive::key(&format!("wal_005/{}.lz4", text(1))).expect("a key");
    first
        .memory
        .insert(&key, encode(Codec::Lz4, &other_content));
    second.put(1, &whole(1));
    let error = fetcher(&first, &second)
        .fetch(&name(1))
        .await
        .expect_err("disputed");
    assert_eq!(error.kind, Kind::CorruptData);
}
