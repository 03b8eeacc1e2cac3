//! What breaks a rule that is newer than the code: a list that only gets shorter.
//!
//! A place that is not in the list is an error, and so is a line whose place is in order by now: what was reached
//! stays.

use std::collections::{BTreeMap, BTreeSet};

/// The list, relative to the repository.
pub(crate) const FILE: &str = "crates/xtask/known.txt";

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule, the file and the name, without a number of a line: how the list calls it.
    pub(crate) key: String,
    /// Where it is and what is wrong with it.
    pub(crate) said: String,
}

impl Finding {
    /// A finding of `rule` in a file about a name.
    pub(crate) fn new(rule: &str, file: &str, name: &str, said: String) -> Self {
        let short = file.strip_prefix("crates/").unwrap_or(file);
        let key = format!("{rule} {short} {name}");
        Self { key, said }
    }
}

/// What is found and not in the list, and what is in the list and not found any more.
pub(crate) fn compare(list: &str, findings: &[Finding]) -> Vec<String> {
    let known: BTreeSet<&str> = lines(list).collect();
    let found: BTreeSet<&str> = findings
        .iter()
        .map(|finding| finding.key.as_str())
        .collect();
    let new = findings
        .iter()
        .filter(|finding| !known.contains(finding.key.as_str()));
    let gone = known.iter().filter(|line| !found.contains(**line));
    new.map(|finding| finding.said.clone())
        .chain(gone.map(|line| {
            format!("{FILE}: \"{line}\" is in order now: take the line out (xtask tidy --lower)")
        }))
        .collect()
}

/// The list without what is in order by now. Nothing is ever added.
pub(crate) fn lowered(list: &str, findings: &[Finding]) -> String {
    let found: BTreeSet<&str> = findings
        .iter()
        .map(|finding| finding.key.as_str())
        .collect();
    let kept = list
        .split_inclusive('\n')
        .filter(|line| line.starts_with('#') || found.contains(line.trim_end()));
    kept.collect()
}

/// How many places each rule has in the list.
pub(crate) fn counts(list: &str) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines(list) {
        *counts
            .entry(line.split(' ').next().unwrap_or_default())
            .or_default() += 1;
    }
    let said: Vec<String> = counts
        .iter()
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    said.join(", ")
}

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Known.\nlong a/src/a.rs f\nlong a/src/b.rs g\ntype a/src/b.rs T\n";

    fn finding(file: &str, name: &str) -> Finding {
        Finding::new(
            "long",
            &format!("crates/{file}"),
            name,
            format!("{name} is long"),
        )
    }

    #[test]
    fn what_is_known_is_no_problem_and_what_is_new_or_gone_is_one() {
        let both = [finding("a/src/a.rs", "f"), finding("a/src/b.rs", "g")];
        assert!(compare("# Known.\nlong a/src/a.rs f\nlong a/src/b.rs g\n", &both).is_empty());
        let found = [finding("a/src/a.rs", "f"), finding("a/src/c.rs", "g")];
        let problems = compare(LIST, &found);
        assert_eq!(problems[0], "g is long");
        assert!(problems[1].contains("\"long a/src/b.rs g\" is in order now"));
        assert!(problems[2].contains("\"type a/src/b.rs T\" is in order now"));
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn the_list_gets_shorter_and_never_longer() {
        let found = [finding("a/src/b.rs", "g"), finding("a/src/new.rs", "h")];
        assert_eq!(lowered(LIST, &found), "# Known.\nlong a/src/b.rs g\n");
        assert_eq!(counts(LIST), "long 2, type 1");
    }
}
