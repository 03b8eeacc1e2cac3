//! Messages of OpenPGP, as WAL-E's `gpg` and WAL-G write them and read them (RFC 4880; RFC 9580 where it says more).
//!
//! | file | what it holds |
//! |---|---|
//! | `packet` | headers and bodies of packets |
//! | `writer` | plain bytes → a message |
//! | `reader` | a message → plain bytes |
//! | `keys` | [`PgpRecipients`] to write to, [`SecretKeys`] to read with |
//! | `head` | what the first bytes of an object show |
//! | `certificate` | whether a public key may be written to now, and which part of it |
//! | `ring` | key files, key rings and keyboxes → certificates; names of keys |
//! | `error` | names of keys in messages, and errors |
//!
//! rPGP (the crate `pgp`) does what needs a public or secret key, and decrypts; frames and encryption are ours.
//!
//! Refuses to know: file system and clock. Keys come as bytes, and who asks for recipients says what time it is.
//!
//! Invariants: a message that was cut, changed or continued is an error before its plain text ends; what is not read is refused
//! by name; nothing secret is in `Debug` or in an error.

mod certificate;
mod error;
mod head;
mod keys;
mod packet;
mod reader;
mod ring;
mod writer;

#[cfg(test)]
mod gpg_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

pub use error::{KeyId, KeysError, NoKey};
pub use head::{looks_like, recipients_of};
pub use keys::{PgpRecipients, SecretKeys};
pub use reader::{content_of_packets, reader};
pub use writer::{PgpWriter, writer};

/// How many first bytes show whether an object is a message: a header of 6 at most, a version, a key id of 8, an algorithm.
pub(crate) const HEAD_BYTES: usize = 16;
const _: () = assert!(HEAD_BYTES == 6 + 1 + 8 + 1);

/// The memory that a writer takes, in bytes, beside its sink: its buffer (128 KiB), the keys of the cipher (240 bytes) and the
/// state of the hash (100).
pub(crate) const WRITER_BYTES: u64 = writer::BUFFER_BYTES as u64 + 1024;

/// The memory that a reader takes, in bytes, of what WAL-E, WAL-G and this write: its buffer (64 KiB), rPGP's of 8 KiB, a packet
/// of a session key (4 KiB) and the states of cipher and hash.
pub(crate) const READER_BYTES: u64 = reader::SOURCE_BYTES as u64 + (16 << 10);

/// The most that it takes of any message, in bytes: two chunks of 4 MiB of `GnuPG`'s OCB, once more while rPGP moves them, and a
/// block of bzip2 inside (4 MiB, by bzip2's manual: 100 kB + 4 bytes for each of 900,000).
pub(crate) const READER_BYTES_MAX: u64 = READER_BYTES + 2 * (8 << 20) + (4 << 20);
const _: () = assert!(WRITER_BYTES < 256 << 10 && READER_BYTES_MAX <= 21 << 20);
