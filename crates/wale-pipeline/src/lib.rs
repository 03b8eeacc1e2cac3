//! Bounded movement of bytes between threads and tasks, under one memory budget, cancellable, observable.
//!
//! ```text
//!   blocking thread                            async task
//!   read → tar → encode → ChunkWriter ═══▶ ChunkReceiver ──▶ body of an upload
//!   untar ← decode ← StreamReader     ◀═══ forwarder     ◀── body of a download
//! ```
//!
//! Synchronous code (files, codecs) runs below on blocking threads, asynchronous code (storage) above;
//! the double lines are the two crossings, and both are queues of a fixed number of chunks. This room
//! knows no storage, no SQL and no PostgreSQL.
//!
//! Invariants:
//!
//! * a stream ends well only when its producer said so: a dropped producer is an error, never an end;
//! * a consumer that goes away stops its producer at the next chunk;
//! * a panic in a worker is never lost, and an error of one worker stops the others.
//!
//! The memory of one crossing is `(queue + 2) × CHUNK_BYTES`: the queue, the chunk being filled and the
//! chunk being consumed. With [`CHUNK_BYTES`] of 1 MiB and [`QUEUE_CHUNKS`] of 4 that is 6 MiB.

mod blocking;
mod budget;
mod channel;
mod line;
mod progress;
mod reader;
mod workers;
mod writer;

pub use blocking::{Panicked, blocking, default_workers};
pub use budget::{MemoryBudget, MemoryPermit};
pub use channel::{ChunkError, ChunkReceiver, ChunkSender, Closed, SenderTimes, channel};
pub use line::{Line, Urgency};
pub use progress::{Progress, ProgressSnapshot};
pub use reader::StreamReader;
pub use tokio_util::sync::CancellationToken;
pub use workers::{Crew, ThreadSource, run_workers};
pub use writer::ChunkWriter;

/// Size of a full chunk: 1 MiB. A crossing costs some 10 µs and copying 1 MiB some 100 µs, so larger
/// chunks gain nothing; smaller ones would make the crossing show.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Usual length of a queue between two threads: 4 chunks of 1 MiB ride out the jitter of a store (20 ms
/// at 200 MB/s) for 4 MiB.
pub const QUEUE_CHUNKS: usize = 4;
