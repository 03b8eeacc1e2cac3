//! Both listings side by side, in the order of their keys, so that what is there costs no request.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use wale_archive::Archive;
use wale_storage::{ObjectMeta, StoreError};

use crate::error::{OpError, Result};

/// Objects of one group at most: a segment has a handful of neighbours. 1,000 × 1 KiB of key.
const GROUP_MAX: usize = 1000;

/// Walks along the listings of two archives.
pub(super) struct Pairs {
    source: Side,
    copy: Side,
}

/// Neighbours: the objects whose names are the same up to the first dot.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Those of the source.
    pub(super) source: Vec<ObjectMeta>,
    /// Those of the destination.
    pub(super) copy: Vec<ObjectMeta>,
}

impl Group {
    /// The size of the destination's object of that key, if there is one.
    pub(super) fn there(&self, object: &ObjectMeta) -> Option<u64> {
        let same = |other: &&ObjectMeta| other.key == object.key;
        self.copy.iter().find(same).map(|other| other.size)
    }
}

struct Side {
    what: String,
    listing: BoxStream<'static, Result<ObjectMeta, StoreError>>,
    head: Option<ObjectMeta>,
}

impl Pairs {
    /// Begins with the keys under `prefix`.
    ///
    /// # Errors
    /// The stores' failures.
    pub(super) async fn open(source: &Archive, copy: &Archive, prefix: &str) -> Result<Self> {
        Ok(Self {
            source: Side::open(source, prefix).await?,
            copy: Side::open(copy, prefix).await?,
        })
    }

    /// The next neighbours; `None` at the end of both listings.
    ///
    /// # Errors
    /// The stores' failures.
    pub(super) async fn next(&mut self) -> Result<Option<Group>> {
        let heads = [&self.source.head, &self.copy.head];
        let first = heads.into_iter().flatten().map(|meta| &meta.key).min();
        let Some(stem) = first.map(|key| stem(key.as_str()).to_owned()) else {
            return Ok(None);
        };
        let mut group = Group::default();
        self.source.take(&stem, &mut group.source).await?;
        self.copy.take(&stem, &mut group.copy).await?;
        Ok(Some(group))
    }
}

impl Side {
    async fn open(archive: &Archive, prefix: &str) -> Result<Self> {
        let what = format!("list {prefix} of {}", archive.location());
        let listing = archive.store().list(prefix).await;
        let mut side = Self {
            listing: listing.map_err(|error| OpError::from_store(error, &what))?,
            what,
            head: None,
        };
        side.advance().await?;
        Ok(side)
    }

    async fn advance(&mut self) -> Result<Option<ObjectMeta>> {
        let next = self.listing.try_next().await;
        let next = next.map_err(|error| OpError::from_store(error, &self.what))?;
        Ok(std::mem::replace(&mut self.head, next))
    }

    async fn take(&mut self, wanted: &str, taken: &mut Vec<ObjectMeta>) -> Result<()> {
        let is_one = |meta: &ObjectMeta| stem(meta.key.as_str()) == wanted;
        while self.head.as_ref().is_some_and(is_one) && taken.len() < GROUP_MAX {
            taken.extend(self.advance().await?);
        }
        Ok(())
    }
}

/// A key up to the first dot of its last component.
fn stem(key: &str) -> &str {
    let name = key.rfind('/').map_or(0, |slash| slash + 1);
    let end = key[name..].find('.').map_or(key.len(), |dot| name + dot);
    &key[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wale_format::Codec;
    use wale_storage::{MemoryStore, ObjectKey};

    use super::*;
    use crate::testing::archive;

    #[tokio::test]
    async fn neighbours_come_together_in_order_whichever_side_has_them() {
        let (one, other) = (MemoryStore::new(), MemoryStore::new());
        for (store, keys) in [
            (&one, &["p/a.zst", "p/b", "p/b.x", "p/d.zst", "q/z"][..]),
            (&other, &["p/a.lz4", "p/a.zst", "p/c.zst", "p/d.zst", "p/e"]),
        ] {
            for key in keys {
                store.insert(&ObjectKey::new(key).unwrap(), (*key).to_owned());
            }
        }
        let of = |store: &MemoryStore| archive(Arc::new(store.clone()), Codec::Zstd, 1 << 20);
        let mut pairs = Pairs::open(&of(&one), &of(&other), "p/").await.unwrap();
        let mut seen = Vec::new();
        while let Some(group) = pairs.next().await.unwrap() {
            let keys = |metas: &[ObjectMeta]| {
                let keys = metas.iter().map(|meta| meta.key.as_str()[2..].to_owned());
                keys.collect::<Vec<_>>().join(" ")
            };
            seen.push(format!("{}|{}", keys(&group.source), keys(&group.copy)));
        }
        assert_eq!(
            seen,
            ["a.zst|a.lz4 a.zst", "b b.x|", "|c.zst", "d.zst|d.zst", "|e"]
        );
    }
}
