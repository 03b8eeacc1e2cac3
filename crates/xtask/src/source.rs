//! A source file as the rules see it: its lines, and where its tests begin.

use std::path::Path;

/// A Rust source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path relative to the repository, with `/`.
    pub(crate) path: String,
    lines: Vec<String>,
    /// The index of the first line of its tests; everything is, in a file of tests.
    tests_from: usize,
}

impl Source {
    /// Splits the text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_of_tests = matches!(name, "tests.rs" | "testing.rs")
            || name.ends_with("_tests.rs")
            || path.contains("/tests/")
            || path.contains("/benches/")
            || path.contains("/examples/");
        let tests_from = if is_of_tests {
            0
        } else {
            lines
                .windows(2)
                .position(|pair| {
                    pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
                })
                .unwrap_or(lines.len())
        };
        Self {
            path: path.to_owned(),
            lines,
            tests_from,
        }
    }

    /// Every file below a folder of the repository.
    pub(crate) fn below(root: &Path, folder: &str) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        collect(root, &root.join(folder), &mut found)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The names of its functions.
    pub(crate) fn function_names(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| {
            let rest = line
                .trim_start()
                .trim_start_matches("async ")
                .strip_prefix("fn ")?;
            rest.split(['(', '<']).next()
        })
    }

    /// The functions whose body holds one of `words`, by name and the line of the first word.
    pub(crate) fn functions_with(&self, words: &[&str]) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        let mut inside = None;
        for (number, line) in numbered(&self.lines) {
            let name = line.trim_start().strip_prefix("fn ");
            if let Some(name) = name.and_then(|rest| rest.split(['(', '<']).next()) {
                inside = Some(name);
            } else if words.iter().any(|word| line.contains(word))
                && let Some(name) = inside.take()
            {
                found.push((number, name));
            }
        }
        found
    }

    /// The name of the crate's folder.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Every line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Number of lines.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The first line.
    pub(crate) fn first(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    /// Lines with their numbers, without comments and tests.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.lines[..self.tests_from])
    }

    /// Every function: its first line's number, its name, its length in lines. Relies on rustfmt:
    /// a body ends with a brace at the indentation of its `fn`.
    pub(crate) fn functions(&self) -> Vec<(usize, &str, usize)> {
        let mut functions = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let bare = line.trim_start();
            let Some(name) = function(bare) else {
                continue;
            };
            let end = format!("{}}}", &line[..line.len() - bare.len()]);
            if let Some(length) = self.lines[index..].iter().position(|line| *line == end) {
                functions.push((index + 1, name, length + 1));
            }
        }
        functions
    }
}

/// The name of the function that begins in a line.
fn function(line: &str) -> Option<&str> {
    let words = line.split_whitespace();
    let mut words = words
        .skip_while(|word| matches!(*word, "async" | "const" | "pub") || word.starts_with("pub("));
    if words.next() != Some("fn") {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

fn numbered(lines: &[String]) -> impl Iterator<Item = (usize, &str)> {
    let code = |(index, line): (usize, &'_ String)| {
        let line = line.trim_start();
        (!line.starts_with("//")).then_some(index + 1)
    };
    lines
        .iter()
        .enumerate()
        .filter_map(move |(index, line)| code((index, line)).map(|number| (number, line.as_str())))
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            found.push(Source::new(&relative.to_string_lossy(), &text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "//! Doc.\nfn a() {\n    b();\n}\n\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";

    #[test]
    fn tests_are_told_from_the_rest() {
        let source = Source::new("crates/wale-pg/src/a.rs", TEXT);
        assert_eq!(source.room(), "wale-pg");
        assert_eq!(source.shipped().count(), 4);
        assert_eq!(
            Source::new("crates/wale/tests/it/a.rs", TEXT)
                .shipped()
                .count(),
            0
        );
    }

    #[test]
    fn functions_have_lengths() {
        let source = Source::new("crates/a/src/a.rs", TEXT);
        assert_eq!(source.functions(), [(2, "a", 3)]);
        assert_eq!(function("pub(crate) async fn x("), Some("x"));
        assert_eq!(function("function()"), None);
    }
}
