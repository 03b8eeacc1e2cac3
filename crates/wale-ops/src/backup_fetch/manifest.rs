//! The manifest in the restored data directory: it comes before the files, and in the end says what the tablespace map is
//! now, so that `pg_verifybackup` proves the restore.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::sync::Arc;

use wale_format::manifest::copy_with_changed_file;
use wale_format::{Crc32c, ManifestError};

use super::target::Target;
use crate::backup_content::{BackupReader, MANIFEST, Manifest, TABLESPACE_MAP};
use crate::error::{OpError, Result};

/// Reads the manifest once more, into the data directory. Before any file, so that a restore whose manifest changed ends
/// early.
pub(super) async fn place(
    reader: &BackupReader<'_>,
    manifest: &Manifest,
    target: &Arc<Target>,
) -> Result<()> {
    let target = Arc::clone(target);
    reader
        .copy_manifest(manifest, move || target.file(MANIFEST, 0o600))
        .await
}

/// Gives the manifest the bits that a file has there, and the entry of the tablespace map as it is now, where it changed.
pub(super) fn settle(manifest: &Manifest, target: &Target, map: Option<&[u8]>) -> Result<()> {
    if let Some(map) = map {
        change_map(manifest, target, map)?;
    }
    target.share(MANIFEST)
}

fn change_map(manifest: &Manifest, target: &Target, map: &[u8]) -> Result<()> {
    let could_not_read = |error| OpError::from_io(error, format_args!("read \"{MANIFEST}\""));
    let could_not_write = |error| OpError::from_io(error, format_args!("write \"{MANIFEST}\""));
    let old = File::open(target.place(MANIFEST)).map_err(could_not_read)?;
    // The old one has no name any more, and is read to its end.
    let mut new = BufWriter::new(target.file(MANIFEST, 0o600)?);
    let now = (map.len() as u64, Crc32c::of(map));
    match copy_with_changed_file(BufReader::new(old), &mut new, TABLESPACE_MAP, now) {
        Ok(sha256) if manifest.is_of(&sha256) => new.flush().map_err(could_not_write),
        Err(ManifestError::Write(error)) => Err(could_not_write(error)),
        Err(ManifestError::Read(error)) => Err(could_not_read(error)),
        Ok(_) | Err(_) => Err(manifest.changed()),
    }
}
