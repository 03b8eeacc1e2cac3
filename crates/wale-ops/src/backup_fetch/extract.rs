//! One partition: plain tar → files. Runs on a blocking thread, several at a time.
//!
//! Some files do not go straight to their place: `global/pg_control` is kept until everything else is whole and
//! flushed, `tablespace_map` until it can be rewritten, second names of files until all files are there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wale_cluster::recovery;
use wale_format::tar::{Member, MemberKind, TarReader};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};

use super::ledger::{Admission, Carrier, Ledger};
use super::links::ForeignLink;
use super::target::Target;
use crate::archive::ConsumeError;
use crate::described::ExpectedNames;
use crate::error::{Kind, OpError, Result};
use wale_format::Crc32c;

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

/// Directories that a backup without a manifest may bring, at most, as many as files: a cluster has one for each database
/// in each tablespace and some 30 more, and others' folders. They cost no memory, only inodes. (Tests reach a lower one
/// sooner.)
pub(super) const FOREIGN_DIRECTORIES_MAX: u64 = if cfg!(test) { 1 << 12 } else { 1 << 21 };

/// What a backup may bring at most.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of all files together; a foreign backup says so in its sentinel.
    pub(super) bytes_max: u64,
    /// Directories: of a backup of wale's as many as its sentinel counts members.
    pub(super) directories_max: u64,
    /// Configuration files that will be read when all files are there, and so have a bound.
    pub(super) read_later: Vec<&'static str>,
}

/// Refuses a configuration file that is beyond all bounds: a restore could not write its settings beside it.
pub(super) fn check_configuration(path: &str, size: u64) -> Result<()> {
    if size <= recovery::FILE_BYTES_MAX {
        return Ok(());
    }
    Err(OpError::new(
        Kind::Configuration,
        format!("\"{path}\" in the backup has {size} bytes: no configuration file of PostgreSQL's is so large"),
    )
    .detail(format!("At most {} are read.", recovery::FILE_BYTES_MAX))
    .hint(format!(
        "put a {path} of yours into the folder that PGCONF_BACKUP_DIR names, which takes its place; or restore with \
         backup-fetch, and write the recovery settings yourself"
    )))
}

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
    pub(super) ledger: Arc<Ledger>,
    progress: Progress,
    /// Whether the backup is one of wale's: then nothing but files and directories is in it.
    strict: bool,
    limits: Limits,
    files: AtomicU64,
    bytes: AtomicU64,
    control_file: Mutex<Option<Kept>>,
    tablespace_map: Mutex<Option<Kept>>,
    links: Mutex<Vec<ForeignLink>>,
    second_names: Mutex<Vec<SecondName>>,
    /// The directories that came: no manifest bounds their number.
    directories: AtomicU64,
    /// Members that lay in a tablespace beside the folder of the version: how many, and the first.
    strangers: Mutex<(u64, String)>,
    /// Members of a foreign backup's list, and which have come.
    listed: Mutex<ExpectedNames>,
}

impl Extraction {
    pub(super) fn new(
        target: Target,
        ledger: Arc<Ledger>,
        progress: Progress,
        strict: bool,
        limits: Limits,
        listed: ExpectedNames,
    ) -> Self {
        Self {
            target,
            ledger,
            progress,
            strict,
            limits,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            control_file: Mutex::new(None),
            tablespace_map: Mutex::new(None),
            links: Mutex::new(Vec::new()),
            second_names: Mutex::new(Vec::new()),
            directories: AtomicU64::new(0),
            strangers: Mutex::default(),
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

    /// How many members that the maker of a foreign backup listed have not come.
    pub(super) fn listed_missing(&self) -> usize {
        lock(&self.listed).missing()
    }

    /// Whether this is one of them.
    pub(super) fn is_listed_missing(&self, name: &str) -> bool {
        lock(&self.listed).is_missing(name)
    }

    /// Writes every member of one partition.
    pub(super) fn extract(
        &self,
        carrier: Carrier,
        plain: &mut dyn Read,
        cancel: &CancellationToken,
    ) -> Result<(), ConsumeError> {
        let mut directories = 0;
        let result = self.members(carrier, plain, cancel, &mut directories);
        if result.is_err() {
            // Another attempt brings them again.
            self.directories.fetch_sub(directories, Ordering::Relaxed);
        }
        result
    }

    fn members(
        &self,
        carrier: Carrier,
        plain: &mut dyn Read,
        cancel: &CancellationToken,
        directories: &mut u64,
    ) -> Result<(), ConsumeError> {
        let mut tar = TarReader::new(plain);
        let mut buffer = vec![0u8; WRITE_BYTES];
        while let Some(member) = tar.next() {
            let member = member.map_err(std::io::Error::from)?;
            if cancel.is_cancelled() {
                return Err(OpError::cancelled().into());
            }
            lock(&self.listed).come(member.path.as_str());
            if self.target.is_beside_version_folder(member.path.as_str()) {
                self.stranger(&member)?;
                continue;
            }
            match &member.kind {
                MemberKind::Directory => {
                    *directories += 1;
                    self.directory(&member)?;
                }
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
        let most = self.limits.directories_max;
        if self.directories.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(OpError::new(
                Kind::CorruptData,
                format!("the backup holds more than {most} directories"),
            ));
        }
        self.target.directory(member.path.as_str(), member.mode)
    }

    /// A member of a tablespace beside the folder of the cluster's version. wale stores none; other tools take whatever
    /// lies at the tablespace's place.
    fn stranger(&self, member: &Member) -> Result<()> {
        let path = &member.path;
        if self.strict {
            return Err(OpError::new(
                Kind::CorruptData,
                format!("\"{path}\" in the backup is not of the cluster and is refused"),
            )
            .detail(
                "In a tablespace only the folder PG_<major>_<catalog version> is the cluster's.",
            ));
        }
        let mut strangers = lock(&self.strangers);
        if strangers.0 == 0 {
            strangers.1 = path.to_string();
        }
        strangers.0 += 1;
        Ok(())
    }

    /// A sentence about members that were left out.
    pub(super) fn left_out(&self) -> Option<String> {
        let strangers = lock(&self.strangers);
        let (count, first) = &*strangers;
        (*count > 0).then(|| {
            format!(
                "{count} members of tablespaces are not the cluster's and were not restored, the first is \"{first}\""
            )
        })
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
            attempt: NonZeroU8::MIN,
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
        if self.limits.read_later.contains(&path) {
            check_configuration(path, size)?;
        }
        if self.ledger.admit(path, size, carrier)? == Admission::HaveIt {
            return Ok(());
        }
        let total = self
            .bytes
            .fetch_add(size, Ordering::Relaxed)
            .saturating_add(size);
        if total > self.limits.bytes_max {
            return Err(OpError::new(
                Kind::CorruptData,
                "the partitions hold more than the backup's sentinel says",
            )
            .detail(format!(
                "\"{path}\" would make it {total} bytes; at most {} are expected.",
                self.limits.bytes_max
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
                return Err(OpError::cancelled().into());
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
