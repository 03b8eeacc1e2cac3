//! Files that the settings name: read only when they are regular, and up to a bound.
//!
//! A pipe holds the reader until somebody writes, a device may never end. A link to a regular file is one. wale-cluster has
//! the same rule in `regular_file.rs`; neither of the two crates sees the other.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::failure::Failure;
use super::options::Secret;
use super::text::fits_header;

/// Largest file: a system's bundle of certificates has 200 to 400 kB, files of keys a few.
const BYTES_MAX: u64 = 8 << 20;

/// The content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        let text = "it is no regular file but a pipe, a device or a directory: a regular file is read, or a link to one";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        let text = format!("it is larger than {BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// The same, as text. What is no UTF-8 is not quoted.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// A small file, away from the runtime's threads. Its content may be secret and is not quoted.
pub(crate) async fn read_secret_text(path: &Path) -> std::result::Result<String, Failure> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_text(&owned)).await;
    let problem = match read {
        Ok(Ok(text)) => return Ok(text),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the process is shutting down".to_owned(),
    };
    Err(Failure::NoCredentials(format!(
        "file {} cannot be read: {problem}",
        path.display()
    )))
}

/// A file that holds one secret for a header.
pub(crate) async fn read_secret(path: &Path) -> std::result::Result<Secret, Failure> {
    let text = read_secret_text(path).await?;
    let text = text.trim();
    if fits_header(text) {
        return Ok(Secret::new(text));
    }
    let path = path.display();
    Err(Failure::NoCredentials(format!(
        "file {path} does not hold a secret that can stand in an HTTP header"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_59_a_named_file_is_regular_and_small_or_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "keys").expect("written");
        std::os::unix::fs::symlink(at("file"), at("link")).expect("linked");
        assert_eq!(read_text(&at("link")).expect("read"), "keys");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, mode, 0).expect("made");
        for path in [&at("fifo"), folder.path(), Path::new("/dev/zero")] {
            let error = read(path).expect_err("refused");
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
        let large = std::fs::File::create(at("file")).expect("made");
        large.set_len(BYTES_MAX + 1).expect("long");
        assert!(read(&at("file")).is_err());
    }
}
