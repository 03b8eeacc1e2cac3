//! `postmaster.pid`: whatever stands in it, a directory is told to be free only if it names no process at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_cluster::DataDirectory;

#[path = "stand_ins/scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let path = scratch::folder().join("postmaster.pid");
    std::fs::write(&path, data).expect("the file is written");
    let Ok(state) = DataDirectory::at(scratch::folder()).postmaster() else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    let first = text.lines().next().unwrap_or_default().trim();
    match state.file() {
        Some(file) => {
            let number: i32 = first.parse().expect("the first line is a process");
            assert_eq!(file.pid, number.unsigned_abs());
        }
        None => assert!(first.parse::<i32>().is_err(), "{first}"),
    }
});
