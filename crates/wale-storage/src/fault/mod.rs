//! A store that fails as it is told.
//!
//! Faults are a wrapper around [`Store`], not conditions inside the stores: what is tested is the code that
//! ships. Tests give a script ([`FaultPlan`]), or use the switch ([`FaultSwitch`]); the real program may be
//! given a file that steers it from outside (`control.rs`), by an option that is off unless set.
//!
//! A script is deterministic: every rule counts the calls that it applies to, so "the second get of this
//! prefix" is the same call in every run.

mod body;
mod control;
mod plan;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use self::body::{corrupted, limited, paced};
use self::control::FaultControlFile;
pub use self::plan::{Fault, FaultPlan, Occurrence, Verb};
use crate::{
    Body, BodyError, CredentialEnd, Looking, Object, ObjectKey, ObjectMeta, PutOutcome, Store,
    StoreError,
};

/// Takes a store down and up again, from anywhere. Clones work on the same store.
#[derive(Debug, Clone)]
pub struct FaultSwitch {
    down: Arc<AtomicBool>,
}

impl FaultSwitch {
    /// While down, every call fails with [`StoreError::Unavailable`]. Calls under way go on.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

/// A store that fails as it is told, and otherwise does what the store inside does.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Mutex<Script>,
    down: Arc<AtomicBool>,
    control: Option<FaultControlFile>,
}

#[derive(Debug)]
struct Script {
    plan: FaultPlan,
    /// Calls made so far, by the position of their verb.
    calls: [u64; Verb::COUNT],
}

/// What the body of a put says when the connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
struct ConnectionCut;

impl FaultyStore {
    /// Wraps a store with a script.
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        let script = Script {
            plan,
            calls: [0; Verb::COUNT],
        };
        Self {
            inner,
            script: Mutex::new(script),
            down: Arc::new(AtomicBool::new(false)),
            control: None,
        }
    }

    /// Wraps a store with faults that are read from a file before every call; see `fault/control.rs` for
    /// what may stand in it. The file need not exist.
    pub fn with_control_file(inner: Arc<dyn Store>, path: PathBuf) -> Self {
        Self {
            control: Some(FaultControlFile::new(path)),
            ..Self::new(inner, FaultPlan::new())
        }
    }

    /// Replaces the script. Its rules count from the next call.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.script().plan = plan;
    }

    /// A handle to take the store down.
    #[must_use]
    pub fn switch(&self) -> FaultSwitch {
        FaultSwitch {
            down: Arc::clone(&self.down),
        }
    }

    /// How many calls of a verb were made so far, failed ones included.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> u64 {
        let script = self.script();
        match verb {
            Verb::Any => script.calls.iter().sum(),
            verb => script.calls[verb as usize],
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::unavailable(self.inner.location(), reason)
    }

    /// Counts the call, lets happen what comes before the work, and answers what comes after.
    async fn begin(&self, verb: Verb, key: &str) -> Result<Faults, StoreError> {
        let mut faults = {
            let mut script = self.script();
            script.calls[verb as usize] += 1;
            script.plan.faults(verb, key)
        };
        if self.down.load(Ordering::SeqCst) {
            return Err(self.unavailable("it is switched off"));
        }
        if let Some(control) = &self.control {
            faults.extend(control.faults(verb, key).await?);
        }
        for fault in &faults {
            match fault {
                Fault::Unavailable => return Err(self.unavailable("a fault was asked for")),
                Fault::PermissionDenied => {
                    return Err(StoreError::PermissionDenied {
                        what: format!("object {key}"),
                        source: None,
                    });
                }
                Fault::Delay(delay) => tokio::time::sleep(*delay).await,
                Fault::Hang => std::future::pending().await,
                _ => {}
            }
        }
        Ok(Faults {
            key: key.to_owned(),
            location: self.inner.location(),
            asked: faults,
        })
    }
}

/// The faults of one call.
struct Faults {
    key: String,
    location: String,
    asked: Vec<Fault>,
}

impl Faults {
    fn has(&self, fault: &Fault) -> bool {
        self.asked.contains(fault)
    }

    fn refuse_when_full(&self) -> Result<(), StoreError> {
        if !self.has(&Fault::Full) {
            return Ok(());
        }
        Err(StoreError::Full {
            what: format!("object {}", self.key),
            source: None,
        })
    }

    /// What a put is given instead of its body.
    async fn incoming(&self, key: &ObjectKey, mut body: Body) -> Result<Body, StoreError> {
        if self.has(&Fault::Full) {
            while let Some(chunk) = body.next().await {
                chunk.map_err(|source| StoreError::BodyFailed {
                    key: key.clone(),
                    source,
                })?;
            }
            self.refuse_when_full()?;
        }
        for fault in &self.asked {
            body = match fault {
                Fault::CutBody(after) => limited(body, *after, Some(BodyError::new(ConnectionCut))),
                Fault::Truncate(bytes) => limited(body, *bytes, None),
                Fault::Rate(rate) => paced(body, *rate),
                Fault::CorruptByte(position) => corrupted(body, *position),
                _ => body,
            };
        }
        Ok(body)
    }

    /// What a get answers instead of the object.
    fn outgoing(&self, mut object: Object) -> Object {
        for fault in &self.asked {
            object.body = match fault {
                Fault::CutBody(after) => limited(object.body, *after, Some(self.cut())),
                Fault::Truncate(bytes) => limited(object.body, *bytes, None),
                Fault::CorruptByte(position) => corrupted(object.body, *position),
                _ => object.body,
            };
        }
        object.meta = self.meta(object.meta);
        object
    }

    fn meta(&self, mut meta: ObjectMeta) -> ObjectMeta {
        for fault in &self.asked {
            if let Fault::Truncate(bytes) = fault {
                meta.size = meta.size.min(*bytes);
            }
        }
        meta
    }

    /// What a list answers instead of its entries.
    fn entries(
        &self,
        mut entries: BoxStream<'static, Result<ObjectMeta, StoreError>>,
    ) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        for fault in &self.asked {
            entries = match fault {
                Fault::OmitFromList(prefix) => {
                    let prefix = prefix.clone();
                    let listed = move |meta: &ObjectMeta| {
                        std::future::ready(!meta.key.as_str().starts_with(&prefix))
                    };
                    entries.try_filter(listed).boxed()
                }
                Fault::CutBody(after) => {
                    let cut = stream::once(std::future::ready(Err(self.cut())));
                    let after = usize::try_from(*after).unwrap_or(usize::MAX);
                    entries.take(after).chain(cut).boxed()
                }
                _ => entries,
            };
        }
        entries
    }

    fn cut(&self) -> StoreError {
        StoreError::unavailable(self.location.clone(), "the connection was cut")
    }

    /// The answer on its way back.
    fn reply<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(StoreError::BodyFailed { source, .. })
                if source.get_ref().is::<ConnectionCut>() =>
            {
                Err(self.cut())
            }
            Ok(_) if self.has(&Fault::LostReply) => Err(StoreError::unavailable(
                self.location.clone(),
                "the reply was lost",
            )),
            result => result,
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let faults = self.begin(Verb::PutIfAbsent, key.as_str()).await?;
        let body = faults.incoming(key, body).await?;
        if faults.has(&Fault::IgnoreCondition) {
            let result = self.inner.put(key, body).await;
            return faults.reply(result.map(PutOutcome::Created));
        }
        faults.reply(self.inner.put_if_absent(key, body).await)
    }

    /// Counts as [`Store::put_if_absent`], and fails as it does.
    async fn put_unseen(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let faults = self.begin(Verb::PutIfAbsent, key.as_str()).await?;
        let body = faults.incoming(key, body).await?;
        if faults.has(&Fault::IgnoreCondition) {
            let result = self.inner.put(key, body).await;
            return faults.reply(result.map(PutOutcome::Created));
        }
        faults.reply(self.inner.put_unseen(key, body).await)
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        let faults = self.begin(Verb::Put, key.as_str()).await?;
        let body = faults.incoming(key, body).await?;
        faults.reply(self.inner.put(key, body).await)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        let faults = self.begin(Verb::Get, key.as_str()).await?;
        faults.refuse_when_full()?;
        let object = faults.reply(self.inner.get(key).await)?;
        Ok(faults.outgoing(object))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let faults = self.begin(Verb::Head, key.as_str()).await?;
        faults.refuse_when_full()?;
        let meta = faults.reply(self.inner.head(key).await)?;
        Ok(meta.map(|meta| faults.meta(meta)))
    }

    async fn confirm(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let faults = self.begin(Verb::Confirm, key.as_str()).await?;
        faults.refuse_when_full()?;
        let meta = faults.reply(self.inner.confirm(key).await)?;
        Ok(meta.map(|meta| faults.meta(meta)))
    }

    async fn list(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        let faults = self.begin(Verb::List, prefix).await?;
        faults.refuse_when_full()?;
        let entries = faults.reply(self.inner.list(prefix).await)?;
        Ok(faults.entries(entries))
    }

    async fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        let faults = self.begin(Verb::List, prefix).await?;
        faults.refuse_when_full()?;
        let entries = faults.reply(self.inner.list_after(prefix, after).await)?;
        Ok(faults.entries(entries))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let faults = self.begin(Verb::Delete, key.as_str()).await?;
        faults.refuse_when_full()?;
        faults.reply(self.inner.delete(key).await)
    }

    async fn discard_unfinished(
        &self,
        older_than: std::time::Duration,
        ours: crate::Ours,
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
        let faults = self.begin(Verb::Check, "").await?;
        faults.refuse_when_full()?;
        faults.reply(self.inner.check().await)
    }

    async fn try_out(&self) -> Result<(), StoreError> {
        self.inner.try_out().await
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{MemoryStore, body_from, read_all};

    fn key(text: &str) -> ObjectKey {
        ObjectKey::new(text).expect("valid")
    }

    /// A store that holds `k/a` and `k/b`, behind a plan.
    fn store(plan: FaultPlan) -> (MemoryStore, FaultyStore) {
        let memory = MemoryStore::new();
        memory.insert(&key("k/a"), "0123456789");
        memory.insert(&key("k/b"), "b");
        (memory.clone(), FaultyStore::new(Arc::new(memory), plan))
    }

    fn always(verb: Verb, fault: Fault) -> FaultPlan {
        FaultPlan::new().fail(verb, Occurrence::Always, fault)
    }

    fn body(text: &'static str) -> Body {
        body_from(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn conforms_without_faults() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), FaultPlan::new());
        crate::conformance(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn occurrences() {
        let cases = [
            (Occurrence::Always, [true; 5]),
            (Occurrence::Nth(2), [false, true, false, false, false]),
            (Occurrence::From(4), [false, false, false, true, true]),
            (Occurrence::Between(2, 3), [false, true, true, false, false]),
        ];
        for (occurrence, failing) in cases {
            let plan =
                FaultPlan::new().fail_keys("k/a", Verb::Head, occurrence, Fault::Unavailable);
            let (_, store) = store(plan);
            for fails in failing {
                store.head(&key("k/b")).await.expect("another key");
                store.get(&key("k/a")).await.expect("another verb");
                assert_eq!(
                    store.head(&key("k/a")).await.is_err(),
                    fails,
                    "{occurrence:?}"
                );
            }
            assert_eq!((store.calls(Verb::Head), store.calls(Verb::Any)), (10, 15));
        }
    }

    #[tokio::test]
    async fn every_verb_can_be_refused() {
        for fault in [Fault::Unavailable, Fault::Full, Fault::PermissionDenied] {
            let (memory, store) = store(always(Verb::Any, fault.clone()));
            let new = key("new");
            let errors = [
                store.put_if_absent(&new, body("x")).await.err(),
                store.put(&new, body("x")).await.err(),
                store.get(&key("k/a")).await.err(),
                store.head(&key("k/a")).await.err(),
                store.confirm(&key("k/a")).await.err(),
                store.list("").await.err(),
                store.delete(&key("k/a")).await.err(),
                store.check().await.err(),
            ];
            for error in errors {
                let error = error.expect("refused");
                let fits = match fault {
                    Fault::Full => matches!(error, StoreError::Full { .. }),
                    Fault::PermissionDenied => {
                        matches!(error, StoreError::PermissionDenied { .. })
                    }
                    _ => error.is_transient(),
                };
                assert!(fits, "{fault:?} became {error:?}");
            }
            assert_eq!(memory.keys(), [key("k/a"), key("k/b")]);
        }
    }

    #[tokio::test]
    async fn bodies_of_puts() {
        let (memory, store) = store(always(Verb::Put, Fault::CutBody(3)));
        let error = store.put(&key("n"), body("12345")).await.expect_err("cut");
        assert!(error.is_transient());
        assert_eq!(memory.content(&key("n")), None);
        let cases = [
            (Fault::Truncate(3), "123"),
            (Fault::CorruptByte(0), "02345"),
            (Fault::LostReply, "12345"),
        ];
        for (fault, stored) in cases {
            let lost = fault == Fault::LostReply;
            store.set_plan(always(Verb::Put, fault));
            let result = store.put(&key("n"), body("12345")).await;
            assert_eq!(result.is_err_and(|error| error.is_transient()), lost);
            assert_eq!(memory.content(&key("n")).expect("stored"), stored);
        }
        let failing = stream::iter([Err(BodyError::new("the source is gone"))]).boxed();
        let error = store.put(&key("n"), failing).await.expect_err("no body");
        assert!(
            matches!(error, StoreError::BodyFailed { .. }),
            "its own, not a cut"
        );
    }

    #[tokio::test]
    async fn bodies_of_gets() {
        let (_, store) = store(always(Verb::Get, Fault::CutBody(3)));
        let a = key("k/a");
        assert!(
            read_all(&store, &a, 99)
                .await
                .expect_err("cut")
                .is_transient()
        );
        store.set_plan(always(Verb::Get, Fault::Truncate(3)));
        assert_eq!(read_all(&store, &a, 99).await.expect("silent"), "012");
        assert_eq!(store.get(&a).await.expect("opens").meta.size, 3);
        store.set_plan(always(Verb::Get, Fault::CorruptByte(1)));
        assert_eq!(
            read_all(&store, &a, 99).await.expect("silent"),
            "0023456789"
        );
    }

    #[tokio::test]
    async fn lists_can_be_stale_or_cut() {
        let (_, store) = store(always(Verb::List, Fault::OmitFromList("k/a".into())));
        let entries: Vec<_> = store.list("").await.expect("listed").collect().await;
        assert_eq!(entries.len(), 1);
        store.set_plan(always(Verb::List, Fault::CutBody(1)));
        let entries: Vec<_> = store.list("").await.expect("listed").collect().await;
        assert!(entries[0].is_ok() && entries[1].is_err() && entries.len() == 2);
    }

    #[tokio::test]
    async fn a_store_may_ignore_the_condition() {
        let (memory, store) = store(always(Verb::PutIfAbsent, Fault::IgnoreCondition));
        let outcome = store.put_if_absent(&key("k/b"), body("new")).await;
        assert!(matches!(outcome, Ok(PutOutcome::Created(_))));
        assert_eq!(memory.content(&key("k/b")).expect("there"), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn time_passes_as_told() {
        let delay = Duration::from_hours(1);
        let (_, store) = store(always(Verb::Head, Fault::Delay(delay)));
        let start = tokio::time::Instant::now();
        store.head(&key("k/a")).await.expect("late");
        assert!(start.elapsed() >= delay);
        store.set_plan(always(Verb::Head, Fault::Hang));
        let a = key("k/a");
        let head = store.head(&a);
        tokio::time::timeout(delay, head).await.expect_err("never");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_may_take_its_time_with_a_body() {
        let rate = NonZeroU64::new(2).expect("not 0");
        let (memory, store) = store(always(Verb::Put, Fault::Rate(rate)));
        let start = tokio::time::Instant::now();
        store.put(&key("k/b"), body("four")).await.expect("put");
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!(memory.content(&key("k/b")).expect("there"), "four");
    }

    #[tokio::test]
    async fn the_switch() {
        let (_, store) = store(FaultPlan::new());
        let switch = store.switch();
        for down in [true, false, true] {
            switch.set_down(down);
            assert_eq!(store.check().await.is_err(), down);
        }
    }

    #[tokio::test]
    async fn the_control_file() {
        let folder = tempfile::tempdir().expect("made");
        let path = folder.path().join("faults");
        let memory = Arc::new(MemoryStore::new());
        let store = FaultyStore::with_control_file(memory, path.clone());
        store.check().await.expect("no file, no fault");
        std::fs::write(&path, "check down").expect("written");
        assert!(store.check().await.expect_err("down").is_transient());
        store.head(&key("a")).await.expect("only check is down");
    }
}
