//! Segments that are pushed and fetched one by one, for what counts the cost of it.

#![expect(clippy::disallowed_methods, reason = "a test makes files")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use wale_cluster::WalDirectory;
use wale_format::{Codec, Seal};
use wale_ops::wal_fetch::{Fetcher, FetcherOptions};
use wale_ops::wal_push::{PushOutcome, Pusher, PusherOptions};
use wale_ops::{Archive, ArchiveOptions, Clock};
use wale_pg::ArchiveFileName;
use wale_pipeline::MemoryBudget;
use wale_storage::MemoryStore;

const SEGMENT_BYTES: usize = 16 << 20;

/// An archive in memory.
pub(crate) fn archive() -> Archive {
    Archive::open(ArchiveOptions {
        store: Arc::new(MemoryStore::new()),
        seal: Seal::unencrypted(Codec::Zstd),
        clock: Clock::System,
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    })
}

/// As little beside the work as can be.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(2)
        .build()
        .expect("a runtime")
}

/// PostgreSQL 15's long header, then what compresses about three times: of each 24 bytes 8 are fresh, from a fixed
/// generator.
fn segment(number: u32) -> Vec<u8> {
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    content.extend_from_slice(&0xD110_u16.to_le_bytes());
    content.extend_from_slice(&2_u16.to_le_bytes());
    content.extend_from_slice(&1_u32.to_le_bytes());
    content.extend_from_slice(&(u64::from(number) << 24).to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    content.extend_from_slice(&7_447_234_573_249_283_074_u64.to_le_bytes());
    content.extend_from_slice(&(16_u32 << 20).to_le_bytes());
    content.extend_from_slice(&8192_u32.to_le_bytes());
    let mut state = u64::from(number) + 1;
    while content.len() < SEGMENT_BYTES {
        // Knuth's multiplier for 64 bits.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        content.extend_from_slice(&state.to_le_bytes());
        content.extend_from_slice(b"sixteen bytes ok");
    }
    content.truncate(SEGMENT_BYTES);
    content
}

fn name(number: u32) -> ArchiveFileName {
    ArchiveFileName::parse(&format!("0000000100000000{number:08X}")).expect("a name")
}

/// Writes segments with the numbers 1 to `count` into a WAL directory, to be archived.
pub(crate) fn write(directory: &Path, count: u32) {
    fs::create_dir(directory.join("archive_status")).expect("a folder");
    for number in 1..=count {
        let name = name(number).to_string();
        fs::write(directory.join(&name), segment(number)).expect("written");
        let mark = directory.join(format!("archive_status/{name}.ready"));
        fs::write(mark, "").expect("written");
    }
}

/// Pushes the segments with the numbers 1 to `count`; `before` each is called.
pub(crate) async fn push(archive: &Archive, directory: &Path, count: u32, before: impl Fn(u32)) {
    let directory = WalDirectory::open(directory).expect("a WAL directory");
    let options = PusherOptions {
        look_ahead: 0,
        ..PusherOptions::default()
    };
    let pusher = Pusher::new(archive.clone(), directory, options);
    for number in 1..=count {
        before(number);
        let report = pusher.push(&name(number)).await.expect("stored");
        assert_eq!(report.outcome, PushOutcome::Stored);
    }
}

/// Fetches the segments with the numbers 1 to `count`; `before` each is called.
pub(crate) async fn fetch(archive: &Archive, count: u32, before: impl Fn(u32)) {
    let options = FetcherOptions {
        prefetch: 0,
        ..FetcherOptions::default()
    };
    let fetcher = Fetcher::new(archive.clone(), options);
    for number in 1..=count {
        before(number);
        let mut body = fetcher.fetch(&name(number)).await.expect("there").body;
        let mut bytes = 0;
        while let Some(piece) = body.try_next().await.expect("whole") {
            bytes += piece.len();
        }
        assert_eq!(bytes, SEGMENT_BYTES);
    }
}
