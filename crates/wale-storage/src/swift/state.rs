//! The store's value: what its verbs share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::OnceCell;

use super::client::{self, SharedSwift, SwiftClient};
use super::leftovers::Remains;
use super::options::{SEGMENT_BYTES_MIN, SwiftOptions};
use crate::http::name_locks::NameLocks;
use crate::http::slots::Slots;
use crate::{Misconfiguration, RetryPolicy, StoreError};

/// Objects in a container, below a prefix. Clones share connections, the token and memory.
#[derive(Debug, Clone)]
pub struct SwiftStore {
    pub(super) inner: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) client: SharedSwift,
    pub(super) slots: Slots,
    pub(super) retry: RetryPolicy,
    /// Whether the server looks at `If-None-Match: *`; not asked yet is taken for yes.
    pub(super) looks_first: OnceCell<bool>,
    pub(super) names: NameLocks,
    pub(super) remains: Remains,
    pub(super) deletes_singly: AtomicBool,
}

impl SwiftStore {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &SwiftOptions) -> Result<Self, StoreError> {
        let client = SwiftClient::new(options).map_err(|reason| StoreError::Misconfigured {
            location: client::location(&options.container, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        })?;
        let inner = State {
            client: Arc::new(client),
            slots: Slots::new(options.upload_memory_bytes, SEGMENT_BYTES_MIN),
            retry: options.retry.clone(),
            looks_first: OnceCell::new(),
            names: NameLocks::default(),
            remains: Remains::default(),
            deletes_singly: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
