//! Objects in Azure Blob Storage, or in a server that speaks like it.
//!
//! ```text
//!   verbs ─▶ upload ─▶ blocks, probe                  its requests, for the rules of `crate::http`
//!     └────▶ download, listing, delete
//!                └─▶ client ─▶ sign                   one container, signed requests
//!                      ├────▶ keys ─▶ tokens          a key, a shared access signature, or tokens of Entra
//!                      ├────▶ refusal                 errors, and what they mean
//!                      └────▶ crate::http             what every store behind HTTP shares
//! ```
//!
//! It refuses to know what the objects are. Objects are block blobs. It relies on these promises of Azure; each line also
//! says what happens where a server does not keep it:
//!
//! * a blob appears whole, by `Put Blob` or by `Put Block List`, and is durable when it is answered;
//! * `If-None-Match: *` lets exactly one writer create a blob, with either request. Servers that are not Microsoft's are
//!   tried before the first write (`probe`); where one does not keep it, looks before and after the write, and a lock within
//!   the process, stand in;
//! * an answer of success comes from the store. One without an `ETag`, and one to a list of blocks, is checked;
//! * a body that does not match its checksum is refused. From a server that takes it, the object is read back;
//! * `x-ms-error-code` decides what an error means. A blob is absent only when the store says `BlobNotFound`: a missing
//!   container, a refusal or a gateway's page is no absence.
//!
//! Blocks that no list has made a blob of are never visible, and the service removes them a week after the last of them.
//! Nobody can remove them before without making a blob of their name for a moment, so nobody does.

mod address;
mod blocks;
mod checksum;
mod client;
mod delete;
mod download;
mod keys;
mod listing;
mod options;
mod probe;
mod refusal;
mod sign;
mod source;
mod state;
mod tokens;
mod upload;
mod verbs;
mod xml;

pub use self::options::{AzureChecksum, AzureEndpoint, AzureOptions};
pub use self::source::{AzureClient, AzureClientProof, AzureCredentialSource};
pub use self::state::AzureStore;

#[cfg(test)]
mod tests;
