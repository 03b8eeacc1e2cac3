//! The page that says which test stands for which row of the fault battery, read off the tests' names:
//! `fault_37_the_same_bytes_…`, `fault_02_and_05_…`, `fault_50_51_53_…`; of unit tests `row_29_…`, `row63_…`, `rows_4_and_25_…`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::source::Source;

/// A test: its name and its file.
type Test = (String, String);

/// The page.
pub(crate) fn page(root: &Path) -> Result<String, String> {
    let mut rows: BTreeMap<u32, Vec<Test>> = BTreeMap::new();
    for source in Source::below(root, "crates")? {
        for name in source.function_names() {
            for row in rows_of(name) {
                rows.entry(row)
                    .or_default()
                    .push((name.to_owned(), source.path.clone()));
            }
        }
    }
    let mut text = String::from(
        "<!-- Generated from the tests' names by `cargo run -p xtask -- docs`. Do not edit. -->\n\n\
         # The fault battery\n\n\
         Rows of the battery of faults and bad input that have a test. A row without one belongs to a\n\
         capability that does not exist: there is no spool (17), so a push is acknowledged by the store itself or not\n\
         at all. What only the real TimescaleDB can show (57: chunks that are still there after ten minutes) is not tested.\n\n\
         Invariants I1 to I7 are checked after random faults by `crates/wale-ops/tests/sim` (simulation) and\n\
         `crates/wale/tests/it/crash_campaign.rs` (kills of real programs); `make soak` runs many.\n\n\
         | row | test | where |\n|---|---|---|\n",
    );
    for (row, tests) in rows {
        for (name, path) in tests {
            let words = name.split('_').skip(1);
            let said: Vec<&str> = words
                .skip_while(|word| *word == "and" || word.parse::<u32>().is_ok())
                .collect();
            let _ = writeln!(text, "| {row} | {} | `{path}` |", said.join(" "));
        }
    }
    Ok(text)
}

/// The rows that a test's name speaks of.
fn rows_of(name: &str) -> Vec<u32> {
    // The longer ones first.
    let prefixes = ["faults", "fault", "rows", "row"];
    let Some(rest) = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
        return Vec::new();
    };
    let rest = rest.strip_prefix('_').unwrap_or(rest);
    let words = rest.split('_').filter(|word| *word != "and");
    words.map_while(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_leading_numbers() {
        let cases: [(&str, &[u32]); 9] = [
            ("fault_37_same_bytes", &[37]),
            ("fault_02_and_05_killed", &[2, 5]),
            ("fault_50_51_53_the_server", &[50, 51, 53]),
            ("rows_4_and_25_a_lost_reply", &[4, 25]),
            ("faults_9", &[9]),
            ("row63_other_methods", &[63]),
            ("rows41_and_42_another", &[41, 42]),
            ("rows_of", &[]),
            ("a_test_37", &[]),
        ];
        for (name, rows) in cases {
            assert_eq!(rows_of(name), rows, "{name}");
        }
    }
}
