//! What an Azure store needs to know, as types. No setting's name stands here.

use std::path::PathBuf;

use super::source::AzureCredentialSource;
use crate::http::slots::Slots;
use crate::{HttpTimeouts, Proxies, RetryPolicy};

/// Blocks have no least length. 4 MiB: shorter ones would only cost more requests.
pub(super) const BLOCK_BYTES_MIN: u64 = 4 << 20;
/// Blocks of one blob ("Scalability and performance targets for Blob storage").
pub(super) const BLOCKS_MAX: u32 = 50_000;

/// A server that is not at the account's usual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureEndpoint {
    /// Whether it speaks TLS. Nothing ever changes from TLS to plain text.
    pub secure: bool,
    /// Host and, where it is not the protocol's own, `:port`.
    pub authority: String,
    /// What every path begins with, before the container: empty, or a slash and what follows it, without one at the end.
    /// An emulator has the account here.
    pub path: String,
}

/// What is sent along so that the store refuses a body that was garbled on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AzureChecksum {
    /// `x-ms-content-crc64`: a tenth of MD5's work.
    Crc64,
    /// `Content-MD5`, for servers that know no other.
    Md5,
}

impl AzureChecksum {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Crc64, Self::Md5];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc64 => "crc64",
            Self::Md5 => "md5",
        }
    }
}

/// An Azure store.
#[derive(Debug, Clone)]
pub struct AzureOptions {
    /// The storage account.
    pub account: String,
    /// The container. It is never created.
    pub container: String,
    /// What every blob's name begins with: empty, or a path that ends with `/`.
    pub prefix: String,
    /// The domain of the cloud, as `core.windows.net`: the account is at `account.blob.` and this.
    pub cloud: String,
    /// The server, where it is at another address.
    pub endpoint: Option<AzureEndpoint>,
    /// Where the right to ask comes from.
    pub credentials: AzureCredentialSource,
    /// The version of the protocol, as `2021-12-02`; `None` is the one that this code was written for.
    pub api_version: Option<String>,
    /// Check on the way.
    pub checksum: AzureChecksum,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Limits on silence.
    pub timeouts: HttpTimeouts,
    /// How blocks of an upload and pages of a listing are repeated, which only this store can.
    pub retry: RetryPolicy,
    /// What all uploads together may hold in memory, bytes. At least two blocks of 4 MiB are taken.
    pub upload_memory_bytes: u64,
}

impl AzureOptions {
    /// How many uploads may be left waiting in the middle of their bodies, for something that another upload must do
    /// first, when all uploads have this memory. Each of them holds a block's memory; one more, and that other upload
    /// might find none.
    #[must_use]
    pub fn uploads_that_may_wait(upload_memory_bytes: u64) -> usize {
        Slots::new(upload_memory_bytes, BLOCK_BYTES_MIN).count_of_later() - 1
    }
}
