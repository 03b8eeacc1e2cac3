//! `backup_manifest`, with the checksum over itself made right so that the rest is reached.
//!
//! What is read can be built again and is read as the same, and a copy with another entry is one of the same files.

#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use wale_format::manifest::copy_with_changed_file;
use wale_format::{ManifestBuilder, ManifestError, ManifestItem, ManifestReader, WalRange};

/// Files, in the order of the list, and ranges of WAL.
type Read = (Vec<(String, u64, u32)>, Vec<WalRange>);

fn read(text: &[u8]) -> Result<Read, ManifestError> {
    let mut reader = ManifestReader::new(text);
    let (mut files, mut ranges) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item()? {
        match item {
            ManifestItem::File(file) => {
                files.push((file.path, file.size, file.crc32c.unwrap_or(0)));
            }
            ManifestItem::WalRange(range) => ranges.push(range),
            _ => {}
        }
    }
    Ok((files, ranges))
}

fuzz_target!(|data: &[u8]| {
    let _ = read(data);
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
    let Ok((files, ranges)) = read(&text) else {
        return;
    };
    let mut builder = ManifestBuilder::new();
    let time = chrono::DateTime::UNIX_EPOCH;
    for (path, size, crc32c) in &files {
        builder.add_file(path, *size, time, *crc32c);
    }
    let again = builder.finish_with_ranges(&ranges);
    let again = read(&again).expect("what is written is read");
    assert_eq!(again, (files.clone(), ranges.clone()));
    let path = files.first().map_or("", |(path, ..)| path);
    let mut copy = Vec::new();
    copy_with_changed_file(&text[..], &mut copy, path, (1, 2)).expect("it was read");
    let (copied, copied_ranges) = read(&copy).expect("a copy is read");
    assert_eq!(copied_ranges, ranges);
    assert!(copied.iter().map(|file| &file.0).eq(files.iter().map(|file| &file.0)));
});
