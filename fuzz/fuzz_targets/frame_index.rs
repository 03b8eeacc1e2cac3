//! The index of a backup's files as it comes from the store: whatever the bytes are, reading ends with an error or at the end, in
//! bounded memory, and frames are in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::{IndexItem, IndexReader};

fuzz_target!(|data: &[u8]| {
    let Ok(mut index) = IndexReader::new(data) else {
        return;
    };
    while let Ok(Some(item)) = index.next_item() {
        if let IndexItem::Partition(part) = item {
            let mut pairs = part.frames.iter().zip(part.frames.iter().skip(1));
            assert!(pairs.all(|(one, next)| one.plain < next.plain && one.stored < next.stored));
            assert!(part.frames.last().is_some_and(|last| last.plain < part.plain_bytes));
        }
    }
});
