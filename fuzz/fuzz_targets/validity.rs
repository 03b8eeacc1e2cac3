//! The end of a certificate's validity, out of bytes that may be anything.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The room keeps it to itself; it knows nothing but bytes and times.
#[path = "../../crates/wale-service/src/http/validity.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod validity;

fuzz_target!(|data: &[u8]| {
    if let Some(end) = validity::not_after(data) {
        // What follows a certificate is not part of it.
        let longer = [data, &[0; 16]].concat();
        assert_eq!(validity::not_after(&longer), Some(end));
    }
});
