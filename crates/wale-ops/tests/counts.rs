//! What a push and a fetch of a segment allocate, counted: a change that makes either dearer fails here on every machine,
//! where seconds would depend on the machine. Instructions are counted in `instructions.rs`, requests in
//! `crates/wale/tests/it/requests.rs`.
//!
//! One test only: whatever runs beside it in this process would be counted too.

#![expect(clippy::disallowed_macros, reason = "a test prints what it counted")]

mod segments;

use std::alloc::System;
use std::cell::RefCell;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use wale_ops::Archive;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pushed and fetched before the count begins: what a process makes once is no part of it.
const FIRST: u32 = 2;
const COUNTED_SEGMENTS: u32 = 8;

/// Counted: 105 to 112, by how reading and compressing take turns. A third more is allowed.
const PUSH_COUNT: usize = 150;
/// Counted: 9.8 to 10.6 MB. The stored third of a segment is there twice, as chunks and in the store in memory; plain bytes are read
/// into memory that is kept. A copy of the plain bytes would add 16.8 MB.
const PUSH_BYTES: usize = 14_000_000;
/// Counted: 40.
const FETCH_COUNT: usize = 60;
/// Counted: 16.9 MB, the plain segment once. A second copy would make 33.7.
const FETCH_BYTES: usize = 20_000_000;

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

async fn push(archive: &Archive) -> Each {
    let directory = TempDir::new().expect("a folder");
    segments::write(directory.path(), FIRST + COUNTED_SEGMENTS);
    let region = RefCell::new(Region::new(COUNTED));
    segments::push(
        archive,
        directory.path(),
        FIRST + COUNTED_SEGMENTS,
        |number| {
            if number == FIRST + 1 {
                region.borrow_mut().reset();
            }
        },
    )
    .await;
    Each::of(&region.borrow())
}

async fn fetch(archive: &Archive) -> Each {
    let region = RefCell::new(Region::new(COUNTED));
    segments::fetch(archive, FIRST + COUNTED_SEGMENTS, |number| {
        if number == FIRST + 1 {
            region.borrow_mut().reset();
        }
    })
    .await;
    Each::of(&region.borrow())
}

#[test]
fn a_push_and_a_fetch_allocate_no_more_than_they_did() {
    let archive = segments::archive();
    let (pushed, fetched) =
        segments::runtime().block_on(async { (push(&archive).await, fetch(&archive).await) });
    println!("a push: {pushed:?}, a fetch: {fetched:?}");
    assert!(pushed.count <= PUSH_COUNT, "{pushed:?}");
    assert!(pushed.bytes <= PUSH_BYTES, "{pushed:?}");
    assert!(fetched.count <= FETCH_COUNT, "{fetched:?}");
    assert!(fetched.bytes <= FETCH_BYTES, "{fetched:?}");
}
