//! What is said of a text that is not the name of an archived file.

use crate::text_form::excerpt;

/// A text is not the name of a file that PostgreSQL archives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the name of a WAL segment or history file")]
pub struct InvalidName {
    /// The text, shortened.
    pub given: String,
}

impl InvalidName {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            given: excerpt(text),
        }
    }
}
