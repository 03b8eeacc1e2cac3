//! WAL-E's restore specification: every place that comes out is absolute, and the data directory is never another.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "stand_ins/scratch.rs"]
mod scratch;

// The parser lives in the program, which is no library.
#[path = "../../crates/wale/src/verbs/restore_spec.rs"]
#[allow(dead_code, reason = "the program's module, as it is")]
mod restore_spec;

fuzz_target!(|data: &[u8]| {
    let path = scratch::folder().join("spec.json");
    std::fs::write(&path, data).expect("the file is written");
    let argument = path.to_str().expect("a path in UTF-8");
    let Ok(places) = restore_spec::read(argument, Path::new("/new/data")) else {
        return;
    };
    assert!(places.iter().all(|(_, place)| place.is_absolute()));
    let value: serde_json::Value = serde_json::from_slice(data).expect("what is understood is JSON");
    let base = value.get("base_prefix").and_then(serde_json::Value::as_str);
    let same = |base: &str| base.is_empty() || Path::new(base).components().eq(Path::new("/new/data").components());
    assert!(base.is_none_or(same), "{base:?}");
});
