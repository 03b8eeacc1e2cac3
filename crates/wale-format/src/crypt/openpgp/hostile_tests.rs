//! Bytes that nobody wrote: key rings and inner packets, changed at every place. The fuzz targets go on from here.

use std::io::{self, Cursor, ErrorKind, Read};

use flate2::Compression;
use flate2::bufread::{DeflateEncoder, ZlibEncoder};

use pgp::composed::{Deserializable as _, SignedSecretKey};
use pgp::types::{KeyDetails as _, PkeskBytes, PublicParams};
use rand_core::OsRng;

use super::reader::literal;
use super::tests::{KEYBOX, RING, RSA, TWO, curve, decrypt, encrypt, now, rsa, sample};
use super::*;

#[test]
fn changed_key_rings_do_no_harm() {
    for ring in [KEYBOX, RING, TWO] {
        for at in 0..ring.len() {
            // The beginnings of blobs and packets, and of much else; all of it takes a minute.
            if at > 200 && at % 37 != 0 {
                continue;
            }
            for change in [0x01, 0x80, 0xff] {
                let mut changed = ring.to_vec();
                changed[at] ^= change;
                drop(PgpRecipients::from_ring(
                    &changed,
                    "0123456789ABCDEF",
                    now(),
                ));
                drop(SecretKeys::from_keys(&changed, None));
            }
        }
    }
    // A blob that ends before it begins, and packets that lie outside of one.
    let blob = |place: [u32; 2]| {
        let place = place.map(u32::to_be_bytes).concat();
        [&[0, 0, 0, 20, 2, 1, 0, 0][..], &place, &[0; 4]].concat()
    };
    let header = [&[0, 0, 0, 32, 1, 1, 0, 0][..], b"KBXf", &[0; 20]].concat();
    for broken in [
        vec![0, 0, 0, 0, 2],
        vec![0, 0, 0, 9, 2, 1, 0, 0, 0],
        blob([0, 4]),
        blob([16, 5]),
        blob([u32::MAX, u32::MAX]),
    ] {
        let keybox = [header.clone(), broken].concat();
        let error = PgpRecipients::from_ring(&keybox, "x", now()).expect_err("broken");
        assert!(matches!(error, KeysError::Damaged(_)), "{error}");
    }
    let good = [header, blob([16, 0])].concat();
    let error = PgpRecipients::from_ring(&good, "x", now()).expect_err("empty");
    assert!(matches!(error, KeysError::NotFound { .. }), "{error}");
}

/// What the packets hold that a cipher would have brought.
fn content(packets: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    literal(Box::new(Cursor::new(packets.to_vec())))?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// A packet with a body in one piece.
fn whole(tag: u8, body: &[u8]) -> Vec<u8> {
    [
        &[packet::first_byte(tag)][..],
        &packet::last_length(body.len()),
        body,
    ]
    .concat()
}

fn compressed(algorithm: u8, packets: &[u8]) -> Vec<u8> {
    let mut body = vec![algorithm];
    let level = Compression::fast();
    match algorithm {
        1 => DeflateEncoder::new(packets, level).read_to_end(&mut body),
        2 => ZlibEncoder::new(packets, level).read_to_end(&mut body),
        _ => Read::read_to_end(&mut { packets }, &mut body),
    }
    .expect("a slice is read");
    body
}

#[test]
fn packets_inside_are_taken_whole_or_not_at_all() {
    let plain = sample(3_000);
    let inner = whole(
        packet::LITERAL,
        &[&b"b\x03abc\0\0\0\0"[..], &plain].concat(),
    );
    let marker = whole(packet::MARKER, b"PGP");
    assert!(content(&inner).expect("whole") == plain);
    assert!(content(&[marker, inner.clone()].concat()).expect("whole") == plain);
    for algorithm in [0, 1, 2] {
        let packets = whole(packet::COMPRESSED, &compressed(algorithm, &inner));
        assert!(content(&packets).expect("whole") == plain, "{algorithm}");
        // As gpg does it, the length is not told: the old form, 8 << 2 and 3.
        let open = [&[0xa3][..], &compressed(algorithm, &inner)].concat();
        assert!(content(&open).expect("whole") == plain, "{algorithm}");
        for cut in (0..packets.len()).step_by(13) {
            content(&packets[..cut]).expect_err("cut");
        }
        for more in [&b"x"[..], &inner] {
            let error = content(&[&packets, more].concat()).expect_err("more");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{algorithm}: {error}");
            let behind = [&compressed(algorithm, &[&inner, more].concat())[..]].concat();
            let error = content(&whole(packet::COMPRESSED, &behind)).expect_err("more inside");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{algorithm}: {error}");
            let behind = [&compressed(algorithm, &inner)[..], more].concat();
            content(&whole(packet::COMPRESSED, &behind)).expect_err("more behind");
        }
        for at in 0..packets.len().min(80) {
            let mut changed = packets.clone();
            changed[at] ^= 0x21;
            // Only the code outside can tell of a changed name or date.
            drop(content(&changed));
        }
    }
    let twice = whole(
        packet::COMPRESSED,
        &compressed(2, &whole(packet::COMPRESSED, &compressed(2, &inner))),
    );
    assert_eq!(
        content(&twice).expect_err("twice").kind(),
        ErrorKind::Unsupported
    );
    for other in [
        whole(packet::COMPRESSED, &compressed(9, &inner)),
        whole(packet::LITERAL, b"m\0\0\0\0\0"),
    ] {
        assert_eq!(
            content(&other).expect_err("unknown").kind(),
            ErrorKind::Unsupported
        );
    }
    assert_eq!(
        content(b"").expect_err("nothing").kind(),
        ErrorKind::InvalidData
    );
}

/// The session key of a message for a key of a curve, cut to every length: rPGP takes eight bytes for granted.
#[test]
fn a_session_key_of_any_length_does_no_harm() {
    let keys = curve();
    let recipients = keys.recipients(now()).expect("usable");
    let message = encrypt(&recipients, b"plain");
    // The first byte, the length, and in the body version, key, algorithm and the point (RFC 9580, 5.1 and 5.1.5).
    let body_end = 2 + usize::from(message[1]);
    let wrapped_at = 2 + 1 + 8 + 1 + 2 + 33;
    let whole = usize::from(message[wrapped_at]);
    assert_eq!(whole, body_end - wrapped_at - 1);
    for length in 0..=whole {
        let mut cut = message[..wrapped_at].to_vec();
        cut.push(u8::try_from(length).expect("short"));
        cut.extend_from_slice(&message[wrapped_at + 1..][..length]);
        cut[1] = u8::try_from(cut.len() - 2).expect("short");
        cut.extend_from_slice(&message[body_end..]);
        assert_eq!(decrypt(&keys, &cut).is_ok(), length == whole, "{length}");
    }
}

/// What whoever has the public key may have encrypted in place of a session key: nothing, too little, another sum. rPGP takes
/// the first byte for granted.
#[test]
fn a_forged_session_key_of_rsa_does_no_harm() {
    let keys = rsa();
    let recipients = keys.recipients(now()).expect("usable");
    let message = encrypt(&recipients, b"plain");
    // A length in two bytes (RFC 9580, 4.2.1.2), then version, key and algorithm.
    let length = (usize::from(message[1]) - 192) * 256 + usize::from(message[2]) + 192;
    let (start, behind) = (&message[3..][..10], &message[3 + length..]);
    assert_eq!((start[0], start[9]), (3, 1));
    let (owner, _) = SignedSecretKey::from_armor_single(RSA).expect("a secret key");
    let subkey = owner.secret_subkeys.iter().find(|subkey| {
        let id = KeyId::from(subkey.key.legacy_key_id());
        recipients.key_ids().contains(&id)
    });
    let subkey = subkey.expect("a message is for it").key.public_key();
    let PublicParams::RSA(public) = subkey.public_params() else {
        panic!("no RSA key");
    };
    let with_key = |sum: u8| [&[9][..], &[1; 32], &[0, sum]].concat();
    for plain in [
        vec![],
        vec![9],
        vec![9, 0, 0],
        vec![0, 0, 0],
        vec![255, 0, 0],
        with_key(31),
        with_key(32),
    ] {
        let forged = pgp::crypto::rsa::encrypt(OsRng, &public.key, &plain).expect("short");
        let PkeskBytes::Rsa { mpi } = forged else {
            panic!("not of RSA");
        };
        let number = mpi.as_ref();
        let bits = u16::try_from(number.len() * 8).expect("short")
            - u16::try_from(number[0].leading_zeros()).expect("below eight");
        let body = [start, &bits.to_be_bytes(), number].concat();
        let forged = [&whole(1, &body)[..], behind].concat();
        let error = decrypt(&keys, &forged).expect_err("forged");
        // A key that is one, but not the message's, does not open it.
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{plain:?}: {error}");
    }
}
