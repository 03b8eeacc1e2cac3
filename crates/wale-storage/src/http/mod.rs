//! What stores behind HTTP share, and no store's own: how an object comes to be and when its success is believed, what a
//! store's conditions are worth, requests with limits on silence, failures and what they mean, the memory of uploads and
//! the parts that are gathered in it, keys that are renewed, listings and their bounds.
//!
//! ```text
//!   a store (s3, …) ─▶ its requests, its signatures, its codes of errors
//!     ├─▶ upload ─▶ commit, probe ─▶ writes
//!     │                    a body becomes an object: whose it is and whether it is whole; what a store gives for that
//!     ├─▶ leftovers        what futures that were dropped have left in the store
//!     ├─▶ call             a request as a store puts it together
//!     ├─▶ transport        one request, one answer, limits on silence
//!     ├─▶ failure          no good answer, and the room's error of it
//!     ├─▶ part ─▶ slots    a body cut into parts, within the memory of all uploads
//!     ├─▶ marks            what every object carries
//!     ├─▶ markup           answers in XML
//!     ├─▶ reading          an object read to its end, over connections that break
//!     ├─▶ keeper           credentials of any kind, renewed in time
//!     ├─▶ name_locks       one writer of a name within this process
//!     ├─▶ deletions        many objects, and those that are retained
//!     ├─▶ seen             when the bucket answered
//!     └─▶ listing ─▶ extent
//!                          page by page, and a listing has an end
//! ```
//!
//! It refuses to know any store: everything with a store's name, header or code in it stands in that store's folder.

pub(crate) mod call;
pub(crate) mod commit;
pub(crate) mod deletions;
pub(crate) mod extent;
pub(crate) mod failure;
pub(crate) mod keeper;
pub(crate) mod leftovers;
pub(crate) mod listing;
pub(crate) mod marks;
pub(crate) mod markup;
pub(crate) mod name_locks;
pub(crate) mod named_file;
pub(crate) mod options;
pub(crate) mod part;
pub(crate) mod probe;
pub(crate) mod reading;
#[cfg(test)]
pub(crate) mod scripted;
pub(crate) mod seen;
pub(crate) mod slots;
pub(crate) mod text;
pub(crate) mod transport;
pub(crate) mod upload;
pub(crate) mod writes;
