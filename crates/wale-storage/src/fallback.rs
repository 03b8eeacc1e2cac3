//! Several stores that hold the same objects, read as one: what one of them cannot give, the next one gives.
//!
//! It is only read. An object comes from the first store that has it, and a body that breaks is read on from the next store
//! that has the object with the same length. A listing is that of all of them. Absence is certain or an error: an object is
//! absent where all of them say so, and a listing shows all that any of them has, or fails. So when one of them is away, what
//! is there can still be read by its name, and a caller that must list asks one store alone.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::{
    Body, Looking, Object, ObjectKey, ObjectMeta, ObjectStream, Ours, PutOutcome, Store, StoreError,
};

/// How long a store that did not answer is asked for objects after the others, 30 s.
const REST: Duration = Duration::from_secs(30);

/// Stores that are read as one.
#[derive(Debug, Clone)]
pub struct FallbackStore {
    stores: Arc<[FallbackPart]>,
}

#[derive(Debug)]
struct FallbackPart {
    store: Arc<dyn Store>,
    /// When it did not answer last.
    silent: Mutex<Option<Instant>>,
}

impl FallbackPart {
    fn rests(&self) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|since| since.elapsed() < REST)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        let got = self.store.get(key).await;
        self.note(&got);
        got
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        let got = self.store.get_range(key, range).await;
        self.note(&got);
        got
    }

    fn note(&self, got: &Result<Object, StoreError>) {
        let is_silent = got.as_ref().is_err_and(StoreError::is_transient);
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = is_silent.then(Instant::now);
    }
}

impl FallbackStore {
    /// The first store, and those that stand in for it, in this order.
    #[must_use]
    pub fn new(first: Arc<dyn Store>, others: Vec<Arc<dyn Store>>) -> Self {
        let stores = std::iter::once(first).chain(others);
        let parts = stores.map(|store| FallbackPart {
            store,
            silent: Mutex::default(),
        });
        Self {
            stores: parts.collect(),
        }
    }

    /// The stores in the order in which they are asked for an object.
    fn order(&self) -> Vec<usize> {
        let (last, mut order): (Vec<usize>, Vec<usize>) =
            (0..self.stores.len()).partition(|&index| self.stores[index].rests());
        order.extend(last);
        order
    }
}

type Entries = BoxStream<'static, Result<ObjectMeta, StoreError>>;

struct ListSide {
    entries: Entries,
    head: Option<ObjectMeta>,
}

/// The union of listings, in the order of their keys. The first of them counts for an object that several have.
async fn united(lists: Vec<Result<Entries, StoreError>>) -> Result<Entries, StoreError> {
    let mut sides = Vec::with_capacity(lists.len());
    for list in lists {
        let mut entries = list?;
        let head = entries.try_next().await?;
        sides.push(ListSide { entries, head });
    }
    let merged = stream::try_unfold(sides, |mut sides| async move {
        let heads = sides.iter().filter_map(|side| side.head.as_ref());
        let Some(least) = heads.map(|meta| meta.key.clone()).min() else {
            return Ok(None);
        };
        let mut found = None;
        for side in &mut sides {
            let is_it = side.head.as_ref().map(|meta| meta.key.cmp(&least));
            if is_it == Some(Ordering::Equal) {
                let next = side.entries.try_next().await?;
                let meta = std::mem::replace(&mut side.head, next);
                found = found.or(meta);
            }
        }
        Ok(found.map(|meta| (meta, sides)))
    });
    Ok(merged.boxed())
}

fn refused(key: &str) -> StoreError {
    StoreError::PermissionDenied {
        what: format!("{key}: several archives are read as one, and nothing is written"),
        source: None,
    }
}

/// A body on its way, and who may go on with it.
struct FallbackBody {
    parts: Arc<[FallbackPart]>,
    /// Stores that were not asked yet.
    left: std::vec::IntoIter<usize>,
    meta: ObjectMeta,
    body: ObjectStream,
    sent: u64,
}

impl FallbackBody {
    /// The next piece; an error only where no store can go on.
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let mut failed = match self.body.next().await? {
            Ok(piece) => {
                self.sent += piece.len() as u64;
                return Some(Ok(piece));
            }
            Err(error) => error,
        };
        loop {
            let Some(index) = self.left.next() else {
                return Some(Err(failed));
            };
            match self.read_on(index).await {
                Ok(Some(piece)) => return Some(Ok(piece)),
                // Nothing was left of it.
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!(key = %self.meta.key, %error, "the object cannot be read on");
                    if !error.is_not_found() {
                        failed = error;
                    }
                }
            }
        }
    }

    /// The next piece from another store: the same object there, behind what was sent.
    async fn read_on(&mut self, index: usize) -> Result<Option<Bytes>, StoreError> {
        let part = &self.parts[index];
        let mut object = part.get(&self.meta.key).await?;
        if object.meta.size != self.meta.size {
            return Err(StoreError::Damaged {
                key: self.meta.key.clone(),
                reason: format!(
                    "it has {} bytes at {} and {} elsewhere",
                    object.meta.size,
                    part.store.location(),
                    self.meta.size
                ),
            });
        }
        let mut skip = self.sent;
        while let Some(mut piece) = object.body.try_next().await? {
            let length = piece.len() as u64;
            if length <= skip {
                skip -= length;
                continue;
            }
            let rest = piece.split_off(usize::try_from(skip).unwrap_or(piece.len()));
            self.sent += rest.len() as u64;
            self.body = object.body;
            return Ok(Some(rest));
        }
        if self.sent < self.meta.size {
            return Err(StoreError::Damaged {
                key: self.meta.key.clone(),
                reason: format!("it ends too early at {}", part.store.location()),
            });
        }
        Ok(None)
    }
}

#[async_trait]
impl Store for FallbackStore {
    async fn put_if_absent(&self, key: &ObjectKey, _body: Body) -> Result<PutOutcome, StoreError> {
        Err(refused(key.as_str()))
    }

    async fn put(&self, key: &ObjectKey, _body: Body) -> Result<ObjectMeta, StoreError> {
        Err(refused(key.as_str()))
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        let mut failed = None;
        let mut left = self.order().into_iter();
        while let Some(index) = left.next() {
            match self.stores[index].get(key).await {
                Ok(object) => {
                    let reading = FallbackBody {
                        parts: Arc::clone(&self.stores),
                        left,
                        meta: object.meta.clone(),
                        body: object.body,
                        sent: 0,
                    };
                    let body = stream::unfold(Some(reading), |reading| async move {
                        let mut reading = reading?;
                        let next = reading.next().await?;
                        let rest = next.is_ok().then_some(reading);
                        Some((next, rest))
                    });
                    return Ok(Object {
                        meta: object.meta,
                        body: body.fuse().boxed(),
                    });
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::NotFound { key: key.clone() }))
    }

    /// From the first store that opens it. A body that breaks is not gone on with: who reads a part can read the whole.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Object, StoreError> {
        let mut failed = None;
        for index in self.order() {
            match self.stores[index].get_range(key, range.clone()).await {
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
                opened => return opened,
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::NotFound { key: key.clone() }))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let mut failed = None;
        for part in self.stores.iter() {
            match part.store.head(key).await {
                Ok(Some(meta)) => return Ok(Some(meta)),
                Ok(None) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Nothing is acknowledged on the strength of it, because nothing is written.
    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Entries, StoreError> {
        let mut lists = Vec::with_capacity(self.stores.len());
        for part in self.stores.iter() {
            lists.push(part.store.list(prefix).await);
        }
        united(lists).await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Entries, StoreError> {
        let mut lists = Vec::with_capacity(self.stores.len());
        for part in self.stores.iter() {
            lists.push(part.store.list_after(prefix, after).await);
        }
        united(lists).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        Err(refused(key.as_str()))
    }

    async fn discard_unfinished(
        &self,
        _older_than: Duration,
        _ours: Ours,
    ) -> Result<u64, StoreError> {
        Err(refused("unfinished writes"))
    }

    /// As the least of them can be asked.
    fn looking(&self) -> Looking {
        let all = || self.stores.iter().map(|part| part.store.looking());
        if all().any(|looking| looking == Looking::ByName) {
            Looking::ByName
        } else if all().any(|looking| looking == Looking::ByPrefix) {
            Looking::ByPrefix
        } else {
            Looking::FromAnyKey
        }
    }

    fn copies(&self) -> Vec<Arc<dyn Store>> {
        let stores = self.stores.iter().map(|part| Arc::clone(&part.store));
        stores.collect()
    }

    /// That of the first: the others hold what it holds.
    fn location(&self) -> String {
        self.stores[0].store.location()
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut failed = None;
        for part in self.stores.iter() {
            match part.store.check().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Fault, FaultPlan, FaultyStore, MemoryStore, Occurrence, Verb, body_from, conformance,
        read_all,
    };

    /// Reads all, and writes to one of them, for the suite.
    #[derive(Debug)]
    struct WritingOne {
        all: FallbackStore,
        one: Arc<dyn Store>,
    }

    #[async_trait]
    impl Store for WritingOne {
        async fn put_if_absent(
            &self,
            key: &ObjectKey,
            body: Body,
        ) -> Result<PutOutcome, StoreError> {
            self.one.put_if_absent(key, body).await
        }
        async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
            self.one.put(key, body).await
        }
        async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
            self.all.get(key).await
        }
        async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
            self.all.head(key).await
        }
        async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
            self.all.confirm(key).await
        }
        async fn list(&self, prefix: &str) -> Result<Entries, StoreError> {
            self.all.list(prefix).await
        }
        async fn list_after(&self, prefix: &str, after: &str) -> Result<Entries, StoreError> {
            self.all.list_after(prefix, after).await
        }
        async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
            self.one.delete(key).await
        }
        async fn discard_unfinished(&self, age: Duration, ours: Ours) -> Result<u64, StoreError> {
            self.one.discard_unfinished(age, ours).await
        }
        fn looking(&self) -> Looking {
            self.all.looking()
        }
        fn location(&self) -> String {
            self.all.location()
        }
        async fn check(&self) -> Result<(), StoreError> {
            self.all.check().await
        }
    }

    #[tokio::test]
    async fn whichever_has_the_objects_it_reads_as_a_store() {
        for writes_to in [0, 1] {
            let memory = [MemoryStore::new(), MemoryStore::new()];
            let stores = memory.map(|store| Arc::new(store) as Arc<dyn Store>);
            let all = FallbackStore::new(Arc::clone(&stores[0]), vec![Arc::clone(&stores[1])]);
            let one = Arc::clone(&stores[writes_to]);
            conformance(Arc::new(WritingOne { all, one })).await;
        }
    }

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("a key")
    }

    struct Two {
        memory: [MemoryStore; 2],
        faulty: [Arc<FaultyStore>; 2],
        all: FallbackStore,
    }

    impl Two {
        fn new() -> Self {
            let memory = [MemoryStore::new(), MemoryStore::new()];
            let faulty = memory
                .clone()
                .map(|store| Arc::new(FaultyStore::new(Arc::new(store), FaultPlan::new())));
            let [first, second] = faulty.clone().map(|store| store as Arc<dyn Store>);
            Self {
                memory,
                faulty,
                all: FallbackStore::new(first, vec![second]),
            }
        }

        fn down(&self, down: [bool; 2]) {
            for (faulty, down) in self.faulty.iter().zip(down) {
                faulty.switch().set_down(down);
            }
        }
    }

    #[tokio::test]
    async fn each_store_can_be_read_alone() {
        let two = Two::new();
        two.memory[1].insert(&key("a"), "x");
        let all: Arc<dyn Store> = Arc::new(two.all);
        let copies = Arc::new(all).copies();
        let there =
            |store: Arc<dyn Store>| async move { store.head(&key("a")).await.expect("asked") };
        assert_eq!(copies.len(), 2);
        assert!(there(Arc::clone(&copies[0])).await.is_none());
        assert!(there(Arc::clone(&copies[1])).await.is_some());
        assert!(copies[0].copies().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_written() {
        let two = Two::new();
        let body = || body_from(Bytes::from_static(b"x"));
        for refused in [
            two.all.put(&key("a"), body()).await.map(drop),
            two.all.put_if_absent(&key("a"), body()).await.map(drop),
            two.all.put_unseen(&key("a"), body()).await.map(drop),
            two.all.delete(&key("a")).await,
            two.all
                .discard_unfinished(Duration::ZERO, |_| true)
                .await
                .map(drop),
        ] {
            assert!(matches!(refused, Err(StoreError::PermissionDenied { .. })));
        }
        assert!(two.memory.iter().all(|store| store.keys().is_empty()));
    }

    #[tokio::test]
    async fn a_body_that_breaks_is_read_on_from_the_next() {
        let two = Two::new();
        let content: Bytes = (0..3_u32 << 20).map(|n| (n / 7 % 251) as u8).collect();
        for store in &two.memory {
            store.insert(&key("a"), content.clone());
        }
        for after in [0, 1, 1 << 20, (1 << 20) + 5, (3 << 20) - 1] {
            let cut = Fault::CutBody(after);
            let plan = FaultPlan::new().fail(Verb::Get, Occurrence::Always, cut);
            two.faulty[0].set_plan(plan);
            let read = read_all(&two.all, &key("a"), 4 << 20)
                .await
                .expect("the second goes on");
            assert!(read == content, "cut after {after}");
        }
        // Another object under the name does not go on with it.
        two.memory[1].insert(&key("a"), content.slice(1..));
        let cut = FaultPlan::new().fail(Verb::Get, Occurrence::Always, Fault::CutBody(9));
        two.faulty[0].set_plan(cut);
        read_all(&two.all, &key("a"), 4 << 20)
            .await
            .expect_err("no mixture");
    }

    /// Whatever is there and whoever is away: what is said to be absent is absent in all, and what is listed is all.
    #[tokio::test]
    async fn an_error_is_never_absence() {
        const NAMES: u8 = 3;
        // Each of three names in each of both stores or not, and each store away or not: every case there is.
        for case in 0..1_u32 << (2 * NAMES + 2) {
            let bit = |number: u8| case >> number & 1 == 1;
            let holds = |side: u8, name: u8| bit(side * NAMES + name);
            let down = [bit(2 * NAMES), bit(2 * NAMES + 1)];
            let two = Two::new();
            let names = (0..NAMES).map(|name| key(&format!("o/{name}")));
            let names: Vec<ObjectKey> = names.collect();
            for (side, store) in (0..).zip(&two.memory) {
                for (name, key) in (0..).zip(&names) {
                    if holds(side, name) {
                        store.insert(key, vec![name]);
                    }
                }
            }
            two.down(down);
            let is_anybody_away = down.contains(&true);
            let mut union = Vec::new();
            for (name, key) in (0..).zip(&names) {
                let (head, get) = (two.all.head(key).await, two.all.get(key).await);
                if [0, 1].iter().any(|&side| holds(side, name)) {
                    union.push(key.to_string());
                }
                if [0, 1]
                    .iter()
                    .any(|&side| holds(side, name) && !down[usize::from(side)])
                {
                    assert!(matches!(head, Ok(Some(_))) && get.is_ok(), "{case:b}");
                } else if is_anybody_away {
                    assert!(head.is_err(), "{case:b}");
                    assert!(get.is_err_and(|error| !error.is_not_found()), "{case:b}");
                } else {
                    assert!(matches!(head, Ok(None)), "{case:b}");
                    assert!(get.is_err_and(|error| error.is_not_found()), "{case:b}");
                }
            }
            let listed = match two.all.list("o/").await {
                Ok(entries) => entries.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            let listed = listed.map(|all| {
                let keys = all.into_iter().map(|meta| meta.key.to_string());
                keys.collect::<Vec<_>>()
            });
            assert_eq!(listed.ok(), (!is_anybody_away).then_some(union), "{case:b}");
        }
    }
}
