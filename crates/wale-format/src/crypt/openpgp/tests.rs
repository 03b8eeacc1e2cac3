//! The messages of our writer and of real `gpg`, and every way to damage them. `testdata/README.md` says what each file is.

use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind, Read, Write};

use chrono::{DateTime, Utc};
use pgp::composed::{Deserializable as _, MessageBuilder, SignedSecretKey};
use pgp::crypto::aead::{AeadAlgorithm, ChunkSize};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use rand_core::OsRng;

use super::*;
use crate::tar::{MemberKind, TarReader};

pub(super) const RSA: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/rsa-secret.asc");
const CURVE: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/curve-secret.asc");
const CURVE_STUB: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/curve-stub-secret.asc");
pub(super) const TWO: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/two-public.asc");
pub(super) const KEYBOX: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/pubring.kbx");
pub(super) const RING: &[u8] = include_bytes!("../../../testdata/gnupg-2.2.40/pubring.gpg");
const PASSPHRASE: &str = "correct horse";

/// When the tests are, whatever the clock says: after the keys were made.
pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

pub(super) fn rsa() -> SecretKeys {
    SecretKeys::from_keys(RSA, None).expect("a secret key")
}

pub(super) fn curve() -> SecretKeys {
    SecretKeys::from_keys(CURVE, Some(PASSPHRASE)).expect("a secret key")
}

fn recipients(keys: &SecretKeys) -> PgpRecipients {
    keys.recipients(now()).expect("usable")
}

pub(super) fn encrypt(recipients: &PgpRecipients, plain: &[u8]) -> Vec<u8> {
    let mut writer = writer(recipients, Vec::new()).expect("a vector takes everything");
    writer.write_all(plain).expect("a vector takes everything");
    writer.finish().expect("a vector takes everything")
}

pub(super) fn decrypt(keys: &SecretKeys, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader(keys, Cursor::new(message.to_vec()))?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Half noise, half not.
pub(super) fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |index: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if index & 1024 == 0 {
            b'a'
        } else {
            state.to_be_bytes()[0]
        }
    };
    (0..bytes).map(next).collect()
}

/// What `gpg` wrote, by name; `plain` is what it was given.
fn messages() -> BTreeMap<String, Vec<u8>> {
    let archive = include_bytes!("../../../testdata/gnupg-2.2.40/messages.tar.zst");
    let plain = zstd::decode_all(&archive[..]).expect("zstd");
    let mut tar = TarReader::new(plain.as_slice());
    let mut messages = BTreeMap::new();
    while let Some(member) = tar.next() {
        let member = member.expect("a whole archive");
        if let MemberKind::File { .. } = member.kind {
            let name = member.path.components().last().expect("a name").to_owned();
            let mut body = Vec::new();
            tar.read_to_end(&mut body).expect("a whole member");
            messages.insert(name, body);
        }
    }
    messages
}

/// Text in which every end of a line occurs, of which none may change.
fn lines() -> Vec<u8> {
    b"one\r\ntwo\nthree\rfour\r\r\n\0\n".repeat(40)
}

#[test]
fn what_is_written_is_read_at_every_length() {
    let (rsa, curve) = (rsa(), curve());
    let both = recipients(&rsa).and(recipients(&curve));
    // The first piece has six bytes of its own; the pieces around it have 20 more, and one more each.
    let lengths = [
        0, 1, 5, 6, 15, 16, 17, 185, 186, 191, 192, 8_377, 8_378, 8_384,
    ]
    .into_iter()
    .chain((1..=3).flat_map(|pieces| {
        let border = pieces << 16;
        (border - 48..=border + 2).step_by(1 + usize::from(pieces > 1) * 4)
    }))
    .chain([(1 << 20) - 1, 1 << 20, (1 << 20) + 1]);
    for length in lengths {
        let plain = sample(length);
        let message = encrypt(&both, &plain);
        assert!(looks_like(&message) && looks_like(&message[..HEAD_BYTES]));
        assert_eq!(recipients_of(&message), both.key_ids());
        for keys in [&rsa, &curve] {
            assert!(decrypt(keys, &message).expect("whole") == plain, "{length}");
        }
    }
}

#[test]
fn small_writes_make_the_same_pieces() {
    let keys = curve();
    let plain = sample(200_000);
    let mut writer = writer(&recipients(&keys), Vec::new()).expect("a vector");
    for piece in plain.chunks(777) {
        writer.write_all(piece).expect("a vector");
        writer.flush().expect("a vector");
    }
    let message = writer.finish().expect("a vector");
    assert_eq!(message.len(), encrypt(&recipients(&keys), &plain).len());
    assert!(decrypt(&keys, &message).expect("whole") == plain);
}

#[test]
fn every_cut_is_noticed() {
    let keys = curve();
    for plain in [sample(300), sample(70_000)] {
        let message = encrypt(&recipients(&keys), &plain);
        let borders = (0..message.len()).filter(|&cut| {
            let near = |at: usize| cut.abs_diff(at) < 40;
            near(0) || near(130) || near(65_700) || near(message.len()) || cut % 1_009 == 0
        });
        for cut in borders {
            let error = decrypt(&keys, &message[..cut]).expect_err("cut");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}: {error}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let keys = curve();
    let plain = sample(70_000);
    let message = encrypt(&recipients(&keys), &plain);
    let session_key_end = 2 + usize::from(message[1]);
    let places = (0..message.len()).filter(|at| {
        *at < 250 || at.abs_diff(65_600) < 100 || message.len() - at < 60 || at % 2_003 == 0
    });
    for at in places {
        for bit in [0, 3, 7] {
            let mut changed = message.clone();
            changed[at] ^= 1 << bit;
            // A changed length of the last piece is a cut, or bytes behind; one of a header may be another kind.
            let error = match decrypt(&keys, &changed) {
                // A few bits of a session key's packet say nothing, as the highest of a curve's point.
                Ok(same) if at < session_key_end => {
                    assert!(same == plain, "{at} {bit}");
                    continue;
                }
                Ok(_) => panic!("{at} {bit} went unnoticed"),
                Err(error) => error,
            };
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::InvalidData
                        | ErrorKind::UnexpectedEof
                        | ErrorKind::PermissionDenied
                        | ErrorKind::Unsupported
                ),
                "{at} {bit}: {error:?}"
            );
        }
    }
}

#[test]
fn nothing_may_follow() {
    let keys = curve();
    let message = encrypt(&recipients(&keys), &sample(70_000));
    for more in [&[0][..], &[0xd3, 0x14], &message, &vec![0; 300_000]] {
        let error = decrypt(&keys, &[&message, more].concat()).expect_err("more");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(
            error.to_string().contains("followed by other bytes"),
            "{error}"
        );
    }
}

#[test]
fn another_key_is_told_which_one_it_is_for() {
    let message = encrypt(&recipients(&rsa()), b"plain");
    let error = decrypt(&curve(), &message).expect_err("another key");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let missing = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<NoKey>());
    let missing = missing.expect("a typed error");
    assert_eq!(missing.wanted, recipients(&rsa()).key_ids());
    let id = recipients(&rsa()).key_ids()[0].to_string();
    assert!(error.to_string().contains(&id), "{error}");
}

#[test]
fn errors_of_the_source_pass_unchanged_and_a_failed_reader_stays_failed() {
    struct Breaks(Cursor<Vec<u8>>);
    impl Read for Breaks {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::new(ErrorKind::ConnectionReset, "the store")),
                count => Ok(count),
            }
        }
    }
    let keys = curve();
    let mut message = encrypt(&recipients(&keys), &sample(200_000));
    message.truncate(100_000);
    let mut reader = reader(&keys, Breaks(Cursor::new(message))).expect("it begins well");
    let error = reader.read_to_end(&mut Vec::new()).expect_err("broken");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(error.to_string(), "the store");
    let error = reader.read(&mut [0; 10]).expect_err("still broken");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn messages_of_gpg_are_read() {
    let messages = messages();
    let plain = &messages["plain"];
    let (rsa, curve) = (rsa(), curve());
    let mut read = 0;
    for (name, message) in &messages {
        let stem = name.strip_suffix(".gpg").unwrap_or("plain");
        let expected = match stem {
            "plain" | "signed" | "unprotected" | "passphrase" => continue,
            "empty" => &Vec::new(),
            // gpg's own: it takes blanks off the ends of lines, and makes them CR LF.
            "text" => &decrypt(&rsa, message).expect("text"),
            _ => plain,
        };
        let keys = if stem == "curve" { &curve } else { &rsa };
        let found = decrypt(keys, message);
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found == *expected, "{name}");
        assert!(
            looks_like(message) && looks_like(&message[..HEAD_BYTES]),
            "{name}"
        );
        read += 1;
        for cut in (0..message.len())
            .step_by(1_021)
            .chain((message.len() - 30..message.len()).step_by(4))
        {
            let error = decrypt(keys, &message[..cut]).expect_err("cut");
            assert_eq!(
                error.kind(),
                ErrorKind::UnexpectedEof,
                "{name} {cut}: {error}"
            );
        }
        let error = decrypt(keys, &[message, &b"x"[..]].concat()).expect_err("more");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}: {error}");
        for at in (message.len() - 100..message.len()).step_by(9) {
            let mut changed = message.clone();
            changed[at] ^= 0x10;
            decrypt(keys, &changed).expect_err("changed");
        }
    }
    assert_eq!(read, 23);
    assert!(decrypt(&curve, &messages["both.gpg"]).expect("whole") == *plain);
    assert_eq!(recipients_of(&messages["hidden.gpg"]), [KeyId::HIDDEN; 2]);
}

#[test]
fn messages_of_other_kinds_are_refused_by_name() {
    let messages = messages();
    let cases = [
        ("signed", ErrorKind::Unsupported, "signed"),
        ("unprotected", ErrorKind::Unsupported, "integrity"),
        ("passphrase", ErrorKind::PermissionDenied, "passphrase"),
    ];
    for (name, kind, word) in cases {
        let error = decrypt(&rsa(), &messages[&format!("{name}.gpg")]).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    assert!(looks_like(&messages["passphrase.gpg"]));
    for bytes in [
        &b""[..],
        b"text",
        &[0x28, 0xb5, 0x2f, 0xfd],
        b"\x89LZO\0\r\n\x1a\n",
        &[0x84],
    ] {
        assert!(!looks_like(bytes), "{bytes:x?}");
        decrypt(&rsa(), bytes).expect_err("no message");
    }
    let hidden = decrypt(&curve(), &messages["hidden.gpg"]).expect_err("another key");
    assert_eq!(hidden.kind(), ErrorKind::PermissionDenied, "{hidden}");
    assert!(hidden.to_string().contains("hidden"), "{hidden}");
}

/// A message of RFC 9580 (a protected packet of version 2, a session key of version 6), by rPGP's writer.
fn chunked(plain: &[u8], mode: AeadAlgorithm, size: ChunkSize) -> Vec<u8> {
    let (key, _) = SignedSecretKey::from_armor_single(RSA).expect("a secret key");
    let subkey = key.secret_subkeys.first().expect("it has one");
    let mut builder = MessageBuilder::from_bytes("", plain.to_vec()).seipd_v2(
        OsRng,
        SymmetricKeyAlgorithm::AES256,
        mode,
        size,
    );
    builder
        .encrypt_to_key(OsRng, &subkey.key.public_key())
        .expect("a session key");
    builder.to_vec(OsRng).expect("a vector takes everything")
}

#[test]
fn chunks_of_rfc_9580_are_read_to_their_last_tag() {
    for mode in [AeadAlgorithm::Eax, AeadAlgorithm::Ocb, AeadAlgorithm::Gcm] {
        for (bytes, size) in [
            (0, ChunkSize::C64B),
            (1, ChunkSize::C8KiB),
            (10_000, ChunkSize::C64B),
            (300_000, ChunkSize::C64KiB),
        ] {
            let plain = sample(bytes);
            let message = chunked(&plain, mode, size);
            let case = format!("{mode:?}, {bytes} bytes");
            assert!(looks_like(&message[..HEAD_BYTES]), "{case}");
            let wanted = recipients_of(&message);
            assert_eq!(wanted.len(), 1, "{case}");
            assert!(rsa().key_ids().contains(&wanted[0]), "{case}: {wanted:?}");
            assert!(decrypt(&rsa(), &message).expect(&case) == plain, "{case}");
            let error = decrypt(&curve(), &message).expect_err("another's");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{case}: {error}");
        }
    }
}

#[test]
fn chunks_of_rfc_9580_that_were_cut_changed_or_continued_are_errors() {
    let (plain, keys) = (sample(5_000), rsa());
    for mode in [AeadAlgorithm::Eax, AeadAlgorithm::Ocb, AeadAlgorithm::Gcm] {
        let message = chunked(&plain, mode, ChunkSize::C1KiB);
        // Each one costs an operation with the secret key.
        let last = message.len() - 20;
        for cut in (1..last).step_by(101).chain(last..message.len()) {
            let error = decrypt(&keys, &message[..cut]).expect_err("cut");
            let kinds = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData];
            assert!(kinds.contains(&error.kind()), "{mode:?} {cut}: {error}");
        }
        // Behind the session key: everything is under a tag.
        for at in (message.len() - 5_000..message.len()).step_by(211) {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let error = decrypt(&keys, &changed).expect_err("changed");
            let kinds = [ErrorKind::UnexpectedEof, ErrorKind::InvalidData];
            assert!(kinds.contains(&error.kind()), "{mode:?} {at}: {error}");
        }
        let longer = [&message[..], b"x"].concat();
        let error = decrypt(&keys, &longer).expect_err("continued");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{mode:?}");
    }
}

/// `GnuPG` 2.4's packet of OCB chunks, made as its draft says (draft-koch-librepgp, 5.16): there is no `gpg` 2.4 to make one.
#[test]
fn ocb_chunks_are_read() {
    let keys = curve();
    let algorithm = SymmetricKeyAlgorithm::AES256;
    let session_key = algorithm.new_session_key(OsRng);
    let start = [1, u8::from(algorithm), 2, 0];
    let iv = [7_u8; 15];
    let seal = |index: u64, more: &[u8], plain: &[u8]| {
        let mut nonce = iv;
        for (byte, of_index) in nonce[7..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= of_index;
        }
        let data = [&[0xd4][..], &start, &index.to_be_bytes(), more].concat();
        let mut chunk = pgp::bytes::BytesMut::from(plain);
        let key = session_key.as_ref();
        AeadAlgorithm::Ocb
            .encrypt_in_place(&algorithm, key, &nonce, &data, &mut chunk)
            .expect("encrypts");
        chunk.to_vec()
    };
    for length in [0, 1, 57, 56, 58, 120, 500] {
        let plain = sample(length);
        let literal = [
            &[0xcb][..],
            &packet::last_length(length + 6),
            b"b\0\0\0\0\0",
            &plain,
        ]
        .concat();
        // The size of a chunk is 64 bytes.
        let mut body = [&start[..], &iv].concat();
        let chunks = literal.chunks(64);
        let count = chunks.len() as u64;
        for (chunk, index) in chunks.zip(0..) {
            body.extend(seal(index, &[], chunk));
        }
        body.extend(seal(count, &(literal.len() as u64).to_be_bytes(), &[]));
        let packets = recipients(&keys).session_key_packets(&session_key, algorithm);
        let mut message = packets.expect("a curve");
        message.push(packet::first_byte(packet::GNUPG_OCB));
        message.extend(packet::last_length(body.len()));
        message.extend(body);
        assert!(
            decrypt(&keys, &message).expect("whole") == plain,
            "{length}"
        );
        for at in (message.len() - 32)..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let error = decrypt(&keys, &changed).expect_err("changed");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{at}: {error}");
        }
    }
}

#[test]
fn keyrings_of_gnupg_give_recipients_by_every_name() {
    let rsa_fingerprint = recipients(&rsa()).fingerprints().remove(0);
    let spaced: Vec<String> = rsa_fingerprint
        .as_bytes()
        .chunks(4)
        .map(|four| String::from_utf8_lossy(four).into_owned())
        .collect();
    let subkey = recipients(&rsa()).key_ids()[0].to_string();
    let names = [
        rsa_fingerprint.clone(),
        spaced.join(" "),
        format!("0x{}", rsa_fingerprint.to_lowercase()),
        rsa_fingerprint[24..].to_owned(),
        rsa_fingerprint[32..].to_owned(),
        subkey.clone(),
        format!("{subkey}!"),
        // Its namesake has expired.
        "rsa@example.invalid".to_owned(),
        "<RSA@example.invalid>".to_owned(),
        "=RSA key <rsa@example.invalid>".to_owned(),
        "RSA Key <".to_owned(),
        "*rsa key <".to_owned(),
    ];
    for ring in [KEYBOX, RING, TWO] {
        for name in &names {
            let found = PgpRecipients::from_ring(ring, name, now());
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.fingerprints(), [rsa_fingerprint.as_str()], "{name}");
            assert_eq!(found.key_ids(), recipients(&rsa()).key_ids(), "{name}");
        }
    }
    let plain = decrypt(
        &rsa(),
        &encrypt(
            &PgpRecipients::from_ring(KEYBOX, &subkey, now()).expect("one"),
            &lines(),
        ),
    );
    assert_eq!(plain.expect("whole"), lines());
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let refused = |name: &str| {
        let error = PgpRecipients::from_ring(KEYBOX, name, now()).expect_err(name);
        assert_eq!(
            PgpRecipients::from_ring(RING, name, now()).expect_err(name),
            error
        );
        error.to_string()
    };
    for (name, why) in [
        ("expired@example.invalid", "it has expired"),
        ("revoked@example.invalid", "it was revoked"),
        ("sign@example.invalid", "it has no subkey for encryption"),
        ("nobody@example.invalid", "no OpenPGP key is called"),
        ("0123456789ABCDEF", "no OpenPGP key is called"),
        (
            "&D75F22C3F86E355877348498CDC92BD21010A480",
            "a kind of name",
        ),
        ("", "a kind of name"),
        ("<other@example.invalid>", "several OpenPGP keys"),
        ("example.invalid", "several OpenPGP keys"),
    ] {
        let error = refused(name);
        assert!(error.contains(why), "{name}: {error}");
    }
    // Of three subkeys one has expired and the newest was revoked.
    let two = PgpRecipients::from_ring(KEYBOX, "two@example.invalid", now()).expect("one is left");
    assert_eq!(two.cipher(), SymmetricKeyAlgorithm::AES256);
    let later = DateTime::from_timestamp(1_577_923_200 + 3_600, 0).expect("2020-01-02");
    let before = PgpRecipients::from_ring(KEYBOX, "two@example.invalid", later);
    assert!(before.is_ok_and(|before| before.key_ids() != two.key_ids()));
    // Before it was made.
    let early = DateTime::from_timestamp(1_000_000_000, 0).expect("2001");
    PgpRecipients::from_ring(KEYBOX, "rsa@example.invalid", early).expect_err("not made yet");
}

#[test]
fn secret_keys_are_opened_by_their_passphrase() {
    let none = SecretKeys::from_keys(CURVE, None).expect_err("locked");
    assert!(matches!(none, KeysError::NoPassphrase { .. }), "{none}");
    let wrong = SecretKeys::from_keys(CURVE, Some("battery staple")).expect_err("locked");
    assert!(matches!(wrong, KeysError::Passphrase { .. }), "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("battery"));
    // The private half of the key itself is elsewhere.
    let stub = SecretKeys::from_keys(CURVE_STUB, Some(PASSPHRASE)).expect("subkeys");
    let message = encrypt(&recipients(&curve()), &lines());
    assert_eq!(decrypt(&stub, &message).expect("whole"), lines());
    // One is open and one is not: the error says which.
    let some = SecretKeys::from_keys(&[RSA, CURVE].concat(), None).expect("one is open");
    let error = decrypt(&some, &message).expect_err("locked");
    assert!(error.to_string().contains("passphrase"), "{error}");
    let debug = format!("{:?} {:?}", curve(), recipients(&curve()));
    assert!(debug.len() < 3_000, "{debug}");
}

#[test]
fn key_files_are_read_in_every_form() {
    let one_line = String::from_utf8_lossy(RSA).replace('\n', "\\n");
    let inline = SecretKeys::from_keys(one_line.as_bytes(), None).expect("escaped");
    assert_eq!(inline.key_ids(), rsa().key_ids());
    let text = [b"before\n", RSA, b"between\n", CURVE, b"behind\n"].concat();
    let both = SecretKeys::from_keys(&text, Some(PASSPHRASE)).expect("two blocks");
    // The RSA key itself could decrypt, too.
    assert_eq!(both.key_ids().len(), 3);
    let two = PgpRecipients::from_keys(TWO, now()).expect("two keys in a block");
    let mut expected = [
        recipients(&rsa()).fingerprints(),
        recipients(&curve()).fingerprints(),
    ]
    .concat();
    expected.sort();
    assert_eq!(two.fingerprints(), expected);
    assert_eq!(two.clone().and(two.clone()).fingerprints(), expected);
    let crlf = String::from_utf8_lossy(TWO).replace('\n', "\r\n");
    let two = PgpRecipients::from_keys(crlf.as_bytes(), now()).expect("CR LF");
    assert_eq!(two.fingerprints(), expected);
    for (bytes, why) in [
        (&b""[..], "no key"),
        (b"# nothing\n", "no packets"),
        (&RSA[..RSA.len() / 2], "no end"),
        (&KEYBOX[..4_000], "no packets"),
    ] {
        let error = PgpRecipients::from_keys(bytes, now()).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(
        SecretKeys::from_keys(TWO, None).expect_err("public"),
        KeysError::None("secret key for decryption")
    );
    for cut in 0..KEYBOX.len() {
        drop(
            PgpRecipients::from_ring(&KEYBOX[..cut], "nobody", now()).expect_err("cut or unknown"),
        );
    }
}

/// Objects of real archives, with the SHA-256 of what is in them, as the archives' makers wrote it down.
#[test]
fn objects_of_wal_e_and_wal_g_are_read() {
    use crate::codec::WINDOW_MAX_BYTES;
    use crate::{Codec, Seal};
    use sha2::{Digest as _, Sha256};
    macro_rules! object {
        ($path:literal) => {
            (
                $path,
                &include_bytes!(concat!("../../../testdata/", $path))[..],
            )
        };
    }
    let wal_e = SecretKeys::from_keys(object!("wal-e-1.1.1/gpg/secret-key.asc").1, None);
    let wal_e = wal_e.expect("a secret key");
    let passphrase = Some("golden pass phrase 13");
    let wal_g = SecretKeys::from_keys(object!("wal-g-3.0.9/pgp/secret-key.asc").1, passphrase);
    let wal_g = wal_g.expect("a secret key");
    let cases = [
        (
            object!("wal-e-1.1.1/gpg/00000001000000000000000A.lzo"),
            "995937a4fd4dd7caafa41d79e3964fd19a529b62468c3916babdbad1fd4130eb",
        ),
        (
            object!("wal-e-1.1.1/gpg/00000001000000000000000B.00000028.backup.lzo"),
            "fd21c599ac9bbd4cb4f27781495592eff6fb3bd6eabf9c4474abb1f24763638a",
        ),
        (
            object!("wal-g-3.0.9/pgp/000000010000000000000002.br"),
            "64f6381f0002b13ad5a975de94ca057b82edf6b5639227e1f2edc4e75fed0c09",
        ),
        (
            object!("wal-g-3.0.9/pgp/00000002.history.br"),
            "d6174fd14757e41e6ad262802f80eee9a5677f009a3a3077e355825752fdaacb",
        ),
        (
            object!("wal-g-3.0.9/pgp/000000010000000000000003.00000028.backup.br"),
            "35dc79ac13695fe1df6b368bd2462eeeada40ccf20aab43ad2b89bf7991fa5ff",
        ),
        (
            object!("wal-g-3.0.9/pgp/backup_label.tar.br"),
            "377c2e61765a460985483403c77507bf834f0ecc88e272b3569d80416ed0731c",
        ),
        (
            object!("wal-g-3.0.9/pgp/pg_control.tar.br"),
            "56bf762054ae3cd86ac2c33f2708f713117ab8b0b518e86d5fd4a2b70d727145",
        ),
    ];
    for ((name, message), expected) in cases {
        let (keys, codec) = if name.ends_with(".lzo") {
            (&wal_e, Codec::Lzo)
        } else {
            (&wal_g, Codec::Brotli)
        };
        assert!(looks_like(message), "{name}");
        let opened = reader(keys, message).expect(name);
        let sealed = Seal::unencrypted(codec).reader(opened).expect(name);
        let mut plain = Vec::new();
        let decoded = sealed.plain(WINDOW_MAX_BYTES).expect(name);
        { decoded }.read_to_end(&mut plain).expect(name);
        assert_eq!(crate::hex(&Sha256::digest(&plain)), expected, "{name}");
        let error = decrypt(&rsa(), message).expect_err("another key");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}");
    }
}
