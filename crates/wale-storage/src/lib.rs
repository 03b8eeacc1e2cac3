//! Object storage, over S3, Google Cloud Storage, Azure, Swift, a file system or memory, with wrappers for faults and retries.
//! [`FallbackStore`] reads several as one, [`PacedStore`] reads one slowly and counts.
//!
//! ```text
//!   caller ──▶ RetryStore ──▶ FaultyStore ──▶ S3Store | GcsStore | AzureStore | SwiftStore | FileStore | MemoryStore
//!              (transient)    (tests only)    (durable before it answers)
//! ```
//!
//! This room refuses to know what a segment or a backup is: a key is a path-like name, an object is a
//! stream of bytes. What it promises to the rooms above:
//!
//! * an object is visible under its name whole or not at all;
//! * when [`Store::put`] or [`Store::put_if_absent`] has answered, the object outlives a power failure;
//! * of any number of concurrent [`Store::put_if_absent`] of one name exactly one creates the object;
//! * "there is no such object" is only ever said by a store that could be asked. Anything else is an error.
//!
//! # How to add a store
//!
//! 1. A folder here in the shape of `s3/` or `gcs/`: `mod.rs` is its table of contents, `verbs.rs` has
//!    `impl Store`, `options.rs` what it must be told, `upload.rs` the requests of an upload (`http::writes::UploadStore`).
//!    What it shares with others is in `http/` already: when an answer is believed, the trial of conditions, transport,
//!    failures, parts and their memory, the keeper of credentials. Its own are signatures, addresses and one function
//!    from an error's status and body to what that means (`http::failure::Refusal`).
//! 2. Two lines here: `mod gcs;` and `pub use gcs::{…};`.
//! 3. Its tests: [`conformance()`] against a real server in `crates/wale/tests/it`, started by wale-testkit, and the
//!    rows of the fault battery through the fault proxy.
//! 4. Its settings in `crates/wale/src/config`: a folder that reads them, as `s3/` does, their declarations, and one
//!    entry in `SCHEMES` (`prefix.rs`), which says how its URLs are read, and a variant of `Place`.
//! 5. One function in `crates/wale/src/stores.rs` that describes it, and its arm in `described`: the compiler names the
//!    place when the new kind of place is there.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod azure;
pub mod conformance;
mod ends;
mod error;
mod fallback;
mod fault;
mod file;
mod gcs;
mod http;
mod key;
mod memory;
mod paced;
mod retry;
mod s3;
mod store;
mod swift;
mod unusable;

pub use self::http::options::{HttpTimeouts, Proxies, Secret};
pub use azure::{
    AzureChecksum, AzureClient, AzureClientProof, AzureCredentialSource, AzureEndpoint,
    AzureOptions, AzureStore,
};
pub use conformance::{conformance, conformance_with_names, conformance_without_backslashes};
pub use ends::{CredentialEnd, Renewal};
pub use error::{BodyError, BoxError, Misconfiguration, ServerReply, StoreError};
pub use fallback::FallbackStore;
pub use fault::{Fault, FaultPlan, FaultSwitch, FaultyStore, Occurrence, Verb};
pub use file::{FileStore, FileStoreOptions};
pub use gcs::{GcsCredentials, GcsEncryption, GcsEndpoint, GcsOptions, GcsStore};
pub use key::{InvalidKey, ObjectKey};
pub use memory::MemoryStore;
pub use paced::PacedStore;
pub use retry::{RetryPolicy, RetryStore};
pub use s3::{
    Addressing, ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource,
    ProfileSource, RoleSource, S3Endpoint, S3Options, S3Store, ServerEncryption, UploadChecksum,
    WebIdentitySource,
};
pub use store::{
    Body, Looking, Object, ObjectMeta, ObjectStream, Ours, PutOutcome, Store, body_from, read_all,
    read_known,
};
pub use swift::{
    ApplicationCredential, KeystoneName, LoginSecret, SwiftInterface, SwiftLogin, SwiftMethod,
    SwiftOptions, SwiftStore,
};
pub use unusable::UnusableStore;

/// Pieces in which the stores of this room read and write: 1 MiB is large enough that a hop to a
/// blocking thread (some 20 µs) is lost in the copy (some 200 µs), and small enough that a transfer
/// holds little: a put at most two pieces plus one chunk of its caller's, a get one piece.
pub const PIECE_BYTES: usize = 1 << 20;
