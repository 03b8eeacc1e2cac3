//! A value before it is parsed, and where it came from.

use std::path::PathBuf;

use super::mistake::Mistake;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag on the command line.
    Flag,
    /// The environment variable of this name.
    Environment(String),
    /// This line of the configuration file.
    File(PathBuf, usize),
    /// A file that a `_FILE` variable names.
    SecretFile(PathBuf),
    /// The declared default.
    Default,
    /// Not set, and without a default.
    Unset,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::SecretFile(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
            Origin::Unset => f.write_str("unset"),
        }
    }
}

/// A value before it is parsed. `Debug` would show secrets, so there is none.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    /// The text; `None` when unset, or when a secret's file cannot be read or is empty: then the origin is set.
    pub(crate) text: Option<String>,
    /// Where it came from.
    pub(crate) origin: Origin,
    /// What is wrong with the source, not with the text.
    pub(crate) mistake: Option<Mistake>,
}

impl Raw {
    /// This text from there.
    pub(crate) fn set(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            text: Some(text.into()),
            origin,
            mistake: None,
        }
    }

    /// Nobody sets it.
    pub(crate) fn unset() -> Self {
        Self {
            text: None,
            origin: Origin::Unset,
            mistake: None,
        }
    }
}
