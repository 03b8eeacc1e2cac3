//! The backup's manifest: read once for what must arrive, and a second time into the data directory of a restore. Names and
//! text are not kept in between; both must be the same text.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wale_archive::described::DescriptionBounds;
use wale_archive::member_list::NameQuestion;
use wale_archive::{Archive, ConsumeError};
use wale_format::{
    BackupName, ManifestError, ManifestItem, ManifestReader, WaleSentinel, hex, layout,
};
use wale_storage::ObjectKey;

use super::ledger::{ExpectedFile, ExpectedFiles, Ledger};
use super::needs::DiskNeeds;
use super::tablespaces::tablespace_of;
use crate::error::{Kind, OpError, Result};

/// Bytes of a manifest that are copied at once.
const COPY_BYTES: usize = 64 << 10;

/// Its place in the data directory.
pub(crate) const MANIFEST: &str = "backup_manifest";
/// The file that says where the tablespaces are.
pub(crate) const TABLESPACE_MAP: &str = "tablespace_map";

/// What is kept of a manifest, beside the ledger of its files.
#[derive(Debug)]
pub(crate) struct Manifest {
    backup: BackupName,
    key: ObjectKey,
    sha256: [u8; 32],
    /// Stored bytes, which the text does not exceed.
    bytes: u64,
    /// Files that it names, of those that are wanted.
    pub(crate) files: u64,
    /// What they need, by tablespace.
    pub(super) needs: DiskNeeds,
}

impl Manifest {
    /// Reads it, and checks it against itself and the sentinel. One that is damaged is read from another of the archives that are
    /// read as one, where the sentinel has its digest. Where something is `wanted`, only files of which that says so are expected, and
    /// they are taken to go to one place.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when it is not there, or not what it was; [`Kind::Configuration`] when there is no memory for so
    /// many files.
    pub(super) async fn load(
        archive: &Archive,
        backup: &BackupName,
        record: &WaleSentinel,
        bounds: DescriptionBounds,
        wanted: Option<NameQuestion>,
    ) -> Result<(Self, Ledger)> {
        let load = |archive| Self::load_from(archive, backup, record, bounds, wanted.clone());
        let damage = match load(archive.clone()).await {
            Err(error) if error.kind == Kind::CorruptData && record.manifest_sha256.is_some() => {
                error
            }
            loaded => return loaded,
        };
        for copy in archive.copies() {
            let location = copy.location().clone();
            if let Ok(loaded) = load(copy).await {
                tracing::warn!(
                    key = %loaded.0.key, location, error = %damage.chain(),
                    "a damaged manifest was taken whole from another archive"
                );
                return Ok(loaded);
            }
        }
        Err(damage)
    }

    /// The same from one archive.
    async fn load_from(
        archive: Archive,
        backup: &BackupName,
        record: &WaleSentinel,
        bounds: DescriptionBounds,
        wanted: Option<NameQuestion>,
    ) -> Result<(Self, Ledger)> {
        let key = Archive::key(&layout::manifest(backup))?;
        let what = format!("the manifest of backup {backup}");
        if wanted.is_none() && record.files > bounds.files_max() {
            return Err(bounds.too_many(&what, record.files));
        }
        let named = what.clone();
        let (announced, oids) = match wanted {
            None => {
                let spaces = record.tablespaces.iter();
                (record.files, spaces.map(|space| space.oid).collect())
            }
            Some(_) => (0, Vec::new()),
        };
        let read = archive.read_sealed_text(&key, move |bytes, source| {
            if bytes > bounds.text_max() {
                return Err(bounds.too_long(&named, bytes).into());
            }
            let mut gathered = Gathered {
                expected: ExpectedFiles::new(bounds, announced),
                needs: DiskNeeds::new(),
                wanted,
            };
            let sha256 = gathered.read(source.take(bytes.saturating_add(1)), &oids);
            let sha256 = sha256.map_err(|error| not_readable(&named, error))?;
            Ok((gathered, sha256, bytes))
        });
        let Some((gathered, sha256, bytes)) = read.await? else {
            return Err(damaged(format!("{what} is not in the archive")));
        };
        if let Some(expected) = &record.manifest_sha256
            && hex(&sha256) != *expected
        {
            return Err(damaged(format!(
                "{what} is not the one that the sentinel names"
            )));
        }
        let manifest = Self {
            backup: backup.clone(),
            key,
            sha256,
            bytes,
            files: gathered.expected.count(),
            needs: gathered.needs,
        };
        let ledger = Ledger::of_manifest(gathered.expected, &what)?;
        Ok((manifest, ledger))
    }

    /// The object that it is.
    pub(super) fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Reads it once more, into the file that `open` makes.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when it is another one than at the first reading; those of the file, and of the store.
    pub(super) async fn copy<W, F>(&self, archive: &Archive, open: F) -> Result<()>
    where
        W: Write,
        F: FnOnce() -> Result<W> + Send + 'static,
    {
        let most = self.bytes;
        let copied = archive.read_sealed_text(&self.key, move |bytes, source| {
            let mut digest = Sha256::new();
            let mut file = open()?;
            let mut left = if bytes == most { most } else { 0 };
            let mut chunk = vec![0; COPY_BYTES];
            loop {
                let count = match source.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error.into()),
                };
                digest.update(&chunk[..count]);
                // Another one, as its digest shows.
                let Some(rest) = left.checked_sub(count as u64) else {
                    break;
                };
                left = rest;
                file.write_all(&chunk[..count]).map_err(could_not_write)?;
            }
            file.flush().map_err(could_not_write)?;
            Ok::<[u8; 32], ConsumeError>(digest.finalize().into())
        });
        match copied.await? {
            Some(sha256) if self.is_of(&sha256) => Ok(()),
            _ => Err(self.changed()),
        }
    }

    /// Whether a text of this SHA-256 is the one that was read first.
    pub(crate) fn is_of(&self, sha256: &[u8; 32]) -> bool {
        self.sha256 == *sha256
    }

    /// The error for one that is another than at the first reading.
    pub(crate) fn changed(&self) -> OpError {
        OpError::new(
            Kind::CorruptData,
            format!("the manifest of backup {} changed during the restore", self.backup),
        )
        .hint("find out who changes objects of the archive, or files of the data directory, and restore again")
    }

    /// The first file, in the order of names, that has not arrived: the manifest is read again for it. It is for a message
    /// only, so whatever becomes of the manifest meanwhile is no error.
    pub(super) async fn first_missing(
        &self,
        archive: &Archive,
        ledger: &Arc<Ledger>,
    ) -> Option<String> {
        let (ledger, most) = (Arc::clone(ledger), self.bytes);
        let read = archive.read_sealed_text(&self.key, move |_, source| {
            let mut reader = ManifestReader::new(BufReader::new(source.take(most)));
            let mut first: Option<String> = None;
            while let Ok(Some(item)) = reader.next_item() {
                if let ManifestItem::File(file) = item
                    && first.as_ref().is_none_or(|first| file.path < *first)
                    && ledger.is_missing(&file.path)
                {
                    first = Some(file.path);
                }
            }
            Ok::<_, ConsumeError>(first)
        });
        read.await.ok().flatten().flatten()
    }
}

/// What is gathered while it is read.
struct Gathered {
    expected: ExpectedFiles,
    needs: DiskNeeds,
    wanted: Option<NameQuestion>,
}

impl Gathered {
    fn read(&mut self, source: impl Read, oids: &[u32]) -> Result<[u8; 32], ManifestError> {
        let mut reader = ManifestReader::new(BufReader::new(source));
        while let Some(item) = reader.next_item()? {
            let ManifestItem::File(file) = item else {
                continue;
            };
            // No backup has it, and a file of this name would take the place of what is checked.
            if file.path == MANIFEST {
                return Err(ManifestError::Invalid("it names itself".to_owned()));
            }
            if self
                .wanted
                .as_ref()
                .is_some_and(|wanted| !wanted(&file.path))
            {
                continue;
            }
            let space = tablespace_of(&file.path, oids);
            self.needs.entry(space).or_default().add(file.size);
            let (size, crc32c) = (file.size, file.crc32c);
            self.expected.add(&file.path, ExpectedFile { size, crc32c });
        }
        Ok(reader.sha256())
    }
}

fn damaged(what: String) -> OpError {
    OpError::new(Kind::CorruptData, what).hint(
        "restore another backup; without the manifest it is not known whether this one is whole",
    )
}

fn not_readable(what: &str, error: ManifestError) -> ConsumeError {
    match error {
        ManifestError::Read(error) => ConsumeError::Read(error),
        error => ConsumeError::Refused(damaged(format!("{what} is damaged")).source(error)),
    }
}

fn could_not_write(error: std::io::Error) -> OpError {
    OpError::from_io(error, format_args!("write \"{MANIFEST}\""))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use wale_format::ManifestBuilder;
    use wale_pg::{Lsn, TimelineId};

    use super::super::needs::DiskNeed;
    use super::*;

    /// Whatever the names are, each file costs the same.
    #[test]
    fn of_two_hundred_thousand_files_five_megabytes_are_kept() {
        const FILES: u64 = 200_000;
        let mut builder = ManifestBuilder::new();
        for number in 0..FILES {
            let path = format!("pg_tblspc/{}/PG_15_202209061/5/{number}", 7 + number % 3);
            builder.add_file(&path, 8192, DateTime::UNIX_EPOCH, 1);
        }
        let text = builder.finish(TimelineId::FIRST, Lsn::new(0x28), Lsn::new(0x100));
        let bounds = DescriptionBounds::of_manifest(16 << 20);
        // A sentinel that says far less than the manifest has.
        let mut gathered = Gathered {
            expected: ExpectedFiles::new(bounds, 1),
            needs: DiskNeeds::new(),
            wanted: None,
        };
        let sha256 = gathered.read(&text[..], &[7, 9]).unwrap();
        assert_eq!(sha256[..], Sha256::digest(&text)[..]);
        let need = |files| DiskNeed {
            bytes: files * 8192,
            files,
        };
        let needs = [
            (None, need(66_667)),
            (Some(7), need(66_667)),
            (Some(9), need(66_666)),
        ];
        assert_eq!(gathered.needs, DiskNeeds::from(needs));
        assert_eq!(gathered.expected.count(), FILES);
        let ledger = Ledger::of_manifest(gathered.expected, "it").unwrap();
        assert_eq!(
            (ledger.missing() as u64, ledger.bytes()),
            (FILES, 4_800_000)
        );
        let last = format!("pg_tblspc/{}/PG_15_202209061/5/199999", 7 + 199_999 % 3);
        assert_eq!(ledger.size_of(&last), Some(8192));
    }
}
