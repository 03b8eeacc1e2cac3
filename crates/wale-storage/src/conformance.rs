//! One suite of tests for every store.
use std::sync::Arc;

use crate::Store;

/// Checks that a store keeps the promises of [`Store`]. Panics where it does not.
pub async fn conformance(store: Arc<dyn Store>) {
    store.check().await.expect("the store answers");
}
