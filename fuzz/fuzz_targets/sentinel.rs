//! Sentinels and metadata of the three tools: what is read is written as it was meant.
//!
//! Numbers with fractions or beyond 64 bits are left out of the comparison: none of the tools writes any, and
//! serde_json keeps them to the last but one bit only.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::{BackupMetadata, Sentinel};

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
    if serde_json::from_slice(data).is_ok_and(|value| !is_exact(&value)) {
        let _ = (Sentinel::parse(data), BackupMetadata::parse(data));
        return;
    }
    if let Ok(sentinel) = Sentinel::parse(data) {
        let written = sentinel.to_json();
        let again = Sentinel::parse(&written).expect("what is written is read");
        assert_eq!(again.to_json(), written);
        let _ = (sentinel.start_lsn(), sentinel.stop_lsn(), sentinel.stop_segment());
        let _ = (sentinel.started_at(), sentinel.stopped_at(), sentinel.bytes(), sentinel.is_delta());
        if let Some(spec) = sentinel.tablespaces() {
            let _ = spec.locations();
        }
        let _ = BackupMetadata::from_sentinel(&sentinel);
    }
    if let Ok(metadata) = BackupMetadata::parse(data) {
        let written = metadata.to_json();
        let again = BackupMetadata::parse(&written).expect("what is written is read");
        assert_eq!(again.to_json(), written);
    }
});
