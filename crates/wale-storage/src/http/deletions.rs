//! Deleting in a store that deletes one object in each request, or retains some.

use std::future::Future;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream;

use crate::{ObjectKey, StoreError};

/// Objects that are asked for the end of their retention in one call; the others say only that they are retained.
const ENDS_ASKED: usize = 20;

/// Makes a request for each of these, so many at a time. Gives those that failed, and why.
pub(crate) async fn each<T, F, E>(
    of: Vec<T>,
    at_a_time: usize,
    delete: impl Fn(T) -> F,
) -> Vec<(T, E)>
where
    T: Clone,
    F: Future<Output = Result<(), E>>,
{
    // Collected first: a stream that borrows may not be held across waiting.
    let deletions: Vec<_> = of
        .into_iter()
        .map(|one| {
            let deletion = delete(one.clone());
            async move { deletion.await.err().map(|error| (one, error)) }
        })
        .collect();
    let failed = stream::iter(deletions).buffer_unordered(at_a_time);
    failed.filter_map(std::future::ready).collect().await
}

/// A store that may retain objects.
#[async_trait]
pub(crate) trait Retains: Sync {
    /// Until when, if the store says it.
    async fn retained_until(&self, key: &ObjectKey) -> Option<DateTime<Utc>>;

    /// The same error; that an object is retained also says until when.
    async fn with_end(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Retained {
                key,
                until: None,
                source,
            } => {
                let until = self.retained_until(&key).await;
                StoreError::Retained { key, until, source }
            }
            other => other,
        }
    }

    /// The same of some of many.
    async fn with_ends(
        &self,
        mut failed: Vec<(ObjectKey, StoreError)>,
    ) -> Vec<(ObjectKey, StoreError)> {
        let retained = failed
            .iter_mut()
            .filter(|(_, error)| matches!(error, StoreError::Retained { .. }));
        for (_, error) in retained.take(ENDS_ASKED) {
            let bare = std::mem::replace(error, StoreError::unavailable("", ""));
            *error = self.with_end(bare).await;
        }
        failed
    }
}
