//! Both methods at every border of their chunks, cut, changed and lengthened; golden objects of WAL-G are in `golden_tests`.

use std::io::{Cursor, ErrorKind};

use super::libsodium::KeyTransform;
use super::*;
use crate::codec::Content;
use crate::{Codec, Seal};

const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

const LENGTHS: [usize; 12] = [
    0,
    1,
    17,
    8191,
    8192,
    8193,
    16_384,
    16_385,
    65_535,
    65_536,
    65_537,
    1 << 20,
];

fn sodium(byte: u8) -> libsodium::Key {
    libsodium::Key::parse(&format!("{byte:02x}").repeat(32), KeyTransform::Hex).unwrap()
}

fn methods() -> [(WriteKey, KeyRing); 2] {
    let mut both = KeyRing::default();
    both.add_libsodium(sodium(9));
    both.add_libsodium(sodium(7));
    both.add_age(age::Identities::parse(IDENTITY).unwrap());
    [
        (WriteKey::Libsodium(sodium(7)), both.clone()),
        (
            WriteKey::Age(age::Recipients::parse(RECIPIENT).unwrap()),
            both,
        ),
    ]
}

fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(bytes)
    .collect()
}

fn encrypt(key: &WriteKey, plain: &[u8]) -> Vec<u8> {
    let mut writer = key.writer(Vec::new()).unwrap();
    for piece in plain.chunks(5000) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap()
}

fn decrypt(ring: &KeyRing, stored: &[u8]) -> io::Result<Vec<u8>> {
    let head = &stored[..stored.len().min(ring.head_bytes())];
    let recognised = ring.recognise(head);
    let mut plain = Vec::new();
    ring.open(&recognised, Cursor::new(stored.to_vec()))?
        .read_to_end(&mut plain)?;
    Ok(plain)
}

/// What an object says of its keys, whoever holds them.
#[test]
fn an_object_shows_how_it_is_encrypted_and_for_whom_without_a_key() {
    const SSH: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
    let two = age::Recipients::parse(&format!("{RECIPIENT},{SSH}")).unwrap();
    let to_two = encrypt(&WriteKey::Age(two), b"text");
    let shown = |ring: KeyRing, stored: &[u8]| {
        let seal = Seal::new(Codec::None.into(), WriteKey::None, ring);
        seal.shown(Cursor::new(stored.to_vec()), Content::Text)
            .unwrap()
    };
    let [_, (_, all)] = methods();
    let none = KeyRing::default();
    let locked = shown(none.clone(), &to_two).expect("encrypted");
    assert_eq!(locked.method, Some(Encryption::Age));
    assert_eq!(locked.keys.len(), 2, "{locked:?}");
    assert_eq!(locked.keys[0], "X25519");
    assert!(locked.keys[1].starts_with("ssh-ed25519 "), "{locked:?}");
    assert_eq!(locked.locked.map(|locked| locked.has_key), Some(false));
    let open = shown(all.clone(), &to_two).expect("encrypted");
    assert_eq!((open.keys, open.locked), (locked.keys, None));
    // Noise names nothing, but the key that opens it.
    let sodium_stream = encrypt(&WriteKey::Libsodium(sodium(7)), b"text");
    let open = shown(all, &sodium_stream).expect("encrypted");
    assert_eq!(open.method, Some(Encryption::Libsodium));
    assert_eq!(open.keys, [sodium(7).fingerprint()]);
    let locked = shown(none.clone(), &sodium_stream).expect("encrypted");
    assert_eq!((locked.method, locked.keys.len()), (None, 0));
    assert!(locked.locked.is_some());
    assert_eq!(shown(none.clone(), b"text"), None);
    // What a stranger writes into a header is told only where it is a word, and not more than some.
    let stanzas: Vec<String> = (0..100).map(|n| format!("-> kind{n} x\nx\n")).collect();
    let stanzas = stanzas.concat();
    let odd = "-> \u{1b}[31m x\nx\n-> x-grease y\nx\n-> wale-content-v1\nx\n-> \n";
    let header = format!("age-encryption.org/v1\n{odd}{stanzas}--- x\n");
    let told = age::recipients_of(header.as_bytes());
    assert_eq!(told.len(), 16);
    assert_eq!(told[0], "kind0");
}

#[test]
fn every_length_comes_back() {
    for (key, ring) in methods() {
        for bytes in LENGTHS {
            let plain = sample(bytes);
            let stored = encrypt(&key, &plain);
            assert!(decrypt(&ring, &stored).unwrap() == plain, "{key:?} {bytes}");
            if matches!(key, WriteKey::Libsodium(_)) {
                let expected = 24 + bytes + 17 * (bytes / 8192 + 1);
                assert_eq!(stored.len(), expected, "{bytes}");
            }
        }
    }
}

#[test]
fn every_cut_is_noticed_those_between_two_chunks_too() {
    for (key, ring) in methods() {
        let plain = sample(3 * 65_536);
        let stored = encrypt(&key, &plain);
        let header = stored.len() - 3 * (65_536 + 16);
        let borders = match &key {
            WriteKey::Libsodium(_) => (0..25).map(|n| 24 + n * 8209).collect::<Vec<_>>(),
            _ => (0..3).map(|n| header + n * 65_552).collect(),
        };
        for border in borders {
            for cut in [border.saturating_sub(1), border, border + 1, border + 16] {
                let cut = cut.min(stored.len() - 1);
                let error = decrypt_whole(&key, &ring, &stored[..cut]).unwrap_err();
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::InvalidData
                    ),
                    "{key:?} {cut}: {error}"
                );
            }
        }
    }
}

/// As an object that was recognised by a head which is whole: what was cut is behind it.
fn decrypt_whole(key: &WriteKey, ring: &KeyRing, stored: &[u8]) -> io::Result<Vec<u8>> {
    let recognised = match key {
        WriteKey::Libsodium(key) => Recognised::Libsodium(key),
        _ => Recognised::Age,
    };
    let mut plain = Vec::new();
    ring.open(&recognised, Cursor::new(stored.to_vec()))?
        .read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn a_flipped_bit_is_never_plain_and_never_the_end() {
    for (key, ring) in methods() {
        let plain = sample(70_000);
        let stored = encrypt(&key, &plain);
        let header = stored.len() - 70_000 - 32;
        let places = (0..stored.len())
            .step_by(997)
            .chain([header, header + 15, header + 16]);
        for at in places.chain([stored.len() - 1, stored.len() - 17]) {
            let mut changed = stored.clone();
            changed[at] ^= 0x10;
            let error = decrypt_whole(&key, &ring, &changed).unwrap_err();
            let is_header = matches!(key, WriteKey::Age(_)) && at < header;
            let kinds = [ErrorKind::InvalidData, ErrorKind::UnexpectedEof];
            let is_told = kinds.contains(&error.kind()) || is_header;
            assert!(is_told, "{key:?} {at}: {error}");
        }
    }
}

#[test]
fn nothing_may_follow_and_a_failure_stays() {
    for (key, ring) in methods() {
        for bytes in [0, 100, 8192, 65_536] {
            for more in [1, 17, 8209, 70_000] {
                let stored = [encrypt(&key, &sample(bytes)), vec![7; more]].concat();
                let head = &stored[..stored.len().min(ring.head_bytes())];
                let recognised = match &key {
                    WriteKey::Libsodium(key) => Recognised::Libsodium(key),
                    _ => ring.recognise(head),
                };
                let mut reader = ring.open(&recognised, Cursor::new(stored.clone())).unwrap();
                let mut plain = Vec::new();
                reader.read_to_end(&mut plain).unwrap_err();
                for _ in 0..3 {
                    reader.read(&mut [0; 8]).unwrap_err();
                }
            }
        }
    }
}

#[test]
fn another_key_opens_nothing_and_says_no_damage() {
    for (key, _) in methods() {
        let mut seal = Seal::new(Codec::Zstd.into(), key.clone(), KeyRing::default());
        let mut writer = seal.writer(Vec::new()).unwrap();
        writer.write_all(&sample(20_000)).unwrap();
        let stored = writer.finish().unwrap();
        let other = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQSJ9FXHU";
        let mut rings = vec![KeyRing::default()];
        if let Ok(identities) = age::Identities::parse(other) {
            let mut ring = KeyRing::default();
            ring.add_age(identities);
            rings.push(ring);
        }
        let mut ring = KeyRing::default();
        ring.add_libsodium(sodium(1));
        rings.push(ring);
        for ring in rings {
            seal = Seal::new(Codec::Zstd.into(), WriteKey::None, ring);
            let reader = seal.reader(Cursor::new(stored.clone())).unwrap();
            let locked = reader.locked(Content::Wal).expect("locked");
            match key {
                WriteKey::Age(_) => assert_eq!(locked.method, Some(Encryption::Age)),
                _ => assert_eq!(locked.method, None),
            }
            let read = reader
                .plain(8 << 20)
                .and_then(|mut plain| plain.read(&mut [0; 8]));
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}

#[test]
fn an_archive_of_several_keys_and_of_none_is_read_whole() {
    let plain = sample(100_000);
    let mut ring = KeyRing::default();
    ring.add_libsodium(sodium(1));
    ring.add_libsodium(sodium(2));
    ring.add_age(age::Identities::parse(IDENTITY).unwrap());
    let keys = [
        WriteKey::None,
        WriteKey::Libsodium(sodium(1)),
        WriteKey::Libsodium(sodium(2)),
        WriteKey::Age(age::Recipients::parse(RECIPIENT).unwrap()),
    ];
    let reads = Seal::new(Codec::Zstd.into(), WriteKey::None, ring);
    for codec in Codec::ALL_WRITABLE {
        for key in &keys {
            let seal = Seal::new(codec.into(), key.clone(), KeyRing::default());
            let mut writer = seal.writer(Vec::new()).unwrap();
            writer.write_all(&plain).unwrap();
            let stored = writer.finish().unwrap();
            let reader = reads.with_codec(codec).reader(Cursor::new(stored)).unwrap();
            assert_eq!(reader.encryption(), key.method());
            if codec != Codec::None {
                assert_eq!(reader.locked(Content::Tar), None);
            }
            let mut read = Vec::new();
            reader
                .plain(8 << 20)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == plain, "{codec} {key:?}");
        }
    }
}

#[test]
fn keys_of_libsodium_are_wal_gs() {
    use super::libsodium::{Key, SodiumKeyError, looks_encoded};
    let hex = "9839b4ea10b3619fed8b0d0091963bacda5881c01a4176f520dbc70f62d44bb7";
    let base64 = "mDm06hCzYZ/tiw0AkZY7rNpYgcAaQXb1INvHD2LUS7c=";
    let key = Key::parse(hex, KeyTransform::Hex).unwrap();
    assert_eq!(key, Key::parse(base64, KeyTransform::Base64).unwrap());
    assert_eq!(
        key,
        Key::parse(&hex.to_uppercase(), KeyTransform::Hex).unwrap()
    );
    // The first 32 characters, zeros behind fewer.
    let text = Key::parse(hex, KeyTransform::None).unwrap();
    assert_ne!(key, text);
    assert_eq!(text, Key::parse(&hex[..32], KeyTransform::None).unwrap());
    let short = "a".repeat(25);
    let padded = Key::parse(&format!("{short}\0\0\0\0\0\0\0"), KeyTransform::None);
    assert_eq!(Key::parse(&short, KeyTransform::None), padded);
    let too_short = Key::parse(&short[1..], KeyTransform::None);
    assert_eq!(too_short, Err(SodiumKeyError::TooShort { found: 24 }));
    for (bad, transform) in [
        (&hex[1..], KeyTransform::Hex),
        (&hex[2..], KeyTransform::Hex),
        (base64, KeyTransform::Hex),
        (hex, KeyTransform::Base64),
        (&base64[..43], KeyTransform::Base64),
    ] {
        assert_eq!(
            Key::parse(bad, transform),
            Err(SodiumKeyError::Encoding { transform })
        );
    }
    assert_eq!(looks_encoded(hex), Some(KeyTransform::Hex));
    assert_eq!(looks_encoded(base64), Some(KeyTransform::Base64));
    assert_eq!(
        looks_encoded("correct horse battery staple, four words"),
        None
    );
    let shown = format!("{key:?}");
    assert!(
        !shown.contains(&hex[..8]) && !shown.contains("98"),
        "{shown}"
    );
    assert_eq!(key.fingerprint().len(), 32);
}

const SSH: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@rust";

#[test]
fn recipients_and_identities_come_from_text() {
    use super::age::{AgeKeyError, Identities, Recipients};
    let text = format!("# the office\n{RECIPIENT}, {SSH}\n\n{RECIPIENT}\n");
    let recipients = Recipients::parse(&text).unwrap();
    let prints = recipients.fingerprints();
    assert_eq!(prints.len(), 2);
    assert!(
        prints[0].starts_with("SHA256:") && prints[1] == RECIPIENT,
        "{prints:?}"
    );
    for (text, word) in [
        ("", "no key"),
        ("# nothing", "no key"),
        (IDENTITY, "secret"),
        ("age1yubikey1qwert", "plugin"),
        ("age1qqq", "no public key of age"),
        ("ssh-rsa AAAA", "OpenSSH"),
        ("0xDEADBEEF", "neither"),
    ] {
        let told = Recipients::parse(text).unwrap_err().to_string();
        assert!(told.contains(word), "{text}: {told}");
        assert!(text.is_empty() || !told.contains(text), "{told}");
    }
    Identities::parse(&format!(
        "# made\n# public key: x\n{IDENTITY}\r\n\n{IDENTITY}\n"
    ))
    .unwrap();
    for (text, error) in [
        ("# none\n", AgeKeyError::None),
        ("# a\nAGE-SECRET-KEY-1QQ\n", AgeKeyError::Line { number: 2 }),
        (RECIPIENT, AgeKeyError::Line { number: 1 }),
    ] {
        assert_eq!(Identities::parse(text).unwrap_err(), error);
    }
}

#[test]
fn a_word_is_another_for_other_keys() {
    let [(one, _), (two, _)] = methods();
    assert_eq!(WriteKey::None.word(), "none");
    assert!(one.word().starts_with("libsodium-") && one.word().len() == 18);
    assert!(two.word().starts_with("age-"));
    assert_ne!(one.word(), WriteKey::Libsodium(sodium(8)).word());
}

#[test]
fn a_header_of_age_has_a_bound() {
    let (_, ring) = &methods()[1];
    let endless = [
        &b"age-encryption.org/v1\n"[..],
        &b"-> X25519 x\n".repeat(1 << 16),
    ]
    .concat();
    let error = decrypt(ring, &endless).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    let later = b"age-encryption.org/v2\n--- x\n";
    assert_eq!(
        decrypt(ring, later).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

fn noted(digest: u8) -> Vec<u8> {
    let key = WriteKey::Age(age::Recipients::parse(RECIPIENT).unwrap());
    encrypt(
        &key.with_content(ContentDigest::new([digest; 32])),
        b"plain",
    )
}

fn noted_in(stored: &[u8]) -> io::Result<Option<ContentDigest>> {
    Seal::content_digest(stored)
}

#[test]
fn the_digest_of_the_content_is_read_without_a_key_and_hinders_no_reader() {
    let digest = ContentDigest::new([5; 32]);
    let stored = noted(5);
    assert_eq!(noted_in(&stored).unwrap(), Some(digest));
    let [_, (_, ring)] = methods();
    assert_eq!(decrypt(&ring, &stored).unwrap(), b"plain");
    for (key, _) in methods() {
        assert_eq!(noted_in(&encrypt(&key, b"plain")).unwrap(), None);
    }
    for method in [WriteKey::None, WriteKey::Libsodium(sodium(7))] {
        let stored = encrypt(&method.with_content(digest), b"plain");
        assert_eq!(noted_in(&stored).unwrap(), None, "{method:?}");
    }
    for other in [&b""[..], b"age", b"age-encryption.org/v2\n-> wale"] {
        assert!(!matches!(noted_in(other), Ok(Some(_))));
    }
    // The header's MAC covers it: a reader with the key notices another one.
    let text = String::from_utf8_lossy(&stored).into_owned();
    let line = text.lines().position(|line| line == "-> wale-content-v1");
    let body = text.lines().nth(line.unwrap() + 1).unwrap().as_bytes();
    let at = stored.windows(body.len()).position(|part| part == body);
    let mut forged = stored.clone();
    forged[at.unwrap()] = b'Z';
    assert!(
        noted_in(&forged)
            .unwrap()
            .is_some_and(|found| found != digest)
    );
    assert_eq!(
        decrypt(&ring, &forged).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}

#[test]
fn a_header_that_says_nonsense_of_its_content_says_nothing() {
    let header = |lines: &str| format!("age-encryption.org/v1\n{lines}--- mac\n");
    let good = "A".repeat(43);
    let stanza = |body: &str| format!("-> wale-content-v1\n{body}\n");
    let found = noted_in(header(&stanza(&good)).as_bytes()).unwrap();
    assert_eq!(found, Some(ContentDigest::new([0; 32])));
    for bad in [
        stanza(""),
        stanza(&"A".repeat(42)),
        stanza(&"A".repeat(44)),
        stanza(&format!("{}B", "A".repeat(42))),
        stanza(&good) + &stanza(&good),
        format!("-> wale-content-v1 more\n{good}\n"),
        format!("-> wale-content-v2\n{good}\n"),
        "-> wale-content-v1\n".to_owned(),
        String::new(),
    ] {
        assert_eq!(noted_in(header(&bad).as_bytes()).unwrap(), None, "{bad}");
    }
    // A header has a bound, and an end.
    let long = header(&format!("-> X25519 {}\n", "a".repeat(70 << 10)));
    let error = noted_in(long.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let stored = noted(1);
    for cut in age::HEAD_BYTES..100 {
        let error = noted_in(&stored[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}");
    }
}
