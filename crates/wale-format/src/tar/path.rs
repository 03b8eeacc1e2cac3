//! A member's name that cannot leave the directory it is joined to.

use std::fmt;

use wale_pg::byte_text;

use super::TarError;

/// Path of a tar member relative to the restore root: `/` separated, no empty, `.` or `..`
/// component, no NUL byte, at most 4096 bytes. The empty path is the root itself. A name that is not
/// UTF-8 is carried as [`byte_text`].
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
    pub(super) const MAX_BYTES: usize = 4096;

    /// Checks and normalises a name. One leading slash is stripped, a trailing one too; empty and
    /// `.` components vanish.
    ///
    /// # Errors
    /// When the name is still absolute without its first slash, or has a `..` component, a NUL
    /// byte or too many bytes.
    pub fn parse(raw: &str) -> Result<Self, TarError> {
        let refuse = |reason| Err(TarError::refused(&byte_text::to_bytes(raw), reason));
        if byte_text::to_bytes(raw).len() > Self::MAX_BYTES {
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
    /// As there.
    pub(super) fn from_bytes(raw: &[u8]) -> Result<Self, TarError> {
        Self::parse(&byte_text::from_bytes(raw))
    }

    /// The path as bytes, as the file system has it.
    #[must_use]
    pub fn to_bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        byte_text::to_bytes(&self.0)
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
        f.write_str(&byte_text::shown(&self.0))
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
    fn names_that_are_not_utf8_are_names() {
        let path = MemberPath::from_bytes(b"/base/./caf\xe9").expect("a name");
        assert_eq!(path.to_bytes().as_ref(), b"base/caf\xe9");
        assert_eq!(path.to_string(), "base/caf\\xe9");
        let longest = [0xE9; MemberPath::MAX_BYTES];
        assert!(MemberPath::from_bytes(&longest).is_ok());
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
        for raw in [&b"\xe9/../x"[..], b"..\0\xe9", b"//\xe9"] {
            assert!(MemberPath::from_bytes(raw).is_err(), "{raw:?}");
        }
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
