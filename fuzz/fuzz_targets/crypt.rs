//! Encrypted objects as they come from the store, and the texts of keys: the first byte chooses.
//!
//! Whatever the bytes are, the reader ends with an error or with its output, in bounded memory. A secret stream whose MACs are right
//! is read to its end exactly if it is framed as WAL-G frames it. What is written is read, and never after a change of one byte.

#![no_main]

use std::io::{Cursor, Read, Write};

use dryoc::classic::crypto_secretstream_xchacha20poly1305 as stream;
use libfuzzer_sys::fuzz_target;
use wale_format::codec::Content;
use wale_format::crypt::age::{Identities, Recipients};
use wale_format::crypt::libsodium::{self, Key, KeyTransform};
use wale_format::{Codec, KeyRing, Seal, WriteKey};

const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn key() -> Key {
    Key::parse(KEY, KeyTransform::Hex).expect("a key")
}

fn seal(key: WriteKey) -> Seal {
    let mut ring = KeyRing::default();
    ring.add_libsodium(self::key());
    ring.add_age(Identities::parse(IDENTITY).expect("an identity"));
    Seal::new(Codec::None.into(), key, ring)
}

/// Reads an object to its end.
fn read(stored: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let reader = seal(WriteKey::None).reader(Cursor::new(stored))?;
    let _ = reader.locked(Content::Wal);
    let mut plain = Vec::new();
    reader.plain(8 << 20)?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// A stream with right MACs and whatever chunks: two bytes say the length, one the tag.
fn chunks(data: &[u8]) {
    let (mut state, mut header) = (stream::State::new(), stream::Header::default());
    let raw = [7; 32];
    stream::crypto_secretstream_xchacha20poly1305_init_push(&mut state, &mut header, &raw);
    let mut stored = header.to_vec();
    let mut plain = Vec::new();
    let (mut is_good, mut is_over) = (true, false);
    for chunk in data.chunks_exact(3).take(64) {
        let bytes = usize::from(u16::from_le_bytes([chunk[0], chunk[1]])) % 8300;
        // Mostly those that WAL-G writes.
        let (bytes, tag) = match chunk[2] {
            0..128 => (8192, 0),
            128..192 => (bytes % 8192, 3),
            other => (bytes, other % 4),
        };
        let content = vec![chunk[0]; bytes];
        let mut sealed = vec![0; bytes + 17];
        stream::crypto_secretstream_xchacha20poly1305_push(&mut state, &mut sealed, &content, None, tag)
            .expect("the room fits");
        stored.extend(sealed);
        plain.extend(content);
        is_good &= !is_over && matches!((bytes, tag), (8192, 0) | (..8192, 3));
        is_over |= tag == 3;
    }
    let mut found = Vec::new();
    let read = libsodium::reader(&key(), &stored[..]).and_then(|mut reader| reader.read_to_end(&mut found));
    assert_eq!(read.is_ok(), is_good && is_over);
    if read.is_ok() {
        assert_eq!(found, plain);
    }
}

/// There and back, and back after a change.
fn round(key: WriteKey, data: &[u8]) {
    let Some((at, plain)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut writer = seal(key).writer(Vec::new()).expect("a vector takes everything");
    writer.write_all(plain).expect("a vector takes everything");
    let mut stored = writer.finish().expect("a vector takes everything");
    assert_eq!(read(stored.clone()).expect("what is written is read"), plain);
    let at = usize::from(u16::from_le_bytes(*at)) % stored.len();
    stored[at] ^= 1;
    if let Ok(found) = read(stored) {
        // It is not recognised any more, and without a codec everything is plain.
        assert!(found != plain || plain.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    match first % 5 {
        0 => drop(read(rest.to_vec())),
        1 => chunks(rest),
        2 => round(WriteKey::Libsodium(key()), rest),
        3 => round(WriteKey::Age(Recipients::parse(RECIPIENT).expect("a recipient")), rest),
        _ => {
            let text = String::from_utf8_lossy(rest);
            if let Ok(recipients) = Recipients::parse(&text) {
                assert!(!recipients.fingerprints().is_empty());
            }
            let _ = Identities::parse(&text);
            for transform in KeyTransform::ALL {
                let _ = Key::parse(&text, transform);
            }
            let _ = libsodium::looks_encoded(&text);
        }
    }
});
