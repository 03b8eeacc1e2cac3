//! A store that could not be opened, for a program that goes on without it: each request says why.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{
    Body, Looking, Misconfiguration, Object, ObjectKey, ObjectMeta, Ours, PutOutcome, Store,
    StoreError,
};

/// A store of which only the reason is known why it cannot be used.
#[derive(Debug, Clone)]
pub struct UnusableStore {
    location: String,
    reason: String,
}

impl UnusableStore {
    /// `location` and `reason` stand in each error; no secret may be in them.
    #[must_use]
    pub fn new(location: String, reason: String) -> Self {
        Self { location, reason }
    }

    fn error(&self) -> StoreError {
        StoreError::Misconfigured {
            location: self.location.clone(),
            problem: Misconfiguration::BadOptions,
            reason: self.reason.clone(),
            source: None,
        }
    }
}

#[async_trait]
impl Store for UnusableStore {
    async fn put_if_absent(&self, _: &ObjectKey, _: Body) -> Result<PutOutcome, StoreError> {
        Err(self.error())
    }

    async fn put(&self, _: &ObjectKey, _: Body) -> Result<ObjectMeta, StoreError> {
        Err(self.error())
    }

    async fn get(&self, _: &ObjectKey) -> Result<Object, StoreError> {
        Err(self.error())
    }

    async fn head(&self, _: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        Err(self.error())
    }

    async fn confirm(&self, _: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        Err(self.error())
    }

    async fn list(
        &self,
        _: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, StoreError>>, StoreError> {
        Err(self.error())
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
        Err(self.error())
    }

    async fn discard_unfinished(&self, _: Duration, _: Ours) -> Result<u64, StoreError> {
        Err(self.error())
    }

    fn looking(&self) -> Looking {
        Looking::ByName
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    async fn check(&self) -> Result<(), StoreError> {
        Err(self.error())
    }
}
