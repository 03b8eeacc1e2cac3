//! What a push and a fetch of a segment allocate, counted: a change that makes either dearer fails here on every machine,
//! where seconds would depend on the machine. Requests are counted in `crates/wale/tests/it/requests.rs`.
//!
//! One test only: whatever runs beside it in this process would be counted too.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a test makes files and prints what it counted"
)]

use std::alloc::System;
use std::fs;
use std::sync::Arc;

use futures_util::TryStreamExt;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use wale_cluster::WalDirectory;
use wale_format::{Codec, Seal};
use wale_ops::wal_fetch::{Fetcher, FetcherOptions};
use wale_ops::wal_push::{PushOutcome, Pusher, PusherOptions};
use wale_ops::{Archive, ArchiveOptions, Clock};
use wale_pg::ArchiveFileName;
use wale_pipeline::MemoryBudget;
use wale_storage::MemoryStore;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SEGMENT_BYTES: usize = 16 << 20;
/// Pushed and fetched before the count begins: what a process makes once is no part of it.
const FIRST: u32 = 2;
const COUNTED_SEGMENTS: u32 = 8;

/// What one segment allocates.
#[derive(Debug)]
struct Each {
    count: usize,
    bytes: usize,
}

impl Each {
    fn of(region: &Region<'_, System>) -> Self {
        let change = region.change();
        let segments = COUNTED_SEGMENTS as usize;
        Self {
            count: (change.allocations + change.reallocations) / segments,
            bytes: change.bytes_allocated / segments,
        }
    }
}

/// PostgreSQL 15's long header, then records that compress about three times: words of a fixed generator, every third
/// one fresh.
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
        content.extend_from_slice(b"the same 16 bytes");
    }
    content.truncate(SEGMENT_BYTES);
    content
}

fn name(number: u32) -> ArchiveFileName {
    ArchiveFileName::parse(&format!("0000000100000000{number:08X}")).expect("a name")
}

async fn push(archive: &Archive) -> Each {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("archive_status")).expect("a folder");
    for number in 1..=FIRST + COUNTED_SEGMENTS {
        let path = folder.path().join(name(number).to_string());
        fs::write(path, segment(number)).expect("written");
    }
    let directory = WalDirectory::open(folder.path()).expect("a WAL directory");
    let options = PusherOptions {
        look_ahead: 0,
        ..PusherOptions::default()
    };
    let pusher = Pusher::new(archive.clone(), directory, options);
    let mut region = Region::new(COUNTED);
    for number in 1..=FIRST + COUNTED_SEGMENTS {
        if number == FIRST + 1 {
            region.reset();
        }
        let report = pusher.push(&name(number)).await.expect("stored");
        assert_eq!(report.outcome, PushOutcome::Stored);
    }
    Each::of(&region)
}

async fn fetch(archive: &Archive) -> Each {
    let options = FetcherOptions {
        prefetch: 0,
        ..FetcherOptions::default()
    };
    let fetcher = Fetcher::new(archive.clone(), options);
    let mut region = Region::new(COUNTED);
    for number in 1..=FIRST + COUNTED_SEGMENTS {
        if number == FIRST + 1 {
            region.reset();
        }
        let mut body = fetcher.fetch(&name(number)).await.expect("there").body;
        let mut bytes = 0;
        while let Some(piece) = body.try_next().await.expect("whole") {
            bytes += piece.len();
        }
        assert_eq!(bytes, SEGMENT_BYTES);
    }
    Each::of(&region)
}

#[test]
fn a_push_and_a_fetch_allocate_no_more_than_they_did() {
    let archive = Archive::open(ArchiveOptions {
        store: Arc::new(MemoryStore::new()),
        seal: Seal::unencrypted(Codec::Zstd),
        clock: Clock::System,
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(2)
        .build()
        .expect("a runtime");
    let (pushed, fetched) =
        runtime.block_on(async { (push(&archive).await, fetch(&archive).await) });
    println!("a push: {pushed:?}, a fetch: {fetched:?}");
    assert!(pushed.count <= PUSH_COUNT, "{pushed:?}");
    assert!(pushed.bytes <= PUSH_BYTES, "{pushed:?}");
    assert!(fetched.count <= FETCH_COUNT, "{fetched:?}");
    assert!(fetched.bytes <= FETCH_BYTES, "{fetched:?}");
}

const PUSH_COUNT: usize = 0;
const PUSH_BYTES: usize = 0;
const FETCH_COUNT: usize = 0;
const FETCH_BYTES: usize = 0;
