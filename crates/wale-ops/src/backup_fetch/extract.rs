//! One partition: plain tar → files. Runs on a blocking thread, several at a time.
//!
//! Some files do not go straight to their place: `global/pg_control` is kept until everything else is whole and
//! flushed, `tablespace_map` until it can be rewritten, second names of files until all files are there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use wale_format::tar::{Member, MemberKind, TarReader};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};

use super::ledger::{Admission, Carrier, Ledger};
use super::links::ForeignLink;
use super::target::Target;
use crate::archive::ConsumeError;
use crate::backup_push::{Crc32c, cancelled};
use crate::error::{Kind, OpError, Result};

/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;
/// Memory of one worker: the write buffer, 2 MiB of chunks from the store, 1 MiB of the chunk being decoded, and a
/// decoder's window of 8 MiB at most for archives that other tools wrote at default settings.
pub(super) const WORKER_BYTES: u64 = WRITE_BYTES as u64 + (2 << 20) + (1 << 20) + (8 << 20);
/// A file that is kept in memory is at most this large: the control file has 8 KiB, a map one line per tablespace.
const KEPT_MAX: u64 = 1 << 20;

/// Files that a foreign backup may bring and that would act on the restored cluster: it decides itself how it recovers.
const FOREIGN_LEFTOVERS: [&str; 6] = [
    "postmaster.pid",
    "postmaster.opts",
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    // Of the base backup that the source itself once was made from: it says nothing about these files.
    "backup_manifest",
];

/// Links of a foreign backup, of each kind, at most: a data directory has a handful. 10,000 × some 200 bytes = 2 MB.
const LINKS_MAX: usize = 10_000;

/// Directories that a backup may bring, at most: a cluster has one for each database in each tablespace and some 30
/// more. 65,536 × some 100 bytes = 7 MB. (Tests reach a lower one sooner.)
pub(super) const DIRECTORIES_MAX: usize = if cfg!(test) { 1 << 12 } else { 1 << 16 };

/// Files that are kept in memory until the end, and so can be no side of a hard link.
const KEPT: [&str; 2] = [ControlFile::PATH, "tablespace_map"];

/// A file that is kept until the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// A hard link as the backup has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SecondName {
    partition: u32,
    member: Member,
    target: String,
}

impl SecondName {
    fn path(&self) -> String {
        self.member.path.as_str().to_owned()
    }
}

/// What the workers of one restore share.
#[derive(Debug)]
pub(super) struct Extraction {
    pub(super) target: Target,
    pub(super) ledger: Ledger,
    progress: Progress,
    /// Whether the backup is one of wale's: then nothing but files and directories is in it.
    strict: bool,
    /// Bytes that all files together may have; a foreign backup says so in its sentinel.
    bytes_max: u64,
    files: AtomicU64,
    bytes: AtomicU64,
    control_file: Mutex<Option<Kept>>,
    tablespace_map: Mutex<Option<Kept>>,
    links: Mutex<Vec<ForeignLink>>,
    second_names: Mutex<Vec<SecondName>>,
    /// The directories that came: no manifest bounds their number.
    directories: Mutex<BTreeSet<String>>,
    /// Members of a foreign backup's list that have not come yet.
    listed: Mutex<BTreeSet<String>>,
}

impl Extraction {
    pub(super) fn new(
        target: Target,
        ledger: Ledger,
        progress: Progress,
        strict: bool,
        bytes_max: u64,
        listed: BTreeSet<String>,
    ) -> Self {
        Self {
            target,
            ledger,
            progress,
            strict,
            bytes_max,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            control_file: Mutex::new(None),
            tablespace_map: Mutex::new(None),
            links: Mutex::new(Vec::new()),
            second_names: Mutex::new(Vec::new()),
            directories: Mutex::new(BTreeSet::new()),
            listed: Mutex::new(listed),
        }
    }

    /// Files and bytes written.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.files.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// The control file, if it has come.
    pub(super) fn take_control_file(&self) -> Option<Kept> {
        lock(&self.control_file).take()
    }

    /// The tablespace map, if it has come.
    pub(super) fn take_tablespace_map(&self) -> Option<Kept> {
        lock(&self.tablespace_map).take()
    }

    /// The symbolic links that a foreign backup brought; they are made when all files are there.
    pub(super) fn take_links(&self) -> Vec<ForeignLink> {
        std::mem::take(&mut lock(&self.links))
    }

    /// Whether every member that the maker of a foreign backup listed has come.
    pub(super) fn check_listed(&self) -> Result<()> {
        let missing = lock(&self.listed);
        let Some(first) = missing.first() else {
            return Ok(());
        };
        Err(
            OpError::new(Kind::CorruptData, format!("the backup lacks \"{first}\""))
                .detail(format!(
                    "The list of its files has it, no partition brought it; {} more are missing.",
                    missing.len() - 1
                ))
                .hint("restore another backup; this one was damaged in the archive"),
        )
    }

    /// Writes every member of one partition.
    pub(super) fn extract(
        &self,
        carrier: Carrier,
        plain: &mut dyn Read,
        cancel: &CancellationToken,
    ) -> Result<(), ConsumeError> {
        let mut tar = TarReader::new(plain);
        let mut buffer = vec![0u8; WRITE_BYTES];
        while let Some(member) = tar.next() {
            let member = member.map_err(std::io::Error::from)?;
            if cancel.is_cancelled() {
                return Err(cancelled().into());
            }
            lock(&self.listed).remove(member.path.as_str());
            match &member.kind {
                MemberKind::Directory => self.directory(&member)?,
                MemberKind::File { size } => {
                    let size = *size;
                    self.file(carrier, &member, size, &mut tar, &mut buffer, cancel)?;
                }
                MemberKind::Symlink { target } => self.symbolic_link(&member, target)?,
                MemberKind::HardLink { target } => {
                    let target = target.clone();
                    self.hard_link(carrier, member, target.as_str())?;
                }
            }
        }
        Ok(())
    }

    fn directory(&self, member: &Member) -> Result<()> {
        let path = member.path.as_str();
        let mut directories = lock(&self.directories);
        if !directories.contains(path) {
            if directories.len() >= DIRECTORIES_MAX {
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("the backup holds more than {DIRECTORIES_MAX} directories"),
                ));
            }
            directories.insert(path.to_owned());
        }
        drop(directories);
        self.target.directory(path, member.mode)
    }

    /// Our own backups have no links: the restore makes those that belong there. WAL-E's have what lay in the data
    /// directory; nothing is written through a link, so it is enough to judge them at the end.
    fn symbolic_link(&self, member: &Member, target: &str) -> Result<()> {
        let path = member.path.as_str();
        if self.strict {
            return Err(refused_link(path, "symbolic link"));
        }
        let link = ForeignLink {
            path: path.to_owned(),
            target: target.to_owned(),
        };
        let mut links = lock(&self.links);
        // Another attempt at the same partition brings it again.
        if !links.contains(&link) {
            if links.len() >= LINKS_MAX {
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("the backup holds more than {LINKS_MAX} symbolic links"),
                ));
            }
            links.push(link);
        }
        Ok(())
    }

    /// A second name of a file is noted until all partitions are read: the file may be in another one, which comes later
    /// or at this moment.
    fn hard_link(&self, carrier: Carrier, member: Member, target: &str) -> Result<()> {
        let path = member.path.as_str();
        if self.strict || [path, target].iter().any(|name| KEPT.contains(name)) {
            return Err(refused_link(path, "hard link"));
        }
        let link = SecondName {
            partition: carrier.partition,
            target: target.to_owned(),
            member,
        };
        let mut links = lock(&self.second_names);
        // Another attempt at the same partition brings it again.
        if !links.contains(&link) {
            if links.len() >= LINKS_MAX {
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("the backup holds more than {LINKS_MAX} hard links"),
                ));
            }
            links.push(link);
        }
        Ok(())
    }

    /// Makes the second names of files, which are all there by now. Each becomes a file of its own: PostgreSQL never relies
    /// on the two being one.
    pub(super) fn copy_second_names(&self) -> Result<()> {
        let mut waiting = std::mem::take(&mut *lock(&self.second_names));
        let mut buffer = vec![0u8; WRITE_BYTES];
        while !waiting.is_empty() {
            // What a second name is of may be one itself.
            let names: BTreeSet<String> = waiting.iter().map(SecondName::path).collect();
            let (later, now): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|link| names.contains(&link.target));
            if let (Some(link), true) = (later.first(), now.is_empty()) {
                let (path, target) = (link.path(), &link.target);
                return Err(OpError::new(
                    Kind::CorruptData,
                    format!("the hard link \"{path}\" to \"{target}\" leads to no file"),
                ));
            }
            for link in now {
                self.copy_second_name(&link, &mut buffer)?;
            }
            waiting = later;
        }
        Ok(())
    }

    fn copy_second_name(&self, link: &SecondName, buffer: &mut [u8]) -> Result<()> {
        let target = link.target.as_str();
        let source = self.target.open_file(target)?;
        let failed = |error| OpError::from_io(error, format_args!("read \"{target}\""));
        let size = source.metadata().map_err(failed)?.len();
        let carrier = Carrier {
            partition: link.partition,
            attempt: 1,
        };
        // They are few and follow each other: a restore that is cancelled meanwhile ends behind them.
        let never = CancellationToken::new();
        let mut source = Local(source, target);
        self.file(carrier, &link.member, size, &mut source, buffer, &never)
            .map_err(|error| match error {
                ConsumeError::Refused(error) => error,
                ConsumeError::Read(error) => failed(error),
            })
    }

    fn file<R: Read>(
        &self,
        carrier: Carrier,
        member: &Member,
        size: u64,
        body: &mut R,
        buffer: &mut [u8],
        cancel: &CancellationToken,
    ) -> Result<(), ConsumeError> {
        let path = member.path.as_str();
        if !self.strict && FOREIGN_LEFTOVERS.contains(&path) {
            return Ok(());
        }
        if self.ledger.admit(path, size, carrier)? == Admission::HaveIt {
            return Ok(());
        }
        let total = self
            .bytes
            .fetch_add(size, Ordering::Relaxed)
            .saturating_add(size);
        if total > self.bytes_max {
            return Err(OpError::new(
                Kind::CorruptData,
                "the partitions hold more than the backup's sentinel says",
            )
            .detail(format!(
                "\"{path}\" would make it {total} bytes; at most {} are expected.",
                self.bytes_max
            ))
            .into());
        }
        let arrived = match path {
            ControlFile::PATH => keep(&self.control_file, member, size, body),
            "tablespace_map" => keep(&self.tablespace_map, member, size, body),
            _ => self.write(member, size, body, buffer, cancel),
        };
        let arrived = arrived.and_then(|crc| Ok(self.ledger.arrived(path, crc, carrier)?));
        if let Err(error) = arrived {
            // Another attempt brings it again.
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(error);
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        self.progress.add_files(1);
        Ok(())
    }

    /// Writes the body of a member into a file; returns its CRC-32C.
    fn write<R: Read>(
        &self,
        member: &Member,
        size: u64,
        body: &mut R,
        buffer: &mut [u8],
        cancel: &CancellationToken,
    ) -> Result<u32, ConsumeError> {
        let path = member.path.as_str();
        let mut file = self.target.file(path, member.mode)?;
        let mut crc = Crc32c::new();
        let mut left = size;
        while left > 0 {
            if cancel.is_cancelled() {
                return Err(cancelled().into());
            }
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let piece = &mut buffer[..wanted];
            body.read_exact(piece)?;
            crc.update(piece);
            file.write_all(piece)
                .map_err(|error| OpError::from_io(error, format_args!("write \"{path}\"")))?;
            left -= wanted as u64;
            self.progress.add(wanted as u64);
        }
        Ok(crc.finish())
    }
}

fn refused_link(path: &str, what: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("\"{path}\" is a {what} in the backup, which is refused"),
    )
    .detail("A link could lead the restore out of the data directory.")
}

/// A file of the restore itself that is read: its failures are no damage of the archive.
struct Local<'a>(File, &'a str);

impl Read for Local<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| {
            io::Error::other(format!("could not read \"{}\" again: {error}", self.1))
        })
    }
}

fn keep<R: Read>(
    place: &Mutex<Option<Kept>>,
    member: &Member,
    size: u64,
    body: &mut R,
) -> Result<u32, ConsumeError> {
    if size > KEPT_MAX {
        let what = format!(
            "\"{}\" in the backup is far too large",
            member.path.as_str()
        );
        return Err(OpError::new(Kind::CorruptData, what).into());
    }
    let mut content = Vec::new();
    body.read_to_end(&mut content)?;
    let crc = Crc32c::of(&content);
    *lock(place) = Some(Kept {
        mode: member.mode,
        content,
    });
    Ok(crc)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
