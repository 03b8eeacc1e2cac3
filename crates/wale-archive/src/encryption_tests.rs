//! Encryption is never silently off: the record, its changes, and objects that are read whatever is recorded.

use std::sync::Arc;

use wale_format::crypt::age;
use wale_format::crypt::libsodium::{Key, KeyTransform};
use wale_format::{Codec, Encryption, KeyRing, Seal, WriteKey, layout};
use wale_pipeline::MemoryBudget;
use wale_storage::{MemoryStore, ObjectKey, Store};

use crate::error::{Kind, OpError};
use crate::remedy::Remedy;
use crate::testing::{Bench, SYSTEM_IDENTIFIER, cluster, file_name, segment};
use crate::{Archive, ArchiveOptions, Beginning, Clock};

const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const SEGMENT: &str = "000000010000000000000001";

fn sodium(byte: u8) -> Key {
    Key::parse(&format!("{byte:02x}").repeat(32), KeyTransform::Hex).expect("a key")
}

fn age_key() -> WriteKey {
    WriteKey::Age(age::Recipients::parse(RECIPIENT).expect("a recipient"))
}

fn age_ring() -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add_age(age::Identities::parse(IDENTITY).expect("an identity"));
    ring
}

fn sodium_ring(byte: u8) -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add_libsodium(sodium(byte));
    ring
}

/// An archive in that store with these keys.
#[expect(clippy::disallowed_methods, reason = "a seal of its own for each case")]
fn keyed(memory: &MemoryStore, key: WriteKey, ring: KeyRing, accepted: Option<&str>) -> Archive {
    let options = ArchiveOptions {
        store: Arc::new(memory.clone()),
        seal: Seal::new(Codec::Zstd.into(), key, ring),
        clock: Clock::System,
        budget: MemoryBudget::new(64 << 20),
        created_by: "wale test".to_owned(),
    };
    Archive::open_changing(options, accepted.map(str::to_owned))
}

async fn claim(archive: &Archive) -> Result<Vec<Encryption>, OpError> {
    let cluster = cluster(SYSTEM_IDENTIFIER);
    let identity = archive.ensure_identity(&cluster, &Beginning::Anew).await?;
    Ok(identity.encryptions.iter().map(|one| one.method).collect())
}

/// The word that a refusal tells to type.
async fn refused(archive: &Archive) -> String {
    let error = claim(archive).await.expect_err("another encryption");
    assert_eq!(error.kind, Kind::Configuration);
    assert!(error.hint.is_some());
    // What makes sure of less says the same, and so does the look at start.
    let still = archive.ensure_still_there().await.expect_err("the same");
    assert_eq!(still.message, error.message);
    let start = archive.belongs_to(&cluster(SYSTEM_IDENTIFIER)).await;
    assert_eq!(start.expect_err("the same").message, error.message);
    let Some(Remedy::EncryptionChange { word }) = error.remedy.as_deref() else {
        panic!("{error:?}");
    };
    word.clone()
}

fn text(memory: &MemoryStore) -> String {
    let key = ObjectKey::new(layout::IDENTITY).expect("a key");
    String::from_utf8(memory.content(&key).expect("there").to_vec()).expect("text")
}

#[tokio::test]
async fn what_is_recorded_at_first_use_is_not_changed_by_a_setting_that_is_missing() {
    let memory = MemoryStore::new();
    let ages = keyed(&memory, age_key(), KeyRing::default(), None);
    assert_eq!(claim(&ages).await.expect("claimed"), [Encryption::Age]);
    assert!(text(&memory).contains(RECIPIENT) && text(&memory).contains("\"format\": 2"));
    let before = (text(&memory), memory.keys());
    // The same keys: nothing is written.
    let again = keyed(&memory, age_key(), age_ring(), None);
    claim(&again).await.expect("the same");
    again
        .belongs_to(&cluster(SYSTEM_IDENTIFIER))
        .await
        .expect("the identity opens it");
    // No key, other keys, another method.
    let off = keyed(&memory, WriteKey::None, age_ring(), None);
    assert_eq!(refused(&off).await, "none");
    let other = WriteKey::Libsodium(sodium(3));
    let other = keyed(&memory, other, sodium_ring(3), Some("none"));
    let word = refused(&other).await;
    assert!(word.starts_with("libsodium-"), "{word}");
    assert_eq!((text(&memory), memory.keys()), before);
    // The word for it: recorded beside the old one.
    let other = WriteKey::Libsodium(sodium(3));
    let changed = keyed(&memory, other, sodium_ring(3), Some(&word));
    let methods = [Encryption::Age, Encryption::Libsodium];
    assert_eq!(claim(&changed).await.expect("accepted"), methods);
    assert!(
        !text(&memory).contains(&"03".repeat(8)),
        "no key is recorded"
    );
    // The word allows this change and no other, and the old configuration is refused now.
    let off = keyed(&memory, WriteKey::None, KeyRing::default(), Some(&word));
    refused(&off).await;
    refused(&ages).await;
    let off = keyed(&memory, WriteKey::None, KeyRing::default(), Some("none"));
    assert_eq!(claim(&off).await.expect("accepted").len(), 3);
    assert!(
        text(&memory).contains("\"format\": 2"),
        "an old wale goes on refusing it"
    );
}

#[tokio::test]
async fn an_archive_in_the_clear_may_begin_to_encrypt() {
    let bench = Bench::new();
    bench.claim().await;
    assert!(text(&bench.memory).contains("\"format\": 1"));
    assert!(!text(&bench.memory).contains("encryptions"));
    let ages = keyed(&bench.memory, age_key(), KeyRing::default(), None);
    let (one, two) = tokio::join!(claim(&ages), claim(&ages));
    assert_eq!(one.expect("begun"), [Encryption::Age]);
    assert_eq!(two.expect("begun"), [Encryption::Age], "once");
    refused(&bench.archive).await;
}

#[tokio::test]
async fn a_reading_key_is_tried_at_start() {
    let memory = MemoryStore::new();
    claim(&keyed(&memory, age_key(), KeyRing::default(), None))
        .await
        .expect("claimed");
    let mut wrong = KeyRing::default();
    let ed25519 = include_str!("../testdata/another-identity.txt");
    wrong.add_age(age::Identities::parse(ed25519).expect("an identity"));
    let wrong = keyed(&memory, age_key(), wrong, None);
    let error = wrong
        .belongs_to(&cluster(SYSTEM_IDENTIFIER))
        .await
        .expect_err("another key");
    assert_eq!(error.kind, Kind::Configuration);
    assert_eq!(
        error.locked().expect("locked").method,
        Some(Encryption::Age)
    );
    let test = memory
        .keys()
        .into_iter()
        .find(|key| key.as_str().starts_with("wale_sealed_test_"));
    let test = test.expect("there");
    assert!(layout::is_ours(test.as_str()));
    // Cut: that is damage. Gone: nothing is said.
    let right = keyed(&memory, age_key(), age_ring(), None);
    let sealed = memory.content(&test).expect("there");
    memory.insert(&test, sealed.slice(..sealed.len() - 1));
    let error = right
        .belongs_to(&cluster(SYSTEM_IDENTIFIER))
        .await
        .expect_err("cut");
    assert_eq!(error.kind, Kind::CorruptData);
    memory.delete(&test).await.expect("deleted");
    right
        .belongs_to(&cluster(SYSTEM_IDENTIFIER))
        .await
        .expect("nothing is said");
}

/// A segment, as `archive` seals it.
fn store(archive: &Archive, memory: &MemoryStore, name: &str) {
    let sealed = archive
        .seal_small_as(archive.codec(), &segment(name, 1))
        .expect("sealed");
    let key = layout::wal(&file_name(name), Codec::Zstd);
    memory.insert(&ObjectKey::new(&key).expect("a key"), sealed);
}

#[tokio::test]
async fn a_host_with_public_keys_only_takes_what_it_wrote_for_good_and_nothing_else() {
    let memory = MemoryStore::new();
    let writer = keyed(&memory, age_key(), KeyRing::default(), None);
    store(&writer, &memory, SEGMENT);
    let name = file_name(SEGMENT);
    let stored = writer.find_wal(&name).await.expect("asked").expect("there");
    let error = writer.read_wal_header(&stored).await.expect_err("no key");
    assert_eq!(error.kind, Kind::Configuration);
    assert_eq!(
        error.remedy.as_deref(),
        Some(&Remedy::ReadingKey {
            method: Some(Encryption::Age)
        })
    );
    assert!(writer.has_readable(&name).await.expect("asked"));
    let reader = keyed(&memory, age_key(), age_ring(), None);
    reader.read_wal_header(&stored).await.expect("read");
    for other in [
        keyed(&memory, WriteKey::None, KeyRing::default(), None),
        keyed(
            &memory,
            WriteKey::Libsodium(sodium(1)),
            sodium_ring(1),
            None,
        ),
    ] {
        assert!(!other.has_readable(&name).await.expect("asked"));
    }
}

#[tokio::test]
async fn what_another_tool_encrypted_is_not_gone_on_with_in_the_clear() {
    let memory = MemoryStore::new();
    let wal_g = keyed(
        &memory,
        WriteKey::Libsodium(sodium(5)),
        sodium_ring(5),
        None,
    );
    store(&wal_g, &memory, SEGMENT);
    let before = memory.keys();
    let reads = || sodium_ring(5);
    for (key, ring) in [
        (WriteKey::None, reads()),
        (WriteKey::None, KeyRing::default()),
        (age_key(), reads()),
        (WriteKey::Libsodium(sodium(6)), sodium_ring(6)),
    ] {
        let error = claim(&keyed(&memory, key, ring, None))
            .await
            .expect_err("refused");
        assert_eq!(error.kind, Kind::Configuration, "{error}");
        assert!(error.remedy.is_some() || error.hint.expect("advice").contains("key"));
    }
    assert_eq!(memory.keys(), before);
    let same = keyed(&memory, WriteKey::Libsodium(sodium(5)), reads(), None);
    assert_eq!(
        claim(&same).await.expect("adopted"),
        [Encryption::Libsodium]
    );
    let again = MemoryStore::new();
    store(&wal_g, &again, SEGMENT);
    let off = keyed(&again, WriteKey::None, reads(), Some("none"));
    assert_eq!(claim(&off).await.expect("accepted"), []);
}
