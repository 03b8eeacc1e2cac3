//! A host with public keys only is handed a segment again: what it cannot open is compared by the digest, or the push is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use wale_archive::{Archive, ArchiveOptions, Beginning, Clock, OpError, Remedy};
use wale_format::crypt::age;
use wale_format::{Codec, Encryption, KeyRing, Seal, WriteKey, layout};
use wale_pipeline::MemoryBudget;
use wale_storage::{MemoryStore, ObjectKey};

use super::PushOutcome::{AlreadyStored, KeptBeside, Stored};
use super::*;
use crate::error::Kind;
use crate::testing::{Bench, SEGMENT_BYTES, SYSTEM_IDENTIFIER, cluster, file_name, once, segment};

const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const FIRST: &str = "000000010000000000000001";

/// The archive of a database host, whose data directory is the bench's own folder.
struct Host {
    bench: Bench,
    archive: Archive,
}

#[expect(clippy::disallowed_methods, reason = "a seal of its own for each case")]
fn archive(memory: &MemoryStore, has_identity: bool) -> Archive {
    let key = WriteKey::Age(age::Recipients::parse(RECIPIENT).expect("a recipient"));
    let mut ring = KeyRing::default();
    if has_identity {
        ring.add_age(age::Identities::parse(IDENTITY).expect("an identity"));
    }
    Archive::open(ArchiveOptions {
        store: Arc::new(memory.clone()),
        seal: Seal::new(Codec::Zstd.into(), key, ring),
        clock: Clock::System,
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    })
}

/// The control file of PostgreSQL 15, of the tests' cluster, with this nonce and timeline.
fn control_file(folder: &Path, nonce: u8, timeline: u32) {
    let mut bytes = include_bytes!("../../../wale-pg/testdata/control_file/15").to_vec();
    bytes[0..8].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
    bytes[228..232].copy_from_slice(&u32::try_from(SEGMENT_BYTES).unwrap().to_le_bytes());
    bytes[48..52].copy_from_slice(&timeline.to_le_bytes());
    bytes[256..288].fill(nonce);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..288]);
    bytes[288..292].copy_from_slice(&u32::try_from(crc).unwrap().to_le_bytes());
    fs::create_dir_all(folder.join("global")).expect("a folder");
    fs::write(folder.join("global/pg_control"), bytes).expect("written");
}

impl Host {
    async fn new() -> Self {
        let bench = Bench::new();
        control_file(bench.folder(), 1, 1);
        let archive = archive(&bench.memory, false);
        let cluster = cluster(SYSTEM_IDENTIFIER);
        let claimed = archive.ensure_identity(&cluster, &Beginning::Anew).await;
        claimed.expect("claimed");
        Self { bench, archive }
    }

    async fn push_with(
        &self,
        archive: &Archive,
        has_data: bool,
        name: &str,
        content: &[u8],
    ) -> Result<PushReport, OpError> {
        let name = self.bench.ready(name, content);
        let data = self.bench.folder().to_owned();
        let options = PushOptions {
            data_directory: has_data.then_some(data),
            ..once()
        };
        // Another process each time.
        archive.forget_looks();
        run(archive, &self.bench.wal, &name, &options).await
    }

    async fn push(&self, content: &[u8]) -> Result<PushReport, OpError> {
        self.push_with(&self.archive, true, FIRST, content).await
    }
}

fn refused(error: &OpError) {
    assert_eq!(error.kind, Kind::Configuration, "{error:?}");
    assert!(error.message.contains("cannot be compared"), "{error}");
    assert!(error.hint.as_ref().expect("advice").contains("secret key"));
    let method = Some(Encryption::Age);
    assert_eq!(
        error.remedy.as_deref(),
        Some(&Remedy::ReadingKey { method })
    );
}

#[tokio::test]
async fn row_37_a_host_without_the_secret_key_is_handed_the_same_segment_again() {
    let host = Host::new().await;
    let stored = host.push(&segment(FIRST, 1)).await.expect("stored");
    assert_eq!(stored.outcome, Stored);
    let before = host
        .bench
        .memory
        .content(&ObjectKey::new(&stored.key).unwrap());
    for _ in 0..6 {
        let again = host.push(&segment(FIRST, 1)).await.expect("there");
        assert_eq!((again.outcome, again.beside), (AlreadyStored, None));
        assert_eq!(again.key, stored.key);
    }
    let after = host
        .bench
        .memory
        .content(&ObjectKey::new(&stored.key).unwrap());
    assert!(before == after && host.bench.wal_keys().len() == 1);
    // With the secret key it is opened and compared, with or without the control file.
    let reader = archive(&host.bench.memory, true);
    for has_data in [true, false] {
        let same = segment(FIRST, 1);
        let again = host.push_with(&reader, has_data, FIRST, &same).await;
        assert_eq!(again.expect("there").outcome, AlreadyStored);
        let other = segment(FIRST, 2);
        let error = host.push_with(&reader, has_data, FIRST, &other).await;
        assert_eq!(error.expect_err("taken").kind, Kind::ArchiveConflict);
    }
}

#[tokio::test]
async fn row_38_other_bytes_are_refused_without_the_secret_key_too() {
    let host = Host::new().await;
    host.push(&segment(FIRST, 1)).await.expect("stored");
    let mut one_bit = segment(FIRST, 1);
    one_bit[SEGMENT_BYTES - 1] ^= 1;
    for other in [segment(FIRST, 2), one_bit] {
        let error = host.push(&other).await.expect_err("taken");
        assert_eq!(error.kind, Kind::ArchiveConflict, "{error:?}");
    }
    // Another cluster's nonce: its digests are not ours.
    control_file(host.bench.folder(), 2, 1);
    let error = host.push(&segment(FIRST, 1)).await.expect_err("taken");
    assert_eq!(error.kind, Kind::ArchiveConflict);
    assert_eq!(host.bench.wal_keys().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_and_nothing_is_stored_beside_it() {
    let host = Host::new().await;
    let same = segment(FIRST, 1);
    // Stored with a digest, pushed again where no control file is known.
    host.push(&same).await.expect("stored");
    let error = host.push_with(&host.archive, false, FIRST, &same).await;
    refused(&error.expect_err("no control file"));
    // Stored without one: by an older wale, or where no control file was known. Under another codec as well.
    for codec in [Codec::Zstd, Codec::Lz4] {
        let host = Host::new().await;
        let key = ObjectKey::new(&layout::wal(&file_name(FIRST), codec)).unwrap();
        let sealed = host.archive.seal_small_as(codec, &same).expect("sealed");
        host.bench.memory.insert(&key, sealed);
        for has_data in [true, false] {
            let error = host.push_with(&host.archive, has_data, FIRST, &same).await;
            refused(&error.expect_err("no digest"));
        }
        assert_eq!(host.bench.wal_keys(), [key.to_string()]);
        // What the refusal says helps.
        let reader = archive(&host.bench.memory, true);
        let again = host.push_with(&reader, false, FIRST, &same).await;
        assert_eq!(again.expect("compared").outcome, AlreadyStored);
    }
    let bare = Host::new().await;
    let stored = bare.push_with(&bare.archive, false, FIRST, &same).await;
    assert_eq!(stored.expect("stored").outcome, Stored);
    refused(&bare.push(&same).await.expect_err("no digest"));
    assert_eq!(bare.bench.wal_keys().len(), 1);
}

#[tokio::test]
async fn a_forged_digest_acknowledges_nothing() {
    let host = Host::new().await;
    // Somebody has the public key and the store, not the nonce: a digest of his own, and one of another name's object.
    let second = "000000010000000000000002";
    let same = segment(second, 1);
    let other = host.push_with(&host.archive, true, second, &same).await;
    let other = ObjectKey::new(&other.expect("stored").key).unwrap();
    let moved = host.bench.memory.content(&other).expect("there");
    let digest = wale_format::ContentDigest::new([9; 32]);
    let (mut writer, body) = host
        .archive
        .sealed_wal(&file_name(FIRST), Codec::Zstd, 1 << 20, Some(digest))
        .expect("sealed");
    let written = tokio::task::spawn_blocking(move || {
        std::io::Write::write_all(&mut writer, &segment(FIRST, 2)).expect("written");
        let chunks = writer.finish().expect("written");
        chunks.finish().expect("written");
    });
    let pieces: Vec<bytes::Bytes> = futures_util::TryStreamExt::try_collect(body)
        .await
        .expect("whole");
    written.await.expect("joined");
    let key = ObjectKey::new(&layout::wal(&file_name(FIRST), Codec::Zstd)).unwrap();
    for forged in [pieces.concat().into(), moved] {
        host.bench.memory.insert(&key, forged);
        let error = host.push(&segment(FIRST, 1)).await.expect_err("taken");
        assert_eq!(error.kind, Kind::ArchiveConflict, "{error:?}");
    }
    assert_eq!(host.bench.wal_keys().len(), 2);
}

#[tokio::test]
async fn histories_and_partial_segments_go_their_old_way() {
    let host = Host::new().await;
    let history = b"1\t0/3000000\tno recovery target specified\n";
    for outcome in [Stored, AlreadyStored] {
        let pushed = host
            .push_with(&host.archive, true, "00000002.history", history)
            .await;
        assert_eq!(pushed.expect("in the clear").outcome, outcome);
    }
    let partial = format!("{FIRST}.partial");
    for (seed, outcome) in [
        (1, Stored),
        (1, AlreadyStored),
        (2, KeptBeside),
        (2, AlreadyStored),
    ] {
        let content = segment(FIRST, seed);
        let pushed = host
            .push_with(&host.archive, true, &partial, &content)
            .await;
        assert_eq!(pushed.expect("kept").outcome, outcome, "{seed}");
    }
}

#[tokio::test]
async fn a_file_of_a_left_timeline_that_differs_is_refused_with_the_reason() {
    let host = Host::new().await;
    let stored = segment(FIRST, 1);
    host.push(&stored).await.expect("stored");
    let history = b"1\t0/180000\tno recovery target specified\n";
    host.bench.write("00000002.history", history);
    control_file(host.bench.folder(), 1, 2);
    assert_eq!(
        host.push(&stored).await.expect("same").outcome,
        AlreadyStored
    );
    let mut longer = stored;
    longer[SEGMENT_BYTES - 1] ^= 1;
    let error = host
        .push(&longer)
        .await
        .expect_err("not known up to the fork");
    refused(&error);
    assert!(error.detail.as_ref().expect("why").contains("fork"));
    assert_eq!(host.bench.wal_keys().len(), 1);
}
