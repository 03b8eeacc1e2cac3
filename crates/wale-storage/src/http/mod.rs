//! What stores behind HTTP share, and no store's own: requests with limits on silence, failures and what they mean,
//! the memory of uploads and the parts that are gathered in it, keys that are renewed, names that are being created,
//! bounds of a listing.
//!
//! ```text
//!   a store (s3, …) ─▶ its requests, its signatures, its codes of errors
//!     ├─▶ transport        one request, one answer, limits on silence
//!     ├─▶ failure          no good answer, and the room's error of it
//!     ├─▶ part ─▶ slots    a body cut into parts, within the memory of all uploads
//!     ├─▶ marks            what every object carries
//!     ├─▶ keeper           credentials of any kind, renewed in time
//!     ├─▶ name_locks       one writer of a name within this process
//!     └─▶ extent           a listing has an end
//! ```
//!
//! It refuses to know any store: everything with a store's name, header or code in it stands in that store's folder.

pub(crate) mod extent;
pub(crate) mod failure;
pub(crate) mod keeper;
pub(crate) mod marks;
pub(crate) mod name_locks;
pub(crate) mod named_file;
pub(crate) mod options;
pub(crate) mod part;
#[cfg(test)]
pub(crate) mod scripted;
pub(crate) mod slots;
pub(crate) mod text;
pub(crate) mod transport;
