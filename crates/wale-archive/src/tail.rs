//! The end of the archive's names, in one listing.
//!
//! Below the prefix `wal_005/…` is followed by `wale.json`. So one listing that begins at a WAL file shows all that comes
//! after it: objects of the file under any extension, later WAL, later timelines, and that the archive is the one whose
//! identity was read. At the end of the log these are a handful of objects, and a push or a standby's poll needs to ask
//! nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;
use wale_format::layout::{self, ArchiveKey};
use wale_pg::ArchiveFileName;
use wale_storage::{Looking, ObjectMeta};

use crate::error::{OpError, Result};
use crate::look::{LOOK_HOLDS, Mark, Nearby, Tail, Tails};
use crate::{Archive, StoredWal};

/// The most objects of a tail: 64 of some 200 bytes. Sixteen segments with their histories are less.
pub(crate) const TAIL_MAX: usize = 64;

/// For how long nobody asks for a tail after one was too long, 60 s: it costs a page of 1,000 names, and the archiver of an
/// old segment, or of an old timeline, would pay it each time.
const TOO_LONG_FOR: Duration = Duration::from_mins(1);

/// What the keys of WAL and that of the identity begin with.
const TAIL_PREFIX: &str = "wal";

impl Archive {
    /// Whether a look at a WAL file may show that the archive is the one whose identity was read.
    #[must_use]
    pub fn looks_from_any_key(&self) -> bool {
        self.store().looking() == Looking::FromAnyKey
    }

    /// The tail from this file on, or from some file before it, as it was less than [`LOOK_HOLDS`] ago. `None` where nobody
    /// has listed it.
    #[must_use]
    pub fn recent_tail(&self, name: &ArchiveFileName) -> Option<Arc<Tail>> {
        let last = self.tails().last.clone()?;
        (last.begun.elapsed() < LOOK_HOLDS && last.covers(name)).then_some(last)
    }

    /// The objects in a tail that hold `name`, as [`Archive::find_wal_copies`] gives them.
    #[must_use]
    pub fn copies_in(&self, tail: &Tail, name: &ArchiveFileName) -> Vec<StoredWal> {
        self.copies_among(name, tail.wal.iter().map(|(_, meta)| meta.clone()))
    }

    /// Lists the tail from this file on; for a segment from the first of its sixteen, so that segments before it are seen,
    /// too. `None` where the store lists otherwise, where no identity was read yet, or where the tail is long.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn tail(&self, name: &ArchiveFileName) -> Result<Option<Arc<Tail>>> {
        let was_long = self.tails().too_long;
        if !self.looks_from_any_key()
            || self.mark().is_none()
            || was_long.is_some_and(|long| long.elapsed() < TOO_LONG_FOR)
        {
            return Ok(None);
        }
        let after = first_key(name);
        let begun = Instant::now();
        let failed = |e| OpError::from_store(e, format_args!("list what follows {after}"));
        let listing = self.store().list_after(TAIL_PREFIX, &after).await;
        let mut listing = listing.map_err(failed)?;
        let (mut wal, mut identity) = (Vec::new(), None);
        let mut count = 0;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            let key = meta.key.as_str();
            if key >= layout::IDENTITY {
                identity = (key == layout::IDENTITY).then(|| Mark::of(&meta));
                break;
            }
            count += 1;
            if count > TAIL_MAX {
                self.tails().too_long = Some(begun);
                return Ok(None);
            }
            if let Some(listed) = layout::wal_claim(key) {
                wal.push((listed, meta));
            }
        }
        if identity.is_some() && identity == self.mark() {
            self.note_seen(begun);
        } else {
            self.forget_seen();
        }
        let tail = Arc::new(Tail {
            after,
            begun,
            wal,
            identity,
        });
        self.tails().last = Some(Arc::clone(&tail));
        Ok(Some(tail))
    }

    /// All objects that hold `name`, as [`Archive::list_wal_copies`] gives them, as they were less than [`LOOK_HOLDS`] ago.
    /// Where it can be seen in the same listing, it is noted that the archive's identity is what it was.
    ///
    /// # Errors
    /// As [`Archive::list_wal_copies`].
    pub async fn find_wal_copies_lately(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        let tail = match self.recent_tail(name) {
            Some(tail) => Some(tail),
            None => self.tail(name).await?,
        };
        match tail {
            Some(tail) => Ok(self.copies_in(&tail, name)),
            None => self.list_wal_copies(name).await,
        }
    }

    /// As [`Archive::find_wal_copies`]. Where a listing is asked, it is one of the sixteen segments with names that begin
    /// as this one's, and what it shows of the others counts for [`LOOK_HOLDS`]: a server that replays, and what is fetched
    /// ahead of it, ask for one after the other. That something is not there is never known from a listing of before.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn find_wal_copies_nearby(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        let is_listed = self.store().looking() != Looking::ByName;
        let (ArchiveFileName::Segment(_), true) = (name, is_listed) else {
            return self.find_wal_copies(name).await;
        };
        let known = match &self.tails().nearby {
            Some(nearby) if nearby.begun.elapsed() < LOOK_HOLDS => nearby.metas.clone(),
            _ => Vec::new(),
        };
        let copies = self.copies_among(name, known.into_iter());
        if !copies.is_empty() {
            return Ok(copies);
        }
        let begun = Instant::now();
        let prefix = first_key(name);
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let listing = self.store().list(&prefix).await.map_err(failed)?;
        let metas: Vec<ObjectMeta> = listing
            .take(TAIL_MAX + 1)
            .try_collect()
            .await
            .map_err(failed)?;
        if metas.len() > TAIL_MAX {
            return self.find_wal_copies(name).await;
        }
        let copies = self.copies_among(name, metas.iter().cloned());
        self.tails().nearby = Some(Nearby { begun, metas });
        self.unless_missed(name, copies).await
    }

    /// Lets the next look ask the store: an attempt that failed may have stored something.
    pub fn forget_looks(&self) {
        let mut tails = self.tails();
        tails.last = None;
        tails.nearby = None;
        tails.around = None;
    }

    /// Whether a tail shows the archive whose identity was read last.
    #[must_use]
    pub fn is_own(&self, tail: &Tail) -> bool {
        tail.identity.is_some() && tail.identity == self.mark()
    }

    /// Those of the objects that hold `name`, in the order in which they should be read.
    pub(crate) fn copies_among(
        &self,
        name: &ArchiveFileName,
        listed: impl Iterator<Item = ObjectMeta>,
    ) -> Vec<StoredWal> {
        let mut copies: Vec<StoredWal> = listed
            .filter_map(|meta| match layout::parse(meta.key.as_str()) {
                ArchiveKey::Wal {
                    name: listed,
                    codec,
                    conflict: None,
                    ..
                } if listed == *name => Some(StoredWal {
                    name: listed,
                    key: meta.key,
                    codec,
                    size: meta.size,
                    modified: meta.modified,
                }),
                _ => None,
            })
            .collect();
        let order = self.codecs_in_order();
        copies.sort_by_key(|copy| order.iter().position(|codec| *codec == copy.codec));
        copies
    }

    pub(crate) fn tails(&self) -> MutexGuard<'_, Tails> {
        let tails: &Mutex<Tails> = &self.inner.tails;
        tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key right before those of the sixteen segments of `name`, or of the timeline of a history.
pub(crate) fn first_key(name: &ArchiveFileName) -> String {
    let Some(segment) = name.segment() else {
        return format!("{}{}", layout::WAL_PREFIX, name.timeline().to_hex());
    };
    let mut key = format!("{}{segment}", layout::WAL_PREFIX);
    key.pop();
    key
}

#[cfg(test)]
mod tests {
    use wale_format::Codec;

    use super::*;
    use crate::look::wal_key;
    use crate::testing::{Bench, file_name};

    const FIRST: &str = "000000010000000000000031";
    const SECOND: &str = "000000010000000000000032";

    #[test]
    fn the_identity_is_named_after_all_wal() {
        assert!(layout::WAL_PREFIX < layout::IDENTITY);
        for key in [layout::WAL_PREFIX, layout::IDENTITY] {
            assert!(key.starts_with(TAIL_PREFIX));
        }
        for (name, expected) in [
            (FIRST, "wal_005/00000001000000000000003"),
            ("0000000A.history", "wal_005/0000000A"),
            (
                "000000010000000000000031.00000028.backup",
                "wal_005/00000001000000000000003",
            ),
        ] {
            let name = file_name(name);
            let first = first_key(&name);
            assert_eq!(first, expected);
            assert!(first < wal_key(&name));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tail_shows_the_archive_and_what_is_later_and_counts_for_two_seconds() {
        let bench = Bench::new();
        let (archive, second) = (&bench.archive, file_name(SECOND));
        bench.claim().await;
        assert!(archive.tail(&second).await.expect("asked").is_none());
        archive.read_identity().await.expect("read");
        bench.store_wal(FIRST, Codec::Lz4, b"x");
        let tail = archive.tail(&second).await.expect("asked").expect("short");
        assert!(archive.is_own(&tail) && tail.shows(&file_name(FIRST)));
        assert!(tail.ends_before(&second) && archive.copies_in(&tail, &second).is_empty());
        for later in [SECOND, "00000002.history"] {
            let key = bench.store_wal(later, Codec::Lz4, b"x");
            assert!(archive.recent_tail(&second).is_some());
            tokio::time::advance(LOOK_HOLDS).await;
            assert!(archive.recent_tail(&second).is_none());
            let tail = archive.tail(&second).await.expect("asked").expect("short");
            assert!(!tail.ends_before(&second), "{later}");
            bench
                .memory
                .insert(&Archive::key(layout::IDENTITY).expect("a key"), "{}");
            let tail = archive.tail(&second).await.expect("asked").expect("short");
            assert!(!archive.is_own(&tail), "another identity");
            bench.memory.remove(&key);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_tail_is_not_asked_for_again_and_again() {
        let bench = Bench::new();
        bench.claim().await;
        bench.archive.read_identity().await.expect("read");
        for number in 0..=TAIL_MAX {
            bench.store_wal(&format!("0000000100000000{number:08X}"), Codec::Lz4, b"x");
        }
        let name = file_name("000000010000000000000000");
        let lists = || bench.faulty.calls(wale_storage::Verb::List);
        let before = lists();
        for _ in 0..3 {
            let copies = bench.archive.find_wal_copies_lately(&name).await;
            assert_eq!(copies.expect("asked").len(), 1);
        }
        assert_eq!(lists() - before, 4, "once, and each time by the prefix");
    }
}
