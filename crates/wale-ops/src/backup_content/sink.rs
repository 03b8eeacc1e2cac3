//! Where the files of a backup go while it is read.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use crate::error::Result;

/// What takes the directories and files of a backup, by their paths in the data directory. Sync: the threads of several
/// partitions call it at the same time.
///
/// Of one backup every file comes once, and only one that the ledger let in. `global/pg_control`, the tablespace map and
/// links never come: [`super::WholeBackup`] has them. Of a chain of backups the oldest comes first, and later ones bring
/// pages of files that are there.
pub(crate) trait Sink: Debug + Send + Sync + 'static {
    /// A file that is being written.
    type File: Write;
    /// A file that came, and is read again.
    type Body: Read;
    /// A file that came with an earlier backup, and is changed.
    type Pages: Pages;

    /// Refuses a file of `size` bytes that would be of no use, before anything of it is read.
    fn judge(&self, path: &str, size: u64) -> Result<()>;

    /// Makes a directory with these permission bits.
    fn directory(&self, path: &str, mode: u32) -> Result<()>;

    /// Makes an empty file with these permission bits.
    fn file(&self, path: &str, mode: u32) -> Result<Self::File>;

    /// A file that came, with its size in bytes: its content gets a second name.
    fn reopen(&self, path: &str) -> Result<(Self::Body, u64)>;

    /// A file that came with an earlier backup, to be changed.
    fn change(&self, path: &str) -> Result<Self::Pages>;
}

/// A file whose pages are replaced.
pub(crate) trait Pages {
    /// Cuts the file to this size in bytes, or makes it longer by zeros.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Writes the whole of `page` at this offset in bytes.
    fn write_at(&self, page: &[u8], offset: u64) -> io::Result<()>;
}

impl Pages for File {
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn write_at(&self, page: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(page, offset)
    }
}

/// Takes everything and keeps nothing: for a check of a backup that writes no byte.
///
/// What only a file system refuses is not found this way: a name of more than 255 bytes, or a file that has the name of
/// a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    type File = io::Sink;
    type Body = io::Empty;
    type Pages = Self;

    fn judge(&self, _: &str, _: u64) -> Result<()> {
        Ok(())
    }

    fn directory(&self, _: &str, _: u32) -> Result<()> {
        Ok(())
    }

    fn file(&self, _: &str, _: u32) -> Result<io::Sink> {
        Ok(io::sink())
    }

    /// Nothing is there to be copied, so a second name costs no bytes.
    fn reopen(&self, _: &str) -> Result<(io::Empty, u64)> {
        Ok((io::empty(), 0))
    }

    fn change(&self, _: &str) -> Result<Self> {
        Ok(Self)
    }
}

impl Pages for Nowhere {
    fn set_size(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}
