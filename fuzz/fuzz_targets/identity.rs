//! `wale.json`, the archive's identity, fields of a later version included.
//!
//! As for sentinels, numbers that serde_json does not keep to the last bit are left out of the comparison.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::ArchiveIdentity;

/// Whether all numbers are kept exactly.
fn is_exact(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => !number.is_f64(),
        serde_json::Value::Array(values) => values.iter().all(is_exact),
        serde_json::Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(identity) = ArchiveIdentity::parse(data) {
        if serde_json::from_slice(data).is_ok_and(|value| !is_exact(&value)) {
            return;
        }
        let written = identity.to_json();
        let again = ArchiveIdentity::parse(&written).expect("what is written is read");
        assert_eq!(again.to_json(), written);
    }
});
