//! The modules of one crate as a tree, and which file uses an item of which other file.
//!
//! A path leads to where the item is defined, through every `pub use` on its way: a re-export is a table of contents
//! and no use. Methods are not followed, since that would need types.

use std::collections::BTreeMap;

use crate::tokens::{Import, Module, Path};

/// The crate's modules; the first one is its root.
#[derive(Debug)]
pub(crate) struct Modules {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Its path in the crate, `wal_push::plan`.
    name: String,
    /// The file that holds it, relative to the repository.
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    module: Module,
}

/// An item of a file that another file uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    /// The file that uses it.
    pub(crate) from: String,
    pub(crate) line: usize,
    /// The file that defines it.
    pub(crate) to: String,
    /// The item as it is written.
    pub(crate) path: String,
    /// The modules that the path leads through, in the order of its steps.
    pub(crate) through: Vec<String>,
    /// The module that uses it.
    pub(crate) by: String,
}

/// Where a path leads.
struct Found {
    node: usize,
    item: bool,
    through: Vec<usize>,
}

/// Longest chain of re-exports that is followed. Two is usual.
const CHAIN_MAX: usize = 16;

impl Modules {
    /// The tree below `crates/<room>/src`, given the crate's files by path.
    pub(crate) fn read(room: &str, files: &BTreeMap<&str, String>) -> Result<Self, String> {
        let mut tree = Self { nodes: Vec::new() };
        let folder = format!("crates/{room}/src");
        let first = ["lib.rs", "main.rs"]
            .map(|name| format!("{folder}/{name}"))
            .into_iter()
            .find(|path| files.contains_key(path.as_str()))
            .ok_or_else(|| format!("{folder}: no lib.rs and no main.rs"))?;
        let module = parsed(&first, files)?;
        tree.add(("", &first, &folder), 0, module, files)?;
        Ok(tree)
    }

    /// Adds a module with its children, which stand below `folder`.
    fn add(
        &mut self,
        (name, file, folder): (&str, &str, &str),
        parent: usize,
        mut module: Module,
        files: &BTreeMap<&str, String>,
    ) -> Result<usize, String> {
        let node = self.nodes.len();
        let children = std::mem::take(&mut module.children);
        self.nodes.push(Node {
            name: name.to_owned(),
            file: file.to_owned(),
            parent,
            children: BTreeMap::new(),
            module,
        });
        for (child, content) in children {
            let below = format!("{folder}/{child}");
            let (file, module) = match content {
                Some(module) => (file.to_owned(), module),
                None => [format!("{below}.rs"), format!("{below}/mod.rs")]
                    .into_iter()
                    .find(|path| files.contains_key(path.as_str()))
                    .ok_or_else(|| format!("{file}: mod {child} has no file"))
                    .and_then(|path| Ok((path.clone(), parsed(&path, files)?)))?,
            };
            let path = join(name, &child);
            let added = self.add((&path, &file, &below), node, module, files)?;
            self.nodes[node].children.insert(child, added);
        }
        Ok(node)
    }

    /// The modules with their files, in the order of their declaration.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.nodes
            .iter()
            .map(|node| (node.file.as_str(), &node.module))
    }

    /// Every item that a module uses from another file, once for each module and item.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let imports = node.module.imports.iter().filter(|import| {
                let name = import.name.as_ref();
                !import.shown || name.is_some_and(|name| node.module.words.contains(name))
            });
            let globs = |path: &Path| {
                node.module
                    .imports
                    .iter()
                    .any(|i| i.name.is_none() && i.path.segments == path.segments)
            };
            for path in imports.map(|import| &import.path).chain(&node.module.paths) {
                let Some(found) = self.find(at, &path.segments, 0) else {
                    continue;
                };
                let file = &self.nodes[found.node].file;
                if *file == node.file || !(found.item || globs(path)) {
                    continue;
                }
                let through = found
                    .through
                    .iter()
                    .map(|node| self.nodes[*node].name.clone());
                let new = Use {
                    from: node.file.clone(),
                    line: path.line,
                    to: file.clone(),
                    path: path.segments.join("::"),
                    through: through.collect(),
                    by: node.name.clone(),
                };
                if !uses
                    .iter()
                    .any(|known| known.by == new.by && known.path == new.path)
                {
                    uses.push(new);
                }
            }
        }
        uses
    }

    /// Where a path leads that is written in module `from`; none where it leads out of the crate.
    fn find(&self, from: usize, path: &[String], depth: usize) -> Option<Found> {
        if depth > CHAIN_MAX {
            return None;
        }
        let first = path.first()?.as_str();
        let (mut at, mut skipped) = match first {
            "crate" => (0, 1),
            "self" => (from, 1),
            "super" => (self.nodes[from].parent, 1),
            _ => (from, 0),
        };
        while path.get(skipped).is_some_and(|segment| segment == "super") {
            at = self.nodes[at].parent;
            skipped += 1;
        }
        let mut through = vec![at];
        let mut relative = skipped == 0;
        for (number, segment) in path.iter().enumerate().skip(skipped) {
            match self.step(at, segment, number + 1 == path.len(), depth) {
                Some(found) => {
                    through.extend(&found.through);
                    at = found.node;
                    if found.item {
                        return Some(Found {
                            node: at,
                            item: true,
                            through,
                        });
                    }
                }
                // A name of another crate, or of the language.
                None if relative => return None,
                // What a macro defines has no definition to be found.
                None => {
                    return Some(Found {
                        node: at,
                        item: true,
                        through,
                    });
                }
            }
            relative = false;
        }
        Some(Found {
            node: at,
            item: false,
            through,
        })
    }

    /// What a name means in a module. The last name of a path is an item rather than the module of the same name.
    fn step(&self, at: usize, name: &str, last: bool, depth: usize) -> Option<Found> {
        let child = || {
            let child = *self.nodes[at].children.get(name)?;
            let through = vec![child];
            Some(Found {
                node: child,
                item: false,
                through,
            })
        };
        if last {
            self.item(at, name, depth).or_else(child)
        } else {
            child().or_else(|| self.item(at, name, depth))
        }
    }

    /// The item of this name, defined in the module or brought into it.
    fn item(&self, at: usize, name: &str, depth: usize) -> Option<Found> {
        let module = &self.nodes[at].module;
        if module
            .items
            .iter()
            .any(|item| item.of_module && item.name == name)
        {
            return Some(Found {
                node: at,
                item: true,
                through: Vec::new(),
            });
        }
        let named = |import: &&Import| import.name.as_deref() == Some(name);
        let mut brought = module.imports.iter().filter(named);
        if let Some(found) =
            brought.find_map(|import| self.find(at, &import.path.segments, depth + 1))
        {
            return Some(found);
        }
        module
            .imports
            .iter()
            .filter(|import| import.name.is_none())
            .find_map(|import| {
                let base = self.find(at, &import.path.segments, depth + 1)?;
                let elsewhere = !base.item && base.node != at;
                elsewhere
                    .then(|| self.step(base.node, name, true, depth + 1))
                    .flatten()
            })
    }
}

fn parsed(path: &str, files: &BTreeMap<&str, String>) -> Result<Module, String> {
    Module::read(&files[path]).map_err(|error| format!("{path}: {error}"))
}

fn join(name: &str, child: &str) -> String {
    if name.is_empty() {
        child.to_owned()
    } else {
        format!("{name}::{child}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(files: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<String> = files
            .iter()
            .map(|(name, _)| format!("crates/a/src/{name}"))
            .collect();
        let texts = files.iter().map(|(_, text)| (*text).to_owned());
        let files = paths.iter().map(String::as_str).zip(texts).collect();
        let short = |path: &str| path.trim_start_matches("crates/a/src/").to_owned();
        let said = |used: Use| {
            format!(
                "{}:{} {} in {}",
                short(&used.from),
                used.line,
                used.path,
                short(&used.to)
            )
        };
        Modules::read("a", &files)
            .unwrap()
            .uses()
            .into_iter()
            .map(said)
            .collect()
    }

    #[test]
    fn a_path_leads_to_the_file_that_defines_the_item() {
        let found = uses(&[
            (
                "lib.rs",
                "mod low;\nmod push;\npub use push::{run, Options};",
            ),
            (
                "push/mod.rs",
                "mod options;\nmod run;\npub use options::Options;\npub use run::run;",
            ),
            ("push/options.rs", "pub struct Options;"),
            (
                "push/run.rs",
                "use super::Options;\npub fn run(o: Options) { crate::low::go() }",
            ),
            (
                "low.rs",
                "use std::fs;\nuse crate::{Options, run};\npub fn go() { crate::push::run(fs::read()) }",
            ),
        ]);
        assert_eq!(
            found,
            [
                "low.rs:2 crate::Options in push/options.rs",
                "low.rs:2 crate::run in push/run.rs",
                "low.rs:3 crate::push::run in push/run.rs",
                "push/run.rs:1 super::Options in push/options.rs",
                "push/run.rs:2 crate::low::go in low.rs",
            ]
        );
    }

    #[test]
    fn modules_globs_and_macros_are_followed_and_other_crates_are_not() {
        let found = uses(&[
            (
                "main.rs",
                "mod a;\nmod b;\nmod c;\nfn main() { a::go(); inner::x() }\nmod inner { pub fn x() {} }",
            ),
            (
                "a.rs",
                "use crate::b;\npub fn go() { vec![b::by_macro(), b::Kind::One] }",
            ),
            (
                "b.rs",
                "pub use crate::c::*;\nmake!(by_macro);\npub enum Kind { One }",
            ),
            (
                "c.rs",
                "use super::b::*;\nuse serde::Kind;\npub struct S;\npub fn f() -> super::b::S { serde::x() }",
            ),
        ]);
        assert_eq!(
            found,
            [
                "main.rs:4 a::go in a.rs",
                "a.rs:2 b::by_macro in b.rs",
                "a.rs:2 b::Kind::One in b.rs",
                "c.rs:1 super::b in b.rs",
            ]
        );
    }

    #[test]
    fn a_module_without_a_file_is_an_error() {
        let files = BTreeMap::from([("crates/a/src/lib.rs", "mod b;".to_owned())]);
        assert_eq!(
            Modules::read("a", &files).unwrap_err(),
            "crates/a/src/lib.rs: mod b has no file"
        );
    }
}
