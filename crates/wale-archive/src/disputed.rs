//! The note of an archive that follows another one: WAL that it holds with other bytes than the first archive has.
//!
//! Whoever compares the two writes it (the sidecar), and it lies in the archive itself, so that a restart and every other
//! reader know of it. It says nothing where the archive is used alone: then what it holds is what there is.
//!
//! Invariant: a note that cannot be understood disputes everything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wale_format::layout;
use wale_pg::ArchiveFileName;
use wale_storage::body_from;

use crate::Archive;
use crate::error::{OpError, Result};

/// Objects that are named. 200 × (80 of the key, 200 of the words and 8) bytes stay below the 64 KiB of a small object.
const DISPUTED_MAX: usize = 200;

/// Bytes of what is said of one object.
const WORDS_MAX: usize = 200;

/// What is disputed in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disputed {
    /// Keys of objects, and what is wrong with each, in words that follow the key.
    pub objects: BTreeMap<String, String>,
    /// There are more than are named.
    #[serde(default)]
    pub more: bool,
}

impl Disputed {
    /// The note as it is stored. One that cannot be understood disputes everything.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self {
            objects: BTreeMap::new(),
            more: true,
        })
    }

    /// Adds an object. Gives whether it is news: of those that are not named the first is.
    pub fn add(&mut self, key: &str, why: &str) -> bool {
        if self.objects.contains_key(key) {
            return false;
        }
        if self.objects.len() < DISPUTED_MAX {
            self.objects.insert(key.to_owned(), words(why));
            return true;
        }
        !std::mem::replace(&mut self.more, true)
    }

    /// Why a WAL file may not be taken from the archive in another one's place.
    #[must_use]
    pub fn of_wal(&self, name: &ArchiveFileName) -> Option<&str> {
        let is_it = |key: &str| layout::wal_claim(key).as_ref() == Some(name);
        let known = self.objects.iter().find(|(key, _)| is_it(key));
        known.map(|(_, why)| why.as_str()).or_else(|| {
            self.more
                .then_some("may be one of more disputed objects than are named")
        })
    }
}

/// Words of so many bytes at most, none of which JSON escapes.
fn words(why: &str) -> String {
    let plain = why.chars().map(|c| match c {
        '"' | '\\' => '\'',
        c if c.is_control() => ' ',
        c => c,
    });
    let mut words = String::new();
    for c in plain {
        if words.len() + c.len_utf8() > WORDS_MAX {
            break;
        }
        words.push(c);
    }
    words
}

impl Archive {
    /// The note; none where nobody has compared the archive with another one.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn disputed(&self) -> Result<Option<Disputed>> {
        let key = Self::key(layout::DISPUTED)?;
        let Some(bytes) = self.read_small(&key).await? else {
            return Ok(None);
        };
        Ok(Some(Disputed::parse(&bytes)))
    }

    /// Removes the note from an archive that is written to by itself: it follows no other one now, and whoever lets it follow
    /// again compares it anew.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn forget_disputed(&self) -> Result<()> {
        if self.disputed().await?.is_none() {
            return Ok(());
        }
        let key = Self::key(layout::DISPUTED)?;
        let deleted = self.store().delete(&key).await;
        deleted.map_err(|error| OpError::from_store(error, format_args!("delete {key}")))
    }

    /// Writes the note in place of the one before.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn note_disputed(&self, note: &Disputed) -> Result<()> {
        let key = Self::key(layout::DISPUTED)?;
        let text = serde_json::to_vec(note)
            .map_err(|error| OpError::internal("a note is JSON").source(error))?;
        let put = self.store().put(&key, body_from(text.into())).await;
        put.map(drop)
            .map_err(|error| OpError::from_store(error, format_args!("store {key}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use wale_format::Codec;
    use wale_storage::{MemoryStore, Store};

    use super::*;

    fn name(text: &str) -> ArchiveFileName {
        text.parse().expect("a name")
    }

    #[tokio::test]
    async fn a_note_comes_back_and_one_that_is_damaged_disputes_everything() {
        let store = Arc::new(MemoryStore::new());
        let archive =
            crate::testing::archive(Arc::clone(&store) as Arc<dyn Store>, Codec::Zstd, 1 << 20);
        assert_eq!(archive.disputed().await.unwrap(), None);
        let mut note = Disputed::default();
        for number in 0..=DISPUTED_MAX {
            let key = format!("wal_005/0000000100000000{number:08X}.partial.0123456789abcdef.lzma");
            assert!(note.add(&key, &"ä\n\"".repeat(1000)));
            assert_eq!(note.more, number == DISPUTED_MAX, "{number}");
        }
        assert!(!note.add(
            "wal_005/000000010000000000000000.partial.0123456789abcdef.lzma",
            "x"
        ));
        archive.note_disputed(&note).await.unwrap();
        assert_eq!(archive.disputed().await.unwrap(), Some(note));
        archive.note_disputed(&Disputed::default()).await.unwrap();
        let empty = archive.disputed().await.unwrap();
        assert_eq!(empty, Some(Disputed::default()));
        let key = Archive::key(layout::DISPUTED).unwrap();
        store
            .put(&key, body_from(Bytes::from_static(b"{")))
            .await
            .unwrap();
        let damaged = archive.disputed().await.unwrap().expect("a note");
        assert!(damaged.of_wal(&name("000000010000000000000001")).is_some());
        archive.forget_disputed().await.unwrap();
        assert_eq!(archive.disputed().await.unwrap(), None);
        archive.forget_disputed().await.unwrap();
    }

    #[test]
    fn a_file_is_disputed_under_whatever_codec_it_lies() {
        let mut note = Disputed::default();
        note.add("wal_005/000000010000000000000001.zst", "differs");
        note.add("wal_005/00000002.history", "differs");
        note.add("basebackups_005/x", "differs");
        let why = |text: &str| note.of_wal(&name(text));
        assert_eq!(why("000000010000000000000001"), Some("differs"));
        assert_eq!(why("00000002.history"), Some("differs"));
        assert_eq!(why("000000010000000000000002"), None);
        assert_eq!(why("000000010000000000000001.partial"), None);
    }
}
