//! `wale.json`, the archive's identity.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::ArchiveIdentity;

fuzz_target!(|data: &[u8]| {
    if let Ok(identity) = ArchiveIdentity::parse(data) {
        let written = identity.to_json();
        let again = ArchiveIdentity::parse(&written).expect("what is written is read");
        assert_eq!(again.to_json(), written);
    }
});
