//! The settings: a configuration file and an environment, as the program reads them.
//!
//! All mistakes are gathered, none panics, and no text that is shown holds a secret's value.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser lives in the program, which is no library.
#[path = "../../crates/wale/src/config/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the program's module, as it is")]
mod config;

const CANARY: &str = "canary-in-a-coal-mine";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut file = String::new();
    for line in text.lines() {
        let name = line.split('=').next().unwrap_or_default().trim();
        let name = name.strip_prefix("export ").unwrap_or(name);
        let mut facts = config::SETTINGS.iter().map(|setting| setting.facts());
        let secret = facts.find(|setting| setting.secret && setting.name == name);
        // A secret's file would be read, whatever it is: a pipe, a terminal.
        if name.ends_with("_FILE") {
            continue;
        }
        file.push_str(line);
        if secret.is_some() {
            file.push_str(CANARY);
        }
        file.push('\n');
    }
    let loaded = config::Loaded::for_test(&[], &file);
    let mut shown = format!("{:?}{:?}", loaded.warnings, loaded.shown());
    if let Err(error) = loaded.require_all() {
        shown.push_str(&format!("{} {:?} {:?}", error.message, error.detail, error.hint));
    }
    shown.push_str(&config::show_text(&loaded.shown()));
    shown.push_str(&config::show_json(&loaded.shown()).to_string());
    assert!(!shown.contains(CANARY), "{shown}");
});
