//! Objects in S3, or in a server that speaks like it.
//!
//! ```text
//!   verbs ─▶ upload ─▶ multipart, probe               its requests, for the rules of `crate::http`
//!     └────▶ download, listing, delete, sweep
//!                └─▶ client ─▶ sign                   one bucket, signed requests
//!                      ├────▶ credentials             keys, and their sources
//!                      ├────▶ refusal                 errors, and what they mean
//!                      └────▶ crate::http             what every store behind HTTP shares
//! ```
//!
//! It refuses to know what the objects are. It relies on these promises of S3; each line also says what happens where a
//! store does not keep it:
//!
//! * a write is whole or not at all, and durable when it is answered;
//! * `If-None-Match: *` lets exactly one writer create an object, of several at the same time too. A store that ignores
//!   it, or keeps it for writers one after the other only, is found out before the first write (`probe`); then looks
//!   before and after the write, and a lock within the process, stand in;
//! * an answer of success comes from the store. One without an `ETag`, and one to the end of an upload, is checked;
//! * a body that does not match its checksum is refused. For a store that accepts it, the digest that it answers with
//!   (`ETag`) is compared, or, where that is none, the object is read back;
//! * an answer of status 200 may still hold an error, which counts.
//!
//! Requests that anybody can repeat are repeated by [`crate::RetryStore`]; parts of an upload, pages of a listing and
//! the rest of a body only here, by the same policy.

mod address;
mod checksum;
mod client;
mod credentials;
mod customer_key;
mod delete;
mod download;
mod headers;
mod listing;
mod multipart;
mod options;
mod probe;
mod refusal;
mod sign;
mod state;
mod sweep;
mod upload;
mod verbs;
mod xml;

pub use self::credentials::{
    ContainerSource, ContainerToken, CredentialSource, Credentials, FileSource, ProfileSource,
    RoleSource, WebIdentitySource,
};
pub use self::options::{Addressing, S3Endpoint, S3Options, ServerEncryption, UploadChecksum};
pub use self::state::S3Store;

#[cfg(test)]
mod tests;
