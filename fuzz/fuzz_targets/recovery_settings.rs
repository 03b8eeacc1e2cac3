//! `RECOVERY_ADDITION`, and the configuration file that a restore cleans.
//!
//! What is accepted can be quoted into a file that holds exactly these settings; cleaning twice is cleaning once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_cluster::recovery::{parse_addition, strip};
use wale_pg::MajorVersion;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let once = strip(&text);
    assert_eq!(strip(&once), once);
    for major in MajorVersion::all() {
        let Ok(settings) = parse_addition(&text, major) else {
            continue;
        };
        let mut lines = String::new();
        for (name, value) in &settings {
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            lines.push_str(&format!("{name} = '{value}'\n"));
        }
        assert_eq!(parse_addition(&lines, major).ok(), Some(settings), "{lines}");
    }
});
