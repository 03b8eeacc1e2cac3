//! Objects in Google Cloud Storage, or in a server that speaks like it, by its JSON API.
//!
//! ```text
//!   verbs ─▶ upload ─▶ session, creation                its requests, for the rules of `crate::http`
//!     └────▶ download, listing, delete
//!                └─▶ bucket                              one bucket, requests with a token
//!                      ├────▶ credentials                tokens, and where they come from
//!                      ├────▶ resource, refusal          answers, errors, and what they mean
//!                      └────▶ crate::http                what every store behind HTTP shares
//! ```
//!
//! The JSON API and not the XML one: its answer to a write is the object's record (name, length, CRC-32C, generation and
//! the mark that we gave it), so one request both writes and proves what was written; its answer to a look has a body
//! with a reason, which an answer to HEAD has not; and it is the one that emulators speak.
//!
//! It refuses to know what the objects are. It relies on these promises of Google; each line also says what happens where
//! a server does not keep it:
//!
//! * a write is whole or not at all, and durable when it is answered; look and listing show it at once;
//! * `ifGenerationMatch=0` lets exactly one writer create an object, of several at the same time too, in one request and
//!   at the end of a resumable upload. A server that is not Google's is tried before the first write (`probe`); where it
//!   does not keep this, looks before and after the write, and a lock within the process, stand in;
//! * the record in the answer is the store's: it is compared with what was sent, CRC-32C and length. Where it has no
//!   CRC-32C, the object is read back;
//! * bytes that are sent again to a resumable upload which has them are ignored;
//! * a resumable upload that nobody ends is dropped by the store after a week, was never visible and costs nothing. So
//!   none is discarded here.
//!
//! Requests that anybody can repeat are repeated by [`crate::RetryStore`]; parts of an upload, pages of a listing and
//! the rest of a body only here, by the same policy.

mod bucket;
mod creation;
mod credentials;
mod delete;
mod download;
mod headers;
mod listing;
mod options;
mod refusal;
mod resource;
mod session;
mod state;
mod upload;
mod verbs;

pub use self::options::{GcsCredentials, GcsEncryption, GcsEndpoint, GcsOptions};
pub use self::state::GcsStore;

#[cfg(test)]
mod tests;
