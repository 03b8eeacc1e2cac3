//! What an object of WAL must decode to: the segment or the history file that its name says. Who fetches it and who verifies
//! the archive ask the same.

use std::io::Read;

use crc_fast::{CrcAlgorithm, Digest};
use wale_archive::{Archive, ConsumeError, StoredWal, damaged};
use wale_pg::{
    ArchiveFileName, HeaderExpectation, SystemIdentifier, WalPageHeader, WalSegmentSize,
};
use wale_storage::ObjectKey;

use crate::error::{OpError, Result};
use crate::wal_file::{HISTORY_FILE_MAX, check_history};

/// Bytes that are read at once: 256 KiB.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What a file of the archive must be like, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectation {
    /// What was asked for.
    name: ArchiveFileName,
    /// The cluster of the archive.
    system_identifier: Option<SystemIdentifier>,
    /// Its segment size.
    segment_size: WalSegmentSize,
}

impl Expectation {
    /// What the object must decode to. An archive without identity says it by the object's own header.
    ///
    /// # Errors
    /// Those of the store; damage of the object.
    pub(crate) async fn of(archive: &Archive, stored: &StoredWal) -> Result<Self> {
        let name = stored.name;
        if let Some(identity) = archive.identity().await? {
            return Ok(Self {
                name,
                system_identifier: Some(identity.cluster.system_identifier),
                segment_size: identity.cluster.wal_segment_size,
            });
        }
        let mut segment_size = WalSegmentSize::DEFAULT;
        if matches!(
            name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        ) {
            let header = archive.read_wal_header(stored).await?;
            segment_size = WalSegmentSize::new(header.segment_size.into())
                .map_err(|e| damaged(&stored.key, &e).source(e))?;
        }
        Ok(Self {
            name,
            system_identifier: None,
            segment_size,
        })
    }

    /// Reads everything to its last byte, and keeps only the beginning.
    ///
    /// # Errors
    /// Damage: of the stream, or content that is not the file's.
    pub(crate) fn verify(
        &self,
        key: &ObjectKey,
        plain: &mut dyn Read,
    ) -> Result<Decoded, ConsumeError> {
        let mut digest = checksum();
        let size = self.verify_through(key, plain, |piece| digest.update(piece))?;
        Ok(Decoded {
            size,
            checksum: digest.finalize(),
        })
    }

    /// As [`Expectation::verify`]; each piece goes through `seen` as it comes, before it is known whether all is right. The size in
    /// bytes.
    ///
    /// # Errors
    /// As [`Expectation::verify`].
    pub(crate) fn verify_through(
        &self,
        key: &ObjectKey,
        plain: &mut dyn Read,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<u64, ConsumeError> {
        let mut head = Vec::new();
        let mut size = 0;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = plain.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > self.size_max() {
                return Err(too_long(key, self.size_max()).into());
            }
            let wanted = self.head_bytes().saturating_sub(head.len()).min(count);
            head.extend_from_slice(&buffer[..wanted]);
            seen(&buffer[..count]);
        }
        self.check(&head, size).map_err(|why| damaged(key, why))?;
        Ok(size)
    }

    /// Whether the file is a whole segment, which has a fixed size.
    pub(crate) const fn is_segment_shaped(&self) -> bool {
        matches!(
            self.name,
            ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
        )
    }

    /// The most plain bytes it can have.
    pub(crate) const fn size_max(&self) -> u64 {
        if self.is_segment_shaped() {
            self.segment_size.bytes()
        } else {
            HISTORY_FILE_MAX
        }
    }

    /// How many of the first bytes [`Expectation::check`] wants to see: a header, or the whole of a history file.
    fn head_bytes(&self) -> usize {
        if self.is_segment_shaped() {
            WalPageHeader::LENGTH
        } else {
            usize::try_from(HISTORY_FILE_MAX).expect("1 MiB fits")
        }
    }

    /// Whether decoded content is the file. `head` holds its first bytes, `size` its whole length.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub(crate) fn check(&self, head: &[u8], size: u64) -> Result<(), String> {
        let segment = match self.name {
            ArchiveFileName::Segment(segment) | ArchiveFileName::Partial(segment) => segment,
            ArchiveFileName::BackupHistory { .. } | ArchiveFileName::TimelineHistory(_) => {
                return check_history(&self.name, head).map_err(|e| e.detail.unwrap_or(e.message));
            }
        };
        let expectation = HeaderExpectation {
            system_identifier: self.system_identifier,
            segment_size: Some(self.segment_size),
            file_size: size,
        };
        WalPageHeader::verify(head, &segment, &expectation)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }
}

/// What was decoded: equal contents are equal here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Plain bytes.
    pub(crate) size: u64,
    /// Their checksum, of [`checksum`].
    pub(crate) checksum: u64,
}

/// The checksum that tells contents apart.
pub(crate) fn checksum() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}

/// Reads an object to its last byte, and says what it holds.
///
/// # Errors
/// Those of the store; damage of the object.
pub(crate) async fn decoded(archive: &Archive, stored: &StoredWal) -> Result<Decoded> {
    let expectation = Expectation::of(archive, stored).await?;
    let key = stored.key.clone();
    let consume = move |plain: &mut dyn Read| expectation.verify(&key, plain);
    archive.decode(&stored.key, stored.codec, consume).await
}

/// The error for an object that holds more than its name says.
pub(crate) fn too_long(key: &ObjectKey, size_max: u64) -> OpError {
    damaged(
        key,
        format_args!("it decodes to more than {size_max} bytes"),
    )
}
