//! Streaming tar writer, GNU dialect: what every WAL-E, WAL-G and `tar` reads.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use tar::{EntryType, Header};
use wale_pg::byte_text;

use super::{BLOCK_BYTES, MemberPath, RECORD_BYTES, padding};

/// Zero bytes to pad with; a file that shrank by a gigabyte is padded in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Attributes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits; only the low 12 bits are written.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Time of last modification, whole seconds since 1970 UTC.
    pub mtime: u64,
}

/// What members are called that lie below the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MemberNames {
    /// By their path, as WAL-E calls them. The real WAL-E refuses others.
    #[default]
    Relative,
    /// With a slash before it, as WAL-G calls them: it compares them with its list of files as they are. `backup_label` and
    /// `tablespace_map` have none there, either.
    Rooted,
}

/// Bytes of a name that a header holds; a longer one stands before it.
const NAME_BYTES: usize = 100;

/// Members that WAL-G calls by their plain names: it makes them itself.
const PLAIN: [&str; 2] = ["backup_label", "tablespace_map"];

impl MemberNames {
    /// What the member of this path is called, for a path that is none of a directory.
    #[must_use]
    pub fn of_file(self, path: &str) -> Cow<'_, str> {
        match self {
            Self::Rooted if !PLAIN.contains(&path) => Cow::from(format!("/{path}")),
            Self::Rooted | Self::Relative => Cow::from(path),
        }
    }

    /// Bytes of a regular file as a member: its header, with a long name what says it, its content and the padding.
    #[must_use]
    pub fn member_bytes(self, path: &str, size: u64) -> u64 {
        let block = BLOCK_BYTES as u64;
        let name = byte_text::to_bytes(&self.of_file(path)).len();
        let long = if name > NAME_BYTES {
            block + (name as u64 + 1).next_multiple_of(block)
        } else {
            0
        };
        let content = size.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        content.saturating_add(long + block)
    }

    /// What the member of this directory is called; `""` is the data directory itself, which is `/` for both.
    #[must_use]
    pub fn of_directory(self, path: &str) -> String {
        match self {
            Self::Rooted if !path.is_empty() => format!("/{path}/"),
            Self::Rooted | Self::Relative => format!("{path}/"),
        }
    }
}

/// Writes members one after the other into `W`.
///
/// A header goes out as one write of 512 bytes; bodies pass through untouched and unbuffered, so
/// the caller decides the size of the pieces.
///
/// ```
/// use std::io::Write;
/// use wale_format::tar::{Meta, TarWriter};
/// let meta = Meta { mode: 0o600, ..Meta::default() };
/// let mut tar = TarWriter::new(Vec::new());
/// tar.directory("", &Meta { mode: 0o700, ..meta })?;
/// tar.file_header("PG_VERSION", 3, &meta)?;
/// tar.write_all(b"15\n")?;
/// tar.finish_body()?;
/// assert_eq!(tar.finish()?.len(), 10_240);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TarWriter<W: Write> {
    sink: W,
    names: MemberNames,
    written: u64,
    body_left: u64,
    body_padding: usize,
}

impl<W: Write> fmt::Debug for TarWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarWriter")
            .field("written", &self.written)
            .field("body_left", &self.body_left)
            .finish_non_exhaustive()
    }
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub const fn new(sink: W) -> Self {
        Self::with_names(sink, MemberNames::Relative)
    }

    /// Starts an archive whose members are called so.
    pub const fn with_names(sink: W, names: MemberNames) -> Self {
        Self {
            sink,
            names,
            written: 0,
            body_left: 0,
            body_padding: 0,
        }
    }

    /// Adds a directory; `""` is the data directory itself and gets WAL-E's name for it, `/`.
    ///
    /// # Errors
    /// `InvalidInput` when the path is not acceptable as a [`MemberPath`] or the previous body is
    /// not complete; otherwise the sink's.
    pub fn directory(&mut self, path: &str, meta: &Meta) -> io::Result<()> {
        let name = self.names.of_directory(checked(path)?.as_str());
        self.header(&name, "", EntryType::Directory, 0, meta)
    }

    /// Announces a regular file of exactly `size` bytes. Its body is then written with [`Write`], and
    /// closed with [`TarWriter::finish_body`] or [`TarWriter::pad`].
    ///
    /// # Errors
    /// As [`TarWriter::directory`]; `""` is no file's name.
    pub fn file_header(&mut self, path: &str, size: u64, meta: &Meta) -> io::Result<()> {
        let path = checked_entry(path)?;
        let name = self.names.of_file(path.as_str());
        self.header(&name, "", EntryType::Regular, size, meta)?;
        self.body_left = size;
        self.body_padding = padding(size);
        Ok(())
    }

    /// Adds a symbolic link; `target` is stored as it is.
    ///
    /// # Errors
    /// As [`TarWriter::file_header`]; also for an empty target or one with a NUL byte.
    pub fn symlink(&mut self, path: &str, target: &str, meta: &Meta) -> io::Result<()> {
        let checked = checked_entry(path)?;
        let name = self.names.of_file(checked.as_str());
        if target.is_empty()
            || target.contains('\0')
            || byte_text::to_bytes(target).len() > MemberPath::MAX_BYTES
        {
            return Err(refused(format!(
                "symbolic link \"{path}\" has no usable target"
            )));
        }
        self.header(&name, target, EntryType::Symlink, 0, meta)
    }

    /// Closes a body of which every byte was written.
    ///
    /// # Errors
    /// `InvalidInput` when bytes are missing; otherwise the sink's.
    pub fn finish_body(&mut self) -> io::Result<()> {
        if self.body_left > 0 {
            return Err(refused(format!(
                "tar member lacks {} bytes of its declared size",
                self.body_left
            )));
        }
        let padding = std::mem::take(&mut self.body_padding);
        self.put(&ZEROS[..padding])
    }

    /// Closes a body whose file shrank while it was read: what is missing is filled with zero
    /// bytes, as `BASE_BACKUP` does. Returns how many were missing.
    ///
    /// # Errors
    /// The sink's.
    pub fn pad(&mut self) -> io::Result<u64> {
        let missing = self.body_left;
        while self.body_left > 0 {
            let count = self.body_left.min(ZEROS.len() as u64);
            let piece = usize::try_from(count).expect("at most the length of ZEROS");
            self.put(&ZEROS[..piece])?;
            self.body_left -= count;
        }
        self.finish_body()?;
        Ok(missing)
    }

    /// Bytes written to the sink so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// What members are called.
    #[must_use]
    pub const fn names(&self) -> MemberNames {
        self.names
    }

    /// Bytes of the whole archive, were it ended now.
    #[must_use]
    pub const fn whole_bytes(&self) -> u64 {
        let bytes = self.written + self.body_padding as u64 + 2 * BLOCK_BYTES as u64;
        bytes.next_multiple_of(RECORD_BYTES as u64)
    }

    /// Ends the archive: two zero blocks, then zero bytes up to a multiple of 10 KiB.
    /// Returns the sink, not flushed.
    ///
    /// # Errors
    /// `InvalidInput` when the last body is not complete; otherwise the sink's.
    pub fn finish(mut self) -> io::Result<W> {
        self.finish_body()?;
        let end = self.whole_bytes();
        let count = usize::try_from(end - self.written).expect("at most a record and two blocks");
        self.put(&ZEROS[..count])?;
        Ok(self.sink)
    }

    /// The sink, to look at.
    #[must_use]
    pub const fn get_ref(&self) -> &W {
        &self.sink
    }

    /// The sink, to tell it what comes. Nothing may be written to it.
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.sink.write_all(bytes)?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    fn header(
        &mut self,
        name: &str,
        link: &str,
        kind: EntryType,
        size: u64,
        meta: &Meta,
    ) -> io::Result<()> {
        self.finish_body()?;
        let (name, link) = (byte_text::to_bytes(name), byte_text::to_bytes(link));
        let mut header = Header::new_gnu();
        let capacity = NAME_BYTES;
        if name.len() > capacity {
            self.long(&name, EntryType::GNULongName)?;
        }
        if link.len() > capacity {
            self.long(&link, EntryType::GNULongLink)?;
        }
        fill(&mut header.as_old_mut().name, &name);
        fill(&mut header.as_old_mut().linkname, &link);
        header.set_entry_type(kind);
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(meta.mtime);
        header.set_size(size);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    /// GNU tar's way to say a name of more than 100 bytes: a member before the member.
    fn long(&mut self, text: &[u8], kind: EntryType) -> io::Result<()> {
        let length = text.len() as u64 + 1;
        let mut header = Header::new_gnu();
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(length);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(text)?;
        self.put(&ZEROS[..=padding(length)])
    }
}

impl<W: Write> Write for TarWriter<W> {
    /// Writes bytes of the current member's body.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.body_left {
            return Err(refused(format!(
                "tar member is given {} bytes more than its declared size",
                bytes.len() as u64 - self.body_left
            )));
        }
        let count = self.sink.write(bytes)?;
        self.body_left -= count as u64;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Copies as much of `text` as the field holds; the rest stands in the long name before.
fn fill(field: &mut [u8], text: &[u8]) {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
}

fn checked(path: &str) -> io::Result<MemberPath> {
    if path.starts_with('/') {
        return Err(refused(format!("tar member \"{path}\" is absolute")));
    }
    MemberPath::parse(path).map_err(|error| refused(error.to_string()))
}

fn checked_entry(path: &str) -> io::Result<MemberPath> {
    let path = checked(path)?;
    if path.is_root() {
        return Err(refused(
            "only a directory can be the root of a tar".to_owned(),
        ));
    }
    Ok(path)
}

fn refused(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
