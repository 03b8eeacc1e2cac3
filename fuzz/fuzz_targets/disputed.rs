//! `wale_disputed.json`, what a further archive holds with other bytes than the first.
//!
//! Whatever the bytes are, there is a note; one that is written is read back as it was, and what cannot be understood disputes
//! everything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_archive::Disputed;
use wale_pg::ArchiveFileName;

fuzz_target!(|data: &[u8]| {
    let note = Disputed::parse(data);
    let name = ArchiveFileName::parse("00000001000000000000001F").expect("a name");
    if serde_json::from_slice::<serde_json::Value>(data).is_err() {
        assert!(note.of_wal(&name).is_some());
    }
    let written = serde_json::to_vec(&note).expect("a note is JSON");
    assert_eq!(Disputed::parse(&written), note);
    let mut again = Disputed::default();
    for (key, why) in &note.objects {
        again.add(key, why);
    }
    let written = serde_json::to_vec(&again).expect("a note is JSON");
    assert_eq!(Disputed::parse(&written), again);
});
