//! The index that says where in the partitions the files lie: with it one file can be fetched without the rest of its partition.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use wale_archive::Archive;
use wale_format::{Codec, Encryption, IndexedFile, frame_index, layout};

use super::backup::Backup;
use super::contents::BackupContents;
use super::ended::Ended;
use super::partitions::member_names;
use crate::error::Result;

impl Ended {
    /// Stores the index, where there is anything to say.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(super) async fn store_frame_index(&self, backup: &Backup<'_>) -> Result<()> {
        if let Some(index) = sealed(backup.archive, &self.contents)? {
            let key = layout::frames(&self.started.name);
            backup.uploads.put_bytes(&key, index).await?;
        }
        Ok(())
    }
}

/// The index, as it is stored; none where every partition is read whole or not at all, because it is encrypted or of another codec
/// than zstd.
pub(super) fn sealed(archive: &Archive, contents: &BackupContents) -> Result<Option<Bytes>> {
    let parts = &contents.framed;
    if parts.is_empty() || archive.write_key().method() != Encryption::None {
        return Ok(None);
    }
    let known: BTreeSet<u32> = parts.iter().map(|part| part.number).collect();
    let names = member_names(archive.codec());
    let files = contents.files.iter();
    let files = files.filter(|file| known.contains(&file.partition));
    let files = files.map(|file| IndexedFile {
        path: file.path.clone(),
        partition: file.partition,
        offset: file.offset,
        bytes: names.member_bytes(&file.path, file.size),
    });
    let write = |sink: &mut dyn Write| frame_index::write(parts.iter().cloned(), files, sink);
    archive.seal_written(Codec::Zstd, write).map(Some)
}
