//! `backup_manifest`, with the checksum over itself made right so that the rest is reached.
//!
//! What is read can be built again and is read as the same.

#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use wale_format::{Manifest, ManifestBuilder};

fuzz_target!(|data: &[u8]| {
    let _ = Manifest::parse(data);
    let mut text = data.to_vec();
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    let digest = Sha256::digest(&text);
    let mut line = "\"Manifest-Checksum\": \"".to_owned();
    for byte in digest {
        write!(line, "{byte:02x}").expect("text grows");
    }
    line.push_str("\"}\n");
    text.extend_from_slice(line.as_bytes());
    let Ok(manifest) = Manifest::parse(&text) else {
        return;
    };
    let mut builder = ManifestBuilder::new();
    let time = chrono::DateTime::UNIX_EPOCH;
    for (path, file) in &manifest.files {
        builder.add_file(path, file.size, time, file.crc32c.unwrap_or(0));
    }
    let again = builder.finish_with_ranges(&manifest.wal_ranges);
    let again = Manifest::parse(&again).expect("what is written is read");
    let sizes = |manifest: &Manifest| -> Vec<(String, u64)> {
        let files = manifest.files.iter();
        files.map(|(path, file)| (path.clone(), file.size)).collect()
    };
    assert_eq!(sizes(&again), sizes(&manifest));
    assert_eq!(again.wal_ranges, manifest.wal_ranges);
});
