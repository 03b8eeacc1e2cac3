//! What an S3 store needs to know, as types. No setting's name stands here.

use std::path::PathBuf;
use std::time::Duration;

use super::credentials::CredentialSource;
use super::slots::Slots;
use crate::RetryPolicy;

/// A text that is never shown: its `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the code that signs or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

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

/// Who encrypts objects at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEncryption {
    /// Whatever the bucket's own setting is; Amazon's buckets encrypt with keys of S3 unless told otherwise.
    BucketDefault,
    /// Keys of S3: `AES256`. WAL-E always sent this.
    S3,
    /// Keys of the key management service: the key with this name, or the account's own.
    Kms(Option<String>),
    /// A key that comes with every request, 32 bytes in base64. The server forgets it; whoever loses it loses the
    /// archive.
    CustomerKey(Secret),
    /// The same, in a file that is read anew: rotated, the key is used without a restart.
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

/// Proxies for requests to the store and to the services that give credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`. May hold a password.
    pub http: Option<Secret>,
    /// For `https://`. May hold a password.
    pub https: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub except: Option<String>,
}

/// Limits on silence. None of them bounds the length of a transfer: what moves may take as long as it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Timeouts {
    /// Until a connection stands, TLS included. 10 s: three retransmissions of a lost first packet.
    pub connect: Duration,
    /// Until the server answers a request whose body, if any, it was handed in whole. 15 s: half of the time for
    /// which a request is repeated, so that a silent server is asked a second time. [`S3Timeouts::answer_to_upload`] adds what the operating system still holds of a body.
    pub answer: Duration,
    /// Between two movements of a body, either way. 30 s: a link that is dead for so long has lost the connection.
    pub stall: Duration,
    /// Until a multipart upload is put together. 5 minutes: Amazon documents "several minutes" for large ones.
    pub assembly: Duration,
}

impl Default for S3Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            assembly: Duration::from_mins(5),
        }
    }
}

impl S3Timeouts {
    /// Bytes of a body that buffers of the system may hold when the last was handed over: Linux lets a socket's
    /// buffer grow to 4 MiB (`tcp_wmem`).
    const SYSTEM_BUFFER_BYTES: u64 = 4 << 20;
    /// The slowest link that is worth waiting for: 64 KiB/s, half a megabit.
    const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

    /// Until the server answers, counted from the moment the last byte of a body of this length was handed over: the
    /// usual limit and what the slowest link needs for what is still in the system's buffers, at most 64 s.
    #[must_use]
    pub(super) fn answer_to_upload(&self, body_bytes: u64) -> Duration {
        let waiting = body_bytes.min(Self::SYSTEM_BUFFER_BYTES);
        self.answer + Duration::from_secs(waiting / Self::SLOWEST_BYTES_PER_SECOND)
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
    pub timeouts: S3Timeouts,
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
        Slots::new(upload_memory_bytes).count_of_later() - 1
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

    #[test]
    fn the_limit_of_an_upload_comes_from_its_size() {
        let timeouts = S3Timeouts::default();
        for (bytes, seconds) in [(0, 15), (1 << 20, 31), (4 << 20, 79), (u64::MAX, 79)] {
            let limit = timeouts.answer_to_upload(bytes);
            assert_eq!(limit, Duration::from_secs(seconds), "{bytes}");
        }
    }
}
