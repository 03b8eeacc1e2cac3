//! Messages of OpenPGP: the first byte chooses a whole one, the packets inside of one, or what ours writes.
//!
//! Whatever the bytes are, the reader ends with an error or with its output, in bounded memory; and what the writer makes of
//! them, the reader gives back.

#![no_main]

use std::io::{Cursor, Read, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wale_format::crypt::openpgp::{self, PgpRecipients, SecretKeys};

/// A bomb may not decompress to more than this within one run: 16 MiB, a segment.
const OUTPUT_MAX: u64 = 16 << 20;

static KEYS: LazyLock<(SecretKeys, PgpRecipients)> = LazyLock::new(|| {
    let curve = include_bytes!("../../crates/wale-format/testdata/gnupg-2.2.40/curve-secret.asc");
    let rsa = include_bytes!("../../crates/wale-format/testdata/gnupg-2.2.40/rsa-secret.asc");
    let keys = SecretKeys::from_keys(curve, Some("correct horse")).expect("a secret key");
    let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    let recipients = keys.recipients(now).expect("usable");
    // What is written is for the curve, which is quick; messages for RSA come from the seeds.
    let keys = keys.and(SecretKeys::from_keys(rsa, None).expect("a secret key"));
    (keys, recipients)
});

fn drain(plain: std::io::Result<impl Read>) {
    let Ok(plain) = plain else { return };
    let mut scratch = [0; 4096];
    let mut plain = plain.take(OUTPUT_MAX);
    while plain.read(&mut scratch).is_ok_and(|count| count > 0) {}
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let (keys, recipients) = &*KEYS;
    match first % 3 {
        0 => {
            let named = openpgp::recipients_of(rest);
            assert!(named.len() <= rest.len() / 2);
            let _ = openpgp::looks_like(rest);
            drain(openpgp::reader(keys, Cursor::new(rest.to_vec())));
        }
        1 => drain(openpgp::content_of_packets(Cursor::new(rest.to_vec()))),
        _ => {
            let mut writer = openpgp::writer(recipients, Vec::new()).expect("a vector");
            writer.write_all(rest).expect("a vector");
            let message = writer.finish().expect("a vector");
            let mut back = Vec::new();
            openpgp::reader(keys, Cursor::new(message))
                .expect("what is written is read")
                .read_to_end(&mut back)
                .expect("what is written is read");
            assert_eq!(back, rest);
        }
    }
});
