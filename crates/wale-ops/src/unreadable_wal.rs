//! WAL that lies in the archive only under an extension that this version does not know, or encrypted. Reads only.
//!
//! Another tool wrote it. It counts as not archived: a push stores the file beside it, and a base backup waits for that.
//! WAL that no server pushes any more stays as it is, and no restore by wale reads it. So it is reported when a sidecar
//! starts.
//!
//! A listing shows the codec by the extension. A key does not show: an encrypted object has the extension of its codec.
//! So the newest segment is opened, and stands for the archive.

use futures_util::TryStreamExt;
use wale_archive::{Archive, StoredWal, Unopened};
use wale_format::layout::{self, ArchiveKey};
use wale_pg::{ArchiveFileName, WalSegmentName};

use crate::error::{OpError, Result};

/// Segments that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableWal {
    /// How many are there under no extension that is known.
    pub segments: u64,
    /// The last of them in the order of the names, or the newest segment of all where that one is encrypted.
    pub example: String,
    /// That it is encrypted, and no key here opens it; otherwise nobody knows what it is.
    pub encrypted: Option<Unopened>,
}

impl UnreadableWal {
    /// What it means, as a sentence.
    #[must_use]
    pub fn consequence(&self) -> String {
        let beside = "what PostgreSQL hands over from now on is stored beside it";
        match self.encrypted {
            None => format!(
                "the archive has WAL under an extension that this version does not know: no restore by wale reads it; {beside}"
            ),
            Some(Unopened {
                method: Some(method),
            }) => format!(
                "the archive's newest WAL is encrypted with {method}, and no key here opens it: only a restore that has its key \
                 reads it; {beside}"
            ),
            Some(Unopened { method: None }) => format!(
                "the archive's newest WAL does not begin as WAL does, so it is encrypted, and no key here opens it: only a restore \
                 that has its key, or the tool that wrote it, reads it; {beside}"
            ),
        }
    }
}

/// What is seen of one segment while its objects go by; they are neighbours in a listing.
#[derive(Default)]
struct OneSegment {
    segment: Option<WalSegmentName>,
    is_readable: bool,
    unreadable: Option<String>,
}

/// Looks through the archive's WAL. A listing of all of it: one request for 1,000 objects.
///
/// # Errors
/// The store's.
pub async fn look(archive: &Archive) -> Result<Option<UnreadableWal>> {
    let prefix = layout::WAL_PREFIX;
    let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
    let mut listing = archive.store().list(prefix).await.map_err(failed)?;
    let (mut seen, mut segments, mut example) = (OneSegment::default(), 0, None);
    let mut newest: Option<StoredWal> = None;
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        let Some(ArchiveFileName::Segment(segment)) = layout::wal_claim(meta.key.as_str()) else {
            continue;
        };
        if seen.segment != Some(segment) {
            count(std::mem::take(&mut seen), &mut segments, &mut example);
            seen.segment = Some(segment);
        }
        match layout::parse(meta.key.as_str()) {
            ArchiveKey::Wal { name, codec, .. } => {
                seen.is_readable = true;
                if newest
                    .as_ref()
                    .is_none_or(|newest| newest.modified <= meta.modified)
                {
                    newest = Some(StoredWal {
                        name,
                        key: meta.key,
                        codec,
                        size: meta.size,
                        modified: meta.modified,
                    });
                }
            }
            _ => seen.unreadable = Some(meta.key.to_string()),
        }
    }
    count(seen, &mut segments, &mut example);
    let mut encrypted = None;
    if let Some(newest) = newest
        && example.is_none()
    {
        encrypted = archive.unopened(&newest).await?;
        if encrypted.is_some() {
            (segments, example) = (1, Some(newest.key.to_string()));
        }
    }
    Ok(example.map(|example| UnreadableWal {
        segments,
        example,
        encrypted,
    }))
}

fn count(seen: OneSegment, segments: &mut u64, example: &mut Option<String>) {
    if !seen.is_readable
        && let Some(unreadable) = seen.unreadable
    {
        *segments += 1;
        *example = Some(unreadable);
    }
}

#[cfg(test)]
mod tests {
    use wale_format::Codec;
    use wale_storage::ObjectKey;

    use super::*;
    use crate::testing::{Bench, file_name, segment};

    const NAMES: [&str; 3] = [
        "000000010000000000000001",
        "000000010000000000000002",
        "000000010000000000000003",
    ];

    #[tokio::test]
    async fn fault_96_segments_that_only_another_tool_can_read_are_told() {
        let encrypted_bytes = [&[0x85, 0x02, 0x0C, 0x03][..], &[7; 500]].concat();
        let bench = Bench::new();
        assert_eq!(look(&bench.archive).await.expect("read"), None);
        for name in NAMES {
            bench.store_wal(name, Codec::Lz4, &segment(name, 1));
        }
        assert_eq!(look(&bench.archive).await.expect("read"), None);
        // Another copy does no harm beside one that can be read.
        let put = |key: String, content: &[u8]| {
            let key = ObjectKey::new(&key).expect("a key");
            bench.memory.insert(&key, content.to_vec());
        };
        put(format!("wal_005/{}.xz", NAMES[2]), b"xz");
        assert_eq!(look(&bench.archive).await.expect("read"), None);
        put("wal_005/000000010000000000000004.gz".into(), b"gzip");
        put("wal_005/000000010000000000000005.xz".into(), b"who knows");
        let found = look(&bench.archive).await.expect("read").expect("two");
        assert_eq!(found.segments, 2);
        assert_eq!(found.example, "wal_005/000000010000000000000005.xz");
        let said = found.consequence();
        assert!(said.contains("no restore by wale reads it"), "{said}");

        let encrypted = Bench::new();
        let key = ObjectKey::new(&format!("wal_005/{}.lz4", NAMES[0])).expect("a key");
        encrypted.memory.insert(&key, encrypted_bytes);
        let found = look(&encrypted.archive).await.expect("read").expect("it");
        assert_eq!(found.example, key.to_string());
        // Whoever has the key restores it by wale.
        let said = found.consequence();
        assert!(said.contains("no key here opens it"), "{said}");
        assert!(!said.contains("no restore"), "{said}");
        let named = UnreadableWal {
            encrypted: Some(Unopened {
                method: Some(wale_format::Encryption::Age),
            }),
            ..found
        };
        assert!(named.consequence().contains("encrypted with age"));
        let name = file_name(NAMES[0]);
        assert!(!encrypted.archive.has_readable(&name).await.expect("read"));
        encrypted.store_wal(NAMES[0], Codec::Zstd, &segment(NAMES[0], 1));
        assert!(encrypted.archive.has_readable(&name).await.expect("read"));
    }
}
