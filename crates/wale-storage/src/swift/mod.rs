//! Objects in OpenStack Swift, or in a server that speaks like it.
//!
//! ```text
//!   verbs ─▶ upload ─▶ segments                       its requests, for the rules of `crate::http`
//!     └────▶ download, listing, delete, sweep
//!                └─▶ client ─▶ login                  one container, requests with a token
//!                      ├────▶ documents               answers in JSON
//!                      ├────▶ refusal                 errors, and what they mean
//!                      └────▶ crate::http             what every store behind HTTP shares
//! ```
//!
//! It refuses to know what the objects are. Names begin with a slash, as WAL-E's do: `swift://c/a/b` holds
//! `/a/b/wal_005/…`; those of WAL-G do not. What goes in one request is an object. What is longer is a static large object: a list of segments
//! whose names begin with `wale_segments`, so that no listing of any archive in the container has them.
//!
//! It relies on these promises of Swift; each line also says what happens where one is not kept:
//!
//! * a write is whole or not at all, and on most of its disks when it is answered. Its `ETag` is the MD5 of what was
//!   stored; it is sent along, so that other bytes are refused, and compared with the answer's;
//! * `If-None-Match: *` is looked at when a write begins, not when it ends. So of two writers at the same time both may
//!   create, and the later one's object stays: each looks again afterwards, and finds out by its mark whose it is. A server
//!   that ignores the header is found out, and is looked at before the write, too;
//! * an object can be read when its write was answered. A listing may lag behind: what was stored or deleted a moment ago
//!   may not be listed, or still be listed. So absence is never told from a listing alone, and segments are deleted only
//!   when the object's own list of segments does not name them;
//! * an answer 404 with Swift's own mark (`X-Trans-Id`) means that there is no such object, once the container has
//!   answered, too; 403 never means that;
//! * deleting a large object by `multipart-manifest=delete` deletes its segments. Segments whose object never came are
//!   deleted by the next upload of the process, or by the sweep.
//!
//! Requests that anybody can repeat are repeated by [`crate::RetryStore`]; segments of an upload, pages of a listing and
//! the rest of a body only here, by the same policy.

mod client;
mod delete;
mod documents;
mod download;
mod listing;
mod login;
mod names;
mod options;
mod refusal;
mod segments;
mod state;
mod sweep;
mod upload;
mod verbs;

pub use self::login::{
    ApplicationCredential, KeystoneName, LoginSecret, SwiftInterface, SwiftLogin, SwiftMethod,
};
pub use self::options::SwiftOptions;
pub use self::state::SwiftStore;

#[cfg(test)]
mod tests;
