//! The memory of a push, in one place, since it is a promise: 8 pushes at once stay far below 64 MiB.
//!
//! | part | bytes |
//! |---|---|
//! | read buffer | [`READ_BYTES`] = 128 KiB |
//! | zstd at level 1: window of 512 KiB, its tables and buffers | about 2 MiB |
//! | chunk being gathered | [`CHUNK_BYTES`] = 256 KiB |
//! | chunks between encoder and store | [`CHUNKS`] x 256 KiB = 1 MiB |
//! | chunk in the store's hands | 256 KiB |
//!
//! That is less than 4 MiB for one push and 32 MiB for eight. A comparison with a stored object reads 2 chunks of
//! the store (2 MiB) instead of writing, and needs about the same.

/// Bytes read from the file at once.
pub(super) const READ_BYTES: usize = 128 << 10;

/// Bytes of a chunk of encoded data.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between the encoder and the store.
pub(super) const CHUNKS: usize = 4;
