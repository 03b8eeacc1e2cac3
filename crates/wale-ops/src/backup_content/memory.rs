//! What a worker that reads a partition holds.

/// Bytes written at once.
pub(super) const WRITE_BYTES: usize = 1 << 20;

/// Memory of one worker: the write buffer, 2 MiB of chunks from the store, 1 MiB of the chunk being decoded, and a
/// decoder's window of 8 MiB at most for archives that other tools wrote at default settings. The numbers of an
/// increment's pages (WAL-G's, 1 MiB at most, 0.5 MiB where PostgreSQL's files have their 1 GiB) come while the window of lz4,
/// its default, is 4 MiB smaller.
pub(crate) const WORKER_BYTES: u64 = WRITE_BYTES as u64 + (2 << 20) + (1 << 20) + (8 << 20);
