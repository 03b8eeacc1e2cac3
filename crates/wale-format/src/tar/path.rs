//! A member's name that cannot leave the directory it is joined to.

use std::fmt;

use super::TarError;

/// Path of a tar member relative to the restore root: `/` separated, no empty, `.` or `..`
/// component, no NUL byte, at most 4096 bytes. The empty path is the root itself.
///
/// ```
/// use wale_format::tar::MemberPath;
/// // WAL-G writes a leading slash, WAL-E names the root "/".
/// assert_eq!(MemberPath::parse("/base//1/./2619").unwrap().as_str(), "base/1/2619");
/// assert!(MemberPath::parse("/").unwrap().is_root());
/// assert!(MemberPath::parse("base/../../etc/passwd").is_err());
/// assert!(MemberPath::parse("//etc/passwd").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberPath(String);

impl MemberPath {
    /// Longest path, in bytes: Linux's `PATH_MAX`, beyond which no call would take it.
    pub const MAX_BYTES: usize = 4096;

    /// Checks and normalises a name. One leading slash is stripped, a trailing one too; empty and
    /// `.` components vanish.
    ///
    /// # Errors
    /// When the name is still absolute without its first slash, or has a `..` component, a NUL
    /// byte or too many bytes.
    pub fn parse(raw: &str) -> Result<Self, TarError> {
        let refuse = |reason| Err(TarError::refused(raw.as_bytes(), reason));
        if raw.len() > Self::MAX_BYTES {
            return refuse("its name is too long");
        }
        if raw.contains('\0') {
            return refuse("its name holds a NUL byte");
        }
        let relative = raw.strip_prefix('/').unwrap_or(raw);
        if relative.starts_with('/') {
            return refuse("its name is absolute");
        }
        let mut path = String::with_capacity(relative.len());
        for component in relative.split('/') {
            match component {
                "" | "." => {}
                ".." => return refuse("its name leads out of the directory"),
                component => {
                    if !path.is_empty() {
                        path.push('/');
                    }
                    path.push_str(component);
                }
            }
        }
        Ok(Self(path))
    }

    /// As [`MemberPath::parse`], for bytes from a header.
    ///
    /// # Errors
    /// Also when the name is not UTF-8: no file of PostgreSQL's own has such a name.
    pub(super) fn from_bytes(raw: &[u8]) -> Result<Self, TarError> {
        match std::str::from_utf8(raw) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(TarError::refused(raw, "its name is not UTF-8")),
        }
    }

    /// The normalised path; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the restore root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the top down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// The path as a string.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for MemberPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted_names() {
        let cases = [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./", ""),
            ("base/1/2619", "base/1/2619"),
            ("/base/1/2619", "base/1/2619"),
            ("./base/1", "base/1"),
            ("base//1///x", "base/1/x"),
            ("pg_wal/", "pg_wal"),
            ("a..b/...", "a..b/..."),
            ("naïve/ñ", "naïve/ñ"),
            ("back\\slash", "back\\slash"),
        ];
        for (raw, expected) in cases {
            assert_eq!(MemberPath::parse(raw).expect(raw).as_str(), expected);
        }
    }

    #[test]
    fn refused_names() {
        let long = "x".repeat(4097);
        let cases = [
            "..", "/..", "../x", "a/../b", "a/..", "//", "//etc", "///x", "a\0b", &long,
        ];
        for raw in cases {
            assert!(MemberPath::parse(raw).is_err(), "{raw:?}");
        }
        assert!(MemberPath::from_bytes(b"caf\xe9").is_err());
    }

    proptest! {
        #[test]
        fn stays_below_and_is_idempotent(raw in "[a./\\x00é]{0,12}") {
            if let Ok(path) = MemberPath::parse(&raw) {
                prop_assert!(!path.as_str().starts_with('/') && !path.as_str().ends_with('/'));
                for component in path.components() {
                    prop_assert!(!["", ".", ".."].contains(&component));
                }
                prop_assert_eq!(MemberPath::parse(path.as_str()).unwrap(), path);
            }
        }
    }
}
