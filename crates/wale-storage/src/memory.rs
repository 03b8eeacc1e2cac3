//! A store in memory, for tests and simulations. It keeps the same promises as the others, except that
//! nothing in it outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use crate::store::check_prefix;
use crate::{
    Body, Looking, Object, ObjectKey, ObjectMeta, PIECE_BYTES, PutOutcome, Store, StoreError,
};

/// Keys taken from the map at a time while listing: 1,000 keys of at most 1 KiB are 1 MiB.
const LIST_BATCH: usize = 1000;

/// A store in memory. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    objects: BTreeMap<ObjectKey, StoredObject>,
    now: Option<DateTime<Utc>>,
    looking: Option<Looking>,
}

#[derive(Debug, Clone)]
struct StoredObject {
    content: Bytes,
    modified: DateTime<Utc>,
}

impl StoredObject {
    fn meta(&self, key: &ObjectKey) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size: self.content.len() as u64,
            modified: self.modified,
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the store's clock stand at `now` from here on, for simulations. Without this call it is the
    /// system's.
    pub fn set_now(&self, now: DateTime<Utc>) {
        self.lock().now = Some(now);
    }

    /// Lets it be asked as this kind of store is; without this call as those are whose listings begin anywhere.
    pub fn set_looking(&self, looking: Looking) {
        self.lock().looking = Some(looking);
    }

    /// Puts content in place without asking, for the preparation of tests, damaged objects included.
    pub fn insert(&self, key: &ObjectKey, content: impl Into<Bytes>) {
        self.lock().insert(key, content.into());
    }

    /// Takes an object away without asking.
    pub fn remove(&self, key: &ObjectKey) {
        self.lock().objects.remove(key);
    }

    /// The content of an object.
    #[must_use]
    pub fn content(&self, key: &ObjectKey) -> Option<Bytes> {
        self.lock()
            .objects
            .get(key)
            .map(|stored| stored.content.clone())
    }

    /// All keys, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().objects.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No code panics while it holds the lock; were it so, the map would still be whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_batch(&self, prefix: &str, after: Option<&ObjectKey>) -> Vec<ObjectMeta> {
        let shared = self.lock();
        let start = match after {
            None => Bound::Unbounded,
            Some(key) => Bound::Excluded(key.clone()),
        };
        shared
            .objects
            .range((start, Bound::Unbounded))
            .skip_while(|(key, _)| key.as_str() < prefix)
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .take(LIST_BATCH)
            .map(|(key, stored)| stored.meta(key))
            .collect()
    }
}

impl Shared {
    fn insert(&mut self, key: &ObjectKey, content: Bytes) -> ObjectMeta {
        let modified = self.now.unwrap_or_else(Utc::now);
        let stored = StoredObject { content, modified };
        let meta = stored.meta(key);
        self.objects.insert(key.clone(), stored);
        meta
    }
}

async fn collect(key: &ObjectKey, mut body: Body) -> Result<Bytes, StoreError> {
    let mut content = BytesMut::new();
    loop {
        match body.try_next().await {
            Ok(Some(piece)) => content.extend_from_slice(&piece),
            Ok(None) => return Ok(content.freeze()),
            Err(source) => {
                return Err(StoreError::BodyFailed {
                    key: key.clone(),
                    source,
                });
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        if self.lock().objects.contains_key(key) {
            return Ok(PutOutcome::Exists);
        }
        let content = collect(key, body).await?;
        let mut shared = self.lock();
        if shared.objects.contains_key(key) {
            return Ok(PutOutcome::Exists);
        }
        Ok(PutOutcome::Created(shared.insert(key, content)))
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        let content = collect(key, body).await?;
        Ok(self.lock().insert(key, content))
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        let stored = self.lock().objects.get(key).cloned();
        let stored = stored.ok_or_else(|| StoreError::NotFound { key: key.clone() })?;
        let meta = stored.meta(key);
        let mut rest = stored.content;
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Ok(Object {
            meta,
            body: stream::iter(pieces).boxed(),
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        Ok(self.lock().objects.get(key).map(|stored| stored.meta(key)))
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        check_prefix(prefix)?;
        let start = (self.clone(), prefix.to_owned(), None::<ObjectKey>);
        let batches = stream::unfold(start, |(store, prefix, after)| async move {
            let batch = store.list_batch(&prefix, after.as_ref());
            let last = batch.last()?.key.clone();
            let results = stream::iter(batch.into_iter().map(Ok));
            Some((results, (store, prefix, Some(last))))
        });
        Ok(batches.flatten().boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.lock().objects.remove(key);
        Ok(())
    }

    async fn discard_unfinished(
        &self,
        _older_than: std::time::Duration,
        _ours: crate::Ours,
    ) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn looking(&self) -> Looking {
        self.lock().looking.unwrap_or(Looking::FromAnyKey)
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::conformance(Arc::new(MemoryStore::new())).await;
    }

    #[tokio::test]
    async fn lists_more_than_a_batch() {
        let store = MemoryStore::new();
        for n in 0..=2 * LIST_BATCH {
            store.insert(&ObjectKey::new(&format!("k/{n:06}")).expect("valid"), "");
        }
        let listed: Vec<_> = store
            .list("k/")
            .await
            .expect("lists")
            .try_collect()
            .await
            .expect("all");
        assert_eq!(listed.len(), 2 * LIST_BATCH + 1);
    }

    #[tokio::test]
    async fn the_clock_can_be_set() {
        let store = MemoryStore::new();
        let key = ObjectKey::new("a").expect("valid");
        store.set_now(DateTime::UNIX_EPOCH);
        store.insert(&key, "x");
        let meta = store.head(&key).await.expect("asked").expect("there");
        assert_eq!(meta.modified, DateTime::UNIX_EPOCH);
    }
}
