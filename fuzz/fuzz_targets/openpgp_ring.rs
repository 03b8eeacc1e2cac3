//! Keyboxes and key rings of GnuPG, and key files: whatever the bytes are, keys are found, or there is an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::crypt::openpgp::{self, PgpRecipients, SecretKeys};

fuzz_target!(|data: &[u8]| {
    let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    for name in ["example.invalid", "0123456789ABCDEF"] {
        if let Ok(found) = PgpRecipients::from_ring(data, name, now) {
            assert_eq!(found.fingerprints().len(), 1);
            openpgp::writer(&found, Vec::new()).expect("a usable key is written to");
        }
    }
    if let Ok(found) = PgpRecipients::from_keys(data, now) {
        assert!(!found.key_ids().is_empty());
    }
    if let Ok(found) = SecretKeys::from_keys(data, None) {
        assert!(!found.key_ids().is_empty());
    }
});
