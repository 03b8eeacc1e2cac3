//! The index that says where in the partitions the files lie: with it one file can be fetched without the rest of its partition.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use wale_format::tar::MemberNames;
use wale_format::{Codec, Encryption, IndexedFile, IndexedPartition, frame_index, layout};

use super::backup::Backup;
use super::contents::StoredFiles;
use super::ended::Ended;
use super::partitions::member_names;
use crate::error::Result;

impl Ended {
    /// Stores the index of these partitions, where there is anything to say: none where every partition is read whole or not at all,
    /// because it is encrypted or of another codec than zstd.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(super) async fn store_frame_index(
        &self,
        backup: &Backup<'_>,
        framed: Vec<IndexedPartition>,
    ) -> Result<()> {
        if framed.is_empty() || backup.archive.write_key().method() != Encryption::None {
            return Ok(());
        }
        let key = layout::frames(&self.started.name);
        let files = Arc::clone(&self.contents.files);
        let names = member_names(backup.archive.codec());
        let write = move |sink: &mut dyn Write| write_index(&framed, &files, names, sink);
        backup.store_written(&key, Codec::Zstd, write).await?;
        Ok(())
    }
}

/// Writes the index of these partitions.
pub(super) fn write_index(
    framed: &[IndexedPartition],
    files: &StoredFiles,
    names: MemberNames,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let known: BTreeSet<u32> = framed.iter().map(|part| part.number).collect();
    let files = files.partitions();
    let files = files.filter(|(number, _)| known.contains(number));
    let files = files.flat_map(|(partition, files)| {
        files.iter().map(move |file| IndexedFile {
            partition,
            offset: file.offset,
            bytes: names.member_bytes(&file.path, file.size),
            path: file.path,
        })
    });
    frame_index::write(framed, files, sink)
}
