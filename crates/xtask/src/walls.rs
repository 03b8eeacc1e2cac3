//! Walls between modules: files of a crate form no circle, and the operations of wale-ops need nothing of each other.
//!
//! Both mean an item in the wrong file: what two need stands below them under its own name.

use std::collections::{BTreeMap, BTreeSet};

use crate::known::Finding;
use crate::modules::Use;

/// The uses that go round in a circle of files, once for each pair of files.
pub(crate) fn circles(uses: &[Use]) -> Vec<Finding> {
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for used in uses {
        needs.entry(&used.from).or_default().insert(&used.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = needs
        .keys()
        .map(|file| (*file, reach(file, &needs)))
        .collect();
    let mut found: BTreeMap<(&str, &str), &Use> = BTreeMap::new();
    for used in uses {
        let back = reached.get(used.to.as_str());
        if back.is_some_and(|files| files.contains(used.from.as_str())) {
            found.entry((&used.from, &used.to)).or_insert(used);
        }
    }
    let said = |used: &Use| {
        let Use {
            from,
            line,
            path,
            to,
            ..
        } = used;
        let said = format!("{from}:{line}: {path} is of {to}, which needs this file in turn");
        let other = to.strip_prefix("crates/").unwrap_or(to);
        Finding::new("circle", from, other, said)
    };
    found.into_values().map(said).collect()
}

/// Every file that a file needs, directly or through others.
fn reach<'a>(file: &str, needs: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = needs.get(file).into_iter().flatten().copied().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(needs.get(next).into_iter().flatten());
        }
    }
    reached
}

/// The uses of an operation by another one or by what stands below all of them, once for each file and operation. A
/// use is one, too, when the operation only re-exports the item. The root assembles and may name all.
pub(crate) fn between_operations(uses: &[Use], operations: &[&str]) -> Vec<Finding> {
    let mut found: BTreeMap<(&str, &str), Finding> = BTreeMap::new();
    for used in uses.iter().filter(|used| !used.by.is_empty()) {
        let own = top(&used.by);
        for other in used.through.iter().map(|module| top(module)) {
            if other != own && operations.contains(&other) {
                let Use {
                    from, line, path, ..
                } = used;
                let said = format!(
                    "{from}:{line}: {path} is of the operation {other}; what two need stands below both"
                );
                found
                    .entry((from, other))
                    .or_insert_with(|| Finding::new("operation", from, other, said));
            }
        }
    }
    found.into_values().collect()
}

/// The module below the root in which a module stands.
fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Modules;

    fn uses(files: &[(&str, &str)]) -> Vec<Use> {
        let paths: Vec<String> = files
            .iter()
            .map(|(name, _)| format!("crates/a/src/{name}"))
            .collect();
        let texts = files.iter().map(|(_, text)| (*text).to_owned());
        let files = paths.iter().map(String::as_str).zip(texts).collect();
        Modules::read("a", &files).unwrap().uses()
    }

    fn keys(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.key.as_str())
            .collect()
    }

    #[test]
    fn files_that_need_each_other_are_a_circle() {
        let good = uses(&[
            ("lib.rs", "mod high;\nmod low;\npub use high::High;"),
            ("high.rs", "use crate::low::Low;\npub struct High(Low);"),
            (
                "low.rs",
                "pub struct Low;\n#[cfg(test)]\nmod tests { use crate::high::High; }",
            ),
        ]);
        assert_eq!(circles(&good), []);
        let round = uses(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
            (
                "a.rs",
                "use crate::b::B;\nuse crate::d::D;\npub struct A(B, D);",
            ),
            ("b.rs", "use crate::c::C;\npub struct B(C);"),
            ("c.rs", "pub struct C(Box<super::a::A>);"),
            ("d.rs", "pub struct D;"),
        ]);
        assert_eq!(
            keys(&circles(&round)),
            [
                "circle a/src/a.rs a/src/b.rs",
                "circle a/src/b.rs a/src/c.rs",
                "circle a/src/c.rs a/src/a.rs",
            ]
        );
    }

    #[test]
    fn a_folder_and_its_files_are_a_circle_only_when_it_holds_what_they_need() {
        let table = (
            "push/run.rs",
            "use super::Options;\npub fn run(_: Options) {}",
        );
        let contents = "mod options;\nmod run;\npub use options::Options;\npub use run::run;";
        let good = uses(&[
            ("lib.rs", "mod push;"),
            ("push/mod.rs", contents),
            ("push/options.rs", "pub struct Options;"),
            table,
        ]);
        assert_eq!(circles(&good), []);
        let bad = "mod run;\npub struct Options;\npub fn go() { run::run(Options) }";
        let found = circles(&uses(&[
            ("lib.rs", "mod push;"),
            ("push/mod.rs", bad),
            table,
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn operations_stand_side_by_side() {
        let operations = ["push", "fetch"];
        let good = uses(&[
            (
                "lib.rs",
                "mod push;\nmod fetch;\nmod low;\npub use push::run;",
            ),
            ("push/mod.rs", "use crate::low::Low;\npub fn run(_: Low) {}"),
            (
                "fetch.rs",
                "use crate::low::Low;\n#[cfg(test)]\nuse crate::push::run;",
            ),
            ("low.rs", "pub struct Low;"),
        ]);
        assert_eq!(between_operations(&good, &operations), []);
        let bad = uses(&[
            (
                "lib.rs",
                "mod push;\nmod fetch;\nmod low;\npub use push::run;",
            ),
            (
                "push/mod.rs",
                "mod plan;\npub use plan::judge;\npub use crate::low::Low;\npub fn run() {}",
            ),
            (
                "push/plan.rs",
                "use super::super::fetch;\npub fn judge() { fetch::go() }",
            ),
            (
                "fetch.rs",
                "use crate::run;\npub fn go() { crate::push::plan::judge(); super::push::Low }",
            ),
            (
                "low.rs",
                "pub struct Low(crate::push::Low);\npub fn low() { crate::push::judge() }",
            ),
        ]);
        assert_eq!(
            keys(&between_operations(&bad, &operations)),
            [
                "operation a/src/fetch.rs push",
                "operation a/src/low.rs push",
                "operation a/src/push/plan.rs fetch",
            ]
        );
    }
}
