//! The store's value: what its verbs share.

use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use super::client::{self, Container};
use super::options::{AzureChecksum, AzureOptions, BLOCK_BYTES_MIN};
use crate::http::name_locks::NameLocks;
use crate::http::slots::Slots;
use crate::{Misconfiguration, ObjectKey, RetryPolicy, StoreError};

/// Objects in a container, below a prefix. Clones share connections, credentials and memory.
#[derive(Debug, Clone)]
pub struct AzureStore {
    pub(super) inner: Arc<AzureInner>,
}

#[derive(Debug)]
pub(super) struct AzureInner {
    pub(super) client: Arc<Container>,
    pub(super) checksum: AzureChecksum,
    pub(super) slots: Slots,
    pub(super) retry: RetryPolicy,
    /// Whether it is at the account's usual address, where documents say what it does.
    pub(super) is_azure: bool,
    /// Whether `Put Blob` lets only one writer create.
    pub(super) creation_guarded: OnceCell<bool>,
    /// Whether `Put Block List` does.
    pub(super) assembly_guarded: OnceCell<bool>,
    /// Whether the server compares sums.
    pub(super) sums_compared: OnceCell<bool>,
    pub(super) names: NameLocks,
    /// Blobs of trials that are still to be deleted: a drop cannot wait for the store.
    pub(super) trials: Arc<Mutex<Vec<ObjectKey>>>,
}

impl AzureStore {
    /// Sets the store up. Reads the file of certificates, if there is one, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misconfigured`] when an option cannot be used.
    pub fn open(options: &AzureOptions) -> Result<Self, StoreError> {
        let client = Container::new(options).map_err(|reason| StoreError::Misconfigured {
            location: client::location(&options.container, &options.prefix),
            problem: Misconfiguration::BadOptions,
            reason,
            source: None,
        })?;
        let inner = AzureInner {
            client: Arc::new(client),
            checksum: options.checksum,
            slots: Slots::new(options.upload_memory_bytes, BLOCK_BYTES_MIN),
            retry: options.retry.clone(),
            is_azure: options.endpoint.is_none(),
            creation_guarded: OnceCell::new(),
            assembly_guarded: OnceCell::new(),
            sums_compared: OnceCell::new(),
            names: NameLocks::default(),
            trials: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
