//! Paths from and to the text in which names travel ([`byte_text`]).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use wale_pg::byte_text;

/// The text of a path, whatever its bytes are.
#[must_use]
pub fn text_of_path(path: &Path) -> String {
    byte_text::from_bytes(path.as_os_str().as_bytes()).into_owned()
}

/// The path that a text stands for.
#[must_use]
pub fn path_of_text(text: &str) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&byte_text::to_bytes(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_back() {
        let path = Path::new(OsStr::from_bytes(b"/srv/ts\xe9/x"));
        assert_eq!(path_of_text(&text_of_path(path)), path);
        assert_eq!(text_of_path(Path::new("/srv/é")), "/srv/é");
    }
}
