//! The bytes at rest in a wale archive: codecs, tar partitions, sentinels, manifests, object names.
//!
//! Refuses to know: file system, network, async, clock. Everything here is a function of bytes and
//! values to bytes and values, so each decoder can be fuzzed and each encoder compared with a
//! golden file.
//!
//! | module | what it holds |
//! |---|---|
//! | [`seal`](mod@seal) | how plain content becomes a stored object's bytes, and back: its only door |
//! | [`codec`](mod@codec) | compression, one stage of a seal |
//! | [`crypt`] | encryption, another stage |
//! | [`tar`] | streaming tar writer and reader, [`tar::MemberPath`] |
//! | [`file_list`](mod@file_list) | WAL-G's list of a backup's files, as wale writes it |
//! | [`layout`] | names of objects: key ↔ meaning |
//! | [`sentinel`], [`metadata`] | the commit record of a base backup, and WAL-G's copy of its times |
//! | [`rehearsed`] | what a rehearsal of a restore found |
//! | [`manifest`] | PostgreSQL's `backup_manifest` |
//! | [`increment`] | the pages of a file that WAL-G's delta backups have |
//! | [`identity`] | `wale.json`: which cluster an archive belongs to |
//! | [`partition`] | which file goes in which tar |

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests make files as they like")
)]

mod backup_name;
mod checksum;
mod encryption;

pub mod codec;
pub mod crypt;
pub mod file_list;
pub mod frame_index;
pub mod identity;
pub mod increment;
pub mod layout;
pub mod manifest;
pub mod metadata;
pub mod partition;
pub mod rehearsed;
pub mod seal;
pub mod sentinel;
pub mod tar;

pub use backup_name::{BackupName, InvalidBackupName};
pub use checksum::{Crc32c, hex};
pub use codec::{AdaptiveStep, Codec, CodecError, CodecSettings, FrameStart, WINDOW_MAX_BYTES};
pub use crypt::{ContentDigest, KeyRing, Locked, WriteKey};
pub use encryption::Encryption;
pub use file_list::{
    FileListDatabase, FileListMember, FileListRelation, can_be_listed, write_file_list,
};
pub use frame_index::{IndexItem, IndexReader, IndexedFile, IndexedPartition};
pub use identity::{ArchiveIdentity, EncryptionRecord, IdentityError};
pub use increment::{Increment, IncrementError};
pub use layout::ArchiveKey;
pub use manifest::{
    ManifestBuilder, ManifestChecksum, ManifestError, ManifestFile, ManifestItem, ManifestReader,
    ManifestWriter, WalRange,
};
pub use metadata::BackupMetadata;
pub use partition::{PartitionPlan, PlanLimits};
pub use rehearsed::{CheckOutcome, CheckRecord, RehearsalRecord, TimescaleCounts};
pub use seal::{Seal, SealReader, SealWriter, ShownEncryption};
pub use sentinel::{
    DamagedPage, PartitionRecord, Sentinel, SentinelError, SentinelOrigin, TablespaceRecord,
    TablespaceSpec, WaleSentinel,
};
