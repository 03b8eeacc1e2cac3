//! Two writers of one archive at the same time, and an archive that changes under its writer: what few looks must still see.

use std::sync::Arc;
use std::time::Duration;

use wale_archive::LOOK_HOLDS;
use wale_cluster::WalDirectory;
use wale_format::{Codec, layout};
use wale_storage::{
    Fault, FaultPlan, FaultyStore, Looking, MemoryStore, ObjectKey, Occurrence, Store, Verb,
};

use super::*;
use crate::Archive;
use crate::error::{Kind, Result};
use crate::testing::{Bench, archive, file_name, once, segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

const ALL_LOOKINGS: [Looking; 3] = [Looking::FromAnyKey, Looking::ByPrefix, Looking::ByName];

/// A server that archives under a codec, and pauses before one of its requests.
struct Writer {
    bench: Bench,
    faulty: Arc<FaultyStore>,
    archive: Archive,
}

impl Writer {
    fn new(memory: &MemoryStore, codec: Codec, seed: u8) -> Self {
        let bench = Bench::new();
        for name in [FIRST, SECOND] {
            bench.ready(name, &segment(name, seed));
        }
        let faulty = FaultyStore::new(Arc::new(memory.clone()), FaultPlan::new());
        let faulty = Arc::new(faulty);
        let archive = archive(Arc::clone(&faulty) as Arc<dyn Store>, codec, 64 << 20);
        Self {
            bench,
            faulty,
            archive,
        }
    }

    /// Pushes, with a pause before this request.
    async fn push(&self, name: &str, nth: u64, pause: Duration) -> Result<PushReport> {
        let delay = FaultPlan::new().fail(Verb::Any, Occurrence::Nth(nth), Fault::Delay(pause));
        self.faulty.set_plan(delay);
        let wal: &WalDirectory = &self.bench.wal;
        run(&self.archive, wal, &file_name(name), &once()).await
    }
}

/// Wherever either of them stands when the other goes on.
#[tokio::test(start_paused = true)]
async fn row_40_two_contents_under_two_codecs_are_never_both_acknowledged() {
    for looking in ALL_LOOKINGS {
        let (mut refused, mut at_once) = (0, 0);
        for first in 1..=8 {
            for second in 1..=8 {
                let memory = MemoryStore::new();
                memory.set_looking(looking);
                let one = Writer::new(&memory, Codec::Zstd, 1);
                let two = Writer::new(&memory, Codec::Lz4, 2);
                let case = format!("{looking:?}: {first}, {second}");
                // They know the archive already, or one has begun it alone.
                if second % 2 == 0 {
                    one.archive.read_identity().await.expect("read");
                    one.bench.claim().await;
                }
                let (ours, theirs) = tokio::join!(
                    one.push(FIRST, first, Duration::from_millis(700)),
                    two.push(FIRST, second, Duration::from_millis(500)),
                );
                for error in [&ours, &theirs]
                    .into_iter()
                    .filter_map(|end| end.as_ref().err())
                {
                    assert_eq!(error.kind, Kind::ArchiveConflict, "{case}: {error}");
                    refused += 1;
                }
                assert!(ours.is_err() || theirs.is_err(), "{case}: both");
                at_once += u32::from(memory.keys().len() > 2);
            }
        }
        assert!(
            refused >= 64 && at_once > 0,
            "{looking:?}: {refused}, {at_once}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_somebody_else_took_out_of_the_record_is_put_back() {
    for looking in [Looking::FromAnyKey, Looking::ByPrefix] {
        let memory = MemoryStore::new();
        memory.set_looking(looking);
        let (one, two) = (
            Writer::new(&memory, Codec::Zstd, 1),
            Writer::new(&memory, Codec::Lz4, 1),
        );
        one.push(FIRST, 99, Duration::ZERO).await.expect("stored");
        let identity = Archive::key(layout::IDENTITY).expect("a key");
        let before = memory.content(&identity).expect("there");
        two.archive.note_codec(Codec::Lz4).await.expect("noted");
        memory.insert(&identity, before);
        two.push(SECOND, 99, Duration::ZERO).await.expect("stored");
        let record = one
            .archive
            .read_identity()
            .await
            .expect("read")
            .expect("there");
        assert_eq!(
            record.codecs,
            [Codec::Zstd, Codec::Lz4].into(),
            "{looking:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn fault_68_an_archive_that_is_emptied_between_two_pushes_is_noticed() {
    for looking in ALL_LOOKINGS {
        for wait in [Duration::ZERO, LOOK_HOLDS] {
            let memory = MemoryStore::new();
            memory.set_looking(looking);
            let writer = Writer::new(&memory, Codec::Zstd, 1);
            writer
                .push(FIRST, 99, Duration::ZERO)
                .await
                .expect("stored");
            let keys: Vec<ObjectKey> = memory.keys();
            for key in &keys {
                memory.remove(key);
            }
            tokio::time::advance(wait).await;
            for attempt in 0..2 {
                let error = writer
                    .push(SECOND, 99, Duration::ZERO)
                    .await
                    .expect_err("gone");
                assert_eq!(error.kind, Kind::StorageUnavailable, "{looking:?}: {error}");
                if wait == LOOK_HOLDS || looking == Looking::ByName {
                    assert!(memory.keys().is_empty(), "{looking:?}: {attempt}");
                }
            }
            // What was written before it was noticed is one object, which nobody acknowledged.
            assert!(memory.keys().len() <= 1, "{looking:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fault_39_an_archive_that_becomes_another_clusters_between_two_pushes_is_noticed() {
    for looking in ALL_LOOKINGS {
        for wait in [Duration::ZERO, LOOK_HOLDS] {
            let memory = MemoryStore::new();
            memory.set_looking(looking);
            let writer = Writer::new(&memory, Codec::Zstd, 1);
            writer
                .push(FIRST, 99, Duration::ZERO)
                .await
                .expect("stored");
            let identity = Archive::key(layout::IDENTITY).expect("a key");
            let text = String::from_utf8(memory.content(&identity).expect("there").to_vec());
            let own = crate::testing::SYSTEM_IDENTIFIER.to_string();
            let others = text.expect("text").replace(&own, "42");
            memory.insert(&identity, others);
            tokio::time::advance(wait).await;
            let error = writer
                .push(SECOND, 99, Duration::ZERO)
                .await
                .expect_err("theirs");
            assert_eq!(error.kind, Kind::ArchiveMismatch, "{looking:?}: {error}");
            if wait == LOOK_HOLDS {
                assert_eq!(memory.keys().len(), 2, "nothing was written");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pushes_that_follow_each_other_share_a_look() {
    let memory = MemoryStore::new();
    let writer = Writer::new(&memory, Codec::Zstd, 1);
    let names: Vec<String> = (1..=12)
        .map(|n| format!("0000000100000000{n:08X}"))
        .collect();
    for name in &names {
        writer.bench.ready(name, &segment(name, 1));
        writer.push(name, 99, Duration::ZERO).await.expect("stored");
    }
    let calls = |verb| writer.faulty.calls(verb);
    assert_eq!(
        calls(Verb::PutIfAbsent),
        13,
        "the identity, and each segment once"
    );
    assert_eq!(calls(Verb::Head), 0);
    assert!(calls(Verb::Get) <= 16, "{} readings", calls(Verb::Get));
    // Two of the survey that begins the archive, one before its identity is known, one for all the others.
    assert!(calls(Verb::List) <= 4, "{} listings", calls(Verb::List));
}
