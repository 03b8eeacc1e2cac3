//! The store's value: what its verbs share.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::client::{self, Container};
use super::options::{AzureChecksum, AzureOptions, BLOCK_BYTES_MIN};
use crate::http::slots::Slots;
use crate::http::writes::Uploads;
use crate::{Misconfiguration, StoreError};

/// Objects in a container, below a prefix. Clones share connections, credentials and memory.
#[derive(Debug, Clone)]
pub struct AzureStore {
    pub(super) inner: Arc<AzureInner>,
}

#[derive(Debug)]
pub(super) struct AzureInner {
    pub(super) client: Arc<Container>,
    pub(super) checksum: AzureChecksum,
    pub(super) uploads: Uploads,
    /// Whether it is at the account's usual address, where documents say what it does.
    pub(super) is_azure: bool,
    /// Whether the server compares sums.
    pub(super) sums_compared: OnceCell<bool>,
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
            uploads: Uploads::new(
                Slots::new(options.upload_memory_bytes, BLOCK_BYTES_MIN),
                &options.retry,
            ),
            is_azure: options.endpoint.is_none(),
            sums_compared: OnceCell::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
