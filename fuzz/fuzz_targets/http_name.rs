//! The raw rest of a request's path: a name comes out only if it is the plain last component.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The room keeps it to itself; it knows nothing but names and errors.
#[path = "../../crates/wale-service/src/http/name.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod name;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    assert!(name::parse(&text, Some("")).is_err());
    match name::parse(&text, None) {
        Ok(name) => {
            let name = name.to_string();
            assert!(text.ends_with(&name));
            assert!(!text.split('/').any(|part| matches!(part, "" | "." | "..")), "{text}");
            assert!(!text.contains('%') && !text.contains('\\'), "{text}");
            let before = text.strip_suffix(&name).expect("it ends so");
            assert!(before.is_empty() || before.ends_with('/'), "{text}");
        }
        Err(error) => {
            assert!(error.message.is_ascii() && !error.message.contains('\n'));
            assert!(error.message.len() < 1200, "{}", error.message.len());
        }
    }
});
