//! What is named like a file that is polled for, where a listing begins where its prefix does.
//!
//! ```text
//! wal_005/00000001000000000000001   one listing: the sixteen segments around the polled one
//! wal_005/00000002                  one listing: a polled history's timeline
//! wale.json                         by its name: the archive is still the one whose identity was read
//! wal_005/00000003.history.<codec>  by its name: nobody has gone on to the next timeline
//! ```
//!
//! Such a listing is not the [`crate::Tail`] of the whole archive: later segments than those of the next name, and timelines after the
//! next one, are not in it. Who answers a poll with it makes the whole proof again before long.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;
use wale_format::layout;
use wale_pg::{ArchiveFileName, WalSegmentName, WalSegmentSize};
use wale_storage::{Looking, ObjectMeta};

use crate::error::{OpError, Result};
use crate::look::{Around, LOOK_HOLDS};
use crate::tail::{TAIL_MAX, first_key};
use crate::{Archive, Tail};

impl Archive {
    /// Whether a look at a WAL file is best a listing of what is named like it.
    #[must_use]
    pub fn looks_by_prefix(&self) -> bool {
        self.store().looking() == Looking::ByPrefix
    }

    /// Lists what is named like a file that is polled for: a segment with the fifteen beside it, and with those of the segment
    /// `before` it and of the next one where these begin otherwise; a history with all of its timeline. `None` where that is much,
    /// and for other files.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn look_around(
        &self,
        name: &ArchiveFileName,
        before: Option<WalSegmentName>,
    ) -> Result<Option<Arc<Tail>>> {
        let Some(prefixes) = self.prefixes_around(name, before) else {
            return Ok(None);
        };
        let begun = Instant::now();
        let listed = try_join_all(prefixes.iter().map(|prefix| self.some_below(prefix))).await?;
        let mut wal = Vec::new();
        for metas in listed {
            if metas.len() > TAIL_MAX {
                return Ok(None);
            }
            let claimed = metas
                .into_iter()
                .filter_map(|meta| Some((layout::wal_claim(meta.key.as_str())?, meta)));
            wal.extend(claimed);
        }
        let tail = Arc::new(Tail {
            after: prefixes.first().cloned().unwrap_or_default(),
            begun,
            wal,
            identity: None,
        });
        self.tails().around = Some(Around {
            prefixes,
            tail: Arc::clone(&tail),
        });
        Ok(Some(tail))
    }

    /// The same as it was less than [`LOOK_HOLDS`] ago. `None` where nobody has listed it.
    #[must_use]
    pub fn recently_around(
        &self,
        name: &ArchiveFileName,
        before: Option<WalSegmentName>,
    ) -> Option<Arc<Tail>> {
        let prefixes = self.prefixes_around(name, before)?;
        let tails = self.tails();
        let around = tails.around.as_ref()?;
        let is_it = around.prefixes == prefixes && around.tail.begun.elapsed() < LOOK_HOLDS;
        is_it.then(|| Arc::clone(&around.tail))
    }

    /// Whether the archive's identity is, as far as its length and time show, the one that was read last, and the history of the
    /// timeline after this file's is not there. Its name is asked for under each codec that is recorded: who writes another one
    /// records it before, and the identity is another one then.
    ///
    /// # Errors
    /// The store's failures.
    pub async fn is_as_before(&self, name: &ArchiveFileName) -> Result<bool> {
        let Some(seen) = self.seen_identity() else {
            return Ok(false);
        };
        let mut codecs: BTreeSet<_> = seen.identity.codecs;
        codecs.insert(self.codec());
        let next = name.timeline().next().map(ArchiveFileName::TimelineHistory);
        let next = &next;
        let asked = codecs.into_iter().filter_map(|codec| {
            let asked = next.as_ref();
            asked.map(|history| self.head_wal(history, codec))
        });
        let (is_same, later) =
            try_join(self.is_identity_marked(seen.mark), try_join_all(asked)).await?;
        Ok(is_same && later.iter().all(Option::is_none))
    }

    /// The names with which what is around a file begins.
    fn prefixes_around(
        &self,
        name: &ArchiveFileName,
        before: Option<WalSegmentName>,
    ) -> Option<Vec<String>> {
        let size: WalSegmentSize = self.seen_identity()?.identity.cluster.wal_segment_size;
        let mut prefixes = match name {
            ArchiveFileName::Segment(segment) => {
                let names = [before, Some(*segment), segment.next(size).ok()];
                let names = names.into_iter().flatten();
                names.map(|name| first_key(&name.into())).collect()
            }
            ArchiveFileName::TimelineHistory(_) => vec![first_key(name)],
            ArchiveFileName::Partial(_) | ArchiveFileName::BackupHistory { .. } => return None,
        };
        prefixes.dedup();
        Some(prefixes)
    }

    /// The first objects with this prefix, one more than a look may have.
    async fn some_below(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let failed = |e| OpError::from_store(e, format_args!("list {prefix}"));
        let listing = self.store().list(prefix).await.map_err(failed)?;
        listing
            .take(TAIL_MAX + 1)
            .try_collect()
            .await
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use wale_format::Codec;
    use wale_storage::Verb;

    use super::*;
    use crate::testing::{Bench, file_name, segment_name};

    const LAST: &str = "00000001000000000000001F";
    const NEXT: &str = "000000010000000000000020";

    async fn bench() -> Bench {
        let bench = Bench::new();
        bench.memory.set_looking(Looking::ByPrefix);
        bench.claim().await;
        bench.archive.read_identity().await.expect("read");
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn the_neighbours_of_a_segment_are_one_listing_and_two_where_their_names_begin_otherwise()
    {
        let bench = bench().await;
        let archive = &bench.archive;
        bench.store_wal(LAST, Codec::Lz4, b"x");
        bench.store_wal(NEXT, Codec::Lz4, b"x");
        let lists = || bench.faulty.calls(Verb::List);
        for (name, before, listed, later) in [
            ("00000001000000000000001D", None, 1, false),
            // The next one is named otherwise, and so is the one before.
            (LAST, None, 2, true),
            (NEXT, Some(LAST), 2, true),
            (NEXT, None, 1, true),
            ("00000002.history", None, 1, false),
        ] {
            let (file, before) = (file_name(name), before.map(segment_name));
            let count = lists();
            let tail = archive.look_around(&file, before).await.expect("asked");
            let tail = tail.expect("a few");
            assert_eq!(lists() - count, listed, "{name}");
            assert_eq!(tail.shows(&file_name(NEXT)), later, "{name}");
            assert!(archive.recently_around(&file, before).is_some());
            tokio::time::advance(LOOK_HOLDS).await;
            assert!(archive.recently_around(&file, before).is_none());
        }
        // What is around one file is not what is around another.
        archive
            .look_around(&file_name(LAST), None)
            .await
            .expect("asked");
        assert!(archive.recently_around(&file_name(NEXT), None).is_none());
        let partial = file_name("00000001000000000000001F.partial");
        assert!(
            archive
                .look_around(&partial, None)
                .await
                .expect("asked")
                .is_none()
        );
        for number in 0..=TAIL_MAX {
            bench.store_wal(&format!("0000000200000000{number:08X}"), Codec::Lz4, b"x");
        }
        let history = file_name("00000002.history");
        assert!(
            archive
                .look_around(&history, None)
                .await
                .expect("asked")
                .is_none()
        );
    }

    #[tokio::test]
    async fn another_identity_and_the_next_timeline_are_seen() {
        let bench = bench().await;
        let archive = &bench.archive;
        let name = file_name(NEXT);
        assert!(archive.is_as_before(&name).await.expect("asked"));
        for codec in [Codec::Zstd, Codec::Lz4] {
            archive.note_codec(codec).await.expect("noted");
            archive.read_identity().await.expect("read");
            let history = bench.store_wal("00000002.history", codec, b"x");
            assert!(
                !archive.is_as_before(&name).await.expect("asked"),
                "{codec:?}"
            );
            bench.memory.remove(&history);
            assert!(archive.is_as_before(&name).await.expect("asked"));
        }
        let identity = Archive::key(layout::IDENTITY).expect("a key");
        bench.memory.insert(&identity, "{}");
        assert!(!archive.is_as_before(&name).await.expect("asked"));
        bench.memory.remove(&identity);
        assert!(!archive.is_as_before(&name).await.expect("asked"));
    }
}
