//! Files that somebody names or may replace: read only when they are regular, and up to a bound.
//!
//! A pipe holds the reader until somebody writes, a device may never end. A link to a regular file is one: Kubernetes mounts
//! secrets so. wale-storage, which sees no crate of ours, has the same rule in `http/named_file.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file for reading. Never waits: a FIFO in its place, which the database's user may make, would hold the
/// thread until somebody writes into it.
///
/// # Errors
/// Those of opening; `InvalidInput` for anything that is no regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let kind = file.metadata()?.file_type();
    let found = if kind.is_file() {
        return Ok(file);
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_dir() {
        "a directory"
    } else {
        "a device"
    };
    let text =
        format!("it is no regular file but {found}: a regular file is read, or a link to one");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The content of a regular file of at most that many bytes.
///
/// # Errors
/// As [`open_regular`]; those of reading; `InvalidData` for a larger file.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it is larger than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// As [`read_bounded`], for text.
///
/// # Errors
/// As there; `InvalidData` for bytes that are no UTF-8, which are not quoted.
pub fn read_bounded_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_bounded(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_59_a_named_file_is_regular_and_small_or_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "1234").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, mode, 0).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read_bounded_text(&at(name), 4).unwrap(), "1234");
            let error = read_bounded(&at(name), 3).unwrap_err();
            assert!(error.to_string().contains("larger than 3 bytes"));
        }
        let told = |path: &Path| read_bounded(path, 4).unwrap_err().to_string();
        for (path, found) in [
            (at("fifo"), "a pipe"),
            (folder.path().to_owned(), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            assert!(told(&path).contains(&format!("no regular file but {found}")));
        }
        std::fs::write(at("file"), b"\xFF").unwrap();
        assert!(read_bounded_text(&at("file"), 4).is_err());
    }
}
