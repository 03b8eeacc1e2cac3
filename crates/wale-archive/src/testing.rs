//! What the tests of this room share: a WAL directory, an archive over a store that fails as it is told, and WAL
//! segments that are real as far as anything looks at them.

#![expect(clippy::disallowed_methods, reason = "tests make files as they like")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wale_cluster::WalDirectory;
use wale_format::{Codec, Seal, layout};
use wale_pg::{ArchiveFileName, ClusterIdentity, SystemIdentifier, WalSegmentName, WalSegmentSize};
use wale_pipeline::MemoryBudget;
use wale_storage::{FaultPlan, FaultyStore, MemoryStore, ObjectKey, Store};

use crate::{Archive, ArchiveOptions, Beginning, Clock};

/// The cluster of the tests.
pub const SYSTEM_IDENTIFIER: u64 = 7_447_234_573_249_283_074;

/// 1 MiB: the smallest legal segment, so that tests are fast.
pub const SEGMENT_BYTES: usize = 1 << 20;

/// A WAL directory and an archive.
pub struct Bench {
    /// What the store holds.
    pub memory: MemoryStore,
    /// The store, with its faults.
    pub faulty: Arc<FaultyStore>,
    /// The archive over it.
    pub archive: Archive,
    /// The WAL directory.
    pub wal: WalDirectory,
    folder: TempDir,
}

impl Bench {
    /// An archive over a store that does not fail.
    #[expect(clippy::new_without_default, reason = "nothing asks for a default")]
    pub fn new() -> Self {
        Self::with_plan(FaultPlan::new())
    }

    /// An archive over a store that fails as `plan` says.
    pub fn with_plan(plan: FaultPlan) -> Self {
        let memory = MemoryStore::new();
        let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), plan));
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("archive_status")).expect("a folder");
        let archive = archive(Arc::clone(&faulty) as Arc<dyn Store>, Codec::Zstd, 64 << 20);
        let wal = WalDirectory::open(folder.path()).expect("a folder");
        Self {
            memory,
            faulty,
            archive,
            wal,
            folder,
        }
    }

    /// The WAL directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a WAL file and marks it ready, as PostgreSQL does.
    pub fn ready(&self, name: &str, content: &[u8]) -> ArchiveFileName {
        self.write(name, content);
        fs::write(
            self.folder().join(format!("archive_status/{name}.ready")),
            "",
        )
        .expect("written");
        file_name(name)
    }

    /// Writes a file into the WAL directory.
    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder().join(name), content).expect("written");
    }

    /// Writes a good segment and marks it ready.
    pub fn ready_segment(&self, name: &str) -> ArchiveFileName {
        self.ready(name, &segment(name, 1))
    }

    /// Marks a file as archived, as PostgreSQL does after a success.
    pub fn done(&self, name: &ArchiveFileName) {
        let status = self.folder().join("archive_status");
        fs::rename(
            status.join(format!("{name}.ready")),
            status.join(format!("{name}.done")),
        )
        .expect("renamed");
    }

    /// Puts a WAL object into the store without asking.
    pub fn store_wal(&self, name: &str, codec: Codec, content: &[u8]) -> ObjectKey {
        let key = ObjectKey::new(&layout::wal(&file_name(name), codec)).expect("a key");
        self.memory.insert(&key, encode(codec, content));
        key
    }

    /// Gives the archive its identity.
    pub async fn claim(&self) {
        self.archive
            .ensure_identity(&cluster(SYSTEM_IDENTIFIER), &Beginning::Anew)
            .await
            .expect("claimed");
    }

    /// The keys of the WAL objects.
    pub fn wal_keys(&self) -> Vec<String> {
        let keys = self.memory.keys().into_iter().map(|key| key.to_string());
        keys.filter(|key| key.starts_with(layout::WAL_PREFIX))
            .collect()
    }
}

/// An archive over a store.
pub fn archive(store: Arc<dyn Store>, codec: Codec, budget: u64) -> Archive {
    Archive::open(ArchiveOptions {
        store,
        seal: Seal::unencrypted(codec),
        clock: Clock::System,
        budget: MemoryBudget::new(budget),
        created_by: "wale test".to_owned(),
    })
}

/// A cluster with segments of 1 MiB.
pub fn cluster(system_identifier: u64) -> ClusterIdentity {
    ClusterIdentity {
        system_identifier: SystemIdentifier::new(system_identifier),
        major: None,
        wal_segment_size: WalSegmentSize::new(SEGMENT_BYTES as u64).expect("a segment size"),
    }
}

/// A name of a file in the archive.
pub fn file_name(name: &str) -> ArchiveFileName {
    ArchiveFileName::parse(name).expect(name)
}

/// A name of a segment.
pub fn segment_name(name: &str) -> WalSegmentName {
    WalSegmentName::parse(name).expect(name)
}

/// The content of a segment (or partial segment) of the tests' cluster; `seed` makes the rest of it different.
pub fn segment(name: &str, seed: u8) -> Vec<u8> {
    segment_of(SYSTEM_IDENTIFIER, name, seed)
}

/// The content of a segment of some cluster: the long header of PostgreSQL 15, then bytes that compress a little.
pub fn segment_of(system_identifier: u64, name: &str, seed: u8) -> Vec<u8> {
    let segment = file_name(name).segment().expect("a segment");
    let size = cluster(system_identifier).wal_segment_size;
    let address = segment
        .start_lsn(size)
        .expect("a name of this size")
        .as_u64();
    let mut content = Vec::with_capacity(SEGMENT_BYTES);
    content.extend_from_slice(&0xD110_u16.to_le_bytes());
    content.extend_from_slice(&0x0002_u16.to_le_bytes());
    content.extend_from_slice(&segment.timeline().get().to_le_bytes());
    content.extend_from_slice(&address.to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    content.extend_from_slice(&system_identifier.to_le_bytes());
    content.extend_from_slice(&u32::try_from(SEGMENT_BYTES).expect("1 MiB").to_le_bytes());
    content.extend_from_slice(&8192_u32.to_le_bytes());
    let mut state = address ^ (u64::from(seed) << 56) ^ 0x9E37_79B9_7F4A_7C15;
    while content.len() < SEGMENT_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&state.to_le_bytes()[4..]);
        content.extend_from_slice(&[seed; 12]);
    }
    content.truncate(SEGMENT_BYTES);
    content
}

/// The content as it is stored under `codec`; as it is for a codec that nobody writes.
pub fn encode(codec: Codec, content: &[u8]) -> Vec<u8> {
    if !codec.can_write() {
        return content.to_vec();
    }
    let mut writer = Seal::unencrypted(codec)
        .writer(Vec::new())
        .expect("a codec");
    writer.write_all(content).expect("sealed");
    writer.finish().expect("sealed")
}
