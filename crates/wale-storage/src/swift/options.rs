//! What a Swift store needs to know, as types. No setting's name stands here.

use std::path::PathBuf;

use super::login::SwiftLogin;
use crate::http::slots::Slots;
use crate::{HttpTimeouts, Proxies, RetryPolicy};

/// Segments are at least as long as this. 5 MiB, as parts in S3: Swift itself takes any since 2015 and wanted 1 MiB
/// before, and an object of our usual gigabyte has 200 of them.
pub(super) const SEGMENT_BYTES_MIN: u64 = 5 << 20;

/// Segments of one object: the usual limit (`max_manifest_segments`). With the least memory they hold 5 GiB, with
/// 64 MiB for uploads 8 GiB, with 128 MiB or more 16 GiB; our largest objects have some 2 GiB.
pub(super) const SEGMENTS_MAX: u32 = 1000;

/// A Swift store.
#[derive(Debug, Clone)]
pub struct SwiftOptions {
    /// The container. It is never created.
    pub container: String,
    /// What every object's name begins with: empty, or a text that ends with `/`. WAL-E's begin with a slash.
    pub prefix: String,
    /// Whether somebody has said that names begin with a slash, or that they do not. Otherwise an archive that seems to
    /// be empty is looked for under the other spelling, and is refused where something is there.
    pub spelling_is_certain: bool,
    /// Where tokens come from.
    pub login: SwiftLogin,
    /// The account's URL, in place of the one that the login gives.
    pub storage_url: Option<String>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits on silence.
    pub timeouts: HttpTimeouts,
    /// How segments of an upload and pages of a listing are repeated, which only this store can.
    pub retry: RetryPolicy,
    /// What all uploads together may hold in memory, bytes. At least two segments of 5 MiB are taken.
    pub upload_memory_bytes: u64,
}

impl SwiftOptions {
    /// How many uploads may be left waiting in the middle of their bodies, for something that another upload must do
    /// first, when all uploads have this memory. Each of them holds a segment's memory; one more, and that other upload
    /// might find none.
    #[must_use]
    pub fn uploads_that_may_wait(upload_memory_bytes: u64) -> usize {
        Slots::new(upload_memory_bytes, SEGMENT_BYTES_MIN).count_of_later() - 1
    }
}
