//! What a store in Google Cloud Storage needs to know, as types. No setting's name stands here.

use std::path::PathBuf;

use crate::http::slots::Slots;
use crate::{HttpTimeouts, Proxies, RetryPolicy, Secret};

/// Chunks of a resumable upload other than the last are multiples of this (Cloud Storage, "Perform resumable uploads").
pub(super) const CHUNK_STEP_BYTES: u64 = 256 << 10;
/// The shortest part of an upload: 20 steps. Google takes one step; a request for each would be 80 round trips for a
/// tenth of a second of a gigabit.
pub(super) const PART_BYTES_MIN: u64 = 20 * CHUNK_STEP_BYTES;
/// The longest object (Cloud Storage, "Quotas and limits").
pub(super) const OBJECT_BYTES_MAX: u64 = 5 << 40;

/// A server that speaks Google's JSON API and is not at Google's usual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcsEndpoint {
    /// Whether it speaks TLS. Nothing ever changes from TLS to plain text.
    pub secure: bool,
    /// Host and, where it is not the protocol's own, `:port`.
    pub authority: String,
    /// What every path begins with: empty, or a slash and what follows it, without one at the end.
    pub path: String,
}

/// How objects are encrypted at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsEncryption {
    /// Whatever the bucket's own setting is; Google encrypts every object.
    BucketDefault,
    /// The key of the key management service with this name:
    /// `projects/…/locations/…/keyRings/…/cryptoKeys/…`.
    Kms(String),
    /// A key that comes with every request, 32 bytes in base64. The server forgets it: without the key the
    /// archive is lost.
    CustomerKey(Secret),
}

/// Where access tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcsCredentials {
    /// Nowhere: requests carry none. For emulators.
    Anonymous,
    /// A file of Google's: a service account's key, a user's, or of a workload or an account that another stands in for.
    /// It is read for each token.
    File(PathBuf),
    /// The account of the machine or pod, from the metadata server at this host, `host[:port]`.
    Metadata(String),
}

/// A store in Google Cloud Storage.
#[derive(Debug, Clone)]
pub struct GcsOptions {
    /// The bucket. It is never created.
    pub bucket: String,
    /// What every object's name begins with: empty, or a text that ends with `/`. WAL-E's begin with a slash.
    pub prefix: String,
    /// Whether somebody has said that names begin with a slash, or that they do not. Otherwise an archive that seems to
    /// be empty is looked for under the other spelling, and is refused where something is there.
    pub spelling_is_certain: bool,
    /// The server; `None` is Google's.
    pub endpoint: Option<GcsEndpoint>,
    /// Where tokens come from.
    pub credentials: GcsCredentials,
    /// The storage class of new objects; `None` is the bucket's.
    pub storage_class: Option<String>,
    /// Encryption at rest.
    pub encryption: GcsEncryption,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits on silence.
    pub timeouts: HttpTimeouts,
    /// How parts of an upload and pages of a listing are repeated, which only this store can.
    pub retry: RetryPolicy,
    /// What all uploads together may hold in memory, bytes. At least two parts of 5 MiB are taken.
    pub upload_memory_bytes: u64,
}

impl GcsOptions {
    /// A store in the bucket `bkt` of a server at this loopback port.
    #[cfg(test)]
    pub(super) fn for_test(port: u16) -> Self {
        Self {
            bucket: "bkt".into(),
            prefix: String::new(),
            spelling_is_certain: false,
            endpoint: Some(GcsEndpoint {
                secure: false,
                authority: format!("127.0.0.1:{port}"),
                path: String::new(),
            }),
            credentials: GcsCredentials::Anonymous,
            storage_class: None,
            encryption: GcsEncryption::BucketDefault,
            ca_file: None,
            proxies: Proxies::default(),
            timeouts: HttpTimeouts::default(),
            retry: RetryPolicy::default(),
            upload_memory_bytes: 0,
        }
    }

    /// How many uploads may be left waiting in the middle of their bodies, for something that another upload must do
    /// first, when all uploads have this memory. Each of them holds a part's memory; one more, and that other upload
    /// might find none.
    #[must_use]
    pub fn uploads_that_may_wait(upload_memory_bytes: u64) -> usize {
        slots(upload_memory_bytes).count_of_later() - 1
    }
}

/// The memory of uploads, in slots that are multiples of [`CHUNK_STEP_BYTES`]: an eighth of a multiple of eight steps is
/// one.
pub(super) fn slots(upload_memory_bytes: u64) -> Slots {
    const EIGHT_STEPS: u64 = 8 * CHUNK_STEP_BYTES;
    let even = upload_memory_bytes / EIGHT_STEPS * EIGHT_STEPS;
    Slots::new(even, PART_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_steps_whatever_the_memory() {
        for mib in [0, 1, 10, 41, 43, 50, 64, 77, 100, 127, 128, 1000, 100_000] {
            let slots = slots((mib << 20) + 12_345);
            let bytes = slots.first_part_bytes();
            assert_eq!(bytes % CHUNK_STEP_BYTES, 0, "{mib} MiB");
            assert!(bytes >= PART_BYTES_MIN);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let encryption = GcsEncryption::CustomerKey(Secret::new("canary"));
        assert!(!format!("{encryption:?}").contains("canary"));
    }
}
