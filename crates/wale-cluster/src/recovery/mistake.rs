//! A recovery setting that cannot be used.

use std::fmt;

/// Something in the added settings that PostgreSQL would refuse, or that would not do what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingMistake {
    /// Which line, from 1.
    pub line: usize,
    /// The line as typed.
    pub text: String,
    /// What is wrong, in one line.
    pub problem: String,
    /// What to write instead, in the imperative.
    pub hint: Option<String>,
}

impl fmt::Display for SettingMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, problem, .. } = self;
        write!(f, "line {line}: {problem}")
    }
}

/// A problem and perhaps a hint.
pub(super) type Problem = (String, Option<String>);
