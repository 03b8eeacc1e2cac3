//! The third step of a backup: everything that a restore reads is stored, but for WAL and sentinel.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wale_format::sentinel::ConfigurationRecord;
use wale_format::tar::Meta;
use wale_format::{Codec, Crc32c, ManifestWriter, WalRange, hex, layout};
use wale_pg::ControlFile;

use super::backup::Backup;
use super::ended::Ended;
use super::files::PartitionContents;
use super::packed::FileRecord;
use super::partitions::{StoredPartition, small_partition};
use crate::error::Result;

/// A backup of which everything is stored that a restore reads, but for WAL and sentinel.
pub(super) struct Stored {
    pub(super) ended: Ended,
    pub(super) manifest: StoredManifest,
    pub(super) configuration: Option<ConfigurationRecord>,
    /// Whether WAL-G's list of files is stored.
    pub(super) has_file_list: bool,
}

/// The manifest as it is stored.
pub(super) struct StoredManifest {
    /// Lower-case hexadecimal.
    pub(super) sha256: String,
    /// Bytes of the object.
    pub(super) bytes: u64,
}

impl Ended {
    /// Stores what can be said only when all files are stored: the last partition, the manifest, and the configuration where it
    /// lies outside of the data directory.
    ///
    /// # Errors
    ///
    /// The store's, and [`Kind::ArchiveConflict`](crate::Kind::ArchiveConflict) when another's object is there.
    pub(super) async fn store(mut self, backup: &Backup<'_>) -> Result<Stored> {
        let last = self.store_last_partition(backup).await?;
        self.contents.add(last);
        let framed = std::mem::take(&mut self.contents.framed);
        self.store_frame_index(backup, framed).await?;
        let directories = std::mem::take(&mut self.listing.directories);
        Ok(Stored {
            manifest: self.store_manifest(backup).await?,
            has_file_list: self.store_file_list(backup, directories).await?,
            configuration: self.store_configuration(backup).await?,
            ended: self,
        })
    }

    /// Stores the partition that must come last: `global/pg_control` as it was read after all other files, and label
    /// and map byte for byte as a running server gave them.
    async fn store_last_partition(&self, backup: &Backup<'_>) -> Result<StoredPartition> {
        let number = self.contents.next_number();
        let meta = Meta {
            mode: self.ready.file_mode(),
            mtime: u64::try_from(self.stopped_at.timestamp()).unwrap_or(0),
            ..self.ready.owner_meta()
        };
        let control = (ControlFile::PATH, Cow::from(&self.control_bytes));
        let files = self
            .ending
            .running()
            .map(super::backup_end::RunningEnd::files);
        let files: Vec<(&str, Cow<'_, [u8]>)> = std::iter::once(control)
            .chain(files.into_iter().flatten())
            .collect();
        let members: Vec<(&str, &[u8], Meta)> = files
            .iter()
            .map(|(path, content)| (*path, &**content, meta))
            .collect();
        let (bytes, bytes_plain) = small_partition(backup.archive, &members)?;
        let key = layout::partition(&self.started.name, number, backup.archive.codec());
        let bytes_stored = backup.store_bytes(&key, bytes).await?;
        let record = |(path, content): &(&str, Cow<'_, [u8]>)| FileRecord {
            path: (*path).to_owned(),
            size: content.len() as u64,
            mtime: self.stopped_at,
            is_settled: true,
            crc32c: Crc32c::of(content),
            offset: 0,
        };
        Ok(StoredPartition {
            number,
            contents: PartitionContents {
                files: files.iter().map(record).collect(),
                members: files.len() as u64,
                ..PartitionContents::default()
            },
            bytes_plain,
            bytes_stored,
            // It is so small that nobody reads a part of it.
            frames: Vec::new(),
        })
    }

    /// Stores the manifest, encrypted where the archive is, since it has the names of all files: exactly the files that were stored, with the CRC of the bytes stored.
    async fn store_manifest(&self, backup: &Backup<'_>) -> Result<StoredManifest> {
        let range = WalRange {
            timeline: self.started.timeline,
            start: self.started.start_lsn,
            end: self.ending.stop_lsn(),
        };
        let files = Arc::clone(&self.contents.files);
        let write = move |sink: &mut dyn Write| {
            let mut manifest = ManifestWriter::new(sink)?;
            for (_, file) in files.iter() {
                manifest.add_file(&file.path, file.size, file.mtime, file.crc32c)?;
            }
            let (_, sha256) = manifest.finish(&[range])?;
            Ok(hex(&sha256))
        };
        let key = layout::manifest(&self.started.name);
        let (sha256, bytes) = backup.store_written(&key, Codec::None, write).await?;
        Ok(StoredManifest { sha256, bytes })
    }

    /// Stores the configuration that lies outside of the data directory, where there is one.
    async fn store_configuration(
        &self,
        backup: &Backup<'_>,
    ) -> Result<Option<ConfigurationRecord>> {
        let running = self.ending.running();
        let Some(outside) = running.and_then(|end| end.server.configuration.as_ref()) else {
            return Ok(None);
        };
        let bytes = outside.set.to_json();
        let record = ConfigurationRecord {
            origin: outside.origin.clone(),
            sha256: hex(&Sha256::digest(&bytes)),
        };
        let key = layout::configuration(&self.started.name);
        let sealed = backup.archive.seal_small_as(Codec::None, &bytes)?;
        backup.store_bytes(&key, sealed).await?;
        Ok(Some(record))
    }
}
