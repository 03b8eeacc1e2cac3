//! The words by which a sidecar and `wale client` understand each other, beside HTTP's own. Invariant: they stay; older clients
//! and sidecars know those of their day.

/// The header by which `wale client` knows that a 200 is a sidecar's, and about the very file that it asked for.
pub const ANSWER_HEADER: &str = "wale-answer";
/// The file is archived; its name follows a space.
pub const ARCHIVED: &str = "archived";
/// The header by which a client says that it can take a file out of its place beside the server's WAL: the place's nonce.
pub const TAKE_HEADER: &str = "wale-take";
/// The header that goes with [`HANDED`]: the nonce of the request, a space, and the bytes of the file.
pub const HANDED_HEADER: &str = "wale-handed";
/// The file lies in the client's place, and there is no body; its name follows a space.
pub const HANDED: &str = "handed";
/// The body is the file; its name follows a space.
pub const SENT: &str = "sent";
/// The archive does not have the file; its name follows a space.
pub const ABSENT: &str = "absent";
/// PostgreSQL may start.
pub const MAY_START: &str = "may-start";
