//! One partition: plain tar → members, each judged, and handed to the sink. Runs on a blocking thread, several at a time.
//!
//! Some members do not go to the sink: `global/pg_control` and `tablespace_map` are kept, because a restore writes them
//! last, and second names of files and symbolic links wait until all files are there.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wale_archive::ConsumeError;
use wale_archive::described::Delivery;
use wale_archive::member_list::NameQuestion;
use wale_format::tar::{Member, MemberKind, TarReader};
use wale_format::{Crc32c, Increment, IncrementError};
use wale_pg::ControlFile;
use wale_pipeline::{CancellationToken, Progress};

use super::ledger::{Admission, Carrier, Ledger};
use super::manifest::{MANIFEST, TABLESPACE_MAP};
use super::memory::WRITE_BYTES;
use super::sink::{Pages, Sink};
use super::stored::{PartRules, StoredBackup};
use super::tablespaces::{TablespaceRule, VersionFolders};
use crate::error::{Kind, OpError, Result};

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
    MANIFEST,
];

/// Links of a foreign backup, of each kind, at most: a data directory has a handful. 10,000 × some 200 bytes = 2 MB.
const LINKS_MAX: usize = 10_000;

/// Directories that a backup without a manifest may bring, at most, as many as files: a cluster has one for each database
/// in each tablespace and some 30 more, and others' folders. They cost no memory, only inodes. (Tests reach a lower one
/// sooner.)
pub(crate) const FOREIGN_DIRECTORIES_MAX: u64 = if cfg!(test) { 1 << 12 } else { 1 << 21 };

/// A foreign backup may hold more than its sentinel says by what its tool does not count: twice and 1 GiB.
const FOREIGN_SLACK_BYTES: u64 = 1 << 30;

/// Files that are kept in memory, and so can be no side of a hard link.
const KEPT: [&str; 2] = [ControlFile::PATH, TABLESPACE_MAP];

/// What a backup may bring at most.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of all files together; a foreign backup says so in its sentinel.
    bytes_max: u64,
    /// Directories: of a backup of wale's as many as its sentinel counts members.
    directories_max: u64,
}

impl Limits {
    fn of(backup: &StoredBackup) -> Self {
        let bytes_max = match backup.sentinel.bytes() {
            Some(bytes) if backup.manifest.is_none() => {
                bytes.saturating_mul(2).saturating_add(FOREIGN_SLACK_BYTES)
            }
            _ => u64::MAX,
        };
        // wale counted them; nothing is kept of a directory, so no memory has to be bounded.
        let directories_max = backup.wale().map_or(FOREIGN_DIRECTORIES_MAX, |wale| {
            let members = wale.partitions.iter().map(|part| part.members);
            members.fold(0, u64::saturating_add)
        });
        Self {
            bytes_max,
            directories_max,
        }
    }
}

/// A symbolic link as a foreign backup has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignLink {
    /// Where it lay, relative to the data directory.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) target: String,
}

/// A hard link as a foreign backup has it.
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

/// Which members are wanted.
struct Only(NameQuestion);

impl std::fmt::Debug for Only {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Only").finish_non_exhaustive()
    }
}

/// What the workers of one reading share.
#[derive(Debug)]
pub(super) struct Extraction<S> {
    sink: Arc<S>,
    ledger: Arc<Ledger>,
    progress: Progress,
    /// Whether the backup is one of wale's: then nothing but files and directories is in it.
    strict: bool,
    /// Whether later backups build on it: then only what they lack is taken.
    is_base: bool,
    /// Which members are wanted; none where all are.
    only: Option<Only>,
    limits: Limits,
    rule: TablespaceRule,
    files: AtomicU64,
    bytes: AtomicU64,
    /// The directories that came: no manifest bounds their number.
    directories: AtomicU64,
    control_file: Mutex<Option<Vec<u8>>>,
    tablespace_map: Mutex<Option<Vec<u8>>>,
    links: Mutex<Vec<ForeignLink>>,
    second_names: Mutex<Vec<SecondName>>,
    folders: Mutex<VersionFolders>,
    /// Members that lay in a tablespace beside the folder of the version: how many, and the first.
    strangers: Mutex<(u64, String)>,
}

impl<S: Sink> Extraction<S> {
    /// # Errors
    ///
    /// [`Kind::CorruptData`] for a record whose tablespaces cannot be read.
    pub(super) fn new(backup: &StoredBackup, sink: &Arc<S>, progress: &Progress) -> Result<Self> {
        let spaces = backup.tablespaces()?;
        let oids = spaces.iter().map(|space| space.oid);
        Ok(Self {
            sink: Arc::clone(sink),
            ledger: Arc::clone(&backup.ledger),
            progress: progress.clone(),
            strict: backup.manifest.is_some(),
            is_base: backup.is_base,
            only: None,
            limits: Limits::of(backup),
            rule: TablespaceRule::new(oids, backup.major),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            control_file: Mutex::new(None),
            tablespace_map: Mutex::new(None),
            links: Mutex::new(Vec::new()),
            second_names: Mutex::new(Vec::new()),
            folders: Mutex::default(),
            strangers: Mutex::default(),
        })
    }

    /// The same, of which only files that are wanted go to the sink, and no directories.
    pub(super) fn only(self, is_wanted: NameQuestion) -> Self {
        Self {
            only: Some(Only(is_wanted)),
            ..self
        }
    }

    /// Files and bytes that came.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.files.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// The control file, if it has come.
    pub(super) fn take_control_file(&self) -> Option<Vec<u8>> {
        lock(&self.control_file).take()
    }

    /// The tablespace map, if it has come.
    pub(super) fn take_tablespace_map(&self) -> Option<Vec<u8>> {
        lock(&self.tablespace_map).take()
    }

    /// The symbolic links that a foreign backup brought.
    pub(super) fn take_links(&self) -> Vec<ForeignLink> {
        std::mem::take(&mut lock(&self.links))
    }

    /// Refuses folders in tablespaces of another catalog version than the control file's.
    pub(super) fn check_version_folders(&self, control_file: &ControlFile) -> Result<()> {
        lock(&self.folders).check(control_file)
    }

    /// Reads every member of one partition.
    pub(super) fn extract(
        &self,
        carrier: Carrier,
        (plain, rules): (&mut dyn Read, PartRules),
        cancel: &CancellationToken,
    ) -> Result<(), ConsumeError> {
        let mut directories = 0;
        let mut tar = TarReader::new(plain).ending(rules.end);
        let result = self.members(carrier, (&mut tar, rules), cancel, &mut directories);
        if result.is_err() {
            // Another attempt brings them again.
            self.directories.fetch_sub(directories, Ordering::Relaxed);
        }
        result
    }

    fn members(
        &self,
        carrier: Carrier,
        (tar, rules): (&mut TarReader<&mut dyn Read>, PartRules),
        cancel: &CancellationToken,
        directories: &mut u64,
    ) -> Result<(), ConsumeError> {
        let mut buffer = vec![0u8; WRITE_BYTES];
        while let Some(member) = tar.next() {
            let member = member.map_err(std::io::Error::from)?;
            if cancel.is_cancelled() {
                return Err(OpError::cancelled().into());
            }
            let delivery = self.ledger.delivery_of(member.path.as_str());
            if self.is_base && !is_wanted(&member, delivery) {
                continue;
            }
            if delivery == Some(Delivery::Elsewhere) {
                return Err(came_unlisted(&member).into());
            }
            self.ledger.come(member.path.as_str());
            if let Some(Only(is_wanted)) = &self.only
                && (member.kind == MemberKind::Directory || !is_wanted(member.path.as_str()))
            {
                continue;
            }
            if self.rule.is_beside_version_folder(member.path.as_str()) {
                self.stranger(&member)?;
                continue;
            }
            match &member.kind {
                MemberKind::Directory => {
                    *directories += 1;
                    self.directory(&member)?;
                }
                MemberKind::File { .. }
                    if rules.leaves_control_file_out
                        && member.path.as_str() == ControlFile::PATH => {}
                MemberKind::File { size } => {
                    let size = *size;
                    self.file(carrier, &member, size, tar, &mut buffer, cancel)?;
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
        let path = member.path.as_str();
        lock(&self.folders).come(&self.rule, path);
        self.sink.directory(path, member.mode)
    }

    /// A member of a tablespace beside the folder of the cluster's version. wale stores none; other tools take whatever
    /// lies at the tablespace's place.
    fn stranger(&self, member: &Member) -> Result<()> {
        let path = &member.path;
        if self.strict {
            return Err(OpError::new(
                Kind::CorruptData,
                format!("\"{path}\" in the backup does not belong to the cluster and is refused"),
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

    /// Our own backups have no links: a restore makes those that belong there. WAL-E's have what lay in the data directory;
    /// nothing is written through a link, so it is enough to judge them at the end.
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
    pub(super) fn second_names(&self) -> Result<()> {
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
                self.second_name(&link, &mut buffer)?;
            }
            waiting = later;
        }
        Ok(())
    }

    fn second_name(&self, link: &SecondName, buffer: &mut [u8]) -> Result<()> {
        let target = link.target.as_str();
        if !self.ledger.has(target) {
            return Err(OpError::new(
                Kind::CorruptData,
                format!("the backup has a hard link to \"{target}\", which it does not have"),
            ));
        }
        let (body, size) = self.sink.reopen(target)?;
        let carrier = Carrier {
            partition: link.partition,
            attempt: NonZeroU8::MIN,
        };
        // They are few and follow each other: what is cancelled meanwhile ends after them.
        let never = CancellationToken::new();
        let mut body = ReadAgain(body, target);
        self.file(carrier, &link.member, size, &mut body, buffer, &never)
            .map_err(|error| match error {
                ConsumeError::Refused(error) => error,
                ConsumeError::Read(error) => {
                    OpError::from_io(error, format_args!("read \"{target}\""))
                }
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
        self.sink.judge(path, size)?;
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
            ControlFile::PATH => keep(&self.control_file, path, size, body),
            TABLESPACE_MAP => keep(&self.tablespace_map, path, size, body),
            _ => match self.ledger.delivery_of(path) {
                Some(Delivery::Increment) => self.change(path, size, body, buffer, cancel),
                _ => self.write(member, size, body, buffer, cancel),
            },
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

    /// Changes a file that an earlier backup brought, as an increment says; returns the CRC-32C of the pages.
    fn change<R: Read>(
        &self,
        path: &str,
        size: u64,
        body: &mut R,
        buffer: &mut [u8],
        cancel: &CancellationToken,
    ) -> Result<u32, ConsumeError> {
        let increment = Increment::read(body, size).map_err(|error| match error {
            IncrementError::Read(error) => ConsumeError::Read(error),
            error => OpError::new(
                Kind::CorruptData,
                format!("\"{path}\" in the backup cannot be used"),
            )
            .source(error)
            .hint("restore another backup; this one was damaged in the archive")
            .into(),
        })?;
        let could_not_write = |error| OpError::from_io(error, format_args!("write \"{path}\""));
        let file = self.sink.change(path)?;
        file.set_size(increment.file_bytes())
            .map_err(could_not_write)?;
        let page = &mut buffer[..Increment::PAGE_BYTES];
        let mut crc = Crc32c::new();
        for place in increment.places() {
            if cancel.is_cancelled() {
                return Err(OpError::cancelled().into());
            }
            body.read_exact(page)?;
            crc.update(page);
            if let Some(place) = place {
                file.write_at(page, place).map_err(could_not_write)?;
            }
            self.progress.add(page.len() as u64);
        }
        Ok(crc.finish())
    }

    /// Gives the body of a member to the sink; returns its CRC-32C.
    fn write<R: Read>(
        &self,
        member: &Member,
        size: u64,
        body: &mut R,
        buffer: &mut [u8],
        cancel: &CancellationToken,
    ) -> Result<u32, ConsumeError> {
        let path = member.path.as_str();
        lock(&self.folders).come(&self.rule, path);
        let mut file = self.sink.file(path, member.mode)?;
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

/// Whether a backup on which others build is asked for this member: a file that the list of a later one lacks.
fn is_wanted(member: &Member, delivery: Option<Delivery>) -> bool {
    matches!(delivery, Some(Delivery::Whole | Delivery::Increment))
        && matches!(member.kind, MemberKind::File { .. })
}

/// The error for a file whose list says that it is only in the backup before.
fn came_unlisted(member: &Member) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!(
            "\"{}\" is in the backup, and its list says that it is only in the backup before",
            member.path
        ),
    )
    .hint("restore a full backup; the list of this one is not its own")
}

fn refused_link(path: &str, what: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("\"{path}\" is a {what} in the backup, which is refused"),
    )
    .detail("A link could lead the restore out of the data directory.")
}

/// A file of the sink's own that is read: its failures are no damage of the archive.
struct ReadAgain<'a, R>(R, &'a str);

impl<R: Read> Read for ReadAgain<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| {
            io::Error::other(format!("could not read \"{}\" again: {error}", self.1))
        })
    }
}

fn keep<R: Read>(
    place: &Mutex<Option<Vec<u8>>>,
    path: &str,
    size: u64,
    body: &mut R,
) -> Result<u32, ConsumeError> {
    if size > KEPT_MAX {
        let what = format!("\"{path}\" in the backup is far too large");
        return Err(OpError::new(Kind::CorruptData, what).into());
    }
    let mut content = Vec::new();
    body.read_to_end(&mut content)?;
    let crc = Crc32c::of(&content);
    *lock(place) = Some(content);
    Ok(crc)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
