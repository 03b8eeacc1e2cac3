//! The name of an object: a relative path that is safe in every store.
//!
//! A raw string cannot reach a store. The holder of an [`ObjectKey`] knows that it cannot climb out of
//! the root, that it prints on one line, and that it is no temporary file of ours.

use std::fmt;
use std::str::FromStr;

/// Longest key in bytes: what S3 allows, which is the least of the clouds.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// How temporary files of the file store end. No key may look like one.
pub(crate) const TEMPORARY_SUFFIX: &str = ".wale-tmp";

/// The name of an object, relative to the root of its store, with `/` between its components.
///
/// Keys are ordered by their bytes, which is the order in which every store lists them.
///
/// ```
/// use wale_storage::ObjectKey;
/// let key: ObjectKey = "wal_005/000000010000000000000001.zst".parse()?;
/// assert_eq!(key.to_string(), "wal_005/000000010000000000000001.zst");
/// assert!(ObjectKey::new("../etc/passwd").is_err());
/// # Ok::<(), wale_storage::InvalidKey>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When the name is empty or longer than 1,024 bytes, holds a control character, has an empty, `.` or
    /// `..` component, or looks like a temporary file of the file store.
    pub fn new(key: &str) -> Result<Self, InvalidKey> {
        match broken_rule(key) {
            None => Ok(Self(key.to_owned())),
            Some(reason) => Err(InvalidKey {
                key: shorten(key),
                reason,
            }),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders of the key and its last component.
    pub(crate) fn split(&self) -> (Vec<&str>, &str) {
        let mut components: Vec<&str> = self.0.split('/').collect();
        let name = components.pop().expect("a key has at least one component");
        (components, name)
    }
}

/// The text cannot be an object's name, or not in this store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid object name {key:?}: {reason}")]
pub struct InvalidKey {
    /// The text that was refused.
    pub key: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

/// Whether a file of this name is a temporary file of the file store.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX)
}

fn broken_rule(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("it is empty");
    }
    if key.len() > KEY_BYTES_MAX {
        return Some("it is longer than 1024 bytes");
    }
    if key.chars().any(char::is_control) {
        return Some("it holds a control character");
    }
    for component in key.split('/') {
        match component {
            "" => return Some("it has an empty component"),
            "." | ".." => return Some("it has a component that is . or .."),
            name if is_temporary(name) => return Some("it is kept for temporary files"),
            _ => {}
        }
    }
    None
}

/// The start of a refused name, so that a message stays a line however long the name was.
fn shorten(key: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    match key.char_indices().nth(SHOWN_CHARS) {
        None => key.to_owned(),
        Some((end, _)) => format!("{}…", &key[..end]),
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidKey;

    fn from_str(key: &str) -> Result<Self, InvalidKey> {
        Self::new(key)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_keys() {
        let long = "x".repeat(KEY_BYTES_MAX);
        for key in [
            "a",
            "a/b/c.d",
            ".hidden",
            "..a",
            "a b",
            "100%/+&=?#",
            "é/名",
            "a\\b",
            "x.wale-tmp",
            &long,
        ] {
            assert_eq!(ObjectKey::new(key).expect(key).as_str(), key);
        }
    }

    #[test]
    fn invalid_keys() {
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for key in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/.",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a/.b.1.2.wale-tmp",
            &long,
        ] {
            let error = ObjectKey::new(key).expect_err(key);
            assert!(error.to_string().len() < 300);
            assert!(!error.to_string().contains('\n'));
        }
    }
}
