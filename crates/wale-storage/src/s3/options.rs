//! What an S3 store needs to know, as types. No setting's name stands here.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::credentials::CredentialSource;
use crate::http::slots::Slots;
use crate::{HttpTimeouts, Proxies, RetryPolicy, Secret};

/// Parts other than the last are at least as long as this (Amazon S3, "Multipart upload limits").
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;
/// Parts of one object (same page).
pub(super) const PARTS_MAX: u32 = 10_000;

/// Where a bucket's requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    Subdomain,
    /// `https://bucket/key`: the bucket's name is the host, as WAL-E's `virtualhost` has it.
    BucketIsHost,
}

/// A server that speaks S3 and is not Amazon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Endpoint {
    /// Whether it speaks TLS. Nothing ever changes from TLS to plain text.
    pub secure: bool,
    /// Host and, where it is not the protocol's own, `:port`.
    pub authority: String,
    /// What every path begins with: empty, or a slash and what follows it, without one at the end. Gateways have it
    /// that serve more than S3.
    pub path: String,
    /// How it is told the bucket.
    pub addressing: Addressing,
}

/// How objects are encrypted at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEncryption {
    /// Whatever the bucket's own setting is; Amazon's buckets encrypt with keys of S3 unless told otherwise.
    BucketDefault,
    /// Keys of S3: `AES256`. WAL-E always sent this.
    S3,
    /// Keys of the key management service: the key with this name, or the account's own.
    Kms(Option<String>),
    /// A key that comes with every request, 32 bytes in base64. The server forgets it: without the key the
    /// archive is lost.
    CustomerKey(Secret),
    /// The same, in a file that is read anew: a rotated key is used without a restart.
    CustomerKeyFile {
        /// The key as it was at the start.
        key: Secret,
        /// The file that holds it.
        file: PathBuf,
    },
}

/// What is sent along so that the store refuses a body that was garbled on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadChecksum {
    /// `x-amz-checksum-crc32c`.
    Crc32c,
    /// `x-amz-checksum-sha256`.
    Sha256,
    /// `Content-MD5`, for stores that know none of the others.
    Md5,
    /// Nothing, for stores that refuse all of them.
    None,
}

impl UploadChecksum {
    /// Every choice, the default first.
    pub const ALL: [Self; 4] = [Self::Crc32c, Self::Sha256, Self::Md5, Self::None];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
            Self::None => "none",
        }
    }
}

/// An S3 store.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The bucket. It is never created.
    pub bucket: String,
    /// What every object's name begins with: empty, or a path that ends with `/`.
    pub prefix: String,
    /// The server; `None` is Amazon's in the region.
    pub endpoint: Option<S3Endpoint>,
    /// The region, which is part of every signature.
    pub region: String,
    /// Where keys come from.
    pub credentials: CredentialSource,
    /// When they end, where they are given with their end and in no file.
    pub keys_expire: Option<DateTime<Utc>>,
    /// The storage class of new objects; `None` is the bucket's.
    pub storage_class: Option<String>,
    /// Encryption at rest.
    pub encryption: ServerEncryption,
    /// Check on the way.
    pub checksum: UploadChecksum,
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

impl S3Options {
    /// How many uploads may be left waiting in the middle of their bodies, for something that another upload must do
    /// first, when all uploads have this memory. Each of them holds a part's memory; one more, and that other upload
    /// might find none.
    #[must_use]
    pub fn uploads_that_may_wait(upload_memory_bytes: u64) -> usize {
        Slots::new(upload_memory_bytes, PART_BYTES_MIN).count_of_later() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let encryption = ServerEncryption::CustomerKey(Secret::new("canary"));
        let shown = format!("{encryption:?} {:?}", Secret::new("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }
}
