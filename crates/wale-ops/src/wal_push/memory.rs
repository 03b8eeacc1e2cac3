//! The memory of a push, in one place, since it is a promise: 8 pushes at once stay far below 64 MiB.
//!
//! | part | bytes |
//! |---|---|
//! | read buffer | [`READ_BYTES`] = 128 KiB |
//! | the seal: zstd at level 1, a window of 512 KiB, its tables and buffers | 2 MiB |
//! | chunk being gathered | [`CHUNK_BYTES`] = 256 KiB |
//! | chunks between seal and store | [`QUEUE_CHUNKS`](wale_pipeline::QUEUE_CHUNKS) x 256 KiB = 1 MiB |
//! | chunk in the store's hands | 256 KiB |
//!
//! That is less than 4 MiB for one push and 32 MiB for eight, at the default level: what higher ones take
//! `Seal::writer_bytes` says, 5 MiB instead of 2 with adaptive compression. A comparison with a stored object reads 2 chunks of
//! the store (2 MiB) instead of writing, and needs about the same.

/// Bytes read from the file at once.
pub(super) const READ_BYTES: usize = 128 << 10;

/// Bytes of a chunk of sealed data.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
