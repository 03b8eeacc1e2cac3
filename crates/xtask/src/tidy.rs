//! Checks the rules and names every place that breaks one.

use std::path::Path;

use crate::known::{self, Finding};
use crate::modules::Modules;
use crate::names::{self, Words};
use crate::rules::{
    ASKS_FOR_MAJORS, EVERY_MAJOR, FILE_LINES_MAX, FUNCTION_LINES_AIM, FUNCTION_LINES_MAX, IMPURE,
    INTEGRATION, MAY_USE, OPERATIONS, SETTING, WITHOUT_SETTINGS,
};
use crate::source::Source;
use crate::walls;

/// Checks the repository.
pub(crate) fn run(root: &Path) -> Result<String, String> {
    let sources = Source::below(root, "crates")?;
    let mut problems: Vec<String> = sources.iter().flat_map(problems_of).collect();
    for (room, allowed) in MAY_USE {
        let path = root.join("crates").join(room).join("Cargo.toml");
        let manifest =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        problems.extend(forbidden(room, &manifest, allowed));
    }
    let list = list(root)?;
    problems.extend(known::compare(&list, &findings(root, &sources)?));
    if problems.is_empty() {
        let (files, known) = (sources.len(), known::counts(&list));
        Ok(format!("tidy: {files} files, nothing new; known: {known}"))
    } else {
        let count = problems.len();
        Err(format!("{}\ntidy: {count} problems", problems.join("\n")))
    }
}

/// Takes out of the list of what is known whatever is in order by now.
pub(crate) fn lower(root: &Path) -> Result<String, String> {
    let list = list(root)?;
    let sources = Source::below(root, "crates")?;
    let shorter = known::lowered(&list, &findings(root, &sources)?);
    let path = root.join(known::FILE);
    std::fs::write(&path, &shorter).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(format!(
        "tidy: left in {}: {}",
        known::FILE,
        known::counts(&shorter)
    ))
}

fn list(root: &Path) -> Result<String, String> {
    let path = root.join(known::FILE);
    std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
}

/// What breaks the rules that are newer than the code.
fn findings(root: &Path, sources: &[Source]) -> Result<Vec<Finding>, String> {
    let fuzz = Source::below(root, "fuzz/fuzz_targets")?;
    let words = Words::of(sources.iter().chain(&fuzz));
    let mut found = Vec::new();
    for source in sources {
        for (line, name, length) in source.functions() {
            if length > FUNCTION_LINES_AIM {
                let path = &source.path;
                let said = format!(
                    "{path}:{line}: {name} has {length} lines, at most {FUNCTION_LINES_AIM}"
                );
                found.push(Finding::new("long", path, name, said));
            }
        }
    }
    for (room, _) in MAY_USE {
        let folder = format!("crates/{room}/src/");
        let files = sources
            .iter()
            .filter(|source| source.path.starts_with(&folder));
        let files = files
            .map(|source| (source.path.as_str(), source.text()))
            .collect();
        let modules = Modules::read(room, &files)?;
        let uses = modules.uses();
        found.extend(walls::circles(&uses));
        found.extend(names::shared_by_types(&modules));
        if room == "wale-ops" {
            found.extend(walls::between_operations(&uses, &OPERATIONS));
        }
        if files.contains_key(format!("{folder}lib.rs").as_str()) {
            found.extend(names::unused_elsewhere(&modules, room, &words));
        }
    }
    Ok(found)
}

fn problems_of(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut problems = Vec::new();
    if source.len() > FILE_LINES_MAX {
        problems.push(format!(
            "{path}: {} lines, at most {FILE_LINES_MAX}",
            source.len()
        ));
    }
    if !source.first().starts_with("//!") && !source.first().starts_with("#!") {
        problems.push(format!(
            "{path}:1: a module begins with what it is for (//!)"
        ));
    }
    for (line, _, length) in source.functions() {
        if length > FUNCTION_LINES_MAX {
            problems.push(format!(
                "{path}:{line}: a function of {length} lines, at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
    if path.ends_with("/plan.rs") {
        for (number, line) in source.shipped() {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{path}:{number}: {word}: a plan is a pure value"));
            }
        }
    }
    if WITHOUT_SETTINGS.contains(&source.room()) {
        for (number, line) in source.shipped() {
            if line.contains(SETTING) {
                problems.push(format!(
                    "{path}:{number}: a setting is named: say what is to be changed with a Remedy"
                ));
            }
        }
    }
    if path.starts_with(INTEGRATION) && !path.ends_with("/support.rs") {
        for (number, name) in source.functions_with(&ASKS_FOR_MAJORS) {
            if !name.ends_with(EVERY_MAJOR) {
                problems.push(format!(
                    "{path}:{number}: the name of {name} ends with {EVERY_MAJOR}, or make test-matrix does not find it"
                ));
            }
        }
    }
    if source.room().starts_with("wale") && !MAY_USE.iter().any(|(room, _)| *room == source.room())
    {
        problems.push(format!(
            "{path}: {} has no line in the table of directions",
            source.room()
        ));
    }
    problems
}

/// Dependencies on rooms that a room must not see; those for its tests do not ship and do not count.
fn forbidden(room: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let mut section = "";
    let mut problems = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let is_room = name.starts_with("wale-") || name == "wale" || name == "xtask";
        if section == "[dependencies]" && is_room && !allowed.contains(&name) {
            problems.push(format!(
                "crates/{room}/Cargo.toml: {room} may not depend on {name}"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str, text: &str) -> String {
        problems_of(&Source::new(path, text)).join("\n")
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let cases = [
            ("crates/wale-ops/src/a.rs", "fn a() {}", "what it is for"),
            (
                "crates/wale-ops/src/x/plan.rs",
                "//! D.\nasync fn a() {}",
                "pure value",
            ),
            (
                "crates/wale-ops/src/a.rs",
                "//! D.\nfn a() { x(\"set WALE_X\") }",
                "a.rs:2: a setting",
            ),
            ("crates/wale-new/src/a.rs", "//! D.", "no line in the table"),
            (
                "crates/wale/tests/it/a.rs",
                "//! D.\nfn b_on_every_major() {}\nfn c() {\n    for major in majors() {}\n}",
                "a.rs:4: the name of c ends",
            ),
        ];
        for (path, text, part) in cases {
            assert!(
                said(path, text).contains(part),
                "{path} {text}: {}",
                said(path, text)
            );
        }
        let long = "//! D.\n".to_owned() + &"x();\n".repeat(FILE_LINES_MAX);
        assert!(said("crates/wale/src/a.rs", &long).contains("1001 lines"));
        let function = format!(
            "//! D.\nfn a() {{\n{}}}\n",
            "    x();\n".repeat(FUNCTION_LINES_MAX)
        );
        assert!(said("crates/wale/src/a.rs", &function).contains("a function of 102 lines"));
    }

    #[test]
    fn what_is_allowed_is_not_named() {
        for (path, text) in [
            (
                "crates/wale-ops/src/x/plan.rs",
                "//! D.\n// async fn would be none\nfn a() {}\n#[cfg(test)]\nmod tests {\n    use tokio::x;\n}",
            ),
            (
                "crates/wale-ops/src/a.rs",
                "//! D.\n// WALE_X\nfn a() {}\n#[cfg(test)]\nmod tests {\n    const X: &str = \"WALE_X\";\n}",
            ),
            (
                "crates/wale-service/src/a.rs",
                "//! D.\nconst X: &str = \"WALE_X\";",
            ),
            (
                "crates/wale/tests/it/a.rs",
                "//! D.\nfn a_on_every_major() {\n    on_every_major(|major| b(major));\n}",
            ),
        ] {
            assert_eq!(said(path, text), "", "{path} {text}");
        }
    }

    #[test]
    fn arrows_point_down_only() {
        let manifest = "[dependencies]\nwale-pg.workspace = true\nwale-storage = { path = \"x\" }\nbytes.workspace = true\n\
                        [dev-dependencies]\nwale-testkit.workspace = true\n";
        let problems = forbidden("wale-cluster", manifest, &["wale-pg"]);
        assert_eq!(
            problems,
            ["crates/wale-cluster/Cargo.toml: wale-cluster may not depend on wale-storage"]
        );
    }
}
