//! Sentinels and metadata of the three tools: what is read is written as it was meant.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::{BackupMetadata, Sentinel};

fuzz_target!(|data: &[u8]| {
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
