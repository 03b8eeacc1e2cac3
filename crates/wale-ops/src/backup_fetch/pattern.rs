//! Which files of a backup are meant: a pattern over paths in the data directory, as a shell has them.

use std::fmt;
use std::str::FromStr;

/// A pattern: `*` is any text without a slash, `**` any text, `?` one character that is no slash; `\` takes the meaning of what
/// follows it away. It is of the whole path: a folder has no content of its own, and matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    parts: Vec<PatternPart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatternPart {
    /// This character.
    One(char),
    /// Any character but a slash.
    Any,
    /// Any number of characters that are no slashes.
    Within,
    /// Any text.
    Across,
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern is empty".to_owned());
        }
        if text.starts_with('/') {
            return Err(format!(
                "the pattern \"{text}\" is absolute: paths begin in the data directory, as base/16384/16385"
            ));
        }
        let mut parts = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '?' => PatternPart::Any,
                '*' if characters.next_if_eq(&'*').is_some() => PatternPart::Across,
                '*' => PatternPart::Within,
                '\\' => match characters.next() {
                    Some(plain) => PatternPart::One(plain),
                    None => return Err(format!("the pattern \"{text}\" ends with a backslash")),
                },
                plain => PatternPart::One(plain),
            });
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PathPattern {
    /// Whether a path is meant. Steps: the length of the path times that of the pattern, at most.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        // Which parts of the pattern can come next, after the characters so far.
        let mut open = vec![false; self.parts.len() + 1];
        open[0] = true;
        self.pass_over(&mut open);
        for character in path.chars() {
            let mut next = vec![false; open.len()];
            for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| open[*at]) {
                match part {
                    PatternPart::One(plain) => next[at + 1] |= *plain == character,
                    PatternPart::Any => next[at + 1] |= character != '/',
                    PatternPart::Within => next[at] |= character != '/',
                    PatternPart::Across => next[at] = true,
                }
            }
            open = next;
            self.pass_over(&mut open);
        }
        open[self.parts.len()]
    }

    /// What may stand for nothing may be passed over.
    fn pass_over(&self, open: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            if matches!(part, PatternPart::Within | PatternPart::Across) {
                open[at + 1] |= open[at];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, path, expected) in [
            ("base/16384/16385", "base/16384/16385", true),
            ("base/16384/16385", "base/16384/163850", false),
            ("base/16384/*", "base/16384/16385_fsm", true),
            ("base/16384/*", "base/16384/x/y", false),
            ("base/*", "base/16384/1", false),
            ("base/**", "base/16384/1", true),
            ("**", "global/pg_control", true),
            ("**/1259*", "base/5/1259_vm", true),
            (
                "pg_tblspc/16999/PG_15_*/16384/16400*",
                "pg_tblspc/16999/PG_15_202209061/16384/16400.1",
                true,
            ),
            ("base/5/125?", "base/5/1259", true),
            ("base/5/125?", "base/5/125", false),
            ("base?5", "base/5", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("base/16384", "base/16384/1", false),
            ("b\u{e4}*", "b\u{e4}r", true),
        ] {
            let parsed: PathPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(path), expected, "{pattern} {path}");
        }
        // No pattern takes for ever.
        let hard: PathPattern = "*a".repeat(500).parse().unwrap();
        assert!(!hard.matches(&"a".repeat(499)));
        for wrong in ["", "/base/1", "a\\"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong}");
        }
    }
}
