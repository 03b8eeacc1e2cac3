//! WAL-G's increments: what is taken for one has its pages in order, within its file, and just as many as its length says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_format::Increment;

fuzz_target!(|data: &[u8]| {
    let mut source = data;
    let length = data.len() as u64;
    let Ok(increment) = Increment::read(&mut source, length) else {
        return;
    };
    let pages = increment.places().count();
    assert_eq!(source.len(), pages * Increment::PAGE_BYTES);
    let places: Vec<u64> = increment.places().flatten().collect();
    assert!(places.is_sorted_by(|one, next| one < next));
    assert!(places.iter().all(|place| *place < increment.file_bytes()));
});
