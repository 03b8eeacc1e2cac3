//! A store that fails as it is told.
use std::sync::Arc;
use std::path::PathBuf;
use std::time::Duration;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use crate::{Body, Object, ObjectKey, ObjectMeta, PutOutcome, Store, StoreError};

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Every verb.
    Any,
    /// [`Store::put_if_absent`].
    PutIfAbsent,
    /// [`Store::put`].
    Put,
    /// [`Store::get`].
    Get,
    /// [`Store::head`].
    Head,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
    /// [`Store::check`].
    Check,
}

/// Which of the calls that a rule applies to fail. The first call is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurrence {
    /// All.
    Always,
    /// One.
    Nth(u64),
    /// This one and all after it.
    From(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Fails with [`StoreError::Unavailable`] before anything is done.
    Unavailable,
    /// Fails with [`StoreError::Full`]; a put reads its body first, and stores nothing.
    Full,
    /// Fails with [`StoreError::PermissionDenied`].
    PermissionDenied,
    /// Waits, then goes on.
    Delay(Duration),
    /// Never answers.
    Hang,
    /// The connection breaks after so many bytes of the body: [`StoreError::Unavailable`].
    CutBody(u64),
    /// The object is (get) or becomes (put) that short, and nobody says so.
    Truncate(u64),
    /// The byte at this position is garbled on its way, and nobody says so.
    CorruptByte(u64),
    /// Does the work, then fails with [`StoreError::Unavailable`].
    LostReply,
    /// [`Store::put_if_absent`] overwrites, as a store does that ignores the condition.
    IgnoreCondition,
    /// [`Store::list`] leaves out the keys with this prefix, as a stale list does.
    OmitFromList(String),
}

/// A script of faults.
#[derive(Debug, Default)]
pub struct FaultPlan {}

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a fault for calls of a verb.
    #[must_use]
    pub fn fail(self, verb: Verb, occurrence: Occurrence, fault: Fault) -> Self {
        self.fail_keys("", verb, occurrence, fault)
    }
    /// Adds a fault for calls of a verb whose key (or list prefix) starts with `prefix`.
    #[must_use]
    pub fn fail_keys(self, _prefix: &str, _verb: Verb, _occurrence: Occurrence, _fault: Fault) -> Self {
        self
    }
}

/// Takes a store down and up again.
#[derive(Debug, Clone)]
pub struct FaultSwitch {}

impl FaultSwitch {
    /// While down, every call fails with [`StoreError::Unavailable`].
    pub fn set_down(&self, _down: bool) {}
}

/// A store that fails as it is told.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
}

impl FaultyStore {
    /// Wraps a store with a script.
    pub fn new(inner: Arc<dyn Store>, _plan: FaultPlan) -> Self {
        Self { inner }
    }
    /// Wraps a store with faults that are read from a file before every call.
    pub fn with_control_file(inner: Arc<dyn Store>, _path: PathBuf) -> Self {
        Self { inner }
    }
    /// Replaces the script; counting starts anew.
    pub fn set_plan(&self, _plan: FaultPlan) {}
    /// A handle to take the store down.
    #[must_use]
    pub fn switch(&self) -> FaultSwitch {
        FaultSwitch {}
    }
    /// How many calls of a verb were made so far.
    #[must_use]
    pub fn calls(&self, _verb: Verb) -> u64 {
        0
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent(key, body).await
    }
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<ObjectMeta, StoreError> {
        self.inner.put(key, body).await
    }
    async fn get(&self, key: &ObjectKey) -> Result<Object, StoreError> {
        self.inner.get(key).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}
