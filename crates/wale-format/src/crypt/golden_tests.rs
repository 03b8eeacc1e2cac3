//! Objects that the real WAL-G 3.0.9 encrypted with libsodium; `testdata/README.md` says where they come from.

use std::io::Cursor;

use sha2::{Digest, Sha256};

use super::libsodium::{Key, KeyTransform};
use super::*;
use crate::codec::Content;
use crate::{Codec, Seal, hex};

/// The key of these objects and of nothing else.
const KEY: &str = "9839b4ea10b3619fed8b0d0091963bacda5881c01a4176f520dbc70f62d44bb7";

/// An object, what it holds, and length and SHA-256 of that.
struct Golden(&'static [u8], Content, u64, &'static str);

macro_rules! golden {
    ($name:literal, $content:ident, $bytes:literal, $sha256:literal) => {
        Golden(
            include_bytes!(concat!("../../testdata/wal-g-3.0.9/libsodium/", $name)),
            Content::$content,
            $bytes,
            $sha256,
        )
    };
}

#[rustfmt::skip]
const OBJECTS: [Golden; 7] = [
    golden!("000000010000000000000002.zst", Wal, 16_777_216, "5a268400415f370866ee11d4dc47f3cbe1716733edbbaae9dedbc66eeb4bff26"),
    golden!("000000010000000000000004.zst", Wal, 16_777_216, "0613df467ebb21106f8d81fbc9cc29bdedae7dabe20a0a6e4c69d9b4d15ab682"),
    golden!("000000010000000000000005.zst", Wal, 16_777_216, "8a1dff8855b543c4757478890e90ca244ed21c955d69e78363c1e2c3e5256267"),
    golden!("000000010000000000000002.00000028.backup.zst", Text, 362, "0d4958c3f0480bf67586a09b677d294d79ed747059010f2ac25b4f74c64ec193"),
    golden!("pg_control.tar.zst", Tar, 9728, "f55379613ba0e478f30ad5ce98756e23f63855453f73eae488aa09a1bc86d1bf"),
    golden!("backup_label.tar.zst", Tar, 2560, "cebb1ddf70c5cb9284c618e78b9953d14f08d91ea4450b86a69ccd95ab1ea60f"),
    golden!("part_001.tar.zst", Tar, 561_664, "96ba28a70b571adb0e2a71bab2b3e2315ccfe607de95b9a61843bc81a783f009"),
];

fn seal(ring: KeyRing) -> Seal {
    Seal::new(Codec::Zstd.into(), WriteKey::None, ring)
}

fn ring(transform: KeyTransform) -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add_libsodium(Key::parse(KEY, transform).unwrap());
    ring
}

#[test]
fn what_wal_g_encrypted_is_read() {
    let seal = seal(ring(KeyTransform::Hex));
    for Golden(stored, content, bytes, sha256) in OBJECTS {
        let reader = seal.reader(Cursor::new(stored)).unwrap();
        assert_eq!(reader.encryption(), Encryption::Libsodium);
        assert_eq!(reader.locked(content), None);
        let mut plain = Vec::new();
        let mut content = reader.plain(8 << 20).unwrap();
        content.read_to_end(&mut plain).unwrap();
        assert_eq!(plain.len() as u64, bytes);
        assert_eq!(hex(&Sha256::digest(&plain)), sha256);
    }
}

/// The trap of this archive: without the transform the key is another, and every object stays shut. None is damaged.
#[test]
fn with_another_key_each_is_locked_and_none_is_damaged() {
    for (ring, has_key) in [
        (ring(KeyTransform::None), true),
        (KeyRing::default(), false),
    ] {
        let seal = seal(ring);
        for Golden(stored, content, _, _) in OBJECTS {
            let reader = seal.reader(Cursor::new(stored)).unwrap();
            let locked = reader.locked(content).expect("it looks like noise");
            assert_eq!((locked.method, locked.has_key), (None, has_key));
        }
    }
}

#[test]
fn each_cut_between_two_chunks_of_wal_gs_is_noticed() {
    let key = Key::parse(KEY, KeyTransform::Hex).unwrap();
    for Golden(stored, ..) in OBJECTS {
        for cut in (24..stored.len()).step_by(8209) {
            let mut reader = libsodium::reader(&key, &stored[..cut]).unwrap();
            reader.read_to_end(&mut Vec::new()).unwrap_err();
        }
    }
}
