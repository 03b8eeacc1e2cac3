//! OpenStack Swift for the tests: the real program on loopback, with its own login (`tempauth`, version 1), and a
//! Keystone that follows the documents of versions 2 and 3.
//!
//! What was seen of Swift 2.38.3:
//!
//! * `If-None-Match: *` on PUT answers 412 when the object exists as the write begins; of several that begin at the same
//!   time all are taken, and the last stays;
//! * `ETag` on PUT is compared: 422. For a list of segments it is the MD5 of the segments' MD5s;
//! * `Last-Modified` is the next whole second; `X-Timestamp` and listings have the moment;
//! * `multipart-manifest=delete` on an object without segments deletes nothing and says so in a body with status 200;
//! * tempauth gives a user the same token again as long as it is good, and forgets all when memcached does.

mod keystone;
mod server;

pub use keystone::Keystone;
pub use server::{Role, SwiftServer};
