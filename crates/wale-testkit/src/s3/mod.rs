//! S3 for the tests: real servers on loopback, and a proxy before them that makes the faults.
//!
//! Neither server is all of S3, so most tests name the one that has what they need. What was seen of them
//! (moto 5.2.5, s3s-fs 0.14.1):
//!
//! | | moto | s3s-fs |
//! |---|---|---|
//! | `If-None-Match: *` on `PutObject` and on `CompleteMultipartUpload` | 412 when the object exists | the same |
//! | the same, of several writers at the same time | may let more than one create; behind the proxy, wale's trials come one after the other | the same |
//! | signature, version 4 | never looked at: any key will do | checked: 403 `SignatureDoesNotMatch`, `NotSignedUp` |
//! | `x-amz-checksum-*`, `Content-MD5` | ignored, also when wrong | checked: 400 `BadDigest` |
//! | parts below 5 MiB | 400 `EntityTooSmall` | the same |
//! | `ListMultipartUploads` | yes, but every upload began in November 2010 | 501 `NotImplemented` |
//! | storage class | any | 400 `InvalidStorageClass` for all but `STANDARD` |
//! | server-side encryption headers | kept and told, also SSE-C; nothing is encrypted | accepted and forgotten |
//! | virtual host style | by any first component of the host name | below `--domain` |
//! | names | any | components up to some 150 bytes: it makes file names of them |
//! | `DeleteObjects`, ranges, `If-Match` | yes | yes |
//! | credential services | instance metadata (version 2), STS | none |
//!
//! Three more are there to be archived to and restored from, as operators have them: a Ceph gateway (which wants a
//! length with each PUT, and keeps conditions of PUT and not of the end of an upload), rclone and s3rver (which know no
//! conditions and compare no sums; rclone has a root element of its own for an upload that begins).
//!
//! Names that end in `.localhost` are not resolved on every machine, so tests of the virtual host style send
//! their requests through the proxy as an HTTP proxy: then nobody resolves anything.

pub(crate) mod kind;
pub(crate) mod message;
mod proxy;
mod rule;
mod server;
mod tls;

pub use kind::Kind;
pub use proxy::{FaultProxy, Partition};
pub use rule::{Action, Answer, Edit, Fault, Seen};
pub use server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
pub(crate) use server::{STARTS_WITHIN, spawn, tool};
pub use tls::{Authority, TlsIdentity};
