//! Names: types of one crate that share a name, and public functions and constants that no other crate names.

use std::collections::{BTreeMap, HashMap};

use crate::known::Finding;
use crate::modules::Modules;
use crate::source::Source;

/// What has a name that is a type's.
const TYPES: [&str; 5] = ["struct", "enum", "union", "trait", "type"];

/// What is certainly not used elsewhere when nobody says its name there. Types are left out: a value may be used
/// without the name of its type.
const SAID_BY_NAME: [&str; 3] = ["fn", "const", "static"];

/// Every place of a type whose name another type of the crate has.
pub(crate) fn shared_by_types(modules: &Modules) -> Vec<Finding> {
    let mut places: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for (file, module) in modules.all() {
        for item in module
            .items
            .iter()
            .filter(|item| TYPES.contains(&item.kind))
        {
            places
                .entry(&item.name)
                .or_default()
                .push((file, item.line));
        }
    }
    let mut found = Vec::new();
    for (name, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        for (file, line) in places {
            let count = places.len();
            let said = format!("{file}:{line}: {count} types of this crate are called {name}");
            found.push(Finding::new("type", file, name, said));
        }
    }
    found
}

/// Every public function and constant of the crate whose name stands in no text outside it.
pub(crate) fn unused_elsewhere(modules: &Modules, room: &str, words: &Words) -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, module) in modules.all() {
        let public = module.items.iter().filter(|item| item.public);
        for item in public.filter(|item| SAID_BY_NAME.contains(&item.kind)) {
            let (name, line) = (&item.name, item.line);
            if !words.stands_outside(name, room) {
                let said = format!("{file}:{line}: {name} is public and no other crate names it");
                found.push(Finding::new("public", file, name, said));
            }
        }
    }
    found
}

/// Which words stand in the source of which crate, comments and tests too.
#[derive(Debug, Default)]
pub(crate) struct Words<'a> {
    /// The crate that holds a word in its `src`; none when it stands in several, or outside.
    places: HashMap<&'a str, Option<&'a str>>,
}

impl<'a> Words<'a> {
    /// The words of all sources. A crate's own integration tests and examples, those in its comments too, see it from
    /// outside.
    pub(crate) fn of(sources: impl IntoIterator<Item = &'a Source>) -> Self {
        let mut words = Self::default();
        for source in sources {
            let in_src = source.path.split('/').nth(2) == Some("src");
            let room = in_src.then(|| source.room());
            let mut in_example = false;
            for line in source.lines() {
                let comment = line.trim_start();
                let is_comment = comment.starts_with("///") || comment.starts_with("//!");
                if is_comment && comment.contains("```") {
                    in_example = !in_example;
                }
                words.add(line, room.filter(|_| !(is_comment && in_example)));
            }
        }
        words
    }

    fn add(&mut self, line: &'a str, room: Option<&'a str>) {
        for word in line.split(|character: char| !character.is_alphanumeric() && character != '_') {
            let place = self.places.entry(word).or_insert(room);
            if *place != room {
                *place = None;
            }
        }
    }

    /// Does the word stand anywhere but in the `src` of this crate?
    fn stands_outside(&self, word: &str, room: &str) -> bool {
        self.places
            .get(word)
            .is_some_and(|place| *place != Some(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(text: &str) -> Modules {
        let files = BTreeMap::from([
            ("crates/a/src/lib.rs", format!("mod b;\n{text}")),
            (
                "crates/a/src/b.rs",
                "pub struct B;\npub struct Options;".to_owned(),
            ),
        ]);
        Modules::read("a", &files).unwrap()
    }

    fn keys(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.key.as_str())
            .collect()
    }

    #[test]
    fn a_name_is_one_types() {
        assert_eq!(
            shared_by_types(&modules("struct A;\nfn b() { struct B; }")),
            []
        );
        let found = shared_by_types(&modules("enum Options {}"));
        assert_eq!(
            keys(&found),
            ["type a/src/lib.rs Options", "type a/src/b.rs Options"]
        );
        assert!(
            found[0].said.contains("lib.rs:2: 2 types"),
            "{}",
            found[0].said
        );
    }

    #[test]
    fn what_is_public_is_named_by_another_crate() {
        let text = "/// ```\n/// a::example();\n/// ```\npub fn example() {}\npub fn named() {}\npub fn own() {}\n\
                    pub fn tested() {}\npub(crate) fn hidden() {}\nimpl A { pub fn alone() {} }\npub struct Unnamed;";
        let sources = [
            Source::new("crates/a/src/lib.rs", text),
            Source::new("crates/a/src/b.rs", "own();"),
            Source::new("crates/a/tests/t.rs", "tested();"),
            Source::new("crates/c/src/lib.rs", "a::named()"),
        ];
        let found = unused_elsewhere(&modules(text), "a", &Words::of(&sources));
        assert_eq!(
            keys(&found),
            ["public a/src/lib.rs own", "public a/src/lib.rs alone"]
        );
    }
}
