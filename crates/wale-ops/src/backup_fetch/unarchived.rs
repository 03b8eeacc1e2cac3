//! Whether the archive has the WAL of a cluster whose files a restore keeps in part: its `pg_wal` is emptied, and a server that
//! crashed, or could not archive, has its last transactions nowhere else.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use wale_archive::{Archive, Remedy, StoredWal};
use wale_format::Crc32c;
use wale_pg::ArchiveFileName;
use wale_pipeline::blocking;

use super::local_wal::{LocalWal, Status};
use super::options::UnarchivedWal;
use super::source::Source;
use crate::backup_content::WORKER_BYTES;
use crate::error::{Kind, OpError, Result};

/// Bytes that are compared at once.
const COMPARED_BYTES: usize = 64 << 10;

/// Looks for each file in the archive. Gives a sentence about those that will be lost.
///
/// A file counts as archived where the archive has its bytes: under its name it may have another server's, such as those of the
/// original of a copy that ran on the same timeline. So does one that is the backup's own, in a backup that holds its WAL. What its
/// server knows to be archived and lies before the backup may have been deleted from the archive since.
///
/// # Errors
///
/// [`Kind::NotEmpty`] for WAL that the archive lacks, unless it may be discarded; what the store says.
pub(super) async fn check(
    archive: &Archive,
    data: &Path,
    wal: &[LocalWal],
    source: &Source,
    policy: UnarchivedWal,
) -> Result<Option<String>> {
    let size = source.segment_size(archive).await?;
    let begins = source.name.segment().number(size).unwrap_or(0);
    let kept = source.kept();
    let mut lost: Vec<ArchiveFileName> = Vec::new();
    for file in wal {
        let number = file
            .name
            .segment()
            .and_then(|segment| segment.number(size).ok());
        if file.status == Status::Done && number.is_some_and(|number| number < begins) {
            continue;
        }
        let path = data.join("pg_wal").join(file.name.to_string());
        let of_backup = kept.expected(&format!("pg_wal/{}", file.name));
        if !is_of_backup(path.clone(), of_backup).await?
            && !is_archived(archive, path, file).await?
        {
            lost.push(file.name);
        }
    }
    let Some(first) = lost.first() else {
        return Ok(None);
    };
    let names = match lost.len() {
        1 => first.to_string(),
        count => format!("{count} files, the first is {first}"),
    };
    let shown = data.display();
    match policy {
        UnarchivedWal::Discard => Ok(Some(format!(
            "WAL in \"{shown}\" that the archive does not have is removed: {names}"
        ))),
        UnarchivedWal::Refuse => Err(OpError::new(
            Kind::NotEmpty,
            format!("\"{shown}\" has WAL that the archive does not have: {names}"),
        )
        .detail(
            "Its last transactions may be nowhere else, and a restore empties pg_wal. Nothing was written.",
        )
        .hint(
            "start the server and let it archive, or copy pg_wal to a safe place; where the transactions are not needed, say so",
        )
        .remedy(Remedy::DiscardWal)),
    }
}

async fn is_archived(archive: &Archive, path: PathBuf, file: &LocalWal) -> Result<bool> {
    match archive.find_wal(&file.name).await? {
        Some(stored) => has_content(archive, &stored, path).await,
        None => Ok(false),
    }
}

/// Whether a file has the size and the CRC-32C of one that the backup has.
async fn is_of_backup(path: PathBuf, expected: Option<(u64, u32)>) -> Result<bool> {
    let Some(expected) = expected else {
        return Ok(false);
    };
    let sum = move || -> std::io::Result<(u64, u32)> {
        let mut file = File::open(path)?;
        let (mut buffer, mut crc, mut size) = (vec![0; COMPARED_BYTES], Crc32c::new(), 0);
        loop {
            match fill(&mut file, &mut buffer)? {
                0 => return Ok((size, crc.finish())),
                count => {
                    crc.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
    };
    // What cannot be read is not the backup's.
    Ok(blocking(sum).await?.is_ok_and(|found| found == expected))
}

/// Whether an object decodes to the content of a file.
async fn has_content(archive: &Archive, stored: &StoredWal, path: PathBuf) -> Result<bool> {
    let _memory = archive.budget().acquire(WORKER_BYTES).await;
    let compare = move |plain: &mut dyn Read| {
        let failed = |error| OpError::from_io(error, format_args!("read {}", path.display()));
        let mut file = File::open(&path).map_err(failed)?;
        let (mut ours, mut theirs) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
        loop {
            let count = fill(plain, &mut theirs)?;
            let own = fill(&mut file, &mut ours[..]).map_err(failed)?;
            if theirs[..count] != ours[..own] {
                return Ok(false);
            }
            if count == 0 {
                return Ok(true);
            }
        }
    };
    archive.decode(&stored.key, stored.codec, compare).await
}

/// Reads until the buffer is full, or to the end.
fn fill<R: Read + ?Sized>(source: &mut R, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
