//! The files of the data directory, copied into the tar of a partition. Runs on a blocking thread.
//!
//! Each file is opened once; the size that the open file has then is the size in the tar header. From there on the
//! server may do what it likes: what it appends is cut off, what it truncates is filled with zeros, a file that is
//! gone before it is opened is left out. Replay from the backup's start mends all three, as it does after
//! `pg_basebackup`. The CRC is that of the bytes stored, not of the bytes read.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fs::{Advice, Mode, OFlags};
use wale_archive::Clock;
use wale_cluster::{DataDirectory, path_of_text};
use wale_format::sentinel::DamagedPage;
use wale_format::tar::{Meta, TarWriter};
use wale_format::{Crc32c, SealWriter};
use wale_pg::{Lsn, page, relation};
use wale_pipeline::CancellationToken;

use super::options::DamagedPagePolicy;
use super::packed::{FileRecord, PackedRecords, SourceFile};
use super::pages::{PageChecker, PageFindings, Reread};
use super::progress_share::ProgressShare;
use super::throttle::{Throttle, Throttled};
use crate::error::{Kind, OpError, io_kind};

/// Bytes read at once, a multiple of the page size: large enough that the system calls do not count, and small enough to stay in a core's
/// cache while pages are checked, summed up and copied into a frame. 1 MiB takes 4 % more processor time.
pub(super) const READ_BYTES: usize = 128 << 10;

/// A larger file is read so that the kernel's cache does not keep what nobody else asks for.
const NO_REUSE_BYTES: u64 = 1 << 20;

/// For so long the time of a change may not tell the next one: the kernel's clock goes in ticks of some milliseconds, and a
/// file server has a clock of its own.
const SETTLES_AFTER: TimeDelta = TimeDelta::seconds(10);

/// What a partition was made of.
#[derive(Debug, Default)]
pub(super) struct PartitionContents {
    /// The files, in the order of the tar.
    pub(super) files: PackedRecords,
    /// Tar members, directories included.
    pub(super) members: u64,
    /// The first damaged pages.
    pub(super) damaged: Vec<DamagedPage>,
    /// All damaged pages.
    pub(super) damaged_count: u64,
}

/// Why a partition could not be filled.
#[derive(Debug)]
pub(super) enum FillError {
    /// The data directory's side: this is the error to report.
    Source(OpError),
    /// The archive's side: the put knows why.
    Sink(io::Error),
}

impl From<io::Error> for FillError {
    /// Only writes into the sink use `?` on a bare I/O error; reads name their file first.
    fn from(error: io::Error) -> Self {
        Self::Sink(error)
    }
}

/// Where the files of one backup are.
#[derive(Debug, Clone)]
pub(super) struct SourcePlaces {
    /// The data directory.
    pub(super) data: PathBuf,
    /// The WAL directory. A listing has no WAL: what a backup has of it comes from here, wherever `pg_wal` leads.
    pub(super) wal: PathBuf,
}

impl SourcePlaces {
    fn of(&self, relative: &str) -> PathBuf {
        match relative.strip_prefix("pg_wal/") {
            Some(name) => self.wal.join(path_of_text(name)),
            None => self.data.join(path_of_text(relative)),
        }
    }
}

/// How the files of one backup are read.
pub(super) struct FileReader<'a> {
    /// Where they are.
    pub(super) places: &'a SourcePlaces,
    /// Page LSNs from here on are not checked; `None` where the cluster has no page checksums.
    pub(super) verify_from: Option<PageVerification>,
    /// What a damaged page does.
    pub(super) policy: DamagedPagePolicy,
    /// Bounds of the bytes read per second, and of the processors.
    pub(super) throttle: Throttled<'a>,
    /// Stops the work between two pieces.
    pub(super) cancel: &'a CancellationToken,
    /// Counts the bytes and files read.
    pub(super) share: ProgressShare<'a>,
    /// Says whether a file was changed just now.
    pub(super) clock: &'a Clock,
    buffer: Vec<u8>,
}

/// What the verification of pages needs to know.
#[derive(Debug, Clone)]
pub(super) struct PageVerification {
    /// The backup's start position.
    pub(super) start_lsn: Lsn,
    /// Blocks per file of a relation, from `pg_control`.
    pub(super) blocks_per_segment: u32,
    /// Whose control file says whether checksums are on still.
    pub(super) directory: DataDirectory,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(
        places: &'a SourcePlaces,
        verify_from: Option<PageVerification>,
        policy: DamagedPagePolicy,
        throttle: &'a Throttle,
        cancel: &'a CancellationToken,
        share: ProgressShare<'a>,
        clock: &'a Clock,
    ) -> Self {
        Self {
            places,
            verify_from,
            policy,
            throttle: throttle.worker(),
            cancel,
            share,
            clock,
            buffer: Vec::new(),
        }
    }

    /// Another attempt for the same partition begins.
    pub(super) fn begin_again(&mut self) {
        self.share.begin_again();
    }

    /// Gives its memory back until the next file.
    pub(super) fn let_go(&mut self) {
        self.buffer = Vec::new();
    }

    /// Copies one file into `tar` and notes it in `contents`.
    pub(super) fn copy<W: Write>(
        &mut self,
        source: &SourceFile,
        tar: &mut TarWriter<SealWriter<W>>,
        contents: &mut PartitionContents,
    ) -> Result<(), FillError> {
        if self.cancel.is_cancelled() {
            return Err(FillError::Source(OpError::cancelled()));
        }
        let opened = open(source, &self.places.of(&source.relative));
        let Some((file, metadata)) = opened.map_err(FillError::Source)? else {
            tracing::debug!(file = source.relative, "vanished before it was read");
            self.share.add_bytes(source.size);
            return Ok(());
        };
        let begun = self.clock.now();
        let size = metadata.len();
        let member_bytes = tar.names().member_bytes(&source.relative, size);
        tar.get_mut().begin_member(member_bytes)?;
        let offset = tar.written();
        tar.file_header(&source.relative, size, &meta_of(&metadata))?;
        let mut crc = Crc32c::new();
        let findings = self.copy_body(source, &file, size, tar, &mut crc)?;
        tar.pad()?;
        self.note_findings(&source.relative, findings, contents)
            .map_err(FillError::Source)?;
        self.share.add_file();
        contents.members += 1;
        contents.files.push(&FileRecord {
            path: source.relative.clone(),
            size,
            mtime: modified(&metadata),
            is_settled: begun.signed_duration_since(modified(&metadata)) > SETTLES_AFTER,
            crc32c: crc.finish(),
            offset,
        });
        Ok(())
    }

    fn copy_body<W: Write>(
        &mut self,
        source: &SourceFile,
        file: &File,
        size: u64,
        tar: &mut TarWriter<W>,
        crc: &mut Crc32c,
    ) -> Result<PageFindings, FillError> {
        let mut checker = self.checker(&source.relative, file);
        self.buffer.resize(READ_BYTES, 0);
        let mut offset = 0u64;
        while offset < size {
            if self.cancel.is_cancelled() {
                return Err(FillError::Source(OpError::cancelled()));
            }
            let wanted = usize::try_from(size - offset)
                .unwrap_or(usize::MAX)
                .min(READ_BYTES);
            self.throttle.take(wanted as u64, self.cancel);
            let piece = &mut self.buffer[..wanted];
            let got = read_full(file, piece, offset).map_err(|(error, got)| {
                FillError::Source(unreadable(&error, &source.relative, offset + got as u64))
            })?;
            // Truncated by the server: the header has promised the size, zeros keep the promise.
            piece[got..].fill(0);
            if let Some(checker) = &mut checker {
                checker
                    .check_piece(&mut piece[..got], offset)
                    .map_err(|error| {
                        FillError::Source(unreadable(&error, &source.relative, offset))
                    })?;
            }
            crc.update(piece);
            tar.write_all(piece)?;
            offset += wanted as u64;
            self.share.add_bytes(wanted as u64);
        }
        Ok(checker.map(PageChecker::finish).unwrap_or_default())
    }

    fn checker<'f>(&self, relative: &'f str, file: &'f File) -> Option<PageChecker<'f, &'f File>> {
        let verification = self.verify_from.as_ref()?;
        if !relation::has_page_checksums(relative) {
            return None;
        }
        let name = relative.rsplit('/').next().unwrap_or(relative);
        let first_block =
            relation::RelationFile::parse(name)?.first_block(verification.blocks_per_segment)?;
        Some(PageChecker::new(
            relative,
            verification.start_lsn,
            first_block,
            file,
        ))
    }

    fn note_findings(
        &self,
        path: &str,
        findings: PageFindings,
        contents: &mut PartitionContents,
    ) -> Result<(), OpError> {
        let Some(first) = findings.damaged.first() else {
            return Ok(());
        };
        // From 19 on checksums can be switched off while the server runs; the control file says so before the first page
        // is written without one.
        let control = self
            .verify_from
            .as_ref()
            .map(|pages| pages.directory.control_file());
        if control.is_some_and(|control| control.is_ok_and(|control| !control.has_data_checksums()))
        {
            tracing::info!(
                file = path,
                "page checksums are being switched on or off: the pages of this file are not judged"
            );
            return Ok(());
        }
        let message = format!(
            "page checksum is wrong in block {} of \"{path}\"",
            first.block
        );
        if self.policy == DamagedPagePolicy::Fail {
            return Err(OpError::new(Kind::CorruptData, message)
                .detail(format!("{} pages of this file are damaged.", findings.damaged_count))
                .hint("restore the file from an older backup or repair the relation; set the policy to record to \
                       take a backup of what is left"));
        }
        tracing::warn!(
            file = path,
            block = first.block,
            pages = findings.damaged_count,
            "{message}"
        );
        contents.damaged.extend(findings.damaged);
        contents.damaged_count += findings.damaged_count;
        Ok(())
    }
}

impl Reread for &File {
    fn reread(&mut self, page: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(self, page, offset).map_err(|(error, _)| error)
    }
}

/// Opens a listed file; `None` when it is gone, or something else has taken its name.
fn open(source: &SourceFile, path: &Path) -> Result<Option<(File, std::fs::Metadata)>, OpError> {
    let could_not = |error: io::Error| {
        let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
        let error = OpError::from_io(error, format_args!("open \"{}\"", source.relative));
        if !is_refused {
            return error;
        }
        error.hint(
            "no base backup was made: give the file to the server's user (chown, in the data directory), or move it away \
             if it is not PostgreSQL's; wale must run as that user",
        )
    };
    // NONBLOCK: a FIFO under the name of a file must not hang the backup. It means nothing for a regular file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        // A folder on the way may have gone too.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(could_not(error.into())),
    };
    let metadata = file.metadata().map_err(could_not)?;
    if !metadata.is_file() {
        return Err(OpError::new(
            Kind::LocalIo,
            format!("\"{}\" is not a regular file any more", source.relative),
        ));
    }
    if metadata.len() > NO_REUSE_BYTES {
        // Its pages are read once, and must not drive the server's out of the cache. A kernel that has no such way (before 6.3)
        // reads them as always.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::NoReuse);
    }
    Ok(Some((file, metadata)))
}

/// Fills `piece` from `offset` on unless the file ends before; on an error also says how far it came. By position: a
/// file that was cut and has grown again must not go on where the cut was.
fn read_full(file: &File, piece: &mut [u8], offset: u64) -> Result<usize, (io::Error, usize)> {
    let mut got = 0;
    while got < piece.len() {
        match file.read_at(&mut piece[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((error, got)),
        }
    }
    Ok(got)
}

/// A read error is never skipped: later nobody would know which bytes of the backup were made up.
fn unreadable(error: &io::Error, path: &str, offset: u64) -> OpError {
    let block = offset / page::SIZE as u64;
    let kind = match io_kind(error) {
        Kind::PermissionDenied => Kind::PermissionDenied,
        _ => Kind::LocalIo,
    };
    OpError::new(
        kind,
        format!("could not read block {block} of \"{path}\": {error}"),
    )
    .detail(format!("The read failed at byte {offset} of the file."))
    .hint("check the medium; the backup was given up, the archive keeps the earlier ones")
}

/// The tar header's view of a file.
pub(super) fn meta_of(metadata: &std::fs::Metadata) -> Meta {
    Meta {
        mode: metadata.mode() & 0o7777,
        uid: u64::from(metadata.uid()),
        gid: u64::from(metadata.gid()),
        mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
    }
}

fn modified(metadata: &std::fs::Metadata) -> DateTime<Utc> {
    let nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    DateTime::from_timestamp(metadata.mtime(), nanoseconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use wale_pipeline::Progress;

    use super::*;

    #[test]
    fn a_file_that_was_cut_and_grew_again_is_read_by_position() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), [1u8; 4]).unwrap();
        let file = File::open(path.path()).unwrap();
        let mut piece = [0u8; 8];
        assert_eq!(read_full(&file, &mut piece, 0).unwrap(), 4);
        std::fs::write(path.path(), [[2u8; 8], [3u8; 8]].concat()).unwrap();
        assert_eq!(read_full(&file, &mut piece, 8).unwrap(), 8);
        assert_eq!(piece, [3u8; 8]);
    }

    #[test]
    fn fault_102_a_wrong_page_is_no_damage_while_checksums_are_being_switched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("global")).unwrap();
        let throttle = Throttle::new(None, None, std::time::Instant::now());
        let (cancel, progress) = (CancellationToken::new(), Progress::new());
        // 18's file with the states of 19: 0 off, 1 on, 2 and 3 on the way.
        for (state, is_damage) in [(0, false), (1, true), (2, false), (3, false)] {
            let mut control = include_bytes!("../../../wale-pg/testdata/control_file/18").to_vec();
            control[252] = state;
            let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
            let crc = crc_fast::checksum(algorithm, &control[..292]).to_le_bytes();
            control[292..296].copy_from_slice(&crc[..4]);
            std::fs::write(folder.path().join("global/pg_control"), control).unwrap();
            for policy in [DamagedPagePolicy::Record, DamagedPagePolicy::Fail] {
                let pages = PageVerification {
                    start_lsn: Lsn::new(0),
                    blocks_per_segment: 131_072,
                    directory: DataDirectory::at(folder.path()),
                };
                let share = ProgressShare::new(&progress);
                let clock = Clock::System;
                let places = SourcePlaces {
                    data: folder.path().to_owned(),
                    wal: folder.path().join("pg_wal"),
                };
                let reader = FileReader::new(
                    &places,
                    Some(pages),
                    policy,
                    &throttle,
                    &cancel,
                    share,
                    &clock,
                );
                let findings = PageFindings {
                    damaged: vec![DamagedPage {
                        path: "base/5/1259".into(),
                        block: 3,
                    }],
                    damaged_count: 1,
                };
                let mut contents = PartitionContents::default();
                let noted = reader.note_findings("base/5/1259", findings, &mut contents);
                let fails = is_damage && policy == DamagedPagePolicy::Fail;
                assert_eq!(noted.is_err(), fails, "{state} {policy:?}");
                let counted = u64::from(is_damage && !fails);
                assert_eq!(contents.damaged_count, counted, "{state} {policy:?}");
            }
        }
    }
}
