//! Streaming tar reader: GNU, ustar and pax; strict about everything that could harm a restore.

use std::fmt;
use std::io::{self, Read};

use wale_pg::byte_text;

use super::header::RawHeader;
use super::pax::Records;
use super::{BLOCK_BYTES, EXTENDED_HEADER_MAX_BYTES, MemberPath, TarError, padding};

/// Most zero bytes after the end marks: any blocking factor in use is below; a decompression bomb is not.
const TAIL_MAX_BYTES: u64 = 16 << 20;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file; its body is read from the [`TarReader`].
    File {
        /// Length of the body in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The target as stored ([`byte_text`]): it may be absolute and may lead anywhere. Judge before use.
        target: String,
    },
    /// Another name of a member that came before.
    HardLink {
        /// That member's path, relative to the same root.
        target: MemberPath,
    },
}

/// One member of an archive, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it belongs, relative to the restore root.
    pub path: MemberPath,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits, the low 12.
    pub mode: u32,
    /// Numeric owner at the time of writing.
    pub uid: u64,
    /// Numeric group at the time of writing.
    pub gid: u64,
    /// Time of last modification, whole seconds since 1970 UTC; earlier times are 0.
    pub mtime: u64,
}

enum TarState {
    Members,
    Ended,
    Failed,
}

/// Reads members one after the other with [`TarReader::next`]; their bodies with [`Read`].
///
/// A body that is not read, or not to its end, is skipped by the next call. After an error the
/// reader is over: only a `None` without an error before it means that the archive was whole.
/// Duplicate names are not noticed here (memory is bounded): compare with the manifest.
///
/// ```
/// # use wale_format::tar::{Meta, TarReader, TarWriter};
/// # let archive = TarWriter::new(Vec::new()).finish()?;
/// let mut reader = TarReader::new(archive.as_slice());
/// while let Some(member) = reader.next() {
///     let member = member?;
///     let mut body = Vec::new();
///     std::io::Read::read_to_end(&mut reader, &mut body)?;
///     println!("{} {}", member.path, body.len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TarReader<R: Read> {
    source: R,
    state: TarState,
    body_left: u64,
    body_padding: usize,
    defaults: Records,
    end: TarEnd,
}

/// Where an archive may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TarEnd {
    /// After its end marks, two blocks of zeros.
    #[default]
    Marked,
    /// Without them, too, after a whole member: `PostgreSQL` 15 and later sends its tars so, and WAL-G stores them as they
    /// come. Something else must show that nothing is missing.
    Bare,
}

impl<R: Read> fmt::Debug for TarReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarReader")
            .field("body_left", &self.body_left)
            .finish_non_exhaustive()
    }
}

impl<R: Read> TarReader<R> {
    /// Reads from `source`, up to its end. Headers are read in pieces of 512 bytes, so a source
    /// where each read costs a system call wants a buffer.
    pub fn new(source: R) -> Self {
        Self {
            source,
            state: TarState::Members,
            body_left: 0,
            body_padding: 0,
            defaults: Records::default(),
            end: TarEnd::Marked,
        }
    }

    /// The same reader, where an archive may end so.
    #[must_use]
    pub fn ending(self, end: TarEnd) -> Self {
        Self { end, ..self }
    }

    /// The source, to look at.
    #[must_use]
    pub const fn get_ref(&self) -> &R {
        &self.source
    }

    fn advance(&mut self) -> Result<Option<Member>, TarError> {
        self.skip_body()?;
        let mut extended = Records::default();
        let mut long_name = None;
        let mut long_link = None;
        let mut pending = false;
        loop {
            let Some(block) = self.header_block(pending)? else {
                return Ok(None);
            };
            if block.iter().all(|&byte| byte == 0) {
                if pending {
                    return Err(TarError::damaged("an extended header has no member"));
                }
                self.end()?;
                return Ok(None);
            }
            let header = RawHeader::parse(&block)?;
            match header.kind() {
                b'L' => long_name = Some(c_string(self.extended_body(&header)?)),
                b'K' => long_link = Some(c_string(self.extended_body(&header)?)),
                b'x' => extended = Records::parse(&self.extended_body(&header)?)?,
                b'g' => {
                    self.set_defaults(&header)?;
                    continue;
                }
                _ => {
                    let name = extended
                        .path
                        .take()
                        .or(long_name)
                        .unwrap_or_else(|| header.name());
                    let link = extended
                        .link
                        .take()
                        .or(long_link)
                        .unwrap_or_else(|| header.link());
                    return self.member(&header, &name, &link, &extended).map(Some);
                }
            }
            pending = true;
        }
    }

    /// Builds the member and opens its body.
    fn member(
        &mut self,
        header: &RawHeader<'_>,
        name: &[u8],
        link: &[u8],
        extended: &Records,
    ) -> Result<Member, TarError> {
        let path = MemberPath::from_bytes(name)?;
        let size = match extended.size {
            Some(size) => size,
            None => header.size()?,
        };
        let kind = kind(header.kind(), name, link, size)?;
        if path.is_root() && kind != MemberKind::Directory {
            return Err(TarError::refused(name, "only a directory can be the root"));
        }
        if let MemberKind::File { size } = kind {
            if size > i64::MAX.cast_unsigned() {
                return Err(TarError::refused(name, "its size is impossible"));
            }
            self.body_left = size;
            self.body_padding = padding(size);
        }
        let defaults = &self.defaults;
        Ok(Member {
            path,
            kind,
            mode: header.mode()?,
            uid: extended
                .uid
                .or(defaults.uid)
                .map_or_else(|| header.uid(), Ok)?,
            gid: extended
                .gid
                .or(defaults.gid)
                .map_or_else(|| header.gid(), Ok)?,
            mtime: extended
                .mtime
                .or(defaults.mtime)
                .map_or_else(|| header.mtime(), Ok)?,
        })
    }

    fn set_defaults(&mut self, header: &RawHeader<'_>) -> Result<(), TarError> {
        let records = Records::parse(&self.extended_body(header)?)?;
        if records.path.is_some() || records.link.is_some() || records.size.is_some() {
            return Err(TarError::damaged("a global pax header names a member"));
        }
        self.defaults = records;
        Ok(())
    }

    fn extended_body(&mut self, header: &RawHeader<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > EXTENDED_HEADER_MAX_BYTES {
            return Err(TarError::damaged("an extended header is longer than 1 MiB"));
        }
        let length = usize::try_from(size).expect("at most 1 MiB");
        let mut body = vec![0; length + padding(size)];
        self.exact(&mut body, "an extended header")?;
        body.truncate(length);
        Ok(body)
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let count = self.body_left + self.body_padding as u64;
        let skipped = io::copy(&mut self.source.by_ref().take(count), &mut io::sink())?;
        if skipped < count {
            return Err(truncated("a member's body"));
        }
        self.body_left = 0;
        self.body_padding = 0;
        Ok(())
    }

    /// Reads the second zero block and whatever follows, all of which must be zero bytes.
    fn end(&mut self) -> Result<(), TarError> {
        let second = self.block("the end marks")?;
        if second.iter().any(|&byte| byte != 0) {
            return Err(TarError::damaged(
                "a single zero block stands before a member",
            ));
        }
        let mut tail = 0;
        let mut buffer = [0; 8 << 10];
        loop {
            let count = match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            tail += count as u64;
            if buffer[..count].iter().any(|&byte| byte != 0) || tail > TAIL_MAX_BYTES {
                return Err(TarError::damaged("other bytes follow the end marks"));
            }
        }
    }

    /// The next header, or none where the archive may end here.
    fn header_block(&mut self, pending: bool) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = [0; BLOCK_BYTES];
        if self.end == TarEnd::Bare && !pending {
            let first = loop {
                match self.source.read(&mut block[..1]) {
                    Ok(0) => return Ok(None),
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            };
            self.exact(&mut block[first..], "a header")?;
        } else {
            self.exact(&mut block, "a header")?;
        }
        Ok(Some(block))
    }

    fn block(&mut self, at: &str) -> Result<[u8; BLOCK_BYTES], TarError> {
        let mut block = [0; BLOCK_BYTES];
        self.exact(&mut block, at)?;
        Ok(block)
    }

    fn exact(&mut self, buffer: &mut [u8], at: &str) -> Result<(), TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => return Err(truncated(at)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The decoder below says better than we could what it met.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl<R: Read> TarReader<R> {
    /// The next member; `None` at the end of a whole archive, and after an error.
    ///
    /// # Errors
    /// When the stream is truncated or damaged, holds a member that is refused, or the source fails.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that is also a reader has two of by_ref, take and chain"
    )]
    pub fn next(&mut self) -> Option<Result<Member, TarError>> {
        if !matches!(self.state, TarState::Members) {
            return None;
        }
        let result = self.advance();
        self.state = match &result {
            Ok(Some(_)) => TarState::Members,
            Ok(None) => TarState::Ended,
            Err(_) => TarState::Failed,
        };
        result.transpose()
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the current member's body; `Ok(0)` at its end.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.body_left)
            .unwrap_or(usize::MAX)
            .min(out.len());
        if limit == 0 || matches!(self.state, TarState::Failed) {
            return Ok(0);
        }
        let count = self.source.read(&mut out[..limit])?;
        if count == 0 {
            self.state = TarState::Failed;
            return Err(truncated("a member's body").into());
        }
        self.body_left -= count as u64;
        Ok(count)
    }
}

/// Decides what a type flag means; everything that no base backup holds is refused.
fn kind(flag: u8, name: &[u8], link: &[u8], size: u64) -> Result<MemberKind, TarError> {
    let refuse = |reason| Err(TarError::refused(name, reason));
    let kind = match flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        b'\0' if name.ends_with(b"/") => MemberKind::Directory,
        b'0' | b'\0' | b'7' => return Ok(MemberKind::File { size }),
        b'1' => {
            let target = MemberPath::from_bytes(link)?;
            if target.is_root() {
                return refuse("it is a hard link to a directory");
            }
            MemberKind::HardLink { target }
        }
        b'2' if link.is_empty() => return refuse("it is a symbolic link to nothing"),
        b'2' if link.contains(&0) => return refuse("its target holds a NUL byte"),
        b'2' if link.len() > MemberPath::MAX_BYTES => return refuse("its target is too long"),
        b'2' => MemberKind::Symlink {
            target: byte_text::from_bytes(link).into_owned(),
        },
        b'5' => MemberKind::Directory,
        b'3' | b'4' => return refuse("it is a device"),
        b'6' => return refuse("it is a named pipe"),
        b'S' => return refuse("sparse members are not read"),
        _ => return refuse("it is of an unknown type"),
    };
    if size != 0 {
        return refuse("it is no file and has a body");
    }
    Ok(kind)
}

/// GNU long names end with a NUL.
fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn truncated(at: &str) -> TarError {
    TarError::Truncated { at: at.to_owned() }
}
