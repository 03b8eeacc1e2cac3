//! A store whose objects are read no faster than a limit says, and that counts what was read.
//!
//! The limit is shared by all readers of the wrapper. It does not save up: an idle second buys nothing later.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use crate::{
    Body, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store,
    StoreError,
};

/// A store over another one.
#[derive(Debug)]
pub struct PacedStore {
    inner: Arc<dyn Store>,
    pace: Arc<Pace>,
}

#[derive(Debug)]
struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    read: AtomicU64,
    /// When the bytes that were read so far are all paid for.
    paid_until: Mutex<Instant>,
}

impl PacedStore {
    /// Reads `inner` at this rate at most; without one, as fast as it goes.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, bytes_per_second: Option<NonZeroU64>) -> Self {
        let pace = Pace {
            bytes_per_second,
            read: AtomicU64::new(0),
            paid_until: Mutex::new(Instant::now()),
        };
        Self {
            inner,
            pace: Arc::new(pace),
        }
    }

    /// Bytes of objects that were read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.pace.read.load(Ordering::Relaxed)
    }
}

impl Pace {
    /// An object whose bytes are paid for as they come.
    fn taking(self: &Arc<Self>, object: Object) -> Object {
        let pace = Arc::clone(self);
        let body = object.body.then(move |piece| {
            let pace = Arc::clone(&pace);
            async move {
                if let Ok(piece) = &piece {
                    pace.take(piece.len() as u64).await;
                }
                piece
            }
        });
        Object {
            meta: object.meta,
            body: body.boxed(),
        }
    }

    /// Takes `bytes` that came, and waits for as long as they cost.
    async fn take(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        let Some(limit) = self.bytes_per_second else {
            return;
        };
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(limit.get());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let until = {
            let paid_until = self.paid_until.lock();
            let mut paid_until = paid_until.unwrap_or_else(PoisonError::into_inner);
            *paid_until = (*paid_until).max(Instant::now()) + cost;
            *paid_until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[async_trait]
impl Store for PacedStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.inner.put_unseen(key, body).await
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        self.inner.put(key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        Ok(self.pace.taking(self.inner.get(key).await?))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        Ok(self.pace.taking(self.inner.get_range(key, range).await?))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.inner.head(key).await
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.inner.confirm(key).await
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        self.inner.list_after(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Vec<(ObjectKey, StoreError)> {
        self.inner.delete_many(keys).await
    }

    async fn discard_unfinished(
        &self,
        older_than: Duration,
        ours: Ours,
    ) -> Result<u64, StoreError> {
        self.inner.discard_unfinished(older_than, ours).await
    }

    fn looking(&self) -> Looking {
        self.inner.looking()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    async fn credential_ends(&self) -> Vec<CredentialEnd> {
        self.inner.credential_ends().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.inner.try_out().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, read_all};

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_counted_and_costs_its_share_of_a_second() {
        let memory = MemoryStore::new();
        let key = ObjectKey::new("a").expect("valid");
        memory.insert(&key, vec![7; 3000]);
        for (limit, seconds) in [(None, 0), (NonZeroU64::new(1000), 3)] {
            let store = PacedStore::new(Arc::new(memory.clone()), limit);
            let begun = Instant::now();
            assert_eq!(
                read_all(&store, &key, 4000).await.expect("read").len(),
                3000
            );
            assert_eq!(store.bytes_read(), 3000);
            assert_eq!(begun.elapsed().as_secs(), seconds);
            // Looking costs nothing.
            store.head(&key).await.expect("asked");
            assert_eq!(store.bytes_read(), 3000);
        }
    }
}
