//! The bytes at rest in a wale archive: codecs, tar partitions, sentinels, manifests, object names.
//!
//! Refuses to know: file system, network, async, clock. Everything here is a function of bytes and
//! values to bytes and values, so each decoder can be fuzzed and each encoder compared with a
//! golden file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`codec`](mod@codec) | compression as `io::Write` and `io::Read` adapters |
//! | [`tar`] | streaming tar writer and reader, [`tar::MemberPath`] |
//! | [`layout`] | names of objects: key ↔ meaning |
//! | [`sentinel`] | the commit record of a base backup, WAL-G's `metadata.json` |
//! | [`manifest`] | PostgreSQL's `backup_manifest` |
//! | [`identity`] | `wale.json`: which cluster an archive belongs to |
//! | [`partition`] | which file goes in which tar |

pub mod codec;
pub mod partition;
pub mod tar;

pub use codec::{Codec, CodecError, CodecSettings, Encoder, decoder, encoder};
pub use partition::{PartitionPlan, PlanLimits, PlannedFile};
