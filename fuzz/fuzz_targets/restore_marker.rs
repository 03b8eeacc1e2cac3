//! The marker of a restore: what is read is written as it was meant, and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_cluster::restore_marker;

#[path = "stand_ins/scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let path = scratch::folder().join(restore_marker::FILE_NAME);
    std::fs::write(&path, data).expect("the file is written");
    let Ok(read) = restore_marker::read(scratch::folder()) else {
        return;
    };
    let marker = read.expect("the file is there");
    let written = serde_json::to_vec(&marker).expect("it is written");
    std::fs::write(&path, written).expect("the file is written");
    let again = restore_marker::read(scratch::folder()).expect("what is written is read");
    assert_eq!(again, Some(marker));
});
