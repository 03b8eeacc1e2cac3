//! Names that are being created by this process, for a store that does not itself make sure that only one writer
//! creates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::ObjectKey;

/// The names.
#[derive(Debug, Default)]
pub(crate) struct NameLocks {
    locks: Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl NameLocks {
    /// Waits until nobody else of this process creates the name.
    pub(crate) async fn lock(&self, key: &ObjectKey) -> OwnedMutexGuard<()> {
        let name = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Names that nobody holds or waits for are forgotten, so the map is as long as the work at hand.
            locks.retain(|_, name| Arc::strong_count(name) > 1);
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        name.lock_owned().await
    }
}
